"""MLPerf Tiny's ResNet-8 on CIFAR-10: the benchmark's own two files, in float32 and in 8-bit integers, by LiteRT."""

from __future__ import annotations

from dataclasses import dataclass

from quide import _files, latency
from quide.data import facts
from quide.experiments import provenance
from quide.experiments.measured import measured
from quide.experiments.records import RunSpec

KIND, MODEL, DATASET = "litert", "mlperf-resnet8", "cifar10"
ADDRESS = "https://github.com/mlcommons/tiny/tree/1afd2c9/benchmark/training/image_classification/trained_models"
FILES = {"32": "pretrainedResnet.tflite", "8": "pretrainedResnet_quant.tflite"}  # by width


@dataclass(frozen=True)
class TinyCase:
    """The two files: nothing of them hangs on a seed."""

    def spec(self, kind: str, details: dict) -> RunSpec:
        """The spec of a run."""
        return RunSpec(kind, MODEL, DATASET, 0, "paper", details)


def _checksum(spec: RunSpec) -> str:
    return " ".join((facts.info(DATASET).sha256["test"], *(_files.PUBLISHED[name] for name in FILES.values())))


@measured(KIND, "quide.experiments.compute.tiny:files", lambda model: (), _checksum)
def files(case: TinyCase, batch: int = 1, threads: int = 1) -> dict:
    """Accuracy, size and latency of both files on the CPU, timed in turn on the same images.

    Values: ``accuracy`` and ``correct`` by width, ``images``, ``size`` (bytes on disk), ``libraries``, and
    :meth:`quide.latency.Timings.to_dict`.
    """
    return {
        "batch": batch,
        "warmup": latency.WARMUP,
        "passes": latency.PASSES,
        "environment": provenance.environment("cpu") | {"threads": threads},
    }
