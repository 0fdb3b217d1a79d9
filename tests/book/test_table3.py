"""Readings of Table 3: each gives back the paper's numbers, and the knee is what the arithmetic says."""

from __future__ import annotations

import math

import pytest
from quidebook import report
from quidebook.pages.paper_audit import DECODINGS
from quidebook.shared import table3

from quide.experiments import paper

READINGS = pytest.mark.parametrize("reading", DECODINGS, ids=lambda reading: reading.name)


def in_units(reading, bits: int, accuracy: float, latency_ms: float) -> float:
    """C P / log2(T + 1), by hand."""
    scaled, latency = accuracy * (100 if reading.percentage else 1), latency_ms / (1000 if reading.seconds else 1)
    return reading.base / bits * scaled / math.log2(latency + 1)


@READINGS
def test_the_latency_at_2_bits_gives_the_stated_index_back(reading):
    assert in_units(reading, 2, 0.35, reading.latency_ms) == pytest.approx(70.0)


@READINGS
def test_the_latencies_at_4_bits_give_the_stated_score_back(reading):
    shortest, longest = table3.latency_at_4(reading)
    assert shortest < longest
    assert in_units(reading, 4, table3.least_accuracy_at_4() - 0.60, shortest) == pytest.approx(2.58)
    assert in_units(reading, 4, 0.666 - 0.60, longest) == pytest.approx(2.58)


def test_the_least_accuracy_at_4_bits_keeps_its_index_below_that_at_2():
    accuracy = table3.least_accuracy_at_4()
    assert 2.58 * accuracy / (accuracy - 0.60) == pytest.approx(70.0)  # I from I', whatever the units


@READINGS
@pytest.mark.parametrize("growth", table3.GROWTHS)
def test_scores_and_the_accuracy_at_4_bits_are_consistent(reading, growth):
    times, found = table3.GROWTHS[growth], table3.scores(reading, growth)
    for bits in (16, 8):
        assert found[bits] == pytest.approx(in_units(reading, bits, 0.066, times[bits] * reading.latency_ms))
    accuracy = table3.accuracy_at_4(reading, growth)
    assert in_units(reading, 4, accuracy - 0.60, times[4] * reading.latency_ms) == pytest.approx(found[4])
    assert found[4] == paper.number("mmlu-llama3-8b.gated_index.4")
    assert table3.knee(reading, growth) == max(found, key=found.get)


@READINGS
def test_beyond_the_stated_latencies_4_bits_lead(reading):
    for bits, latency in ((8, reading.latency_at_8_ms), (16, table3.latency_at_16(reading))):
        assert in_units(reading, bits, 0.066, 1.01 * latency) < 2.58 < in_units(reading, bits, 0.066, 0.99 * latency)


def test_the_table_has_a_row_a_reading_and_no_empty_cell():
    table = table3.decodings_table()
    assert table["reading"].tolist()[1:] == [reading.name for reading in DECODINGS[1:]]
    assert not (table.astype(str) == "").any().any()
    assert table["possible on an RTX 3090"].tolist() == ["no", "yes", "yes", "yes", "yes"]
    assert set(table[f"knee, {table3.EQUAL}"]) == {"8 bits"}


def test_the_sentence_counts_what_the_table_shows(monkeypatch):
    said = []
    monkeypatch.setattr(report, "say", said.append)
    table3.say_decodings()
    shown = table3.decodings_table().iloc[1:]
    leads = (shown[f"knee, {table3.BY_SIZE}"] == "4 bits").sum()
    assert f"the knee would be at 4 bits in {leads} of the {len(shown)} possible readings" in said[0]
    accuracy = table3.accuracy_at_4(DECODINGS[1], table3.EQUAL)
    assert report.percent(accuracy, 1) in said[0]
