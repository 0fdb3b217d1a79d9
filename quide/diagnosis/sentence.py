"""A diagnosis in one sentence: its kinds of fault in words, every number from the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quide.diagnosis import Diagnosis


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _loss(found: Diagnosis) -> Iterator[str]:
    drop = found.drop["both"]
    widths = {str(width) for width in found.bits}
    yield f"At {widths.pop() if len(widths) == 1 else 'mixed'} bits the network loses {_percent(drop.estimate)}"
    yield f"percentage points [{_percent(drop.low)}, {_percent(drop.high)}]"


def _layer_loss(found: Diagnosis, row: dict[str, Any]) -> Iterator[str]:
    yield from _loss(found)
    yield f"and layer {row['layer']} alone {_percent(row['drop'])}"
    yield f"(weights {_percent(row['weights_drop'])}, activations {_percent(row['activations_drop'])}):"


def _tracing(found: Diagnosis, row: None) -> Iterator[str]:
    yield "At 32 bits the network is not the model:"
    if not found.exact:
        yield "tracing changed what it computes."
        return
    yield "folding its batch norms changed what it computes,"
    yield f"by up to {_percent(found.difference)} % of its largest output."


def _wrong_grid(found: Diagnosis, row: dict[str, Any]) -> Iterator[str]:
    yield f"The activations of layer {row['layer']} are rounded with the wrong grid:"
    yield f"zero point {row['zero_point']:.0f}, the calibration images ask for {row['zero_point_due']:.0f};"
    yield f"scale {row['scale_ratio']:.3g} times theirs;"
    yield f"{_percent(row['clipped_calibration'])} % of their activations are clipped."


def _at_chance(found: Diagnosis, row: dict[str, Any] | None) -> Iterator[str]:
    yield f"At full precision the network is right for {_percent(found.full_precision.estimate)} %,"
    yield f"and guessing among {found.classes} classes for {_percent(1 / found.classes)} %:"
    if row is not None:
        yield f"channel {row['weight_channel']} of the weights of layer {row['layer']}"
        yield f"reaches {row['weight_outlier']:.0f} times the median channel;"
    yield "check weights, labels and normalization first."


def _no_loss(found: Diagnosis, row: None) -> Iterator[str]:
    yield from _loss(found)
    yield "which may be chance: nothing to put right."


def _everywhere(found: Diagnosis, row: None) -> Iterator[str]:
    yield from _loss(found)
    yield "and no layer alone more than chance: use more bits."


def _outlier_weights(found: Diagnosis, row: dict[str, Any]) -> Iterator[str]:
    yield from _layer_loss(found, row)
    yield f"channel {row['weight_channel']} of its weights reaches"
    yield f"{row['weight_outlier']:.0f} times the median channel,"
    yield f"so that {_percent(row['weights_zeroed'])} % of its weights round to zero;"
    yield "give each channel a scale (Scheme(weight_per_channel=True))."


def _outlier_activations(found: Diagnosis, row: dict[str, Any]) -> Iterator[str]:
    yield from _layer_loss(found, row)
    yield f"channel {row['activation_channel']:.0f} of its activations"
    yield f"reaches {row['activation_outlier']:.0f} times the median channel; give this layer more bits."


def _not_folded(found: Diagnosis, row: dict[str, Any]) -> Iterator[str]:
    yield from _layer_loss(found, row)
    yield f"the batch norm {row['batch_norm']} after it is not folded,"
    yield f"and multiplies channel {row['batch_norm_channel']:.0f} and its rounding errors"
    yield f"by {row['batch_norm_spread']:.3g} times the median factor."


def _too_clipped(found: Diagnosis, row: dict[str, Any]) -> Iterator[str]:
    yield from _layer_loss(found, row)
    yield f"{_percent(row['clipped'])} % of its activations on the test images are clipped;"
    yield "give more calibration images, or Scheme(activation_range='minmax')."


def _width(found: Diagnosis, row: dict[str, Any]) -> Iterator[str]:
    yield from _layer_loss(found, row)
    yield f"its ranges are in order; left in full precision it gives back {_percent(row['left_gain'])}."


PHRASES = {
    "tracing": _tracing,
    "grid": _wrong_grid,
    "chance": _at_chance,
    "none": _no_loss,
    "everywhere": _everywhere,
    "outlier weights": _outlier_weights,
    "outlier activations": _outlier_activations,
    "batch norm": _not_folded,
    "clipped": _too_clipped,
    "width": _width,
}
