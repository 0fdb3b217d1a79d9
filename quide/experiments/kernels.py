"""Networks in every real kernel that is installed: what they score, how fast they are, how fast this CPU could be.

And a linear layer of a language model, for which there are kernels at fewer than 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from quide._check import whole
from quide.experiments import imagenet_runs, provenance, runs
from quide.experiments.imagenet_runs import ImageNetCase
from quide.experiments.measured import Run, measured
from quide.experiments.records import RunSpec
from quide.experiments.runs import CALIBRATION_SIZE, Case
from quide.models import registry

WIDTHS = {  # by backend, what quide.deploy makes; one that this machine lacks is recorded as absent
    "PyTorch": ("32", "32 channels last", "bfloat16"),
    "inductor": ("32", "bfloat16", "8"),
    "ONNX Runtime": ("32", "8"),
    "OpenVINO": ("32", "bfloat16", "8"),
}
NAMES = tuple(f"{width}, {backend}" for backend, widths in WIDTHS.items() for width in widths)
SIMULATED = "8 simulated"
LARGE = ("resnet50", imagenet_runs.DATASET)  # of which a pass takes seconds
LARGE_IMAGES = 250
MODELS = (("simplecnn", "cifar10"), ("resnet20", "cifar10"), ("resnet18", "cifar10"), LARGE)
MEASURED = ("kernel_accuracy", "kernel_latency", "roofline")  # kinds of records
BATCHES, THREADS = (1, 64), (1, 2)
LINEAR, LANGUAGE_MODEL = "linear_latency", "llama-3-8b"
ROWS, COLUMNS = 4096, 14_336  # of its widest layer
LINEARS = ("32, ONNX Runtime", "8", "4", "2", "32, PyTorch")
LINEAR_WARMUP, LINEAR_PASSES = 5, 50  # a pass takes up to a second


def case_of(model: str, dataset: str, seed: int = 0) -> Case | ImageNetCase:
    """A network of :data:`MODELS` at the profile of all its test images; of ImageNet, on some."""
    if dataset == imagenet_runs.DATASET:
        return ImageNetCase(model, seed, min(LARGE_IMAGES, len(ImageNetCase(model, seed).validation)))
    return Case(model, dataset, seed, runs.longest_profile(model, dataset))


def _code(model: str) -> tuple[str, ...]:
    return runs.ptq_code(model) if model in registry.BUILDERS else imagenet_runs.deciding(model)


def _checksum(spec: RunSpec) -> str:
    return (imagenet_runs.checksum if spec.dataset == imagenet_runs.DATASET else runs.test_checksum)(spec)


def _made_from(case: Case | ImageNetCase) -> dict:
    if isinstance(case, ImageNetCase):
        return {"calibration_size": imagenet_runs.FEW}
    return {"training_seed": case.training_seed, "calibration_size": CALIBRATION_SIZE}


@measured("kernel_accuracy", "quide.experiments.compute.kernels:accuracy", _code, _checksum)
def accuracy(case: Case | ImageNetCase) -> dict:
    """What each artefact scores, on the test images.

    Values: ``accuracy`` and ``correct`` by name in :data:`NAMES` and of :data:`SIMULATED`; ``changed``: of how many
    images the class differs from the simulation's; ``size``: bytes on disk; ``absent``: why the others are missing;
    ``libraries``: versions; ``images``.
    """
    return {
        "artefacts": list(NAMES),
        "environment": provenance.environment("cpu"),
        **({} if isinstance(case, ImageNetCase) else {"test_images": case.size.test_images}),
    } | _made_from(case)


@measured("kernel_latency", "quide.experiments.compute.kernels:timing", _code, _checksum)
def timing(case: Case | ImageNetCase, batch: int = 64, threads: int = 1) -> dict:
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
    } | _made_from(case)


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


def kinds(dataset: str) -> tuple[str, ...]:
    """What is recorded of a network; the roofline is one of small images."""
    return MEASURED[:-1] if dataset == imagenet_runs.DATASET else MEASURED


def wanted(seed: int = 0) -> list[Run]:
    """All that the page shows, of the networks whose images can be here."""
    from quide.data import imagenet

    networks = [network for network in MODELS if network != LARGE or imagenet.has("val")]
    cases = [case_of(*network, seed) for network in networks]
    found = list(map(accuracy, cases))
    for case, batch, threads in product(cases, BATCHES, THREADS):
        found.append(timing(case, batch, threads))
        if not isinstance(case, ImageNetCase):
            found.append(roofline(case, batch, threads))
    return found + [linear(LinearCase(), tokens, threads) for tokens, threads in product(BATCHES, THREADS)]
