"""Networks in every real kernel that is installed: what they score, how fast they are, how fast this CPU could be.

And a linear layer of a language model, for which there are kernels at fewer than 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from quide._check import whole
from quide.experiments import provenance, runs
from quide.experiments.measured import Run, measured
from quide.experiments.records import RunSpec
from quide.experiments.runs import CALIBRATION_SIZE, Case

WIDTHS = {  # by backend, what quide.deploy makes; one that this machine lacks is recorded as absent
    "PyTorch": ("32", "32 channels last", "bfloat16"),
    "inductor": ("32", "bfloat16", "8"),
    "ONNX Runtime": ("32", "8"),
    "OpenVINO": ("32", "bfloat16", "8"),
}
NAMES = tuple(f"{width}, {backend}" for backend, widths in WIDTHS.items() for width in widths)
SIMULATED = "8 simulated"
MODELS = (("simplecnn", "cifar10"), ("resnet20", "cifar10"), ("resnet18", "cifar10"))
MEASURED = ("kernel_accuracy", "kernel_latency", "roofline")  # kinds of records
BATCHES, THREADS = (1, 64), (1, 2)
LINEAR, LANGUAGE_MODEL = "linear_latency", "llama-3-8b"
ROWS, COLUMNS = 4096, 14_336  # of its widest layer
LINEARS = ("32, ONNX Runtime", "8", "4", "2", "32, PyTorch")
LINEAR_WARMUP, LINEAR_PASSES = 5, 50  # a pass takes up to a second


@measured("kernel_accuracy", "quide.experiments.compute.kernels:accuracy", runs.ptq_code, runs.test_checksum)
def accuracy(case: Case) -> dict:
    """What each artefact scores, on the test images.

    Values: ``accuracy`` and ``correct`` by name in :data:`NAMES` and of :data:`SIMULATED`; ``changed``: of how many
    images the class differs from the simulation's; ``size``: bytes on disk; ``absent``: why the others are missing;
    ``libraries``: versions; ``images``.
    """
    return {
        "artefacts": list(NAMES),
        "environment": provenance.environment("cpu"),
        "training_seed": case.training_seed,
        "calibration_size": CALIBRATION_SIZE,
        "test_images": case.size.test_images,
    }


@measured("kernel_latency", "quide.experiments.compute.kernels:timing", runs.ptq_code, runs.test_checksum)
def timing(case: Case, batch: int = 64, threads: int = 1) -> dict:
    """Latency of each artefact, all timed in turn on the same images by the profile's protocol, on the CPU.

    Values: :meth:`quide.latency.Timings.to_dict` by name in :data:`NAMES` and of :data:`SIMULATED`; ``absent`` and
    ``libraries`` as of :func:`accuracy`.
    """
    whole("batch", batch, 1)
    whole("threads", threads, 1)
    return {
        "artefacts": list(NAMES),
        "batch": batch,
        "warmup": case.size.warmup,
        "passes": case.size.passes,
        "environment": provenance.environment("cpu") | {"threads": threads},
        "training_seed": case.training_seed,
        "calibration_size": CALIBRATION_SIZE,
    }


@measured("roofline", "quide.experiments.compute.kernels:roofline", runs.ptq_code, runs.test_checksum)
def roofline(case: Case, batch: int = 1, threads: int = 1) -> dict:
    """How fast this CPU moves bytes and multiplies, and how long each layer of the case's network takes, alone.

    Values: ``bandwidth`` (bytes a second, by torch's sum of two arrays far larger than the caches), ``peak``
    (operations a second, by torch's products of large matrices, by type), and ``layers``: name, flops, bytes (in
    float32) and median milliseconds of each, channels last.
    """
    whole("batch", batch, 1)
    whole("threads", threads, 1)
    details = {"batch": batch, "warmup": case.size.warmup, "passes": case.size.passes}
    environment = provenance.environment("cpu") | {"threads": threads}
    return details | {"environment": environment, "training_seed": case.training_seed}


@dataclass(frozen=True)
class LinearCase:
    """A layer of random weights: how long it takes does not hang on the values."""

    def spec(self, kind: str, details: dict) -> RunSpec:
        """The spec of a run."""
        return RunSpec(kind, LANGUAGE_MODEL, "random", 0, "paper", details)


@measured(LINEAR, "quide.experiments.compute.kernels:linear", lambda model: (), lambda spec: "normal, seed 0")
def linear(case: LinearCase, tokens: int = 1, threads: int = 1) -> dict:
    """Latency of the widest linear layer of Llama-3-8B with its weights at few bits (:mod:`quide.deploy.matmul`).

    Values: :meth:`quide.latency.Timings.to_dict` by name in :data:`LINEARS`; ``size``: bytes on disk; ``libraries``.
    """
    return {
        "tokens": whole("tokens", tokens, 1),
        "rows": ROWS,
        "columns": COLUMNS,
        "warmup": LINEAR_WARMUP,
        "passes": LINEAR_PASSES,
        "environment": provenance.environment("cpu") | {"threads": whole("threads", threads, 1)},
    }


def wanted(cases: list[Case]) -> list[Run]:
    """All that the page shows, of some cases."""
    timed = product(cases, BATCHES, THREADS, (timing, roofline))
    networks = [*map(accuracy, cases), *(run(case, batch, threads) for case, batch, threads, run in timed)]
    return networks + [linear(LinearCase(), tokens, threads) for tokens, threads in product(BATCHES, THREADS)]
