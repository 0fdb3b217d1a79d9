"""Readings of Table 3: each gives back the paper's numbers, and the knee is what the arithmetic says."""

from __future__ import annotations

import math

import pytest
from quidebook.shared import table3
from quidebook.shared.table3 import DECODINGS

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
def test_scores_are_those_of_the_units(reading, growth):
    times, found = table3.GROWTHS[growth], table3.scores(reading, growth)
    for bits in (16, 8):
        assert found[bits] == pytest.approx(in_units(reading, bits, 0.066, times[bits] * reading.latency_ms))
    assert found[4] == paper.number("mmlu-llama3-8b.gated_index.4")
    assert table3.knee(reading, growth) == max(found, key=found.get)


@READINGS
def test_beyond_the_stated_latencies_4_bits_lead(reading):
    for bits, latency in ((bits, reading.latency_losing(bits)) for bits in (8, 16)):
        assert in_units(reading, bits, 0.066, 1.01 * latency) < 2.58 < in_units(reading, bits, 0.066, 0.99 * latency)


def test_the_table_has_a_row_a_reading_and_no_empty_cell():
    table = table3.decodings_table()
    assert [name.removesuffix(": impossible") for name in table["reading"]] == [reading.name for reading in DECODINGS]
    assert [name.endswith("impossible") for name in table["reading"]] == [True, False, False, False, False]
    assert not (table.astype(str) == "").any().any()
    assert set(table[f"knee, {table3.EQUAL}"]) == {"8 bits"}


def test_the_facts_count_what_the_table_shows():
    facts, shown = table3.knees(), table3.decodings_table().iloc[1:]
    assert facts["by_size_4"] == (shown[f"knee, {table3.BY_SIZE}"] == "4 bits").sum()
    assert facts["possible"] == len(shown) and facts["equal_knee"] == "8"
    factors = [each.latency_losing(8) / each.latency_ms for each in DECODINGS[1:]]
    assert (facts["least_factor"], facts["most_factor"]) == (min(factors), max(factors))


def test_no_device_reads_the_weights_as_fast_as_the_units_of_table_1_take():
    assert [each.latency_ms for each in DECODINGS] == pytest.approx([0.0570, 255.0, 15.0, 57.0, 28.1], rel=2e-3)
    assert DECODINGS[0].bytes_per_second == pytest.approx(7.505e9 / 4 / 0.057e-3, rel=1e-3)
    assert [each.possible for each in DECODINGS] == [False, True, True, True, True]
    facts = table3.units()
    assert facts["caption_rate"] > 30 * facts["device_rate"] and (facts["others"], facts["possible"]) == (4, 4)
    assert facts["others_ms"] == "255, 15, 57, 28"
