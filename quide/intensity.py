"""Arithmetic intensity of a network: operations for each byte moved (AIQ, the rival objective to the gated index).

Counted is what a convolution or linear layer does when everything between two of them is fused into them: it reads its
weights, its bias and its input, and writes its output. Nothing is timed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils.flop_counter import FlopCounterMode

from quide._check import evaluating, whole, wholes
from quide._files import brief

FULL_PRECISION = 32
SHORTCUT = re.compile(r"(^|\.)(shortcut|downsample)\.")  # how residual networks name the layers of their skips

Bits = int | Sequence[int] | Mapping[str, int]


@dataclass(frozen=True)
class ArithmeticIntensity:
    """What :func:`arithmetic_intensity` returns.

    Attributes:
        layers: one row a convolution or linear layer, indexed by its name, in the order they first run: ``flops``,
            ``weight_bytes``, ``bias_bytes``, ``input_bytes``, ``output_bytes``, ``weight_bits``, ``activation_bits``.
        uncounted_flops: operations that torch counts outside of these layers (attention, functional layers).
    """

    layers: pd.DataFrame
    uncounted_flops: int = 0

    @property
    def flops(self) -> int:
        """Operations, two for each multiplication with its addition."""
        return int(self.layers["flops"].sum())

    @property
    def bytes(self) -> float:
        """Bytes read and written."""
        return float(self.layers[["weight_bytes", "bias_bytes", "input_bytes", "output_bytes"]].to_numpy().sum())

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.bytes


def arithmetic_intensity(
    model: nn.Module,
    example_input: torch.Tensor,
    weight_bits: Bits = FULL_PRECISION,
    activation_bits: Bits = FULL_PRECISION,
    batch: int = 1,
    as_published: bool = False,
) -> ArithmeticIntensity:
    """Operations, and bytes moved, of a network at some bit-widths; what AIQ calls arithmetic intensity (its Eq. 1).

    Args:
        model: any network; it is run once, in evaluation mode, and left as it was.
        example_input: what it takes, ``(n, ...)``; the first image alone is used.
        weight_bits: of the weights: one width for all layers, one for each convolution and linear layer in the order
            the model registers them, or a dict by name (layers that it does not name have 32). Each in 1..32.
        activation_bits: of the inputs and outputs of the layers, likewise. The published definition leaves them at 32.
        batch: images at once; operations and activations grow with it, weights do not.
        as_published: count as AIQ's authors do: the groups of a convolution are ignored; layers of the skips, called
            ``shortcut`` or ``downsample``, stay at 32 bits and have no entry in a sequence of widths; a bias has the
            width of its layer where one width is given for all, else 32. Otherwise biases count at 32 bits.

    Raises:
        ValueError: a width outside 1..32, a wrong number or name of layers, no layer to count, a batch below 1.

    Warns:
        UserWarning: the network computes outside of its convolution and linear layers, which is not counted.
    """
    whole("batch", batch, 1)
    model = evaluating(model)
    named = {name: part for name, part in model.named_modules() if isinstance(part, (_ConvNd, nn.Linear))}
    if not named:
        raise ValueError(f"model {type(model).__name__} has no convolution or linear layer to count")
    fixed = [name for name in named if as_published and SHORTCUT.search(name)]
    chosen = [name for name in named if name not in fixed]
    weights = _by_name("weight_bits", weight_bits, chosen)
    activations = _by_name("activation_bits", activation_bits, chosen)
    bias_follows = as_published and isinstance(weight_bits, Integral)
    calls, total = _calls(model, named, example_input)
    rows = {}
    for name, (given, made) in calls:
        layer, known = named[name], rows.get(name)
        bits, moved = weights.get(name, FULL_PRECISION), activations.get(name, FULL_PRECISION)
        bias = 0 if layer.bias is None else layer.bias.numel() * (bits if bias_follows else FULL_PRECISION)
        row = {
            "flops": batch * 2 * _multiplications(layer, given, made, as_published),
            "weight_bytes": layer.weight.numel() * bits / 8,
            "bias_bytes": bias / 8,
            "input_bytes": batch * given.numel() * moved / 8,
            "output_bytes": batch * made.numel() * moved / 8,
        }
        if known is not None:  # a layer that is called again moves its weights again
            row = {column: known[column] + value for column, value in row.items()}
        rows[name] = row | {"weight_bits": bits, "activation_bits": moved}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")
    counted = sum(2 * _multiplications(named[name], given, made, False) for name, (given, made) in calls)
    uncounted = batch * max(total - counted, 0)
    if uncounted and not as_published:
        warnings.warn(
            f"model {type(model).__name__} does {uncounted:,} of {batch * total:,} operations outside of its "
            "convolution and linear layers; they are not counted",
            stacklevel=2,
        )
    return ArithmeticIntensity(table, uncounted)


def _by_name(argument: str, bits: Bits, layers: Sequence[str]) -> dict[str, int]:
    """A checked width for each layer."""
    if isinstance(bits, Mapping):
        if unknown := sorted(set(bits) - set(layers)):
            raise ValueError(f"{argument} names {unknown[0]}, which is not one of {', '.join(layers)}")
        widths = dict.fromkeys(layers, FULL_PRECISION) | dict(bits)
    elif np.ndim(bits):
        if len(bits) != len(layers):
            raise ValueError(f"{argument} names {len(bits)} layers, the model has {len(layers)}: {', '.join(layers)}")
        widths = dict(zip(layers, bits, strict=True))
    else:
        widths = dict.fromkeys(layers, bits)
    wholes(argument, widths.values(), 1, FULL_PRECISION)
    return widths


def _calls(
    model: nn.Module, named: Mapping[str, nn.Module], example: torch.Tensor
) -> tuple[list[tuple[str, tuple[torch.Tensor, torch.Tensor]]], int]:
    """Each call of a layer with its input and output, in order; and the operations that torch counts in all."""
    calls = []
    for name, layer in named.items():
        layer.register_forward_hook(
            lambda _, given, options, made, name=name: calls.append((name, ((*given, *options.values())[0], made))),
            with_kwargs=True,
        )
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(example[:1].clone())
    except Exception as error:  # the model's own code
        raise ValueError(f"model {type(model).__name__} does not take the example_input ({brief(error)})") from error
    if not calls:
        raise ValueError(f"model {type(model).__name__} calls none of its convolution and linear layers")
    return calls, counter.get_total_flops()


def _multiplications(layer: nn.Module, given: torch.Tensor, made: torch.Tensor, ignore_groups: bool) -> int:
    """Multiplications of one call."""
    if isinstance(layer, nn.Linear):
        return made.numel() * layer.in_features
    # The weight of a transposed convolution is (in, out / groups, ...), and each pixel of its input meets all of it.
    pixels = given if isinstance(layer, _ConvTransposeNd) else made
    return pixels.numel() * layer.weight[0].numel() * (layer.groups if ignore_groups else 1)
