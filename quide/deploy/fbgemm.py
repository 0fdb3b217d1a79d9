"""Some layers of a network in 8-bit integers by PyTorch's older way, FX graphs and the kernels of fbgemm.

No backend of the table: torch calls the way deprecated. AIQ's authors deploy by it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import torch
from torch import nn

from quide.deploy import Artefact, saved_bytes
from quide.deploy.eager import without_gradients
from quide.deploy.onnx import BATCH

ENGINE = "fbgemm"


def integers(model: nn.Module, layers: Sequence[str], calibration: torch.Tensor) -> Artefact:
    """A network with weights and activations of some layers in 8 bits; the rest stays in float32.

    Args:
        model: in evaluation mode; batch norms that follow a convolution are folded.
        layers: their names.
        calibration: float32 images ``(n, ...)`` that activation ranges are read from.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import QConfigMapping, get_default_qconfig, quantize_fx

        chosen = QConfigMapping()
        for layer in layers:
            chosen.set_module_name(layer, get_default_qconfig(ENGINE))
        model = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)
        observed = quantize_fx.prepare_fx(model, chosen, (calibration[:1],))
        with torch.inference_mode():
            for part in calibration.split(BATCH):
                observed(part)
        before, torch.backends.quantized.engine = torch.backends.quantized.engine, ENGINE
        converted = quantize_fx.convert_fx(observed)
        torch.backends.quantized.engine = before
    return Artefact(without_gradients(converted), saved_bytes(_tensors(converted)))


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
