"""Networks as people write them: quantized right, checked against what was computed by hand, or refused by name."""

from __future__ import annotations

import copy
import math
import re
import sys

import numpy as np
import pytest
import torch
from own_networks import QUICK, network, normals, seeded
from torch import nn
from torch.nn import functional as F

import quide
from quide import evaluate, latency
from quide.evaluate import knees
from quide.ptq.prepared import prepare
from quide.ptq.width import Kept, Width


def alike(ours: torch.Tensor, theirs: torch.Tensor, share: float = 1e-4) -> bool:
    return float((ours - theirs).abs().max()) <= share * float(theirs.abs().max())


# --- batch norms -----------------------------------------------------------------------------------------------------


class OwnNorm(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels, eps=1e-3)


class ActivatedNorm(nn.BatchNorm2d):
    def forward(self, values):
        return super().forward(values).relu()


NORMS = {
    "tokens": (lambda: [nn.Linear(6, 5), nn.BatchNorm1d(5)], (4, 5, 6), False),
    "features": (lambda: [nn.Linear(6, 5), nn.BatchNorm1d(5)], (4, 6), True),
    "no affine": (lambda: [nn.Linear(6, 5), nn.BatchNorm1d(5, affine=False)], (4, 6), True),
    "images of one row": (lambda: [nn.Linear(6, 5), nn.BatchNorm2d(3)], (4, 3, 5, 6), False),
    "subclass": (lambda: [nn.Conv2d(3, 5, 3), OwnNorm(5)], (4, 3, 6, 6), True),
    "synchronized": (lambda: [nn.Conv2d(3, 5, 3), nn.SyncBatchNorm(5)], (4, 3, 6, 6), True),
    "with an activation": (lambda: [nn.Conv2d(3, 5, 3), ActivatedNorm(5)], (4, 3, 6, 6), False),
}


@pytest.mark.parametrize("kind", NORMS)
def test_a_batch_norm_is_folded_only_where_that_is_the_same_function(kind):
    build, shape, folded = NORMS[kind]
    model = seeded(lambda: nn.Sequential(*build()))
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.2, 3)
    images = normals(*shape)
    prepared = prepare(model, images)
    assert alike(prepared.at(32)(images), model(images))
    assert prepared.unfolded == ([] if folded else ["1"])


def test_a_batch_norm_with_a_hook_of_the_user_s_stays():
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()))
    model[1].register_forward_hook(lambda part, given, output: output * 2)
    images = normals(4, 3, 6, 6)
    assert alike(quide.quantize(model, 32, images)(images), model(images))


# --- what would stay in float ----------------------------------------------------------------------------------------

