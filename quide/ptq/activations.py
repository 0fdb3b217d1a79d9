"""Activation functions, and where a layer's output is rounded: hardware computes both, and an addition, in one step."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules import activation

from quide.ptq.fold import is_hooked

MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh,
)  # fmt: skip
_NAMES = ("relu", "relu6", "leaky_relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "sigmoid", "tanh")
_CALLS = {
    getattr(home, f"{name}{end}")
    for home in (F, torch) for name in _NAMES for end in ("", "_") if hasattr(home, f"{name}{end}")
}  # fmt: skip
_METHODS = {f"{name}{end}" for name in _NAMES for end in ("", "_")}
_ADDITIONS = (operator.add, operator.iadd, torch.add)


def is_plain(part: nn.Module, kind: type) -> bool:
    """Of that very class, and without functions of the user's that run with it."""
    return type(part) is kind and not is_hooked(part)


def is_relu(model: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a ReLU, which a quantizer can be merged with."""
    if node.op == "call_module":
        return is_plain(model.get_submodule(node.target), nn.ReLU)
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in (F.relu, torch.relu, torch.relu_)


def is_activation(model: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is one of :data:`MODULES`, in whichever form it is written."""
    if node.op == "call_module":
        return any(is_plain(model.get_submodule(node.target), kind) for kind in MODULES)
    return (node.op == "call_method" and node.target in _METHODS) or (
        node.op == "call_function" and node.target in _CALLS
    )


def unknown(model: fx.GraphModule, layers: Sequence[str]) -> dict[str, str]:
    """Layers whose output an activation function reads that is none of :data:`MODULES`, and its name."""
    found = {}
    for node in model.graph.nodes:
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if source is None or source.op != "call_module" or source.target not in layers or is_activation(model, node):
            continue
        name = _activation_name(model, node)
        if name:
            found[source.target] = name
    return found


def _activation_name(model: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        part = model.get_submodule(node.target)
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
        if is_activation(model, reader):
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
