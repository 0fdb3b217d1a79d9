"""The page that checks the paper: every number it shows, by other arithmetic than the page's own."""

from __future__ import annotations

import math

import known_results
import pandas as pd
import pytest
from quidebook import report
from quidebook.evidence import readings, sensitivity
from quidebook.pages import exp1_simplecnn as exp1
from quidebook.pages import paper_audit as audit
from quidebook.shared import landscape, table1, table3

from quide.experiments import paper

C10, C100, R18, IN, LLAMA = audit.C10, audit.C100, audit.R18, audit.IN, table3.LLAMA


def stated(name):
    return paper.numbers().at[name, "value"]


def no_gaps(table: pd.DataFrame) -> None:
    words = " ".join(table.astype(str).to_numpy().ravel()).lower().split()
    assert len(table) and "nan" not in words and "none" not in set(words) - {"none"}


@pytest.fixture(scope="module")
def found():
    return [known_results.condition()]


@pytest.fixture(scope="module")
def truth():
    return known_results.landscape()


# --- what checks out -------------------------------------------------------------------------------------------------


def test_every_check_agrees_but_the_drop_that_was_cut_off():
    checks = audit.checks_table()
    off = checks[checks["verdict"] != report.REPRODUCED]
    assert off["statement"].tolist() == ["SimpleCNN / CIFAR-10: drop from 32 to 4 bits (pp)"]
    assert off["verdict"].tolist() == [report.IN_PART]
    assert len(checks) == 20 and not checks.duplicated("statement").any()


def test_a_check_can_fail():
    assert audit._check("two", (0.5, 0.6), [0.7, 0.8])[-1] == report.NOT_REPRODUCED
    assert audit._check("two", (0.5, 0.7), [0.7, 0.8])[-1] == report.REPRODUCED


def test_checked_scores_are_the_stated_ones():
    table = audit.checks_table().set_index("statement")
    shown = table.at["ResNet-18 on CIFAR-10, 8 bits: I' follows from P and T", "recomputed"]
    low, high = map(float, shown.split(" to "))
    assert low <= 4 * (0.9484 - 0.5) / math.log2(24.34) <= high
    assert table.at["ResNet-18 on CIFAR-10, 8 bits: I' follows from P and T", "stated"] == "0.390"


def test_how_many_agree_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(report, "say", said.append)
    audit.say_checks(audit.checks_table())
    assert said[0].startswith("**19 of 20 statements")


# --- the findings ----------------------------------------------------------------------------------------------------


def test_thresholds():
    finding, table = audit.thresholds(), audit.thresholds_table().set_index("condition")
    assert finding.headline.startswith("In 6 of 6 conditions")
    for name, rounded in {C10: 0.5, C100: 0.05, R18: 0.5, IN: 0.1, LLAMA: 0.6, "mnist-simplecnn": 0.8}.items():
        facts = paper.conditions().loc[name]
        exact = facts["full_precision_accuracy"] - facts["tolerance"]
        assert float(table.at[facts["label"], "P_FP − δ"]) == pytest.approx(exact, abs=5e-5)
        assert round(exact, 2) == rounded == float(table.at[facts["label"], "fits"].split()[0])
    # By the stated scores of ResNet-18 at 4 bits; Eq. 4 lies outside what their rounding allows.
    implied = 0.5369 * (1 - stated(f"{R18}.gated_index.4") / stated(f"{R18}.index.4"))
    assert 0.49972 <= implied <= 0.50043 and "0.4997 and 0.5004" in finding.result
    assert 0.9493 - 0.45 < 0.49972 and "0.4993" in finding.result
    assert "no knee that can be computed changes" in finding.result


def test_gate(found):
    finding, table = audit.gate(found), audit.gate_table()
    assert finding.headline.startswith("It is zero on 1 of 4 networks")
    assert "(0.633 against 0.529)" in finding.result and "ResNet" not in finding.result
    like_cifar10 = (0.4798 - 0.05) / math.log2(0.478 + 1)
    assert f"(1.128 against {like_cifar10:.3f})" in finding.result
    for name in (C10, C100, R18, IN):  # the premise of the headline
        assert paper.conditions().at[name, "knee_bits"] == 8
    assert table["gate closes for δ up to"].tolist() == ["0.216", "0.284", "0.412", "0.696"]
    assert table["I' at 32 bits"].tolist()[2:] == ["0.097 to 0.137", report.UNKNOWN]
    mean = readings.of_measured(found[0]).gated_index()
    assert f"{mean[4]:.3f} at 4 bits, {mean[8]:.3f} at 8" in finding.ours


