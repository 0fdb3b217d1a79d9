"""Range rules: exact extremes, the share a percentile keeps, least squared error, and batches against one pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quide.ptq import ranges
from quide.ptq.grid import affine_grid, fake_quantize, symmetric_grid
from quide.ptq.prepared import quantized_weight
from quide.ptq.ranges import Statistics, weight_range
from quide.ptq.scheme import PAPER, RANGES, Scheme


@st.composite
def activations(draw) -> torch.Tensor:
    """Bell-shaped, skewed, heavy-tailed or one-sided values ``(n, 7)`` of any usual magnitude."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = (draw(st.integers(1, 60)), 7)
    values = {
        "normal": lambda: rng.standard_normal(size),
        "skewed": lambda: rng.gamma(0.5, size=size) - 0.2,
        "heavy": lambda: rng.standard_t(2, size=size),
        "positive": lambda: 5 + rng.random(size),
        "few": lambda: rng.integers(-2, 3, size).astype(float),
    }[draw(st.sampled_from(("normal", "skewed", "heavy", "positive", "few")))]()
    return torch.from_numpy((values * 10.0 ** draw(st.integers(-6, 6))).astype(np.float32))


def watched(*batches: torch.Tensor) -> Statistics:
    """Both passes over the batches."""
    statistics = Statistics()
    for see in (statistics.see_extremes, statistics.see_histogram):
        for batch in batches:
            see(batch)
    return statistics


def squared_error(values: torch.Tensor, bits: int, symmetric: bool, extremes: tuple[float, float]) -> float:
    grid = symmetric_grid(*map(torch.tensor, extremes), bits) if symmetric else affine_grid(*extremes, bits)
    return (fake_quantize(values, grid).double() - values.double()).square().mean().item()


@given(activations())
def test_minmax_is_exact(values):
    assert watched(values).range("minmax", 8, 99.9, False) == (values.min().item(), values.max().item())


