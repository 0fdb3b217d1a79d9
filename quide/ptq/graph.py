"""A network as a graph (``torch.fx``): where its values are rounded, what passes there, where rounding may move to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from quide._check import evaluating
from quide._files import brief
from quide.ptq import check, trial
from quide.ptq.activations import behind, is_relu
from quide.ptq.fold import is_hooked
from quide.ptq.grid import FakeQuantize
from quide.ptq.layers import is_quantizable, module_of, quantizable_layers
from quide.ptq.ranges import Statistics
from quide.ptq.scheme import Scheme

CALIBRATION_BATCH = 128


class _Tracer(fx.Tracer):
    """Leaves layers and batch norms whole, subclasses of them too."""

    def is_leaf_module(self, part: nn.Module, name: str) -> bool:
        """Whether a module is one node, rather than what its forward is made of."""
        return is_quantizable(part) or isinstance(part, _BatchNorm) or super().is_leaf_module(part, name)


def trace(model: nn.Module) -> fx.GraphModule:
    """A copy of a network in evaluation mode as a graph that takes the images alone."""
    copied = evaluating(model).requires_grad_(False)
    if check.takes_more_than_images(copied):
        _take_images_alone(copied)
    try:
        graph = _Tracer().trace(copied)
        for node in graph.nodes:
            if node.op == "call_module" and list(node.kwargs) == ["input"]:
                node.args, node.kwargs = tuple(node.kwargs.values()), {}
        return fx.GraphModule(copied, graph, type(model).__name__)
    except Exception as error:  # tracing runs the model's own code, which can fail in any way
        doubt = check.names_in_doubt(model, quantizable_layers(model))
        raise ValueError(
            f"model {type(model).__name__} cannot be traced by torch.fx ({brief(error)}){doubt}; "
            "move data-dependent control flow out of forward, or pass the traceable part"
        ) from error


def _take_images_alone(model: nn.Module) -> None:
    """Leave the optional inputs at their defaults: to torch.fx, an input is one that is given."""
    kind = type(model)
    model.__class__ = type(kind.__name__, (kind,), {"forward": lambda self, images: kind.forward(self, images)})


def own_images(model: fx.GraphModule, tried: trial.Trial) -> bool:
    """Let a network that overwrites its input overwrite a copy; whether it did."""
    (images,) = (node for node in model.graph.nodes if node.op == "placeholder")
    waiting, met = [source for sources in tried.overwritten.values() for source in sources], set()
    while waiting:  # what is a view of other images may be a copy of those that were tried
        if (node := waiting.pop()) not in met and not _makes_a_tensor(model, node):
            met.add(node)
            waiting += node.all_input_nodes
    if images not in met:
        return False
    with model.graph.inserting_after(images):
        copied = model.graph.call_method("clone", (images,))
    images.replace_all_uses_with(copied, delete_user_cb=lambda user: user is not copied)
    model.recompile()
    return True


def _makes_a_tensor(model: fx.GraphModule, node: fx.Node) -> bool:
    part = module_of(model, node)
    return (is_quantizable(part) or isinstance(part, _BatchNorm)) and not is_hooked(part)


def thread_overwrites(model: fx.GraphModule, tried: trial.Trial) -> Order:
    """Let what reads a tensor after a change in place read the result of the change, and say what else the order of
    the program means."""
    order = {node: place for place, node in enumerate(model.graph.nodes)}
    before: dict[str, list[str]] = {}
    entangled = False
    for name, sources in tried.overwritten.items():
        writer = next(node for node in order if node.name == name)
        places = {tried.places[source.name] for source in sources}
        earlier = [
            node for node in order
            if order[node] < order[writer] and tried.places.get(node.name, (None,))[0] in {place[0] for place in places}
        ]  # fmt: skip
        before[name] = [user.name for node in earlier for user in node.users if order[user] < order[writer]]
        for node in earlier:
            later = [user for user in node.users if order[user] > order[writer]]
            if tried.places[node.name] == tried.places.get(name):
                for user in later:
                    user.replace_input_with(node, writer)
            else:
                entangled |= bool(later)
    model.recompile()
    return Order(before, entangled)


@dataclass(frozen=True)
class Order:
    """What the order of a program means besides the data that its nodes hand on.

    ``before`` says which nodes have to run before one that overwrites what they read; ``entangled``, that a tensor is
    read in one shape after it was changed in another.
    """

    before: dict[str, list[str]]
    entangled: bool


def channels_last(model: fx.GraphModule) -> None:
    """Bring a network to the layout in which a CPU convolves fastest."""
    weights = [part.weight for part in model.modules() if isinstance(part, nn.Conv2d)]
    if all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights):
        return
    model.to(memory_format=torch.channels_last)
    for node in model.graph.nodes:
        if node.op == "call_method" and node.target == "view":
            node.target = "reshape"  # a view of the other layout need not exist
    model.recompile()


def last_layers(model: fx.GraphModule, layers: Sequence[str]) -> frozenset[str]:
    """The layers that no other one comes after, whose outputs are the logits."""
    followed: set[fx.Node] = set()
    last = set()
    for node in reversed(model.graph.nodes):
        layer = node.op == "call_module" and node.target in layers
        if layer and node not in followed:
            last.add(node.target)
        if layer or node in followed:
            followed.update(node.all_input_nodes)
    return frozenset(last)


def calls(model: fx.GraphModule, layer: str) -> list[fx.Node]:
    return [node for node in model.graph.nodes if node.op == "call_module" and node.target == layer]


def site_nodes(
    model: fx.GraphModule, layers: Sequence[str], scheme: Scheme, logits: frozenset[str]
) -> dict[str, fx.Node]:
    """The node whose output is rounded for each layer; ``logits`` names those whose output is not."""
    sites = {}
    for layer in layers:
        (node,) = calls(model, layer)
        if scheme.activation_site == "input":
            sites[layer] = node.all_input_nodes[0]
            continue
        if layer in logits:
            continue
        if scheme.activation_site != "output":
            node = behind(model, node, additions=scheme.activation_site == "fused")
        sites[layer] = node
    return _once(model, sites) if scheme.activation_site == "fused" else sites


def _once(model: fx.GraphModule, sites: dict[str, fx.Node]) -> dict[str, fx.Node]:
    """Layers that are added share a site, which belongs to the one that runs last."""
    order = {node.target: place for place, node in enumerate(model.graph.nodes) if node.op == "call_module"}
    owners = {node: layer for layer, node in sorted(sites.items(), key=lambda item: order[item[0]])}
    return {layer: node for layer, node in sites.items() if owners[node] == layer}


@torch.inference_mode()
def observe(
    model: fx.GraphModule, sites: Iterable[str], calibration: torch.Tensor, scheme: Scheme, logits: Collection[str],
) -> dict[str, Statistics]:  # fmt: skip
    """Ranges of the sites, by node, over the calibration images; a second pass fills histograms if the rule needs them.

    All values are kept of the sites in ``logits``.
    """
    statistics = {name: Statistics() for name in sites}
    for name in logits:
        statistics[name].logits = []
    passes = ["extremes"] if scheme.activation_range == "minmax" else ["extremes", "histogram"]
    for step in passes:
        seeing = {name: [getattr(one, f"see_{step}")] for name, one in statistics.items()}
        for images in calibration.split(CALIBRATION_BATCH):
            trial.Watcher(model, seeing).run(images)
    return statistics


def _is_max_pool(model: fx.GraphModule, node: fx.Node) -> bool:
    if (pool := module_of(model, node)) is not None:
        return type(pool) is nn.MaxPool2d and not is_hooked(pool) and not pool.return_indices
    return node.op == "call_function" and node.target in (F.max_pool2d, torch.max_pool2d) and len(node.args) > 0


def commute(model: fx.GraphModule) -> None:
    """Merge quantizers with the ReLU beside them, move them past max-pooling, and let them overwrite their input."""
    for node in list(model.graph.nodes):
        if isinstance(quantizer := module_of(model, node), FakeQuantize):
            _merge_relu(model, node)
            _move_past_max_pool(model, node)
            # A tensor read by nobody else may be overwritten, unless it is the caller's own or a view of it.
            source = node.args[0]
            maker = module_of(model, source)
            made_here = isinstance(maker, (nn.Conv2d, nn.Linear, nn.MaxPool2d)) and not is_hooked(maker)
            quantizer.inplace = made_here and len(source.users) == 1


def _merge_relu(model: fx.GraphModule, node: fx.Node) -> None:
    quantizer = model.get_submodule(node.target)
    before, after = node.args[0], next(iter(node.users), None)
    if len(node.users) == 1 and is_relu(model, after):
        after.replace_all_uses_with(node)
        model.graph.erase_node(after)
        quantizer.relu = True
    # An in-place ReLU also changes what other readers of its input see, so it stays when there are any.
    elif is_relu(model, before) and len(before.users) == len(before.all_input_nodes[0].users) == 1:
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
