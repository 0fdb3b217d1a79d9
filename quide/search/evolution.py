"""Genetic search (Algorithm 1, Appendix B)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from numbers import Real

import numpy as np

from quide._check import whole
from quide.ptq.width import Bits
from quide.search.scoring import Configuration, Scorer, SearchResult, generator, non_negative, space, uniform


def genetic(
    fitness: Callable[[Configuration], float],
    num_layers: int,
    choices: Sequence[Bits] = (16, 8, 4, 2),
    population: int = 20,
    generations: int = 30,
    mutation: float = 0.15,
    elite: int = 5,
    seed: int = 0,
    *,
    mutation_width: int = 1,
    executor: Executor | None = None,
    progress: bool = False,
) -> SearchResult:
    """Genetic search: Algorithm 1 (Appendix B), with the paper's settings (§3.3) as defaults.

    Each generation is scored and sorted from best to worst; its ``elite`` best stay, and children fill it up: two
    parents by roulette (chance proportional to fitness), uniform crossover, with probability ``mutation`` a mutation.
    At most ``population + generations * (population - elite)`` distinct configurations are evaluated.

    What the paper leaves open is settled thus:

    - *All fitness zero*: the roulette is undefined; parents are then drawn uniformly.
    - *Parents*: drawn independently, so that one configuration can be both.
    - *A mutation* sets ``mutation_width`` layers, drawn without replacement, each to another choice, equally likely.
    - *The last children*: the algorithm returns the best of a population most of which it never scored. They are
      scored here, as one more round of the history. ``best`` is the best configuration ever scored; with ``elite`` of
      at least 1 no later round loses it, and it is as fit as ``best_of_final_population``.
    - *Ties*: the order in the population stands, elite before children. Copies of one configuration may fill the elite.

    Args:
        fitness: maps a tuple of ``num_layers`` widths to a finite number of at least 0, always the same for one tuple.
        num_layers: length of a configuration.
        choices: distinct integers, bit-widths or codes for whatever a layer can be given; or :class:`quide.Width`.
        population: configurations in a generation.
        generations: how many times a new generation is bred.
        mutation: probability that a child is mutated.
        elite: configurations kept unchanged from one generation to the next.
        seed: decides every random draw.
        executor: evaluates a generation's unseen configurations in parallel; ``None`` evaluates them here, in turn.
        progress: show a bar of the evaluations done, out of the most there can be.

    Raises:
        ValueError: an argument out of range, or a fitness that is negative or not finite (names the configuration).
    """
    num_layers, choices = space(num_layers, choices)
    population = whole("population", population, 1)
    generations = whole("generations", generations, 1)
    elite = whole("elite", elite, 0, population)
    mutation_width = whole("mutation_width", mutation_width, 1, num_layers)
    if not (isinstance(mutation, Real) and 0 <= mutation <= 1):
        raise ValueError(f"mutation must be a probability between 0 and 1, got {mutation}")
    rng = generator(seed)
    members = [uniform(rng, num_layers, choices) for _ in range(population)]
    most = min(population + generations * (population - elite), len(choices) ** num_layers)
    with Scorer(fitness, non_negative, most, executor, progress) as scorer:
        for _ in range(generations):
            scores = scorer.round(members)
            ranked = sorted(zip(members, scores, strict=True), key=lambda pair: -pair[1])
            members, scores = [list(column) for column in zip(*ranked, strict=True)]
            wheel = _wheel(scores)
            children = [
                _child(members, wheel, rng, choices, mutation, mutation_width) for _ in range(population - elite)
            ]
            members = members[:elite] + children
        scorer.round(members)
    return scorer.result(scorer.history[-1]["best_configuration"])


def _wheel(scores: Sequence[float]) -> np.ndarray:
    """Upper ends of the roulette's slots, each as wide as its score; equal slots when all scores are zero."""
    largest = max(scores)
    return np.cumsum(np.divide(scores, largest) if largest > 0 else np.ones(len(scores)))


def _spin(wheel: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Indices of ``count`` independent draws; a slot of width zero is never hit."""
    return np.searchsorted(wheel, rng.random(count) * wheel[-1], side="right")


def _child(
    members: list[Configuration], wheel: np.ndarray, rng: np.random.Generator, choices: Sequence[Bits],
    mutation: float, mutation_width: int,
) -> Configuration:  # fmt: skip
    """Lines 15 to 19 of Algorithm 1."""
    first, second = (members[index] for index in _spin(wheel, rng, 2))
    child = _crossover(first, second, rng)
    return _mutate(child, rng, choices, mutation_width) if rng.random() < mutation else child


def _crossover(first: Configuration, second: Configuration, rng: np.random.Generator) -> Configuration:
    """Each layer from either parent with equal chance."""
    from_first = rng.random(len(first)) < 0.5
    return tuple(a if take else b for a, b, take in zip(first, second, from_first, strict=True))


def _mutate(
    configuration: Configuration, rng: np.random.Generator, choices: Sequence[Bits], width: int
) -> Configuration:
    """Set ``width`` layers to another choice; with a single choice there is none, and nothing changes."""
    changed = list(configuration)
    for layer in rng.choice(len(changed), size=width, replace=False):
        others = [choice for choice in choices if choice != changed[layer]]
        changed[layer] = others[rng.integers(len(others))] if others else changed[layer]
    return tuple(changed)
