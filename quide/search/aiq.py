"""What AIQ searches by: its objective with the units in the open, and the searches that its authors name.

Arithmetic intensity and accuracy of a configuration are the caller's (:func:`quide.arithmetic_intensity`, a prefix
tree); here they are numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from quide._check import whole
from quide.search.scoring import Configuration, Scorer, SearchResult, finite, generator, space

FULL_PRECISION = 32
BELOW_FLOOR = -1e6  # what a configuration scores that is not accurate enough, so that no search moves there


@dataclass(frozen=True)
class AiqObjective:
    """AIQ's objective, negated, so that higher is better: trade_off * AI / intensity_unit - (1 - trade_off) * drop.

    The drop is that of the accuracy in percentage points, at least 0, over ``drop_unit``.

    Attributes:
        trade_off: lambda, 0 to 1: how much intensity counts.
        intensity_unit: operations per byte that count as one.
        drop_unit: percentage points that count as one.
        floor: accuracy (fraction) below which a configuration is out of the question.
    """

    trade_off: float = 0.9
    intensity_unit: float = 1.0
    drop_unit: float = 1.0
    floor: float = 0.0

    def __call__(self, intensity: float, accuracy: float, full_precision_accuracy: float) -> float:
        """The score of a configuration; accuracies are fractions."""
        if accuracy < self.floor:
            return BELOW_FLOOR
        drop = max(100 * (full_precision_accuracy - accuracy), 0.0)
        return self.trade_off * intensity / self.intensity_unit - (1 - self.trade_off) * drop / self.drop_unit


PRINTED = AiqObjective()
"""As the paper of AIQ prints it: intensity and percentage points are added as they are."""
AUTHORS = AiqObjective(intensity_unit=60.0, drop_unit=10.0, floor=0.895)
"""As its authors' program has it for ResNet-20; the text does not give 60, 10 and 89.5 %."""


def narrowing(
    fitness: Callable[[Configuration], float],
    num_layers: int,
    choices: Sequence[int] = (8, 4),
    *,
    revisit: bool = False,
    steps: int | None = None,
    bound: Callable[[Configuration], float] | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> SearchResult:
    """AIQ's greedy search: from full precision, each step gives one layer one of the choices, by the best such move.

    Args:
        fitness: maps a tuple of widths to a finite number, higher is better.
        num_layers: length of a configuration.
        choices: widths that a layer can be given.
        revisit: layers that were given a width may be given another; the authors' search never does.
        steps: at most so many; None for as many as there are layers without ``revisit``, no limit with it.
        bound: what a configuration's fitness cannot exceed, where that costs nothing to know, such as its intensity
            without any loss of accuracy. Moves that cannot be the best are not evaluated; the path is the same.
        executor, progress: as in :func:`quide.search.genetic`.

    Raises:
        ValueError: an argument out of range, or a fitness that is not finite.
    """
    num_layers, choices = space(num_layers, choices)
    rounds = itertools.count() if steps is None else range(whole("steps", steps, 1))
    here = (FULL_PRECISION,) * num_layers
    with Scorer(fitness, finite, None, executor, progress) as scorer:
        scorer.round([here])
        for _ in rounds:
            moves = [
                (*here[:layer], width, *here[layer + 1 :])
                for layer in range(num_layers)
                for width in choices
                if width != here[layer] and (revisit or here[layer] == FULL_PRECISION)
            ]
            if not moves or scorer.values[best := _best(scorer, moves, bound)] <= scorer.values[here]:
                break
            here = best
    return scorer.result()


def coordinate_descent(
    fitness: Callable[[Configuration], float],
    num_layers: int,
    choices: Sequence[int] = (FULL_PRECISION, 8, 4),
    *,
    order: Sequence[int] | None = None,
    bound: Callable[[Configuration], float] | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> SearchResult:
    """Layer after layer the best width with the others as they are, from the first choice in all, until a pass over all
    layers changes nothing.

    Args:
        fitness, num_layers, choices: as in :func:`narrowing`; the first choice is the start.
        order: the order the layers are taken in, by their places; the network's own by default.
        bound: as in :func:`narrowing`.
        executor, progress: as in :func:`quide.search.genetic`.

    Raises:
        ValueError: an argument out of range, an order that does not name each layer once, a fitness that is not finite.
    """
    num_layers, choices = space(num_layers, choices)
    order = range(num_layers) if order is None else list(order)
    if sorted(order) != list(range(num_layers)):
        raise ValueError(f"order must name each of 0..{num_layers - 1} once, got {list(order)}")
    here, before = (choices[0],) * num_layers, None
    with Scorer(fitness, finite, None, executor, progress) as scorer:
        while here != before:
            before = here
            for layer in order:
                others = [width for width in choices if width != here[layer]]
                moves = [here, *((*here[:layer], width, *here[layer + 1 :]) for width in others)]
                here = _best(scorer, moves, bound)  # the first of equals: where it stands
    return scorer.result()


def _best(
    scorer: Scorer, moves: Sequence[Configuration], bound: Callable[[Configuration], float] | None
) -> Configuration:
    """The best of some moves, the first of equals, as a row of the history."""
    if bound is not None:
        highest, worth = -np.inf, {}
        for move in sorted(moves, key=bound, reverse=True):
            if bound(move) < highest:
                break
            (worth[move],) = scorer([move])
            highest = max(highest, worth[move])
        moves = [move for move in moves if move in worth]
    scores = scorer.round(list(moves))
    return moves[scores.index(max(scores))]


def random_of_equal_bytes(
    configuration: Configuration,
    num_weights: Sequence[int],
    choices: Sequence[int] = (8, 4),
    count: int = 10,
    seed: int = 0,
    tolerance: float = 0.01,
    tries: int = 100_000,
) -> list[Configuration]:
    """Distinct random configurations whose weights take as many bytes as those of one that a search found.

    Args:
        configuration: one width a layer.
        num_weights: of each layer.
        choices: widths to draw from.
        count: at most so many are returned; fewer where ``tries`` draws find no more.
        seed: decides every draw.
        tolerance: share of the bytes by which they may differ.
        tries: draws at most.

    Raises:
        ValueError: an argument out of range, or another number of layers.
    """
    num_layers, choices = space(len(configuration), choices)
    sizes = np.asarray(num_weights, dtype=float)
    if sizes.shape != (num_layers,):
        raise ValueError(f"num_weights must be one number for each of {num_layers} layers, got {len(num_weights)}")
    rng, wanted = generator(seed), float(sizes @ np.asarray(configuration))
    found: dict[Configuration, None] = {}
    for _ in range(whole("tries", tries, 1)):
        drawn = rng.choice(choices, num_layers)
        alike = abs(sizes @ drawn - wanted) <= tolerance * wanted
        if alike and (other := tuple(drawn.tolist())) != tuple(configuration):
            found[other] = None
            if len(found) >= count:
                break
    return list(found)
