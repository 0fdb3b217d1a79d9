"""Where the knee changes: against plain evaluation on a fine grid, and against algebra."""

from __future__ import annotations

from itertools import pairwise

import known_results
import numpy as np
import pandas as pd
import pytest
from quidebook.evidence import readings, sensitivity
from quidebook.evidence.readings import Reading

from quide import metric

READINGS = {
    each.label + each.assumes: each for each in [*readings.of_paper(), readings.of_measured(known_results.condition())]
}


def knee_at(stretches, value):
    return next(stretch.knee for stretch in stretches if stretch.low <= value <= stretch.high)


def reading(rows, full_precision=0.9, threshold=0.5, condition="cifar10-simplecnn"):
    table = pd.DataFrame(rows, columns=["bits", "accuracy", "latency_ms"]).set_index("bits")
    table["compression"] = 32 / table.index
    return Reading(condition, "ours", table, full_precision, threshold)


@pytest.mark.parametrize("name", READINGS)
def test_the_tolerances_are_those_of_plain_evaluation(name):
    each = READINGS[name]
    stretches = sensitivity.over_tolerance(each)
    assert stretches[0].low == 0
    assert stretches[-1].high == pytest.approx(each.full_precision - 1 / each.num_classes)
    assert all(one.high == two.low and one.knee != two.knee for one, two in pairwise(stretches))
    for tolerance in np.linspace(0.0005, stretches[-1].high - 0.0005, 301):
        if min(abs(tolerance - stretch.high) for stretch in stretches) < 1e-6:
            continue
        threshold = metric.accuracy_threshold(each.full_precision, tolerance, each.num_classes)
        assert knee_at(stretches, tolerance) == metric.knee(each.table.index, each.gated_index(threshold))


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("gated", [True, False])
def test_the_time_constants_are_those_of_plain_evaluation(name, gated):
    each = READINGS[name]
    stretches = sensitivity.over_time_constant(each, gated)
    assert (stretches[0].low, stretches[-1].high) == pytest.approx(sensitivity.TIME_CONSTANTS_MS)
    for tau in np.logspace(-2.9, 5.9, 200):
        scores = each.gated_index(None if gated else 0.0, tau)
        assert knee_at(stretches, tau) == metric.knee(each.table.index, scores)


def test_two_widths_tie_where_the_time_constant_flips():
    resnet = readings.resnet18()
    turn = sensitivity.over_time_constant(resnet)[0].high
    scores = resnet.gated_index(None, turn)
    assert scores[8] == pytest.approx(scores[16], rel=1e-9)


def test_at_equal_latency_the_crossing_is_twice_the_narrow_less_the_wide():
    each = reading([(8, 0.9, 5.0), (4, 0.7, 5.0)])
    assert sensitivity.crossing_threshold(each) == pytest.approx(2 * 0.7 - 0.9)


def test_no_crossing_outside_what_a_threshold_can_be():
    assert sensitivity.crossing_threshold(reading([(8, 0.9, 5.0), (4, 0.3, 5.0)])) is None
    assert sensitivity.crossing_threshold(readings.cifar100()) is None


def test_where_every_gate_is_closed_there_is_no_knee():
    stretches = sensitivity.over_tolerance(reading([(8, 0.85, 5.0), (4, 0.3, 5.0)]))
    assert stretches[0] == sensitivity.Stretch(0.0, pytest.approx(0.05), None)
    assert stretches[1].knee == 8
