"""Techniques as passes over a calibrated network: what they have in common, and how they are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx, nn

from quide import ptq
from quide.ptq import graph as graphs
from quide.ptq import moments
from quide.ptq.activations import is_relu
from quide.ptq.grid import HalfPrecision
from quide.ptq.prepared import META, Prepared, observed
from quide.ptq.width import Bits

NAMES = {
    "equalize": "Equalize",
    "absorb_bias": "AbsorbBias",
    "correct_bias": "CorrectBias",
    "adaround": "AdaRound",
    "brecq": "Brecq",
}


class Technique:
    """One pass. It changes the full-precision network before it is rounded, or the rounded one, or both."""

    def before(self, prepared: Prepared, calibration: torch.Tensor) -> Prepared:
        """The network to round, which computes the same as the one given; that one is left as it was."""
        return prepared

    def after(self, quantized: fx.GraphModule, prepared: Prepared, calibration: torch.Tensor) -> None:
        """Change what was rounded, in place; quantizers stand where the scheme puts them, beside their ReLUs."""


def resolve(techniques: Sequence[str | Technique]) -> list[Technique]:
    """Techniques by name or as they are.

    Raises:
        ValueError: a name is not known.
    """
    if isinstance(techniques, (str, Technique)):
        techniques = (techniques,)
    found = []
    for one in techniques:
        if not isinstance(one, Technique):
            if one not in tuple(NAMES):
                raise ValueError(f"techniques must be among {', '.join(NAMES)} or instances of them, got {one!r}")
            one = getattr(ptq, NAMES[one])()
        found.append(one)
    return found


def quantized(
    prepared: Prepared, bits: Bits | Sequence[Bits], calibration: torch.Tensor, techniques: Sequence[str | Technique]
) -> nn.Module:
    """The network at these widths with each technique applied, in the order given."""
    passes = resolve(techniques)
    for one in passes:
        prepared = one.before(prepared, calibration)
    model = prepared.at(bits, commute=not passes)
    if not passes or isinstance(model, HalfPrecision):
        return model
    for one in passes:
        one.after(model, prepared, calibration)
    graphs.commute(model)
    model.meta[META] = replace(model.meta[META], commute=True)
    model.graph.lint()
    model.recompile()
    return model


def with_graph(prepared: Prepared, graph: fx.GraphModule, calibration: torch.Tensor, norms: moments.Norms) -> Prepared:
    """The same with other weights and what batch norms left, whose activation ranges are found anew."""
    last = graphs.last_layers(graph, list(prepared.sites))
    statistics = observed(graph, prepared.sites, calibration, prepared.scheme, last, norms)
    return replace(prepared, graph=graph, statistics=statistics, norms=norms)


class Walk:
    """Runs a traced network on all images at once, layer by layer, so that a layer can be changed before it runs.

    Values that nothing reads any more are let go.
    """

    def __init__(self, model: fx.GraphModule, images: torch.Tensor):
        self._runner = fx.Interpreter(model, garbage_collect_values=False)
        self._runner.env, self._runner.args_iter = {}, iter([images])
        self._nodes = list(model.graph.nodes)
        self._named = {node.name: node for node in self._nodes}
        self._unread = {node: len(node.users) for node in self._nodes}

    @torch.no_grad()
    def to(self, layer: str) -> torch.Tensor:
        """What a layer that has not run yet is given, which is left to it alone."""
        while self._nodes and self._nodes[0].target != layer:
            self._step()
        if not self._nodes:
            raise ValueError(f"layer {layer} has run already, or is not in the network")
        return self._runner.env[self._nodes[0].all_input_nodes[0]]

    @torch.no_grad()
    def past(self, node: str) -> torch.Tensor:
        """The value of a node that has just run, or runs now."""
        while self._nodes and self._named[node] not in self._runner.env:
            self._step()
        return self._runner.env[self._named[node]]

    def _step(self) -> None:
        node = self._nodes.pop(0)
        self._runner.env[node] = self._runner.run_node(node)
        for source in node.all_input_nodes:
            self._unread[source] -= 1
            if not self._unread[source]:
                del self._runner.env[source]


def rounded_layers(model: fx.GraphModule) -> list[str]:
    """Layers whose weights were rounded, in the order they run."""
    scales = model.meta[META].weight_scales
    return [node.target for node in model.graph.nodes if node.op == "call_module" and node.target in scales]


def rectified(prepared: Prepared, layer: str) -> bool:
    """Whether a ReLU alone reads what the layer gives."""
    (node,) = graphs.calls(prepared.graph, layer)
    return len(node.users) == 1 and is_relu(prepared.graph, next(iter(node.users)))


def set_parameter(layer: nn.Module, name: str, value: torch.Tensor) -> None:
    """Give a layer a parameter of its own: another one may share the old."""
    setattr(layer, name, nn.Parameter(value.detach(), requires_grad=False))


def of_constant(layer: nn.Module, weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """What a layer with this weight, and no bias, returns where each channel ``(in,)`` has one value: ``(out,)``."""
    spread = weight.flatten(2).sum(2) if weight.ndim == 4 else weight
    groups = getattr(layer, "groups", 1)
    return torch.einsum("goi,gi->go", spread.unflatten(0, (groups, -1)), value.unflatten(0, (groups, -1))).flatten()


def channel_mean(layer: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Mean of a layer's output for each channel, ``(out,)``."""
    return values.mean((0, 2, 3)) if isinstance(layer, nn.Conv2d) else values.flatten(0, -2).mean(0)
