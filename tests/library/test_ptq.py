"""Quantizers against torch and a float64 reference; quantized networks against networks written out by hand."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from batch_norms import randomize_batch_norm
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

import quide
from quide import ptq
from quide.evaluate import exhaustive
from quide.models import networks
from quide.models.networks import SimpleCNN
from quide.ptq.grid import FakeQuantize, Grid, affine_grid, fake_quantize, symmetric_grid
from quide.ptq.layers import quantizable_layers
from quide.ptq.prepared import prepare, quantize
from quide.ptq.scheme import BEST, PAPER, Scheme

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).tiny)
EXACT_BITS = 24  # float32 holds every integer up to 2^24
IDEMPOTENT_BITS = 22  # a grid value survives three float32 roundings (scale, reciprocal, product) up to 2^22 steps
SITES = ("output", "relu", "input")


def bits_of(values: torch.Tensor) -> torch.Tensor:
    """The float32 patterns, which tell -0 from +0 and NaN from NaN."""
    return values.contiguous().view(torch.int32)


def assert_same_bits(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    different = (bits_of(ours) != bits_of(theirs)).nonzero()
    assert len(different) == 0, f"first at {different[0].tolist()}: {ours[tuple(different[0])]!r}"


def reference(values: torch.Tensor, grid: Grid, rounding: str) -> torch.Tensor:
    """What fake quantization means, in float64 from the float32 quotient on; broadcasts the scale."""
    scale = grid.scale.numpy()
    steps = (values.numpy() * (np.float32(1) / scale)).astype(np.float64)
    rounded = {"half_even": np.rint, "half_up": lambda x: np.floor(x + 0.5), "floor": np.floor}[rounding](steps)
    integers = np.clip(rounded, grid.low - grid.zero_point, grid.high - grid.zero_point) + 0.0
    return torch.from_numpy((integers * scale.astype(np.float64)).astype(np.float32))


# --- strategies ------------------------------------------------------------------------------------------------------

singles = st.floats(-(2.0**126), 2.0**126, width=32)  # beyond, grid values themselves are infinite in float32


@st.composite
def samples(draw) -> torch.Tensor:
    """Float32 values ``(n,)``: wild ones, bell-shaped ones of any magnitude, one-sided, constant, all zero."""
    kind = draw(st.sampled_from(("wild", "bell", "positive", "negative", "constant", "zero")))
    if kind == "wild":
        return torch.tensor(draw(st.lists(singles, min_size=1, max_size=8)), dtype=torch.float32)
    if kind == "constant":
        return torch.full((5,), draw(singles))
    if kind == "zero":
        return torch.zeros(5)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = (rng.standard_normal(30) * 10.0 ** draw(st.integers(-36, 36))).astype(np.float32)
    return torch.from_numpy({"bell": values, "positive": abs(values), "negative": -abs(values)}[kind])


@st.composite
def cases(draw, most_bits=EXACT_BITS) -> tuple[torch.Tensor, Grid]:
    """Values and a tensor-wide grid, fitted to them or not; ties, the grid's ends and outliers are among the values."""
    values, width = draw(samples()), draw(st.integers(1, most_bits))
    kind = draw(st.sampled_from(("affine", "restricted", "full", "any")))
    if kind == "affine":
        grid = affine_grid(values.min(), values.max(), width)
    elif kind != "any":
        grid = symmetric_grid(values.min(), values.max(), width, restricted=kind == "restricted")
    else:  # a power of two makes exact ties
        scale = 2.0 ** draw(st.integers(-100, 80)) * draw(st.sampled_from((1.0, 1.1)))
        high = draw(st.integers(0, 2**width - 1))
        grid = Grid(torch.tensor(scale), draw(st.integers(high + 1 - 2**width, high)), high + 1 - 2**width, high)
    steps = [grid.low - grid.zero_point, grid.high - grid.zero_point, *range(-4, 4)]
    ties = torch.tensor([step + half for step in steps for half in (-0.5, 0, 0.5)]) * grid.scale
    values = torch.cat([values, ties, 3 * values, torch.tensor([0.0, -0.0])]).clamp(-LARGEST, LARGEST)
    furthest = 2.0**60 * grid.scale  # torch's integers overflow at 2^63 steps
    return values.clamp(-furthest, furthest), grid


