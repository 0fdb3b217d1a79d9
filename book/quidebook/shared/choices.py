"""The choices behind a score, and what each makes of a network: units, ways to count, latencies, tolerance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from quide import latency, metric
from quide.search import Configuration

Widths = int | Configuration  # of all layers, or one a layer
PRINTED = 4  # significant digits of the paper's numbers, and of any score at most
SCORES = {"index": ("I", "highest"), "gated_index": ("I′", "knee")}  # heading, and the mark of the first


@dataclass(frozen=True)
class Option:
    """One position of a control: its words, a note on it, and for a unit, how many there are in a millisecond."""

    words: str
    note: str = ""
    factor: float = 1.0

    @property
    def text(self) -> str:
        """As shown beside the control."""
        return f"{self.words} ({self.note})" if self.note else self.words


UNITS = {
    "ms-batch": Option("ms per batch", "the paper's"),
    "ms-image": Option("ms per image", f"a batch has {latency.BATCH_SIZE}", 1 / latency.BATCH_SIZE),
    "s-batch": Option("s per batch", factor=1e-3),
    "us-batch": Option("µs per batch", factor=1e3),
}
COUNTS = {
    "nominal": Option("every layer alike", "nominal, the paper's"),
    "size": Option("every weight alike", "by size"),
}
KERNELS = {
    "measured": Option("measured", "here, quantization simulated"),
    "paper": Option("the paper's", "where its text states or implies them"),
    "ideal": Option("ideal", "time proportional to the bits of the weights"),
    "equal": Option("all equal", "rounding costs and saves no time"),
}
CONTROLS = {"unit": UNITS, "count": COUNTS, "kernel": KERNELS}


@dataclass(frozen=True)
class Position:
    """Where the controls stand; ``tolerance`` None is the paper's for the network's task."""

    network: str
    kernel: str
    unit: str = "ms-batch"
    count: str = "nominal"
    tolerance: float | None = None


@dataclass(frozen=True, eq=False)
class Offered:
    """One network on one task, with accuracies from one source.

    Attributes:
        key: its name in the page's address.
        label: its name on the page.
        table: one row a configuration, from the most bits to the fewest, indexed by name such as ``8 bits``. Columns:
            ``bits`` (one width, or a tuple with one a layer), ``accuracy`` (fraction), a latency in ms for each of
            :data:`KERNELS`, and the scores that the paper states, ``index`` and ``gated_index``; ``accuracy``,
            ``paper`` and the scores have an ``_origin`` each. NaN is unknown.
        full_precision: P_FP of Eq. 4; ``tolerance`` and ``num_classes`` likewise.
        num_weights: of each layer, for counting compression by size; None where it is not known.
        kernel: the latencies that belong with the accuracies.
        stated_knee: name of the configuration that the paper has at the knee; empty if the numbers are not the paper's.
        accuracy_source, latency_sources: where the numbers are from; the second has an entry a kernel that is known.
        noisy: whether its measured latencies are not to be trusted.
    """

    key: str
    label: str
    table: pd.DataFrame
    full_precision: float
    tolerance: float
    num_classes: int
    num_weights: tuple[int, ...] | None
    kernel: str
    stated_knee: str
    accuracy_source: str
    latency_sources: Mapping[str, str]
    noisy: bool = False

    def figures(self, kernel: str) -> int:
        """Significant digits that its latencies bear: as many as the paper prints, or the clock that they come from."""
        if "paper" in (kernel, self.kernel) and kernel != "measured":
            return PRINTED
        return 2 if self.noisy else 3

    def start(self) -> Position:
        """Everything as the paper has it, with the network's own latencies."""
        return Position(self.key, self.kernel)

    def threshold(self, tolerance: float | None = None) -> float:
        """Eq. 4, with the paper's tolerance unless another is given."""
        delta = self.tolerance if tolerance is None else tolerance
        return metric.accuracy_threshold(self.full_precision, delta, self.num_classes)

    def compression(self, count: str) -> list[float]:
        """C of each configuration, NaN where it depends on layer sizes that are not known."""
        return [compression_of(bits, count, self.num_weights) for bits in self.table.bits]

    def scores(self, setting: Position) -> pd.DataFrame:
        """Compression, accuracy, latency (in the setting's unit), index and gated_index by name; NaN is unknown."""
        frame = pd.DataFrame({"compression": self.compression(setting.count)}, index=self.table.index)
        frame["accuracy"] = self.table.accuracy
        frame["latency"] = self.table[setting.kernel] * UNITS[setting.unit].factor
        known = frame.notna().all(axis=1)
        parts = [frame.loc[known, column] for column in ("compression", "accuracy", "latency")]
        frame[list(SCORES)] = math.nan
        if known.any():
            frame.loc[known, "index"] = metric.intelligence_index(*parts)
            frame.loc[known, "gated_index"] = metric.gated_index(*parts, self.threshold(setting.tolerance))
        return frame

    def whole(self, setting: Position) -> bool:
        """Whether every configuration has a score, so that the first of them is the knee."""
        return bool(self.scores(setting)["index"].notna().all())

    def best(self, setting: Position, score: str = "gated_index") -> str | None:
        """Name of the configuration with the highest score; None if no score is above 0. Where some have no score it is
        the highest of the others if the paper's knee is among these, and else None: it would mislead.

        Of equal scores the configuration with more bits wins, as in :func:`quide.metric.knee`.
        """
        found = self.scores(setting)[score].dropna()
        if len(found) < len(self.table) and self.stated_knee not in found:
            return None
        return found.idxmax() if len(found) and found.max() > 0 else None

    def stated(self, setting: Position, score: str) -> pd.Series:
        """The paper's own scores by name, where a part is missing to compute them; they hold for its choices alone."""
        asked = setting == replace(self.start(), kernel="paper")
        return self.table[score].where(self.scores(setting)[score].isna() & asked)


def compression_of(bits: Widths, count: str, num_weights: tuple[int, ...] | None) -> float:
    """C by one of :data:`COUNTS`; with one width for all layers both agree."""
    if count == "nominal" or isinstance(bits, int):
        return metric.compression_ratio(bits)
    return math.nan if num_weights is None else metric.compression_ratio(bits, num_weights)
