"""Random numbers that are nobody else's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int, epoch: int = 0) -> Iterator[None]:
    """What torch draws meanwhile, initial weights or dropout, depends on seed and epoch alone; the caller's generators
    go on from where they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed((epoch << 32) + seed)
        yield