@st.composite
def channel_cases(draw) -> tuple[torch.Tensor, Grid]:
    """Weights ``(out, in)`` or ``(out, in, 1, 2)`` whose rows differ in magnitude, and their per-channel grid.

    Exact ties and zeros are among them, and one row may be all zero.
    """
    rng, bits = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(st.integers(1, EXACT_BITS))
    magnitudes = 10.0 ** rng.integers(-36, 37, (draw(st.integers(1, 5)), 1)) * rng.integers(0, 9, (1, 1)).clip(0, 1)
    weight = torch.from_numpy((rng.standard_normal((len(magnitudes), 10)) * magnitudes).astype(np.float32))
    reach = weight.abs().amax(1, keepdim=True)
    ties = torch.from_numpy(rng.integers(-4, 5, (len(weight), 10)) / 2).float() * reach / max(2 ** (bits - 1) - 1, 1)
    shape = draw(st.sampled_from(((-1, 20), (-1, 10, 1, 2))))
    reach = reach.reshape((-1,) + (1,) * (len(shape) - 1))
    return torch.cat([weight, ties], 1).reshape(shape), symmetric_grid(-reach, reach, bits, draw(st.booleans()))


# --- quantizers ------------------------------------------------------------------------------------------------------


@settings(max_examples=2000, deadline=None)
@given(cases())
def test_agrees_with_torch_bit_for_bit(case):
    values, grid = case
    theirs = torch.fake_quantize_per_tensor_affine(values, float(grid.scale), grid.zero_point, grid.low, grid.high)
    assert_same_bits(fake_quantize(values, grid), theirs)


