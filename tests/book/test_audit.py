"""The page that checks the paper: every fact on it, by other arithmetic than the page's own."""

from __future__ import annotations

import ast
import json
import math

import pytest
from quidebook import report
from quidebook.evidence import readings, sensitivity
from quidebook.pages import paper_audit as audit
from quidebook.shared.table3 import LLAMA

from quide import evaluate
from quide.experiments import paper
from quide.models import networks

C10, C100, R18, IN = audit.C10, audit.C100, audit.R18, audit.IN


def stated(name):
    return paper.numbers().at[name, "value"]


# --- thresholds and the gate -----------------------------------------------------------------------------------------


def test_thresholds():
    facts, shown = audit.thresholds(), {row["label"]: row for row in audit.conditions()}
    assert (facts["fits"], facts["conditions"]) == (6, 6)
    for name, rounded in {C10: 0.5, C100: 0.05, R18: 0.5, IN: 0.1, LLAMA: 0.6, "mnist-simplecnn": 0.8}.items():
        condition = paper.conditions().loc[name]
        exact = condition["full_precision_accuracy"] - condition["tolerance"]
        assert shown[condition["label"]]["less"] == exact
        assert round(exact, 2) == rounded == float(shown[condition["label"]]["fits"].split()[0])
    # By the stated scores of ResNet-18 at 4 bits; Eq. 4 lies outside what their rounding allows.
    implied = 0.5369 * (1 - stated(f"{R18}.gated_index.4") / stated(f"{R18}.index.4"))
    assert 0.49972 <= implied <= 0.50043
    assert (facts["low"], facts["high"]) == pytest.approx((0.4997, 0.5004), abs=5e-5)
    assert facts["equation_4"] == pytest.approx(0.9493 - 0.45) and facts["equation_4"] < facts["low"]
    assert (facts["llama"], facts["llama_equation_4"]) == pytest.approx((0.60, 0.596))
    assert shown["ResNet-18 / CIFAR-10"]["implied"] == "0.49864 to 0.50040 (8 bits); 0.49972 to 0.50043 (4 bits)"
    assert shown["SimpleCNN / MNIST"]["implied"] == report.UNKNOWN
    assert (facts["changed"], facts["readings"]) == (0, 5)


def test_gate():
    facts, rows = audit.gate(), audit.collapsed()
    assert (facts["closed"], facts["networks"]) == (1, 4)
    like_cifar10 = (0.4798 - 0.05) / math.log2(0.478 + 1)
    assert facts["above"].count("against") == 2  # not ResNet-18
    assert "(0.633 against 0.529)" in facts["above"] and f"(1.128 against {like_cifar10:.3f})" in facts["above"]
    for name in (C10, C100, R18, IN):  # "on each of them 8 bits come first"
        assert paper.conditions().at[name, "knee_bits"] == 8
    assert [row["closes"] for row in rows] == pytest.approx([0.2163, 0.2839, 0.4124, 0.6958])
    assert [row["range"] for row in rows[2:]] == ["0.097 to 0.137", report.UNKNOWN]


# --- size and the search ---------------------------------------------------------------------------------------------


def test_layer_sizes_are_those_of_the_networks():
    for channels, side, classes in audit.SIMPLECNN.values():
        sizes = evaluate.num_weights(networks.SimpleCNN(classes, channels, side))
        assert audit.layer_sizes(channels, side, classes) == sizes
    assert audit.layer_sizes(3, 32, 10, padding=0)[2] == 64 * 6 * 6 * 128  # 32, 30, 15, 13, 6
    assert audit.layer_sizes(1, 28, 10, padding=0)[2] == 64 * 5 * 5 * 128  # 28, 26, 13, 11, 5


def test_size(truth):
    weights = 544864
    true = 32 * weights / (8 * weights - 4 * 1280)
    facts = audit.size(truth)
    assert facts["by_size"] == pytest.approx(true) and facts["nominal"] == 32 / 7
    assert facts["score_by_size"] == pytest.approx(0.983 * true / (32 / 7))
    assert facts["saved"] == pytest.approx(1 - 4 / true) and facts["share"] == 1280 / weights
    assert facts["rank"] == truth.main.place((8, 8, 8, 4))
    assert facts["rank_by_size"] == truth.main.size_weighted().place((8, 8, 8, 4))


def test_search(truth):
    budget = {
        "population": 20, "generations": 30, "choices": 4, "space": 4**4, "asked": 600, "new": 20 + 29 * 15,
        "times": 600 / 256,
    }  # fmt: skip
    assert audit.search_space() == budget
    facts = audit.search_space(truth)
    assert facts["scored"] == truth.explored.evaluations and facts["rank"] == truth.main.place(truth.explored.best)


# --- units and tolerance ---------------------------------------------------------------------------------------------


