"""Where the knee changes: over the tolerance of Eq. 4, and over the time constant of the latency penalty (§3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, groupby, pairwise

import numpy as np
from scipy.optimize import brentq

from quide import metric
from quidebook.evidence.readings import Reading

DIGITS = 9  # accuracies are shares of at most 50,000 images: differences below this are of rounding
TIME_CONSTANTS_MS = (1e-3, 1e6)  # from a microsecond to a quarter of an hour: far beyond any unit in use


@dataclass(frozen=True)
class Stretch:
    """From ``low`` to ``high`` the knee is ``knee`` bits; None: no width scores above 0."""

    low: float
    high: float
    knee: int | None


def over_tolerance(reading: Reading) -> list[Stretch]:
    """The knee of I' for every tolerance from 0 to that at which the threshold reaches chance, and stays there.

    I' of a width is linear in the threshold until the gate closes, so the knee can change only where two widths cross
    or one closes: these points are computed, not searched for.
    """
    strength = reading.table["compression"] / metric.latency_penalty(reading.table["latency_ms"])
    accuracy = reading.table["accuracy"]
    widest = reading.full_precision - 1 / reading.num_classes
    turns = {0.0, widest}
    for one, other in combinations(reading.table.index, 2):
        if (slope := strength[one] - strength[other]) != 0:
            crossing = (strength[one] * accuracy[one] - strength[other] * accuracy[other]) / slope
            turns.add(float(reading.full_precision - crossing))
    turns |= {reading.full_precision - each for each in accuracy}
    edges = sorted({round(turn, DIGITS) for turn in turns if 0 <= turn <= widest})

    def knee(tolerance: float) -> int | None:
        threshold = metric.accuracy_threshold(reading.full_precision, tolerance, reading.num_classes)
        return metric.knee(reading.table.index, reading.gated_index(threshold))

    return _merged([Stretch(low, high, knee((low + high) / 2)) for low, high in pairwise(edges)])


def over_time_constant(reading: Reading, gated: bool = True) -> list[Stretch]:
    """The knee of I' (of I, if not ``gated``) with T counted in units of every length, in milliseconds."""

    def scores(tau: float):
        return reading.gated_index(None if gated else 0.0, tau)

    def even(log_tau: float, one: int, other: int) -> float:
        return float(np.log(scores(np.exp(log_tau))[one] / scores(np.exp(log_tau))[other]))

    ends = np.log(TIME_CONSTANTS_MS)
    open_gates = [bits for bits, score in scores(1.0).items() if score > 0]
    turns = list(ends)
    for pair in combinations(open_gates, 2):
        # The ratio of two penalties moves one way only, from 1 to the ratio of the latencies: at most one crossing.
        if even(ends[0], *pair) * even(ends[1], *pair) < 0:
            turns.append(brentq(even, *ends, args=pair, xtol=1e-12))
    edges = np.exp(sorted(turns)).tolist()
    return _merged(
        [
            Stretch(low, high, metric.knee(reading.table.index, scores(float(np.sqrt(low * high)))))
            for low, high in pairwise(edges)
        ]
    )


def crossing_threshold(reading: Reading) -> float | None:
    """The threshold at which 4 and 8 bits have the same I', below which 4 bits lead; None if it is no threshold: below
    chance, or above an accuracy."""
    table = reading.table.loc[[4, 8]]
    strength = (table["compression"] / metric.latency_penalty(table["latency_ms"])).to_numpy()
    accuracy = table["accuracy"].to_numpy()
    threshold = float((strength * accuracy) @ [1, -1] / (strength @ [1, -1]))
    return threshold if 1 / reading.num_classes <= threshold <= accuracy.min() else None


def _merged(stretches: list[Stretch]) -> list[Stretch]:
    """Neighbours with the same knee as one."""
    parts = [list(part) for _, part in groupby(stretches, key=lambda stretch: stretch.knee)]
    return [Stretch(part[0].low, part[-1].high, part[0].knee) for part in parts]
