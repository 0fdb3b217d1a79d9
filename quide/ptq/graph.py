"""A network as a graph (``torch.fx``): where its values are rounded, what passes there, where rounding may move to."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F

from quide.ptq.grid import FakeQuantize
from quide.ptq.ranges import Statistics
from quide.ptq.scheme import Scheme

CALIBRATION_BATCH = 128


def trace(model: nn.Module, fold_batch_norm: bool) -> fx.GraphModule:
    model = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        if fold_batch_norm and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
            model = fuse(model, inplace=True)
        return model if isinstance(model, fx.GraphModule) else fx.symbolic_trace(model)
    except Exception as error:  # tracing runs the model's own code, which can fail in any way
        raise ValueError(
            f"model {type(model).__name__} cannot be traced by torch.fx ({error}); "
            "move data-dependent control flow out of forward, or pass the traceable part"
        ) from error


def calls(model: fx.GraphModule, layer: str) -> list[fx.Node]:
    return [node for node in model.graph.nodes if node.op == "call_module" and node.target == layer]


def site_nodes(model: fx.GraphModule, layers: Sequence[str], scheme: Scheme) -> dict[str, fx.Node]:
    """The node whose output is rounded for each layer; a layer that is never called, or called twice, is refused."""
    sites = {}
    for layer in layers:
        found = calls(model, layer)
        if len(found) != 1:
            raise ValueError(f"layer {layer} is called {len(found)} times in the model; each layer must be called once")
        node = found[0]
        if scheme.activation_site == "input":
            sites[layer] = node.all_input_nodes[0]
            continue
        if not scheme.quantize_logits and any(user.op == "output" for user in node.users):
            continue
        follower = next(iter(node.users), None)
        if scheme.activation_site == "relu" and len(node.users) == 1 and _is_relu(model, follower):
            node = follower
        sites[layer] = node
    return sites


@torch.inference_mode()
def observe(
    model: fx.GraphModule, sites: dict[str, fx.Node], calibration: torch.Tensor, scheme: Scheme
) -> dict[str, Statistics]:
    """Ranges of the sites over the calibration images; a second pass fills histograms if the range rule needs them."""
    statistics = {name: Statistics() for name in sites}
    passes = ["extremes"] if scheme.activation_range == "minmax" else ["extremes", "histogram"]
    for step in passes:
        for images in calibration.split(CALIBRATION_BATCH):
            _Watcher(model, statistics, step).run(images)
    return statistics


class _Watcher(fx.Interpreter):
    """Runs a traced network and shows the watched nodes' outputs to their statistics."""

    def __init__(self, model: fx.GraphModule, statistics: dict[str, Statistics], step: str):
        super().__init__(model)
        self.statistics, self.step = statistics, step

    def run_node(self, node: fx.Node):
        value = super().run_node(node)
        if node.name in self.statistics:
            getattr(self.statistics[node.name], f"see_{self.step}")(value)
        return value


def _is_relu(model: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(model.get_submodule(node.target), nn.ReLU)
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in (F.relu, torch.relu, torch.relu_)


def _is_max_pool(model: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        pool = model.get_submodule(node.target)
        return isinstance(pool, nn.MaxPool2d) and not pool.return_indices
    return node.op == "call_function" and node.target in (F.max_pool2d, torch.max_pool2d)


def commute(model: fx.GraphModule) -> None:
    """Merge quantizers with the ReLU beside them, move them past max-pooling, and let them overwrite their input."""
    for node in list(model.graph.nodes):
        if node.op == "call_module" and isinstance(model.get_submodule(node.target), FakeQuantize):
            _merge_relu(model, node)
            _move_past_max_pool(model, node)
            # A tensor read by nobody else may be overwritten, unless it is the caller's own or a view of it.
            source = node.args[0]
            made_here = source.op == "call_module" and isinstance(
                model.get_submodule(source.target), (nn.Conv2d, nn.Linear, nn.MaxPool2d)
            )
            model.get_submodule(node.target).inplace = made_here and len(source.users) == 1


def _merge_relu(model: fx.GraphModule, node: fx.Node) -> None:
    quantizer = model.get_submodule(node.target)
    before, after = node.args[0], next(iter(node.users), None)
    if len(node.users) == 1 and _is_relu(model, after):
        after.replace_all_uses_with(node)
        model.graph.erase_node(after)
        quantizer.relu = True
    # An in-place ReLU also changes what other readers of its input see, so it stays when there are any.
    elif _is_relu(model, before) and len(before.users) == len(before.all_input_nodes[0].users) == 1:
        node.replace_input_with(before, before.all_input_nodes[0])
        model.graph.erase_node(before)
        quantizer.relu = True


def _move_past_max_pool(model: fx.GraphModule, node: fx.Node) -> None:
    pool = next(iter(node.users), None)
    if len(node.users) == 1 and _is_max_pool(model, pool):
        pool.replace_input_with(node, node.args[0])
        pool.replace_all_uses_with(node)
        node.replace_input_with(node.args[0], pool)
        pool.append(node)
