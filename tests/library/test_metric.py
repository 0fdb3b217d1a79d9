"""Metric: the paper's printed pairs, properties, and refusal of bad input."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from quide import metric

accuracies = st.floats(0, 1)
latencies = st.floats(1e-3, 1e5)
compressions = st.floats(0.5, 64)
widths = st.integers(1, 32)

# Weights, without biases, of the paper's SimpleCNN on CIFAR-10 with padding 1: conv1, conv2, fc1, fc2.
SIMPLECNN_WEIGHTS = (3 * 9 * 32, 32 * 9 * 64, 64 * 8 * 8 * 128, 128 * 10)


def printed(value, text):
    """Whether ``value`` agrees with a printed number to half a unit of its last digit."""
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10**-digits


# Golden values: numbers that the paper prints (§4.2, §5), each within its printed rounding.


@pytest.mark.parametrize(
    ("compression", "accuracy", "latency_ms", "threshold", "raw", "gated"),
    [(4, 0.9484, 23.34, 0.50, "0.824", "0.390"), (8, 0.5369, 23.34, 0.50, "0.933", "0.064")],
    ids=["8-bit", "4-bit"],
)
def test_resnet18_pairs_as_printed(compression, accuracy, latency_ms, threshold, raw, gated):
    # T is printed to 0.01 ms and P to 0.01 pp, so the index is known to an interval, which must meet the printed one.
    low = (compression, accuracy - 5e-5, latency_ms + 5e-3)
    high = (compression, accuracy + 5e-5, latency_ms - 5e-3)
    for text, function, extra in ((raw, metric.intelligence_index, ()), (gated, metric.gated_index, (threshold,))):
        half = 0.5 * 10 ** -len(text.partition(".")[2])
        assert function(*low, *extra) <= float(text) + half
        assert function(*high, *extra) >= float(text) - half


def test_equation_4_threshold_misses_the_printed_resnet18_value():
    threshold = metric.accuracy_threshold(0.9493, 0.45, 10)
    assert threshold == pytest.approx(0.4993)
    assert printed(metric.gated_index(8, 0.5369, 23.34, 0.50), "0.064")
    assert not printed(metric.gated_index(8, 0.5369, 23.34, threshold), "0.064")


@pytest.mark.parametrize(("fast", "slow", "text"), [(0.48, 1.16, "1.96"), (8.87, 23.34, "1.39")])
def test_latency_penalty_ratios_as_printed(fast, slow, text):
    assert printed(metric.latency_penalty(slow) / metric.latency_penalty(fast), text)


def test_mixed_compression_as_printed():
    assert printed(metric.compression_ratio((8, 8, 8, 4)), "4.57")
    assert metric.compression_ratio((8, 8, 8, 4)) == 32 / 7
    assert not printed(metric.compression_ratio((8, 8, 8, 2)), "4.57")


@pytest.mark.parametrize(
    ("bits", "text"), [((8, 8, 8, 4), "4.005"), ((8, 8, 8, 2), "4.007"), ((8, 8, 4, 8), "7.709"), ((8, 8, 8, 8), "4")]
)
def test_size_weighted_compression_of_simplecnn(bits, text):
    assert printed(metric.compression_ratio(bits, SIMPLECNN_WEIGHTS), text)


@pytest.mark.parametrize(
    ("accuracy", "tolerance", "classes", "expected"),
    [(0.9921, 0.19, 10, 0.8021), (0.4798, 0.43, 100, 0.0498), (0.5, 0.45, 10, 0.1), (0.2, 0.9, 4, 0.25)],
)
def test_accuracy_threshold(accuracy, tolerance, classes, expected):
    assert metric.accuracy_threshold(accuracy, tolerance, classes) == pytest.approx(expected, abs=1e-15)


def test_known_values_are_exact():
    assert metric.intelligence_index(4, 0.5, 1) == 2.0
    assert metric.intelligence_index(16, 1, 255) == 2.0
    assert metric.gated_index(4, 0.75, 3, 0.25) == 1.0
    assert metric.accuracy_compression_product(8, 0.25) == 2.0
    assert metric.accuracy_per_log_latency(0.75, 7) == 0.25
    assert metric.latency_penalty(15) == 4.0


def test_tiny_latency_keeps_its_penalty():
    assert metric.latency_penalty(1e-20) == pytest.approx(1e-20 / math.log(2))


# Properties.


@given(compressions, compressions, accuracies, accuracies, latencies, latencies)
def test_index_is_monotone_in_each_argument(c1, c2, p1, p2, t1, t2):
    c1, c2 = sorted((c1, c2))
    p1, p2 = sorted((p1, p2))
    t1, t2 = sorted((t1, t2))
    for score in (metric.intelligence_index, lambda c, p, t: metric.gated_index(c, p, t, 0.3)):
        assert score(c1, p1, t1) <= score(c2, p1, t1)
        assert score(c1, p1, t1) <= score(c1, p2, t1)
        assert score(c1, p1, t1) >= score(c1, p1, t2)


@given(st.floats(0.5, 32), st.floats(0.01, 1), latencies)
def test_index_is_strictly_monotone_where_steps_exceed_rounding(c, p, t):
    base = metric.intelligence_index(c, p, t)
    assert metric.intelligence_index(c * 1.01, p, t) > base
    assert metric.intelligence_index(c, p * 0.99, t) < base
    assert metric.intelligence_index(c, p, t * 1.01) < base


@given(compressions, accuracies, latencies, accuracies)
def test_gate_never_raises_the_index_and_closes_at_the_threshold(c, p, t, threshold):
    gated = metric.gated_index(c, p, t, threshold)
    assert 0 <= gated <= metric.intelligence_index(c, p, t)
    assert gated == 0 if p <= threshold else gated > 0 or p - threshold < 1e-300  # what is left may underflow
    assert metric.gated_index(c, p, t, 0) == metric.intelligence_index(c, p, t)


@given(compressions, accuracies, latencies)
def test_index_joins_its_two_rivals(c, p, t):
    expected = metric.intelligence_index(c, p, t)
    assert metric.accuracy_compression_product(c, p) / metric.latency_penalty(t) == pytest.approx(expected, rel=1e-14)
    assert c * metric.accuracy_per_log_latency(p, t) == pytest.approx(expected, rel=1e-14)


@given(st.lists(st.tuples(widths, accuracies, latencies), min_size=1, max_size=8, unique_by=lambda row: row[0]))
def test_ranking_does_not_depend_on_the_base_of_the_logarithm(rows):
    bits, accuracy, latency = map(list, zip(*rows, strict=True))
    compression = [metric.compression_ratio(b) for b in bits]
    index = metric.intelligence_index(compression, accuracy, latency)
    natural = [c * p / math.log1p(t) for c, p, t in zip(compression, accuracy, latency, strict=True)]
    gaps = np.abs(np.subtract.outer(index, index))[np.triu_indices(len(bits), 1)]
    assume(not ((gaps > 0) & (gaps <= 1e-12 * index.max())).any())  # a difference of one rounding is no ranking
    assume(len(set(index)) == len(set(natural)))
    assert metric.rank(bits, index) == metric.rank(bits, natural)


@given(accuracies, accuracies, st.integers(2, 1000))
def test_threshold_bounds(p, tolerance, classes):
    threshold = metric.accuracy_threshold(p, tolerance, classes)
    assert max(1 / classes, p - tolerance) == threshold
    assert 1 / classes <= threshold <= max(p, 1 / classes)


@given(st.lists(st.tuples(compressions, accuracies, latencies, accuracies), min_size=1, max_size=6))
def test_scalars_arrays_and_series_agree(rows):
    table = pd.DataFrame(rows, columns=["c", "p", "t", "floor"], index=[f"row{i}" for i in range(len(rows))])
    one_by_one = [metric.gated_index(*row) for row in rows]
    assert all(type(value) is float for value in one_by_one)
    columns = [table[name] for name in table]
    series = metric.gated_index(*columns)
    assert isinstance(series, pd.Series) and series.index.equals(table.index) and series.tolist() == one_by_one
    array = metric.gated_index(*(column.to_numpy() for column in columns))
    assert isinstance(array, np.ndarray) and array.dtype == np.float64 and array.tolist() == one_by_one


def test_broadcasting():
    grid = metric.intelligence_index([[1.0], [4.0]], [0.5, 1.0], 1)
    assert grid.tolist() == [[0.5, 1.0], [2.0, 4.0]]
    series = metric.intelligence_index(np.array([1, 2]), pd.Series([0.5, 1.0], index=["a", "b"]), 1)
    assert series.to_dict() == {"a": 0.5, "b": 2.0}
    assert type(metric.intelligence_index(np.float32(4), np.array(0.5), 1)) is float


def test_float32_is_computed_in_float64():
    accuracy = np.float32(0.1)
    assert metric.accuracy_compression_product(np.float32(3), accuracy) == 3 * float(accuracy)


@given(st.lists(st.tuples(widths, st.integers(1, 10**9)), min_size=1, max_size=20))
def test_compression_is_the_correctly_rounded_ratio_of_bit_counts(layers):
    bits, sizes = map(list, zip(*layers, strict=True))
    stored = sum(b * n for b, n in layers)
    assert metric.compression_ratio(bits, sizes) == float(Fraction(32 * sum(sizes), stored))
    assert metric.compression_ratio(bits) == float(Fraction(32 * len(bits), sum(bits)))
    assert 32 / max(bits) <= metric.compression_ratio(bits, sizes) <= 32 / min(bits)


@given(widths, st.lists(st.integers(1, 10**9), min_size=1, max_size=5))
def test_uniform_compression_ignores_layer_sizes(bits, sizes):
    assert metric.compression_ratio(bits) == 32 / bits
    assert metric.compression_ratio(bits, sizes) == 32 / bits
    assert metric.compression_ratio([bits] * len(sizes), sizes) == 32 / bits


@pytest.mark.parametrize("bits", [np.array([8, 8, 8, 4]), pd.Series([8, 8, 8, 4]), [8.0, 8.0, 8.0, 4.0], (8, 8, 8, 4)])
def test_compression_accepts_any_flat_sequence(bits):
    assert metric.compression_ratio(bits) == 32 / 7


# Ranking and knee.


def test_rank_and_knee():
    assert metric.rank([32, 16, 8, 4, 2], [0.136, 0.272, 0.390, 0.064, 0]) == [8, 16, 32, 4, 2]
    assert metric.knee([32, 16, 8, 4, 2], [0.136, 0.272, 0.390, 0.064, 0]) == 8


def test_ties_go_to_the_wider_width_whatever_the_order():
    assert metric.rank([2, 4, 16, 8], [0, 1, 0, 1]) == [8, 4, 16, 2]
    assert metric.rank([8, 16, 4, 2], [1, 0, 1, 0]) == [8, 4, 16, 2]
    assert metric.knee([2, 4, 8], [1, 1, 1]) == 8


def test_no_knee_when_nothing_scores():
    assert metric.knee([8, 4], [0, 0]) is None
    assert metric.rank([4, 8], [0, 0]) == [8, 4]


scored_widths = st.lists(st.tuples(widths, st.floats(0, 10)), min_size=1, max_size=8, unique_by=lambda row: row[0])


@given(scored_widths, st.randoms())
def test_rank_is_a_permutation_in_descending_score(rows, shuffler):
    bits, scores = map(list, zip(*rows, strict=True))
    order = metric.rank(bits, scores)
    score = dict(zip(bits, scores, strict=True))
    assert sorted(order) == sorted(bits)
    assert all((score[a], a) > (score[b], b) for a, b in zip(order, order[1:], strict=False))
    assert metric.knee(bits, scores) == (order[0] if max(scores) > 0 else None)
    shuffler.shuffle(rows)
    assert metric.rank(*zip(*rows, strict=True)) == order


# Bad input: one line that names the argument.

GOOD = {"compression": 4, "accuracy": 0.9, "latency_ms": 1.0, "threshold": 0.5}


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("accuracy", 94.84, "percentage"),
        ("accuracy", [0.5, 100], "percentage"),
        ("accuracy", 1.0000001, "fraction in"),
        ("accuracy", 150, "fraction in"),
        ("accuracy", -0.1, "fraction in"),
        ("accuracy", math.nan, "NaN"),
        ("accuracy", None, "NaN"),
        ("accuracy", "0.9", "number"),
        ("accuracy", [True, False], "number"),
        ("accuracy", [], "empty"),
        ("accuracy", pd.Series([0.5, None]), "NaN"),
        ("accuracy", pd.Series([0.5, pd.NA], dtype="Float64"), "NaN"),
        ("accuracy", [[0.5], [0.5, 0.6]], "number"),
        ("threshold", 60, "percentage"),
        ("threshold", -0.01, "fraction in"),
        ("latency_ms", 0, "above 0"),
        ("latency_ms", [1, -1], "above 0"),
        ("latency_ms", math.inf, "infinity"),
        ("compression", 0, "above 0"),
        ("compression", -4, "above 0"),
        ("compression", math.nan, "NaN"),
        ("compression", 1j, "number"),
    ],
)
def test_scores_refuse_bad_input_by_name(name, value, remedy):
    with pytest.raises(ValueError, match=f"^{name} .*{remedy}"):
        metric.gated_index(**{**GOOD, name: value})


@pytest.mark.parametrize("function", ["intelligence_index", "accuracy_compression_product", "accuracy_per_log_latency"])
def test_every_score_refuses_a_percentage(function):
    score = getattr(metric, function)
    names = score.__code__.co_varnames[: score.__code__.co_argcount]
    with pytest.raises(ValueError, match="^accuracy .*percentage"):
        score(**{name: 94.84 if name == "accuracy" else 1.0 for name in names})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((99.2, 0.19, 10), "^full_precision_accuracy .*percentage"),
        ((0.992, 19, 10), "^tolerance .*percentage"),
        ((0.992, -0.1, 10), "^tolerance"),
        ((0.992, 0.19, 1), "^num_classes"),
        ((0.992, 0.19, 2.5), "^num_classes"),
        ((0.992, math.nan, 10), "^tolerance .*NaN"),
    ],
)
def test_threshold_refuses_bad_input_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        metric.accuracy_threshold(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "^bits"),
        ((33,), "^bits"),
        ((3.5,), "^bits"),
        ((True,), "^bits"),
        ((math.nan,), "^bits"),
        (("8-8-8-4",), "^bits"),
        (([],), "^bits is empty"),
        (([8, 64],), "^bits"),
        (([[8, 8], [4, 4]],), "^bits must be one number or a flat"),
        (([8, 4], [1]), "^num_weights .*got 1 for 2"),
        ((8, []), "^num_weights is empty"),
        (([8, 4], [1, 0]), "^num_weights must be whole numbers of at least 1"),
        (([8, 4], [1, -5]), "^num_weights must be whole numbers of at least 1"),
        (([8, 4], [1, 2.5]), "^num_weights"),
        (([8, 4], [1, math.inf]), "^num_weights"),
    ],
)
def test_compression_refuses_bad_input_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        metric.compression_ratio(*arguments)


@pytest.mark.parametrize(
    ("bits", "scores", "message"),
    [
        ([8, 4], [1], "^scores"),
        ([8, 4], [[1, 2]], "^scores"),
        ([8, 4], [1, math.nan], "^scores .*NaN"),
        ([8, 8], [1, 2], "^bits must be distinct"),
        ([], [], "^bits is empty"),
        ([8, 0], [1, 2], "^bits"),
    ],
)
@pytest.mark.parametrize("function", [metric.rank, metric.knee])
def test_ranking_refuses_bad_input_by_name(function, bits, scores, message):
    with pytest.raises(ValueError, match=message):
        function(bits, scores)


def test_shapes_that_do_not_broadcast_are_named():
    with pytest.raises(ValueError, match=r"compression \(2,\), accuracy \(3,\)"):
        metric.accuracy_compression_product([1, 2], [0.1, 0.2, 0.3])


def test_series_are_not_matched_by_position():
    with pytest.raises(ValueError, match="^latency_ms has another index than accuracy"):
        metric.accuracy_per_log_latency(pd.Series([0.5, 0.6], index=[0, 1]), pd.Series([1, 2], index=[1, 0]))
    with pytest.raises(ValueError, match="^accuracy is a Series"):
        metric.accuracy_per_log_latency(pd.Series([0.5]), [1, 2])


def test_metric_needs_numpy_only():
    import subprocess
    import sys

    code = "import sys, quide.metric; print([m for m in ('pandas', 'torch', 'scipy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
