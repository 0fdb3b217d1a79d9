"""Accuracy of *every* mixed-precision configuration of a network, for far less than one evaluation each.

Configurations whose first layers have equal widths share all that those layers compute. The network is cut into one
stage a layer (or group of layers); the widths form a tree, and each of its nodes is computed once from the activations
its parent left. With four layers and four widths, 256 configurations take 4 + 16 + 64 + 256 runs of a stage instead of
4 * 256.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

from quide import _denormals
from quide.evaluate import inputs
from quide.evaluate.inputs import Images, Score, batches, calibration_images, check_given, check_outputs, scored
from quide.evaluate.stages import Stage, alone, parts
from quide.ptq.prepared import Prepared, prepare
from quide.ptq.scheme import HALF_PRECISION, PAPER, Scheme
from quide.ptq.width import Bits, checked

SMALLEST_PART = 32  # images; far fewer at a time leave the cores idle
STACK_BYTES = 2**23  # activations of several prefixes computed at once, as many as stay in a processor's cache
LIMIT = 4**6  # largest tree that is built unasked


@_denormals.flushed()
def exhaustive(
    model: nn.Module,
    images: Images,
    labels: torch.Tensor | None,
    calibration: torch.Tensor | Iterable,
    choices: Sequence[Bits] = (16, 8, 4, 2),
    scheme: Scheme = PAPER,
    *,
    groups: Sequence[Sequence[str]] | None = None,
    keep: Mapping[str, Bits] | None = None,
    score: Score | None = None,
    limit: int = LIMIT,
    progress: bool = False,
) -> dict[tuple[Bits, ...], float]:
    """Accuracy of every configuration, exactly what ``quantize(model, bits, calibration, scheme)`` scores for each.

    Layout and denormal numbers are as in :func:`quide.sweep`.

    Args:
        model, keep: as :func:`quide.quantize` takes them; layers that ``keep`` names are in no group.
        images, labels, calibration, score: as :func:`quide.sweep` takes them. Memory grows with n only with ``score``,
            for which all outputs are kept.
        choices: widths that a layer can have.
        scheme: the PTQ recipe.
        groups: names of the layers that share a width, group after group in the order the network runs them; every
            layer in one of them. By default each of :func:`quide.ptq.quantizable_layers` is a group of its own.
        limit: refuse more configurations than that.
        progress: show a bar over the images, with the time left.

    Returns:
        Accuracy, or score (fraction), by configuration, a tuple with one width a layer (with ``groups``: one a group);
        the last width changes fastest, in the order of ``choices``.

    Raises:
        ValueError: as :func:`quide.quantize`; images and labels of different number, or none; groups that do not hold
            each layer once or that run in turns; more than ``limit`` configurations.
    """
    check_given(images, labels, score is not None)
    prepared = prepare(model, calibration_images(calibration, images), scheme, keep=keep, fastest_layout=True)
    tree = PrefixTree(prepared, choices, groups, limit)
    hits, outputs, truths = torch.zeros(len(tree.configurations), dtype=torch.long), [], []
    for batch, truth in batches(images, labels, prepared, progress, scored=score is not None):
        if score is not None:
            outputs.append(tree.outputs(batch).cpu())
        else:
            if not truths:
                with torch.inference_mode():
                    check_outputs(prepared.graph(batch), truth)
            hits += tree.correct(batch, truth).sum(1).cpu()
        truths.append(truth.cpu())
    if not truths:
        raise ValueError("images hold no batch; give one or more batches of (images, labels)")
    truth = torch.cat(truths)
    if score is None:
        found = [hit / len(truth) for hit in hits.tolist()]
    else:
        found = [scored(score, each, truth) for each in torch.cat(outputs, dim=1)]
    return dict(zip(tree.configurations, found, strict=True))


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
        choices: Sequence[Bits] = (16, 8, 4, 2),
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
        self.configurations: list[tuple[Bits, ...]] = list(itertools.product(choices, repeat=len(groups)))
        if prepared.order.entangled:
            by_layer = [[layer in group for group in groups].index(True) for layer in prepared.layers]
            self._stages = [alone(prepared, [tuple(map(bits.__getitem__, by_layer)) for bits in self.configurations])]
        else:
            # A configuration's place in the list, in the mixed-radix digits that `product` counts in.
            digits = range(len(choices))
            self._stages = [
                Stage(
                    [part.at(width) for width in choices],
                    [len(choices) ** (len(groups) - 1 - place) * d for d in digits],
                )
                for place, part in parts(prepared, groups)
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
        return self._each(images, lambda logits: inputs.numbers(logits).argmax(1))

    @torch.inference_mode()
    def outputs(self, images: torch.Tensor) -> torch.Tensor:
        """What each configuration returns for images ``(n, ...)``: ``(configurations, n, ...)``."""
        return self._each(images, lambda logits: logits)

    def _each(self, images: torch.Tensor, read: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if self._stackable is None and len(images) >= SMALLEST_PART:
            self._stackable = self._try_stacking(images)
        stacked = bool(self._stackable) and len(images) >= SMALLEST_PART
        # Stacks of prefixes start from few images and end with many rows.
        parts = images.tensor_split(len(images) // SMALLEST_PART) if stacked else [images]
        limit = STACK_BYTES if stacked else 0
        found = torch.cat([self._below(part, limit, read) for part in parts], dim=1)
        if self._half is not None:
            place = self.configurations.index((HALF_PRECISION,) * len(self.configurations[0]))
            found[place] = read(self._half(images))
        return found

    def correct(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Which of the images ``(n, ...)`` each configuration classifies as labelled: bool ``(configurations, n)``."""
        return self.predict(images) == labels

    def _below(self, images: torch.Tensor, limit: int, read: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        found = None
        for places, logits in self._descend(0, torch.zeros(1, dtype=torch.long), (images,), limit):
            values = read(logits).unflatten(0, (len(places), len(images)))
            if found is None:
                found = values.new_empty(len(self.configurations), *values.shape[1:])
            found[places.to(images.device)] = values
        return found

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


def _checked_groups(groups: Sequence[Sequence[str]] | None, layers: Sequence[str]) -> list[list[str]]:
    if not layers:
        raise ValueError("keep leaves no layer whose width could be chosen; name fewer")
    if groups is None:
        return [[layer] for layer in layers]
    groups = [[group] if isinstance(group, str) else list(group) for group in groups]
    named = sorted(layer for group in groups for layer in group)
    if named != sorted(layers) or not all(groups):
        raise ValueError(f"groups must name each layer of the model once: {', '.join(layers)}; got {groups}")
    return groups


def _checked_choices(choices: Sequence[Bits]) -> tuple[Bits, ...]:
    found = tuple(checked(width, "choices") for width in choices) if isinstance(choices, Iterable) else ()
    if not found or len(set(found)) != len(found):
        raise ValueError(f"choices must be one or more different widths, got {choices}")
    return found


def _is_batched(value: object, rows: int) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == rows


def _bytes(state: tuple) -> int:
    return sum(value.numel() * value.element_size() for value in state if isinstance(value, torch.Tensor))