WEIGHT = nn.Parameter(normals(6, 6))
LEFT = {
    "linear": (lambda net, x: net.fc(F.linear(x, net.w)), {"w": WEIGHT}, "weight w .*linear"),
    "product": (lambda net, x: net.fc(x @ net.w), {"w": WEIGHT}, "weight w .*matmul"),
    "made of a weight": (lambda net, x: net.fc(x @ net.w.tanh().t()), {"w": WEIGHT}, "weight w"),
    "einsum": (lambda net, x: net.fc(torch.einsum("ni,io->no", x, net.w)), {"w": WEIGHT}, "weight w .*einsum"),
    "of a layer": (lambda net, x: net.fc(F.linear(net.fc(x), net.fc.weight)), {}, "weight fc.weight"),
    "bilinear": (lambda net, x: net.fc(net.part(x, x)), {"part": nn.Bilinear(6, 6, 6)}, "part .* a Bilinear"),
    "gru": (lambda net, x: net.fc(net.part(x)[0]), {"part": nn.GRU(6, 6)}, "part .* a GRU"),
    "cell": (lambda net, x: net.fc(net.part(x)), {"part": nn.GRUCell(6, 6)}, "part .* a GRUCell"),
    "attention": (
        lambda net, x: net.fc(net.part(x, x, x)[0]), {"part": nn.MultiheadAttention(6, 2)}, "part .* MultiheadAttention"
    ),
    "one dimension": (
        lambda net, x: net.fc(net.part(x.unsqueeze(1)).squeeze(1)), {"part": nn.Conv1d(1, 1, 1)}, "part .* a Conv1d"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEFT)
def test_weights_that_would_stay_in_float_are_refused_with_the_remedy(kind):
    forward, parts, message = LEFT[kind]
    model = network(forward, fc=nn.Linear(6, 6), **parts)
    with pytest.raises(ValueError, match=f"{message}.*keep={{'.*': 32}}") as caught:
        quide.quantize(model, 2, normals(5, 6))
    assert "\n" not in str(caught.value)


def test_what_is_kept_in_float_counts_as_such():
    model = network(lambda net, x: net.fc(net.rnn(x)[0]), rnn=nn.LSTM(6, 8), fc=nn.Linear(8, 4))
    images = normals(40, 6)
    labels = evaluate.predict(model, [images])
    found = [
        quide.sweep(model, images, labels, images, (32, 2), keep={"rnn": 32}, size_weighted=weighted, **QUICK)
        for weighted in (False, True)
    ]
    held = sum(value.numel() for name, value in model.rnn.named_parameters() if "weight" in name)
    assert found[0].attrs["left_float"] == {"rnn": held}
    assert list(found[0].compression) == [1, pytest.approx(64 / 34)]
    assert found[1].compression[1] == pytest.approx(32 * (held + 32) / (32 * held + 2 * 32))


def test_products_of_activations_and_tables_of_positions_are_no_layers():
    model = network(
        lambda net, x: net.fc((x + net.positions) @ x.transpose(1, 2)).mean(1),
        positions=nn.Parameter(normals(1, 3, 6)), fc=nn.Linear(3, 4),
    )  # fmt: skip
    prepared = prepare(model, normals(5, 3, 6))
    assert prepared.left_float == {"positions": 18} and prepared.layers == ["fc"]


class OwnConv(nn.Conv2d):
    def __init__(self, channels):
        super().__init__(3, channels, 3, bias=False)


class Standardized(nn.Conv2d):
    def forward(self, values):
        return F.conv2d(values, self.weight - self.weight.mean(), self.bias)


def test_a_subclass_is_quantized_as_its_kind_unless_it_computes_otherwise():
    images = normals(4, 3, 6, 6)
    model = seeded(lambda: nn.Sequential(OwnConv(5), nn.Flatten(), nn.Linear(80, 3)))
    plain = seeded(lambda: nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.Flatten(), nn.Linear(80, 3)))
    plain.load_state_dict(model.state_dict())
    assert torch.equal(quide.quantize(model, 4, images)(images), quide.quantize(plain, 4, images)(images))
    with pytest.raises(ValueError, match="layer 0 of .* is a Standardized with a forward of its own"):
        quide.quantize(nn.Sequential(Standardized(3, 5, 3), nn.Flatten(), nn.Linear(80, 3)), 4, images)


# --- changes in place ------------------------------------------------------------------------------------------------


def _earlier_reader(net, x):
    x = net.a(x)
    short = net.b(x)
    return net.c(net.relu(x)) + short


def _later_change(net, x):
    y = net.a(x)
    z = net.b(y)
    y.mul_(3)
    return net.c(y + z)


def _unused_result(net, x):
    y = net.a(x)
    y.relu_()
    return net.c(net.b(y))


def _through_a_view(net, x):
    y = net.a(x)
    view = y.view(-1, 2, 3)
    z = net.b(y)
    view.mul_(-2)
    return net.c(y + z)


@pytest.mark.parametrize("forward", [_earlier_reader, _later_change, _unused_result, _through_a_view])
@pytest.mark.parametrize("site", ["output", "relu", "input"])
def test_every_configuration_is_right_whatever_is_changed_in_place(forward, site):
    layers = {"a": nn.Linear(6, 6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 6), "relu": nn.ReLU(inplace=True)}
    model, images = network(forward, **layers), normals(200, 6)
    labels = evaluate.predict(model, [images])
    scheme = quide.Scheme(activation_site=site)
    assert alike(quide.quantize(model, 20, images, scheme)(images), model(images), 1e-3)
    found = evaluate.exhaustive(model, images, labels, images, (8, 2), scheme)
    for bits, accuracy in found.items():
        alone = quide.quantize(model, bits, images, scheme)
        assert accuracy == (evaluate.predict(alone, [images]) == labels).double().mean().item()
    assert len(set(found.values())) > 1


