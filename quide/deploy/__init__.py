"""Networks in real low-bit arithmetic, a backend a module; each needs the extra ``deploy``.

A backend is a module with ``WIDTHS``, the names of what it can make of a network; ``LIBRARIES``, whose versions decide
how fast that is; and ``compiled(width, model, calibration, batch)``, which makes an :class:`Artefact` of a network with
batch norms folded, for batches like ``batch``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from quide._check import one_of

if TYPE_CHECKING:
    import torch

BACKENDS = {
    "PyTorch": "quide.deploy.eager",
    "inductor": "quide.deploy.inductor",
    "ONNX Runtime": "quide.deploy.onnx",
    "OpenVINO": "quide.deploy.openvino",
}


@dataclass(frozen=True)
class Artefact:
    """What a backend made of a network.

    Attributes:
        run: float32 images ``(n, ...)`` to float32 logits ``(n, classes)``.
        size: bytes on disk.
        channels_last: the memory layout that its input is taken in without being copied.
    """

    run: Callable[[torch.Tensor], torch.Tensor]
    size: int
    channels_last: bool = False

    def laid_out(self, images: torch.Tensor) -> torch.Tensor:
        """Images in its memory layout, so that none is timed converting it."""
        import torch

        last = self.channels_last and images.ndim == 4
        return images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def backend(name: str) -> ModuleType:
    """The module of a backend; ``ValueError`` names the known ones."""
    return import_module(BACKENDS[one_of("backend", name, BACKENDS)])


def saved_bytes(values: Mapping[str, torch.Tensor]) -> int:
    """What torch writes to disk for a network's weights, by name."""
    import torch

    content = io.BytesIO()
    torch.save(dict(values), content)
    return content.tell()
