"""AdaRound (Nagel et al. 2020, arXiv 2004.10568): each weight rounded up or down, as is best for its layer's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn import functional as F
from tqdm import tqdm

from quide._check import whole
from quide.ptq.grid import Grid
from quide.ptq.passes import Technique, Walk, rectified, rounded_layers, set_parameter
from quide.ptq.prepared import META, Prepared, weight_grid
from quide.ptq.progress import Progress, parts_of
from quide.ptq.width import both

ZETA, GAMMA = 1.1, -0.1  # how far the sigmoid is stretched, so that it reaches 0 and 1
REGULARIZER, WARM_UP, BETA = 0.01, 0.2, (20.0, 2.0)  # weight, share of iterations without it, exponent as it goes
CLOSED = 0.01  # a rounding variable this near to 0 or 1 has decided
CHECKED = 8192  # outputs that losses are compared on


@dataclass(frozen=True)
class Reconstruction:
    """How one layer came out: mean squared errors of its outputs, and the share of variables that decided.

    Attributes:
        nearest, soft, hard: errors of rounding to nearest, of the variables as they were learned, and of what is used.
        closed: share of variables within :data:`CLOSED` of 0 or 1.
    """

    nearest: float
    soft: float
    hard: float
    closed: float


@dataclass(frozen=True)
class AdaRound(Technique):
    """Learns whether to round each weight up or down, layer by layer in the order they run.

    A layer is given what the rounded layers before it give, and is to return what it returned in full precision, behind
    its ReLU where one alone reads it. A layer that would be no better than by rounding to nearest is rounded so.
    ``meta["adaround"]`` of the network holds a :class:`Reconstruction` a layer.

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
        whole("iterations", self.iterations, 1)
        whole("outputs", self.outputs, 1)

    @torch.inference_mode(False)
    def after(self, quantized: fx.GraphModule, prepared: Prepared, calibration: torch.Tensor) -> None:
        widths, report = prepared.widths(quantized.meta[META].bits), {}
        full, rounded = Walk(prepared.graph, calibration), Walk(quantized, calibration)
        kept = Progress(self.checkpoint, lambda: parts_of(self, quantized, prepared, calibration))
        done = kept.read() or {}
        for place, layer in enumerate(tqdm(rounded_layers(quantized), "AdaRound", disable=not self.progress)):
            one, exact = quantized.get_submodule(layer), prepared.graph.get_submodule(layer)
            inputs, given = full.to(layer), rounded.to(layer)
            if layer not in done:
                with torch.no_grad():
                    target = exact(inputs)
                activation = F.relu if rectified(prepared, layer) else (lambda values: values)
                grid = weight_grid(exact.weight, both(widths[layer]).weights, prepared.scheme)
                problem = _Problem(one, exact.weight, grid, given, target, activation)
                done[layer] = problem.solve(self, torch.Generator().manual_seed(self.seed * 1000 + place))
                kept.write(done)
            weight, bias, found = done[layer]
            set_parameter(one, "weight", weight.to(one.weight))
            if bias is not None:
                set_parameter(one, "bias", bias.to(one.weight))
            report[layer] = Reconstruction(**found)
        quantized.meta["adaround"] = report


