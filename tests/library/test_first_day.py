"""What people do with networks of their own on the first day: right numbers, nothing of theirs changed, or one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

import quide
from quide import evaluate
from quide.cli import probe

QUICK = {"warmup": 1, "passes": 2}


def normals(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(compute, /, **layers) -> nn.Module:
    """A module whose forward is the given function of itself and of the images."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            for name, layer in layers.items():
                setattr(self, name, layer)

        def forward(self, images):
            return compute(self, images)

    return Own().eval()


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)).eval()


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
