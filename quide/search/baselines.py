"""What a guided search has to beat: everything, at random, and one step down at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

from quide._check import whole
from quide.ptq.width import Bits
from quide.search.scoring import Configuration, Scorer, SearchResult, distinct_configurations, finite, generator, space

BATCH = 1024  # configurations handed to an executor at once; bounds the futures alive in a long search
ENUMERATION_LIMIT = 4**8  # largest space that `exhaustive` takes unasked


def exhaustive(
    fitness: Callable[[Configuration], float],
    num_layers: int,
    choices: Sequence[Bits] = (16, 8, 4, 2),
    *,
    limit: int = ENUMERATION_LIMIT,
    executor: Executor | None = None,
    progress: bool = False,
) -> SearchResult:
    """Evaluate every configuration, the last layer's width changing fastest, in the order of ``choices``.

    Raises:
        ValueError: an argument out of range, more than ``limit`` configurations, or a fitness that is not finite.
    """
    num_layers, choices = space(num_layers, choices)
    size = len(choices) ** num_layers
    if size > whole("limit", limit, 1):
        raise ValueError(
            f"{len(choices)} choices for each of {num_layers} layers make {size:,} configurations, more than "
            f"limit={limit:,}; raise limit, group layers, or use genetic, random_search or nsga2"
        )
    return _in_batches(fitness, itertools.product(choices, repeat=num_layers), size, executor, progress)


def random_search(
    fitness: Callable[[Configuration], float],
    num_layers: int,
    choices: Sequence[Bits] = (16, 8, 4, 2),
    budget: int = 20 + 30 * (20 - 5),
    seed: int = 0,
    *,
    executor: Executor | None = None,
    progress: bool = False,
) -> SearchResult:
    """Evaluate ``budget`` distinct configurations drawn uniformly: the least that a guided search has to beat.

    The default budget is the most that :func:`genetic` can use with its own defaults. A budget of at least the size of
    the space evaluates all of it, in random order.

    Raises:
        ValueError: an argument out of range, or a fitness that is not finite.
    """
    num_layers, choices = space(num_layers, choices)
    budget = min(whole("budget", budget, 1), len(choices) ** num_layers)
    drawn = distinct_configurations(generator(seed), num_layers, choices, budget)
    return _in_batches(fitness, iter(drawn), budget, executor, progress)


def greedy(
    fitness: Callable[[Configuration], float],
    num_layers: int,
    choices: Sequence[Bits] = (16, 8, 4, 2),
    *,
    executor: Executor | None = None,
    progress: bool = False,
) -> SearchResult:
    """Descend from all layers at the highest width, one layer one choice lower at a time, while fitness grows.

    Each step evaluates every configuration that has one layer at its next lower choice and moves to the best of them
    (of equals, the one whose changed layer comes first), if that is strictly better than where it stands. It therefore
    stops at the first plateau: at once where the start and all its neighbours have fitness zero.

    At most ``1 + num_layers**2 * (len(choices) - 1)`` configurations are evaluated.

    Raises:
        ValueError: an argument out of range, or a fitness that is not finite.
    """
    num_layers, choices = space(num_layers, choices)
    ladder = sorted(choices, reverse=True)
    lower = dict(itertools.pairwise(ladder))
    here = (ladder[0],) * num_layers
    with Scorer(fitness, finite, None, executor, progress) as scorer:
        scorer.round([here])
        while steps := [
            (*here[:layer], lower[width], *here[layer + 1 :]) for layer, width in enumerate(here) if width in lower
        ]:
            scores = scorer.round(steps)
            if max(scores) <= scorer.values[here]:
                break
            here = steps[scores.index(max(scores))]
    return scorer.result()


def _in_batches(
    fitness: Callable, configurations: Iterator[Configuration], size: int, executor: Executor | None, progress: bool
) -> SearchResult:
    """One history row a batch."""
    with Scorer(fitness, finite, size, executor, progress) as scorer:
        while batch := list(itertools.islice(configurations, BATCH)):
            scorer.round(batch)
    return scorer.result()