class _Problem:
    """One layer: which way to round its weights, given what comes in and what is to come out.

    A convolution is computed at drawn places alone, as a product of its weights with the patches there.
    """

    def __init__(self, layer: nn.Module, weight: torch.Tensor, grid: Grid, given: torch.Tensor, target: torch.Tensor,
                 activation: Callable[[torch.Tensor], torch.Tensor]):  # fmt: skip
        self.layer, self.weight, self.grid, self.activation = layer, weight.detach(), grid, activation
        self.groups = getattr(layer, "groups", 1)
        self.patches, self.places = _patches(layer, given)
        self.target = target.movedim(1, -1) if isinstance(layer, nn.Conv2d) else target.flatten(0, -2)
        self.floor = (self.weight / grid.scale).floor()
        self.start = start_of(self.weight / grid.scale - self.floor)

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

    def on_grid(self, up: torch.Tensor) -> torch.Tensor:
        """The weight with this share of a step added to what is below it."""
        return self.grid.scale * (self.floor + up).clamp(self.grid.low, self.grid.high)

    def solve(self, how: AdaRound, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor | None, dict]:
        old_bias = self.layer.bias
        variables = self.start.clone().requires_grad_(True)
        groups = [{"params": [variables], "lr": how.learning_rate}]
        bias = old_bias
        if how.learn_bias and bias is not None:
            bias = old_bias.detach().clone().requires_grad_(True)
            groups.append({"params": [bias], "lr": how.learning_rate / 10})
        optimizer = torch.optim.Adam(groups)
        with torch.enable_grad():
            for step in range(how.iterations):
                inputs, target = self.draw(how.outputs, generator)
                up = rectified_sigmoid(variables)
                loss = (self.output(inputs, self.on_grid(up), bias) - target).square().sum(1).mean()
                loss = loss + regularizer(up, step / how.iterations)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return self._judged(variables.detach(), None if bias is None else bias.detach(), old_bias, generator)

    @torch.no_grad()
    def _judged(
        self, variables: torch.Tensor, bias: torch.Tensor | None, old_bias: torch.Tensor | None,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor | None, dict]:  # fmt: skip
        inputs, target = self.draw(CHECKED, generator)

        def error(weight: torch.Tensor, bias: torch.Tensor | None) -> float:
            return float((self.output(inputs, weight, bias) - target).square().mean())

        up, learned = rectified_sigmoid(variables), self.on_grid((variables >= 0).float())
        nearest, hard = error(self.layer.weight, old_bias), error(learned, bias)
        found = {
            "nearest": nearest,
            "soft": error(self.on_grid(up), bias),
            "hard": min(hard, nearest),
            "closed": float(((up < CLOSED) | (up > 1 - CLOSED)).double().mean()),
        }
        if hard > nearest:
            learned, bias = self.layer.weight.detach(), old_bias
        return learned, None if bias is None else bias.detach(), found


def start_of(share: torch.Tensor) -> torch.Tensor:
    """The variables that add this share of a step."""
    return torch.logit((share.clamp(1e-4, 1 - 1e-4) - GAMMA) / (ZETA - GAMMA))


def rectified_sigmoid(variables: torch.Tensor) -> torch.Tensor:
    """The share of a step to add, in [0, 1]."""
    return (torch.sigmoid(variables) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def regularizer(up: torch.Tensor, progress: float) -> torch.Tensor | float:
    """What drives the shares to 0 and 1, the harder the further on; nothing at first."""
    if progress < WARM_UP:
        return 0.0
    beta = BETA[0] + (BETA[1] - BETA[0]) * (progress - WARM_UP) / (1 - WARM_UP)
    return REGULARIZER * (1 - (2 * up - 1).abs().pow(beta)).sum()


def _patches(layer: nn.Module, given: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    """What each output of a layer is computed of, without a copy, and the sizes of the dimensions to draw from."""
    if isinstance(layer, nn.Linear):
        rows = given.flatten(0, -2)
        return rows, (len(rows),)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padding = layer._reversed_padding_repeated_twice
    if any(padding):
        given = F.pad(given, padding, mode=mode)
    given = given.contiguous()
    (number, channels, *sizes), strides = given.shape, given.stride()
    reach = [step * (taps - 1) + 1 for step, taps in zip(layer.dilation, layer.kernel_size, strict=True)]
    out = [(size - far) // step + 1 for size, far, step in zip(sizes, reach, layer.stride, strict=True)]
    moved = [stride * step for stride, step in zip(strides[2:], layer.stride, strict=True)]
    apart = [stride * step for stride, step in zip(strides[2:], layer.dilation, strict=True)]
    view = given.as_strided((number, channels, *out, *layer.kernel_size), (*strides[:2], *moved, *apart))
    return view, (number, *out)
