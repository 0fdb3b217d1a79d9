"""What other libraries ask of torch and cannot have here: its functions replaced while they run, and put back."""

from __future__ import annotations

import contextlib
from unittest import mock

import torch


def unpinned() -> contextlib.AbstractContextManager:
    """For llm-compressor: without an accelerator no memory can be pinned for it, and asking for it fails."""
    if torch.accelerator.is_available():
        return contextlib.nullcontext()
    return mock.patch.object(torch.Tensor, "pin_memory", lambda tensor, *arguments: tensor)


def copying(device: str) -> contextlib.AbstractContextManager:
    """For autoawq: ``Tensor.cpu`` makes a copy, as it does from a GPU.

    It keeps a layer's weights by that function, tries scales on the layer in place, and puts the kept ones back. On a
    CPU those are the same tensors, so that every layer would come out multiplied by scales that were only tried.
    """
    if torch.device(device).type != "cpu":
        return contextlib.nullcontext()
    return mock.patch.object(torch.Tensor, "cpu", torch.Tensor.clone)
