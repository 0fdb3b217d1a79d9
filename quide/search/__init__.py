"""Search for a mixed-precision configuration: one bit-width a layer, scored by any function of the tuple of widths.

Nothing here knows what a network is. A *configuration* is a tuple of ``num_layers`` integers out of ``choices``; the
caller's ``fitness`` turns it into a number to be maximized, and a table of known values is as good a fitness as any
(``table.__getitem__``). Every search calls ``fitness`` once a distinct configuration.

With an ``executor`` (:class:`concurrent.futures.Executor`: a process pool, or ``Client(...).get_executor()`` of
``dask.distributed``) the configurations that a search needs next are evaluated side by side. Results are taken in the
order asked for, so a search returns the same with any executor as without. A process pool gives up when one of its
workers dies (:class:`concurrent.futures.process.BrokenProcessPool`); Dask starts another and repeats what was lost.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

Configuration = tuple[int, ...]

BATCH = 1024  # configurations handed to an executor at once; bounds the futures alive in a long search
ENUMERATION_LIMIT = 4**8  # largest space that `exhaustive` takes unasked


@dataclass(frozen=True)
class SearchResult:
    """What a search found, and all it saw on the way.

    Attributes:
        best: the configuration with the highest fitness of all evaluated, the first evaluated of equals.
        best_fitness: its fitness.
        history: one row a round (a generation; a step of the greedy search; a batch of the others): ``round`` (from 1),
            ``best`` and ``mean`` fitness of the round's configurations, ``best_configuration`` among them, ``distinct``
            (how many differ), ``best_so_far``, ``evaluations`` (distinct configurations evaluated by the end of it).
        evaluated: every distinct configuration with its fitness, in the order of first evaluation.
        calls: how often a fitness was asked for; without the memo, each would have been an evaluation.
        best_of_final_population: genetic search only: the best of the population that the last generation left.
    """

    best: Configuration
    best_fitness: float
    history: list[dict[str, Any]]
    evaluated: dict[Configuration, float]
    calls: int
    best_of_final_population: Configuration | None = None

    @property
    def evaluations(self) -> int:
        """How many distinct configurations were evaluated."""
        return len(self.evaluated)

    @property
    def evaluations_to_best(self) -> int:
        """How many distinct evaluations it took until ``best`` was found, that one included."""
        return list(self.evaluated).index(self.best) + 1

    @property
    def best_so_far(self) -> np.ndarray:
        """Highest fitness after each distinct evaluation: float64 ``(evaluations,)``."""
        return np.maximum.accumulate(list(self.evaluated.values()))


@dataclass(frozen=True)
class Frontier:
    """The configurations that no other evaluated one beats in every objective.

    Attributes:
        front: non-dominated configurations with their objectives, from the highest first objective to the lowest.
        evaluated: every distinct configuration with its objectives, in the order of first evaluation.
    """

    front: dict[Configuration, tuple[float, ...]]
    evaluated: dict[Configuration, tuple[float, ...]]

    @property
    def evaluations(self) -> int:
        """How many distinct configurations were evaluated."""
        return len(self.evaluated)


def genetic(
    fitness: Callable[[Configuration], float],
    num_layers: int,
    choices: Sequence[int] = (16, 8, 4, 2),
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

    A random population; in each generation score it, sort it from best to worst, keep the ``elite`` best and fill up
    with children: two parents by roulette over the whole population (chance proportional to fitness), uniform
    crossover, and with probability ``mutation`` a random mutation.

    What the paper leaves open is settled thus:

    - *All fitness zero*: the roulette is undefined; parents are then drawn uniformly.
    - *Parents*: drawn independently, so that one configuration can be both.
    - *Width of a mutation*: ``mutation_width`` layers, drawn without replacement, each set to another choice than it
      has, all equally likely.
    - *The last children*: the algorithm returns the best of a population most of which it never scored. They are
      scored here, as one more round of the history. ``best`` is the best configuration ever scored; with ``elite`` of
      at least 1 no later round loses it, and it is as fit as ``best_of_final_population``.
    - *Ties*: the order in the population stands, elite before children. Copies of one configuration may fill the elite.

    At most ``population + generations * (population - elite)`` distinct configurations are evaluated, however large the
    space.

    Args:
        fitness: maps a tuple of ``num_layers`` widths to a finite number of at least 0, always the same for one tuple.
        num_layers: length of a configuration.
        choices: distinct integers: bit-widths, or codes for whatever a layer can be given.
        population: configurations in a generation.
        generations: how many times a new generation is bred.
        mutation: probability that a child is mutated.
        elite: configurations kept unchanged from one generation to the next.
        seed: decides every random draw.
        mutation_width: layers that one mutation changes.
        executor: evaluates a generation's unseen configurations in parallel; ``None`` evaluates them here, in turn.
        progress: show a bar of the evaluations done, out of the most there can be.

    Raises:
        ValueError: an argument out of range, or a fitness that is negative or not finite (names the configuration).
    """
    num_layers, choices = _space(num_layers, choices)
    population = _whole("population", population, 1)
    generations = _whole("generations", generations, 1)
    elite = _whole("elite", elite, 0, population)
    mutation_width = _whole("mutation_width", mutation_width, 1, num_layers)
    if not 0 <= mutation <= 1:
        raise ValueError(f"mutation must be a probability between 0 and 1, got {mutation}")
    rng = _generator(seed)
    members = [_random_configuration(rng, num_layers, choices) for _ in range(population)]
    most = min(population + generations * (population - elite), len(choices) ** num_layers)
    history: list[dict[str, Any]] = []
    with _bar(most, progress) as bar:
        scorer = _Scorer(fitness, _non_negative, executor, bar)
        for _ in range(generations):
            scores = scorer(members)
            history.append(_round(history, members, scores, scorer))
            ranked = sorted(zip(members, scores, strict=True), key=lambda pair: -pair[1])
            members, scores = [list(column) for column in zip(*ranked, strict=True)]
            wheel = _wheel(scores)
            children = [
                _child(members, wheel, rng, choices, mutation, mutation_width) for _ in range(population - elite)
            ]
            members = members[:elite] + children
        history.append(_round(history, members, scorer(members), scorer))
    return _result(scorer, history, history[-1]["best_configuration"])


