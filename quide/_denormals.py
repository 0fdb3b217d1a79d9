"""Denormal numbers, with which a CPU can be many times slower, rounded to zero."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Round denormal numbers to zero on this thread, and on those that torch starts meanwhile, as the CPU can.

    Weight decay drives the weights of dead units into the denormal range, where a CPU can be many times slower; how
    much that is for a step of training, the benchmarks measure. The caller's own arithmetic is put back after.
    """
    before = sys.float_info.min / 2 == 0  # torch sets the mode but does not tell it
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
