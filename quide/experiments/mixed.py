"""Mixed precision (EXP-3): accuracy and latency of every configuration of a network, and the scores they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from tqdm import tqdm

from quide import evaluate, latency, metric, ptq
from quide.data import datasets
from quide.evaluate import label, prefix_tree
from quide.experiments import paper, provenance, records, runs
from quide.experiments.provenance import code_digest
from quide.experiments.runs import CONDITION, Case, Run
from quide.search import Configuration
from quide.stats import pack_bits, unpack_bits

CHOICES = (16, 8, 4, 2)  # §4.1, Algorithm 1
TIMED_SHARE = 20  # a configuration of hundreds gets so much fewer passes than one of Table 1's five
FULL_PRECISION = "32"


def accuracy(case: Case, scheme: ptq.Scheme = ptq.PAPER, progress: bool = True) -> Run:
    """Accuracy of the case's network at every configuration of :data:`CHOICES`, by a prefix tree.

    Values: ``configurations`` (their labels), ``accuracy`` (fractions, in that order), ``correct`` (packed bits, image
    after image, one bit a configuration); the same of the network itself in ``full_precision_accuracy`` and
    ``full_precision_correct``; ``images``, their number; ``num_weights`` of each layer.
    """
    details = {
        "scheme": records.described(scheme),
        "choices": list(CHOICES),
        "calibration_size": runs.CALIBRATION_SIZE,
        "training_seed": case.training_seed,
        "test_images": case.size.test_images,
    }

    def compute() -> dict:
        network, test = runs.network(case), runs.test_images(case)
        prepared = ptq.prepare(network, runs.calibration_images(case), scheme)
        tree = prefix_tree.PrefixTree(prepared, CHOICES)
        batches = zip(test.batches(datasets.BATCH), test.labels.split(datasets.BATCH), strict=True)
        total = -(-len(test) // datasets.BATCH)
        hits = torch.cat([tree.correct(*batch) for batch in tqdm(batches, total=total, disable=not progress)], dim=1)
        reference = evaluate.correct(prepared.at(ptq.FULL_PRECISION), test)
        return {
            "configurations": [label(widths) for widths in tree.configurations],
            "accuracy": [count / len(test) for count in hits.sum(1).tolist()],
            "correct": pack_bits(hits.T.flatten().numpy()),
            "full_precision_accuracy": int(reference.sum()) / len(test),
            "full_precision_correct": pack_bits(reference.numpy()),
            "images": len(test),
            "num_weights": evaluate.num_weights(network),
        }

    return Run(case.spec("mixed_accuracy", details), compute, _code(case), runs.test_checksum(case))


def timing(case: Case, device: str = "cpu", progress: bool = True) -> Run:
    """Latency of every configuration, and of 32 bits, measured once and interleaved; then it is a fixed table.

    Each layer rounds to its own grid after it has computed (16 bits too: a float16 cast is for whole networks), so all
    configurations run the same operations. Values: :meth:`quide.latency.Timings.to_dict`.
    """
    size = case.size
    passes, warmup = max(size.passes // TIMED_SHARE, 2), max(size.warmup // TIMED_SHARE, 1)
    details = {
        "backend": "simulated",
        "scheme": records.described(ptq.PAPER),
        "choices": list(CHOICES),
        "warmup": warmup,
    }
    details |= {"passes": passes, "environment": provenance.environment(device), "training_seed": case.training_seed}

    def compute() -> dict:
        batch = runs.test_images(case).subset(slice(0, size.timed_images)).normalized().to(device)
        prepared = ptq.prepare(runs.network(case), runs.calibration_images(case), ptq.PAPER)
        widths = prefix_tree.PrefixTree(prepared, CHOICES).configurations
        passed = {FULL_PRECISION: partial(prepared.at(ptq.FULL_PRECISION).to(device), batch)}
        passed |= {label(each): partial(prepared.at(each, commute=False).to(device), batch) for each in widths}
        timings = latency.measure_interleaved(passed, warmup, passes, block=5, progress=progress, wait_s=size.wait_s)
        return timings.to_dict()

    return Run(
        case.spec("mixed_latency", details),
        compute,
        _code(case, "quide.latency:measure_interleaved"),
        runs.test_checksum(case),
    )


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
    values = known.values
    configurations = [tuple(map(int, name.split("-"))) for name in values["configurations"]]
    measured = np.array([timed.values["latencies"][name]["median_ms"] for name in values["configurations"]])
    facts = paper.conditions().loc[CONDITION[case.model, case.dataset]]
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


def _code(case: Case, *more: str) -> str:
    return code_digest("quide.evaluate.prefix_tree:PrefixTree", *runs.ptq_code(case.model), *more)
