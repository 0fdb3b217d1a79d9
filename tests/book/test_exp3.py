"""EXP-3's page: its answers are those of plain enumeration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from quidebook import verdicts
from quidebook.pages import exp3_mixed_precision as exp3
from quidebook.shared import landscape

from quide import evaluate
from quide.experiments import mixed
from quide.experiments.recipes import SEARCHED

# --- the page --------------------------------------------------------------------------------------------------------


def test_the_searches_are_marked_against_the_optimum(truth):
    outcomes = exp3.searches(truth, seeds=8)
    assert set(outcomes.method) == {exp3.SEARCHER, exp3.DRAWN, "greedy", "exhaustive"}
    everything = outcomes[outcomes.method == "exhaustive"]
    assert everything.hit.all() and (everything.regret == 0).all()
    for _, row in outcomes.iterrows():
        land = truth.main if row.counting == landscape.NOMINAL else truth.main.size_weighted()
        bits = tuple(map(int, row.best.split("-")))
        assert row.regret == pytest.approx(1 - land.fitness[bits] / land.fitness[land.best])
        assert row.hit == (bits == land.best)
        assert row.evaluations <= 256
    pairs = outcomes.pivot(index=["counting", "seed"], columns="method", values="evaluations")
    assert (pairs[exp3.SEARCHER] == pairs[exp3.DRAWN]).all()


def test_halves_report_on_images_the_choice_did_not_see(truth):
    halves = exp3.halves(truth, splits=5)
    assert len(halves) == 10
    order = np.random.default_rng(0).permutation(600)
    one, other = truth.main.on(order[:300]), truth.main.on(order[300:])
    first = halves.iloc[0]
    place = one.index_of(one.best)
    assert first.best == evaluate.label(one.best)
    assert (first.chosen_accuracy, first.other_accuracy) == (one.accuracy[place], other.accuracy[place])


def test_flattery_is_the_mean_over_splits(truth):
    halves = exp3.halves(truth, splits=6)
    for row, (counting, part) in zip(exp3.flattery(halves), halves.groupby("counting", sort=False), strict=True):
        assert row["counting"] == counting
        assert row["mean"] == pytest.approx(100 * (row["chosen_accuracy"] - row["other_accuracy"]))
        assert row["low"] <= row["mean"] <= row["high"] and row["regret"] == part.regret.mean()


def test_shares_of_resampled_test_sets_add_up_and_favour_the_optimum(land):
    accuracy, reference = landscape.redrawn(land, repeats=300)
    assert accuracy.shape == (300, 256) and np.abs(accuracy.mean(0) - land.accuracy).max() < 0.01
    shares = landscape.optimum_shares(land, accuracy, reference)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[land.best] == max(shares.values())


def test_marks_are_those_of_the_outcomes(truth):
    outcomes = exp3.searches(truth, seeds=4)
    rows = {(row["counting"], row["method"]): row for row in exp3.marks(outcomes)}
    assert len(rows) == 8
    drawn = outcomes[(outcomes.counting == landscape.NOMINAL) & (outcomes.method == exp3.DRAWN)]
    row = rows[landscape.NOMINAL, exp3.DRAWN]
    assert (row["hits"], row["searches"]) == (drawn.hit.sum(), 4)
    assert (row["mean"], row["worst"]) == (drawn.regret.mean(), drawn.regret.max())
    assert rows[landscape.BY_SIZE, "exhaustive"]["finds"] == "yes"


def test_every_figure_says_what_it_shows(truth):
    size = len(landscape.countings(truth.main))
    for figure, alt in (exp3.figure_frontier(truth), exp3.figure_scores(truth)):
        assert len(alt) > 60 and "nan" not in alt and len(figure.axes) == size
    frontier, alt = exp3.figure_frontier(truth)
    for axis, (name, land) in zip(frontier.axes, landscape.countings(truth.main), strict=True):
        drawn = next(line for line in axis.lines if line.get_label() == "frontier").get_xydata()
        assert f"C {name}: {len(drawn)} of 256 configurations, {len(np.unique(drawn, axis=0))} different points" in alt
        assert len(drawn) == landscape.frontier(land).sum()


def test_the_best_are_ranked_and_the_ones_of_note_are_among_them(truth):
    rows = exp3.top(truth, most=3)
    nominal = [row for row in rows if row["counting"] == landscape.NOMINAL]
    best = sorted(truth.main.fitness.values(), reverse=True)
    assert [row["score"] for row in nominal[:3]] == best[:3] and nominal[0]["share"] == 1
    assert {"8-8-8-4", "8-8-8-8"} <= {row["widths"] for row in nominal}


def test_what_the_search_asks_for_is_told_from_what_the_paper_states(truth):
    facts, main = exp3.overview(truth), truth.main
    assert (facts["stated"], facts["asked"]) == (30 * 20, 31 * 20)
    assert facts["new"] == len(set(truth.explored.evaluated)) < facts["configurations"] == 256
    assert facts["searched_rank"] == 1 + (main.gated_index > main.fitness[SEARCHED]).sum()


def test_configurations_that_tie_are_one_point_of_the_frontier(truth):
    for facts, (name, land) in zip(exp3.frontiers(truth, seeds=1), landscape.countings(truth.main), strict=True):
        pairs = list(zip(land.accuracy, land.compression, strict=True))
        best = [p for p in pairs if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in pairs)]
        assert facts["counting"] == name and (facts["points"], facts["members"]) == (len(set(best)), len(best))
        assert 0 < facts["recall"] <= 1 and facts["evaluations"] <= 256


def test_the_searched_topology_saves_next_to_nothing(truth):
    facts = exp3.size(truth)
    bits, weights = 8 * 544864 - 4 * 1280, 544864
    assert facts["by_size"] == pytest.approx(32 * weights / bits)
    assert facts["saved"] == pytest.approx(4 * 1280 / (8 * weights))
    assert (facts["third"], facts["last"]) == (524288 / weights, 1280 / weights)


def test_latencies_that_are_noise_are_not_explained_by_the_widths(truth):
    truth = replace(truth, landscapes={0: fitted(truth.main)})
    facts = exp3.latency(truth)
    assert facts["explained"] < 3 * facts["by_noise"] and facts["p"] > 0.01
    assert facts["by_noise"] == pytest.approx(12 / 255)  # three degrees of freedom a layer
    noisy = replace(truth.timed, values=truth.timed.values | {"noisy": True, "reasons": ["a hiccup"]})
    assert facts["noise"] == "" and "a hiccup" in exp3.latency(replace(truth, timed=noisy))["noise"]


def fitted(land):
    """Latencies as a sum over layers, as records give them."""
    return replace(land, latency_ms=mixed.additive_latency(land.configurations, land.measured_ms))


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([True, True, True], verdicts.REPRODUCED),
        ([True, False, False], verdicts.IN_PART),
        ([False, False, True], verdicts.IN_PART),  # no matter which: none is the paper's checkpoint
        ([False, False, False], verdicts.NOT_REPRODUCED),
    ],
)
def test_a_claim_on_every_checkpoint_is_judged_as_on_the_first_page(truth, answers, verdict):
    several = replace(truth, landscapes=dict.fromkeys((0, 42, 123), truth.main))
    says = iter(answers)
    assert exp3._over_checkpoints(several, "a claim", lambda land: next(says), lambda land: "")[1] == verdict


def test_what_a_noisy_clock_decides_gets_no_verdict(truth):
    noisy = replace(truth, timed=replace(truth.timed, values=truth.timed.values | {"noisy": True}))

    def verdict(holds) -> str:
        return exp3._over_checkpoints(noisy, "a claim", holds, lambda land: "")[1]

    assert verdict(lambda land: np.ptp(land.latency_ms) > 0) == verdicts.NOISY  # not so at equal latency
    assert verdict(lambda land: True) == verdicts.REPRODUCED


def test_the_answer_counts_searches_and_checkpoints(truth):
    facts = exp3.answer(truth, exp3.searches(truth, seeds=4))
    assert facts["searches"] == 4 and 0 <= facts["hits"] <= 4 and facts["configurations"] == 256
    behind = [land.fitness[SEARCHED] > land.fitness[(8, 8, 8, 8)] for land in truth.landscapes.values()]
    assert facts["ahead"] == behind.count(False) and facts["checkpoints"] == 2


def test_verdicts_follow_the_numbers(truth):
    table = exp3.summary_table(truth, exp3.searches(truth, seeds=4)).set_index("claim").verdict
    assert not any(land.best == SEARCHED for land in truth.landscapes.values())
    assert table["(implied) 8-8-8-4 has the highest I' of all"] == verdicts.NOT_REPRODUCED


# --- records ---------------------------------------------------------------------------------------------------------


def test_checkpoints_are_told_seed_by_seed_and_latency_by_latency(truth):
    rows = exp3.checkpoints(truth)
    assert len(rows) == 2 * 3 * 2
    for row in rows:
        land = truth.landscapes[row["seed"]]
        if row["latencies"] == "equal":
            land = land.equal_latency()
        land = land.size_weighted() if row["counting"] == landscape.BY_SIZE else land
        assert row["best"] == evaluate.label(land.best) and row["place"] == land.place(SEARCHED)
        assert 0 <= row["stays"] <= 1
    facts, best = exp3.agreement(rows), [row["best"] for row in rows]
    cases = [(best[i : i + 6 : 2], best[i + 1 : i + 6 : 2]) for i in (0, 6)]  # three latencies by two ways to count
    assert facts["of"] == 4 and facts["all"] == sum(len(set(each)) == 1 for case in cases for each in case)
    assert facts["same"] == sum(each[0] == each[2] for case in cases for each in case)


def test_the_paper_profile_comes_before_any_other():
    known = landscape.known("smoke")
    assert (known.profile, known.seed, list(known.landscapes)) == ("paper", 0, [0, 42, 123])
    assert known.used == [*known.used[:3], known.timed] and known.accuracies().shape == (3,)


def test_without_records_there_are_no_landscapes(no_records):
    assert landscape.known() is None and landscape.known("quick") is None
