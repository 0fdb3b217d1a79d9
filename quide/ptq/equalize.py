"""Cross-layer equalization and absorption of high biases (Nagel et al. 2019, arXiv 1906.04721, §4.1).

Both leave the function of the network as it is and make its weights and activations easier to round.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from quide.ptq import graph as graphs
from quide.ptq.activations import clipped, kind
from quide.ptq.layers import is_quantizable, module_of
from quide.ptq.passes import Technique, Walk, of_constant, set_parameter, with_graph
from quide.ptq.prepared import Prepared

_THROUGH = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Identity)
_THROUGH_CALLS = (F.relu, torch.relu, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, torch.max_pool2d)
_RELUS = ("relu", "relu6")
_SMALL = 1e-4  # relative change of the scales at which a chain has settled


@dataclass(frozen=True)
class Equalize(Technique):
    """Rescales pairs of layers so that each channel between them uses as much of its range on either side.

    A pair is two convolutions, or two linear layers, between which nothing stands but ReLUs and pooling, and whose
    values nothing else reads: so never across a residual addition. The limit of a ReLU6 is rescaled too, so that the
    function stays exactly. A no-op where weights have a scale a channel.

    Attributes:
        iterations: times that all pairs are gone through, at most; pairs of a chain depend on each other.
    """

    iterations: int = 20

    def before(self, prepared: Prepared, calibration: torch.Tensor) -> Prepared:
        found = pairs(prepared.graph)
        if prepared.scheme.weight_per_channel or not found:
            return prepared
        graph, norms = copy.deepcopy(prepared.graph), dict(prepared.norms)
        limits = [_limits(graph, *pair) for pair in found]
        for _ in range(self.iterations):
            scales = [_equalize(*map(graph.get_submodule, pair)) for pair in found]
            for (first, _), scale, between in zip(found, scales, limits, strict=True):
                if first in norms:
                    norms[first] = tuple(values / scale for values in norms[first])
                for limit in between:
                    limit /= scale.reshape(limit.shape)
            if max(float((scale.log()).abs().max()) for scale in scales) < _SMALL:
                break
        return with_graph(prepared, graph, calibration, norms)


@dataclass(frozen=True)
class AbsorbBias(Technique):
    """Moves the part of a channel that a ReLU hardly ever cuts into the bias of the next layer.

    It is ``mean - deviations * standard deviation`` of the channel before the ReLU, where that is above zero; both are
    read from the calibration images, which needs no batch norm. Exact but where a value lies below that part, and at
    zero padding.
    """

    deviations: float = 3.0

    @torch.no_grad()
    def before(self, prepared: Prepared, calibration: torch.Tensor) -> Prepared:
        found = [pair for pair in pairs(prepared.graph) if _relu_between(prepared.graph, *pair)]
        found = [pair for pair in found if prepared.graph.get_submodule(pair[0]).bias is not None]
        if not found:
            return prepared
        graph, norms = copy.deepcopy(prepared.graph), dict(prepared.norms)
        order = [node.target for node in graph.graph.nodes]
        walk = Walk(prepared.graph, calibration)
        for first, second in sorted(found, key=lambda pair: order.index(pair[0])):
            one, two = graph.get_submodule(first), graph.get_submodule(second)
            given = prepared.graph.get_submodule(first)(walk.to(first))
            given = given.movedim(1 if given.ndim == 4 else -1, 0).flatten(1)
            absorbed = (given.mean(1) - self.deviations * given.std(1)).clamp_min(0)
            for limit in _limits(graph, first, second):
                absorbed = torch.minimum(absorbed, limit.flatten())
                limit -= absorbed.reshape(limit.shape)
            set_parameter(one, "bias", one.bias - absorbed)
            if first in norms:
                norms[first] = norms[first][0] - absorbed, norms[first][1]
            moved = of_constant(two, two.weight, absorbed)
            set_parameter(two, "bias", moved if two.bias is None else two.bias + moved)
        return with_graph(prepared, graph, calibration, norms)


def pairs(model: fx.GraphModule) -> list[tuple[str, str]]:
    """Layers between which channels can be rescaled without changing the network, in the order they run; each of them
    is called once."""
    found = []
    for node in model.graph.nodes:
        layer, name = module_of(model, node), node.target
        reader = next(iter(node.users), None)
        while reader is not None and len(node.users) == 1 and _is_through(model, reader):
            node, reader = reader, next(iter(reader.users), None)
        if not is_quantizable(layer) or reader is None or len(node.users) != 1:
            continue
        after = module_of(model, reader)
        alike = is_quantizable(after) and isinstance(after, nn.Conv2d) == isinstance(layer, nn.Conv2d)
        if alike and len(graphs.calls(model, name)) == len(graphs.calls(model, reader.target)) == 1:
            found.append((name, reader.target))
    return found


def _is_through(model: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a positive factor of a channel passes a node unchanged, and the channels stay where they are."""
    through = node.op == "call_function" and node.target in _THROUGH_CALLS
    return through or kind(model, node) in _RELUS or isinstance(module_of(model, node), _THROUGH)


def _between(model: fx.GraphModule, first: str, second: str) -> list[fx.Node]:
    """The nodes from one layer of a pair to the other."""
    (node,) = graphs.calls(model, first)
    found = []
    while (node := next(iter(node.users))).target != second:
        found.append(node)
    return found


def _relu_between(model: fx.GraphModule, first: str, second: str) -> bool:
    """Whether a ReLU or ReLU6, and nothing else, stands between two layers."""
    between = _between(model, first, second)
    return len(between) == 1 and kind(model, between[0]) in _RELUS


def _limits(model: fx.GraphModule, first: str, second: str) -> list[torch.Tensor]:
    """Upper limits of each ReLU6 between two layers, by channel, to be changed in place."""
    weight = model.get_submodule(first).weight
    limit = weight.new_full((len(weight), *[1] * max(weight.ndim - 2, 0)), 6.0)
    nodes = [node for node in _between(model, first, second) if kind(model, node) == "relu6"]
    return [clipped(model, node, limit.clone()).limit for node in nodes]


@torch.no_grad()
def _equalize(first: nn.Module, second: nn.Module) -> torch.Tensor:
    """Bring the largest weights of each channel to their geometric mean; returns what the first is divided by."""
    groups = getattr(second, "groups", 1)
    columns = second.weight.flatten(2) if second.weight.ndim == 4 else second.weight[..., None]
    columns = columns.unflatten(0, (groups, -1))  # (groups, out, in, taps)
    outgoing, incoming = first.weight.abs().flatten(1).amax(1), columns.abs().amax((1, 3)).flatten()
    scale = (outgoing / incoming).sqrt()
    scale = torch.where(torch.isfinite(scale) & (scale > 0), scale, torch.ones_like(scale))
    set_parameter(first, "weight", first.weight / scale.reshape(-1, *[1] * (first.weight.ndim - 1)))
    if first.bias is not None:
        set_parameter(first, "bias", first.bias / scale)
    scaled = columns * scale.reshape(groups, 1, -1, 1)
    set_parameter(second, "weight", scaled.reshape(second.weight.shape))
    return scale