def test_a_network_that_changes_its_input_leaves_the_caller_s():
    model, images = network(lambda net, x: net.fc(x.sub_(0.5).div_(0.25)), fc=nn.Linear(6, 4)), normals(150, 6)
    with torch.no_grad():
        labels, before = model(images.clone()).argmax(1), images.clone()
    found = quide.sweep(model, images, labels, images, (32, 24, 16), **QUICK)
    assert list(found.accuracy) == [1, 1, 1]
    assert evaluate.exhaustive(model, images, labels, images, (24, 16)) == {(24,): 1, (16,): 1}
    assert torch.equal(evaluate.predict(model, [images]), labels)
    assert torch.equal(images, before)


def test_a_network_that_keeps_a_count_is_refused():
    def forward(net, x):
        net.seen.add_(1)
        return net.fc(x) * net.seen

    model = network(forward, fc=nn.Linear(6, 4), seen=nn.Parameter(torch.ones(1), requires_grad=False))
    with pytest.raises(ValueError, match="changes a parameter or buffer of its own"):
        quide.quantize(model, 8, normals(5, 6))


# --- names, inputs and outputs ---------------------------------------------------------------------------------------


def test_a_module_called_like_a_quantizer_keeps_its_place():
    model = nn.Sequential()
    model.fc, model.fc_quantizer, model.last = nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4)
    images = normals(50, 6)
    assert alike(quide.quantize(model.eval(), 16, images)(images), model(images), 1e-2)


def test_a_quantized_network_is_not_quantized_again():
    once = quide.quantize(nn.Sequential(nn.Linear(6, 4)), 8, normals(5, 6))
    with pytest.raises(ValueError, match="is quantized already"):
        quide.quantize(once, 4, normals(5, 6))
    untouched = quide.quantize(nn.Sequential(nn.Linear(6, 4)), 32, normals(5, 6))
    quide.quantize(untouched, 8, normals(5, 6))


def test_a_layer_by_itself_and_optional_inputs_are_quantized():
    layer, images = seeded(nn.Linear, 6, 4), normals(50, 6)
    assert alike(quide.quantize(layer, 16, images)(images), layer(images), 1e-3)

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, images, mask=None, scale=2.0):
            return self.fc(images if mask is None else images * mask) * scale

    masked = seeded(Masked)
    assert alike(quide.quantize(masked, 16, images)(images), masked(images), 1e-3)


def test_layers_that_do_not_run_in_evaluation_are_left_out():
    def forward(net, x):
        return net.fc(x) + net.aid(x) if net.training else net.fc(x)

    model, images = network(forward, fc=nn.Linear(6, 4), aid=nn.Linear(6, 4)), normals(50, 6)
    found = quide.sweep(model, images, evaluate.predict(model, [images]), images, (32, (8,)), **QUICK)
    assert found.attrs["unused"] == ["aid"] and list(found.compression) == [1, 4]


@pytest.mark.parametrize("tail", [nn.LogSoftmax(1), nn.Flatten(), nn.Identity()])
def test_logits_stay_whatever_follows_the_last_layer(tail):
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4), tail))
    quantized = quide.quantize(model, 3, normals(9, 6), quide.Scheme(quantize_logits=False))
    assert [name for name, _ in quantized.named_modules() if "quantizer" in name] == ["0_quantizer"]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bits", [16, 20, 8])
def test_networks_of_other_types_are_rounded_alike(kind, bits):
    model, images = seeded(lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))), normals(50, 6)
    expected = quide.quantize(model, bits, images)(images)
    scheme = quide.Scheme(activation_site="relu")
    for each in (quide.PAPER, scheme):
        found = quide.quantize(model.to(kind), bits, images.to(kind), each)(images.to(kind))
        assert found.dtype == kind and alike(found.float(), expected, 0.05)


