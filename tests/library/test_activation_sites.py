"""Where values are rounded: behind whichever activation function fuses, once behind a residual addition."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import quide
from quide.ptq.grid import FakeQuantize
from quide.ptq.prepared import prepare

BEHIND = quide.Scheme(activation_site="relu")
FUSED = quide.Scheme(activation_site="fused")
MODULES = [
    nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.SiLU(), nn.GELU(), nn.LeakyReLU(), nn.Sigmoid(), nn.Tanh(),
    nn.Hardtanh(), nn.Hardsigmoid(),
]  # fmt: skip
CALLS = [F.relu6, F.hardswish, F.silu, F.gelu, torch.sigmoid, torch.tanh, lambda x: x.sigmoid(), lambda x: x.relu()]


def named(function):
    return getattr(function, "__name__", type(function).__name__)


class Written(nn.Module):
    """One layer, and a function behind it."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(6, 8), function

    def forward(self, images):
        return self.function(self.layer(images))


class Block(nn.Module):
    """Two branches that are added, with an activation behind the addition or without."""

    def __init__(self, last: nn.Module):
        super().__init__()
        self.stem, self.main, self.skip = (nn.Conv2d(inputs, 4, 1) for inputs in (3, 4, 4))
        self.last, self.head = last, nn.Linear(4, 5)

    def forward(self, images):
        start = F.relu(self.stem(images))
        return self.head(self.last(self.skip(start) + self.main(start)).mean((2, 3)))


@pytest.fixture
def rows():
    return torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("function", [*MODULES, *CALLS], ids=named)
@pytest.mark.parametrize("scheme", [BEHIND, FUSED], ids=["relu", "fused"])
def test_rounding_is_behind_the_activation(function, scheme, rows):
    torch.manual_seed(0)
    model = Written(function).eval()
    rounded = quide.quantize(model, quide.Width(32, 3), rows, scheme)
    exact = function(model.layer(rows))
    low, high = min(float(exact.min()), 0.0), max(float(exact.max()), 0.0)
    assert rounded(rows).unique().numel() <= 8
    assert (rounded(rows) - exact).abs().max() <= (high - low) / 7 * 0.501 + 1e-6
    assert prepare(model, rows, scheme).unfused == {}


@pytest.mark.parametrize("function", [nn.Mish(), F.softplus, nn.ELU()], ids=named)
def test_an_activation_that_does_not_fuse_is_named(function, rows):
    prepared = prepare(Written(function).eval(), rows, BEHIND)
    assert list(prepared.unfused) == ["layer"]
    assert prepared.unfused["layer"].lower() == named(function).lower()
    assert prepare(Written(function).eval(), rows).unfused == {}  # quide.PAPER rounds before all of them


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Identity()], ids=["relu", "none"])
def test_an_addition_is_rounded_once(last):
    torch.manual_seed(0)
    images = torch.randn(32, 3, 6, 6)
    model = Block(last).eval()
    rounded = quide.quantize(model, 4, images, FUSED)
    assert sum(isinstance(part, FakeQuantize) for part in rounded.modules()) == 3  # stem, addition, head
    assert set(rounded.meta["quide"].quantizers) == {"stem", "main", "head"}
    separate = quide.quantize(model, 4, images, BEHIND)
    assert sum(isinstance(part, FakeQuantize) for part in separate.modules()) == 4


def test_every_configuration_of_a_network_with_an_addition(rows):
    torch.manual_seed(0)
    images, labels = torch.randn(48, 3, 6, 6), torch.randint(5, (48,))
    model = Block(nn.ReLU()).eval()
    found = quide.evaluate.exhaustive(model, images, labels, images, (8, 2), FUSED)
    for bits, accuracy in found.items():
        one = quide.quantize(model, bits, images, FUSED)
        with torch.no_grad():
            assert float((one(images).argmax(1) == labels).float().mean()) == pytest.approx(accuracy)


def test_a_sweep_says_what_did_not_fuse(rows):
    labels = torch.arange(64) % 8
    table = quide.sweep(Written(nn.Mish()).eval(), rows, labels, rows, (32, 8), scheme=BEHIND, warmup=1, passes=2)
    assert table.attrs["unfused"] == {"layer": "Mish"}
