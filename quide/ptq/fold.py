"""Batch norms folded into the layers before them (§3.3), where that gives the same function."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fusion

from quide.ptq.layers import module_of


def fold(model: fx.GraphModule, ranks: dict[str, int]) -> list[str]:
    """Fold what can be folded, in place: a batch norm that alone reads a convolution of rank 4 or a linear layer of
    rank 2. At other ranks it normalizes another dimension than that of the layer's outputs.

    Args:
        ranks: of the value of each node, by its name.

    Returns:
        Names of the batch norms that are in the layers now.
    """
    folded = []
    for node in list(model.graph.nodes):
        if not _is_batch_norm(model, node) or len(node.all_input_nodes) != 1:
            continue
        source = node.all_input_nodes[0]
        if source.op != "call_module" or len(source.users) != 1 or is_hooked(model.get_submodule(source.target)):
            continue
        layer, calls = model.get_submodule(source.target), [n for n in model.graph.nodes if n.target == source.target]
        rank = {nn.Conv2d: 4, nn.Linear: 2}.get(plain_kind(layer))
        if rank is not None and ranks.get(source.name) == rank and len(calls) == 1:
            _fold_into(model, source.target, model.get_submodule(node.target))
            folded.append(node.target)
            node.replace_all_uses_with(source)
            model.graph.erase_node(node)
    model.delete_all_unused_submodules()
    model.recompile()
    return folded


def affine(model: fx.GraphModule) -> dict[str, tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    """By the layer that a batch norm reads: the name of the batch norm, and its beta and gamma, ``(channels,)``."""
    found = {}
    for node in model.graph.nodes:
        if _is_batch_norm(model, node) and node.all_input_nodes and node.all_input_nodes[0].op == "call_module":
            learned = _affine(model.get_submodule(node.target))
            found[node.all_input_nodes[0].target] = node.target, tuple(values.detach().clone() for values in learned)
    return found


def _affine(norm: _BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Beta and gamma."""
    beta = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias
    return beta, torch.ones_like(norm.running_mean) if norm.weight is None else norm.weight


def plain_kind(layer: nn.Module) -> type | None:
    """Conv2d or Linear, for one that computes as they do; None for one with a ``forward`` of its own."""
    for kind in (nn.Conv2d, nn.Linear):
        if isinstance(layer, kind):
            alike = all(getattr(type(layer), name, None) is getattr(kind, name, None) for name in _COMPUTING)
            return kind if alike and "forward" not in vars(layer) else None
    return None


def is_hooked(module: nn.Module) -> bool:
    """Whether functions of the user's run before or after the module, so that it must stay what it is."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


_COMPUTING = ("forward", "_conv_forward", "__call__")


def _is_batch_norm(model: fx.GraphModule, node: fx.Node) -> bool:
    norm = module_of(model, node)
    if not isinstance(norm, _BatchNorm) or norm.running_var is None or is_hooked(norm):
        return False
    return type(norm).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward) and "forward" not in vars(norm)


def _fold_into(model: fx.GraphModule, name: str, norm: _BatchNorm) -> None:
    """As ``torch.nn.utils.fusion`` computes it, into parameters of the layer's own: another layer may share them."""
    layer = model.get_submodule(name)
    beta, gamma = _affine(norm)
    fused = fusion.fuse_conv_bn_weights if isinstance(layer, nn.Conv2d) else fusion.fuse_linear_bn_weights
    found = fused(layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, gamma, beta)
    layer.weight, layer.bias = (nn.Parameter(values.detach(), requires_grad=False) for values in found)
