"""Observers: how the range of a weight or activation tensor is found (min-max, percentile, mean squared error)."""

from __future__ import annotations

import math

import torch

BINS = 4096
CLIPPINGS = torch.linspace(0.2, 1.0, 81, dtype=torch.float64)  # shares of the full range that "mse" tries


class Statistics:
    """What is remembered of one activation site: its extremes and, where needed, a histogram between them.

    Memory does not grow with the number of images.
    """

    def __init__(self):
        self.minimum, self.maximum = float("inf"), float("-inf")
        self.counts: torch.Tensor | None = None

    def see_extremes(self, values: torch.Tensor) -> None:
        """First pass: update the extremes."""
        low, high = (float(extreme) for extreme in torch.aminmax(values))  # NaN if any value is
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("an activation is NaN or infinite on the calibration images; check the model's weights")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)

    def see_histogram(self, values: torch.Tensor) -> None:
        """Second pass: count values into equal bins between the extremes."""
        counts = torch.histc(values.float(), BINS, self.minimum, self.maximum).double().cpu()
        self.counts = counts if self.counts is None else self.counts + counts

    def range(self, observer: str, bits: int, percentile: float, symmetric: bool) -> tuple[float, float]:
        """The (minimum, maximum) that a grid of ``bits`` should span."""
        if observer == "minmax" or self.minimum == self.maximum:
            return self.minimum, self.maximum
        width = (self.maximum - self.minimum) / BINS
        if observer == "percentile":
            tail = (1 - percentile / 100) / 2 * float(self.counts.sum())
            below, above = self.counts.cumsum(0), self.counts.flip(0).cumsum(0)
            dropped_low, dropped_high = int((below <= tail).sum()), int((above <= tail).sum())
            return self.minimum + dropped_low * width, self.maximum - dropped_high * width
        centres = self.minimum + width * (torch.arange(BINS, dtype=torch.float64) + 0.5)
        return _least_squares_clipping(centres, self.counts, self.minimum, self.maximum, bits, symmetric)


def _least_squares_clipping(
    values: torch.Tensor, weights: torch.Tensor, minimum: float, maximum: float, bits: int, symmetric: bool
) -> tuple[float, float]:
    """The share of the full range whose grid has the least weighted squared error on ``values``."""
    low, high = CLIPPINGS * min(minimum, 0.0), CLIPPINGS * max(maximum, 0.0)
    if symmetric:
        reach = torch.maximum(low.abs(), high.abs())
        low, high, steps = -reach, reach, max(2**bits - 2, 1)
    else:
        steps = 2**bits - 1
    # In float32, as the grid's scale will be: a range around zero is a tie, and the zero point must fall the same way.
    scale = ((high - low) / steps).clamp_min(torch.finfo(torch.float32).tiny).float().double()[:, None]
    offset = (low[:, None] / scale).round()
    rounded = ((values / scale).round().clamp(offset, offset + steps)) * scale
    best = int((((rounded - values) ** 2) * weights).sum(1).argmin())
    return float(low[best]), float(high[best])


def weight_range(
    weight: torch.Tensor, observer: str, bits: int, percentile: float, per_channel: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric-grid range of a weight tensor ``(out, ...)``.

    Returns:
        (minimum, maximum), 0-d for the whole tensor or ``(out, 1, ...)`` for one range an output channel.
    """
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("a weight is NaN or infinite; check the checkpoint")
    rows = weight.flatten(1) if per_channel else weight.reshape(1, -1)
    reach = rows.abs().amax(1)
    if observer == "percentile":
        # numpy-style quantiles of |w|: both tails of a symmetric grid are cut by the same value
        kept = min(max(round(percentile / 100 * rows.shape[1]), 1), rows.shape[1])
        reach = rows.abs().kthvalue(kept, dim=1).values
    elif observer == "mse":
        reach = _least_squares_reach(rows, reach, bits)
    shape = (-1,) + (1,) * (weight.ndim - 1) if per_channel else ()
    reach = reach.reshape(shape)
    return -reach, reach


def _least_squares_reach(rows: torch.Tensor, reach: torch.Tensor, bits: int) -> torch.Tensor:
    """Per row, the clipping of ``reach`` with the least squared error on the restricted symmetric grid."""
    levels = max(2 ** (bits - 1) - 1, 1)
    best, least = reach.clone(), torch.full_like(reach, float("inf"))
    for share in CLIPPINGS.tolist():
        scale = (reach * share / levels).clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        error = ((rows / scale).round().clamp(-levels, levels) * scale - rows).square().sum(1)
        better = error < least
        least, best = torch.where(better, error, least), torch.where(better, reach * share, best)
    return best