def exhaustive(
    fitness: Callable[[Configuration], float],
    num_layers: int,
    choices: Sequence[int] = (16, 8, 4, 2),
    *,
    limit: int = ENUMERATION_LIMIT,
    executor: Executor | None = None,
    progress: bool = False,
) -> SearchResult:
    """Evaluate every configuration, the last layer's width changing fastest, in the order of ``choices``.

    Raises:
        ValueError: an argument out of range, more than ``limit`` configurations, or a fitness that is not finite.
    """
    num_layers, choices = _space(num_layers, choices)
    size = len(choices) ** num_layers
    if size > _whole("limit", limit, 1):
        raise ValueError(
            f"{len(choices)} choices for each of {num_layers} layers make {size:,} configurations, more than "
            f"limit={limit:,}; raise limit, group layers, or use genetic, random_search or nsga2"
        )
    return _in_batches(fitness, itertools.product(choices, repeat=num_layers), size, executor, progress)


def random_search(
    fitness: Callable[[Configuration], float],
    num_layers: int,
    choices: Sequence[int] = (16, 8, 4, 2),
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
    num_layers, choices = _space(num_layers, choices)
    budget = min(_whole("budget", budget, 1), len(choices) ** num_layers)
    drawn = _distinct_configurations(_generator(seed), num_layers, choices, budget)
    return _in_batches(fitness, iter(drawn), budget, executor, progress)


def greedy(
    fitness: Callable[[Configuration], float],
    num_layers: int,
    choices: Sequence[int] = (16, 8, 4, 2),
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
    num_layers, choices = _space(num_layers, choices)
    ladder = sorted(choices, reverse=True)
    lower = dict(itertools.pairwise(ladder))
    here = (ladder[0],) * num_layers
    history: list[dict[str, Any]] = []
    with _bar(None, progress) as bar:
        scorer = _Scorer(fitness, _finite, executor, bar)
        scores = scorer([here])
        history.append(_round(history, [here], scores, scorer))
        while steps := [
            (*here[:layer], lower[width], *here[layer + 1 :]) for layer, width in enumerate(here) if width in lower
        ]:
            standing = scorer.values[here]
            scores = scorer(steps)
            history.append(_round(history, steps, scores, scorer))
            if max(scores) <= standing:
                break
            here = steps[scores.index(max(scores))]
    return _result(scorer, history)


def nsga2(
    objectives: Callable[[Configuration], Sequence[float]],
    num_layers: int,
    choices: Sequence[int] = (16, 8, 4, 2),
    population: int = 40,
    generations: int = 30,
    seed: int = 0,
    *,
    executor: Executor | None = None,
    progress: bool = False,
) -> Frontier:
    """Approximate the Pareto frontier of several objectives with pymoo's NSGA-II (Deb et al., 2002).

    Starts from distinct random configurations and uses pymoo's operators for integers (simulated binary crossover and
    polynomial mutation, rounded) on the position of a width in ``choices``, sorted. The frontier is taken over
    everything evaluated, not only over the last population. At most ``population * generations`` distinct
    configurations are evaluated, fewer where the space has no more to offer.

    Args:
        objectives: maps a tuple of ``num_layers`` widths to finite numbers, all to be *maximized* (return minus a
            latency), the same number of them for every tuple.
        num_layers, choices, seed, executor, progress: as for :func:`genetic`.
        population: configurations in a generation.
        generations: how many, the first, random one included.

    Raises:
        ValueError: an argument out of range, or objectives that are not finite or change in number.
        ImportError: pymoo is not installed.
    """
    num_layers, choices = _space(num_layers, choices)
    population = _whole("population", population, 1)
    generations = _whole("generations", generations, 1)
    rng = _generator(seed)
    ladder = sorted(choices)
    size = len(ladder) ** num_layers
    first = _distinct_configurations(rng, num_layers, ladder, min(population, size))
    positions = np.searchsorted(ladder, first)
    algorithm = _pymoo_nsga2(positions, len(ladder), population, generations, int(rng.integers(2**31)))
    with _bar(min(population * generations, size), progress) as bar:
        scorer = _Scorer(objectives, _vector, executor, bar)
        while algorithm.has_next() and (asked := algorithm.ask()) is not None:  # None: no new offspring to be had
            scores = scorer([tuple(ladder[position] for position in row) for row in asked.get("X").tolist()])
            if len({len(each) for each in scorer.values.values()}) != 1:
                raise ValueError("objectives must return the same number of values for every configuration")
            asked.set("F", -np.array(scores))  # pymoo minimizes
            algorithm.tell(infills=asked)
    kept = pareto_front(list(scorer.values.values()))
    front = [item for item, keep in zip(scorer.values.items(), kept, strict=True) if keep]
    return Frontier(dict(sorted(front, key=lambda item: item[1], reverse=True)), scorer.values)


def pareto_front(points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Which points no other point dominates (at least as large in every column and larger in one): bool ``(n,)``.

    ``points`` is ``(n, objectives)``, larger being better in every column; equal points stand or fall together. Exact.

    Raises:
        ValueError: ``points`` is not two-dimensional or holds something that is not finite.
    """
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or not points.shape[1] or not np.isfinite(points).all():
        raise ValueError(f"points must be finite numbers of shape (n, objectives), got shape {points.shape}")
    distinct, place = np.unique(points, axis=0, return_inverse=True)
    kept = np.zeros(len(distinct), dtype=bool)
    # np.unique sorts by the first column, then the next: whatever dominates a row comes after it, so the last row that
    # is left is never dominated.
    left = np.arange(len(distinct))
    while left.size:
        kept[left[-1]] = True
        left = left[(distinct[left] > distinct[left[-1]]).any(axis=1)]
    return kept[place.reshape(-1)]


class _Scorer:
    """Fitness with a memo: each distinct configuration is evaluated once, whoever evaluates it."""

    def __init__(self, fitness: Callable, check: Callable[[Configuration, Any], Any], executor: Executor | None, bar):
        self.fitness, self.check, self.executor, self.bar = fitness, check, executor, bar
        self.values: dict[Configuration, Any] = {}
        self.calls = 0

    def __call__(self, configurations: list[Configuration]) -> list:
        """The checked values of the configurations, in their order."""
        self.calls += len(configurations)
        unseen = [each for each in dict.fromkeys(configurations) if each not in self.values]
        futures: list[Future] = []
        try:
            if self.executor is None:
                results = [partial(self.fitness, each) for each in unseen]
            else:
                futures.extend(self.executor.submit(self.fitness, each) for each in unseen)
                results = [future.result for future in futures]
            for configuration, result in zip(unseen, results, strict=True):
                self.values[configuration] = self.check(configuration, _named(result, configuration))
                self.bar.update()
        finally:
            for future in futures:
                future.cancel()  # changes nothing unless an error or the user ended the loop early
        return [self.values[each] for each in configurations]


def _named(result: Callable[[], Any], configuration: Configuration) -> Any:
    """The result; an error on the way to it says which configuration it was for."""
    try:
        return result()
    except Exception as error:
        error.add_note(f"while evaluating configuration {configuration}")
        raise


def _finite(configuration: Configuration, value: Any) -> float:
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"fitness must be finite, got {value} for configuration {configuration}")
    return value


def _non_negative(configuration: Configuration, value: Any) -> float:
    value = _finite(configuration, value)
    if value < 0:
        raise ValueError(
            f"fitness must be at least 0 (the roulette draws in proportion to it), got {value} for configuration "
            f"{configuration}; clip or shift it"
        )
    return value


def _vector(configuration: Configuration, values: Any) -> tuple[float, ...]:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"objectives must be a sequence of finite numbers, got {values.tolist()} for configuration {configuration}"
        )
    return tuple(values.tolist())


def _in_batches(
    fitness: Callable, configurations: Iterator[Configuration], size: int, executor: Executor | None, progress: bool
) -> SearchResult:
    """Evaluate a known list of configurations, one history row a batch."""
    history: list[dict[str, Any]] = []
    with _bar(size, progress) as bar:
        scorer = _Scorer(fitness, _finite, executor, bar)
        while batch := list(itertools.islice(configurations, BATCH)):
            history.append(_round(history, batch, scorer(batch), scorer))
    return _result(scorer, history)


def _round(history: list[dict], members: list[Configuration], scores: list[float], scorer: _Scorer) -> dict[str, Any]:
    best = max(scores)
    return {
        "round": len(history) + 1,
        "best": best,
        "mean": math.fsum(scores) / len(scores),
        "best_configuration": members[scores.index(best)],
        "distinct": len(set(members)),
        "best_so_far": max(best, history[-1]["best_so_far"]) if history else best,
        "evaluations": len(scorer.values),
    }


def _result(scorer: _Scorer, history: list[dict], final: Configuration | None = None) -> SearchResult:
    best = max(scorer.values, key=scorer.values.__getitem__)  # the first of equals
    return SearchResult(best, scorer.values[best], history, scorer.values, scorer.calls, final)


def _wheel(scores: Sequence[float]) -> np.ndarray:
    """Upper ends of the roulette's slots, each as wide as its score; equal slots when all scores are zero."""
    largest = max(scores)
    return np.cumsum(np.divide(scores, largest) if largest > 0 else np.ones(len(scores)))


def _spin(wheel: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Indices of ``count`` independent draws; a slot of width zero is never hit."""
    return np.searchsorted(wheel, rng.random(count) * wheel[-1], side="right")


def _child(
    members: list[Configuration],
    wheel: np.ndarray,
    rng: np.random.Generator,
    choices: Sequence[int],
    mutation: float,
    mutation_width: int,
) -> Configuration:
    """Lines 15 to 19 of Algorithm 1."""
    first, second = (members[index] for index in _spin(wheel, rng, 2))
    child = _crossover(first, second, rng)
    return _mutate(child, rng, choices, mutation_width) if rng.random() < mutation else child


def _crossover(first: Configuration, second: Configuration, rng: np.random.Generator) -> Configuration:
    """Each layer from either parent with equal chance."""
    from_first = rng.random(len(first)) < 0.5
    return tuple(a if take else b for a, b, take in zip(first, second, from_first, strict=True))


def _mutate(
    configuration: Configuration, rng: np.random.Generator, choices: Sequence[int], width: int
) -> Configuration:
    """Set ``width`` layers to another choice; with a single choice there is none, and nothing changes."""
    changed = list(configuration)
    for layer in rng.choice(len(changed), size=width, replace=False):
        others = [choice for choice in choices if choice != changed[layer]]
        changed[layer] = others[rng.integers(len(others))] if others else changed[layer]
    return tuple(changed)


def _random_configuration(rng: np.random.Generator, num_layers: int, choices: Sequence[int]) -> Configuration:
    return tuple(choices[index] for index in rng.integers(len(choices), size=num_layers))


def _distinct_configurations(
    rng: np.random.Generator, num_layers: int, choices: Sequence[int], count: int
) -> list[Configuration]:
    """``count`` configurations drawn uniformly without replacement, in random order; cost follows ``count``."""
    size = len(choices) ** num_layers
    if size <= 2 * count:  # so full a draw would mostly hit what it has
        everything = list(itertools.product(choices, repeat=num_layers))
        return [everything[index] for index in rng.permutation(size)[:count]]
    drawn: dict[Configuration, None] = {}
    while len(drawn) < count:
        drawn.setdefault(_random_configuration(rng, num_layers, choices))
    return list(drawn)


def _space(num_layers: int, choices: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    choices = tuple(_whole("choices", choice) for choice in choices)
    if not choices or len(set(choices)) != len(choices):
        raise ValueError(f"choices must be one or more distinct integers, got {choices}")
    return _whole("num_layers", num_layers, 1), choices


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(_whole("seed", seed, 0))


def _whole(name: str, value: int, low: int | None = None, high: int | None = None) -> int:
    """``value`` as a plain int within bounds; ``ValueError`` names the argument."""
    try:
        whole = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, got {value!r}") from None
    if (low is not None and whole < low) or (high is not None and whole > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} must be {bounds}, got {whole}")
    return whole


def _bar(total: int | None, progress: bool) -> tqdm:
    return tqdm(total=total, unit="configuration", disable=not progress)


def _pymoo_nsga2(positions: np.ndarray, width: int, population: int, generations: int, seed: int):
    """NSGA-II, ready to be asked, on integers from 0 to ``width - 1``, starting from the rows of ``positions``."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
    except ImportError as error:
        raise ImportError("nsga2 needs pymoo; run: pip install 'quide[search]'") from error
    rounded = {"prob": 1.0, "eta": 3.0, "vtype": float, "repair": RoundingRepair()}
    algorithm = NSGA2(population, sampling=positions, crossover=SBX(**rounded), mutation=PM(**rounded))
    problem = Problem(n_var=positions.shape[1], xl=0, xu=width - 1, vtype=int)
    algorithm.setup(problem, termination=("n_gen", generations), seed=seed)
    return algorithm
