"""What all searches share: configurations, the memo of what they scored, and the history of rounds."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, SupportsFloat

import numpy as np
from tqdm import tqdm

from quide._check import whole, wholes
from quide.ptq.width import Bits, Width

Configuration = tuple[Bits, ...]
DASKS = ("KilledWorker", "CommClosedError", "FutureCancelledError", "SchedulerClosedError", "ClosedClientError")
PATIENCE = 2.0  # seconds between two looks at an executor that is waited for
ALONE = 60.0  # seconds without a worker after which none is waited for, if there was one before
LOST = 8  # configurations named when a worker dies


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


class Scorer:
    """Fitness with a memo: each distinct configuration is evaluated once, whoever evaluates it.

    As a context it shows a bar of up to ``most`` evaluations, and gives an error that ends the search what was
    evaluated until then, as ``evaluated``.
    """

    def __init__(self, fitness: Callable, check: Callable, most: int | None, executor: Executor | None, progress: bool):
        if not callable(fitness):
            raise ValueError(f"fitness must be a function of a configuration, got {fitness!r}")
        if not (executor is None or hasattr(executor, "submit")):
            raise ValueError(f"executor must have submit, as those of concurrent.futures have, got {executor!r}")
        self.fitness, self.check, self.executor, self.served = fitness, check, executor, False
        self.bar = tqdm(total=most, unit="configuration", disable=not progress)
        self.values: dict[Configuration, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.calls = 0

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self.bar.close()
        if error is not None:
            error.evaluated = self.values

    def __call__(self, configurations: list[Configuration]) -> list:
        """The checked values of the configurations, in their order."""
        self.calls += len(configurations)
        unseen = [each for each in dict.fromkeys(configurations) if each not in self.values]
        if self.executor is not None:
            self._side_by_side(unseen)
        for each in unseen if self.executor is None else ():
            self._keep(each, partial(self.fitness, each))
        return [self.values[each] for each in configurations]

    def round(self, members: list[Configuration]) -> list[float]:
        """The same, as a row of the history."""
        scores = self(members)
        best = max(scores)
        row = {"round": len(self.history) + 1, "best": best, "mean": _mean(scores)}
        row |= {"best_configuration": members[scores.index(best)], "distinct": len(set(members))}
        row["best_so_far"] = max(best, self.history[-1]["best_so_far"]) if self.history else best
        self.history.append(row | {"evaluations": len(self.values)})
        return scores

    def result(self, final: Configuration | None = None) -> SearchResult:
        """What the search found."""
        best = max(self.values, key=self.values.__getitem__)  # the first of equals
        return SearchResult(best, self.values[best], self.history, self.values, self.calls, final)

    def _side_by_side(self, unseen: list[Configuration]) -> None:
        futures: dict[Configuration, Future] = {}
        try:
            self.served = self.served or _served(self.executor)
            for each in unseen:
                futures[each] = self.executor.submit(self.fitness, each)
            for each, future in futures.items():
                self._await(future)
                self._keep(each, future.result)
        except BaseException as error:  # keep what is there already
            for each, future in futures.items():
                with contextlib.suppress(Exception):  # of the check, or of an executor that is gone: one is enough
                    if not future.cancel() and future.done() and not future.exception() and each not in self.values:
                        self._keep(each, future.result)
            ended = [one.exception() for one in futures.values() if one.done() and not one.cancelled()]
            exited = isinstance(error, SystemExit) and any(one is error for one in ended)  # by the fitness, in a worker
            if "after shutdown" in str(error) and len(futures) < len(unseen):  # as it was asked for the next
                raise ValueError("executor was shut down; make another, and search before its `with` ends") from error
            if not _gone(error) and not exited:
                raise
            died = (type(error) if isinstance(error, BrokenExecutor) else BrokenExecutor)(
                "a worker of the executor, or its scheduler, died (killed, or out of memory); use fewer workers, and "
                "let fitness look first into this error's `evaluated`, which keeps the "
                f"{len(self.values)} values there are"
            )
            lost = [each for each in unseen if each not in self.values]
            named = ", ".join(map(str, lost[:LOST]))
            died.add_note(f"while evaluating one of {named}{' ...' if len(lost) > LOST else ''}")
            raise died from error

    def _await(self, future: Future) -> None:
        """Dask would wait without end once its client closed, or its workers died so often that none is started."""
        seen = time.monotonic()
        while not wait([future], PATIENCE).done:
            there = _served(self.executor)
            self.served = self.served or there
            seen = seen if self.served and not there else time.monotonic()  # a cluster may still be starting
            closed = getattr(getattr(self.executor, "_client", None), "status", "") == "closed"
            if closed or time.monotonic() > seen + ALONE:
                raise CancelledError

    def _keep(self, configuration: Configuration, result: Callable[[], Any]) -> None:
        try:
            value = result()
        except Exception as error:
            if "pickle" in str(error):
                error.add_note("a pool of processes takes a function that stands in a module, and hands numbers back")
            elif not _gone(error):  # a worker's end, which any configuration may have brought about
                error.add_note(f"while evaluating configuration {configuration}")
            raise
        self.values[configuration] = self.check(configuration, value)
        self.bar.update()


def _gone(error: BaseException) -> bool:
    """Whether it is the executor that failed, and not the fitness: a process pool's errors, and Dask's by name."""
    return isinstance(error, (BrokenExecutor, CancelledError)) or type(error).__name__ in DASKS


def _served(executor: Any) -> bool:
    """Whether Dask's client, asked for the threads of each, names a worker; others have theirs."""
    with contextlib.suppress(Exception):  # of a scheduler that is gone
        return not hasattr(executor, "_client") or bool(executor._client.nthreads())
    return False


