"""Intervals against closed forms; the bootstrap of the knee against the enumeration of every possible draw."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from quide import metric, stats

BITS = (32, 8, 4, 2)


def outcomes(accuracies, seeds=3, images=400, seed=0, noise=0.0):
    """Correctness (seeds, bits, images): an image is right at a width whose accuracy exceeds its difficulty."""
    generator = np.random.default_rng(seed)
    difficulty = generator.random(images) + noise * generator.standard_normal((seeds, len(accuracies), images))
    return difficulty < np.asarray(accuracies)[None, :, None]


# Intervals.


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_matches_its_closed_form(count, level):
    correct, n = count
    z, p = scipy_stats.norm.ppf((1 + level) / 2), correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    interval = stats.wilson_interval(correct, n, level)
    assert interval.estimate == p
    assert interval.low == pytest.approx(max(0, centre - half), abs=1e-12)
    assert interval.high == pytest.approx(min(1, centre + half), abs=1e-12)


def test_wilson_at_the_ends_and_with_numpy_counts():
    assert stats.wilson_interval(0, 10).low == 0 and 0 < stats.wilson_interval(0, 10).high < 0.4
    assert stats.wilson_interval(10, 10).high == 1
    assert stats.wilson_interval(np.int64(7), np.int32(9)) == stats.wilson_interval(7, 9)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=10), st.floats(0.5, 0.999))
def test_mean_interval_matches_the_t_test(values, level):
    interval = stats.mean_interval(values, level)
    if np.ptp(values) < 1e-9:
        assert interval.low == pytest.approx(interval.high, abs=1e-6)
        return
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(level)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-9)
    assert interval.estimate == pytest.approx(math.fsum(values) / len(values), abs=1e-9)


def test_one_seed_has_a_mean_and_no_bounds():
    interval = stats.mean_interval([0.8])
    assert interval.estimate == 0.8 and math.isnan(interval.low) and math.isnan(interval.high)


def test_paired_difference_by_hand():
    # 30 images: b gains 6 and loses 2; Agresti-Min: cells 6.5 and 2.5 of 32.
    a = np.array([True] * 2 + [False] * 6 + [True] * 22)
    b = np.array([False] * 2 + [True] * 6 + [True] * 22)
    interval = stats.paired_difference_interval(a, b)
    half = 1.959963984540054 * math.sqrt(6.5 + 2.5 - (6.5 - 2.5) ** 2 / 32) / 32
    assert interval.estimate == pytest.approx(4 / 30)
    assert (interval.low, interval.high) == pytest.approx((4 / 32 - half, 4 / 32 + half))
    assert stats.paired_difference_interval(b, a).low == pytest.approx(-interval.high)


def test_paired_difference_covers_the_truth():
    """Exact coverage over all trinomial outcomes of 30 images, gain probability 0.15, loss 0.05."""
    n, gain, loss = 30, 0.15, 0.05
    covered = 0.0
    for gained, lost in itertools.product(range(n + 1), repeat=2):
        if gained + lost <= n:
            a = np.arange(n) < lost
            b = (np.arange(n) >= lost) & (np.arange(n) < lost + gained)
            interval = stats.paired_difference_interval(a, b)
            if interval.low <= gain - loss <= interval.high:
                weights = [gain, loss, 1 - gain - loss]
                covered += scipy_stats.multinomial.pmf([gained, lost, n - gained - lost], n, weights)
    assert 0.93 < covered < 0.98


def test_networks_that_never_disagree_keep_an_interval():
    same = np.ones(100, dtype=bool)
    interval = stats.paired_difference_interval(same, same)
    assert interval.estimate == 0 and interval.low < 0 < interval.high


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_hits_are_the_intervals_of_packed_hits(pairs):
    full, narrow = (stats.Hits(np.array(column)) for column in zip(*pairs, strict=True))
    again = stats.Hits.unpacked(narrow.packed())
    assert np.array_equal(again.correct, narrow.correct) and len(again) == len(pairs)
    assert narrow.interval(0.9) == stats.wilson_interval(int(narrow.correct.sum()), len(pairs), 0.9)
    assert narrow.accuracy == narrow.interval().estimate == sum(right for _, right in pairs) / len(pairs)
    change = narrow.change(full)
    assert change == stats.paired_difference_interval(full.correct, narrow.correct)
    kept = narrow.kept(full)
    if not full.correct.any():
        assert math.isnan(kept.estimate) and math.isnan(kept.low) and math.isnan(kept.high)
        return
    assert kept.estimate == pytest.approx(narrow.accuracy / full.accuracy)
    assert kept.low == max(1 + change.low / full.accuracy, 0) and kept.high == 1 + change.high / full.accuracy


def test_hits_refuse_what_is_no_vector_of_booleans():
    for wrong in ([1, 0], [[True]], []):
        with pytest.raises(ValueError, match="^correct must be a non-empty bool"):
            stats.Hits(wrong)
    with pytest.raises(ValueError, match="cover"):
        stats.Hits([True]).change(stats.Hits([True, False]))


# Bootstrap of the knee.


def every_draw(correct, latency, bits, threshold):
    """I' of every equally likely draw (seeds x images) in plain Python; ``threshold`` is a function of FP accuracy."""
    seeds, _, images = correct.shape
    rows = []
    for chosen in itertools.product(range(seeds), repeat=seeds):
        for drawn in itertools.product(range(images), repeat=images):
            accuracy = [[sum(correct[s, b, i] for i in drawn) / images for b in range(len(bits))] for s in chosen]
            floor = threshold(sum(row[0] for row in accuracy) / seeds)
            gains = [
                [32 / b * max(p - floor, 0) / math.log2(t + 1) for b, p, t in zip(bits, row, latency[s], strict=True)]
                for s, row in zip(chosen, accuracy, strict=True)
            ]
            rows.append([sum(column) / seeds for column in zip(*gains, strict=True)])
    return np.array(rows)


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        ({"tolerance": 0.3, "num_classes": 5}, lambda full: max(0.2, full - 0.3)),
        ({"threshold": 0.4}, lambda full: 0.4),
        ({"threshold": 0.0}, lambda full: 0.0),
    ],
    ids=["equation 4", "fixed", "raw index"],
)
def test_bootstrap_agrees_with_enumeration_of_every_draw(rule, threshold):
    correct = np.array(
        [[[1, 1, 1, 0], [1, 1, 0, 1], [0, 1, 0, 0]], [[1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 0]]], dtype=bool
    )
    latency = np.array([[0.5, 1.7, 2.0], [0.4, 2.3, 1.1]])
    bits = (32, 8, 4)
    exact = every_draw(correct, latency, bits, threshold)
    result = stats.bootstrap_knee(correct, latency, bits, repeats=50_000, **rule)
    knees = [metric.knee(bits, row) for row in exact]
    shares = {width: knees.count(width) / len(knees) for width in (*bits, None)}
    assert (
        sum(0.1 < share < 0.9 for share in shares.values()) >= 2
    )  # an undecided case, so that agreement says something
    assert result.probability == pytest.approx(shares, abs=0.012)  # 5 standard errors
    for q in (0.1, 0.25, 0.5, 0.75, 0.9):
        level = np.quantile(exact, q, axis=0) + 1e-9
        assert (result.replicates <= level).mean(0) == pytest.approx((exact <= level).mean(0), abs=0.012)


