"""Accuracy of *every* mixed-precision configuration of a network, for far less than one evaluation each.

Configurations whose first layers have equal widths share all that those layers compute. The network is cut into one
stage a layer (or group of layers); the widths form a tree, and each of its nodes is computed once from the activations
its parent left. With four layers and four widths, 256 configurations take 4 + 16 + 64 + 256 runs of a stage instead of
4 * 256.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx, nn
from tqdm import tqdm

from quide.data.datasets import BATCH, check_images
from quide.ptq.prepared import Prepared, layer_widths, prepare
from quide.ptq.scheme import HALF_PRECISION, PAPER, Scheme

SMALLEST_PART = 32  # images; far fewer at a time leave the cores idle
STACK_BYTES = 2**23  # activations of several prefixes computed at once, as many as stay in a processor's cache
LIMIT = 4**6  # largest tree that is built unasked


def exhaustive(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    calibration: torch.Tensor,
    choices: Sequence[int] = (16, 8, 4, 2),
    scheme: Scheme = PAPER,
    *,
    groups: Sequence[Sequence[str]] | None = None,
    limit: int = LIMIT,
    progress: bool = False,
) -> dict[tuple[int, ...], float]:
    """Accuracy of every configuration, exactly what ``quantize(model, bits, calibration, scheme)`` scores for each.

    Args:
        model: as :func:`quide.quantize` takes it.
        images, labels: normalized test images ``(n, ...)`` and their classes ``(n,)``. Memory does not grow with n.
        calibration: normalized images for the activation ranges, from training data.
        choices: widths that a layer can have.
        scheme: the PTQ recipe.
        groups: names of the layers that share a width, group after group in the order the network runs them; every
            layer in one of them. By default each of :func:`quide.ptq.quantizable_layers` is a group of its own.
        limit: refuse more configurations than that.
        progress: show a bar over the images, with the time left.

    Returns:
        Accuracy (fraction) by configuration, a tuple with one width a layer (with ``groups``: one a group); the last
        width changes fastest, in the order of ``choices``.

    Raises:
        ValueError: as :func:`quide.quantize`; images and labels of different number, or none; groups that do not hold
            each layer once or that run in turns; more than ``limit`` configurations.
    """
    check_images(images, labels)
    tree = PrefixTree(prepare(model, calibration, scheme), choices, groups, limit)
    hits = torch.zeros(len(tree.configurations), dtype=torch.long, device=images.device)
    batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    for batch, truth in tqdm(batches, total=-(-len(images) // BATCH), unit="batch", disable=not progress):
        hits += tree.correct(batch, truth).sum(1)
    return {widths: count / len(images) for widths, count in zip(tree.configurations, hits.tolist(), strict=True)}


class PrefixTree:
    """All configurations of a prepared network, ready to classify batches of images.

    ``configurations`` lists them: one width a group, the last changing fastest.

    Args:
        prepared: network and activation statistics (:func:`quide.ptq.prepare`).
        choices, groups, limit: as in :func:`exhaustive`.
    """

    def __init__(
        self,
        prepared: Prepared,
        choices: Sequence[int] = (16, 8, 4, 2),
        groups: Sequence[Sequence[str]] | None = None,
        limit: int = LIMIT,
    ):
        groups = _checked_groups(groups, prepared.layers)
        choices = _checked_choices(choices)
        size = len(choices) ** len(groups)
        if size > limit:
            raise ValueError(
                f"{len(choices)} choices for each of {len(groups)} layers or groups make {size:,} configurations, more "
                f"than limit={limit:,}; pass groups of layers that share a width, or search with quide.search.genetic"
            )
        self.configurations: list[tuple[int, ...]] = list(itertools.product(choices, repeat=len(groups)))
        self._stages = [
            _Stage(
                [part.at(width) for width in choices],
                # A configuration's place in the list, in the mixed-radix digits that `product` counts in.
                [digit * len(choices) ** (len(groups) - 1 - place) for digit in range(len(choices))],
            )
            for place, part in _parts(prepared, groups)
        ]
        self._half = None
        if prepared.scheme.sixteen_bit == "float16" and HALF_PRECISION in choices:
            self._half = prepared.at(HALF_PRECISION)  # a cast of the whole network, which no tree can share
        self._stackable: bool | None = None  # not known before there are images to try it with

    @torch.inference_mode()
    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Predicted classes of normalized images ``(n, ...)``: int64 ``(configurations, n)``.

        Equal, bit for bit, to those of :func:`quide.evaluate.predict` on the same batch.
        """
        if self._stackable is None and len(images) >= SMALLEST_PART:
            self._stackable = self._try_stacking(images)
        stacked = bool(self._stackable) and len(images) >= SMALLEST_PART
        # Stacks of prefixes start from few images and end with many rows.
        parts = images.tensor_split(len(images) // SMALLEST_PART) if stacked else [images]
        limit = STACK_BYTES if stacked else 0
        predicted = torch.cat([self._predict(part, limit) for part in parts], dim=1)
        if self._half is not None:
            predicted[self.configurations.index((HALF_PRECISION,) * len(self._stages))] = self._half(images).argmax(1)
        return predicted

    def correct(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Which of the images ``(n, ...)`` each configuration classifies as labelled: bool ``(configurations, n)``."""
        return self.predict(images) == labels

    def _predict(self, images: torch.Tensor, limit: int) -> torch.Tensor:
        predicted = torch.empty(len(self.configurations), len(images), dtype=torch.long, device=images.device)
        for places, logits in self._descend(0, torch.zeros(1, dtype=torch.long), (images,), limit):
            predicted[places.to(images.device)] = logits.argmax(1).view(len(places), len(images))
        return predicted

    def _descend(
        self, depth: int, places: torch.Tensor, state: tuple, limit: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Logits of every configuration below the prefixes at ``places``, whose activations lie one behind the other in
        ``state``; prefixes are kept together for the next stage while they take no more than ``limit`` bytes."""
        if depth == len(self._stages):
            yield places, state[0]
            return
        stage = self._stages[depth]
        branches = ((places + offset, stage.run(choice, state)) for choice, offset in enumerate(stage.offsets))
        if _bytes(state) <= limit and depth + 1 < len(self._stages):
            all_places, states = zip(*branches, strict=True)
            joined = tuple(torch.cat(values) for values in zip(*states, strict=True))
            if _bytes(joined) <= limit:
                yield from self._descend(depth + 1, torch.cat(all_places), joined, limit)
                return
            branches = zip(all_places, states, strict=True)
        for branch_places, branch_state in branches:
            yield from self._descend(depth + 1, branch_places, branch_state, limit)

    def _try_stacking(self, images: torch.Tensor) -> bool:
        """Whether this network on this device computes an image's activations alike, bit for bit, however many others
        are computed with it. Kernels are chosen by shape, so a batch of real images tells."""
        state, small = (images,), (images[:SMALLEST_PART],)
        for stage in self._stages:
            if not all(_is_batched(value, len(images)) for value in state):
                return False
            several = tuple(torch.cat([value] * (1 + STACK_BYTES // max(_bytes(state), 1))) for value in state)
            state, small, several = (stage.run(0, values) for values in (state, small, several))
            alike = all(
                _is_batched(value, len(images))
                and _is_batched(few, SMALLEST_PART)
                and torch.equal(value[:SMALLEST_PART], few)
                and torch.equal(value, many[-len(images) :])
                for value, few, many in zip(state, small, several, strict=True)
            )
            if not alike:
                return False
        return True


class _Stage:
    """One group's part of the network, once for each width; ``offsets`` says how far each width moves the place of a
    configuration in the list."""

    def __init__(self, modules: list[nn.Module], offsets: list[int]):
        self.modules, self.offsets = modules, offsets
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


@dataclass(frozen=True)
class _Cut:
    """Nodes of a traced network that make one stage, and the earlier values it is given and later ones it leaves."""

    nodes: list[fx.Node]
    given: list[fx.Node]
    left: list[fx.Node]


def _parts(prepared: Prepared, groups: Sequence[Sequence[str]]) -> Iterator[tuple[int, Prepared]]:
    """The stages in the order they run: each group's place among ``groups``, and its part of the network."""
    called = [node.target for node in prepared.graph.graph.nodes if node.op == "call_module"]
    order = sorted(range(len(groups)), key=lambda place: min(called.index(layer) for layer in groups[place]))
    ranked = [groups[place] for place in order]
    for rank, cut in enumerate(_cuts(prepared.graph, ranked)):
        yield order[rank], _part(prepared, cut, ranked[rank], last=rank == len(ranked) - 1)


def _cuts(model: fx.GraphModule, groups: Sequence[Sequence[str]]) -> list[_Cut]:
    """Each node belongs to the last group it depends on; what crosses from one group to later ones is handed on."""
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
        stage_of[node] = max([own, *(stage_of[source] for source in node.all_input_nodes)])
        if node.op == "call_module" and node.target in group_of and stage_of[node] != own:
            raise ValueError(
                f"groups run in turns: layer {node.target} needs the result of a group that begins after its own, "
                f"{', '.join(groups[stage_of[node]])}; put layers in one group that run between each other"
            )
    if stage_of[returned.args[0]] != len(groups) - 1:
        raise ValueError(f"the result of the model does not depend on {', '.join(groups[-1])}; leave such layers out")
    parameters = [node for node in stage_of if node.op == "get_attr"]  # not computed: each stage reads them itself
    cuts = []
    for rank in range(len(groups)):
        nodes = [node for node in stage_of if stage_of[node] == rank and node not in parameters]
        nodes = [node for node in parameters if any(user in nodes for user in node.users)] + nodes
        nodes = [node for node in model.graph.nodes if node in nodes]
        given = _crossing(stage_of, rank - 1, parameters)
        cuts.append(_Cut(nodes, given, _crossing(stage_of, rank, parameters)))
    return cuts


def _crossing(stage_of: dict[fx.Node, int], rank: int, parameters: list[fx.Node]) -> list[fx.Node]:
    """Values computed up to stage ``rank`` that a later one reads."""
    return [
        node
        for node, stage in stage_of.items()
        if stage <= rank and node not in parameters and any(stage_of[user] > rank for user in node.users)
    ]


def _part(prepared: Prepared, cut: _Cut, layers: Sequence[str], last: bool) -> Prepared:
    """One stage as a prepared network of its own, so that the same code quantizes it."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in cut.given}
    for node in cut.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in cut.left))
    statistics = {
        copy.name: prepared.statistics[node.name] for node, copy in copies.items() if node.name in prepared.statistics
    }
    # Only the last stage's results are logits, and a float16 cast is for whole networks.
    scheme = replace(prepared.scheme, sixteen_bit="grid", quantize_logits=not last or prepared.scheme.quantize_logits)
    return Prepared(fx.GraphModule(prepared.graph, graph), list(layers), scheme, statistics)


def _checked_groups(groups: Sequence[Sequence[str]] | None, layers: Sequence[str]) -> list[list[str]]:
    if groups is None:
        return [[layer] for layer in layers]
    groups = [[group] if isinstance(group, str) else list(group) for group in groups]
    named = sorted(layer for group in groups for layer in group)
    if named != sorted(layers) or not all(groups):
        raise ValueError(f"groups must name each layer of the model once: {', '.join(layers)}; got {groups}")
    return groups


def _checked_choices(choices: Sequence[int]) -> tuple[int, ...]:
    choices = tuple(choices)
    if not choices or len(set(choices)) != len(choices):
        raise ValueError(f"choices must be one or more different widths, got {choices}")
    return layer_widths(choices, [str(choice) for choice in choices])


def _is_batched(value: object, rows: int) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == rows


def _bytes(state: tuple) -> int:
    return sum(value.numel() * value.element_size() for value in state if isinstance(value, torch.Tensor))
