"""Statements of the paper against one another: what agrees, what does not, and that a check can fail."""

from __future__ import annotations

import math

from quidebook.evidence import consistency

from quide.experiments import paper


def test_every_check_agrees_but_the_drop_that_was_cut_off():
    checks = consistency.table()
    off = checks[checks["verdict"] != consistency.CONSISTENT]
    assert off["statement"].tolist() == ["SimpleCNN / CIFAR-10: drop from 32 to 4 bits (pp)"]
    assert off["verdict"].tolist() == [consistency.CUT_OFF]
    assert consistency.counts(checks) == {"agree": 19, "all": 20} and not checks.duplicated("statement").any()


def test_a_check_can_fail():
    assert consistency._check("two", (0.5, 0.6), [0.7, 0.8])[-1] == consistency.INCONSISTENT
    assert consistency._check("two", (0.5, 0.7), [0.7, 0.8])[-1] == consistency.CONSISTENT


def test_checked_scores_are_the_stated_ones():
    table = consistency.table().set_index("statement")
    shown = table.loc["ResNet-18 on CIFAR-10, 8 bits: I' follows from P and T"]
    low, high = map(float, shown["recomputed"].split(" to "))
    assert low <= 4 * (0.9484 - 0.5) / math.log2(24.34) <= high
    assert shown["stated"] == "0.390"


def test_the_numbers_have_a_say_where_statements_differ():
    facts = consistency.statement_facts()
    assert facts["alternatives"] == "8-8-8-4 gives 4.57, 8-8-8-2 gives 4.92, 8-4-4-2 gives 7.11"
    assert facts["compression"] == 4.57 and facts["times"] == 0.983 / 0.529
    assert (facts["chance"], facts["mnist_knee"], facts["c100_times"]) == (0.25, 4, 0.05 * 100)
    floors = paper.rankings().query("metric == 'index' and scope == 'complete'").set_index("condition")["order"]
    lowest = [floors[name][-1] for name in ("mnist-simplecnn", "cifar10-simplecnn", "cifar10-resnet18")]
    assert lowest == [2, 32, 32]  # the floor of the index


def test_a_matter_names_its_places_and_takes_a_template():
    topics = paper.statements()["topic"].unique()
    table = consistency.statements_table({topics[0]: "C = {compression}"})
    assert table["matter"].tolist() == topics.tolist()
    assert "(§4.2)" in table["the text"][0] and "(App. B)" in table["the text"][0]
    assert table["what the numbers say"].tolist() == ["C = 4.57", *["–"] * (len(topics) - 1)]
