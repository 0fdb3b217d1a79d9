"""What people do with networks of their own on the first day: right numbers, nothing of theirs changed, or one line."""

from __future__ import annotations

import threading
import types

import numpy as np
import pytest
import torch
from own_networks import QUICK, network, normals, seeded
from torch import fx, nn
from torch.nn import functional as F

import quide
from quide import cli, evaluate, ptq
from quide.cli import probe


def two_layers() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)))


X, Y = normals(40, 6), torch.arange(40) % 4
PICTURES = normals(40, 3, 8, 8)


# --- nothing of the caller's is changed ------------------------------------------------------------------------------


def shifting() -> nn.Module:
    return network(lambda net, x: net.fc(x.flatten(1).sub_(1)), fc=nn.Linear(192, 4))


def calls(model: nn.Module, images: torch.Tensor) -> dict:
    """Public functions, each of a model and images alone."""
    other = PICTURES.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # the same, as numpy's pictures lie
    return {
        "sweep": lambda: quide.sweep(model, images, Y, other, (32, 8), **QUICK),
        "exhaustive": lambda: evaluate.exhaustive(model, images, Y, other, (8, 4)),
        "sensitivity": lambda: quide.sensitivity(model, images, Y, other),
        "diagnose": lambda: quide.diagnose(model, images, Y, other),
        "predict": lambda: evaluate.predict(model, [images]),
        "predict a graph": lambda: evaluate.predict(fx.symbolic_trace(model), [images]),
        "probe": lambda: probe.probe(model, probe.Data(images, Y, other), (8,), passes=2),
        "intensity": lambda: quide.arithmetic_intensity(model, images),
    }


@pytest.mark.parametrize("function", calls(None, None))
def test_images_stay_whatever_the_network_does_to_them_and_in_whichever_order_they_lie(function):
    images, model = PICTURES.clone(), shifting()
    calls(model, images)[function]()
    assert torch.equal(images, PICTURES)


@pytest.mark.parametrize("function", ["predict", "intensity", "sweep"])
def test_each_part_stays_in_its_mode(function):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4)).train()
    model[1].eval()
    calls(model, PICTURES)[function]()
    assert [part.training for part in model] == [True, False, True, True]


# --- what is scored --------------------------------------------------------------------------------------------------


def half(outputs, labels):
    return 0.5


def losing(outputs, labels):
    raise KeyError("x")


def reusing(outputs, labels):
    return float((labels.sub_(1) == -1).all())


SCORED = {
    "another number of labels": (X, Y[:30], half, "of the same number"),
    "no images": (X[:0], Y[:0], half, "at least one"),
    "NaN": (X.where(X < 1, torch.nan), Y, half, "NaN or infinite"),
    "labels in a list": (X, Y.tolist(), half, "labels must be a tensor"),
    "a score that fails": (X, Y, losing, r"score fails \(KeyError"),
    "a score of one argument": (X, Y, lambda outputs: 1, "score fails"),
}


@pytest.mark.parametrize("kind", SCORED)
@pytest.mark.parametrize("batched", [False, True])
def test_a_score_of_ones_own_does_not_make_up_for_wrong_data(kind, batched):
    images, labels, score, message = SCORED[kind]
    given = ([(images, labels)], None) if batched else (images, labels)
    with pytest.raises(ValueError, match=message):
        quide.sweep(two_layers(), *given, X, (8,), score=score, **QUICK)
    with pytest.raises(ValueError, match=message):
        evaluate.exhaustive(two_layers(), *given, X, (8,), score=score)


def test_a_score_that_changes_the_labels_changes_a_copy():
    found = evaluate.exhaustive(two_layers(), X, torch.zeros(40), X, (8, 4), score=reusing)
    assert set(found.values()) == {1}


@pytest.mark.parametrize("function", [quide.sensitivity, quide.diagnose])
def test_where_accuracy_is_lost_asks_for_a_score_a_class(function):
    one = nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())
    with pytest.raises(ValueError, match="one output an image"):
        function(one, X, Y % 2, X)
    with pytest.raises(ValueError, match="labels lie in 40..43"):
        function(two_layers(), X, Y + 40, X)
    with pytest.raises(ValueError, match="one score a class"):
        function(nn.Sequential(nn.Conv2d(3, 4, 1)), PICTURES, Y, PICTURES)


