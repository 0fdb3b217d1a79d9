"""BRECQ (Li et al. 2021, arXiv 2102.05426): AdaRound's variables, learned for what a whole block returns."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from tqdm import tqdm

from quide._check import whole
from quide.ptq.activations import is_relu
from quide.ptq.adaround import CLOSED, Reconstruction, rectified_sigmoid, regularizer, start_of
from quide.ptq.grid import FakeQuantize, Grid
from quide.ptq.layers import module_of
from quide.ptq.learned import LearnedQuantizer
from quide.ptq.passes import Technique, Walk, rounded_layers, set_parameter
from quide.ptq.prepared import META, Prepared, weight_grid
from quide.ptq.progress import Progress, parts_of
from quide.ptq.width import both


@dataclass(frozen=True)
class Block:
    """A part of a network that one value enters and one leaves: a residual block, or a layer, with the ReLU behind it.

    ``start`` and ``end`` name the nodes of these values, ``layers`` what is rounded between them.
    """

    start: str
    end: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Brecq(Technique):
    """Learns whether to round each weight up or down, block by block, so that the block returns what it did.

    A block is given what the rounded blocks before it give. The error is the mean square, which the publication weights
    by squared gradients as an option; activation steps stay at the scheme's. A block that would be no better than by
    rounding to nearest is rounded so. ``meta["brecq"]`` of the network holds a
    :class:`quide.ptq.adaround.Reconstruction` a block, by its first layer.

    Attributes:
        iterations: steps of Adam a block (20,000 in the publication).
        batch: images a step.
        learning_rate: of the rounding variables.
        seed: of the draw of images.
        checkpoint: a file that finished blocks are kept in; a run that was interrupted goes on from it.
        progress: show how far it is.
    """

    iterations: int = 1500
    batch: int = 32
    learning_rate: float = 1e-2
    seed: int = 0
    checkpoint: str | Path | None = None
    progress: bool = False

    def __post_init__(self):
        whole("iterations", self.iterations, 1)
        whole("batch", self.batch, 1)

    @torch.inference_mode(False)
    def after(self, quantized: fx.GraphModule, prepared: Prepared, calibration: torch.Tensor) -> None:
        report = {}
        full, rounded = Walk(prepared.graph, calibration), Walk(quantized, calibration)
        kept = Progress(self.checkpoint, lambda: parts_of(self, quantized, prepared, calibration))
        done = kept.read() or {}
        found = blocks(prepared.graph, rounded_layers(quantized))
        for place, block in enumerate(tqdm(found, "BRECQ", disable=not self.progress)):
            given, target = rounded.past(block.start), full.past(block.end)
            first = block.layers[0]
            if first not in done:
                problem = _BlockProblem(quantized, prepared, block, given, target)
                done[first] = problem.solve(self, torch.Generator().manual_seed(self.seed * 1000 + place))
                kept.write(done)
            learned, judged = done[first]
            for layer, (weight, bias) in learned.items():
                set_parameter(quantized.get_submodule(layer), "weight", weight.to(given))
                if bias is not None:
                    set_parameter(quantized.get_submodule(layer), "bias", bias.to(given))
            report[first] = Reconstruction(**judged)
        quantized.meta["brecq"] = report


def blocks(model: fx.GraphModule, layers: list[str]) -> list[Block]:
    """The smallest parts between which a single value passes, and that hold layers, in the order they run."""
    nodes = list(model.graph.nodes)
    place = {node: number for number, node in enumerate(nodes)}
    cuts, reach = [], 0
    for number, node in enumerate(nodes):
        if reach <= number:  # nothing before this node is read behind it
            cuts.append(number)
        reach = max([reach, *(place[user] for user in node.users)])
    found = []
    for start, end in zip(cuts, cuts[1:], strict=False):
        inside = tuple(node.target for node in nodes[start + 1 : end + 1] if node.target in layers)
        if not inside:
            continue
        follower = nodes[end + 1] if end + 1 in cuts else None
        if follower is not None and is_relu(model, follower):
            end += 1
        found.append(Block(nodes[start].name, nodes[end].name, inside))
    return found


class _Soft(nn.Module):
    """Weights between the two grid values around each, as their variables say."""

    def __init__(self, weight: torch.Tensor, grid: Grid):
        super().__init__()
        self.step, self.low, self.high = grid.scale, grid.low, grid.high
        self.floor = (weight / grid.scale).floor()
        self.variables = nn.Parameter(start_of(weight / grid.scale - self.floor))
        self.decided = False

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        up = (self.variables >= 0).to(self.floor) if self.decided else self.up()
        return self.step * (self.floor + up).clamp(self.low, self.high)

    def up(self) -> torch.Tensor:
        """The share of a step that is added."""
        return rectified_sigmoid(self.variables)


class _BlockProblem:
    """One block: which way to round its weights, given what comes in and what is to come out."""

    def __init__(
        self, quantized: fx.GraphModule, prepared: Prepared, block: Block, given: torch.Tensor, target: torch.Tensor
    ):
        self.model, self.block, self.given, self.target = quantized, block, given, target
        names = [node.name for node in quantized.graph.nodes]
        nodes = list(quantized.graph.nodes)[names.index(block.start) + 1 : names.index(block.end) + 1]
        self.nodes = nodes
        (self.start,) = (node for node in quantized.graph.nodes if node.name == block.start)
        self.exact = {layer: prepared.graph.get_submodule(layer).weight.detach() for layer in block.layers}
        widths = prepared.widths(quantized.meta[META].bits)
        self.grids = {
            layer: weight_grid(weight, both(widths[layer]).weights, prepared.scheme)
            for layer, weight in self.exact.items()
        }

    def solve(self, how: Brecq, generator: torch.Generator) -> tuple[dict, dict]:
        """Weights and biases by layer, and how the block came out."""
        old = {layer: copy.copy(self.model.get_submodule(layer)._parameters) for layer in self.block.layers}
        nearest = self._error()
        with self._learning() as soft:
            biases = self._biases()
            optimizer = torch.optim.Adam(
                [
                    {"params": [one.variables for one in soft.values()], "lr": how.learning_rate},
                    *([{"params": biases, "lr": how.learning_rate / 10}] if biases else []),
                ]
            )
            with torch.enable_grad():
                for step in range(how.iterations):
                    chosen = torch.randint(len(self.given), (how.batch,), generator=generator)
                    loss = _distance(self._output(self.given[chosen]), self.target[chosen])
                    loss = loss + sum(regularizer(one.up(), step / how.iterations) for one in soft.values())
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            closed = torch.cat([one.up().detach().flatten() for one in soft.values()])
            soft_error = self._error()
            for one in soft.values():
                one.decided = True
            hard = self._error()
            learned = {layer: self._settled(layer) for layer in soft}
        for layer, parameters in old.items():
            self.model.get_submodule(layer)._parameters.update(parameters)
        if hard > nearest:
            learned = {layer: (parameters["weight"].detach(), None) for layer, parameters in old.items()}
        decided = float(((closed < CLOSED) | (closed > 1 - CLOSED)).double().mean())
        return learned, {"nearest": nearest, "soft": soft_error, "hard": min(hard, nearest), "closed": decided}

    @contextmanager
    def _learning(self) -> Iterator[dict[str, _Soft]]:
        """The block with variables for weights, and quantizers that let gradients pass."""
        fixed = {}
        for node in self.nodes:
            if isinstance(part := module_of(self.model, node), FakeQuantize):
                fixed[node.target] = part
                through = LearnedQuantizer(part.grid(), of_weights=False).requires_grad_(False)
                self.model.set_submodule(node.target, through)
        soft = {}
        for layer, weight in self.exact.items():
            soft[layer] = _Soft(weight, self.grids[layer])
            parametrize.register_parametrization(self.model.get_submodule(layer), "weight", soft[layer])
        yield soft
        for layer in soft:
            parametrize.remove_parametrizations(self.model.get_submodule(layer), "weight")
        for name, part in fixed.items():
            self.model.set_submodule(name, part)

    def _biases(self) -> list[nn.Parameter]:
        """Biases that learn, copies: layers may share theirs."""
        layers = [self.model.get_submodule(layer) for layer in self.block.layers]
        for layer in layers:
            if layer.bias is not None:
                layer.bias = nn.Parameter(layer.bias.detach().clone())
        return [layer.bias for layer in layers if layer.bias is not None]

    def _settled(self, layer: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        one = self.model.get_submodule(layer)
        return one.weight.detach().clone(), None if one.bias is None else one.bias.detach().clone()

    def _output(self, given: torch.Tensor) -> torch.Tensor:
        runner = fx.Interpreter(self.model, garbage_collect_values=False)
        runner.env = {self.start: given}
        for node in self.nodes:
            runner.env[node] = runner.run_node(node)
        return runner.env[self.nodes[-1]]

    @torch.no_grad()
    def _error(self) -> float:
        parts = zip(self.given.split(256), self.target.split(256), strict=True)
        total = sum(float((self._output(given) - target).square().sum()) for given, target in parts)
        return total / self.target.numel()


def _distance(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error, of a sum over channels and a mean over images and places."""
    return (output - target).square().sum(1).mean()
