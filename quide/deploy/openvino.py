"""Networks by OpenVINO on the CPU: in float32, in bfloat16 where the CPU has it, and the integers of ONNX Runtime."""

from __future__ import annotations

import torch
from torch import nn

from quide.deploy import Artefact, onnx

WIDTHS = ("32", "bfloat16", "8")
LIBRARIES = ("openvino", "onnx", "onnxruntime")


def compiled(width: str, model: nn.Module, calibration: torch.Tensor, batch: torch.Tensor) -> Artefact:
    """One of :data:`WIDTHS`; see :mod:`quide.deploy`.

    Raises:
        ModuleNotFoundError: the extra ``deploy`` is not installed.
        ValueError: bfloat16 on a CPU without it.
    """
    core = _core()
    if width == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ValueError("bfloat16 has no kernels in OpenVINO on this CPU; leave that width out")
    exported = onnx.export(model, batch)
    if width == "8":
        exported = onnx.integers(exported, calibration)
    return network(exported, "bf16" if width == "bfloat16" else "f32")


def network(exported: bytes, precision: str = "f32") -> Artefact:
    """What :mod:`quide.deploy.onnx` made, computed by OpenVINO; ``precision`` is that of what is not in integers."""
    core = _core()
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled = core.compile_model(core.read_model(exported), "CPU", settings)

    def run(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(compiled({0: images.contiguous().numpy()})[0])

    return Artefact(run, len(exported))


def _core():
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "openvino is missing; install it with: pip install openvino", name="openvino"
        ) from error
    return openvino.Core()