@settings(max_examples=1500, deadline=None)
@given(channel_cases())
def test_agrees_with_torch_per_channel_bit_for_bit(case):
    weight, grid = case
    zero_points = torch.zeros(len(weight), dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(weight, grid.scale.flatten(), zero_points, 0, grid.low, grid.high)
    assert_same_bits(fake_quantize(weight, grid), theirs)


@pytest.mark.parametrize("rounding", ["half_even", "half_up", "floor"])
@settings(max_examples=300, deadline=None)
@given(case=st.one_of(cases(), channel_cases()))
# The largest float below one half: x + 0.5 is rounded to 1 in float32.
@example(
    case=(torch.tensor([0.49999997, -0.49999997, 2.5, -2.5, 8388609.0]), Grid(torch.tensor(1.0), 0, -(2**23), 2**23))
)
def test_agrees_with_the_float64_reference(rounding, case):
    values, grid = case
    assert_same_bits(fake_quantize(values, grid, rounding), reference(values, grid, rounding))


@pytest.mark.parametrize("rounding", ["half_even", "half_up", "floor"])
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_in_place_gives_the_same_and_overwrites_only_then(rounding, case):
    values, grid = case
    before = values.clone()
    expected = fake_quantize(values, grid, rounding)
    assert_same_bits(values, before)
    returned = fake_quantize(values, grid, rounding, inplace=True)
    assert returned.data_ptr() == values.data_ptr()
    assert_same_bits(values, expected)


@settings(max_examples=300, deadline=None)
@given(cases(most_bits=IDEMPOTENT_BITS))
def test_projects_monotonically_onto_a_grid_with_zero(case):
    values, grid = case
    once = fake_quantize(values, grid)
    assert_same_bits(fake_quantize(once, grid), once)
    assert len(once.unique()) <= grid.high - grid.low + 1
    assert (once[values.argsort()].diff() >= 0).all()
    assert (once[values == 0] == 0).all()
    assert torch.isfinite(once).all()


@settings(max_examples=300, deadline=None)
@given(samples(), st.integers(1, 31), st.sampled_from(("affine", "restricted", "full")))
def test_error_inside_the_range_is_at_most_half_a_step(values, bits, kind):
    """Up to float32's own rounding of values and scale, which is all that is left of the error beyond 24 bits."""
    if kind == "affine":
        grid = affine_grid(values.min(), values.max(), bits)
    else:
        grid = symmetric_grid(values.min(), values.max(), max(bits, 2), restricted=kind == "restricted")
    error = (fake_quantize(values, grid).double() - values.double()).abs()
    assert (error <= grid.scale.double() / 2 + values.double().abs().max() * 2.0**-21).all()


@pytest.mark.parametrize("rounding", ["half_even", "half_up", "floor"])
def test_saturates_where_torch_overflows(rounding):
    """More than 2^63 steps away, and infinite, torch returns the grid's low end for a high value."""
    grid = Grid(torch.tensor(1e-30), 10, 0, 255)
    values = torch.tensor([1e30, -1e30, float("inf"), float("-inf"), float("nan")])
    ours = fake_quantize(values, grid, rounding)
    high, low = torch.tensor(245.0) * grid.scale, torch.tensor(-10.0) * grid.scale
    assert ours[:4].tolist() == [high, low, high, low]
    assert ours[4].isnan()


@pytest.mark.parametrize(
    ("minimum", "maximum", "bits", "scale", "zero_point"),
    [
        (-1.0, 2.0, 2, 1.0, 1),
        (-2.0, 1.0, 2, 1.0, 2),
        (0.0, 255.0, 8, 1.0, 0),
        (1.0, 3.0, 2, 1.0, 0),  # widened to hold zero, from below
        (-3.0, -1.0, 2, 1.0, 3),  # and from above
        (-0.5, 7.0, 4, 0.5, 1),
        (0.0, 0.0, 8, 1.0, 0),
        (-1.25, 6.25, 4, 0.5, 2),  # 2.5 steps below zero round half to even
    ],
)
def test_affine_grid_golden(minimum, maximum, bits, scale, zero_point):
    grid = affine_grid(torch.tensor(minimum), torch.tensor(maximum), bits)
    assert (float(grid.scale), grid.zero_point, grid.low, grid.high) == (scale, zero_point, 0, 2**bits - 1)
    assert grid.scale.dtype == torch.float32


@pytest.mark.parametrize(
    ("minimum", "maximum", "bits", "restricted", "scale", "low", "high"),
    [
        (-7.0, 3.0, 4, True, 1.0, -7, 7),
        (-3.0, 7.0, 4, False, 1.0, -8, 7),
        (-1.0, 1.0, 2, True, 1.0, -1, 1),
        (-1.0, 1.0, 2, False, 1.0, -2, 1),
        (-2.0, 1.0, 1, True, 2.0, 0, 0),
        (-2.0, 1.0, 1, False, 2.0, -1, 0),
        (0.0, 0.0, 8, True, 1.0, -127, 127),
    ],
)
def test_symmetric_grid_golden(minimum, maximum, bits, restricted, scale, low, high):
    grid = symmetric_grid(torch.tensor(minimum), torch.tensor(maximum), bits, restricted)
    assert (float(grid.scale), grid.zero_point, grid.low, grid.high) == (scale, 0, low, high)


@pytest.mark.parametrize("bits", [1, 2, 8, 16, 31])
@pytest.mark.parametrize("reach", [LARGEST / 2, 1e38, SMALLEST, SMALLEST / 1000])
def test_grids_of_extreme_ranges_stay_finite(bits, reach):
    values = torch.tensor([-reach, 0.0, reach / 2, reach])
    for grid in (affine_grid(values.min(), values.max(), bits), symmetric_grid(values.min(), values.max(), bits)):
        assert torch.isfinite(grid.scale) and torch.isfinite(1 / grid.scale)
        assert grid.low <= grid.zero_point <= grid.high
        assert torch.isfinite(fake_quantize(values, grid)).all()


def test_a_range_wider_than_float32_can_tell_has_a_finite_scale():
    assert float(affine_grid(torch.tensor(-LARGEST), torch.tensor(LARGEST), 1).scale) == LARGEST


def test_merged_quantizer_is_the_relu_of_the_plain_one():
    values = torch.randn(1000) * 3
    for grid in (affine_grid(values.min(), values.max(), 4), symmetric_grid(values.min(), values.max(), 4)):
        for rounding in ("half_even", "half_up", "floor"):
            plain, merged = (FakeQuantize(grid, rounding, relu) for relu in (False, True))
            assert_same_bits(merged(values), F.relu(plain(values)))
            assert_same_bits(merged(values), plain(F.relu(values)))
    assert repr(FakeQuantize(Grid(torch.tensor(0.5), 3, 0, 15), "floor")) == (
        "FakeQuantize(scale=0.5, zero_point=3, levels=[0, 15], relu=False)"
    )


# --- networks --------------------------------------------------------------------------------------------------------


class Pools(nn.Module):
    """Functional ReLU and max-pooling; pools that overlap, are padded, or round their size up."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1)
        self.padded = nn.MaxPool2d(3, stride=2, padding=1)
        self.head = nn.Linear(36, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2, stride=1)
        x = self.padded(self.second(x)).relu()
        x = torch.relu(F.max_pool2d(self.third(x), kernel_size=3, stride=2, padding=1, ceil_mode=True))
        return self.head(x.flatten(1))


class Branches(nn.Module):
    """Layer outputs that are read twice, one tensor read by two layers, a layer called by keyword."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = (nn.Conv2d(inner, 3, 3, padding=1) for inner in (2, 3, 3))
        self.pool, self.relu = nn.MaxPool2d(2), nn.ReLU(inplace=True)
        self.head = nn.Linear(48, 3)

    def forward(self, x):
        stem = self.stem(x)
        left = self.left(F.relu(stem))
        x = left + self.right(input=stem) - stem
        x = self.pool(x) + self.pool(left) - F.max_pool2d(self.relu(x), 2)
        return self.head(x.flatten(1))


class InPlace(nn.Module):
    """In-place ReLUs whose effect another reader sees, or that are called for their effect alone."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(inner, 3, 3, padding=1) for inner in (2, 3, 3))
        self.head = nn.Linear(3 * 64, 3)

    def forward(self, x):
        x = self.first(x)
        positive = F.relu(x, inplace=True)
        x = self.second(positive) + x
        F.relu(x, inplace=True)
        x = self.third(x)
        x.relu_()
        return self.head(x.flatten(1))


class Unused(nn.Module):
    """A layer whose output nobody reads."""

    def __init__(self):
        super().__init__()
        self.main, self.auxiliary = nn.Linear(128, 3), nn.Linear(128, 3)

    def forward(self, x):
        x = x.flatten(1)
        self.auxiliary(x)
        return self.main(x)


def nested() -> nn.Module:
    """Modules in modules, dropout, an activation that is no ReLU, and names that differ in a dot alone."""
    inner = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GELU(), nn.Dropout(0.5))
    net = nn.Sequential()
    net.add_module("block", nn.Sequential(nn.Sequential(inner, nn.MaxPool2d(2)), nn.Flatten()))
    net.add_module("a", nn.Sequential(nn.Linear(27, 4), nn.ReLU()))
    net.add_module("a_0", nn.Linear(4, 4))
    net.add_module("dropout", nn.Dropout(0.9))
    net.add_module("head", nn.Linear(4, 3))
    return net


def residual() -> nn.Module:
    downsample = nn.Sequential(nn.Conv2d(2, 4, 1, stride=2), nn.BatchNorm2d(4))
    return nn.Sequential(BasicBlock(2, 4, 2, downsample), BasicBlock(4, 4), nn.Flatten(), nn.Linear(64, 3))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 3))


NETWORKS = {
    "simplecnn": lambda: SimpleCNN(3, 2, 8),
    "pools": Pools,
    "branches": Branches,
    "in place": InPlace,
    "unused": Unused,
    "nested": nested,
    "residual": residual,
    "mlp": mlp,
}
INPUT = (2, 8, 8)
SCHEMES = {
    **{site: replace(PAPER, activation_site=site) for site in SITES},
    "symmetric, percentile, floor": Scheme(activation_symmetric=True, activation_range="percentile", rounding="floor"),
    "mse, half up, per channel": Scheme(
        "mse", True, activation_range="mse", activation_site="relu", rounding="half_up"
    ),
    "input, unfolded": Scheme(activation_site="input", fold_batch_norm=False, weight_levels="full"),
    "float logits": Scheme(quantize_logits=False),
}


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return randomize_batch_norm(NETWORKS[name]()).eval()


def images(count: int, seed: int = 1, shape: tuple[int, ...] = INPUT) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def mixes(count: int) -> list:
    """Uniform widths, and a mix that gives neighbours different ones."""
    return [8, 4, 2, tuple(itertools.islice(itertools.cycle((4, 32, 2, 8, 16)), count))]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_commuting_changes_no_bit(name, scheme):
    net = build(name)
    prepared, x = prepare(net, images(20), SCHEMES[scheme]), images(6, seed=2)
    for bits in mixes(len(prepared.layers)):
        plain, moved = prepared.at(bits, commute=False), prepared.at(bits)
        assert_same_bits(moved(x), plain(x))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_many_bits_are_nearly_the_network_itself(name, scheme):
    """A network taken apart wrongly, say without one of its ReLUs, would be far off."""
    net, x = build(name), images(6, seed=2)
    expected = net(x.clone())
    # all values of the test images lie in the ranges, with no clipping
    exact = replace(SCHEMES[scheme], activation_range="minmax", weight_range="minmax", rounding="half_even")
    prepared = prepare(net, x, exact)
    for commute in (True, False):
        torch.testing.assert_close(prepared.at(20, commute)(x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "layers"), [("resnet18", 21), ("resnet20", 20)])
def test_residual_networks_commute_fold_and_stay_close(name, layers):
    torch.manual_seed(0)
    net, x = randomize_batch_norm(networks.BUILDERS[name](num_classes=5)).eval(), images(2, shape=(3, 32, 32))
    prepared = prepare(net, x)
    assert len(prepared.layers) == layers
    assert not any(isinstance(part, nn.BatchNorm2d) for part in prepared.at(32).modules())
    torch.testing.assert_close(prepared.at(32)(x), net(x), rtol=1e-3, atol=1e-3)
    mix = tuple(itertools.islice(itertools.cycle((8, 4, 32)), layers))
    for bits in (8, mix):
        assert_same_bits(prepared.at(bits)(x), prepared.at(bits, commute=False)(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_32_bits_change_nothing(name):
    net, x = build(name), images(6)
    unfolded = replace(PAPER, fold_batch_norm=False)
    assert_same_bits(quantize(net, 32, x, unfolded)(x), net(x))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", NETWORKS)
def test_neither_model_nor_images_are_touched(name, site):
    net, x, calibration = build(name).train(), images(6), images(5, seed=3)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, x_before, calibration_before = copy.deepcopy(net), x.clone(), calibration.clone()
    prepared = prepare(net, calibration, replace(PAPER, activation_site=site))
    for commute in (True, False):
        prepared.at(4, commute)(x)
    assert_same_bits(x, x_before)
    assert_same_bits(calibration, calibration_before)
    assert [name for name, _ in net.named_modules()] == [name for name, _ in before.named_modules()]
    assert all(part.training for part in net.modules())
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in net.parameters())
    for key, value in before.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key


def test_prepared_network_is_not_used_up():
    net, x = build("simplecnn"), images(6)
    prepared = prepare(net, x, fastest_layout=True)
    first = prepared.at(4)(x)
    prepared.at(2), prepared.at(8, commute=False)
    assert_same_bits(prepared.at(4)(x), first)
    assert_same_bits(quantize(net, 4, x)(x), first)


# --- where the quantizers sit ----------------------------------------------------------------------------------------


def rounded_to_range_of(seen: torch.Tensor, values: torch.Tensor, bits: int) -> torch.Tensor:
    low, high = min(seen.min().item(), 0.0), max(seen.max().item(), 0.0)
    scale = float(np.float32((high - low) / (2**bits - 1)))
    return torch.fake_quantize_per_tensor_affine(values, scale, round(-low / scale), 0, 2**bits - 1)


def rounded_weight(weight: torch.Tensor, bits: int) -> torch.Tensor:
    top = 2 ** (bits - 1) - 1
    return torch.fake_quantize_per_tensor_affine(weight, weight.abs().max().item() / top, 0, -top, top)


@torch.no_grad()
def simplecnn_by_hand(
    net: SimpleCNN, calibration: torch.Tensor, x: torch.Tensor, site: str, bits: int, logits: bool = True
) -> torch.Tensor:
    """SimpleCNN with 4-bit (say) layers: ``seen`` is the full-precision calibration pass, ``x`` the quantized one."""
    seen = calibration
    for layer, relu, pool in (
        ("conv1", True, True),
        ("conv2", True, True),
        ("fc1", True, False),
        ("fc2", False, False),
    ):
        if layer == "fc1":
            seen, x = seen.flatten(1), x.flatten(1)
        if site == "input":
            x = rounded_to_range_of(seen, x, bits)
        weight, bias = getattr(net, layer).weight, getattr(net, layer).bias
        apply = (lambda v, w, b: F.conv2d(v, w, b, padding=1)) if layer.startswith("conv") else F.linear
        seen, x = apply(seen, weight, bias), apply(x, rounded_weight(weight, bits), bias)
        if site == "output" and (relu or logits) or site == "relu" and not relu and logits:
            x = rounded_to_range_of(seen, x, bits)
        if relu:
            seen, x = seen.relu(), x.relu()
        if site == "relu" and relu:
            x = rounded_to_range_of(seen, x, bits)
        if pool:
            seen, x = F.max_pool2d(seen, 2), F.max_pool2d(x, 2)
    return x


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("site", SITES)
def test_sites_are_where_the_scheme_says(site, logits):
    net, calibration, x = build("simplecnn"), images(20), images(6, seed=2)
    expected = simplecnn_by_hand(net, calibration, x, site, 4, logits)
    scheme = Scheme(activation_site=site, quantize_logits=logits)
    for commute in (True, False):
        assert_same_bits(prepare(net, calibration, scheme).at(4, commute)(x), expected)


def test_sites_give_different_networks():
    net, calibration, x = build("simplecnn"), images(20), images(6, seed=2)
    outputs = [simplecnn_by_hand(net, calibration, x, site, 4) for site in SITES]
    assert all(not torch.equal(*pair) for pair in itertools.combinations(outputs, 2))


def targets(net: fx.GraphModule) -> list[str]:
    return [node.target for node in net.graph.nodes if node.op == "call_module"]


def test_graph_shows_where_values_are_rounded():
    prepared = prepare(build("simplecnn"), images(4))
    layers, tail = ["conv1", "conv2"], ["flatten", "fc1", "fc1_quantizer"]
    plain = [name for i, c in enumerate(layers, 1) for name in (c, f"{c}_quantizer", f"relu{i}", f"pool{i}")]
    assert targets(prepared.at(8, commute=False)) == [*plain, *tail, "relu3", "fc2", "fc2_quantizer"]
    moved = [name for i, c in enumerate(layers, 1) for name in (c, f"pool{i}", f"{c}_quantizer")]
    assert targets(prepared.at(8)) == [*moved, *tail, "fc2", "fc2_quantizer"]
    network = prepared.at((8, 32, 32, 8))
    assert [name for name in targets(network) if name.endswith("quantizer")] == ["conv1_quantizer", "fc2_quantizer"]
    assert network.conv1_quantizer.relu and not network.fc2_quantizer.relu


def test_commuting_works_in_place_where_the_tensor_is_nobody_elses():
    net = prepare(build("simplecnn"), images(4)).at(8)
    assert all(part.inplace for part in net.modules() if isinstance(part, FakeQuantize))
    branching = prepare(build("branches"), images(4), replace(PAPER, activation_site="input")).at(8)
    assert not branching.get_submodule("stem_quantizer").inplace  # reads the caller's images
    assert not branching.get_submodule("right_quantizer").inplace  # reads what two others read


def test_two_readers_of_one_tensor_are_rounded_each_at_their_width():
    prepared = prepare(build("branches"), images(20), replace(PAPER, activation_site="input"))
    net = prepared.at((32, 8, 2, 32))
    highs = {name: part.high for name, part in net.named_modules() if isinstance(part, FakeQuantize)}
    assert highs == {"left_quantizer": 255, "right_quantizer": 3}


def test_golden_tiny_network():
    """Every number by hand: two layers at 2 bits."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    net[0].weight.data = torch.tensor([[1.0, -2.0], [2.0, 1.25]])
    net[2].weight.data, net[2].bias.data = torch.tensor([[3.0, -1.0]]), torch.tensor([0.25])
    # hidden values on the calibration: (2, 4) and (-1, 0.625): range [-1, 4], step 5/3, zero point round(0.6) = 1
    # outputs: 6 - 4 + 0.25 = 2.25 and -0.625 + 0.25 = -0.375: step 2.625 / 3 = 0.875, zero point round(3/7) = 0
    prepared = prepare(net, torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
    quantized = prepared.at(2)
    assert quantized.get_submodule("0").weight.tolist() == [[0, -2], [2, 2]]  # 1/2 is a tie and goes to even
    assert quantized.get_submodule("2").weight.tolist() == [[3, 0]]
    hidden, last = (quantized.get_submodule(f"{name}_quantizer") for name in "02")
    assert (float(hidden.scale), hidden.zero_point) == (float(np.float32(5 / 3)), 1)
    assert (float(last.scale), last.zero_point) == (0.875, 0)
    # (1, 1): hidden (-2, 4), rounded and cut at zero (0, 2 steps); output 0.25, a third of a step, gives 0
    # (-1, -1): hidden (2, -4), rounded and cut (5/3, 0); output 5.25 is beyond the grid's top of 3 steps
    assert quantized(torch.tensor([[1.0, 1.0], [-1.0, -1.0]])).tolist() == [[0.0], [2.625]]


# --- weights and widths ----------------------------------------------------------------------------------------------


def channels_last(weight: torch.Tensor) -> torch.Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weights_are_on_their_grid_layer_by_layer(bits, layout):
    net = build("simplecnn").to(memory_format=layout)
    quantized = quantize(net, (bits, 32, 16, bits), images(4))
    for name in ("conv1", "fc2"):
        top = 2 ** (bits - 1) - 1
        weight, original = quantized.get_submodule(name).weight, net.get_submodule(name).weight
        steps = weight.double() / (original.abs().max().double() / max(top, 1))
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
        assert steps.abs().max().round() == top
        assert torch.equal(quantized.get_submodule(name).bias, net.get_submodule(name).bias)
        assert weight.stride() == (original if name == "fc2" else channels_last(original)).stride()
    assert torch.equal(quantized.conv2.weight, net.conv2.weight)
    assert 2**8 < len(quantized.fc1.weight.unique()) < 2**16


def test_per_channel_weights_have_a_range_each():
    weight = torch.tensor([[1.0, 0.4], [100.0, 40.0]])
    one = ptq.quantized_weight(weight, 3)
    own = ptq.quantized_weight(weight, 3, Scheme(weight_per_channel=True))
    assert one[0].tolist() == [0, 0]
    torch.testing.assert_close(own, torch.tensor([[1.0, 1 / 3], [100.0, 100 / 3]]))
    assert ptq.quantized_weight(weight, 32) is weight


def test_shared_weights_are_rounded_separately():
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    net[2].weight = net[0].weight
    quantized = quantize(net, (8, 2), torch.randn(9, 6))
    for name, bits in (("0", 8), ("2", 2)):
        assert_same_bits(quantized.get_submodule(name).weight, ptq.quantized_weight(net[0].weight.detach(), bits))


@pytest.mark.parametrize("widths", [np.array([8, 4, 2, 32]), [8, 4, 2, 32], iter((8, 4, 2, 32))])
def test_widths_come_in_any_sequence(widths):
    assert ptq.layer_widths(widths, "abcd") == (8, 4, 2, 32)
    assert ptq.layer_widths(np.int64(8), "ab") == (8, 8)


def test_calibration_may_be_one_image_or_many_batches():
    net, x = build("simplecnn"), images(300)
    one = prepare(net, x[:1])
    assert torch.isfinite(one.at(8)(x)).all()
    whole = prepare(net, x)  # three batches of the calibration pass
    with torch.no_grad():
        conv1 = net.conv1(x)
    assert (whole.statistics["conv1"].minimum, whole.statistics["conv1"].maximum) == pytest.approx(
        (conv1.min().item(), conv1.max().item())
    )


def test_ranges_follow_the_scheme():
    net, x = build("simplecnn"), images(50)
    width = {}
    for observer in ("minmax", "percentile", "mse"):
        grid = prepare(net, x, Scheme(activation_range=observer, percentile=99)).activation_grid("conv1", 4)
        width[observer] = float(grid.scale)
    assert width["percentile"] < width["minmax"] and width["mse"] < width["minmax"]
    symmetric = prepare(net, x, Scheme(activation_symmetric=True)).activation_grid("conv1", 4)
    assert (symmetric.low, symmetric.high, symmetric.zero_point) == (-7, 7, 0)


def test_sixteen_bits_as_float16():
    net, x = build("simplecnn"), images(4)
    prepared = prepare(net, x, Scheme(sixteen_bit="float16"))
    half = prepared.at(16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}
    out = half(x)
    assert out.dtype == torch.float32
    assert torch.equal(out, copy.deepcopy(net).half()(x.half()).float())
    assert {parameter.dtype for parameter in prepared.at((16, 16, 16, 8)).parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in quantize(net, 16, x).parameters()} == {torch.float32}
    assert_same_bits(prepared.at(32)(x), net(x))


def test_quantized_network_lets_gradients_through_to_its_input():
    x = images(2).requires_grad_()
    quantize(build("simplecnn"), 8, images(4))(x).sum().backward()
    assert x.grad.shape == x.shape


def test_public_names_are_the_same_functions():
    assert (quide.quantize, quide.PAPER, quide.Scheme) == (quantize, PAPER, Scheme)


# --- batch norm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 2])
def test_batch_norm_is_folded_to_the_same_function(dimensions):
    torch.manual_seed(0)
    if dimensions == 2:
        net, x = build("residual"), images(7)
    else:
        net, x = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(30, 6)
        net(x * 2 + 1)
        net.eval()
    folded = prepare(net, x).at(32)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    assert not any(isinstance(part, norms) for part in folded.modules())
    torch.testing.assert_close(folded(x), net(x))
    kept = prepare(net, x, replace(PAPER, fold_batch_norm=False))
    count = sum(isinstance(part, norms) for part in net.modules())
    assert sum(isinstance(part, norms) for part in kept.at(4).modules()) == count > 0


def test_folding_happens_before_the_weights_are_rounded():
    net, x = build("residual"), images(7)
    folded, kept = (quantize(net, 4, x, replace(PAPER, fold_batch_norm=fold)) for fold in (True, False))
    name = "0.conv1"
    bn = net[0].bn1
    factor = (bn.weight / (bn.running_var + bn.eps).sqrt())[:, None, None, None]
    expected = ptq.quantized_weight((net[0].conv1.weight * factor).detach(), 4)
    torch.testing.assert_close(folded.get_submodule(name).weight, expected)
    assert_same_bits(kept.get_submodule(name).weight, ptq.quantized_weight(net[0].conv1.weight.detach(), 4))


# --- errors ----------------------------------------------------------------------------------------------------------


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


class Twice(DataDependent):
    def forward(self, x):
        return self.layer(self.layer(x))


class Never(DataDependent):
    def forward(self, x):
        return x * 2


@pytest.mark.parametrize("bits", [0, 33, -8, True, 8.0, "8", None, (8, 8, 8, 0), (8, 8, 8, 8.5), (True,) * 4])
def test_refuses_widths_that_are_none(bits):
    with pytest.raises(ValueError, match=r"^bits .*"):
        quantize(build("simplecnn"), bits, images(2))


@pytest.mark.parametrize("bits", [(8, 8, 8), (8,) * 5, ()])
def test_refuses_a_mix_of_the_wrong_length_and_lists_the_layers(bits):
    with pytest.raises(ValueError, match=rf"^bits names {len(bits)} layers, the model has 4: conv1, conv2, fc1, fc2$"):
        quantize(build("simplecnn"), bits, images(2))


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (torch.zeros(0, *INPUT), "one or more images"),
        (torch.zeros(()), "one or more images"),
        (np.zeros((2, *INPUT)), "must be a tensor"),
        (None, "must be a tensor"),
        ([torch.zeros(INPUT)], "must be a tensor"),
        (torch.full((2, *INPUT), torch.nan), "NaN or infinite.*normalization"),
        (torch.full((2, *INPUT), torch.inf), "NaN or infinite.*normalization"),
        (torch.zeros(2, *INPUT, dtype=torch.uint8), "uint8.*normalize"),
    ],
)
def test_refuses_a_bad_calibration(calibration, message):
    with pytest.raises(ValueError, match=f"^calibration .*{message}"):
        quantize(build("simplecnn"), 8, calibration)


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))