REFUSED = {
    "numpy": (lambda net, x, y: quide.sweep(net, x.numpy(), y, x), "torch.from_numpy"),
    "compiled": (lambda net, x, y: quide.quantize(torch.compile(net), 8, x), "model._orig_mod"),
    "parallel": (lambda net, x, y: quide.quantize(nn.DataParallel(net), 8, x), "model.module"),
    "double": (lambda net, x, y: quide.quantize(net, 8, x.double()), r"calibration.to\(torch.float32\)"),
    "one output": (lambda net, x, y: quide.sweep(nn.Linear(6, 1), x, y, x, **QUICK), "one output an image"),
    "one output of the tree": (lambda net, x, y: evaluate.exhaustive(nn.Linear(6, 1), x, y, x), "one output an image"),
    "labels above": (lambda net, x, y: quide.sweep(net, x, y + 4, x, **QUICK), "labels lie in 4..4"),
    "labels below": (lambda net, x, y: evaluate.exhaustive(net, x, y - 1, x), "labels lie in -1..-1"),
    "labels of floats": (lambda net, x, y: quide.sweep(net, x, y.float(), x), "whole numbers"),
    "labels of truth": (lambda net, x, y: evaluate.exhaustive(net, x, y.bool(), x), "whole numbers"),
    "dictionary": (lambda net, x, y: quide.quantize(network(lambda n, x: {"a": n.f(x)}, f=net), 8, x), "a dict, not"),
    "tuple": (lambda net, x, y: quide.quantize(network(lambda n, x: (n.f(x), x), f=net), 8, x), "a tuple, not"),
    "random": (lambda net, x, y: quide.quantize(network(lambda n, x: F.dropout(n.f(x)), f=net), 8, x), "each time"),
    "batches of one": (
        lambda net, x, y: quide.quantize(network(lambda n, x: n.f(x.view(1, 6)), f=net), 8, x), r"of shape \(2, 6\)"
    ),
    "pattern": (lambda net, x, y: quide.quantize(net, 8, x, keep={"typo": 32}), "keep names 'typo'"),
    "keep": (lambda net, x, y: quide.quantize(net, 8, x, keep=["0"]), "keep must map"),
    "no batch": (lambda net, x, y: quide.sweep(net, [], None, x), "at least one"),
    "all kept": (lambda net, x, y: evaluate.exhaustive(net, x, y, x, keep={"*": 8}), "keep leaves no layer"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_the_message_names_what_is_wrong_in_one_line(kind):
    call, message = REFUSED[kind]
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 4)))
    with pytest.raises(ValueError, match=message) as caught:
        call(model, normals(40, 6), torch.zeros(40, dtype=torch.long))
    assert "\n" not in str(caught.value)


# --- widths of each side, and layers with their own ------------------------------------------------------------------


def test_each_side_has_a_width_of_its_own():
    model, images = seeded(lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))), normals(50, 6)
    four, wide = quide.quantize(model, Width(4, 8), images), quide.quantize(model, Width(weights=4), images)
    for name in ("0", "2"):
        assert torch.equal(
            four.get_submodule(name).weight, quide.ptq.quantized_weight(model.get_submodule(name).weight, 4)
        )
        assert four.get_submodule(f"{name}_quantizer").high == 255
    assert not any("quantizer" in name for name, _ in wide.named_modules())
    assert torch.equal(quide.quantize(model, Width(8, 8), images)(images), quide.quantize(model, 8, images)(images))
    found = quide.sweep(
        model, images, evaluate.predict(model, [images]), images, (32, Width(4, 8), Width(32, 8)), **QUICK
    )
    assert list(found.compression) == [1, 8, 1]
    assert found.attrs["activation_compression"] == {"32": 1, "w4a8": 4, "w32a8": 4}
    tree = evaluate.exhaustive(model, images, evaluate.predict(model, [images]), images, (8, Width(4, 8)))
    assert tree[Width(4, 8), Width(4, 8)] == found.accuracy[1]


@pytest.mark.parametrize("sides", [(0, 8), (8, 33), (True, 8), (8.0, 8)])
def test_a_side_outside_of_1_to_32_is_refused(sides):
    with pytest.raises(ValueError, match=r"^bits must be whole numbers in 1..32"):
        Width(*sides)


def test_layers_that_are_kept_have_their_width_and_no_place_in_bits():
    build = lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))  # noqa: E731
    model, images = seeded(build), normals(50, 6)
    kept = quide.quantize(model, (8, 4), images, keep={"4": 32})
    assert torch.equal(kept(images), quide.quantize(model, (8, 4, 32), images)(images))
    labels = evaluate.predict(model, [images])
    found = evaluate.exhaustive(model, images, labels, images, (8, 2), keep={"[02]": 4})
    assert found.keys() == {(8,), (2,)}
    alone = evaluate.predict(quide.quantize(model, (4, 4, 2), images), [images])
    assert found[2,] == (alone == labels).double().mean().item()


