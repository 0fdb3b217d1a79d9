"""Readings of the paper's numbers: as stated where stated, and within the stated orders where assumed."""

from __future__ import annotations

import itertools

import known_results
import numpy as np
import pytest
from quidebook.evidence import readings

from quide import metric
from quide.experiments import paper

READINGS = {each.label + each.assumes: each for each in readings.of_paper()}


@pytest.mark.parametrize("name", READINGS)
def test_whatever_the_text_states_or_implies_is_taken_over(name):
    each = READINGS[name]
    stated = paper.table1(each.condition).set_index("bits").loc[each.table.index]
    for quantity in ("accuracy", "latency_ms"):
        known = stated[quantity].notna()
        assert each.table[quantity][known].tolist() == stated[quantity][known].tolist()
    gaps = stated[["accuracy", "latency_ms"]].isna().any(axis=None)
    assert bool(each.assumes) == gaps
    assert list(each.table.index) == sorted(each.table.index, reverse=True)
    assert each.table["compression"].tolist() == [32 / bits for bits in each.table.index]


@pytest.mark.parametrize("name", READINGS)
def test_every_reading_has_the_stated_knee_and_agrees_with_the_stated_orders(name):
    each = READINGS[name]
    assert each.knee == each.facts["knee_bits"]
    stated = paper.rankings().query("condition == @each.condition and origin == 'stated'")
    for _, row in stated.iterrows():
        scores = each.index() if row["metric"] == "index" else each.gated_index()
        known = [bits for bits in row["order"] if bits in scores.index]
        assert all(scores[better] > scores[worse] for better, worse in itertools.pairwise(known)), row["metric"]


def test_stated_scores_follow():
    resnet = readings.resnet18()
    assert resnet.index()[[8, 4]].round(3).tolist() == [0.824, 0.933]
    assert resnet.gated_index()[4] == pytest.approx(0.064, abs=5e-4)
    cifar100 = readings.cifar100()
    assert cifar100.gated_index()[8] == pytest.approx(paper.number("cifar100-simplecnn.gated_index.8"), abs=2e-3)
    assert cifar100.index()[[16, 4]].tolist() == pytest.approx([1.510, 1.516], abs=2e-3)


def test_unknown_latencies_are_taken_at_both_ends():
    fast, slow = readings.cifar10()
    assert (fast.table["latency_ms"] <= slow.table["latency_ms"]).all()
    assert slow.table["latency_ms"][8] == paper.number("cifar10-simplecnn.latency_ms.max")
    # A step further, and a stated order would not hold.
    assert metric.intelligence_index(4, 0.7981, fast.table["latency_ms"][8] - readings.STEP_MS) > fast.index()[4]
    slower = slow.table["latency_ms"][16] + readings.STEP_MS
    assert metric.gated_index(2, 0.7981, slower, 0.5) < slow.gated_index()[4]


def test_a_time_constant_is_a_unit():
    resnet = readings.resnet18()
    in_seconds = resnet.gated_index(None, 1000.0)
    assert in_seconds[8] == pytest.approx(4 * (0.9484 - 0.5) / np.log2(1.02334))


def test_measurements_are_means_over_seeds():
    each = readings.of_measured(known_results.condition())
    assert each.label == "SimpleCNN / CIFAR-10, ours" and each.threshold == 0.505
    assert each.full_precision == pytest.approx(0.805)
    assert each.table.loc[4].tolist() == pytest.approx([8, 0.605, 1.05 * 11.2])


def test_without_records_there_is_nothing_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    assert readings.measured_conditions() == []