def test_the_searched_network_on_cifar10(truth):
    facts = audit._searched_cifar10()
    assert facts["uniform"] == pytest.approx(4 * (0.7981 - 0.5) / math.log2(2.16))
    assert facts["uniform"] > facts["score"] == 0.983
    assert 4 * (facts["needed"] - 0.5) / math.log2(2.16) == pytest.approx(0.983)
    assert facts["loss"] == pytest.approx(2.51, abs=0.01)
    at_threshold = [c * (p - facts["threshold"]) for c, p in ((32 / 7, 0.7502), (4, 0.7981))]
    assert at_threshold[0] == pytest.approx(at_threshold[1])
    finding = audit.searched_cifar10(truth)
    places = [land.place((8, 8, 8, 8)) for land in truth.landscapes.values()]
    assert f"places {places[0]}, {places[1]} against" in finding.ours
    assert audit.searched_cifar10(None).ours == ""


def test_the_searched_network_on_imagenet():
    score, equal, slower, own = audit._searched_imagenet()
    assert score == 0.350
    assert equal == pytest.approx(0.350 * 4 / (32 / (56 / 6)), rel=1e-3)
    assert 4 * (0.6936 - 0.10) / math.log2(slower + 1) == pytest.approx(0.350)
    assert (round(slower), round(own)) == (109, 55)


def test_uniform_8_bits_is_added_to_both_tables():
    table = audit.searched_table()
    added = table[table["widths"] == "8 (added here)"]
    assert added["I'"].tolist() == ["0.408", "at least 1.073"]
    assert len(table) == 7
    no_gaps(table)


def test_size(truth):
    assert audit.layer_sizes("cifar10") == [3 * 32 * 9, 32 * 64 * 9, 64 * 8 * 8 * 128, 128 * 10]
    assert audit.layer_sizes("cifar10", padding=0)[2] == 64 * 6 * 6 * 128  # 32, 30, 15, 13, 6
    assert audit.layer_sizes("mnist", padding=0)[2] == 64 * 5 * 5 * 128  # 28, 26, 13, 11, 5
    weights = 544864
    true = 32 * weights / (8 * weights - 4 * 1280)
    finding = audit.size(truth)
    assert f"compresses by {true:.3f} in weights where the formula says 4.57" in finding.headline
    assert f"would be {0.983 * true / (32 / 7):.3f} instead of 0.983" in finding.result
    assert f"saves {100 * (1 - 4 / true):.2f} %" in finding.result
    table = audit.size_table().set_index(["network", "widths"])
    assert table.loc[("SimpleCNN / CIFAR-10", "8-8-4-8"), "C, by weights"] == "7.709"
    resnet = table.loc[("ResNet-18 / ImageNet-1K", "8-8-8-8-8-16")]
    assert resnet.tolist() == ["4.38 %", "3.429", f"{32 / (8 + 8 * 512000 / 11678912):.3f}"]


def test_search(truth):
    assert audit.search_budget() == {
        "population": 20, "generations": 30, "choices": 4, "space": 4**4, "asked": 600, "new": 20 + 29 * 15,
    }  # fmt: skip
    assert "scores" in audit.search_space(truth).ours and audit.search_space(None).ours == ""


def test_units(found):
    finding = audit.units(found)
    assert finding.headline == "In milliseconds the knee of ResNet-18 is 8 bits, in seconds 16."
    for tau, knee in ((1, 8), (64, 16), (1000, 16)):
        sixteen = 2 * (0.9493 - 0.5) / math.log2(8.87 / tau + 1)
        eight = 4 * (0.9484 - 0.5) / math.log2(23.34 / tau + 1)
        assert (8 if eight > sixteen else 16) == knee
    turn = sensitivity.over_time_constant(readings.resnet18())[0].high
    assert f"time constant is {turn:.2f} ms" in finding.result and 13.8 < turn < 13.9
    assert "SimpleCNN / CIFAR-10 and SimpleCNN / CIFAR-100 is the same in every unit" in finding.result
    table = audit.units_table(found).set_index("condition")
    assert table.loc["ResNet-18 / CIFAR-10, paper"].tolist()[:4] == [
        "8 bits", "16 bits", "16 bits", f"8 to 16 bits at {turn:.2f} ms",
    ]  # fmt: skip
    no_gaps(table)


def test_tolerance_says_what_holds(found):
    finding = audit.tolerance(found)
    fast, slow = readings.cifar10()
    assert sensitivity.crossing_threshold(fast) is None  # "with the fastest nowhere"
    flip = fast.full_precision - sensitivity.crossing_threshold(slow)
    equal = 0.7981 - (2 * 0.5818 - 0.7981)
    assert f"at δ = {flip:.2f}, with equal latencies at {equal:.2f}" in finding.result
    assert slow.tolerance < flip < equal < paper.conditions().at[R18, "tolerance"]  # "lies beyond both"
    for each in (readings.cifar100(), readings.imagenet()):  # "for nearly every one"
        longest = max(sensitivity.over_tolerance(each), key=lambda stretch: stretch.high - stretch.low)
        assert longest.knee == 8
        assert longest.high - longest.low > 0.98 * (each.full_precision - 1 / each.num_classes)
    no_gaps(audit.tolerance_table(found))


