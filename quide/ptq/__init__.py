"""Post-training quantization: what to quantize by (scheme), how a tensor is rounded (grid, ranges), and networks.

Names are imported on first use: the scheme needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quide._lazy import attributes
from quide.ptq.scheme import BEST, FULL_PRECISION, HALF_PRECISION, PAPER, RANGES, Scheme
from quide.ptq.width import Width, layer_widths

if TYPE_CHECKING:
    from quide.ptq.adaround import AdaRound
    from quide.ptq.bias import AnalyticBias, CorrectBias
    from quide.ptq.brecq import Brecq
    from quide.ptq.equalize import AbsorbBias, Equalize
    from quide.ptq.grid import (
        FakeQuantize,
        Grid,
        HalfPrecision,
        affine_grid,
        fake_quantize,
        symmetric_grid,
    )
    from quide.ptq.layers import quantizable_layers, stages
    from quide.ptq.prepared import Prepared, prepare, quantize, quantized_weight

__all__ = [
    "AbsorbBias", "AdaRound", "AnalyticBias", "Brecq", "CorrectBias", "Equalize",
    "BEST", "FULL_PRECISION", "HALF_PRECISION", "PAPER", "RANGES", "FakeQuantize", "Grid", "HalfPrecision", "Prepared",
    "Scheme", "Width", "affine_grid", "fake_quantize", "layer_widths", "prepare", "quantizable_layers", "quantize",
    "quantized_weight", "stages", "symmetric_grid",
]  # fmt: skip
__getattr__ = attributes(
    __name__,
    adaround=["AdaRound"],
    bias=["AnalyticBias", "CorrectBias"],
    brecq=["Brecq"],
    equalize=["AbsorbBias", "Equalize"],
    grid=["FakeQuantize", "Grid", "HalfPrecision", "affine_grid", "fake_quantize", "symmetric_grid"],
    layers=["quantizable_layers", "stages"],
    prepared=["Prepared", "prepare", "quantize", "quantized_weight"],
)
