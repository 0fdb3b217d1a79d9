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

from quide._check import whole
from quide.ptq.activations import is_relu
from quide.ptq.grid import FakeQuantize
from quide.ptq.layers import module_of
from quide.ptq.learned import LearnedQuantizer
from quide.ptq.passes import Walk, rounded_layers
from quide.ptq.prepared import Prepared
from quide.ptq.reconstruction import Learned, Reconstructing, SoftWeight, grid_of, judged, regularizer


@dataclass(frozen=True)
class Block:
    """A part of a network that one value enters and one leaves: a residual block, or a layer, with the ReLU behind it.

    ``start`` and ``end`` name the nodes of these values, ``layers`` what is rounded between them.
    """

    start: str
    end: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Brecq(Reconstructing):
    """Learns whether to round each weight up or down, block by block, so that the block returns what it did.

    A block is given what the rounded blocks before it give. The error is the mean square, which the publication weights
    by squared gradients as an option; activation steps stay at the scheme's. A block that would be no better than by
    rounding to nearest is rounded so. ``meta["brecq"]`` of the network holds a
    :class:`quide.ptq.reconstruction.Reconstruction` a block, by its first layer.

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
        super().__post_init__()
        whole("batch", self.batch, 1)

    def parts(self, quantized: fx.GraphModule, prepared: Prepared) -> dict[str, Block]:
        return {block.layers[0]: block for block in blocks(prepared.graph, rounded_layers(quantized))}

    def problem(
        self, block: Block, quantized: fx.GraphModule, prepared: Prepared, full: Walk, rounded: Walk
    ) -> _BlockProblem:
        return _BlockProblem(quantized, prepared, block, rounded.past(block.start), full.past(block.end))


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


class _BlockProblem:
    """One block: which way to round its weights, given what comes in and what is to come out."""

    def __init__(
        self, quantized: fx.GraphModule, prepared: Prepared, block: Block, given: torch.Tensor, target: torch.Tensor
    ):
        self.model, self.block, self.given, self.target = quantized, block, given, target
        nodes = list(quantized.graph.nodes)
        names = [node.name for node in nodes]
        start = names.index(block.start)
        self.start, *self.nodes = nodes[start : names.index(block.end) + 1]
        self.soft = {
            layer: SoftWeight(prepared.graph.get_submodule(layer).weight.detach(), grid_of(layer, quantized, prepared))
            for layer in block.layers
        }

    def solve(self, how: Brecq, generator: torch.Generator) -> tuple[Learned, dict[str, float]]:
        old = {layer: copy.copy(self.model.get_submodule(layer)._parameters) for layer in self.block.layers}
        nearest, soft = self._error(), self.soft.values()

        def loss(progress: float) -> torch.Tensor:
            chosen = torch.randint(len(self.given), (how.batch,), generator=generator)
            error = self._output(self.given[chosen]) - self.target[chosen]
            return error.square().sum(1).mean() + sum(regularizer(one.up(), progress) for one in soft)

        with self._learning():
            how.descend([one.variables for one in soft], self._biases(), loss)
            up = torch.cat([one.up().detach().flatten() for one in soft])
            soft_error = self._error()
            for one in soft:
                one.decided = True
            hard = self._error()
            learned = {layer: self._settled(layer) for layer in self.soft}
        for layer, parameters in old.items():
            self.model.get_submodule(layer)._parameters.update(parameters)
        if hard > nearest:
            learned = {layer: (parameters["weight"].detach(), None) for layer, parameters in old.items()}
        return learned, judged(nearest, soft_error, hard, up)

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """The block with variables for weights, and quantizers that let gradients pass."""
        fixed = {}
        for node in self.nodes:
            if isinstance(part := module_of(self.model, node), FakeQuantize):
                fixed[node.target] = part
                through = LearnedQuantizer(part.grid(), of_weights=False).requires_grad_(False)
                self.model.set_submodule(node.target, through)
        for layer, soft in self.soft.items():
            parametrize.register_parametrization(self.model.get_submodule(layer), "weight", soft)
        yield
        for layer in self.soft:
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
