"""The pure quantizers: a grid of integers times a scale, and rounding to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

HALVES = (torch.float16, torch.bfloat16)
_ROUNDINGS = {
    "half_even": torch.Tensor.round_,
    # Not floor(x + 0.5): that sum is itself rounded, and the largest float below one half would come out as 1.
    "half_up": lambda values: values.mul_(2).floor_().div_(2).ceil_(),
    "floor": torch.Tensor.floor_,
}


@dataclass(frozen=True)
class Grid:
    """A uniform quantization grid: value = (integer - zero_point) * scale, integer in [low, high].

    ``scale`` is a float32 tensor, 0-d for a tensor-wide grid or shaped to broadcast against the values (one entry a
    channel); ``zero_point``, ``low`` and ``high`` are Python integers.
    """

    scale: torch.Tensor
    zero_point: int
    low: int
    high: int


def symmetric_grid(minimum: torch.Tensor, maximum: torch.Tensor, bits: int, restricted: bool = True) -> Grid:
    """Zero-centred signed grid that reaches the larger magnitude of the range.

    ``restricted`` leaves out the integer -2^(b-1), so that both signs reach equally far. At 1 bit it holds zero alone.
    """
    high = 2 ** (bits - 1) - 1
    low = -high if restricted else -(2 ** (bits - 1))
    reach = torch.maximum(minimum.abs(), maximum.abs()).double()
    return Grid(_usable(reach / max(high, 1)), 0, low, high)


def affine_grid(minimum: torch.Tensor, maximum: torch.Tensor, bits: int) -> Grid:
    """Unsigned tensor-wide grid over the range, widened to hold zero, with an integer zero point."""
    minimum, maximum = min(float(minimum), 0.0), max(float(maximum), 0.0)
    high = 2**bits - 1
    scale = _usable(torch.tensor((maximum - minimum) / high, dtype=torch.float64))
    zero_point = min(max(round(-minimum / float(scale)), 0), high)
    return Grid(scale, zero_point, 0, high)


def _usable(scale: torch.Tensor) -> torch.Tensor:
    """As float32; 1 for an all-zero range, never so small that its reciprocal overflows, never infinite."""
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    limits = torch.finfo(torch.float32)
    return scale.clamp(limits.tiny, limits.max).float()


def fake_quantize(values: torch.Tensor, grid: Grid, rounding: str = "half_even", inplace: bool = False) -> torch.Tensor:
    """Round float32 ``values`` to ``grid``; with ``half_even``, bit for bit what torch's fake_quantize functions give.

    Multiplies by the reciprocal of the scale, as torch does: dividing would round a few values the other way.
    ``inplace`` overwrites ``values``. Halves are rounded in float32 and given back in their own type.

    Exact up to 24 bits, where float32 still holds every integer of the grid; wider grids are finer than float32 itself
    and return each value to within its own rounding. Values beyond 2^63 steps saturate and NaN stays NaN here, while
    torch's conversion to integers overflows.
    """
    if values.dtype in HALVES:  # which do not hold the ends, or every step, of a grid
        return fake_quantize(values.float(), grid, rounding, inplace=True).to(values.dtype)
    scaled = values.mul_(1 / grid.scale) if inplace else values * (1 / grid.scale)
    rounded = _ROUNDINGS[rounding](scaled)
    clamped = rounded.clamp_(grid.low - grid.zero_point, grid.high - grid.zero_point)
    return clamped.mul_(grid.scale).add_(0.0)  # -0 to +0: torch goes through integers, which have no -0


class FakeQuantize(nn.Module):
    """A fixed activation quantizer in a network; ``relu`` cuts the grid at zero, which is exactly a ReLU beside it."""

    def __init__(self, grid: Grid, rounding: str, relu: bool = False, inplace: bool = False):
        super().__init__()
        self.register_buffer("scale", grid.scale)
        self.register_buffer("levels", torch.tensor([grid.zero_point, grid.low, grid.high]))
        self.zero_point, self.low, self.high = grid.zero_point, grid.low, grid.high
        self.rounding, self.relu, self.inplace = rounding, relu, inplace
        self.register_load_state_dict_post_hook(_read_levels)

    def grid(self) -> Grid:
        """What it rounds to, a ReLU beside it left out."""
        return Grid(self.scale, self.zero_point, self.low, self.high)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        low = self.zero_point if self.relu else self.low
        grid = Grid(self.scale, self.zero_point, low, self.high)
        return fake_quantize(values, grid, self.rounding, self.inplace and not values.requires_grad)

    def extra_repr(self) -> str:
        levels = f"[{self.low}, {self.high}]"
        return f"scale={self.scale:.4g}, zero_point={self.zero_point}, levels={levels}, relu={self.relu}"


def _read_levels(quantizer: FakeQuantize, _: object) -> None:
    """As Python integers, which arithmetic on images is faster with."""
    quantizer.zero_point, quantizer.low, quantizer.high = quantizer.levels.tolist()


class HalfPrecision(nn.Module):
    """A network cast to float16, or bfloat16, that takes and returns float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float16):
        super().__init__()
        self.model, self.dtype = model.to(dtype), dtype
        self.meta = model.meta

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images.to(self.dtype)).float()
