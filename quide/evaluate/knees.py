"""Which width a sweep recommends, and what speaks against it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from quide import metric
from quide.latency import Timings
from quide.ptq.width import Bits
from quide.stats import wilson_interval

MARGIN = 0.05  # by how much, at most, full precision has to be better than guessing

GUESSING = "full precision is not clearly better than guessing"
NOISY = "the timing is noisy, and the knee depends on it"
UNEQUAL = "at equal latency the knee would be another"


def beats_guessing(hits: np.ndarray, labels: np.ndarray, num_classes: int) -> bool:
    """Whether the accuracy of the hits, bool ``(n,)``, is clearly above that of guessing.

    The lower end of its interval has to be above 1/K by half as much again, or by 5 percentage points: random weights
    are often a little better than 1/K. And it has to be right more often than the most frequent class occurs.
    """
    guessed = 1 / num_classes
    low = wilson_interval(int(hits.sum()), len(hits)).low
    return low > guessed + min(guessed / 2, MARGIN) and hits.sum() > np.bincount(labels).max()


def recommended(
    table: pd.DataFrame,
    threshold: float,
    hits: np.ndarray | None,
    labels: np.ndarray | None,
    num_classes: int | None,
    timings: Timings,
) -> tuple[Bits | tuple[Bits, ...] | None, list[str]]:
    """The width with the highest I', or None; and reservations.

    ``hits`` and ``labels`` are those of full precision, None where a score of the user's was counted.
    """
    best = _best(table, table.gated_index)
    if hits is not None and not beats_guessing(hits, labels, num_classes):
        return None, [GUESSING]
    equal = _best(table, metric.gated_index(table.compression, table.accuracy, 1.0, threshold))
    if best is None or equal == best:
        return best, []
    return best, [UNEQUAL, NOISY] if timings.noisy else [UNEQUAL]


def _best(table: pd.DataFrame, scores: pd.Series) -> Bits | tuple[Bits, ...] | None:
    place = int(scores.argmax())
    return table.bits[place] if scores[place] > 0 else None
