"""Activation functions, and where a layer's output is rounded: hardware computes both, and an addition, in one step."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules import activation

from quide.ptq.fold import is_hooked
from quide.ptq.layers import module_of


class ClippedReLU(nn.Module):
    """ReLU with an upper limit for each channel, ``(channels, ...)``: a ReLU6 between channels that were rescaled."""

    def __init__(self, limit: torch.Tensor):
        super().__init__()
        self.register_buffer("limit", limit)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.minimum(values.relu(), self.limit)


MODULES = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", ClippedReLU: "relu6", nn.LeakyReLU: "leaky_relu", nn.Hardtanh: "hardtanh",
    nn.Hardswish: "hardswish", nn.Hardsigmoid: "hardsigmoid", nn.SiLU: "silu", nn.GELU: "gelu", nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
}  # fmt: skip
_METHODS = {f"{name}{end}": name for name in MODULES.values() for end in ("", "_")}
_CALLS = {getattr(home, call): name for home in (F, torch) for call, name in _METHODS.items() if hasattr(home, call)}
_ADDITIONS = (operator.add, operator.iadd, torch.add)


def kind(model: fx.GraphModule, node: fx.Node) -> str | None:
    """Which of :data:`MODULES` a node is, in whichever form it is written; None where functions of the user's run with
    it, or it is none of them."""
    if node.op == "call_module":
        part = model.get_submodule(node.target)
        return None if is_hooked(part) else MODULES.get(type(part))
    return {"call_method": _METHODS, "call_function": _CALLS}.get(node.op, {}).get(node.target)


def is_relu(model: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a ReLU, which a quantizer can be merged with."""
    return kind(model, node) == "relu"


def clipped(model: fx.GraphModule, node: fx.Node, limit: torch.Tensor) -> ClippedReLU:
    """Let a node of a ReLU6 have limits of its own; its name stays, and so does what is rounded there."""
    if not isinstance(part := module_of(model, node), ClippedReLU):
        part = ClippedReLU(limit)
        model.add_submodule(name := f"{node.name}_clipped", part)
        node.op, node.target, node.args, node.kwargs = "call_module", name, tuple(node.all_input_nodes), {}
        model.recompile()
    return part


def unknown(model: fx.GraphModule, layers: Sequence[str]) -> dict[str, str]:
    """Layers whose output an activation function reads that is none of :data:`MODULES`, and its name."""
    found = {}
    for node in model.graph.nodes:
        source = next(iter(node.all_input_nodes), None)
        if source is not None and source.op == "call_module" and source.target in layers and not kind(model, node):
            if name := _activation_name(model, node):
                found[source.target] = name
    return found


def _activation_name(model: fx.GraphModule, node: fx.Node) -> str:
    if (part := module_of(model, node)) is not None:
        known = isinstance(part, tuple(getattr(activation, name) for name in activation.__all__))
        return type(part).__name__ if known and not isinstance(part, nn.MultiheadAttention) else ""
    name = getattr(node.target, "__name__", str(node.target)).rstrip("_")
    kinds = {kind.lower() for kind in activation.__all__}
    return name if name.replace("_", "") in kinds else ""


def behind(model: fx.GraphModule, node: fx.Node, additions: bool = False) -> fx.Node:
    """Where the output of a layer's node is rounded: behind its activation, and with ``additions`` behind a residual
    addition and the activation that follows; the node itself where something else reads it, or several do."""
    while len(node.users) == 1:
        (reader,) = node.users
        if kind(model, reader):
            return reader
        if not (additions and is_addition(reader)):
            break
        node = reader
    return node


def is_addition(node: fx.Node) -> bool:
    """Of two values of the network."""
    added = node.op == "call_function" and node.target in _ADDITIONS
    added |= node.op == "call_method" and node.target in ("add", "add_")
    return added and len(node.all_input_nodes) == 2
