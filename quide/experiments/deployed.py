"""Networks in real 8-bit arithmetic: what latency quantization has where it is not simulated (extra ``deploy``).

Everywhere else in this library quantized values are kept in float32, so that rounding costs time. Here ONNX Runtime
multiplies integers. Its scheme is the paper's as far as it has it: weights symmetric and per tensor, activations affine
with the range seen on the calibration images. What differs: activations are rounded after the ReLU, and the sums of
residual blocks are rounded too. It has no kernels for 4 or 2 bits.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quide import evaluate, latency, ptq
from quide.data.datasets import BATCH
from quide.experiments import provenance, runs
from quide.experiments.provenance import code_digest
from quide.experiments.runs import Case, Run
from quide.stats import pack_bits

KIND = "deployed"  # of records
LIBRARIES = ("onnx", "onnxruntime")
# Configurations, in the order that they are timed in.
TORCH, SIMULATED, RUNTIME, INTEGER = (
    "32, PyTorch", "8 simulated, PyTorch", "32, ONNX Runtime", "8 in integers, ONNX Runtime",
)  # fmt: skip
CONFIGURATIONS = (TORCH, SIMULATED, RUNTIME, INTEGER)


class OnnxNetwork(nn.Module):
    """A network that ONNX Runtime computes, on the CPU with as many threads as torch uses.

    Takes and returns float32 tensors, ``(n, ...)`` images to ``(n, classes)`` logits.
    """

    def __init__(self, model: bytes):
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Its threads would otherwise go on spinning while the next configuration is timed.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        (name,) = (taken.name for taken in self.session.get_inputs())
        return torch.from_numpy(self.session.run(None, {name: images.contiguous().numpy()})[0])


def export(model: nn.Module, images: torch.Tensor) -> bytes:
    """A network as an ONNX model for batches of any size, serialized.

    Args:
        model: what ``torch.export`` can take, in evaluation mode; changed to contiguous memory layout.
        images: float32 input, two images or more.

    Raises:
        ModuleNotFoundError: the extra ``deploy`` is not installed.
    """
    require()
    batch = torch.export.Dim("n")
    with _quiet():
        program = torch.onnx.export(
            model.to(memory_format=torch.contiguous_format), (images.contiguous(),), input_names=["images"],
            dynamic_shapes=({0: batch},), dynamo=True, verbose=False,
        )  # fmt: skip
    return program.model_proto.SerializeToString()


def integers(exported: bytes, calibration: torch.Tensor) -> bytes:
    """An exported network with 8-bit integers for weights and activations, serialized.

    Args:
        exported: from :func:`export`.
        calibration: float32 images ``(n, ...)`` that the activation ranges are read from.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load_from_string(exported)  # a copy: what is given to it loses its weights
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = Path(folder, "quantized.onnx")
        quantize_static(
            model, file, _reader(calibration), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, per_channel=False, calibrate_method=CalibrationMethod.MinMax,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )  # fmt: skip
        return file.read_bytes()


def run(case: Case, progress: bool = True) -> Run:
    """Latency and accuracy of a case's network in real 8-bit arithmetic, beside float32 and simulated 8 bits.

    All are timed in turn on batches of the same images, by the profile's protocol, on the CPU.

    Values: :meth:`quide.latency.Timings.to_dict` over :data:`CONFIGURATIONS`; for each of the two of ONNX Runtime its
    ``accuracy`` (fraction) and ``correct`` (packed bits); ``agreement``, the share of the test images that integers and
    simulation put into the same class; ``bytes``, the sizes of both models; and the ``libraries``' versions.

    Raises:
        ModuleNotFoundError: when computed without the extra ``deploy``.
    """
    size = case.size
    details = {"warmup": size.warmup, "passes": size.passes, "environment": provenance.environment("cpu")}
    details |= {"training_seed": case.training_seed, "calibration_size": runs.CALIBRATION_SIZE}

    def compute() -> dict:
        require()
        calibration, test = runs.calibration_images(case), runs.test_images(case)
        prepared = ptq.prepare(runs.network(case), calibration, ptq.PAPER)
        batch = test.subset(slice(0, size.timed_images)).normalized()
        exported = export(prepared.at(ptq.FULL_PRECISION), batch)
        models_of = {RUNTIME: exported, INTEGER: integers(exported, calibration)}
        networks = {
            TORCH: prepared.at(ptq.FULL_PRECISION),
            SIMULATED: prepared.at(8, commute=False),
            **{name: OnnxNetwork(model) for name, model in models_of.items()},
        }
        predicted = {name: evaluate.predict(network, test.batches(BATCH)) for name, network in networks.items()}
        hits = {name: predicted[name] == test.labels for name in models_of}
        timings = latency.measure_interleaved(
            {name: partial(network, _laid_out(batch, name)) for name, network in networks.items()},
            size.warmup, size.passes, progress=progress, wait_s=size.wait_s,
        )  # fmt: skip
        return timings.to_dict() | {
            "accuracy": {name: int(hit.sum()) / len(hit) for name, hit in hits.items()},
            "correct": {name: pack_bits(hit.numpy()) for name, hit in hits.items()},
            "agreement": float((predicted[INTEGER] == predicted[SIMULATED]).double().mean()),
            "bytes": {name: len(model) for name, model in models_of.items()},
            "libraries": {name: metadata.version(name) for name in LIBRARIES},
        }

    code = code_digest("quide.experiments.deployed:run", *runs.ptq_code(case.model))
    return Run(case.spec(KIND, details), compute, code, runs.test_checksum(case))


def require() -> None:
    """Raise ``ModuleNotFoundError`` with the remedy where the extra is not installed."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401 - what torch exports with
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is missing; install it with: pip install 'quide[deploy]'", name=error.name
        ) from error


def _laid_out(batch: torch.Tensor, configuration: str) -> torch.Tensor:
    """In the memory layout that a configuration is fastest with, so that none is timed converting it."""
    return batch.contiguous() if configuration in (RUNTIME, INTEGER) else batch


def _reader(calibration: torch.Tensor) -> Any:
    """The calibration images in batches, as ONNX Runtime asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches: Iterator[torch.Tensor] = iter(calibration.split(BATCH))

        def get_next(self) -> dict | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.contiguous().numpy()}

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to optimize the model first, which concerns batch norms: ours are folded."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
