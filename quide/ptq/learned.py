"""Rounding that learns its step (LSQ, Esser et al. 2020, arXiv 1902.08153); gradients pass straight through it."""

from __future__ import annotations

import math

import torch
from torch import nn

from quide.ptq.grid import Grid

SMALLEST = 1e-8  # step


class _Rounded(torch.autograd.Function):
    """Values to their grid. Inside it the gradient passes as if nothing were rounded; the step's is LSQ's Eq. 3.

    That is, summed with the gradient, ``rounded - scaled`` inside the grid and its end outside. With what passes
    at hand that takes two products, and nothing of the size of the values.
    """

    @staticmethod
    def forward(ctx, values: torch.Tensor, scale: torch.Tensor, low: int, high: int, share: float) -> torch.Tensor:
        scaled = values * (1 / scale)  # as quide.ptq.grid rounds, so that what was learned is what is used
        rounded = scaled.round().clamp_(low, high).mul_(scale)
        ctx.save_for_backward(scaled, rounded, scale)
        ctx.low, ctx.high, ctx.share = low, high, share
        return rounded

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        scaled, rounded, scale = ctx.saved_tensors
        passed = torch.ops.aten.hardtanh_backward(gradient, scaled, ctx.low, ctx.high)
        step = None
        if ctx.needs_input_grad[1]:
            step = (_summed(gradient, rounded, scale) / scale - _summed(passed, scaled, scale)) * ctx.share
        return passed, step, None, None, None


def _summed(one: torch.Tensor, other: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The sum of a product, over all that shares a step."""
    if like.ndim == 0 and one.stride() == other.stride():
        flat = [part.permute(0, 2, 3, 1).flatten() if part.ndim == 4 else part.flatten() for part in (one, other)]
        return torch.dot(*flat)
    return (one * other).sum_to_size(like.shape)


class LearnedQuantizer(nn.Module):
    """A quantizer whose step size is a parameter, ``scale``; its zero point stays.

    The step's gradient is divided by the root of ``N * Qp``: of the values that share a step (of activations: in one
    image) and the highest integer (LSQ §2.2).

    Attributes:
        of_weights: whether it rounds weights, ``(out, ...)``, instead of a batch of activations.
    """

    def __init__(self, grid: Grid, of_weights: bool):
        super().__init__()
        self.scale = nn.Parameter(grid.scale.detach().clone())
        self.zero_point, self.of_weights = grid.zero_point, of_weights
        self.low, self.high = grid.low - grid.zero_point, grid.high - grid.zero_point

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        shared = self.scale.numel() if self.of_weights else len(values)
        share = 1 / math.sqrt(max(values.numel() // shared, 1) * max(self.high, 1))
        return _Rounded.apply(values, self.step(), self.low, self.high, share)

    def step(self) -> torch.Tensor:
        """The step size, above zero whatever training makes of its parameter."""
        return self.scale.abs().clamp_min(SMALLEST)

    @torch.no_grad()
    def start(self, values: torch.Tensor) -> None:
        """Set the step to LSQ's first one, ``2 mean|v| / sqrt(Qp)``."""
        mean = values.abs().flatten(1).mean(1) if self.scale.numel() > 1 else values.abs().mean()
        step = 2 * mean.reshape(self.scale.shape) / math.sqrt(max(self.high, 1))
        self.scale.copy_(torch.where(step > 0, step, self.scale))

    def grid(self) -> Grid:
        """What it rounds to now."""
        zero = self.zero_point
        return Grid(self.step().detach(), zero, self.low + zero, self.high + zero)