@given(activations(), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_batches_give_what_one_pass_gives(values, parts):
    cuts = np.cumsum(parts)
    one, streamed = watched(values), watched(*(part for part in np.split(values, cuts) if len(part)))
    assert (one.minimum, one.maximum) == (streamed.minimum, streamed.maximum)
    assert torch.equal(one.counts, streamed.counts)
    assert one.counts.sum() == values.numel()


def test_memory_does_not_grow_with_the_images():
    few, many = watched(torch.randn(10, 3)), watched(*(torch.randn(1000, 3) for _ in range(20)))
    for statistics in (few, many):
        assert statistics.counts.shape == (ranges.BINS,)
        assert set(vars(statistics)) == {"minimum", "maximum", "counts", "logits"} and statistics.logits is None


@settings(deadline=None)
@given(activations(), st.floats(50.5, 100))
def test_percentile_keeps_the_stated_share_and_hardly_more(values, percentile):
    statistics = watched(values)
    low, high = statistics.range("percentile", 8, percentile, False)
    span = statistics.maximum - statistics.minimum
    assert statistics.minimum <= low <= high <= statistics.maximum + 1e-6 * span
    # float32 decides which bin a value on an edge falls into
    edge, one_bin = 1e-5 * span + 1e-6 * max(abs(statistics.minimum), abs(statistics.maximum)), span / ranges.BINS
    tail = (1 - percentile / 100) / 2 * values.numel()
    assert (values < low - edge).sum() <= tail
    assert (values > high + edge).sum() <= tail
    # one bin further in, either tail would be too large
    if span > 0:
        assert (values <= low + one_bin + edge).sum() > tail
        assert (values >= high - one_bin - edge).sum() > tail


def test_percentile_golden():
    """75 % of sixteen values leave two on each side: those go, the next ones stay."""
    low, high = watched(torch.arange(16.0)).range("percentile", 8, 75, False)
    assert (low, high) == pytest.approx((2, 13), abs=15 / ranges.BINS)


def test_percentile_100_is_minmax():
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    assert watched(values).range("percentile", 8, 100, False) == pytest.approx(
        (values.min().item(), values.max().item())
    )


@settings(deadline=None, max_examples=200)
@given(activations(), st.integers(2, 8), st.booleans())
def test_mse_is_never_worse_than_minmax_on_the_data(values, bits, symmetric):
    """Up to what the histogram cannot see.

    The distance of a value to a grid changes by at most as much as the value moves, so replacing values by the centres
    of their bins moves the root mean squared error by at most half a bin, once for each of the two ranges.
    """
    statistics = watched(values)
    clipped, whole = (
        squared_error(values, bits, symmetric, statistics.range(rule, bits, 99.9, symmetric)) ** 0.5
        for rule in ("mse", "minmax")
    )
    one_bin = (statistics.maximum - statistics.minimum) / ranges.BINS
    rounding = 1e-5 * values.abs().max().item()
    assert clipped <= whole + one_bin + rounding


@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_clips_an_outlier_that_minmax_pays_for(symmetric):
    values = torch.cat([torch.linspace(-1, 1, 10_000), torch.tensor([5.0])])
    statistics = watched(values)
    low, high = statistics.range("mse", 3, 99.9, symmetric)
    assert high < (2.5 if symmetric else 4)  # a clipped affine range gives up as much of its good side
    clipped = squared_error(values, 3, symmetric, (low, high))
    assert clipped < squared_error(values, 3, symmetric, (-1.0, 5.0)) * 0.8
    # no other share of the full range does better
    for share in ranges.CLIPPINGS.tolist():
        assert clipped <= squared_error(values, 3, symmetric, (-share, 5 * share)) * 1.01


@pytest.mark.parametrize("rule", RANGES)
@pytest.mark.parametrize("value", [0.0, -3.0, 3.0])
def test_constant_activations_have_that_range(rule, value):
    assert watched(torch.full((9,), value)).range(rule, 4, 99, False) == (value, value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("position", [0, 1])
def test_activations_that_are_not_finite_are_refused(value, position):
    batches = [torch.ones(3), torch.ones(3)]
    batches[position][1] = value
    with pytest.raises(ValueError, match="NaN or infinite on the calibration images; check the model's weights"):
        watched(*batches)


# --- weights ---------------------------------------------------------------------------------------------------------


@given(activations(), st.booleans())
def test_weight_minmax_reaches_the_largest_magnitude(weight, per_channel):
    low, high = weight_range(weight, "minmax", 8, 99.9, per_channel)
    expected = weight.abs().amax(1, keepdim=True) if per_channel else weight.abs().max()
    assert torch.equal(high, expected) and torch.equal(low, -expected)


@given(activations(), st.booleans(), st.floats(50.5, 100))
def test_weight_percentile_keeps_the_stated_share(weight, per_channel, percentile):
    low, high = weight_range(weight, "percentile", 8, percentile, per_channel)
    assert torch.equal(low, -high)
    rows = weight if per_channel else weight.reshape(1, -1)
    count = rows.shape[1]
    kept = (rows.abs() <= high.reshape(-1, 1)).sum(1)
    assert (kept >= percentile / 100 * count - 0.5).all()
    # the limit is one of the weights, and below it there are fewer than asked for
    assert ((rows.abs() == high.reshape(-1, 1)).any(1)).all()
    assert ((rows.abs() < high.reshape(-1, 1)).sum(1) <= max(percentile / 100 * count + 0.5 - 1, 0)).all()


@settings(deadline=None)
@given(activations(), st.integers(2, 8), st.booleans(), st.sampled_from(("restricted", "full")))
def test_weight_mse_is_never_worse_than_minmax(weight, bits, per_channel, levels):
    errors = {}
    for rule in ("mse", "minmax"):
        scheme = Scheme(weight_range=rule, weight_per_channel=per_channel, weight_levels=levels)
        error = (quantized_weight(weight, bits, scheme) - weight).double().square()
        errors[rule] = error.sum(1) if per_channel else error.sum()
    rounding = 1e-6 * weight.double().square().sum(1 if per_channel else None)
    assert (errors["mse"] <= errors["minmax"] * (1 + 1e-4) + rounding).all()


def test_weight_mse_clips_an_outlier():
    weight = torch.cat([torch.linspace(-1, 1, 10_000), torch.tensor([5.0])])[None]
    _, reach = weight_range(weight, "mse", 3, 99.9, False)
    assert reach < 2.5
    errors = [(quantized_weight(weight, 3, scheme) - weight).square().sum() for scheme in (Scheme("mse"), PAPER)]
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2, 2), (3, 4, 5)])
def test_weight_ranges_broadcast_against_the_weight(shape, per_channel):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for rule in RANGES:
        _, reach = weight_range(weight, rule, 4, 99, per_channel)
        assert reach.shape == ((3,) + (1,) * (len(shape) - 1) if per_channel else ())


@pytest.mark.parametrize("rule", RANGES)
def test_all_zero_weights_stay_zero(rule):
    weight = torch.zeros(3, 4)
    assert torch.equal(quantized_weight(weight, 2, Scheme(weight_range=rule, weight_per_channel=True)), weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="a weight is NaN or infinite; check the checkpoint"):
        weight_range(torch.tensor([[1.0, value]]), "minmax", 8, 99.9, False)