def test_patterns_fit_whole_names_and_what_is_inside():
    kept = Kept({"layer4.0": 8, "layer4": 4, "*.conv1": 2})
    assert [kept.width(name) for name in ("layer4.0.conv1", "layer4.1", "a.conv1", "layer40")] == [8, 4, 2, None]


# --- batches, scores, layouts and denormal numbers -------------------------------------------------------------------


def test_batches_are_gone_through_once_and_score_as_one_tensor():
    model, images = seeded(lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))), normals(300, 6)
    labels = torch.randint(4, (300,), generator=torch.Generator().manual_seed(0))
    batches = zip(images.split(70), labels.split(70), strict=True)  # a generator, which is gone after one pass
    ours = quide.sweep(model, batches, None, images.split(16), (32, 4, 2), batch_size=100, **QUICK)
    theirs = quide.sweep(model, images, labels, images, (32, 4, 2), **QUICK)
    assert list(ours.accuracy) == list(theirs.accuracy) and ours.attrs["correct"] == theirs.attrs["correct"]
    assert (ours.attrs["batch_size"], theirs.attrs["batch_size"]) == (100, latency.BATCH_SIZE)
    pairs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 90)
    assert evaluate.exhaustive(model, pairs, None, images, (8, 2)) == evaluate.exhaustive(
        model, images, labels, images, (8, 2)
    )


def test_a_score_of_the_user_s_takes_the_place_of_accuracy():
    model, images = seeded(lambda: nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())), normals(300, 6)
    with torch.no_grad():
        wanted = model(images)
    close = lambda outputs, truth: 1 - float((outputs - truth).abs().mean())  # noqa: E731
    found = quide.sweep(model, images, wanted, images, (32, 2), score=close, **QUICK)
    expected = close(quide.quantize(model, 2, images)(images), wanted)
    assert list(found.accuracy) == [pytest.approx(1), pytest.approx(expected)]
    assert found.attrs["threshold"] == pytest.approx(found.accuracy[0] - 0.05) and not found.attrs["correct"]


def convolutional() -> nn.Module:
    """In torch's default layout, with a view that the other layout would forbid."""
    return network(
        lambda net, x: net.fc(net.conv(x).relu().view(x.size(0), -1)), conv=nn.Conv2d(3, 8, 3), fc=nn.Linear(128, 4)
    )


def test_convolutions_run_in_the_faster_layout_and_what_was_given_stays():
    model, images = convolutional(), normals(90, 3, 6, 6)
    labels = evaluate.predict(model, [images])
    found = quide.sweep(model, images, labels, images, (32, 8), **QUICK)
    assert found.attrs["layout"] == "channels_last" and found.accuracy[0] == 1
    assert images.is_contiguous() and model.conv.weight.is_contiguous()
    expected = evaluate.predict(quide.quantize(model, 8, images), images.split(50))
    assert found.accuracy[1] == (expected == labels).double().mean().item()
    assert prepare(model, images).layout == "given"
    flat = nn.Sequential(nn.Linear(6, 4))
    assert (
        quide.sweep(flat, normals(9, 6), torch.arange(9) % 4, normals(9, 6), (8,), **QUICK).attrs["layout"] == "given"
    )


def test_denormal_weights_count_as_zero_and_the_caller_s_arithmetic_is_put_back():
    model, images = convolutional(), normals(90, 3, 6, 6)
    model.conv.weight.data[0], model.fc.weight.data[1, :5] = 1e-41, -1e-40
    labels, before = evaluate.predict(model, [images]), model.conv.weight.clone()
    found = quide.sweep(model, images, labels, images, (32, 8), **QUICK)
    assert found.attrs["denormal_weights"] == 27 + 5 and found.accuracy[0] == 1
    cleaned = prepare(model, images).at(32)
    for value in cleaned.parameters():
        assert not ((value != 0) & (value.abs() < torch.finfo(torch.float32).tiny)).any()
    assert torch.equal(model.conv.weight, before) and sys.float_info.min / 2 > 0


