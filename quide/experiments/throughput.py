"""AIQ's second claim: MobileNetV2 on a CPU with some layers in 8-bit integers, those that its search picks, timed.

Beside it as many random layers, and all layers, which its authors leave out.
"""

from __future__ import annotations

from quide._check import one_of, whole
from quide.experiments import provenance, runs
from quide.experiments.aiq import CHOICES, SELECTED_ON
from quide.experiments.measured import Run, measured
from quide.experiments.runs import CALIBRATION_SIZE, Case

ACCURACY, KIND = KINDS = ("throughput_accuracy", "throughput")  # of records
NETWORK = ("mobilenetv2", "cifar10")
LAYERS, FLOOR = 12, 0.80  # as many as their search narrowed, and the accuracy below which it does not go
SEARCHED, ALL, FULL, FOLDED = "searched", "8", "32", "32 folded"
DRAWN = tuple(f"random {place}" for place in (1, 2, 3))
LIBRARIES = ("PyTorch", "ONNX Runtime", "OpenVINO")
BATCHES, WARMUP, PASSES = (1, 128), 5, {1: 300, 128: 30}


def _made_from(case: Case) -> dict:
    return {
        "choices": list(CHOICES),
        "selection_images": SELECTED_ON,
        "training_seed": case.training_seed,
        "calibration_size": CALIBRATION_SIZE,
    }


@measured(ACCURACY, "quide.experiments.compute.throughput:accuracy", runs.ptq_code, runs.test_checksum)
def accuracy(case: Case) -> dict:
    """What a network with some layers in 8 bits, weights and activations, scores by the kernels of three libraries.

    PyTorch's are those that AIQ's authors deploy with (FX and fbgemm, batch norms folded); ``"32, PyTorch"`` is the
    network as it was trained, in PyTorch's default memory layout, ``"32 folded, PyTorch"`` with batch norms folded and
    channels last.

    Values: ``layers``: names of those in 8 bits, by :data:`SEARCHED`, each of :data:`DRAWN`, and :data:`ALL`;
    ``accuracy`` and ``correct`` on the test images by ``"<which>, <library>"``; ``images``.
    """
    return {"environment": provenance.environment("cpu")} | _made_from(case)


@measured(KIND, "quide.experiments.compute.throughput:timing", runs.ptq_code, runs.test_checksum)
def timing(case: Case, batch: int = 128, threads: int = 2) -> dict:
    """Latency of the same, all timed in turn: :meth:`quide.latency.Timings.to_dict`; ``libraries``: versions."""
    return {
        "batch": one_of("batch", batch, BATCHES),
        "warmup": WARMUP,
        "passes": PASSES[batch],
        "environment": provenance.environment("cpu") | {"threads": whole("threads", threads, 1)},
    } | _made_from(case)


def case_of(seed: int = 0) -> Case:
    """The network that the page shows."""
    return Case(*NETWORK, seed, "paper")


def wanted(seed: int = 0) -> list[Run]:
    """All that the page shows."""
    case = case_of(seed)
    return [accuracy(case), *(timing(case, batch) for batch in BATCHES)]
