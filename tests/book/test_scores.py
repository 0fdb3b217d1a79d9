"""Joining accuracy and latency records: every number of the joined table against hand arithmetic on known records."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from known_records import IMAGES, LATENCY, save_accuracy, save_timing
from quidebook import report
from quidebook.evidence import scores
from quidebook.pages import exp1_simplecnn as exp1
from quidebook.shared import claims, simplecnn, table1
from quidebook.verdicts import IN_PART, NOISY, NOT_REPRODUCED, REPRODUCED, UNDECIDED, accuracy_verdict, knee_verdict

from quide import evaluate, metric
from quide.experiments import paper, provenance, recipes, runs

ACCURACY = {32: 0.80, 16: 0.80, 8: 0.7975, 4: 0.58, 2: 0.10}


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Records of CIFAR-10 at the paper profile for seeds 0 and 42, with the recipe grid."""
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    for seed, lift in ((0, 0.0), (42, 0.01)):
        case = runs.Case("simplecnn", "cifar10", seed, "paper")
        names = {evaluate.label(bits): share + lift for bits, share in ACCURACY.items()}
        save_accuracy(runs.accuracy(case), names)
        save_timing(runs.timing(case), 1.0 + lift)
        for place, recipe in enumerate(recipes.grid()):
            shares = {"8": 0.79, "4": 0.58 + 0.004 * place, "2": 0.1, "8-8-8-4": 0.75 + 0.002 * place}
            save_accuracy(recipe.run(case), shares)


def test_nothing_known_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    assert scores.measured("simplecnn", "cifar10", "paper") is None


def test_a_seed_without_timing_is_left_out(known):
    save_accuracy(
        runs.accuracy(runs.Case("simplecnn", "cifar10", 7, "paper")), {str(b): a for b, a in ACCURACY.items()}
    )
    assert scores.measured("simplecnn", "cifar10", "paper").seeds == [0, 42]


def test_the_joined_table_is_the_formula_on_the_records(known):
    measured = scores.measured("simplecnn", "cifar10", "paper")
    tolerance = paper.conditions().loc["cifar10-simplecnn", "tolerance"]
    assert measured.threshold == pytest.approx(0.805 - tolerance)
    row = measured.table.query("seed == 42 and bits == 4").iloc[0]
    assert (row.compression, row.accuracy, row.latency_ms) == (8, pytest.approx(0.59), pytest.approx(4.04))
    assert row["index"] == pytest.approx(8 * 0.59 / np.log2(5.04))
    assert row.gated_index == pytest.approx(8 * (0.59 - measured.threshold) / np.log2(5.04))
    assert measured.correct.shape == (2, 5, IMAGES) and measured.latencies.shape == (2, 5)
    np.testing.assert_allclose(measured.correct.mean(2)[0], list(ACCURACY.values()))


def test_of_several_machines_the_quietest_is_taken(known, monkeypatch):
    ours = scores.measured("simplecnn", "cifar10", "paper")
    for name, signs in (("noisy", {"noisy": True, "reasons": ["x"]}), ("quiet", {"aa_ratio": 1.0, "tried": [0, 0]})):
        environment = {"device": "cpu", "device_name": name, "cores": 2, "threads": 2, "torch": "2"}
        monkeypatch.setattr(provenance, "environment", lambda device, there=environment: there)
        for seed in (0, 42):
            save_timing(runs.timing(runs.Case("simplecnn", "cifar10", seed, "paper")), 3.0, **signs)
        chosen = scores.measured("simplecnn", "cifar10", "paper")
        assert chosen.device == (ours.device if name == "noisy" else "quiet, 2 threads, torch 2")
    assert (ours.tried, chosen.tried) == (2, 2 + 2 + 4)


def test_an_order_says_what_16_bits_were_timed_as(known, monkeypatch):
    case = runs.Case("simplecnn", "cifar10", 0, "paper")
    for seed in (0, 42):
        slow = LATENCY | {"16": 400.0, runs.BFLOAT_16: 4.0, runs.INTEGER_16: 4.0}
        save_timing(runs.timing(replace(case, seed=seed)), 1.0, slow)
    condition = simplecnn.conditions(["cifar10"])[0]
    orders = table1._orders(condition, "gated_index")
    assert list(orders.values()) == [["float16 cast"], ["bfloat16 cast", "integer grid"]]
    assert all(order[0] == 8 for order in orders)
    del slow[runs.BFLOAT_16]  # as in records from before it was timed
    save_timing(runs.timing(case), 1.0, slow)
    condition = simplecnn.conditions(["cifar10"])[0]
    assert list(table1._orders(condition, "gated_index").values()) == [["float16 cast"], ["integer grid"]]
    assert runs.BFLOAT_16 not in set(table1.latency_table([condition]).configuration)


