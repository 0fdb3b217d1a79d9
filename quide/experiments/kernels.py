"""Networks in every real kernel that is installed: what they score, how fast they are, how fast this CPU could be."""

from __future__ import annotations

from itertools import product

from quide._check import whole
from quide.experiments import provenance, runs
from quide.experiments.measured import Run, measured
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


def wanted(cases: list[Case]) -> list[Run]:
    """All that the page shows, of some cases."""
    timed = product(cases, BATCHES, THREADS, (timing, roofline))
    return [*map(accuracy, cases), *(run(case, batch, threads) for case, batch, threads, run in timed)]