def _mean(scores: list[float]) -> float:
    try:
        return math.fsum(scores) / len(scores)
    except OverflowError:  # the sum is beyond the largest float, the mean is not
        return math.fsum(score / len(scores) for score in scores)


def finite(configuration: Configuration, value: Any) -> float:
    if not isinstance(value, SupportsFloat) or np.ndim(value):
        raise ValueError(f"fitness must be a number, got {value!r} for configuration {configuration}")
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"fitness must be finite, got {value} for configuration {configuration}")
    return value


def non_negative(configuration: Configuration, value: Any) -> float:
    value = finite(configuration, value)
    if value < 0:
        raise ValueError(
            f"fitness must be at least 0 (the roulette draws in proportion to it), got {value} for configuration "
            f"{configuration}; clip or shift it"
        )
    return value


def vector(configuration: Configuration, values: Any) -> tuple[float, ...]:
    try:
        found = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        raise ValueError(
            f"objectives must be a sequence of finite numbers, got {values!r} for configuration {configuration}"
        )
    return tuple(found.tolist())


def uniform(rng: np.random.Generator, num_layers: int, choices: Sequence[Bits]) -> Configuration:
    return tuple(choices[index] for index in rng.integers(len(choices), size=num_layers))


def distinct_configurations(
    rng: np.random.Generator, num_layers: int, choices: Sequence[Bits], count: int
) -> list[Configuration]:
    """``count`` configurations drawn uniformly without replacement, in random order; cost follows ``count``."""
    size = len(choices) ** num_layers
    if size <= 2 * count:  # so full a draw would mostly hit what it has
        everything = list(itertools.product(choices, repeat=num_layers))
        return [everything[index] for index in rng.permutation(size)[:count]]
    drawn: dict[Configuration, None] = {}
    while len(drawn) < count:
        drawn.setdefault(uniform(rng, num_layers, choices))
    return list(drawn)


def space(num_layers: int, choices: Sequence[Bits]) -> tuple[int, tuple[Bits, ...]]:
    given = choices if isinstance(choices, Iterable) else ()
    checked = tuple(choice if isinstance(choice, Width) else wholes("choices", [choice])[0] for choice in given)
    if not checked or len(set(checked)) != len(checked):
        raise ValueError(f"choices must be one or more distinct whole numbers or widths, got {choices}")
    return whole("num_layers", num_layers, 1), checked


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(whole("seed", seed, 0))