def broken() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4))
    net[0].weight.data[0, 0] = torch.nan
    return net


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Sequential(nn.ReLU()), "^model Sequential has no .* to quantize"),
        (DataDependent, r"^model DataDependent cannot be traced by torch.fx .*; move data-dependent control flow out"),
        (Twice, "^layer layer is called 2 times .*keep={'layer': 32}"),
        (Never, "^model Never calls none of its layers in evaluation: layer"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.ConvTranspose2d(1, 1, 1)), "^layer 1 .* is a ConvTranspose2d"),
        (weight_normed, "^layer 0 .* computes its weight anew .*remove_parametrizations"),
        (broken, "^an activation is NaN or infinite .*check the model's weights"),
    ],
)
def test_refuses_a_model_it_cannot_quantize_whole(model, message):
    with pytest.raises(ValueError, match=message):
        quantize(model(), 8, torch.randn(3, 4))


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.again, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        for _ in range(2):
            x = torch.relu(self.norm(self.again(x)))
        return self.last(x.mean((2, 3)))


@pytest.mark.parametrize("scheme", [PAPER, BEST])
def test_a_layer_that_is_called_twice_can_be_left_in_float(scheme):
    torch.manual_seed(0)
    model, pixels, kept = Loop().eval(), torch.randn(16, 3, 8, 8), {"again": 32}
    made = quantize(model, 4, pixels, scheme, keep=kept)
    assert torch.equal(made.again.weight, model.again.weight) and not torch.equal(made.last.weight, model.last.weight)
    labels = torch.randint(0, 4, (16,))
    for bits, accuracy in exhaustive(model, pixels, labels, pixels, (8, 4), scheme, keep=kept).items():
        one = quantize(model, bits, pixels, scheme, keep=kept)
        assert accuracy == (one(pixels).argmax(1) == labels).float().mean()


