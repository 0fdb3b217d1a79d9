"""The page that examines the metric: its tables and figures against other arithmetic, with records and without."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from quidebook import report
from quidebook.evidence import readings
from quidebook.pages import metric_analysis as analysis
from quidebook.shared import components, landscape
from quidebook.verdicts import IN_PART, NOISY, NOT_REPRODUCED, REPRODUCED, UNDECIDED, order_verdict
from scipy.stats import kendalltau, spearmanr

from quide import metric, stats
from quide.experiments import paper
from quide.ptq.width import PAPER_BITS


@pytest.fixture(scope="module")
def ours(found):
    return readings.of_measured(found[0])


# --- Table 4 ---------------------------------------------------------------------------------------------------------


def test_scores_are_the_formulas(ours):
    scores, row = components.scores_of(ours), ours.table.loc[4]
    penalty = math.log2(row["latency_ms"] + 1)
    assert scores.loc[4].tolist() == pytest.approx(
        [8 * 0.605 / penalty, 8 * (0.605 - 0.505) / penalty, 8 * 0.605, 0.605 / penalty]
    )


def test_rankings(found):
    table = components.rankings_table(found).set_index(["condition", "score"])
    row = table.loc[("SimpleCNN / CIFAR-10", "I'")]
    scores = {32: 0.3 / math.log2(9.4), 16: 0.6 / math.log2(43), 8: 1.192 / math.log2(12.55), 4: 0.8 / math.log2(12.76)}
    assert row["ours"] == " > ".join(map(str, [*sorted(scores, key=scores.get, reverse=True), 2]))
    assert row["paper"] == "8 > 16 > 4 > 32 > 2" and row["verdict"] == IN_PART
    assert table.loc[("SimpleCNN / CIFAR-10", "ACP"), "paper"] == "4 > 8 > others †"
    assert table.loc[("SimpleCNN / CIFAR-10", "ACP"), "verdict"] == REPRODUCED
    absent = table[table.index.get_level_values("condition") != "SimpleCNN / CIFAR-10"]
    assert set(absent["ours"]) == {"no record"} and set(absent["verdict"]) == {UNDECIDED}
    for (label, score), shown in absent["paper"].items():  # no order is invented
        stated = paper.rankings()
        condition = paper.conditions().index[paper.conditions()["label"] == label][0]
        name = next(name for name, sign in components.SCORES.items() if sign == score)
        orders = stated[(stated["condition"] == condition) & (stated["metric"] == name)]["order"]
        assert shown.split(" (")[0].split(" > others")[0].rstrip(" †") in {" > ".join(map(str, o)) for o in orders}


def test_a_noisy_clock_ranks_nothing(found):
    table = components.rankings_table([replace(found[0], noisy=("someone was busy",))])
    ours = table[(table["ours"] != "no record") & (table["paper"] != report.UNKNOWN)].set_index("score")
    assert ours["verdict"].to_dict() == {"I": NOISY, "I'": NOISY, "ACP": REPRODUCED}
    agreed = analysis.agreement(table)
    assert agreed["unjudged"] == 2 and agreed["first"] == agreed["gated"] == 1, "which is told all the same"


@pytest.mark.parametrize(
    ("stated", "order", "scope", "verdict"),
    [
        ((4, 8, 16), [4, 8, 16], "complete", REPRODUCED),
        ((4, 8, 16), [4, 16, 8], "complete", IN_PART),
        ((4, 8, 16), [8, 4, 16], "complete", NOT_REPRODUCED),
        ((4, 16), [8, 4, 16], "relative", REPRODUCED),
        ((4, 16), [16, 8, 4], "relative", NOT_REPRODUCED),
        ((4, 8), [4, 8, 16], "top", REPRODUCED),
        ((4, 8), [4, 16, 8], "top", IN_PART),
        ((4, 8), [16, 4, 8], "top", NOT_REPRODUCED),
    ],
)
def test_an_order_is_judged_by_what_it_covers(stated, order, scope, verdict):
    assert order_verdict(stated, order, scope)[0] == verdict


def test_claims_of_the_caption(found, ours):
    table = analysis.claims_table(found).set_index("condition")
    row = table.loc["SimpleCNN / CIFAR-10, ours"]
    acp = [32 / bits * ours.table["accuracy"][bits] for bits in PAPER_BITS]
    tau = kendalltau(ours.index().to_numpy(), acp).statistic
    assert row["I and ACP agree (Kendall's tau)"] == f"{tau:.2f}"
    assert row["first by ALS"] == "32 bits" and row["first by ACP"] == "4 bits"
    resnet = table.loc["ResNet-18 / CIFAR-10, paper"]
    assert resnet["first by I":"first by ALS"].tolist() == ["4 bits", "8 bits", "4 bits", "16 bits"]


# --- functional form -------------------------------------------------------------------------------------------------


def test_forms_of_one_network_by_hand():
    x = components.Components(("8", "4"), np.array([4.0, 8.0]), np.array([0.8, 0.6]), np.array([3.0, 7.0]), 0.5, 1.0)
    by_hand = {
        "I' (the paper's)": [4 * 0.3 / 2, 8 * 0.1 / 3],
        "natural logarithm": [4 * 0.3 / math.log(4), 8 * 0.1 / math.log(8)],
        "T in ms per image": [1.2 / math.log2(3 / 64 + 1), 0.8 / math.log2(7 / 64 + 1)],
        "T in s per batch": [1.2 / math.log2(1.003), 0.8 / math.log2(1.007)],
        "T relative to 32 bits (ours)": [1.2 / 2, 0.8 / 3],
        "no latency": [1.2, 0.8],
        "square root of T": [1.2 / 3**0.5, 0.8 / 7**0.5],
        "T itself": [1.2 / 3, 0.8 / 7],
        "no gate (I)": [3.2 / 2, 4.8 / 3],
        "gate as a wall": [3.2 / 2, 4.8 / 3],
        "soft gate": [1.6 / (1 + math.exp(-0.3 / 0.05)), 1.6 / (1 + math.exp(-0.1 / 0.05))],
        "margin squared": [4 * 0.09 / 2, 8 * 0.01 / 3],
        "logarithm of C": [math.log2(5) * 0.3 / 2, math.log2(9) * 0.1 / 3],
        "weighted sum, equal weights": [0.5 + 1 + 1, 1 + 1 / 3 + 3 / 7],
    }
    assert set(by_hand) == set(components.FORMS)
    for name, expected in by_hand.items():
        assert components.FORMS[name](x) == pytest.approx(expected), name


def test_forms_are_compared_with_the_papers(found, truth):
    outcomes = components.forms(components.cases(found, truth)).set_index(["case", "form"])
    for same in ("I' (the paper's)", "natural logarithm"):
        assert outcomes.xs(same, level="form")["tau"].tolist() == pytest.approx([1, 1, 1])
    resnet = outcomes.loc["ResNet-18 / CIFAR-10, paper"]
    assert resnet.loc["T in s per batch", "first"] == "16" and resnet.loc["I' (the paper's)", "first"] == "8"
    assert np.isnan(resnet.loc["T relative to 32 bits (ours)", "tau"])
    land = truth.main
    plain = kendalltau(land.gated_index, land.compression * np.maximum(land.accuracy - land.threshold, 0)).statistic
    assert outcomes.loc[("CIFAR-10, 256 mixed", "no latency"), "tau"] == pytest.approx(plain)


# --- figures ---------------------------------------------------------------------------------------------------------


def test_even_accuracy_scores_as_8_bits_do(ours):
    for compression in (2.0, 8.0, 16.0):
        accuracy = components.even_accuracy(ours, compression)
        assert compression * (accuracy - ours.threshold) == pytest.approx(4 * (0.803 - ours.threshold))


def test_areas_are_those_of_the_polygons(ours):
    shares, areas = components.radar(ours), components.areas(ours)
    assert shares.max().tolist() == [1, 1, 1, 1]
    assert len(areas.columns) == 3 and {frozenset(name.split("-")) for name in areas} == {frozenset(components.AXES)}
    for arrangement in areas:
        radius = shares.loc[4, arrangement.split("-")].to_numpy()
        x, y = radius * [1, 0, -1, 0], radius * [0, 1, 0, -1]
        shoelace = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
        assert areas.loc[4, arrangement] == pytest.approx(shoelace)


def test_correlations_are_spearmans(found, truth):
    matrix, count = components.correlations(components.cases(found, truth))["CIFAR-10, 256 mixed"]
    land = truth.main
    assert count == 256
    assert matrix.loc["C", "P"] == pytest.approx(spearmanr(land.compression, land.accuracy).statistic, abs=0.005)
    index = metric.intelligence_index(land.compression, land.accuracy, land.latency_ms)
    assert matrix.loc["I", "I'"] == pytest.approx(spearmanr(index, land.gated_index).statistic, abs=0.005)


@pytest.mark.parametrize("with_records", [True, False])
def test_every_figure_says_what_it_shows(found, truth, with_records):
    known, all_mixed = (found, truth) if with_records else ([], None)
    tried = components.cases(known, all_mixed)
    made = [
        analysis.figure_tolerance(known), analysis.figure_forms(components.forms(tried)),
        analysis.figure_boundary(known),
    ]  # fmt: skip
    for figure, alt in made:
        assert "nan" not in alt and any(character.isdigit() for character in alt)
        assert ("ours" in alt.replace("(ours)", "")) == with_records
        figure.draw_without_rendering()
        titles = [axis.title.get_window_extent() for axis in figure.axes]
        assert all(0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in titles), "no title is cut at the edge"
        report.plt.close(figure)


def test_alternative_text_states_the_numbers_of_the_figure(ours, found):
    _, alt = analysis.figure_boundary(found)
    needed = 0.505 + (0.803 - 0.505) / 2
    assert f"SimpleCNN / CIFAR-10, ours: 4 bits have 60.5 % and need {100 * needed:.1f} %" in alt
    _, alt = analysis.figure_tolerance(found)
    assert "8 bits from 0.003 to 0.824" in alt  # ResNet-18
    report.plt.close("all")


# --- how sure, and the variant ---------------------------------------------------------------------------------------


def test_the_variant_is_relative_to_full_precision(ours):
    scores = components.relative_index(ours)
    assert scores[32] == pytest.approx(0.805 - 0.505)  # the penalty is 1
    assert scores[4] == pytest.approx(8 * (0.605 - 0.505) / math.log2(11.2 / 8 + 1))


def test_the_variant_does_not_know_a_unit_or_the_speed_of_a_machine(ours):
    for factor in (1e-3, 1 / 64, 7.0):
        other = replace(ours, table=ours.table.assign(latency_ms=factor * ours.table["latency_ms"]))
        assert components.relative_index(other).tolist() == pytest.approx(components.relative_index(ours).tolist())
        assert other.gated_index().tolist() != pytest.approx(ours.gated_index().tolist())


def test_the_variant_needs_a_latency_at_32_bits():
    with pytest.raises(ValueError, match="^reading must hold a latency at 32 bits"):
        components.relative_index(readings.resnet18())


def test_each_seed_is_relative_to_itself(found):
    table = components.in_relative_units(found[0]).table.set_index(["seed", "bits"])["latency_ms"]
    assert table[(0, 32)] == table[(42, 32)] == 1
    assert table[(0, 4)] == pytest.approx(table[(42, 4)]) == pytest.approx(1.4)


def test_probabilities_are_those_of_the_bootstrap(found):
    table = analysis.certainty_table(found).set_index("bits")
    knee = found[0].knee()
    low, high = stats.wilson_interval(round(2000 * knee.probability[8]), 2000).low, 1.0
    assert table.loc[8, "Pr(knee) [95 %]"] == f"{knee.probability[8]:.3f} [{low:.3f}, {high:.3f}]"
    interval = knee.interval(4)
    assert table.loc[4, "I' [95 %]"] == f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    relative = stats.bootstrap_knee(
        found[0].correct, found[0].latencies / found[0].latencies[:, :1], PAPER_BITS, tolerance=0.3, num_classes=10
    )
    assert table.loc[4, "I', relative T [95 %]"].startswith(f"{relative.index[3]:.3f} [")


def test_the_variant_on_resnet_hangs_on_a_latency_the_text_lacks():
    low, high = analysis.resnet18_ends()
    knees = [metric.knee(each.table.index, components.relative_index(each)) for each in (low, high)]
    assert knees == [8, 16]
    at_8 = 4 * (0.9484 - 0.5) / math.log2(23.34 / 23.34 + 1)
    assert components.relative_index(high)[8] == pytest.approx(at_8)


def test_facts_of_the_page(found, truth):
    agreed = analysis.agreement(components.rankings_table(found))
    assert (agreed["ours"], agreed["reproduced"] + agreed["in_part"], agreed["unjudged"]) == (3, 3, 0)
    assert agreed["first"] == agreed["gated"] == 1
    shown = analysis.tolerance(found)
    assert (shown["wide"], shown["bars"], shown["stated"]) == (6, 6, 0.3)
    margins = 4 / math.log2(12.55) * 0.803, 8 / math.log2(12.76) * 0.605  # 8 and 4 bits, mean latencies of both seeds
    crossing = (margins[1] - margins[0]) / (8 / math.log2(12.76) - 4 / math.log2(12.55))
    assert shown["turn"] == pytest.approx(0.805 - crossing, abs=2e-3)
    moved = analysis.moves(components.forms(components.cases(found, truth)))
    assert "*natural logarithm*" in moved["never"] and "*no gate (I)*" in moved["do"]
    assert analysis.certainty(found)["seeds"] == "2"
    assert analysis.relative_to_ours(found) == {"same": 1, "conditions": 1}
    papers = analysis.relative_to_the_papers()
    assert papers["knee"] == 8 and papers["turn"] == pytest.approx(13.87, abs=0.005)
    assert (papers["low"], papers["high"]) == (8.87, 23.34)


def test_the_page_stands_without_records(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    found, truth = readings.measured_conditions(), landscape.known()
    assert found == [] and truth is None
    rankings = components.rankings_table(found)
    for facts in (analysis.agreement(rankings), analysis.certainty(found), analysis.relative_to_ours(found)):
        assert isinstance(facts, report.Absent)
    assert analysis.certainty_table(found).empty and analysis.tolerance(found)["bars"] == 5
    assert components.PAPERS not in analysis.moves(components.forms(components.cases(found, truth)))["do"]
    assert set(rankings["ours"]) == {"no record"}
    assert analysis.areas(found)["cases"] == 3 and len(analysis.correlations(components.cases(found, truth))) == 1
    for table in (analysis.claims_table(found), analysis.relative_table(found)):
        assert len(table) and "ours" not in " ".join(table["condition"])
