"""A diagnosis in one sentence: its kinds of fault in words, every number from the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quide.diagnosis import Diagnosis

_LOSS = (
    "At {widths} bits the network loses {loss_pp}",
    "percentage points [{loss_low_pp}, {loss_high_pp}]",
)
_OF_LAYER = (
    *_LOSS,
    "and layer {layer} alone {drop_pp}",
    "(weights {weights_drop_pp}, activations {activations_drop_pp}):",
)
_NOT_THE_MODEL = "At 32 bits the network is not the model:"
_AT_CHANCE = (
    "At full precision the network is right for {accuracy_pp} %,",
    "and guessing among {classes} classes for {guessing_pp} %:",
)
_CHECK_FIRST = "check weights, labels and normalization first."
PHRASES = {  # what ends in _pp is a fraction in per cent
    "tracing": (_NOT_THE_MODEL, "tracing changed what it computes."),
    "folding": (
        _NOT_THE_MODEL,
        "folding its batch norms changed what it computes,",
        "by up to {difference_pp} % of its largest output.",
    ),
    "grid": (
        "The activations of layer {layer} are rounded with the wrong grid:",
        "zero point {zero_point:.0f}, the calibration images ask for {zero_point_due:.0f};",
        "scale {scale_ratio:.3g} times theirs;",
        "{clipped_calibration_pp} % of their activations are clipped.",
    ),
    "chance": (*_AT_CHANCE, _CHECK_FIRST),
    "chance, with an outlier": (
        *_AT_CHANCE,
        "channel {weight_channel} of the weights of layer {layer}",
        "reaches {weight_outlier:.0f} times the median channel;",
        _CHECK_FIRST,
    ),
    "none": (*_LOSS, "which may be chance: nothing to put right."),
    "everywhere": (*_LOSS, "and no layer alone more than chance: use more bits."),
    "outlier weights": (
        *_OF_LAYER,
        "channel {weight_channel} of its weights reaches",
        "{weight_outlier:.0f} times the median channel,",
        "so that {weights_zeroed_pp} % of its weights round to zero;",
        "give each channel a scale (Scheme(weight_per_channel=True)).",
    ),
    "outlier weights and activations": (
        *_OF_LAYER,
        "channel {weight_channel} of its weights reaches",
        "{weight_outlier:.0f} times the median channel, and its activations lose as well;",
        "even the channels out before rounding (techniques=['equalize']).",
    ),
    "outlier activations": (
        *_OF_LAYER,
        "channel {activation_channel:.0f} of its activations",
        "reaches {activation_outlier:.0f} times the median channel; give this layer more bits.",
    ),
    "batch norm": (
        *_OF_LAYER,
        "the batch norm {batch_norm} after it is not folded,",
        "and multiplies channel {batch_norm_channel:.0f} and its rounding errors",
        "by {batch_norm_spread:.3g} times the median factor.",
    ),
    "clipped": (
        *_OF_LAYER,
        "{clipped_pp} % of its activations on the test images are clipped;",
        "give more calibration images, or Scheme(activation_range='minmax').",
    ),
    "width": (*_OF_LAYER, "its ranges are in order; left in full precision it gives back {left_gain_pp}."),
}


def sentence(found: Diagnosis) -> str:
    """The diagnosis in words."""
    kind, row = found.cause
    if kind == "tracing" and found.exact:
        kind = "folding"
    if kind == "chance" and row is not None:
        kind = "chance, with an outlier"
    if kind == "outlier weights" and row["activations_drop"] > row["weights_drop"] / 2:
        kind = "outlier weights and activations"  # a scale for each channel of the weights is not enough
    loss, widths = found.drop["both"], {str(width) for width in found.bits}
    facts = {"widths": widths.pop() if len(widths) == 1 else "mixed", "classes": found.classes} | (row or {})
    shares = {"loss": loss.estimate, "loss_low": loss.low, "loss_high": loss.high, "guessing": 1 / found.classes}
    shares |= {"accuracy": found.full_precision.estimate, "difference": found.difference}
    shares = {name: value for name, value in facts.items() if isinstance(value, float)} | shares
    return " ".join(PHRASES[kind]).format(**facts, **{f"{name}_pp": f"{100 * shares[name]:.1f}" for name in shares})