@pytest.mark.parametrize(("sixteen", "verdict"), [(3.0, REPRODUCED), (1.3, NOISY)])
def test_a_knee_from_a_noisy_clock_stands_where_its_noise_cannot_move_it(known, sixteen, verdict):
    for seed in (0, 42):  # at 1.3 ms I'(16) is 0.50 and I'(8) 0.51, less than the 20 % between the percentiles
        run = runs.timing(runs.Case("simplecnn", "cifar10", seed, "paper"))
        save_timing(run, 1.0, LATENCY | {"16": sixteen}, noisy=True, reasons=["someone was busy"])
    condition = simplecnn.conditions(["cifar10"])[0]
    assert condition.summary.gated_index.idxmax() == 8
    assert claims.knee(condition)[0] == verdict


def test_summary_has_mean_deviation_and_interval(known):
    summary = scores.measured("simplecnn", "cifar10", "paper").summary().set_index("bits")
    assert summary.accuracy[4] == pytest.approx(0.585)
    assert summary.accuracy_std[4] == pytest.approx(0.01 / np.sqrt(2))
    half = 12.7062 * 0.01 / 2  # t quantile with one degree of freedom, standard error 0.005
    assert summary.accuracy_high[4] - summary.accuracy[4] == pytest.approx(half, rel=1e-4)


def test_the_knee_follows_the_correct_bits(known):
    measured = scores.measured("simplecnn", "cifar10", "paper")
    probability = measured.knee().probability
    gated = metric.gated_index(
        [32 / b for b in ACCURACY], list(ACCURACY.values()), [LATENCY[str(b)] for b in ACCURACY], 0.505
    )
    assert max(probability, key=probability.get) == list(ACCURACY)[int(np.argmax(gated))]
    assert sum(probability.values()) == pytest.approx(1)


def test_every_table_of_the_page_has_a_row_for_each_condition_and_no_nan(known):
    found = simplecnn.conditions(["cifar10", "cifar100"])
    grid = simplecnn.recipe_results(["cifar10", "cifar100"])
    tables = {
        "accuracy": table1.accuracy_table(found),
        "latency": table1.latency_table(found),
        "score": table1.score_table(found),
        "ranking": table1.ranking_table(found),
        "knee": table1.knee_table(found),
        "site": exp1.site_table(grid),
        "closest": exp1.closest_table(grid),
        "summary": simplecnn.summary_table(found, grid),
    }
    for name, table in tables.items():
        assert len(table), name
        assert "nan" not in " ".join(table.astype(str).to_numpy().ravel()).lower().split(), name
    absent = tables["accuracy"].query("condition == 'CIFAR-100'")
    assert set(absent["ours P (%)"]) == {"no record"} and set(absent.verdict) == {UNDECIDED}
    assert tables["latency"].configuration.tolist()[:5] == ["32", "16", "8", "4", "2"]
    assert "(quide.PAPER)" in " ".join(tables["closest"].recipe)


def test_what_is_seen_of_every_figure_is_said_in_numbers(known):
    found, grid = simplecnn.conditions(["cifar10"]), simplecnn.recipe_results(["cifar10"])
    made = [
        table1.figure_components(found), table1.figure_index(found), exp1.figure_sites(grid, exp1.knees(found)),
        exp1.figure_recipes(grid),
    ]  # fmt: skip
    assert all(any(character.isdigit() for character in alt) for _, alt in made)


def test_verdicts_follow_their_stated_limits():
    assert accuracy_verdict(0.80, 0.805, np.nan, np.nan)[0] == REPRODUCED
    assert accuracy_verdict(0.80, 0.805, 0.80, 0.81)[0] == REPRODUCED
    assert accuracy_verdict(0.80, 0.83, 0.81, 0.85)[0] == IN_PART
    assert accuracy_verdict(0.80, 0.90, 0.70, 1.0)[0] == NOT_REPRODUCED
    assert accuracy_verdict(float("nan"), 0.9, 0.8, 1.0)[0] == UNDECIDED
    assert knee_verdict(8, {8: 0.97, 4: 0.03, None: 0.0})[0] == REPRODUCED
    assert knee_verdict(8, {8: 0.60, 4: 0.40, None: 0.0}) == (IN_PART, "ours 8-bit, Pr(knee = 8-bit) = 0.60")
    assert knee_verdict(8, {8: 0.40, 4: 0.60, None: 0.0})[0] == NOT_REPRODUCED


@pytest.mark.parametrize("ours", [0.80, 0.805, 0.83, 0.86])
def test_noise_makes_no_verdict_on_an_accuracy_better(ours):
    order = [REPRODUCED, IN_PART, NOT_REPRODUCED]
    found = [accuracy_verdict(0.80, ours, ours - half, ours + half)[0] for half in (0.0, 0.01, 0.03, 0.05, 0.10, 0.20)]
    ranks = [order.index(verdict) for verdict in found]
    assert ranks == sorted(ranks), "a wider interval never raises it"
    assert (found[0] == REPRODUCED) == (abs(ours - 0.80) <= 0.01) and found[-1] != REPRODUCED


