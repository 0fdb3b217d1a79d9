"""Weights alone, or weights and layer outputs, rounded by the paper's quantizers in any network, without tracing it.

:func:`quide.quantize` always rounds both, and needs a network that ``torch.fx`` can trace. Language models are usually
quantized in their weights alone, and cannot be traced; here both kinds of network get the same treatment.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import nn

from quide import ptq
from quide.ptq.ranges import Statistics
from quide.ptq.scheme import PER_CHANNEL, PER_TENSOR, Granularity

SCALE_BITS = 16  # a scale is counted as a float16 number, as the formats in use store it
_ROW_BY_ROW = replace(ptq.PAPER, weight_per_channel=True)


def round_weight(weight: torch.Tensor, bits: int, granularity: Granularity = PER_TENSOR) -> torch.Tensor:
    """A weight tensor ``(out, ...)`` on a symmetric min-max grid, in its own type.

    Args:
        weight: any floating-point type; rounded in float32.
        bits: 1..32; 32 leaves it as it is.
        granularity: what has a scale of its own: the ``"tensor"`` (the paper's), a ``"channel"`` (row), or so many
            consecutive weights of a row; the last group of a row may be shorter.

    Raises:
        ValueError: granularity is neither of the two words nor a positive integer, or a weight is not finite.
    """
    _check_granularity(granularity)
    values = weight.float()
    if granularity == PER_TENSOR:
        rounded = ptq.quantized_weight(values, bits)
    elif granularity == PER_CHANNEL:
        rounded = ptq.quantized_weight(values, bits, _ROW_BY_ROW)
    else:
        groups = values.flatten(1).split(granularity, dim=1)
        rounded = torch.cat([ptq.quantized_weight(group, bits, _ROW_BY_ROW) for group in groups], dim=1)
    return rounded.reshape(weight.shape).to(weight.dtype)


def round_weights(
    model: nn.Module, layers: Sequence[str], bits: int, granularity: Granularity = PER_TENSOR
) -> nn.Module:
    """A copy of a network with the weights of the named layers rounded; arguments as :func:`round_weight`."""
    copied = copy.deepcopy(model)
    for name in layers:
        layer = copied.get_submodule(name)
        layer.weight = nn.Parameter(round_weight(layer.weight.detach(), bits, granularity), requires_grad=False)
    return copied


@torch.inference_mode()
def observe(model: Callable, layers: Sequence[str], inputs: Iterable[torch.Tensor]) -> dict[str, Statistics]:
    """Smallest and largest output of each named layer over the inputs, one batch at a time."""
    statistics = {name: Statistics() for name in layers}
    with ExitStack() as hooks:
        for name, seen in statistics.items():
            hook = model.get_submodule(name).register_forward_hook(lambda *call, seen=seen: seen.see_extremes(call[-1]))
            hooks.enter_context(hook)
        for batch in inputs:
            model(batch)
    return statistics


def round_outputs(model: nn.Module, statistics: dict[str, Statistics], bits: int) -> nn.Module:
    """The network with the output of each observed layer on an affine per-tensor min-max grid, changed in place.

    With :func:`round_weights` per tensor this is :data:`quide.PAPER`, up to the folding of batch norms.
    """
    for name, seen in statistics.items():
        quantizer = ptq.FakeQuantize(ptq.affine_grid(seen.minimum, seen.maximum, bits), ptq.PAPER.rounding)
        model.get_submodule(name).register_forward_hook(
            lambda layer, arguments, output, quantizer=quantizer: quantizer(output.float()).to(output.dtype)
        )
    return model


def stored_bits(weight: torch.Tensor, bits: int, granularity: Granularity = PER_TENSOR) -> int:
    """Bits that a rounded weight tensor ``(out, ...)`` takes: its integers, and its scales at 16 bits each."""
    _check_granularity(granularity)
    rows, columns = len(weight), weight[0].numel()
    known = {PER_TENSOR: 1, PER_CHANNEL: rows}
    scales = known[granularity] if granularity in known else rows * -(-columns // granularity)
    return bits * weight.numel() + SCALE_BITS * scales


def _check_granularity(granularity: Granularity) -> None:
    if granularity in (PER_TENSOR, PER_CHANNEL):
        return
    if isinstance(granularity, bool) or not isinstance(granularity, int) or granularity < 1:
        raise ValueError(
            f"granularity must be {PER_TENSOR!r}, {PER_CHANNEL!r} or a positive number of weights, got {granularity!r}"
        )
