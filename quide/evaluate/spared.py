"""Layers that do not compute what their quantizer rounds to one value anyway, by the bounds of interval arithmetic.

At 2 bits a weight tensor is nearly all zeros, units that died in training are zero at any width, and a coarse grid
rounds whatever small numbers come out to the same one. Such outputs are known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx, nn
from torch.nn import functional as F

from quide.ptq.fold import is_hooked, plain_kind
from quide.ptq.grid import FakeQuantize, Grid, fake_quantize
from quide.ptq.layers import module_of

SMALLEST = 2**14  # weights; in fewer there is little to leave out
GRAIN = 16  # rows and channels are computed in multiples of it, so that few shapes occur
WORTH = 0.8  # share of the work from which on all of it is done
PATIENCE = 8  # calls without gain after which a layer stops looking for one
ROUNDING = 2.0**-22  # per term of a sum in float32: four times what one rounding can be


def spare(models: Iterable[fx.GraphModule]) -> None:
    """Let layers of one network at several widths leave out what is known, in place; on a CPU. No value changes after
    rounding."""
    extremes: dict[str, Extremes] = {}
    for place, model in enumerate(models):
        for node in list(model.graph.nodes):
            if (quantizer := _quantizer(model, node)) is not None:
                shared = extremes.setdefault(node.target, Extremes())
                model.set_submodule(
                    node.target, Spared(model.get_submodule(node.target), quantizer, shared, place == 0)
                )


class Extremes:
    """The lowest and the highest value of each image of a batch, found at the first width and kept for the others."""

    def __init__(self):
        self._values: torch.Tensor | None = None

    def of(self, values: torch.Tensor, anew: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Float64 ``(n, 1)`` each, with zero between them."""
        if anew or values is not self._values:
            rows = values.movedim(1, -1).flatten(1)
            self._low, self._high = rows.amin(1).clamp_max(0), rows.amax(1).clamp_min(0)
            self._values = values
        return self._low.double()[:, None], self._high.double()[:, None]


def _quantizer(model: fx.GraphModule, node: fx.Node) -> FakeQuantize | None:
    """The quantizer that alone reads a layer, perhaps through a max-pooling."""
    if plain_kind(layer := module_of(model, node)) is None:
        return None
    weight = layer.weight
    if weight.numel() < SMALLEST or weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    if getattr(layer, "groups", 1) != 1 or is_hooked(layer) or len(node.users) != 1:
        return None
    (reader,) = node.users
    if type(module_of(model, reader)) is nn.MaxPool2d:
        reader = next(iter(reader.users)) if len(reader.users) == 1 else node
    found = module_of(model, reader)
    return found if isinstance(found, FakeQuantize) else None


class Spared(nn.Module):
    """A layer without the images and channels whose outputs are sure to be rounded to one value."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, quantizer: FakeQuantize, extremes: Extremes, anew: bool):
        super().__init__()
        self.layer, self.extremes, self.anew = layer, extremes, anew
        low = quantizer.zero_point if quantizer.relu else quantizer.low
        self.grid, self.rounding = Grid(quantizer.scale, quantizer.zero_point, low, quantizer.high), quantizer.rounding
        weight = layer.weight.detach().double().flatten(1)
        self.above, self.below = weight.clamp_min(0).sum(1), weight.clamp_max(0).sum(1)
        self.bias = self.above.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double()
        self.slack = (weight.shape[1] + 4) * ROUNDING
        self.alike: dict[tuple, bool] = {}  # by shape: whether a part comes out bit for bit as in the whole
        self.vain = 0

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if values.ndim != (4 if isinstance(self.layer, nn.Conv2d) else 2) or self.vain >= PATIENCE:
            return self.layer(values)
        known, live = self._bounds(values)
        rows, channels = _live(live.any(1)), _live(live.any(0))
        if len(rows) * len(channels) > WORTH * live.numel():
            self.vain += 1
            return self.layer(values)
        self.vain = 0
        key = (values.shape, len(rows), len(channels))
        if len(rows) and not self.alike.get(key, False):
            whole = self.layer(values)
            if key not in self.alike:
                self.alike[key] = torch.equal(whole[rows][:, channels], self._part(values, rows, channels))
            return whole
        if values.ndim == 4:
            side = self.layer(values[:1]).shape[2:]
            known = known[:, :, None, None].expand(-1, -1, *side).contiguous(memory_format=torch.channels_last)
        if len(rows):
            known[rows[:, None], channels] = self._part(values, rows, channels)
        return known

    def _bounds(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For each image and channel: a value between the bounds of its outputs, and whether they round differently."""
        low, high = self.extremes.of(values, self.anew)
        ends = [self.above * one + self.below * other + self.bias for one, other in ((low, high), (high, low))]
        slack = self.slack * ((self.above - self.below) * torch.maximum(-low, high) + self.bias.abs())
        first, last = (
            fake_quantize(end.float(), self.grid, self.rounding) for end in (ends[0] - slack, ends[1] + slack)
        )
        return ((ends[0] + ends[1]) / 2).float(), first != last

    def _part(self, values: torch.Tensor, rows: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        values = values if len(rows) == len(values) else values[rows]
        bias = None if layer.bias is None else layer.bias[channels]
        if isinstance(layer, nn.Linear):
            return F.linear(values, layer.weight[channels], bias)
        return layer._conv_forward(values, layer.weight[channels], bias)


def _live(marks: torch.Tensor) -> torch.Tensor:
    """Places of the marks, made up to a multiple by others; none where there is none."""
    count = int(marks.sum())
    wanted = min(-(-count // GRAIN) * GRAIN, len(marks))
    return marks.to(torch.uint8).argsort(descending=True, stable=True)[:wanted].sort().values