def test_a_layer_that_is_called_twice_is_not_equalized():
    torch.manual_seed(0)
    model, pixels = Loop().eval(), torch.randn(16, 3, 8, 8)
    model.norm = nn.Identity()
    prepared = ptq.prepare(model, pixels, PAPER, keep={"again": 32})
    for technique in (ptq.Equalize(), ptq.AbsorbBias()):
        changed = technique.before(prepared, pixels).full_precision()
        assert torch.allclose(changed(pixels), model(pixels), atol=1e-6)


def test_a_weight_that_is_not_finite_is_named_even_where_no_activation_shows_it():
    with pytest.raises(ValueError, match="weight is NaN or infinite.*checkpoint"):
        ptq.quantized_weight(torch.tensor([[1.0, torch.inf]]), 8)


@pytest.mark.parametrize(
    "field", ["weight_range", "weight_levels", "activation_site", "activation_range", "rounding", "sixteen_bit"]
)
def test_scheme_refuses_unknown_values_and_lists_the_known(field):
    default = getattr(PAPER, field)
    with pytest.raises(ValueError, match=rf"^{field} must be one of .*\b{default}\b.*, got 'typo'$"):
        Scheme(**{field: "typo"})


@pytest.mark.parametrize("percentile", [50, 0, -1, 100.1, float("nan")])
def test_scheme_refuses_percentiles_out_of_range(percentile):
    with pytest.raises(ValueError, match=r"^percentile must lie in \(50, 100\]"):
        Scheme(percentile=percentile)


def test_layers_are_named_in_the_order_of_registration():
    assert quantizable_layers(build("nested")) == ["block.0.0.0", "a.0", "a_0", "head"]
