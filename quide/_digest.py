"""SHA-256 of tensors: what files that hold them are proven by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def digest(value: object) -> str:
    """SHA-256 of tensors and plain values in dicts and lists."""
    total = hashlib.sha256()

    def add(part: object) -> None:
        if isinstance(part, torch.Tensor):
            total.update(f"{part.dtype} {tuple(part.shape)} ".encode())
            total.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        elif isinstance(part, Mapping):
            total.update(f"{len(part)}{{".encode())
            for name in part:
                total.update(f"{name!r}:".encode())
                add(part[name])
        elif isinstance(part, (list, tuple)):
            total.update(f"{len(part)}[".encode())
            for inner in part:
                add(inner)
        else:
            total.update(f"{part!r};".encode())

    add(value)
    return total.hexdigest()
