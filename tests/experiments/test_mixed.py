"""Mixed precision: the landscape's scores are the metric's, and EXP-3's answers are those of plain enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from quidebook.pages import exp3_mixed_precision as exp3

from quide import evaluate, metric, ptq, search
from quide.experiments import mixed, records, runs
from quide.experiments.mixed import CHOICES, Landscape
from quide.experiments.recipes import SEARCHED

SIZES = (864, 18432, 524288, 1280)
SMOKE = runs.Case("simplecnn", "cifar10", 0, "smoke")


@pytest.fixture(scope="module")
def land() -> Landscape:
    """Accuracy grows with the widths, with noise; latency is the same but for a little noise."""
    configurations = list(itertools.product(CHOICES, repeat=4))
    generator = np.random.default_rng(0)
    chance = np.array([0.1 + 0.7 * np.prod([1 - 2.0 ** -(b - 1) for b in each]) for each in configurations])
    correct = generator.random((600, 256)) < chance
    measured = 10 + generator.normal(0, 0.05, 256)
    latency, compression = mixed.additive_latency(configurations, measured), mixed._compression(configurations, None)
    right = generator.random(600) < 0.8
    return Landscape(configurations, correct, right, latency, measured, compression, SIZES, 0.3, 10)


@pytest.fixture(scope="module")
def truth(land) -> exp3.Found:
    names = ["32", *map(evaluate.label, land.configurations)]
    latencies = {name: {"median_ms": value} for name, value in zip(names, [8.0, *land.measured_ms], strict=True)}
    environment = {"device_name": "an abacus", "threads": 1}
    spec = records.RunSpec("mixed_latency", "simplecnn", "cifar10", 0, "smoke", {"environment": environment})
    values = {"latencies": latencies, "aa_ratio": 1.01, "noisy": False, "reasons": []}
    other = land.on(np.arange(300))
    timed = records.Record(spec, values, "0" * 16, "none", {}, 1.0)
    return exp3.Found("smoke", {0: land, 42: other}, timed, [timed])


# --- the landscape ---------------------------------------------------------------------------------------------------


def test_scores_are_the_metrics(land):
    threshold = metric.accuracy_threshold(land.reference.mean(), 0.3, 10)
    for place, bits in enumerate(land.configurations[::17]):
        place *= 17
        expected = metric.gated_index(
            metric.compression_ratio(bits), land.correct[:, place].mean(), land.latency_ms[place], threshold
        )
        assert land.fitness[bits] == pytest.approx(expected, rel=1e-12)
        weighted = land.size_weighted()
        assert weighted.compression[place] == metric.compression_ratio(bits, SIZES)
        gain = weighted.compression[place] / land.compression[place]
        assert weighted.fitness[bits] == pytest.approx(gain * land.fitness[bits])


def test_places_count_from_the_best(land):
    assert land.place(land.best) == 1
    assert sorted(land.place(bits) for bits in land.configurations if land.fitness[bits] > 0) == list(
        range(1, 1 + int((land.gated_index > 0).sum()))
    )


def test_a_subset_of_the_images_has_its_own_accuracy_and_threshold(land):
    part = land.on(np.arange(100))
    assert np.array_equal(part.accuracy, land.correct[:100].mean(0))
    assert part.threshold == metric.accuracy_threshold(land.reference[:100].mean(), 0.3, 10)


def test_equal_latency_leaves_compression_and_accuracy_to_decide(land):
    even = land.equal_latency()
    assert len(set(even.latency_ms)) == 1
    top = np.maximum(even.compression * (even.accuracy - even.threshold), 0).argmax()
    assert even.best == land.configurations[top]


def test_additive_latency_recovers_a_sum_over_layers_and_is_the_least_squares_fit(land):
    generator = np.random.default_rng(3)
    effect = [{width: generator.normal() for width in CHOICES} for _ in range(4)]
    truth = np.array([20 + sum(effect[i][b] for i, b in enumerate(bits)) for bits in land.configurations])
    assert mixed.additive_latency(land.configurations, truth) == pytest.approx(truth)
    noisy = truth + generator.normal(0, 1, 256)
    columns = [[1, *(bits[i] == b for i in range(4) for b in CHOICES)] for bits in land.configurations]
    design = np.array(columns, dtype=float)
    expected = design @ np.linalg.lstsq(design, noisy)[0]
    assert mixed.additive_latency(land.configurations, noisy) == pytest.approx(expected.clip(noisy.min(), noisy.max()))


def test_additive_latency_of_pure_noise_stays_within_what_was_measured(land):
    noise = np.full(256, 0.1)
    noise[:3] = 100  # three hiccups: the sums alone would go below zero
    fitted = mixed.additive_latency(land.configurations, noise)
    assert 0.1 <= fitted.min() and fitted.max() <= 100


def test_the_latency_can_be_the_single_measurement(land):
    assert np.array_equal(land.measured_latency().latency_ms, land.measured_ms)


# --- objectives ------------------------------------------------------------------------------------------------------


def test_the_wall_is_the_most_accurate_within_the_budget(land):
    for counted in (land, land.size_weighted()):
        budget = metric.compression_ratio(SEARCHED, None if counted is land else SIZES)
        allowed = [i for i, c in enumerate(counted.compression) if c >= budget - 1e-9]
        expected = max(allowed, key=lambda i: counted.accuracy[i])
        assert exp3.wall(counted, SEARCHED) == land.configurations[expected]


def test_without_a_penalty_the_most_accurate_wins(land):
    assert exp3.penalized(land, 0.0) == land.configurations[int(land.accuracy.argmax())]


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_searches_are_marked_against_the_optimum(truth):
    outcomes = exp3.searches(truth, seeds=8)
    assert set(outcomes.method) == {exp3.SEARCHER, "random, as many", "greedy", "exhaustive"}
    everything = outcomes[outcomes.method == "exhaustive"]
    assert everything.hit.all() and (everything.regret == 0).all()
    for _, row in outcomes.iterrows():
        land = truth.main if row.counting == exp3.NOMINAL else truth.main.size_weighted()
        bits = tuple(map(int, row.best.split("-")))
        assert row.regret == pytest.approx(1 - land.fitness[bits] / land.fitness[land.best])
        assert row.hit == (bits == land.best)
        assert row.to_best <= row.evaluations <= 256
    pairs = outcomes.pivot(index=["counting", "seed"], columns="method", values="evaluations")
    assert (pairs[exp3.SEARCHER] == pairs["random, as many"]).all()


def test_table_2_always_holds_the_uniform_widths(truth):
    table = exp3.table2(truth).set_index("network")
    for bits in (8, 4):
        widths = (bits,) * 4
        shown = table.loc[f"uniform {bits}"]
        assert shown["ours I'"] == f"{truth.main.fitness[widths]:.3f}"
        both = [100 * each.accuracy[each.index_of(widths)] for each in truth.landscapes.values()]
        assert shown["ours P (%)"] == f"{np.mean(both):.2f} ± {np.std(both, ddof=1):.2f}"
    assert table.loc["the paper's GA", "paper P (%)"] == "75.02"
    assert table.loc["the paper's GA", "paper I'"] == "0.983"
    assert table.loc["BRECQ (estimate)", "ours P (%)"] == "–"


def test_halves_report_on_images_the_choice_did_not_see(truth):
    halves = exp3.halves(truth, splits=5)
    assert len(halves) == 10
    order = np.random.default_rng(0).permutation(600)
    one, other = truth.main.on(order[:300]), truth.main.on(order[300:])
    first = halves.iloc[0]
    place = one.index_of(one.best)
    assert first.best == evaluate.label(one.best)
    assert (first.chosen_accuracy, first.other_accuracy) == (one.accuracy[place], other.accuracy[place])


def test_shares_of_resampled_test_sets_add_up_and_favour_the_optimum(land):
    accuracy, reference = exp3.redrawn(land, repeats=300)
    assert accuracy.shape == (300, 256) and np.abs(accuracy.mean(0) - land.accuracy).max() < 0.01
    shares = exp3.optimum_shares(land, accuracy, reference)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[land.best] == max(shares.values())


def test_every_figure_says_what_it_shows(truth):
    for figure, name, caption, alt in (
        exp3.figure_frontier(truth), exp3.figure_scores(truth), exp3.figure_progress(truth, seeds=3)
    ):  # fmt: skip
        assert name.startswith("fig-exp3-") and len(caption) > 40 and len(alt) > 60
        assert figure.axes


def test_verdicts_follow_the_numbers(truth):
    table = exp3.summary_table(truth, exp3.searches(truth, seeds=4)).set_index("claim").verdict
    answers = [land.best == SEARCHED for land in truth.landscapes.values()]
    expected = "✓ reproduced" if all(answers) else "◐ in part" if any(answers) else "✗ not reproduced"
    assert table["(implied) 8-8-8-4 has the highest I' of all"] == expected


# --- the runs --------------------------------------------------------------------------------------------------------


def test_a_landscape_from_records_holds_what_each_network_says_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    ran = exp3.run([0], "smoke")
    known = exp3.found([0], "smoke")
    assert exp3.this_run_table(ran).optimum.tolist() == [
        evaluate.label(known.main.best), evaluate.label(known.main.size_weighted().best)
    ]  # fmt: skip
    prepared = ptq.prepare(runs.network(SMOKE), runs.calibration_images(SMOKE), ptq.PAPER)
    images = runs.test_images(SMOKE)
    for bits in (SEARCHED, (2, 16, 4, 8), (16, 16, 16, 16)):
        hits = evaluate.correct(prepared.at(bits), images).numpy()
        assert np.array_equal(known.main.correct[:, known.main.index_of(bits)], hits)
    assert known.main.num_weights == SIZES
    assert set(known.timed.values["latencies"]) == {"32", *map(evaluate.label, known.main.configurations)}
    assert search.exhaustive(known.main.fitness.__getitem__, 4).best == known.main.best


def test_absent_records_say_which_command_makes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="quide run exp3 --profile quick"):
        exp3.found([0], "quick")