def test_no_width_is_recommended_for_a_network_at_chance():
    model, images = seeded(lambda: nn.Sequential(nn.Linear(6, 4))), normals(400, 6)
    labels = torch.randint(4, (400,), generator=torch.Generator().manual_seed(0))
    found = quide.sweep(model, images, labels, images, (32, 8, 4), **QUICK)
    assert found.attrs["knee"] is None and found.attrs["reservations"] == [knees.GUESSING]
    trained = quide.sweep(model, images, evaluate.predict(model, [images]), images, (32, 8), **QUICK)
    assert trained.attrs["knee"] in (32, 8)


def test_guessing_is_one_class_in_k_or_the_most_frequent_one():
    labels, first = np.arange(10_000) % 10, np.arange(10_000)
    assert not knees.beats_guessing(first < 1250, labels, 10) and knees.beats_guessing(first < 1700, labels, 10)
    assert not knees.beats_guessing(first < 7000, first // 8000, 2) and knees.beats_guessing(
        first < 9000, first // 8000, 2
    )


ATTENTION = ("swin", "vit")  # families that multiply outside of linear modules
MOST_PARAMETERS = 30_000_000  # of a network that is run here; the larger ones of a family have the same parts
LARGER = ["alexnet", "maxvit_t", "vgg11_bn", "wide_resnet50_2"]  # of families without a small one


def published(most: float = math.inf) -> list[str]:
    """Torchvision's classification networks of at most so many parameters."""
    from torchvision import models

    sizes = {name: models.get_model_weights(name).DEFAULT.meta["num_params"] for name in models.list_models(models)}
    return [name for name, size in sizes.items() if size <= most]


def family(name: str) -> str:
    """Such as ``"resnet"`` of ``"resnet18"``."""
    return re.match("[a-z]+", name)[0]


def test_no_family_of_published_architectures_is_left_out():
    tried = {family(name) for name in (*published(MOST_PARAMETERS), *LARGER, *ATTENTION)}
    assert {family(name) for name in published()} <= tried


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [each for each in published(MOST_PARAMETERS) if family(each) not in ATTENTION] + LARGER,
)
def test_published_architectures_are_quantized_as_hooks_quantize_them(name):
    """The reference rounds weights after torch's own folding, and outputs by hooks, without our graph."""
    from torch.fx.experimental.optimization import fuse
    from torchvision import models

    from quide.ptq import rounding

    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = seeded(lambda: models.get_model(name, weights=None, num_classes=10, **options))
    side = 224 if name == "maxvit_t" else 96
    images = normals(4, 3, side, side)
    with torch.inference_mode():
        prepared = prepare(model, images)
        assert alike(prepared.at(32)(images), model(images), 1e-3)
        folded = fuse(model)
        layers = [layer for layer in prepared.layers]
        rounded = rounding.round_outputs(
            rounding.round_weights(folded, layers, 8), rounding.observe(folded, layers, [images]), 8
        )
        assert alike(prepared.at(8)(images), rounded(images), 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t", "vit_b_32"])
def test_published_architectures_with_attention_are_refused_by_name(name):
    from torchvision import models

    model = models.get_model(name, weights=None, num_classes=10)
    with pytest.raises(ValueError, match="keep={"):
        quide.quantize(model, 8, normals(2, 3, 224, 224))


# --- widths of two sides, scores and batches, everywhere -------------------------------------------------------------


def test_a_width_stands_where_a_number_does():
    pair, even = Width(4, 8), Width(8, 8)
    assert even == 8 and hash(even) == hash(8) and pair != 4 and {8: "x"}[even] == "x"
    assert sorted([8, pair, 4, 2], reverse=True) == [8, pair, 4, 2]
    assert quide.compression_ratio(pair) == 8 and quide.compression_ratio([pair, 8], [300, 100]) == 32 * 400 / 2000
    assert quide.metric.rank([8, pair], [1, 2]) == [pair, 8] and quide.metric.knee([4, pair], [1, 1]) == pair
    with pytest.raises(ValueError, match="bits must be whole numbers in 1..32"):
        quide.compression_ratio([pair, 33])


def test_searches_take_widths_of_two_sides():
    choices = (Width(4, 8), 8, 2)

    def fitness(bits):
        return quide.compression_ratio(bits)

    found = quide.search.genetic(fitness, 2, choices, population=4, generations=3, elite=1)
    assert set(width for bits in found.evaluated for width in bits) <= set(choices)
    assert quide.search.greedy(fitness, 2, choices).best == (2, 2)
    assert len(quide.search.exhaustive(fitness, 2, choices).evaluated) == 9


def test_every_configuration_by_a_score_of_ones_own_from_batches():
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid()))
    images = normals(70, 6)
    labels = (model(images)[:, 0] > 0.5).float()
    batches = [(images[:40], labels[:40]), (images[40:], labels[40:])]

    def score(outputs, truth):
        return ((outputs[:, 0] > 0.5) == truth).double().mean()

    choices = (8, Width(2, 32))
    found = evaluate.exhaustive(model, batches, None, images, choices, score=score, keep=None)
    for bits, value in found.items():
        assert value == float(score(quide.quantize(model, bits, images)(images), labels))
    with pytest.raises(ValueError, match=r"score must return a number in \[0, 1\]"):
        evaluate.exhaustive(model, batches, None, images, choices, score=lambda outputs, truth: "good")
    with pytest.raises(ValueError, match="images hold no batch"):
        evaluate.exhaustive(model, [], None, images, choices, score=score)


