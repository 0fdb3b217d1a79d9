"""Observers: how the range of a weight or activation tensor is found (min-max, percentile, mean squared error)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

BINS = 4096
GOLDEN, GOLDEN_STEPS = (math.sqrt(5) - 1) / 2, 20
CLIPPINGS = torch.linspace(0.2, 1.0, 81, dtype=torch.float64)  # shares of the full range that "mse" tries


class Statistics:
    """What is remembered of one activation site: its extremes and, where needed, a histogram between them.

    Memory does not grow with the number of images.
    """

    def __init__(self):
        self.minimum, self.maximum = float("inf"), float("-inf")
        self.counts: torch.Tensor | None = None
        self.logits: list[torch.Tensor] | None = None  # kept where their cross-entropy is asked for

    def see_extremes(self, values: torch.Tensor) -> None:
        """First pass: update the extremes."""
        low, high = (float(extreme) for extreme in torch.aminmax(values))  # NaN if any value is
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("an activation is NaN or infinite on the calibration images; check the model's weights")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        if self.logits is not None:
            self.logits.append(values.flatten(1).double().cpu())

    def see_histogram(self, values: torch.Tensor) -> None:
        """Second pass: count values into equal bins between the extremes."""
        counts = torch.histc(values.float(), BINS, self.minimum, self.maximum).double().cpu()
        self.counts = counts if self.counts is None else self.counts + counts

    def range(self, observer: str, bits: int, percentile: float, symmetric: bool) -> tuple[float, float]:
        """The (minimum, maximum) that a grid of ``bits`` should span."""
        if self.logits is not None:
            return _least_cross_entropy(torch.cat(self.logits), self.minimum, self.maximum, bits, symmetric)
        if observer in ("minmax", "batch_norm") or self.minimum == self.maximum:
            return self.minimum, self.maximum
        width = (self.maximum - self.minimum) / BINS
        if observer == "percentile":
            tail = (1 - percentile / 100) / 2 * float(self.counts.sum())
            below, above = self.counts.cumsum(0), self.counts.flip(0).cumsum(0)
            dropped_low, dropped_high = int((below <= tail).sum()), int((above <= tail).sum())
            return self.minimum + dropped_low * width, self.maximum - dropped_high * width
        centres = self.minimum + width * (torch.arange(BINS, dtype=torch.float64) + 0.5)
        clipped = _Clipped(self.minimum, self.maximum, bits, symmetric)

        def error(shares: torch.Tensor) -> torch.Tensor:
            return (((clipped.rounded(centres, shares) - centres) ** 2) * self.counts).sum(1)

        return clipped.least(error, refined=observer == "mse_golden")


class _Clipped:
    """Grids over shares of a full range, ``(k,)`` at once."""

    def __init__(self, minimum: float, maximum: float, bits: int, symmetric: bool):
        self.minimum, self.maximum, self.symmetric = minimum, maximum, symmetric
        self.steps = max(2**bits - 2, 1) if symmetric else 2**bits - 1

    def ends(self, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Lowest and highest value of each."""
        low, high = shares * min(self.minimum, 0.0), shares * max(self.maximum, 0.0)
        if not self.symmetric:
            return low, high
        reach = torch.maximum(low.abs(), high.abs())
        return -reach, reach

    def rounded(self, values: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """``values``, flat, by each grid: ``(k, n)``."""
        low, high = self.ends(shares)
        # In float32, as the grid's scale will be: a range around zero is a tie, and the zero point falls the same way.
        scale = ((high - low) / self.steps).clamp_min(torch.finfo(torch.float32).tiny).float().double()[:, None]
        offset = (low[:, None] / scale).round()
        return (values / scale).round().clamp(offset, offset + self.steps) * scale

    def least(self, error: Callable[[torch.Tensor], torch.Tensor], refined: bool) -> tuple[float, float]:
        """The ends of the grid with the least error."""
        best = int(error(CLIPPINGS).argmin())
        share = CLIPPINGS[best : best + 1]
        if refined:
            share = golden_section(error, share)
        return tuple(float(end) for end in self.ends(share))


def golden_section(error: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor) -> torch.Tensor:
    """Shares ``(k,)`` near those given, of least error ``(k,)``: the golden-section search, one step of
    :data:`CLIPPINGS` to either side; a share that it does not improve stays."""
    step = float(CLIPPINGS[1] - CLIPPINGS[0])
    low, high = (start - step).clamp_min(0.0), start + step
    for _ in range(GOLDEN_STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        better = error(left) < error(right)
        low, high = torch.where(better, low, left), torch.where(better, right, high)
    found = (low + high) / 2
    return torch.where(error(found) < error(start), found, start)


def _least_cross_entropy(
    logits: torch.Tensor, minimum: float, maximum: float, bits: int, symmetric: bool
) -> tuple[float, float]:
    """The share of the full range that least changes the predicted probabilities (arXiv 2106.08295, §3.1)."""
    clipped, wanted = _Clipped(minimum, maximum, bits, symmetric), logits.softmax(1)

    def error(shares: torch.Tensor) -> torch.Tensor:
        rounded = clipped.rounded(logits.flatten(), shares).reshape(-1, *logits.shape)
        return -(wanted * rounded.log_softmax(-1)).sum((1, 2))

    return clipped.least(error, refined=False)


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
    elif observer in ("mse", "mse_golden"):
        reach = _least_squares_reach(rows, reach, bits, refined=observer == "mse_golden")
    shape = (-1,) + (1,) * (weight.ndim - 1) if per_channel else ()
    reach = reach.reshape(shape)
    return -reach, reach


def _least_squares_reach(rows: torch.Tensor, reach: torch.Tensor, bits: int, refined: bool) -> torch.Tensor:
    """Per row, the clipping of ``reach`` with the least squared error on the restricted symmetric grid."""
    levels = max(2 ** (bits - 1) - 1, 1)

    def error(shares: torch.Tensor | float) -> torch.Tensor:
        scale = (reach * shares / levels).clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        return ((rows / scale).round().clamp(-levels, levels) * scale - rows).square().sum(1)

    best, least = torch.ones_like(reach), torch.full_like(reach, float("inf"))
    for share in CLIPPINGS.tolist():
        found = error(share)
        better = found < least
        least, best = torch.where(better, found, least), torch.where(better, torch.full_like(best, share), best)
    return reach * (golden_section(error, best) if refined else best)
