"""Every choice that a recipe of post-training quantization makes (§3.3). Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from quide._check import one_of

FULL_PRECISION = 32
HALF_PRECISION = 16
PER_TENSOR, PER_CHANNEL = "tensor", "channel"  # what has a scale of its own; a number: so many weights
Granularity = str | int
LATER = {"later": True}  # marks a field that names of older records lack; see quide.experiments.records.described
RANGES = ("minmax", "percentile", "mse")  # rules that find the range of a tensor, see :mod:`quide.ptq.ranges`
_CHOICES = {
    "weight_range": (*RANGES, "mse_golden"),
    "weight_levels": ("restricted", "full"),
    "activation_site": ("output", "relu", "fused", "input"),
    "activation_range": (*RANGES, "mse_golden", "batch_norm"),
    "logits_range": ("alike", "cross_entropy"),
    "rounding": ("half_even", "half_up", "floor"),
    "sixteen_bit": ("grid", "float16"),
}


@dataclass(frozen=True)
class Scheme:
    """Every choice a PTQ recipe makes. The defaults are :data:`PAPER`.

    Attributes:
        weight_range: how a weight tensor's range is found: ``"minmax"``, ``"percentile"``, ``"mse"`` (of 81 ranges the
            one of least squared error) or ``"mse_golden"`` (from there on to the optimum).
        weight_per_channel: one range an output channel instead of one a tensor.
        weight_levels: ``"restricted"`` for integers in [-(2^(b-1)-1), 2^(b-1)-1], ``"full"`` for [-2^(b-1), 2^(b-1)-1].
        activation_site: where activations are rounded: ``"output"`` of a layer, before its activation function;
            ``"relu"``, after it (any of :data:`quide.ptq.activations.MODULES`, of which ``Prepared.unfused`` names the
            others); ``"fused"``, likewise, and a residual addition once, behind it and its activation; or ``"input"``
            of a layer.
        activation_range: as ``weight_range``, over the calibration images; or ``"batch_norm"``: six standard deviations
            around the mean that batch norms leave, which needs no images.
        activation_symmetric: a symmetric grid for activations instead of an affine one.
        rounding: ``"half_even"`` (as torch rounds), ``"half_up"`` or ``"floor"``.
        quantize_logits: whether the last layer's output is rounded too (but at site ``"input"``).
        percentile: share of values, in percent, that ``"percentile"`` ranges keep (split between both tails).
        fold_batch_norm: fold batch norms into the convolutions before them first.
        sixteen_bit: ``"grid"`` simulates a 16-bit integer grid; ``"float16"`` casts the whole network when every layer
            is 16 bits wide (what the paper's 16-bit timings look like).
        logits_range: of the network's outputs, where they are rounded: as ``activation_range``, or the one of least
            ``"cross_entropy"`` of the predicted probabilities.
    """

    weight_range: str = "minmax"
    weight_per_channel: bool = False
    weight_levels: str = "restricted"
    activation_site: str = "output"
    activation_range: str = "minmax"
    activation_symmetric: bool = False
    rounding: str = "half_even"
    quantize_logits: bool = True
    percentile: float = 99.9
    fold_batch_norm: bool = True
    sixteen_bit: str = "grid"
    logits_range: str = field(default="alike", metadata=LATER)

    def __post_init__(self):
        for name, known in _CHOICES.items():
            one_of(name, getattr(self, name), known)
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile must lie in (50, 100], got {self.percentile}")


PAPER = Scheme()
"""The paper's scheme as far as its text and numbers pin it; the page on EXP-1 tests the alternatives."""
BEST = Scheme(
    weight_range="mse", weight_per_channel=True, activation_site="input", activation_range="mse", quantize_logits=False
)
"""The recommended pipeline (Nagel et al. 2021, arXiv 2106.08295, §3.6): a range for each channel of a weight, ranges of
least squared error, and rounding of what a layer reads, which is behind the ReLU and the addition that fuse."""
