"""Networks in 8-bit integers by ONNX Runtime, on the CPU (extra ``deploy``).

Its scheme is the paper's as far as it has it: weights symmetric and per tensor, activations affine with the range seen
on the calibration images. What differs: activations are rounded after the ReLU, and the sums of residual blocks are
rounded too. It has no kernels for 4 or 2 bits.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from quide.deploy import Artefact

WIDTHS, LIBRARIES = ("32", "8"), ("onnx", "onnxruntime")
BATCH = 128  # images calibrated on at once


def compiled(width: str, model: nn.Module, calibration: torch.Tensor, batch: torch.Tensor) -> Artefact:
    """One of :data:`WIDTHS`; see :mod:`quide.deploy`. Raises as :func:`export`."""
    exported = export(model, batch)
    if width == "8":
        exported = integers(exported, calibration)
    return Artefact(OnnxNetwork(exported), len(exported))


class OnnxNetwork(nn.Module):
    """A network that ONNX Runtime computes, on the CPU with as many threads as torch uses.

    Takes and returns float32 tensors, ``(n, ...)`` images to ``(n, classes)`` logits. On x86 CPUs without VNNI its fast
    kernels add products of 8 bits two at a time in 16 bits, which saturate, so that some images change their class.
    ``exact`` asks for those that do not, which are slower there; with VNNI all are exact.
    """

    def __init__(self, model: bytes, exact: bool = False):
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Its threads would otherwise go on spinning while the next configuration is timed.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        (name,) = (taken.name for taken in self.session.get_inputs())
        return torch.from_numpy(self.session.run(None, {name: images.contiguous().numpy()})[0])


def export(model: nn.Module, images: torch.Tensor, opset: int | None = None) -> bytes:
    """A network as an ONNX model for batches of any size, serialized.

    Args:
        model: what ``torch.export`` can take, in evaluation mode; changed to contiguous memory layout.
        images: float32 input, two images or more.
        opset: of ONNX; the exporter's own by default.

    Raises:
        ModuleNotFoundError: the extra ``deploy`` is not installed.
    """
    require()
    batch = torch.export.Dim("n")
    with _quiet():
        program = torch.onnx.export(
            model.to(memory_format=torch.contiguous_format), (images.contiguous(),), input_names=["images"],
            dynamic_shapes=({0: batch},), dynamo=True, verbose=False, opset_version=opset,
        )  # fmt: skip
    return program.model_proto.SerializeToString()


def integers(exported: bytes, calibration: torch.Tensor, layers: Collection[str] | None = None) -> bytes:
    """An exported network with 8-bit integers for weights and activations, serialized.

    Args:
        exported: from :func:`export`.
        calibration: float32 images ``(n, ...)`` that the activation ranges are read from.
        layers: names of those in integers, one or more; None for all, and what stands between them.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    batches = ({"images": part.contiguous().numpy()} for part in calibration.split(BATCH))
    reader = SimpleNamespace(get_next=lambda: next(batches, None))  # all that it asks of a CalibrationDataReader
    model = onnx.load_from_string(exported)  # a copy: what is given to it loses its weights
    weights = None if layers is None else {f"{layer}.weight" for layer in layers}
    chosen = None if weights is None else [node.name for node in model.graph.node if weights.intersection(node.input)]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = Path(folder, "quantized.onnx")
        quantize_static(
            model, file, reader, quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, per_channel=False, calibrate_method=CalibrationMethod.MinMax,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False}, nodes_to_quantize=chosen,
        )  # fmt: skip
        return file.read_bytes()


def require() -> None:
    """Raise ``ModuleNotFoundError`` with the remedy where the extra is not installed."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401 - what torch exports with
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is missing; install it with: pip install 'quide[deploy]'", name=error.name
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to optimize the model first, which concerns batch norms: ours are folded."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
