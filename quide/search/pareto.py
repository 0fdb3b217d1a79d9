"""Several objectives at once: which configurations nothing beats, and NSGA-II to look for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from quide._check import whole
from quide.ptq.width import Bits
from quide.search.scoring import Configuration, Scorer, distinct_configurations, generator, space, vector


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


def nsga2(
    objectives: Callable[[Configuration], Sequence[float]],
    num_layers: int,
    choices: Sequence[Bits] = (16, 8, 4, 2),
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
    num_layers, choices = space(num_layers, choices)
    population = whole("population", population, 1)
    generations = whole("generations", generations, 1)
    rng = generator(seed)
    ladder = sorted(choices)
    size = len(ladder) ** num_layers
    first = distinct_configurations(rng, num_layers, ladder, min(population, size))
    positions = np.array([[ladder.index(width) for width in configuration] for configuration in first])
    algorithm = _pymoo_nsga2(positions, len(ladder), population, generations, int(rng.integers(2**31)))
    with Scorer(objectives, vector, min(population * generations, size), executor, progress) as scorer:
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