def test_observed_index_is_the_mean_over_seeds():
    correct = outcomes((0.8, 0.79, 0.6, 0.1), noise=0.05)
    latency = np.array([[0.5, 1.0, 1.0, 1.1], [0.6, 1.1, 1.2, 1.3], [0.4, 0.9, 1.0, 1.0]])
    result = stats.bootstrap_knee(correct, latency, BITS, threshold=0.5, repeats=10)
    expected = metric.gated_index([1, 4, 8, 16], correct.mean(2), latency, 0.5).mean(0)
    assert result.index == pytest.approx(expected)
    assert result.replicates.shape == (10, 4) and result.bits == BITS


def test_order_of_widths_and_shared_latency_do_not_matter():
    correct = outcomes((0.8, 0.79, 0.62, 0.1), noise=0.05)
    latency = np.array([0.5, 1.0, 1.05, 1.1])
    forward = stats.bootstrap_knee(correct, latency, BITS, tolerance=0.3, num_classes=10)
    per_seed = np.tile(latency[::-1], (3, 1))
    backward = stats.bootstrap_knee(correct[:, ::-1], per_seed, BITS[::-1], tolerance=0.3, num_classes=10)
    assert forward.probability == backward.probability
    assert list(forward.probability) == [*BITS, None] and sum(forward.probability.values()) == pytest.approx(1)
    assert forward.replicates == pytest.approx(backward.replicates[:, ::-1])


def test_bootstrap_is_reproducible_and_chunks_are_complete(monkeypatch):
    correct = outcomes((0.8, 0.79, 0.6, 0.1), noise=0.1)
    arguments = (correct, np.ones(4), BITS)
    first, again = (stats.bootstrap_knee(*arguments, threshold=0.5, repeats=101, seed=3).replicates for _ in range(2))
    assert (first == again).all()
    monkeypatch.setattr(stats, "CHUNK", 7 * correct.shape[2])
    assert stats.bootstrap_knee(*arguments, threshold=0.5, repeats=101).replicates.shape == (101, 4)


