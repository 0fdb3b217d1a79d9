"""What AdaRound and BRECQ share: variables that round weights up or down, learned part by part of a network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import fx, nn
from tqdm import tqdm

from quide._check import whole
from quide.ptq.grid import Grid
from quide.ptq.passes import Technique, Walk, set_parameter
from quide.ptq.prepared import META, Prepared, weight_grid
from quide.ptq.progress import Progress
from quide.ptq.width import both

ZETA, GAMMA = 1.1, -0.1  # how far the sigmoid is stretched, so that it reaches 0 and 1
REGULARIZER, WARM_UP, BETA = 0.01, 0.2, (20.0, 2.0)  # weight, share of iterations without it, exponent as it goes
CLOSED = 0.01  # a rounding variable this near to 0 or 1 has decided
Learned = dict[str, tuple[torch.Tensor, torch.Tensor | None]]  # weight and, where it changes, bias, by layer


@dataclass(frozen=True)
class Reconstruction:
    """How one layer or block came out: mean squared errors of its outputs, and the share of variables that decided.

    Attributes:
        nearest, soft, hard: errors of rounding to nearest, of the variables as they were learned, and of what is used.
        closed: share of variables within :data:`CLOSED` of 0 or 1.
    """

    nearest: float
    soft: float
    hard: float
    closed: float


class Reconstructing(Technique):
    """A technique that learns the rounding of one part of the network after the other, in the order they run.

    Subclasses have ``parts``, which are these by the first layer of each, and ``problem``, that of one part: its
    ``solve`` finds what is :data:`Learned` and the fields of a :class:`Reconstruction`. Their settings hold
    ``iterations``, ``learning_rate``, ``seed``, ``checkpoint`` and ``progress``.
    """

    def __post_init__(self):
        whole("iterations", self.iterations, 1)

    @torch.inference_mode(False)
    def after(self, quantized: fx.GraphModule, prepared: Prepared, calibration: torch.Tensor) -> None:
        name, report = type(self).__name__, {}
        full, rounded = Walk(prepared.graph, calibration), Walk(quantized, calibration)
        kept = Progress(self.checkpoint, lambda: self._decided_by(quantized, prepared, calibration))
        done = kept.read() or {}
        parts = tqdm(self.parts(quantized, prepared).items(), name, disable=not self.progress)
        for place, (first, part) in enumerate(parts):
            if first not in done:
                problem = self.problem(part, quantized, prepared, full, rounded)
                done[first] = problem.solve(self, torch.Generator().manual_seed(self.seed * 1000 + place))
                kept.write(done)
            learned, found = done[first]
            for layer, (weight, bias) in learned.items():
                one = quantized.get_submodule(layer)
                set_parameter(one, "weight", weight.to(one.weight))
                if bias is not None:
                    set_parameter(one, "bias", bias.to(one.weight))
            report[first] = Reconstruction(**found)
        quantized.meta[name.lower()] = report

    def _decided_by(self, quantized: fx.GraphModule, prepared: Prepared, calibration: torch.Tensor) -> list:
        """What decides the result: the text of the code, the settings, the networks and the images."""
        code = [Path(file).read_text() for file in (__file__, sys.modules[type(self).__module__].__file__)]
        settings = [replace(self, checkpoint=None, progress=False), prepared.scheme, quantized.meta[META].bits]
        return [code, settings, [[one.code, one.state_dict()] for one in (prepared.graph, quantized)], calibration]

    def descend(
        self, variables: list[nn.Parameter], biases: list[nn.Parameter], loss: Callable[[float], torch.Tensor]
    ) -> None:
        """Minimize the loss, of the share of the steps that are done, with Adam; biases move ten times more slowly."""
        groups = [{"params": variables, "lr": self.learning_rate}]
        if biases:
            groups.append({"params": biases, "lr": self.learning_rate / 10})
        optimizer = torch.optim.Adam(groups)
        with torch.enable_grad():
            for step in range(self.iterations):
                value = loss(step / self.iterations)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()


class SoftWeight(nn.Module):
    """A weight between the two grid values around each of its entries, as ``variables`` say."""

    def __init__(self, weight: torch.Tensor, grid: Grid):
        super().__init__()
        self.step, self.low, self.high = grid.scale, grid.low, grid.high
        self.floor = (weight / grid.scale).floor()
        share = weight / grid.scale - self.floor
        self.variables = nn.Parameter(torch.logit((share.clamp(1e-4, 1 - 1e-4) - GAMMA) / (ZETA - GAMMA)))
        self.decided = False

    def forward(self, _: torch.Tensor | None = None) -> torch.Tensor:
        """The weight as it is learned, or ``decided``: each entry on one of its two grid values."""
        return self.raised((self.variables >= 0).to(self.floor) if self.decided else self.up())

    def raised(self, up: torch.Tensor) -> torch.Tensor:
        """The weight with this share of a step added to what is below it."""
        return self.step * (self.floor + up).clamp(self.low, self.high)

    def up(self) -> torch.Tensor:
        """The share of a step to add, in [0, 1]: a rectified sigmoid."""
        return (torch.sigmoid(self.variables) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def grid_of(layer: str, quantized: fx.GraphModule, prepared: Prepared) -> Grid:
    """The grid of a layer's weight."""
    bits = both(prepared.widths(quantized.meta[META].bits)[layer]).weights
    return weight_grid(prepared.graph.get_submodule(layer).weight, bits, prepared.scheme)


def regularizer(up: torch.Tensor, progress: float) -> torch.Tensor | float:
    """What drives the shares to 0 and 1, the harder the further on; nothing at first."""
    if progress < WARM_UP:
        return 0.0
    beta = BETA[0] + (BETA[1] - BETA[0]) * (progress - WARM_UP) / (1 - WARM_UP)
    return REGULARIZER * (1 - (2 * up - 1).abs().pow(beta)).sum()


def judged(nearest: float, soft: float, hard: float, up: torch.Tensor) -> dict[str, float]:
    """The fields of a :class:`Reconstruction`; rounding to nearest is used where it is better."""
    closed = float(((up < CLOSED) | (up > 1 - CLOSED)).double().mean())
    return {"nearest": nearest, "soft": soft, "hard": min(hard, nearest), "closed": closed}
