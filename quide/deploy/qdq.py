"""A network that :func:`quide.quantize` made as an ONNX file of integers: QuantizeLinear and DequantizeLinear with our
scales and zero points (extra ``deploy``).

A runtime either computes such a pair as it stands, which gives our answers, or makes integer kernels of it.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from quide import _paths
from quide.deploy import onnx
from quide.ptq.grid import FakeQuantize
from quide.ptq.prepared import META, Quantization

OPSET = 21
WIDEST = 8


def export_onnx(quantized: nn.Module, example_input: torch.Tensor, file: str | Path) -> Path:
    """Write a network of :func:`quide.quantize` as ONNX, for batches of any size, whole or not at all.

    Weights are stored as 8-bit integers with one scale a tensor or a channel, as the scheme has it; an activation
    goes through QuantizeLinear and DequantizeLinear wherever it is rounded, after a Clip where its width has fewer
    levels than 8 bits or a ReLU cuts it. Its outputs are the quantized network's within one step of the last grid:
    ONNX divides by a scale where :func:`quide.quantize` multiplies by its reciprocal.

    Args:
        quantized: widths of at most 8 bits, or 32 for a side that stays in float; in float32.
        example_input: images ``(n, ...)``, two or more, of any values.
        file: ends in ``.onnx``.

    Raises:
        ValueError: a network of another kind, or a layer that ONNX cannot hold in 8 bits, by name.
        ModuleNotFoundError: the extra ``deploy`` is not installed.
    """
    file = _paths.given("file", file)
    if file.suffix != ".onnx" or file.is_dir():
        raise ValueError(f"file must end in .onnx, got {file}")
    if not isinstance(example_input, torch.Tensor) or example_input.ndim < 2 or len(example_input) < 2:
        raise ValueError("example_input must be a tensor of two or more images (n, ...)")
    onnx.require()
    content = onnx.export(_in_integers(quantized), example_input, opset=OPSET)
    with _paths.atomic(file) as partial:
        partial.write_bytes(content)
    return file


def _in_integers(quantized: nn.Module) -> nn.Module:
    """A copy whose rounded weights and quantizers are what the exporter writes as integers."""
    how = getattr(quantized, "meta", {}).get(META)
    if not isinstance(how, Quantization):
        raise ValueError(f"quantized must be what quide.quantize returned, got {type(quantized).__name__}")
    network = copy.deepcopy(quantized)
    kinds = {value.dtype for value in network.parameters()} - {torch.float32}
    if kinds or not hasattr(network, "graph"):
        raise ValueError("quantized must be in float32; quantize the network with sixteen_bit='grid'")
    for layer, scale in how.weight_scales.items():
        network.set_submodule(layer, _IntegerLayer(layer, network.get_submodule(layer), scale))
    for layer, name in how.quantizers.items():
        network.set_submodule(name, _QuantizeLinear(layer, network.get_submodule(name)))
    return network


class _IntegerLayer(nn.Module):
    """A layer that reads its weight from integers."""

    def __init__(self, name: str, layer: nn.Module, scale: torch.Tensor):
        super().__init__()
        integers = (layer.weight.detach() / scale).round()
        if integers.abs().max() > 2 ** (WIDEST - 1):
            raise ValueError(_too_wide(name, "weights"))
        self.layer = layer
        self.register_buffer("integers", integers.to(torch.int8).contiguous())
        self.register_buffer("scale", scale.flatten() if scale.ndim else scale)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        weight = torch.onnx.ops.symbolic(
            "DequantizeLinear", (self.integers, self.scale), {"axis": 0} if self.scale.ndim else {},
            dtype=torch.float32, shape=self.integers.shape, version=OPSET,
        )  # fmt: skip
        return torch.func.functional_call(self.layer, {"weight": weight}, (values,))


class _QuantizeLinear(nn.Module):
    """An activation quantizer as a Clip to the ends of its grid, QuantizeLinear and DequantizeLinear."""

    def __init__(self, name: str, quantizer: FakeQuantize):
        super().__init__()
        low = quantizer.zero_point if quantizer.relu else quantizer.low
        kind = torch.int8 if quantizer.low < 0 else torch.uint8
        held = torch.iinfo(kind)
        if quantizer.low < held.min or quantizer.high > held.max:
            raise ValueError(_too_wide(name, "activations"))
        if quantizer.rounding != "half_even":
            raise ValueError(f"layer {name} rounds activations by {quantizer.rounding!r}, ONNX by 'half_even' alone")
        steps = torch.tensor([low, quantizer.high]) - quantizer.zero_point
        self.ends = (steps * quantizer.scale.cpu()).tolist()
        self.clips = low > held.min or quantizer.high < held.max
        self.kind = kind
        self.register_buffer("scale", quantizer.scale)
        self.register_buffer("zero", torch.tensor(quantizer.zero_point, dtype=kind))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.clips:
            values = values.clamp(*self.ends)
        whole = torch.onnx.ops.symbolic(
            "QuantizeLinear", (values, self.scale, self.zero), dtype=self.kind, shape=values.shape, version=OPSET
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (whole, self.scale, self.zero),
            dtype=torch.float32, shape=values.shape, version=OPSET,
        )  # fmt: skip


def _too_wide(layer: str, side: str) -> str:
    return (
        f"layer {layer} has {side} of more than {WIDEST} bits, which an 8-bit integer of ONNX cannot hold; quantize it "
        f"at {WIDEST} bits or fewer, or leave it in float with keep={{{layer!r}: 32}}"
    )
