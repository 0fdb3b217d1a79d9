"""Networks compiled by torch's inductor with their weights frozen: float32, bfloat16, and 8-bit integers (torchao)."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn
from torch._inductor import config

from quide.deploy import Artefact, saved_bytes
from quide.deploy.eager import in_bfloat16, without_gradients

WIDTHS = ("32", "bfloat16", "8")
LIBRARIES = ("torch", "torchao")


def compiled(width: str, model: nn.Module, calibration: torch.Tensor, batch: torch.Tensor) -> Artefact:
    """One of :data:`WIDTHS`; see :mod:`quide.deploy`.

    Raises:
        ModuleNotFoundError: at 8 bits without the extra ``deploy``.
    """
    model = copy.deepcopy(model).eval()
    if width == "8":
        model = _integers(model.to(memory_format=torch.contiguous_format), calibration, len(batch))
    else:
        model = model.to(memory_format=torch.channels_last)
    frozen = torch.compile(model, dynamic=False)
    run = in_bfloat16(frozen) if width == "bfloat16" else without_gradients(frozen)
    values = _read(model) if width == "8" else model.state_dict()
    artefact = Artefact(run, saved_bytes(values), channels_last=True)
    with config.patch(freezing=True):  # as an option of torch.compile it does not reach the passes that pack integers
        run(artefact.laid_out(batch))  # it is compiled by its first batch
    return artefact


@torch.no_grad()
def _integers(model: nn.Module, calibration: torch.Tensor, rows: int) -> nn.Module:
    """With quantizers that inductor turns into 8-bit kernels: weights by channel, activations by their range."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    images, any_number = (calibration.contiguous(),), ({0: torch.export.Dim("n")},)
    # Strict, so that the quantizer tells two calls of one ReLU apart.
    exported = torch.export.export(model, images, dynamic_shapes=any_number, strict=True).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantizer)
    for part in calibration.split(rows):
        prepared(part.contiguous())
    return convert_pt2e(prepared)


def _read(model: fx.GraphModule) -> dict[str, torch.Tensor]:
    """The values that a network computes with: one that was converted to integers still holds its weights in float32,
    without which inductor finds no kernel for it."""
    named = {node.target for node in model.graph.nodes if node.op == "get_attr"}
    return {name: value for name, value in model.state_dict().items() if name in named}
