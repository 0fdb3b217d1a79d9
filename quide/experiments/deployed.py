"""Networks in real 8-bit arithmetic: what latency quantization has where it is not simulated (extra ``deploy``).

Everywhere else in this library quantized values are kept in float32, so that rounding costs time. Here ONNX Runtime
multiplies integers, see :mod:`quide.deploy.onnx`.
"""

from __future__ import annotations

from quide.experiments import provenance, runs
from quide.experiments.measured import measured
from quide.experiments.runs import Case

KIND = "deployed"  # of records
LIBRARIES = ("onnx", "onnxruntime")
# Configurations, in the order that they are timed in.
TORCH, SIMULATED, RUNTIME, INTEGER = (
    "32, PyTorch", "8 simulated, PyTorch", "32, ONNX Runtime", "8 in integers, ONNX Runtime",
)  # fmt: skip
CONFIGURATIONS = (TORCH, SIMULATED, RUNTIME, INTEGER)


@measured(KIND, "quide.experiments.compute.deployed:deployed", runs.ptq_code, runs.test_checksum)
def run(case: Case, progress: bool = True) -> dict:
    """Latency and accuracy of a case's network in real 8-bit arithmetic, beside float32 and simulated 8 bits.

    All are timed in turn on batches of the same images, by the profile's protocol, on the CPU.

    Values: :meth:`quide.latency.Timings.to_dict` over :data:`CONFIGURATIONS`; for each of the two of ONNX Runtime its
    ``accuracy`` (fraction) and ``correct`` (packed bits); ``agreement``, the share of the test images that integers and
    simulation put into the same class; ``bytes``, the sizes of both models; and the ``libraries``' versions.

    Raises:
        ModuleNotFoundError: when computed without the extra ``deploy``.
    """
    return {
        "warmup": case.size.warmup,
        "passes": case.size.passes,
        "environment": provenance.environment("cpu"),
        "training_seed": case.training_seed,
        "calibration_size": runs.CALIBRATION_SIZE,
    }
