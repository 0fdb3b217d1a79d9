"""Every mixed configuration of SimpleCNN on CIFAR-10, from records: what the paper's search is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from quide import metric, search, stats
from quide.experiments import mixed, paper, records, runs, select
from quide.experiments.mixed import CHOICES, Landscape
from quide.experiments.recipes import SEARCHED
from quide.ptq.width import label
from quide.search import Configuration
from quidebook import report

MODEL, DATASET = "simplecnn", "cifar10"
CONDITION = runs.CONDITION[MODEL, DATASET]
NOMINAL, BY_SIZE = "nominal", "by size"
REPEATS = 1000  # bootstrap replicates of the test set


@dataclass(frozen=True)
class Landscapes:
    """One landscape a seed, with the latencies of the first seed's network for all; ``profile`` they are from."""

    profile: str
    landscapes: Mapping[int, Landscape]
    timed: records.Record
    used: list[records.Record]

    @property
    def seed(self) -> int:
        """The first seed."""
        return next(iter(self.landscapes))

    @property
    def main(self) -> Landscape:
        """The checkpoint the paper searches on: that of the first seed."""
        return self.landscapes[self.seed]

    @property
    def full_precision(self) -> float:
        """I' of that checkpoint at 32 bits."""
        timed = self.timed.values["latencies"][mixed.FULL_PRECISION]["median_ms"]
        return float(metric.gated_index(1.0, float(self.main.reference.mean()), timed, self.main.threshold))

    @cached_property
    def explored(self) -> search.SearchResult:
        """The paper's search on that checkpoint: Algorithm 1 with its settings, seed 0."""
        return search.genetic(self.main.fitness.__getitem__, len(self.main.num_weights), CHOICES)

    @property
    def device(self) -> str:
        """Where the latencies were taken."""
        environment = self.timed.spec.details["environment"]
        return report.plain(f"{environment['device_name']}, {environment['threads']} threads")

    def accuracies(self, configuration: Configuration | None = None) -> np.ndarray:
        """Fractions by seed, of full precision without a configuration."""
        if configuration is None:
            return np.array([land.reference.mean() for land in self.landscapes.values()])
        return np.array([accuracy(land, configuration) for land in self.landscapes.values()])


def budget() -> dict[str, int]:
    """Counts that follow from the settings that the paper states for Algorithm 1."""
    settings = paper.protocol().query("scope == 'genetic search'").set_index("item")["value"]
    population, generations, elite, layers = (
        int(settings[item]) for item in ("population", "generations", "elitism", "layers")
    )
    choices = len(settings["bit-widths"].split(";"))
    return {
        "population": population,
        "generations": generations,
        "choices": choices,
        "space": choices**layers,
        "asked": population * generations,
        "new": population + (generations - 1) * (population - elite),
    }


def known(profile: str = "paper") -> Landscapes | None:
    """The paper profile's records where they exist, else those of ``profile``; None without records."""
    for candidate in dict.fromkeys(("paper", profile)):
        timed = select.quietest(records.collect("mixed_latency", candidate, MODEL, DATASET))
        accuracies = _accuracies(candidate)
        if accuracies and timed is not None:
            landscapes = {
                seed: mixed.landscape(runs.Case(MODEL, DATASET, seed, candidate), timed, record)
                for seed, record in accuracies.items()
            }
            return Landscapes(candidate, landscapes, timed, [*accuracies.values(), timed])
    return None


def _accuracies(profile: str) -> dict[int, records.Record]:
    seeds = sorted({record.spec.seed for record in records.collect("mixed_accuracy", profile, MODEL, DATASET)})
    found = {seed: mixed.accuracy(runs.Case(MODEL, DATASET, seed, profile)).known() for seed in seeds}
    return {seed: record for seed, record in found.items() if record is not None}


def countings(land: Landscape) -> tuple[tuple[str, Landscape], ...]:
    """The same configurations with compression counted by layers, as the paper does, and by weights."""
    return (NOMINAL, land), (BY_SIZE, land.size_weighted())


def uniform(bits: int) -> Configuration:
    """One width for every layer."""
    return (bits,) * len(SEARCHED)


def accuracy(land: Landscape, configuration: Configuration) -> float:
    """Accuracy of a configuration, a fraction."""
    return float(land.accuracy[land.index_of(configuration)])


def named(land: Landscape, configuration: Configuration) -> str:
    """A configuration and its accuracy, as printed."""
    return f"{label(configuration)} ({report.percent(accuracy(land, configuration), 1)})"


def frontier(land: Landscape) -> np.ndarray:
    """Which configurations no other beats in accuracy and compression, ``(configurations,)``; ties are all on it."""
    return search.pareto_front(np.column_stack([land.accuracy, land.compression]))


def rank(land: Landscape, configuration: Configuration) -> str:
    """Its rank by I', as printed."""
    return f"{land.place(configuration)} of {len(land.configurations)}"


def redrawn(land: Landscape, repeats: int = REPEATS) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies on test images drawn anew, with replacement: ``(repeats, configurations)``, and ``(repeats,)`` of the
    full-precision network."""
    images = len(land.reference)
    counts = stats.resample(np.random.default_rng(0), repeats, images).astype(np.float32)
    both = np.column_stack([land.correct, land.reference]).astype(np.float32)
    shares = np.minimum((counts @ both).astype(float) / images, 1.0)
    return shares[:, :-1], shares[:, -1]


def optimum_shares(land: Landscape, accuracies: np.ndarray, reference: np.ndarray) -> dict[Configuration, float]:
    """How often each configuration is the optimum among the accuracies of :func:`redrawn`."""
    threshold = metric.accuracy_threshold(reference, land.tolerance, land.num_classes)
    score = metric.gated_index(land.compression, accuracies, land.latency_ms, threshold[:, None])
    winners, times = np.unique(score.argmax(1), return_counts=True)
    return {land.configurations[i]: count / len(score) for i, count in zip(winners, times.tolist(), strict=True)}


def share_above(land: Landscape, one: Configuration, other: Configuration) -> float:
    """On how many (a share) of the test sets of :func:`redrawn` one configuration has a higher I' than another."""
    accuracies, reference = redrawn(land)
    threshold = metric.accuracy_threshold(reference, land.tolerance, land.num_classes)[:, None]
    both = [land.index_of(one), land.index_of(other)]
    scores = metric.gated_index(land.compression[both], accuracies[:, both], land.latency_ms[both], threshold)
    return float((scores[:, 0] > scores[:, 1]).mean())