def test_a_figure_without_alt_text_is_refused():
    figure, _ = report.panels()
    with pytest.raises(ValueError, match="alt"):
        report.show(figure, "fig-x", "A caption.", " ")


def test_cells_are_escaped(capsys):
    shown = []
    original, report.display = report.display, shown.append
    try:
        report.table(pd.DataFrame({"a": ["<b>"], "verdict": [IN_PART]}), "x < y")
    finally:
        report.display = original
    markup = shown[0].data
    assert "&lt;b&gt;" in markup and "x &lt; y" in markup and 'class="verdict-part"' in markup and "<b>" not in markup


def test_the_facts_of_the_page_are_those_of_the_records(known):
    found, grid = simplecnn.conditions(["cifar10"]), simplecnn.recipe_results(["cifar10"])
    # 32, 16 and 4 bits are stated; at 2 bits both guess, and that the two agree then says nothing. Two seeds a point
    # apart leave an interval wider than the limit.
    assert exp1.reproduced(found) | {"seeds": "", "fitted": 1} == {
        "reproduced": 0, "part": 3, "other": 0, "comparable": 3, "seeds": "", "fitted": 1,
    }  # fmt: skip
    slow = table1.slowdown(found[0])
    assert (slow["eight"], slow["merged"], slow["grid"], slow["cast"]) == pytest.approx((2.0, 1.25, 2.0, 1.5))
    relu, inputs = exp1.moved(grid)  # recipes differ by 0.4 pp each, and six of a site stand before the next one's
    assert relu["gain"] == pytest.approx(2.4) and inputs["gain"] == pytest.approx(4.8)
    assert relu["share"] == pytest.approx(0.024 / 0.21) and relu["seeds"] == 2
    facts = exp1.nearest(grid)
    assert facts["recipes"] == facts["of_output"] + facts["of_relu"] + facts["of_input"] == len(recipes.grid())
    assert facts["close"] == facts["near_output"] + facts["near_relu"] + facts["near_input"] <= facts["recipes"]
    assert exp1.alike(grid) == [], "no recipe has the accuracies of another"
    base = grid[grid.recipe == simplecnn.base_recipe()]
    copied = [grid[grid.axis != "rounding"], base.assign(recipe="rounds half up", axis="rounding")]
    same = exp1.alike(pd.concat(copied, ignore_index=True))
    assert [(facts["recipe"], facts["apart"]) for facts in same] == [("rounds half up", 0)]
    output, *others = exp1.knees(found)
    assert output["knee"] == 8 and {facts["knee"] for facts in others} <= {8, 4} and len(others) == 2
    assert sum(output[f"p{bits}"] for bits in ACCURACY) == pytest.approx(1)
    assert exp1.between(found) == []  # without records of the widths between


def test_a_width_between_the_papers_can_be_the_best(known):
    for seed in (0, 42):
        run = runs.accuracy(runs.Case("simplecnn", "cifar10", seed, "paper"), exp1.BETWEEN)
        save_accuracy(run, {"6": 0.78, "5": 0.76, "3": 0.2})
    rows = {facts["bits"]: facts for facts in exp1.between(simplecnn.conditions(["cifar10"]))}
    assert list(rows) == [8, 6, 5, 4, 3, 2] and [bits for bits, facts in rows.items() if facts["best"]] == [5]
    assert rows[5]["score"] == pytest.approx(32 / 5 * (0.76 - 0.505) * np.mean([1 / np.log2(5), 1 / np.log2(5.04)]))
    assert rows[5]["paper"] == 8 and rows[5]["gain"] == pytest.approx(rows[5]["score"] / rows[8]["score"])


def test_numbers_that_chose_the_quantizer_say_so(known):
    found, grid = simplecnn.conditions(["cifar10"]), simplecnn.recipe_results(["cifar10"])
    rows = simplecnn.summary_table(found, grid).set_index("claim").evidence
    fitted = rows[rows.str.contains("the activation site was chosen by this number")]
    assert fitted.index.tolist() == [
        "CIFAR-10: accuracy at 4 bits (58.18 %)",
        "CIFAR-10: accuracy at 8-8-8-4 (75.02 %)",
    ]


def test_the_page_stands_without_a_grid(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    found, grid = simplecnn.conditions(["cifar10"]), simplecnn.recipe_results(["cifar10"])
    assert grid.empty and found[0].measured is None
    assert exp1.nearest(grid) == exp1.NO_GRID and isinstance(exp1.selection(found[0]), report.Absent)
    assert exp1.moved(grid) == exp1.alike(grid) == exp1.knees(found) == exp1.between(found) == []
    assert exp1.site_table(grid).empty and exp1.closest_table(grid).empty
    assert simplecnn.summary_table(found, grid).verdict.tolist() == [UNDECIDED]
