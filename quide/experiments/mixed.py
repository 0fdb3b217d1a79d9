"""Mixed precision (EXP-3): accuracy and latency of every configuration of a network, and the scores they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from quide import metric, ptq
from quide.experiments import paper, provenance, records, runs
from quide.experiments.measured import measured
from quide.experiments.runs import BESIDE, CONDITION, Case
from quide.search import Configuration
from quide.stats import unpack_bits

CHOICES = (16, 8, 4, 2)  # §4.1, Algorithm 1
TIMED_SHARE = 20  # a configuration of hundreds gets so much fewer passes than one of Table 1's five
FULL_PRECISION = "32"


@measured("mixed_accuracy", "quide.experiments.compute.mixed:accuracy", runs.ptq_code, runs.test_checksum)
def accuracy(case: Case, scheme: ptq.Scheme = ptq.PAPER, progress: bool = True) -> dict:
    """Accuracy of the case's network at every configuration of :data:`CHOICES`, by a prefix tree.

    Values: ``configurations`` (their labels), ``accuracy`` (fractions, in that order), ``correct`` (packed bits, image
    after image, one bit a configuration); the same of the network itself in ``full_precision_accuracy`` and
    ``full_precision_correct``; ``images``, their number; ``num_weights`` of each layer.
    """
    return {
        "scheme": records.described(scheme),
        "choices": list(CHOICES),
        "calibration_size": runs.CALIBRATION_SIZE,
        "training_seed": case.training_seed,
        "test_images": case.size.test_images,
    }


@measured("mixed_latency", "quide.experiments.compute.mixed:timing", runs.ptq_code, runs.test_checksum)
def timing(case: Case, device: str = "cpu", progress: bool = True) -> dict:
    """Latency of every configuration, and of 32 bits, measured once and interleaved; then it is a fixed table.

    Each layer rounds to its own grid after it has computed (16 bits too: a float16 cast is for whole networks), so all
    configurations run the same operations. Values: :meth:`quide.latency.Timings.to_dict`.
    """
    warmup, passes = passes_of(case)
    return {
        "backend": "simulated",
        "scheme": records.described(ptq.PAPER),
        "choices": list(CHOICES),
        "warmup": warmup,
        "passes": passes,
        "environment": provenance.environment(device),
        "training_seed": case.training_seed,
    }


@measured("mixed_stages", "quide.experiments.compute.mixed:by_stages", runs.ptq_code, runs.test_checksum)
def by_stages(case: Case, images: int = 1000, choices: Sequence[int] = CHOICES) -> dict:
    """Accuracy of every configuration of the parts of a ResNet (:func:`quide.ptq.stages`), one width a part.

    Args:
        case: a residual network.
        images: the first so many test images: of six parts at four widths, each image costs some 340 forward passes.
        choices: widths that a part can have.

    Values: as :func:`accuracy`; ``groups`` are the names of the parts, ``num_weights`` how many each has.
    """
    return {
        "scheme": records.described(ptq.PAPER),
        "choices": list(choices),
        "calibration_size": runs.CALIBRATION_SIZE,
        "training_seed": case.training_seed,
        "test_images": images,
    }


def passes_of(case: Case) -> tuple[int, int]:
    """Passes of a configuration before it is timed, and timed."""
    return max(case.size.warmup // TIMED_SHARE, 1), max(case.size.passes // TIMED_SHARE, 2)


@dataclass(frozen=True, eq=False)
class Landscape:
    """Every configuration with what the index asks for, from records; all arrays in the order of ``configurations``.

    Attributes:
        configurations: one width a layer, the last changing fastest.
        correct: bool ``(images, configurations)``.
        reference: bool ``(images,)``, of the full-precision network.
        latency_ms: ``(configurations,)``; by :func:`additive_latency`, until another is asked for.
        measured_ms: ``(configurations,)``, as each was measured, once.
        compression: ``(configurations,)``; nominal, until :meth:`size_weighted`.
        num_weights: of each layer.
        tolerance, num_classes: of Eq. 4.
    """

    configurations: list[Configuration]
    correct: np.ndarray
    reference: np.ndarray
    latency_ms: np.ndarray
    measured_ms: np.ndarray
    compression: np.ndarray
    num_weights: tuple[int, ...]
    tolerance: float
    num_classes: int

    @cached_property
    def accuracy(self) -> np.ndarray:
        """Fraction of the images, ``(configurations,)``."""
        return self.correct.mean(0)

    @property
    def threshold(self) -> float:
        """Eq. 4, from the full-precision accuracy on the same images."""
        return metric.accuracy_threshold(float(self.reference.mean()), self.tolerance, self.num_classes)

    @cached_property
    def gated_index(self) -> np.ndarray:
        """I' (Eq. 3), ``(configurations,)``."""
        return metric.gated_index(self.compression, self.accuracy, self.latency_ms, self.threshold)

    @cached_property
    def fitness(self) -> Mapping[Configuration, float]:
        """I' by configuration: what a search maximizes."""
        return dict(zip(self.configurations, self.gated_index.tolist(), strict=True))

    @property
    def best(self) -> Configuration:
        """The configuration with the highest I', the first of equals."""
        return self.configurations[int(self.gated_index.argmax())]

    def place(self, configuration: Configuration) -> int:
        """1 for the best, 2 for the second, ..."""
        return 1 + int((self.gated_index > self.fitness[configuration]).sum())

    def index_of(self, configuration: Configuration) -> int:
        """Its position in the arrays."""
        return self.configurations.index(tuple(configuration))

    def size_weighted(self) -> Landscape:
        """The same with compression counted by the number of weights."""
        return replace(self, compression=_compression(self.configurations, self.num_weights))

    def measured_latency(self) -> Landscape:
        """The same with each configuration's own measurement, noise included."""
        return replace(self, latency_ms=self.measured_ms)

    def equal_latency(self) -> Landscape:
        """The same with every latency at the median of all."""
        return replace(self, latency_ms=np.full(len(self.configurations), np.median(self.measured_ms)))

    def on(self, images: np.ndarray) -> Landscape:
        """The same on some of the images, given by index; one that is given twice counts twice."""
        return replace(self, correct=self.correct[images], reference=self.reference[images])


