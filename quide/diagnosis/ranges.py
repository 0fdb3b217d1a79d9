"""How far weights and activations reach, and what a grid leaves of them, by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from quide.data.datasets import BATCH
from quide.ptq import graph as graphs
from quide.ptq import trial
from quide.ptq.grid import Grid
from quide.ptq.layers import module_of
from quide.ptq.prepared import META, Prepared, weight_grid
from quide.ptq.scheme import FULL_PRECISION
from quide.ptq.width import both

OPTIONAL = (  # columns that some networks have no value for
    "batch_norm_channel", "batch_norm_spread", "activation_channel", "activation_outlier", "scale", "scale_ratio",
    "zero_point", "zero_point_due", "clipped", "clipped_calibration",
)  # fmt: skip


def grids_of(network: nn.Module) -> dict[str, Grid]:
    """The grid that rounds each layer's activations in a quantized network."""
    return {layer: network.get_submodule(name).grid() for layer, name in network.meta[META].quantizers.items()}


def by_layer(
    prepared: Prepared, widths: Sequence, grids: dict[str, Grid], calibration: torch.Tensor, images: torch.Tensor
) -> pd.DataFrame:
    """The columns of :class:`quide.diagnosis.Diagnosis` that tell a layer's ranges."""
    sites = {layer: site for layer, site in prepared.sites.items() if layer in prepared.layers}
    last = [layer for layer in sites if isinstance(prepared.graph.get_submodule(layer), nn.Linear)]
    seen, tested = ({layer: _Seen(grids.get(layer), -1 if layer in last else 1) for layer in sites} for _ in range(2))
    for shown, by in ((calibration, seen), (images, tested)):
        at = {site: [by[layer].see for layer, other in sites.items() if other == site] for site in sites.values()}
        with torch.inference_mode():
            for batch in shown.split(BATCH):
                trial.Watcher(prepared.graph, at).run(batch)
    rows = []
    for layer, width in zip(prepared.layers, widths, strict=True):
        row = {"layer": layer} | _weights(prepared, layer, both(width).weights)
        row |= _batch_norm(prepared, layer)
        if layer in sites:
            statistics = prepared.statistics[sites[layer]]
            row["activation_channel"], row["activation_outlier"] = _furthest(seen[layer].reach)
            row |= {"activation_minimum": statistics.minimum, "activation_maximum": statistics.maximum}
        if layer in grids:
            scale, zero_point = _due(prepared, sites[layer], both(width).activations)
            row |= {"scale": float(grids[layer].scale), "scale_ratio": float(grids[layer].scale) / scale}
            row |= {"zero_point": grids[layer].zero_point, "zero_point_due": zero_point}
            row |= {"clipped": tested[layer].clipped, "clipped_calibration": seen[layer].clipped}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.reindex(columns=[*table.columns, *(name for name in OPTIONAL if name not in table)])


def _due(prepared: Prepared, site: str, bits: int) -> tuple[float, int]:
    """Scale and zero point that the range of a site asks for: worked out anew, since the grids are what is in doubt."""
    scheme, symmetric = prepared.scheme, prepared.scheme.activation_symmetric
    low, high = prepared.statistics[site].range(scheme.activation_range, bits, scheme.percentile, symmetric)
    low, high = min(low, 0.0), max(high, 0.0)
    steps = max(2 ** (bits - 1) - 1, 1) if symmetric else 2**bits - 1
    scale = float(np.float32((max(-low, high) if symmetric else high - low) / steps)) or 1.0
    return scale, 0 if symmetric else min(max(round(-low / scale), 0), steps)


def _weights(prepared: Prepared, layer: str, bits: int) -> dict[str, Any]:
    weight = prepared.graph.get_submodule(layer).weight
    channel, ratio = _furthest(weight.abs().flatten(1).amax(1))
    zeroed = 0.0
    if bits != FULL_PRECISION:
        scale = weight_grid(weight, bits, prepared.scheme).scale
        zeroed = float(((weight != 0) & (weight.abs() < scale / 2)).float().mean())
    return {"weight_channel": channel, "weight_outlier": ratio, "weights_zeroed": zeroed}


def _furthest(reach: torch.Tensor) -> tuple[int, float]:
    """The channel that reaches furthest, and how many times the median channel's reach that is."""
    middle = float(reach.median())
    return int(reach.argmax()), float(reach.max()) / middle if middle else 1.0


def _batch_norm(prepared: Prepared, layer: str) -> dict[str, Any]:
    """The batch norm between a layer and the next, which was not folded; and how its factors differ by channel."""
    waiting, met = graphs.calls(prepared.graph, layer), set()
    while waiting:
        for user in waiting.pop(0).users:
            part = module_of(prepared.graph, user)
            if isinstance(part, _BatchNorm):
                gain = torch.ones(part.num_features) if part.weight is None else part.weight.abs()
                channel, spread = _furthest(gain / (part.running_var + part.eps).sqrt())
                return {"batch_norm": user.target, "batch_norm_channel": channel, "batch_norm_spread": spread}
            if user not in met and (part is None or user.target not in prepared.layers):
                met.add(user)
                waiting.append(user)
    return {"batch_norm": None}


@dataclass
class _Seen:
    """What passes a site: how far each channel reaches, and how much lies beyond the grid by more than half a step."""

    grid: Grid | None
    dimension: int  # of the channels
    reach: torch.Tensor | None = None
    beyond: int = 0
    count: int = 0

    @property
    def clipped(self) -> float:
        return self.beyond / self.count

    def see(self, values: torch.Tensor) -> None:
        channels = values.movedim(self.dimension, 0)
        reach = channels.reshape(len(channels), -1).abs().amax(1)
        self.reach = reach if self.reach is None else torch.maximum(self.reach, reach)
        self.count += values.numel()
        if self.grid is not None:
            steps = values / self.grid.scale + self.grid.zero_point
            self.beyond += int(((steps < self.grid.low - 0.5) | (steps > self.grid.high + 0.5)).sum())