def test_latency(found):
    finding = audit.latency(found)
    assert f"{23.34 / 8.87:.2f} times that of 16" in finding.headline
    assert len({stated(f"{R18}.latency_ms.{bits}") for bits in (8, 4, 2)}) == 1
    assert f"{1.16 / 0.48:.2f} times on SimpleCNN" in finding.result
    assert "8, 4 and 2 bits take 1.38, 1.40 and 1.43 times" in finding.ours
    table = audit.latency_table(found).set_index("condition")
    assert table.loc["SimpleCNN / CIFAR-10, ours"].tolist() == ["8.40", "1.00", "5.00", "1.38", "1.40", "1.43"]


def test_noise(found):
    facts = audit.noise_facts()
    latency = 2 ** (4 * (0.4798 - 0.05) / 1.841) - 1
    slower = latency + facts["latency_spread"]
    # Moving T by one standard deviation, and P by its own, moves I' by the stated spread.
    by_latency = math.log2(slower + 1) / math.log2(latency + 1) - 1
    assert by_latency == pytest.approx(facts["latency_relative"] * 0.735, rel=0.05)
    assert math.hypot(by_latency, 0.008 / 0.4298) == pytest.approx(0.173 / 1.841, rel=0.05)
    assert facts["gap"] == pytest.approx(0.006) and facts["index_spread"] == pytest.approx(1.516 * 2.29 / 19.59)
    assert (facts["low"], facts["high"]) == pytest.approx((0.5207, 6.2847), abs=1e-3)  # chi-square, 2 degrees
    finding = audit.noise(found)
    assert f"about {100 * facts['latency_spread'] / latency:.0f} %" in finding.headline
    assert "SimpleCNN / CIFAR-10 6.7 %" in finding.ours


def test_statements():
    table = audit.statements_table()
    assert set(audit._numbers_say()) <= set(table["matter"])
    says = table.set_index("matter")["what the numbers say"]
    assert says["searched topology"].endswith("8-8-8-4 gives 4.57, 8-8-8-2 gives 4.92, 8-4-4-2 gives 7.11")
    assert says["search against full precision"] == f"0.983 is {0.983 / 0.529:.2f} times 0.529"
    assert says["accuracy at 2 bits"].startswith("chance among 4 answers is 25%")
    floors = paper.rankings().query("metric == 'index' and scope == 'complete'").set_index("condition")["order"]
    assert [floors[name][-1] for name in ("mnist-simplecnn", C10, R18)] == [2, 32, 32]  # the lowest index
    assert "(§4.2)" in table["the text"][0] and "(App. B)" in table["the text"][0]


# --- the page --------------------------------------------------------------------------------------------------------


def test_every_finding_has_all_its_parts_and_a_row(found, truth, monkeypatch):
    said = []
    monkeypatch.setattr(report, "say", said.append)
    known = audit.findings(truth, found)
    assert len({finding.title for finding in known}) == len(known) == 11
    for finding in known:
        audit.say(finding)
        assert finding.rests_on in (audit.DIGITS, audit.ASSUMES)
    assert sum("**Our records.**" in text for text in said) == 8
    for text in said:
        assert text.count("- **") >= 4 and "nan" not in text and "  " not in text
    assert len(audit.overview(known)) == len(known)


def test_the_page_stands_without_records(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    said = []
    monkeypatch.setattr(report, "say", said.append)
    assert landscape.known() is None
    assert [finding.ours for finding in audit.findings(None, [])] == [""] * 11
    confirmed = audit.measured_checks_table()
    audit.say_measured_checks(confirmed)
    report.table(confirmed, "Confirmed")
    assert all("no record" in text for text in said)
    for table in (audit.units_table([]), audit.tolerance_table([]), audit.latency_table([])):
        assert set(table["condition"].str.split(", ").str[1]) == {"paper"}


def test_confirmed_claims_are_those_of_the_experiment(tmp_path, monkeypatch):
    summary = pd.DataFrame({"claim": ["a", "b"], "verdict": [report.REPRODUCED, report.IN_PART], "evidence": ["", ""]})
    condition = table1.Condition("simplecnn", "cifar10", "paper", known_results.condition(), "the command")
    monkeypatch.setattr(exp1, "conditions", lambda names: [condition])
    monkeypatch.setattr(exp1, "recipe_results", lambda names: pd.DataFrame())
    monkeypatch.setattr(exp1, "summary_table", lambda conditions, grid: summary)
    assert audit.measured_checks_table()["claim"].tolist() == ["a"]
