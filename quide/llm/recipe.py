"""What a language model can be quantized by, in a name; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from quide._check import one_of
from quide.ptq.scheme import PER_TENSOR, Granularity

NONE, BITSANDBYTES, AWQ, ROUNDING = "none", "bitsandbytes", "awq", "rounding"
WIDTHS = {NONE: (32, 16), BITSANDBYTES: (8, 4), AWQ: (4, 3, 2), ROUNDING: (8, 4, 3, 2)}
# Those that compute from low-bit weights; the others compute from weights that were rounded and widened again.
RUNS_LOW_BIT = (NONE, BITSANDBYTES)


@dataclass(frozen=True)
class LlmRecipe:
    """A way to quantize.

    Attributes:
        method: one of :data:`WIDTHS`.
        bits: of the weights of the linear layers inside the model; embeddings and output layer keep 16.
        granularity: of ``"rounding"`` alone: what has a scale of its own, as in :mod:`quide.ptq.rounding`.
        outputs: of ``"rounding"`` alone: round the outputs of those layers too, to the same width.
    """

    method: str
    bits: int
    granularity: Granularity = PER_TENSOR
    outputs: bool = False

    def __post_init__(self):
        one_of("method", self.method, WIDTHS)
        if self.bits not in WIDTHS[self.method]:
            widths = ", ".join(map(str, WIDTHS[self.method]))
            raise ValueError(f"bits must be one of {widths} for {self.method}, got {self.bits!r}")
        if self.method != ROUNDING and (self.outputs or self.granularity != PER_TENSOR):
            raise ValueError(f"granularity and outputs are for {ROUNDING}, got them with {self.method}")