def test_predict_takes_all_images_and_asks_for_a_score_a_class():
    model = two_layers()
    assert torch.equal(evaluate.predict(model, X), evaluate.predict(model, [X]))
    with pytest.raises(ValueError, match="one output an image"):
        evaluate.predict(nn.Linear(6, 1), [X])


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.uint16, torch.uint64])
def test_labels_are_whole_numbers_of_any_type(kind):
    wanted, found = (quide.sweep(two_layers(), X, labels, X, (8,), **QUICK) for labels in (Y, Y.to(kind)))
    assert found.attrs["correct"] == wanted.attrs["correct"]
    with pytest.raises(ValueError, match="labels must be whole numbers"):
        quide.sweep(two_layers(), X, Y.to(torch.complex64), X, (8,), **QUICK)


@pytest.mark.parametrize("size", [0, -3, "64", True])
def test_a_batch_has_an_image_at_least(size):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
        quide.sweep(two_layers(), X, Y, X, (8,), batch_size=size, **QUICK)


def test_one_iterator_cannot_serve_calibration_and_test():
    batches = iter([(X, Y)] * 20)
    with pytest.raises(ValueError, match="images and calibration are one iterator"):
        quide.sweep(two_layers(), batches, None, batches, (8,), **QUICK)
    both = [(X, Y)] * 2  # which can be gone through again
    assert evaluate.exhaustive(two_layers(), both, None, both, (8,)) == evaluate.exhaustive(two_layers(), X, Y, X, (8,))


# --- arithmetic intensity --------------------------------------------------------------------------------------------


def test_intensity_counts_layers_called_by_keyword_and_leaves_what_the_network_counts():
    def counting(net, x):
        net.seen.add_(1)
        return net.conv(input=x)

    model = network(counting, conv=nn.Conv2d(3, 4, 3))
    model.register_buffer("seen", torch.zeros(1))
    assert quide.arithmetic_intensity(model, PICTURES).flops == 2 * 36 * 4 * 27
    assert model.seen == 0 and not model.conv._forward_hooks


def test_intensity_takes_widths_of_numpy():
    def held(bits):
        found = quide.arithmetic_intensity(two_layers(), X, bits, as_published=True).layers
        return found[["weight_bytes", "bias_bytes"]].to_numpy().tolist()

    assert held(np.int64(4)) == held(4) and held(np.array([4, 8])) == held([4, 8])


@pytest.mark.parametrize("images", [X.numpy(), PICTURES, None])
def test_intensity_of_what_the_network_does_not_take_is_refused_in_one_line(images):
    with pytest.raises(ValueError, match=r"model Sequential does not take the example_input \(") as caught:
        quide.arithmetic_intensity(two_layers(), images)
    assert "\n" not in str(caught.value)


# --- networks --------------------------------------------------------------------------------------------------------


def numbered(net, x):
    net.calls += 1
    return net.fc(x) * net.calls


def counter(calls) -> nn.Module:
    model = network(numbered, fc=nn.Linear(6, 4))
    model.register_buffer("calls", calls) if isinstance(calls, torch.Tensor) else setattr(model, "calls", calls)
    return model


class MonteCarlo(nn.Dropout):
    def train(self, mode=True):
        return super().train(True)


def computed() -> nn.Module:
    model = two_layers()
    model.cached = model(X)
    return model


def locked() -> nn.Module:
    model = two_layers()
    model.lock = threading.Lock()
    return model


def hooked() -> nn.Module:
    model = two_layers()
    model.register_forward_pre_hook(lambda part, given: (given[0] * 2 + 1,))
    return model


def patched() -> nn.Module:
    model = two_layers()
    model.forward = types.MethodType(lambda self, images: nn.Sequential.forward(self, images * 2), model)
    return model