def test_sensitivity_and_diagnosis_take_batches():
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)))
    images = normals(70, 6)
    labels = model(images).argmax(1)
    batches = [(images[:40], labels[:40]), (images[40:], labels[40:])]
    given, taken = (quide.sensitivity(model, *each, images, 3) for each in ((images, labels), (batches, None)))
    assert given.equals(taken)
    assert (
        quide.diagnose(model, batches, None, [images], 3).drop == quide.diagnose(model, images, labels, images, 3).drop
    )
    with pytest.raises(ValueError, match="images hold no batch"):
        quide.sensitivity(model, [], None, images)
    with pytest.raises(ValueError, match="images must be a tensor or batches"):
        quide.diagnose(model, 3, None, images)


def test_denormal_weights_cost_no_time():
    """The fastest pass of several sweeps in turn, which a busy machine hardly changes."""
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8192, 10)))
    decayed, cleaned = copy.deepcopy(model), copy.deepcopy(model)
    decayed[0].weight.data[::2] = 1e-40
    decayed[3].weight.data[:, ::2] = 1e-40
    cleaned[0].weight.data[::2] = 0
    cleaned[3].weight.data[:, ::2] = 0
    images, labels = normals(64, 3, 16, 16), torch.arange(64) % 10
    fastest = {"decayed": [], "cleaned": []}
    for _ in range(3):
        for name, own in (("decayed", decayed), ("cleaned", cleaned)):
            table = quide.sweep(own, images, labels, images, (32,), warmup=2, passes=15)
            fastest[name].append(table.attrs["timings"].latencies["32"].min_ms)
    assert min(fastest["decayed"]) <= 1.3 * min(fastest["cleaned"])
    assert torch.equal(decayed[0].weight[0], torch.full((3, 3, 3), 1e-40))  # and is left as it was


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"images": torch.tensor(1.0)}, "images"),
        ({"images": torch.ones(4, 4).to_sparse()}, "images"),
        ({"images": torch.ones(4, 4, device="meta")}, "images"),
        ({"labels": torch.ones(4, dtype=torch.long).to_sparse()}, "labels"),
        ({"calibration": torch.ones(4, 4).to_sparse()}, "calibration"),
    ],
)
def test_tensors_without_plain_values_are_named(given, argument):
    given = {
        "images": torch.ones(4, 4),
        "labels": torch.ones(4, dtype=torch.long),
        "calibration": torch.ones(4, 4),
    } | given
    with pytest.raises(ValueError, match=f"^{argument} "):
        quide.sweep(nn.Linear(4, 3), **given)


@pytest.mark.parametrize("file", [None, 5])
def test_what_is_no_path_is_named(file):
    model = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="^file must"):
        quide.load(model, file)
    with pytest.raises(ValueError, match="^file must"):
        quide.save(quide.quantize(model, 8, torch.ones(4, 4)), file)
