"""Compression, accuracy and latency by width, as the paper's numbers or our records give them: what scores are made of.

The paper's text does not give every cell. A reading fills the gaps that an analysis cannot do without, says by what
assumption, and takes both ends where only an interval is known. Widths that would need a guess are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from quide import metric
from quide.experiments import paper
from quide.experiments.runs import CONDITION
from quidebook.evidence.scores import Measured, measured

PAPER, OURS = "paper", "ours"
STEP_MS = 0.001  # derived latencies are kept to this digit


@dataclass(frozen=True)
class Reading:
    """One network on one task.

    Attributes:
        condition: its name in :func:`quide.experiments.paper.conditions`.
        source: :data:`PAPER` or :data:`OURS`.
        table: indexed by bit-width, widest first: compression, accuracy (fraction), latency_ms.
        full_precision: accuracy at 32 bits, a fraction.
        threshold: what the scores were computed with.
        assumes: what fills the paper's gaps; empty where nothing had to be assumed.
    """

    condition: str
    source: str
    table: pd.DataFrame = field(repr=False)
    full_precision: float
    threshold: float
    assumes: str = ""

    @cached_property
    def facts(self) -> pd.Series:
        """What the paper states of the condition."""
        return paper.conditions().loc[self.condition]

    @property
    def label(self) -> str:
        """As printed."""
        return f"{self.facts['label']}, {self.source}"

    @property
    def tolerance(self) -> float:
        """The paper's delta."""
        return float(self.facts["tolerance"])

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.facts["num_classes"])

    def gated_index(self, threshold: float | None = None, time_constant_ms: float = 1.0) -> pd.Series:
        """I' (Eq. 3) by width; with another threshold, or with T counted in units of ``time_constant_ms``."""
        return metric.gated_index(
            self.table["compression"],
            self.table["accuracy"],
            self.table["latency_ms"] / time_constant_ms,
            self.threshold if threshold is None else threshold,
        )

    def index(self, time_constant_ms: float = 1.0) -> pd.Series:
        """I (Eq. 2) by width."""
        return self.gated_index(0.0, time_constant_ms)

    @property
    def knee(self) -> int | None:
        """Width with the highest I'."""
        return metric.knee(self.table.index, self.gated_index())


def label(condition: str) -> str:
    """A condition as printed."""
    return str(paper.conditions().at[condition, "label"])


def of_paper() -> list[Reading]:
    """Every reading of the paper's numbers for which accuracy and latency are known at more than one width.

    MNIST and Llama are missing: the text gives no latency of theirs, nor accuracy at their knee.
    """
    return [*cifar10(), cifar100(), resnet18(), imagenet()]


def measured_conditions() -> list[Measured]:
    """Every condition with accuracy and latency records of the paper profile."""
    found = (measured(model, dataset, "paper") for model, dataset in CONDITION)
    return [each for each in found if each is not None]


def of_measured(found: Measured) -> Reading:
    """Accuracy and latency of each width, means over seeds."""
    table = found.table.groupby("bits", sort=False)[["compression", "accuracy", "latency_ms"]].mean()
    return Reading(found.condition, OURS, table, float(table["accuracy"].iloc[0]), found.threshold)


def resnet18(full_precision_latency_ms: float | None = None) -> Reading:
    """ResNet-18 on CIFAR-10, stated at 16, 8 and 4 bits; with 32 bits too, if a latency is assumed for it."""
    latency = {bits: paper.number(f"cifar10-resnet18.latency_ms.{bits}") for bits in (16, 8, 4, 2)}
    if full_precision_latency_ms is None:
        return _of_paper("cifar10-resnet18", latency)
    assumed = f"T(32) = {full_precision_latency_ms:.2f} ms"
    return _of_paper("cifar10-resnet18", {32: full_precision_latency_ms} | latency, assumes=assumed)


def cifar10() -> list[Reading]:
    """SimpleCNN on CIFAR-10 twice: its unknown latencies as short, and as long, as the stated range and orders allow.

    By the stated orders I is higher at 4 bits than at 8, so that 8 bits cannot be too fast, and I' is higher at 16 bits
    than at 4, so that 16 bits cannot be too slow. 2 bits are left out.
    """
    condition, full = "cifar10-simplecnn", _full("cifar10-simplecnn")
    threshold = float(paper.conditions().at[condition, "threshold_used"])
    known = {bits: paper.number(f"{condition}.latency_ms.{bits}") for bits in (32, 4)}
    shortest, longest = (paper.number(f"{condition}.latency_ms.{end}") for end in ("min", "max"))
    four = 8, paper.number(f"{condition}.accuracy.4"), known[4]
    eight = _latency_for(4 * full, metric.intelligence_index(*four))
    sixteen = _latency_for(2 * (full - threshold), metric.gated_index(*four, threshold))
    ends = (
        {16: shortest, 8: np.ceil(eight / STEP_MS) * STEP_MS},
        {16: np.floor(sixteen / STEP_MS) * STEP_MS, 8: longest},
    )
    readings = []
    for end in ends:
        latency = {bits: (known | end)[bits] for bits in (32, 16, 8, 4)}
        assumes = f"8 bits as accurate as 32, T(8) = {latency[8]:.2f} ms"
        readings.append(_of_paper(condition, latency, {8: full}, assumes))
    return readings


def cifar100() -> Reading:
    """SimpleCNN on CIFAR-100 at 16, 8 and 4 bits."""
    condition = "cifar100-simplecnn"
    latency = {bits: paper.number(f"{condition}.latency_ms.{bits}") for bits in (16, 4)}
    latency[8] = float(paper.numbers().at[f"{condition}.latency_ms.8", "high"])
    latency = {bits: latency[bits] for bits in (16, 8, 4)}
    return _of_paper(condition, latency, {8: _full(condition)}, "8 bits as accurate as 32")


def imagenet() -> Reading:
    """ResNet-18 on ImageNet at 8, 4 and 2 bits, which one simulator runs alike."""
    latency = paper.number("imagenet-resnet18.latency_ms.8-8-8-8-8-16")
    assumes = "the latency of the searched network at every width"
    return _of_paper("imagenet-resnet18", dict.fromkeys((8, 4, 2), latency), assumes=assumes)


def _of_paper(
    condition: str, latency: dict[int, float], accuracy: dict[int, float] | None = None, assumes: str = ""
) -> Reading:
    """A reading of the stated accuracies at the widths of ``latency``, with those of ``accuracy`` assumed."""
    assumed = accuracy or {}
    table = pd.DataFrame(
        {
            "compression": [metric.compression_ratio(bits) for bits in latency],
            "accuracy": [assumed.get(bits) or paper.number(f"{condition}.accuracy.{bits}") for bits in latency],
            "latency_ms": list(latency.values()),
        },
        index=pd.Index(list(latency), name="bits"),
    )
    threshold = float(paper.conditions().at[condition, "threshold_used"])
    return Reading(condition, PAPER, table, _full(condition), threshold, assumes)


def _latency_for(numerator: float, score: float) -> float:
    """The latency in ms at which ``numerator / log2(T + 1)`` is ``score``."""
    return 2 ** (numerator / score) - 1


def _full(condition: str) -> float:
    return float(paper.conditions().at[condition, "full_precision_accuracy"])
