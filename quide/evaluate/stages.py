"""A prepared network cut into stages, one a layer or group of layers, each of which is a network of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import fx, nn

from quide.evaluate import spared
from quide.ptq.prepared import Prepared
from quide.ptq.scheme import FULL_PRECISION


class Stage:
    """One group's part of the network, once for each width; ``offsets`` says how far each width moves the place of a
    configuration in the list."""

    def __init__(self, modules: list[nn.Module], offsets: list[int]):
        self.modules, self.offsets = modules, offsets
        if isinstance(modules, list):
            spared.spare(modules)
        self.overwrites: bool | None = None

    def run(self, choice: int, state: tuple) -> tuple:
        """The values that later stages read; the given ones, which other branches need too, are left as they were."""
        if self.overwrites is None:
            self.overwrites = self._overwrites(state)
        values = (value.clone() if self.overwrites and isinstance(value, torch.Tensor) else value for value in state)
        return self.modules[choice](*values)

    def _overwrites(self, state: tuple) -> bool:
        """Whether any width's module changes a value it is given (as an in-place addition does)."""
        for module in self.modules:
            with torch.inference_mode(False), torch.no_grad():  # inference tensors do not count their versions
                values = [value.clone() if isinstance(value, torch.Tensor) else value for value in state]
                tensors = [value for value in values if isinstance(value, torch.Tensor)]
                before = [tensor._version for tensor in tensors]
                module(*values)
                if [tensor._version for tensor in tensors] != before:
                    return True
        return False


class _Alone(Sequence):
    """Every configuration as a whole network, made when it is asked for: where a tensor is read in one shape after it
    was changed in another, no stage could hand it on."""

    def __init__(self, prepared: Prepared, configurations: Sequence[tuple]):
        self.prepared, self.configurations = prepared, configurations

    def __len__(self) -> int:
        return len(self.configurations)

    def __getitem__(self, place: int) -> nn.Module:
        network = self.prepared.at(self.configurations[place])
        return lambda images: (network(images),)


def alone(prepared: Prepared, configurations: Sequence[tuple]) -> Stage:
    """A single stage that shares nothing."""
    stage = Stage(_Alone(prepared, configurations), list(range(len(configurations))))
    stage.overwrites = False  # as quide.ptq.prepare sees to
    return stage


def parts(prepared: Prepared, groups: Sequence[Sequence[str]]) -> Iterator[tuple[int, Prepared]]:
    """The stages in the order they run: each group's place among ``groups``, and its part of the network."""
    called = [node.target for node in prepared.graph.graph.nodes if node.op == "call_module"]
    order = sorted(range(len(groups)), key=lambda place: min(called.index(layer) for layer in groups[place]))
    ranked = [groups[place] for place in order]
    stage_of = _stages(prepared, ranked)
    parameters = [node for node in stage_of if node.op == "get_attr"]  # not computed: each stage reads them itself
    crossing = [_crossing(stage_of, rank, parameters) for rank in range(-1, len(groups))]
    for rank, layers in enumerate(ranked):
        computed = {node for node, stage in stage_of.items() if stage == rank and node not in parameters}
        read = {node for node in parameters if any(user in computed for user in node.users)}
        nodes = [node for node in prepared.graph.graph.nodes if node in computed | read]
        yield order[rank], _part(prepared, nodes, crossing[rank], crossing[rank + 1], layers)


def _stages(prepared: Prepared, groups: Sequence[Sequence[str]]) -> dict[fx.Node, int]:
    """The stage that computes each node: that of the last group it depends on; the input comes before, the output last.

    A node that overwrites a tensor comes after all that read it before.
    """
    model = prepared.graph
    named = {node.name: node for node in model.graph.nodes}
    inputs = [node for node in model.graph.nodes if node.op == "placeholder"]
    returned = next(node for node in model.graph.nodes if node.op == "output")
    if len(inputs) != 1 or not isinstance(returned.args[0], fx.Node):
        raise ValueError("model must take one tensor of images and return one of logits to have all its widths tried")
    group_of = {layer: rank for rank, group in enumerate(groups) for layer in group}
    stage_of = {inputs[0]: -1, returned: len(groups)}
    for node in model.graph.nodes:
        if node in stage_of:
            continue
        own = group_of.get(node.target, 0) if node.op == "call_module" else 0
        earlier = [*node.all_input_nodes, *(named[name] for name in prepared.order.before.get(node.name, []))]
        stage_of[node] = max([own, *(stage_of[source] for source in earlier)])
        if node.op == "call_module" and node.target in group_of and stage_of[node] != own:
            raise ValueError(
                f"groups run in turns: layer {node.target} needs the result of a group that begins after its own, "
                f"{', '.join(groups[stage_of[node]])}; put layers in one group that run between each other"
            )
    if stage_of[returned.args[0]] != len(groups) - 1:
        idle = groups[-1]
        keep = dict.fromkeys(idle, FULL_PRECISION)
        raise ValueError(f"the result of the model does not depend on {', '.join(idle)}; leave it out with keep={keep}")
    return stage_of


def _crossing(stage_of: dict[fx.Node, int], rank: int, parameters: list[fx.Node]) -> list[fx.Node]:
    """Values computed up to stage ``rank`` that a later one reads."""
    return [
        node
        for node, stage in stage_of.items()
        if stage <= rank and node not in parameters and any(stage_of[user] > rank for user in node.users)
    ]


def _part(
    prepared: Prepared, nodes: list[fx.Node], given: list[fx.Node], left: list[fx.Node], layers: Sequence[str]
) -> Prepared:
    """One stage as a prepared network of its own, so that the same code quantizes it: the nodes that make it, the
    earlier values it is given and those it leaves to later ones."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in given}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in left))
    statistics = {
        copy.name: prepared.statistics[node.name] for node, copy in copies.items() if node.name in prepared.statistics
    }
    called = [node.target for node in nodes if node.op == "call_module"]
    named = {node.name: copy.name for node, copy in copies.items()}
    sites = {layer: named[site] for layer, site in prepared.sites.items() if layer in called}
    fixed = {layer: width for layer, width in prepared.fixed.items() if layer in called}
    return replace(
        prepared,
        graph=fx.GraphModule(prepared.graph, graph),
        layers=list(layers),
        scheme=replace(prepared.scheme, sixteen_bit="grid"),  # a float16 cast is for whole networks
        statistics=statistics,
        sites=sites,
        fixed=fixed,
    )
