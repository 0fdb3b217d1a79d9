"""AdaRound (Nagel et al. 2020, arXiv 2004.10568): each weight rounded up or down, as is best for its layer's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn import functional as F

from quide._check import whole
from quide.ptq.passes import Walk, rectified, rounded_layers
from quide.ptq.prepared import Prepared
from quide.ptq.reconstruction import Learned, Reconstructing, SoftWeight, grid_of, judged, regularizer

CHECKED = 8192  # outputs that losses are compared on


@dataclass(frozen=True)
class AdaRound(Reconstructing):
    """Learns whether to round each weight up or down, layer by layer in the order they run.

    A layer is given what the rounded layers before it give, and is to return what it returned in full precision, behind
    its ReLU where one alone reads it. A layer that would be no better than by rounding to nearest is rounded so.
    ``meta["adaround"]`` of the network holds a :class:`quide.ptq.reconstruction.Reconstruction` a layer.

    Attributes:
        iterations: steps of Adam a layer.
        outputs: how many of a layer's outputs, over all images and places, a step sees.
        learning_rate: of the rounding variables.
        learn_bias: learn the biases too, which the publication does not.
        seed: of the draw of outputs.
        checkpoint: a file that finished layers are kept in; a run that was interrupted goes on from it.
        progress: show how far it is.
    """

    iterations: int = 1500
    outputs: int = 2048
    learning_rate: float = 1e-2
    learn_bias: bool = True
    seed: int = 0
    checkpoint: str | Path | None = None
    progress: bool = False

    def __post_init__(self):
        super().__post_init__()
        whole("outputs", self.outputs, 1)

    def parts(self, quantized: fx.GraphModule, prepared: Prepared) -> dict[str, str]:
        return {layer: layer for layer in rounded_layers(quantized)}

    def problem(self, layer: str, quantized: fx.GraphModule, prepared: Prepared, full: Walk, rounded: Walk) -> _Problem:
        exact = prepared.graph.get_submodule(layer)
        inputs, given = full.to(layer), rounded.to(layer)
        with torch.no_grad():
            target = exact(inputs)
        activation = F.relu if rectified(prepared, layer) else (lambda values: values)
        soft = SoftWeight(exact.weight.detach(), grid_of(layer, quantized, prepared))
        return _Problem(layer, quantized.get_submodule(layer), soft, given, target, activation)


class _Problem:
    """One layer: which way to round its weights, given what comes in and what is to come out.

    A convolution is computed at drawn places alone, as a product of its weights with the patches there.
    """

    def __init__(self, name: str, layer: nn.Module, soft: SoftWeight, given: torch.Tensor, target: torch.Tensor,
                 activation: Callable[[torch.Tensor], torch.Tensor]):  # fmt: skip
        self.name, self.layer, self.soft, self.activation = name, layer, soft, activation
        self.groups = getattr(layer, "groups", 1)
        self.patches, self.places = _patches(layer, given)
        convolution = isinstance(layer, nn.Conv2d)
        self.target = _channels_last(target).movedim(1, -1) if convolution else target.flatten(0, -2)

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs ``(groups, count, taps)`` and targets ``(count, out)`` of random outputs."""
        index = tuple(torch.randint(size, (count,), generator=generator) for size in self.places)
        if len(index) == 1:
            return self.patches[index][None], self.activation(self.target[index])
        number, row, column = index
        inputs = self.patches[number, :, row, column].reshape(count, self.groups, -1).transpose(0, 1)
        return inputs, self.activation(self.target[index])

    def output(self, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        rows = weight.reshape(self.groups, -1, inputs.shape[-1])
        given = torch.bmm(inputs, rows.transpose(1, 2)).transpose(0, 1).reshape(inputs.shape[1], -1)
        return self.activation(given if bias is None else given + bias)

    def solve(self, how: AdaRound, generator: torch.Generator) -> tuple[Learned, dict[str, float]]:
        bias = self.layer.bias
        learns = how.learn_bias and bias is not None
        if learns:
            bias = nn.Parameter(bias.detach().clone())

        def loss(progress: float) -> torch.Tensor:
            inputs, target = self.draw(how.outputs, generator)
            up = self.soft.up()
            error = (self.output(inputs, self.soft.raised(up), bias) - target).square().sum(1).mean()
            return error + regularizer(up, progress)

        how.descend([self.soft.variables], [bias] if learns else [], loss)
        return self._judged(bias, generator)

    @torch.no_grad()
    def _judged(self, bias: torch.Tensor | None, generator: torch.Generator) -> tuple[Learned, dict[str, float]]:
        inputs, target = self.draw(CHECKED, generator)

        def error(weight: torch.Tensor, bias: torch.Tensor | None) -> float:
            return float((self.output(inputs, weight, bias) - target).square().mean())

        nearest, soft = error(self.layer.weight, self.layer.bias), error(self.soft(), bias)
        self.soft.decided = True
        hard = error(learned := self.soft(), bias)
        if hard > nearest:
            learned, bias = self.layer.weight.detach(), None
        found = judged(nearest, soft, hard, self.soft.up())
        return {self.name: (learned, None if bias is None else bias.detach())}, found


def _channels_last(values: torch.Tensor) -> torch.Tensor:
    """Values that are drawn by place, each place's in a row: gathering them is most of the work."""
    return values.contiguous(memory_format=torch.channels_last)


def _patches(layer: nn.Module, given: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    """What each output of a layer is computed of, without a copy, and the sizes of the dimensions to draw from."""
    if isinstance(layer, nn.Linear):
        rows = given.flatten(0, -2)
        return rows, (len(rows),)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padding = layer._reversed_padding_repeated_twice
    if any(padding):
        given = F.pad(given, padding, mode=mode)
    patches = _channels_last(given)
    for dimension in (0, 1):  # the taps of each output, with those between them that dilation leaves out
        apart, taps = layer.dilation[dimension], layer.kernel_size[dimension]
        patches = patches.unfold(2 + dimension, apart * (taps - 1) + 1, layer.stride[dimension])
    patches = patches[..., :: layer.dilation[0], :: layer.dilation[1]]
    return patches, (len(patches), *patches.shape[2:4])