def landscape(case: Case, timed: records.Record, known: records.Record) -> Landscape:
    """Join a latency and an accuracy record of :func:`timing` and :func:`accuracy`."""
    latencies = timed.values["latencies"]
    measured = np.array([latencies[name]["median_ms"] for name in known.values["configurations"]])
    return _landscape(case, known, measured)


def staged(case: Case, known: records.Record) -> Landscape:
    """The same of a record of :func:`by_stages`, every configuration taking one millisecond: rounding is simulated, so
    that all run the same operations."""
    return _landscape(case, known, np.ones(len(known.values["configurations"])))


def _landscape(case: Case, known: records.Record, measured: np.ndarray) -> Landscape:
    values = known.values
    configurations = [tuple(map(int, name.split("-"))) for name in values["configurations"]]
    facts = paper.conditions().loc[(CONDITION | BESIDE)[case.model, case.dataset]]
    return Landscape(
        configurations,
        unpack_bits(values["correct"]).reshape(values["images"], len(configurations)),
        unpack_bits(values["full_precision_correct"]),
        additive_latency(configurations, measured),
        measured,
        _compression(configurations, None),
        tuple(values["num_weights"]),
        float(facts["tolerance"]),
        int(facts["num_classes"]),
    )


def additive_latency(configurations: list[Configuration], measured_ms: np.ndarray) -> np.ndarray:
    """Latency of each configuration as a sum over layers: mean, plus what each layer's width adds to it on average.

    The least-squares fit where every combination was measured once, ``(configurations,)`` milliseconds. A layer's width
    is averaged over all widths of the others, so that the noise of single measurements mostly cancels. Where noise is
    all there is, a sum may leave the range of what was measured, even go below zero: it is held to that range.
    """
    widths, fitted = np.array(configurations), np.full(len(configurations), measured_ms.mean())
    for layer in widths.T:
        for width in np.unique(layer):
            fitted[layer == width] += measured_ms[layer == width].mean() - measured_ms.mean()
    return fitted.clip(measured_ms.min(), measured_ms.max())


def _compression(configurations: list[Configuration], num_weights: tuple[int, ...] | None) -> np.ndarray:
    return np.array([metric.compression_ratio(widths, num_weights) for widths in configurations])
