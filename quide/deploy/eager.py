"""Networks as torch runs them layer by layer, in float32 in both memory layouts and in bfloat16."""

from __future__ import annotations

import copy

import torch
from torch import nn

from quide.deploy import Artefact, saved_bytes

WIDTHS = ("32", "32 channels last", "bfloat16")
LIBRARIES = ("torch",)


def compiled(width: str, model: nn.Module, calibration: torch.Tensor, batch: torch.Tensor) -> Artefact:
    """One of :data:`WIDTHS`; see :mod:`quide.deploy`."""
    last = width != "32"
    layout = torch.channels_last if last else torch.contiguous_format
    model = copy.deepcopy(model).eval().to(memory_format=layout)
    return Artefact(
        in_bfloat16(model) if width == "bfloat16" else without_gradients(model), saved_bytes(model.state_dict()), last
    )


def without_gradients(model: nn.Module):
    """The network as it stands, in one mode whoever calls it: in another torch.compile would compile it anew."""
    return torch.inference_mode()(lambda images: model(images))


def in_bfloat16(model: nn.Module):
    """The network under torch's automatic casts."""

    @torch.inference_mode()
    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(images).float()

    return run