def test_units(found):
    facts = audit.units(found)
    assert facts["by_unit"] == [8, 16, 16]
    for tau, knee in ((1, 8), (64, 16), (1000, 16)):
        sixteen = 2 * (0.9493 - 0.5) / math.log2(8.87 / tau + 1)
        eight = 4 * (0.9484 - 0.5) / math.log2(23.34 / tau + 1)
        assert (8 if eight > sixteen else 16) == knee
    assert 13.8 < facts["turn"] < 13.9
    assert 2 * 0.4493 / math.log2(8.87 / facts["turn"] + 1) == pytest.approx(
        4 * 0.4484 / math.log2(23.34 / facts["turn"] + 1), rel=1e-3
    )
    assert (facts["raw_ms"], facts["raw_s"]) == (4, 16) and facts["raw_turn"] == pytest.approx(35.0, abs=0.05)
    assert facts["unmoved"] == "SimpleCNN / CIFAR-10 and SimpleCNN / CIFAR-100"
    assert facts["measured"] == 1 and facts["steady"] in (0, 1)
    assert audit.described(readings.resnet18())["turns"] == f"8 to 16 bits at {facts['turn']:.2f} ms"


def test_tolerance_says_what_holds():
    facts = audit.tolerance()
    fast, slow = readings.cifar10()
    assert sensitivity.crossing_threshold(fast) is None and facts["fast"] is None  # "with the fastest nowhere"
    assert facts["slow"] == slow.full_precision - sensitivity.crossing_threshold(slow)
    assert facts["equal"] == pytest.approx(0.7981 - (2 * 0.5818 - 0.7981))
    assert facts["stated"] < facts["slow"] < facts["equal"] < facts["resnet"]  # "lies beyond both"
    assert facts["knee"] == 8 and facts["low"] < facts["resnet"] < facts["high"]
    for each in (readings.cifar100(), readings.imagenet()):  # "for nearly every one"
        longest = max(sensitivity.over_tolerance(each), key=lambda stretch: stretch.high - stretch.low)
        assert longest.knee == 8
        assert longest.high - longest.low > 0.98 * (each.full_precision - 1 / each.num_classes)


# --- latency ---------------------------------------------------------------------------------------------------------


def test_latency():
    facts = audit.latency()
    assert facts["resnet"] == pytest.approx(23.34 / 8.87) and facts["simplecnn"] == pytest.approx(1.16 / 0.48)
    assert len({stated(f"{R18}.latency_ms.{bits}") for bits in (8, 4, 2)}) == 1


def test_noise():
    facts = audit.noise()
    latency = 2 ** (4 * (0.4798 - 0.05) / 1.841) - 1
    slower = latency + facts["latency_spread"]
    # Moving T by one standard deviation, and P by its own, moves I' by the stated spread.
    by_latency = math.log2(slower + 1) / math.log2(latency + 1) - 1
    assert by_latency == pytest.approx(facts["latency_relative"] * 0.735, rel=0.05)
    assert math.hypot(by_latency, 0.008 / 0.4298) == pytest.approx(0.173 / 1.841, rel=0.05)
    assert facts["gap"] == pytest.approx(0.006) and facts["index_spread"] == pytest.approx(1.516 * 2.29 / 19.59)
    assert (facts["low"], facts["high"]) == pytest.approx((0.5207, 6.2847), abs=1e-3)  # chi-square, 2 degrees


def test_our_records_say_what_they_hold(found):
    (facts,) = audit.ours(found)
    reading = readings.of_measured(found[0])
    means = found[0].summary().set_index("bits")  # what EXP-1 prints, where seeds are not averaged first
    assert facts["gated"].equals(means.gated_index)
    taken = (
        found[0].table[found[0].table.bits == 8].latency_ms
        / found[0].table[found[0].table.bits == 32].latency_ms.to_numpy()
    )
    assert facts["times"][8] == pytest.approx(taken.mean())
    assert facts["spread"] == pytest.approx((12.1 - 11.0) / math.sqrt(2) / 11.55)
    assert facts["crossing"] == sensitivity.crossing_threshold(reading)
    assert facts["by_unit"][0] == reading.knee and facts["tolerance"] == 0.30 and audit.ours([]) == []


# --- the page --------------------------------------------------------------------------------------------------------


def test_a_finding_says_its_parts_in_order(monkeypatch):
    folds: list[tuple[str, ...]] = []
    monkeypatch.setattr(audit.frame, "fold", lambda *texts: folds.append(texts))
    finding = audit.Finding("a matter", "It is {x:num1}.", audit.DIGITS, {"x": 2.0})
    audit.say(finding, "One.", "And {x:num0}.", "Sure.", "Nothing.", "two records")
    audit.say(finding, "One.", "And {x:num0}.", "Sure.", "Nothing.")
    (shown, named, text), (_, _, without) = folds
    lines = text.splitlines()
    assert [line[: line.index("** ")] for line in lines] == [
        "- **The paper.", "- **Computed.", "- **Our records.", "- **How sure.", "- **What would settle it."
    ]  # fmt: skip
    assert (
        shown == ""
        and named.startswith("a matter: ")
        and lines[1].endswith("And 2.")
        and lines[2].endswith("two records.")
    )
    assert without.splitlines() == [*lines[:2], *lines[3:]]
    assert audit.overview([finding]).to_numpy().tolist() == [["a matter", "It is 2.0.", audit.DIGITS]]


def test_what_the_numbers_say_is_said_of_a_matter_that_there_is(checkout):
    cells = json.loads((checkout / "notebooks" / "paper_audit.ipynb").read_text())["cells"]
    (source,) = ["".join(cell["source"]) for cell in cells if "numbers_say = {" in "".join(cell["source"])]
    said = ast.literal_eval(ast.parse(source).body[0].value)
    assert len(said) == 10 and set(said) <= set(paper.statements()["topic"])