def test_images_are_paired_across_widths():
    # Two widths that are right on the same images: with equal latency and compression they tie in every replicate,
    # which independent draws would break; the tie goes to the wider one.
    correct = np.repeat(outcomes((0.7,), seeds=2), 2, axis=1)
    result = stats.bootstrap_knee(correct, [1.0, 1.0], (8, 4), threshold=0.5, compression=[4, 4])
    assert (result.replicates[:, 0] == result.replicates[:, 1]).all()
    assert result.probability == {8: 1.0, 4: 0.0, None: 0.0}


def test_perfect_and_useless_networks():
    correct = np.stack([np.ones((2, 50), bool), np.zeros((2, 50), bool)], axis=1)
    result = stats.bootstrap_knee(correct, [1.0, 1.0], (32, 4), tolerance=0.3, num_classes=10, repeats=50)
    assert result.probability == {32: 1.0, 4: 0.0, None: 0.0}
    assert result.interval(32) == stats.Interval(pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3))
    nothing = stats.bootstrap_knee(~correct[:, :1], [1.0], (4,), threshold=0.5, repeats=50)
    assert nothing.probability == {4: 0.0, None: 1.0}


def test_single_image_and_single_seed():
    result = stats.bootstrap_knee(np.array([[[True], [False]]]), [1.0, 1.0], (8, 4), threshold=0.0, repeats=20)
    assert result.probability[8] == 1.0 and (result.replicates == [4, 0]).all()


def test_interval_widens_with_fewer_images():
    def width(images):
        correct = outcomes((0.8, 0.7, 0.6, 0.1), images=images)
        interval = stats.bootstrap_knee(correct, np.ones(4), BITS, threshold=0.3, repeats=500).interval(8)
        assert interval.low <= interval.estimate <= interval.high
        return interval.high - interval.low

    assert width(50) / width(5_000) == pytest.approx(10, rel=0.3)


# Bad input.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.wilson_interval(0.99, 100), "^correct must be a whole number in 0..10"),
        (lambda: stats.wilson_interval(1, 10.5), "^n must be a whole number of at least 1"),
        (lambda: stats.wilson_interval(math.nan, 10), "^correct must be a whole number in 0..10"),
        (lambda: stats.wilson_interval(11, 10), "^correct must be a whole number in 0..10, got"),
        (lambda: stats.wilson_interval(-1, 10), "^correct must be a whole number in 0..10, got"),
        (lambda: stats.wilson_interval(0, 0), "^n must be a whole number of at least 1, got 0"),
        (lambda: stats.wilson_interval(1, 2, level=95), "^level"),
        (lambda: stats.mean_interval([]), "^values is empty"),
        (lambda: stats.mean_interval([1, math.nan]), "^values .*NaN"),
        (lambda: stats.mean_interval([[1, 2]]), "^values must be flat"),
        (lambda: stats.mean_interval([1, 2], level=1), "^level"),
        (lambda: stats.paired_difference_interval([1, 0], [True, False]), "^correct_a .*bool"),
        (lambda: stats.paired_difference_interval([True], [True, False]), "^correct_b must cover"),
        (lambda: stats.paired_difference_interval([], []), "^correct_a"),
    ],
)
def test_intervals_refuse_bad_input_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct": np.ones((2, 4), bool)}, "^correct .*3 dimension"),
        ({"correct": np.ones((2, 4, 5))}, "^correct .*bool"),
        ({"correct": np.ones((2, 4, 0), bool)}, "^correct must be a non-empty"),
        ({"bits": (32, 8, 4)}, "^bits"),
        ({"bits": (32, 8, 4, 4)}, "^bits"),
        ({"bits": (64, 8, 4, 2)}, "^bits"),
        ({"latency_ms": np.ones(3)}, "^latency_ms"),
        ({"latency_ms": np.ones((4, 2))}, "^latency_ms"),
        ({"latency_ms": np.zeros(4)}, "^latency_ms must be above 0"),
        ({"latency_ms": [1, 1, math.nan, 1]}, "^latency_ms .*NaN"),
        ({"compression": [1, 4]}, "^compression"),
        ({"repeats": 0}, "^repeats"),
        ({"threshold": None}, "^threshold"),
        ({"tolerance": 0.3}, "^threshold"),
        ({"tolerance": 0.3, "threshold": None}, "^threshold"),
        ({"tolerance": 0.3, "num_classes": 10}, "^threshold"),
        ({"threshold": 50}, "^threshold .*percentage"),
    ],
)
def test_bootstrap_refuses_bad_input_by_name(changes, message):
    arguments = {"correct": outcomes((0.8, 0.7, 0.6, 0.1)), "latency_ms": np.ones(4), "bits": BITS, "threshold": 0.5}
    with pytest.raises(ValueError, match=message):
        stats.bootstrap_knee(**{**arguments, **changes})


def test_interval_of_an_unknown_width():
    result = stats.bootstrap_knee(outcomes((0.8, 0.7)), [1.0, 1.0], (32, 8), threshold=0.5, repeats=5)
    with pytest.raises(ValueError, match="^bits must be one of"):
        result.interval(16)