def named(name: str) -> nn.Module:
    return network(lambda net, x: net.last(getattr(net, name)(x)), last=nn.Linear(6, 4), **{name: nn.Linear(6, 6)})


REFUSED = {
    "a counter": (lambda: counter(torch.zeros(1)), "other outputs each time"),
    "a counter in Python": (lambda: counter(0), "other outputs each time"),
    "a little dropout": (lambda: network(lambda net, x: F.dropout(net.fc(x), 1e-4), fc=nn.Linear(6, 4)), "each time"),
    "dropout left on": (lambda: nn.Sequential(nn.Linear(6, 6), MonteCarlo(1e-4), nn.Linear(6, 4)), "each time"),
    "a computed tensor": (computed, "cannot be copied .*remove_weight_norm"),
    "a lock": (locked, "cannot be copied"),
    "no values": (lambda: two_layers().to("meta"), "0.weight of model Sequential is on the meta device"),
    "a compiled part": (lambda: nn.Sequential(torch.compile(two_layers()), nn.ReLU()), "pass .* model.0._orig_mod"),
    "a scripted part": (lambda: nn.Sequential(torch.jit.script(two_layers()), nn.ReLU()), "model.0 is a TorchScript"),
    "hooks": (hooked, r"pass torch.nn.Sequential\(model\)"),
    "a forward put on it": (patched, r"pass torch.nn.Sequential\(model\)"),
    "a name of fx": (lambda: named("code"), "code of model Own has a name"),
    "another name of fx": (lambda: named("meta"), "meta of model Own has a name"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_another_network_is_refused_in_one_line_and_draws_nothing(kind):
    build, message = REFUSED[kind]
    model, before = build(), torch.get_rng_state()
    with pytest.raises(ValueError, match=message) as caught:
        quide.quantize(model, 8, X)
    assert "\n" not in str(caught.value) and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("build", [hooked, patched, lambda: named("code"), lambda: named("meta")])
def test_the_remedy_of_the_message_works(build):
    model = build()
    with torch.no_grad():
        assert torch.allclose(quide.quantize(nn.Sequential(model), 24, X)(X), model(X), atol=1e-4)


class Spread(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, images, *rest, **options):
        return self.fc(images)


class Packed(Spread):
    def forward(self, *images):
        return self.fc(images[0])


@pytest.mark.parametrize("kind", [Spread, Packed])
def test_inputs_without_number_are_left_out(kind):
    model = kind()
    with torch.no_grad():
        assert torch.allclose(quide.quantize(model, 24, X)(X), model(X), atol=1e-4)


def test_layers_called_by_keyword_are_tried_at_all_widths():
    model = network(lambda net, x: net.b(input=net.a(input=x).relu()), a=nn.Linear(192, 192), b=nn.Linear(192, 4))
    images = PICTURES.flatten(1)
    for bits, accuracy in evaluate.exhaustive(model, images, Y, images, (8, 2)).items():
        alone = evaluate.predict(quide.quantize(model, bits, images), images)
        assert accuracy == (alone == Y).double().mean().item()


def test_attention_that_is_kept_counts_once_and_is_not_called_unused():
    model = network(
        lambda net, x: net.fc(net.mix(x, x, x, need_weights=False)[0]), mix=nn.MultiheadAttention(6, 2),
        fc=nn.Linear(6, 4),
    )  # fmt: skip
    found = quide.sweep(model, X, Y, X, (32, (8,)), keep={"mix": 32}, **QUICK)
    assert found.attrs["left_float"] == {"mix": 4 * 36} and found.attrs["unused"] == []


def test_a_layer_that_nothing_reads_is_named_with_what_leaves_it_out():
    def forward(net, x):
        values = net.a(x)
        net.idle(x)
        return values

    model = network(forward, a=nn.Linear(6, 4), idle=nn.Linear(6, 3))
    with pytest.raises(ValueError, match=r"does not depend on idle; leave it out with keep={'idle': 32}"):
        evaluate.exhaustive(model, X, Y, X, (8, 4))
    assert len(evaluate.exhaustive(model, X, Y, X, (8, 4), keep={"idle": 32})) == 2


def test_a_table_of_positions_may_be_resized():
    model = network(
        lambda net, x: net.conv(x + F.interpolate(net.table, size=x.shape[2:], mode="bilinear")).flatten(1),
        conv=nn.Conv2d(3, 4, 8), table=nn.Parameter(normals(1, 3, 4, 4)),
    )  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(quide.quantize(model, 24, PICTURES)(PICTURES), model(PICTURES), atol=1e-3)


@pytest.mark.parametrize("scheme", ["BEST", {"rounding": "floor"}, None])
def test_a_scheme_is_one(scheme):
    with pytest.raises(ValueError, match=r"scheme must be a quide.Scheme"):
        quide.quantize(two_layers(), 8, X, scheme)
    with pytest.raises(ValueError, match=r"scheme must be a quide.Scheme"):
        quide.sensitivity(two_layers(), X, Y, X, scheme=scheme)
    with pytest.raises(ValueError, match=r"scheme must be a quide.Scheme"):
        quide.qat(two_layers(), (X, Y), 8, scheme, batch_norm="left")


def test_weights_of_half_precision_get_the_ranges_of_their_values():
    weight = normals(8, 64).to(torch.bfloat16)
    for bits in (2, 4, 8):
        ours, theirs = (ptq.prepared.weight_grid(each, bits, quide.BEST).scale for each in (weight, weight.float()))
        assert torch.equal(ours, theirs)


def test_the_channels_of_tokens_are_their_features():
    model = network(lambda net, x: net.b(net.a(x).relu()).mean(1), a=nn.Linear(6, 6), b=nn.Linear(6, 4))
    with torch.no_grad():
        model.a.weight[3] *= 50
        model.b.weight[:, 3] = 0
    images = normals(40, 5, 6)
    layers = quide.diagnose(model, images, evaluate.predict(model, images), images, 4).layers
    assert layers.activation_channel[0] == layers.weight_channel[0] == 3 and layers.activation_outlier[0] > 8


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_network_that_divides_by_its_images_comes_back(tmp_path):
    model = network(lambda net, x: net.fc((x - x.mean(1, True)) / x.std(1, keepdim=True)), fc=nn.Linear(6, 4))
    quantized = quide.quantize(model, 8, X)
    restored = quide.load(model, quide.save(quantized, tmp_path / "own.safetensors"))
    assert torch.equal(restored(X), quantized(X))
    with pytest.raises(ValueError, match="does not fit the model .*no convolution or Linear"):
        quide.load(nn.Flatten(), tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=r"model must be a torch.nn.Module"):
        quide.load(str(tmp_path / "own.safetensors"), model)


# --- widths ----------------------------------------------------------------------------------------------------------

WIDTHS = {
    "text": (lambda: quide.quantize(two_layers(), "8", X), "bits must be a width or one a layer, in order, got '8'"),
    "text of two sides": (lambda: quide.quantize(two_layers(), "W4A8", X), "got 'W4A8'"),
    "by name": (lambda: quide.quantize(two_layers(), {"0": 8, "2": 4}, X), "keep= takes widths by name"),
    "without order": (lambda: quide.quantize(two_layers(), {8, 4}, X), "in order"),
    "no dimension": (lambda: quide.quantize(two_layers(), np.array(8), X), r"bits must be whole .* got array\(8\)"),
    "a tensor": (lambda: quide.quantize(two_layers(), torch.tensor(8), X), r"bits must be whole .* got tensor\(8\)"),
    "a sweep of text": (lambda: quide.sweep(two_layers(), X, Y, X, "8,4"), r"such as \(32, 8\), got '8,4'"),
    "choices of text": (lambda: evaluate.exhaustive(two_layers(), X, Y, X, "84"), "choices must be .* got '8'"),
    "one choice": (lambda: evaluate.exhaustive(two_layers(), X, Y, X, 8), "choices must be one or more .* got 8"),
    "kept at text": (lambda: quide.quantize(two_layers(), 8, X, keep={"2": "8"}), "keep must be whole numbers"),
    "kept by number": (lambda: quide.quantize(two_layers(), 8, X, keep={2: 8}), "keep must map names"),
    "kept too late": (lambda: quide.quantize(two_layers(), 8, X, keep={"*": 8, "2": 32}), "keep names '2' after what"),
}


@pytest.mark.parametrize("kind", WIDTHS)
def test_widths_that_are_none_are_refused_by_the_argument_s_name(kind):
    call, message = WIDTHS[kind]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_widths_may_come_one_by_one():
    wanted = quide.quantize(two_layers(), (8, 4), X)(X)
    assert torch.equal(quide.quantize(two_layers(), (bits for bits in (8, 4)), X)(X), wanted)
    assert torch.equal(quide.quantize(two_layers(), np.array([8, 4]), X)(X), wanted)


# --- the command line ------------------------------------------------------------------------------------------------

BUILT = """
import torch
from torch import nn


def meta():
    return nn.Sequential(nn.Linear(6, 4)).to("meta")


def computed():
    model = nn.Sequential(nn.Linear(6, 4))
    model.cached = model(torch.zeros(2, 6))
    return model
"""


@pytest.mark.parametrize("command", ["sweep", "debug"])
@pytest.mark.parametrize(("name", "said"), [("meta", "is on the meta device"), ("computed", "cannot be copied")])
def test_the_command_names_what_is_wrong_with_a_network(command, name, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first.py").write_text(BUILT)
    np.savez("set.npz", images=X, labels=Y, calibration=X)
    with pytest.raises(SystemExit) as ended:
        cli.main([command, f"first.py:{name}", "--data", "set.npz", "--output", "out.json"])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and said in line and not (tmp_path / "out.json").exists()


# --- training --------------------------------------------------------------------------------------------------------

UNTRAINED = {
    "arrays": (two_layers, (X.numpy(), Y.numpy()), "train must be all images and all labels"),
    "named batches": (two_layers, [{"images": X, "labels": Y}], "train must be all images and all labels"),
    "labels above": (two_layers, (X, Y + 9), r"the loss of images \(40, 6\) and labels \(40,\), torch.int64, fails"),
    "labels of floats": (two_layers, (X, Y.float()), "torch.float32, fails"),
    "one output": (lambda: nn.Sequential(nn.Linear(6, 1)), (X, Y), "fails"),
    "half precision": (lambda: two_layers().half(), (X.half(), Y), r"pass model.float\(\)"),
}


@pytest.mark.parametrize("kind", UNTRAINED)
def test_what_cannot_be_trained_is_refused_in_one_line(kind):
    build, train, message = UNTRAINED[kind]
    with pytest.raises(ValueError, match=message) as caught:
        quide.qat(build(), train, 4)
    assert "\n" not in str(caught.value)


def test_a_list_of_both_trains_as_the_pair():
    ours, theirs = (quide.qat(two_layers(), train, 4, batch_size=16)(X) for train in ([X, Y], (X, Y)))
    assert torch.equal(ours, theirs)


OTHER = {
    "labels": lambda options: options | {"train": (X, (Y + 1) % 4)},
    "loss": lambda options: options | {"loss": nn.MultiMarginLoss()},
    "batches": lambda options: options | {"batch_size": 8},
    "precision": lambda options: options | {"mixed_precision": True},
}


@pytest.mark.parametrize("kind", OTHER)
def test_a_checkpoint_of_another_training_is_not_gone_on_from(kind, tmp_path):
    options = {"model": two_layers(), "train": (X, Y), "bits": 4, "batch_size": 16, "checkpoint": tmp_path / "kept.pt"}
    quide.qat(**options)
    other = OTHER[kind](options)
    assert quide.qat(**other).meta["qat"] == quide.qat(**other | {"checkpoint": None}).meta["qat"]


def test_another_default_device_than_the_networks_is_refused_in_one_line():
    model, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)), torch.randn(8, 3, 4, 4)
    with torch.device("meta"), pytest.raises(ValueError, match="is on cpu, torch's default device is meta"):
        quide.quantize(model, 4, images)
    assert quide.quantize(model, 4, images)(images).shape == (8, 2)
