"""A network of the user's scored at a few widths (§5, Guideline 2), and what to make of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from quide import evaluate, latency, metric, stats
from quide._check import evaluating
from quide.cli import output
from quide.cli.files import ARRAYS, Data, Score, brief, read_data, read_network  # noqa: F401 - what a probe starts from
from quide.evaluate import inputs, knees
from quide.experiments import provenance
from quide.ptq.scheme import FULL_PRECISION, HALF_PRECISION
from quide.ptq.width import Bits, Width
from quide.stats import Hits

WIDTHS = (8, 4)  # the two points of the paper's probe
PASSES = 100  # timed passes; a tenth of the paper's, as a probe is to be quick
WARMUP_SHARE = 10  # one untimed pass for so many timed ones, as in §3.3
WITH_KERNELS = (FULL_PRECISION, HALF_PRECISION, 8)  # widths that common processors compute in
SURE = 0.95  # share of resampled test sets from which on the images settle it
CALIBRATION_SIZE = 512  # §3.3
FORMATS = (".csv", ".json")


@dataclass(frozen=True)
class Probe:
    """A network scored at full precision and at some narrower widths.

    Attributes:
        table: one row a width, widest first: what :func:`quide.sweep` returns, and ``accuracy_low``, ``accuracy_high``
            (95 % Wilson interval) and ``knee_probability``, the share of resampled test sets in which the width has the
            highest I'; NaN where a score of the user's was counted.
        images: number of test images.
        correct, num_classes: bool ``(widths, images)``, which test images were right, and outputs of the network; None
            where a score was counted.
        tolerance, threshold: delta of Eq. 4, and what it gives.
        calibrated_on: number of calibration images.
        timings: of the latencies in the table.
        guesses: whether full precision is not clearly better than guessing.
    """

    table: pd.DataFrame
    images: int
    correct: np.ndarray | None
    num_classes: int | None
    tolerance: float
    threshold: float
    calibrated_on: int
    timings: latency.Timings
    guesses: bool = False

    @property
    def knee(self) -> Bits | None:
        """The width with the highest I'; None when none is above the threshold, or full precision guesses."""
        if self.guesses:
            return None
        return metric.knee(self.table.bits, self.table.gated_index)

    @property
    def knee_at_equal_latency(self) -> Bits | None:
        """The same, were all widths equally fast."""
        return metric.knee(
            self.table.bits, metric.gated_index(self.table.compression, self.table.accuracy, 1.0, self.threshold)
        )

    def probability(self, bits: Bits | None) -> float:
        """Share of resampled test sets in which ``bits`` is the knee; None stands for no knee."""
        if bits is None:
            return 1 - self.table.knee_probability.sum()
        return float(self.table.set_index("bits").knee_probability[bits])

    def change(self, bits: Bits, against: Bits) -> stats.Interval:
        """Accuracy (fraction) of ``bits`` less that of ``against``, on the same images."""
        before, after = (Hits(self.correct[list(self.table.bits).index(width)]) for width in (against, bits))
        return after.change(before)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the advice and with who made them."""
        facts = {name: getattr(self, name) for name in ("tolerance", "threshold", "num_classes", "calibrated_on")}
        table = self.table.assign(bits=[_plain(width) for width in self.table.bits])
        rows = json.loads(table.to_json(orient="records", double_precision=15))
        said = {"knee": _plain(self.knee), "advice": advice(self)}
        return {**facts, **said, "rows": rows, "timings": self.timings.to_dict(), "provenance": provenance.collect()}


def probe(
    model: nn.Module,
    data: Data,
    bits: Sequence[Bits] = WIDTHS,
    *,
    tolerance: float = 0.05,
    passes: int = PASSES,
    keep: Mapping[str, Bits] | None = None,
    score: Score | None = None,
    progress: bool = False,
) -> Probe:
    """Score a network at full precision and at the given widths, two by default: the probe of the paper's Guideline 2.

    Args:
        model, keep: as :func:`quide.quantize` takes them.
        data: what to test and to calibrate it on.
        bits: uniform widths; 32 is always added, since the threshold and every comparison need it.
        tolerance: accuracy (fraction) you are prepared to lose, the delta of Eq. 4.
        passes: timed passes a width.
        score: counted instead of accuracy, as :func:`quide.sweep` takes it.
        progress: show how far it is.

    Raises:
        ValueError: as :func:`quide.sweep`; no width below 32; a network that does not take the images, or a label that
            is not one of its outputs.
    """
    widths = sorted({FULL_PRECISION, *metric.bit_widths(bits)}, reverse=True)
    if len(widths) == 1:
        raise ValueError(f"bits must name a width below {FULL_PRECISION}, such as 8")
    outputs = _outputs(model, data)
    classes = None if score else inputs.check_outputs(outputs, data.labels, rows=1)
    table = evaluate.sweep(
        model, data.images, data.labels, data.calibration, widths,
        tolerance=tolerance, num_classes=classes, warmup=max(1, passes // WARMUP_SHARE), passes=passes,
        keep=keep, score=score, progress=progress,
    )  # fmt: skip
    found, table.attrs = table.attrs, {}
    facts = (tolerance, found["threshold"], len(data.calibration), found["timings"])
    if score is not None:
        table[["accuracy_low", "accuracy_high", "knee_probability"]] = np.nan
        return Probe(table, len(data.images), None, None, *facts)
    hits = [Hits.unpacked(found["correct"][evaluate.label(width)]) for width in widths]
    correct, intervals = np.stack([each.correct for each in hits]), [each.interval() for each in hits]
    drawn = stats.bootstrap_knee(
        correct[None], table.latency_ms, widths,
        tolerance=tolerance, num_classes=classes, compression=table.compression,
    )  # fmt: skip
    table["accuracy_low"], table["accuracy_high"] = zip(*((each.low, each.high) for each in intervals), strict=True)
    guesses = not knees.beats_guessing(correct[0], data.labels.cpu().numpy(), classes)
    table["knee_probability"] = [drawn.probability[width] for width in widths]
    return Probe(table, len(data.images), correct, classes, *facts, guesses)


def _outputs(model: nn.Module, data: Data) -> torch.Tensor:
    """What the network returns for one image, before hours are spent on the others."""
    if len(data.images) == 0:
        raise ValueError("images are none; give the images of a test set")
    shape = tuple(data.images.shape[1:])
    copied = evaluating(model)
    try:
        with torch.inference_mode():
            outputs = copied(data.images[:1].clone())
    except (Exception, SystemExit) as error:  # the user's own code
        raise ValueError(
            f"the network does not take an image of shape {shape} ({brief(error)}); "
            "store images as the network takes them: (n, channels, height, width) for a convolution"
        ) from error
    if not isinstance(outputs, torch.Tensor):
        raise ValueError(f"the network must return one score a class, (n, classes), got {type(outputs).__name__}")
    return outputs


# --- what to make of it ----------------------------------------------------------------------------------------------


def advice(found: Probe) -> list[str]:
    """What to do, and how sure that is: sentences, the recommendation first."""
    full = found.table.iloc[0]
    if found.guesses:
        return [
            f"At {FULL_PRECISION} bits the network is right for {full.accuracy:.1%} of the images, hardly more than by "
            "guessing: nothing can be said of narrower widths. Were the weights loaded, and are the images normalized "
            "as in training?"
        ]
    return [*_recommendation(found), *_changes(found), *_reservations(found)]


def _recommendation(found: Probe) -> list[str]:
    best = found.knee
    if best is None:
        return ["No width is above the threshold: allow a larger --tolerance."]
    if best == FULL_PRECISION:
        said = f"Stay at {FULL_PRECISION} bits: at this tolerance none of the narrower widths is worth it."
    else:
        said = f"Use {spoken(best)}: highest I' of the widths tried."
    return [f"{said} {_certainty(found, best)}".strip(), *_what_next(found, best)]


def spoken(width: Bits) -> str:
    """A width in words."""
    if isinstance(width, Width):
        return f"weights of {width.weights} bits with activations of {width.activations}"
    return f"{width} bits"


def _plain(width: Bits | None) -> int | str | None:
    return str(width) if isinstance(width, Width) else width


def _certainty(found: Probe, best: Bits) -> str:
    if found.correct is None:
        return ""
    share = found.probability(best)
    if share >= SURE:
        return f"So it is in {share:.0%} of the test sets drawn again from yours."
    second = found.table.set_index("bits").knee_probability.drop(best).idxmax()
    return (
        f"But the {found.images} test images do not settle it: {spoken(best)} come first in {share:.0%} of the test "
        f"sets drawn again from yours, {spoken(second)} in {found.probability(second):.0%}. Use more images, or be "
        f"content with {spoken(max(best, second))}."
    )


def _what_next(found: Probe, best: Bits) -> list[str]:
    """What lies between the best width and the next narrower one."""
    narrower = found.table.bits[found.table.bits < best]
    if narrower.empty:
        return []
    if best == FULL_PRECISION:
        tried = narrower.max() >= HALF_PRECISION
        return [] if tried else [f"Or try {HALF_PRECISION} bits: --bits {HALF_PRECISION},{narrower.max()}."]
    between = f"{spoken(best)} and {spoken(narrower.max())}"
    return [f"Between {between} lies mixed precision, a width for each layer: see quide.search."]


def _changes(found: Probe) -> list[str]:
    """The accuracy of each width against that of the next wider one."""
    said = []
    if found.correct is None:
        return said
    for wide, narrow in zip(found.table.bits, found.table.bits[1:], strict=False):
        change = found.change(narrow, wide)
        points = f"{100 * change.estimate:+.2f} percentage points [{100 * change.low:+.2f}, {100 * change.high:+.2f}]"
        chance = ", which may be chance" if change.low <= 0 <= change.high else ""
        said.append(f"Accuracy of {spoken(narrow)} against {wide}: {points}{chance}.")
    return said


def _reservations(found: Probe) -> list[str]:
    said = []
    if (equal := found.knee_at_equal_latency) != found.knee and equal is not None:
        said.append(
            f"The latencies decide: were all widths equally fast, it would be {spoken(equal)}. They are those of "
            "simulated quantization, slower than the network it imitates; measure on the device you have in mind."
        )
    if found.timings.noisy:
        rests = "rests on it" if found.knee_at_equal_latency != found.knee else "is the same at equal latencies"
        said.append(
            f"The timing is noisy: {'; '.join(found.timings.reasons)}. The recommendation {rests}; "
            "time again on a quiet machine."
        )
    if found.knee not in (None, *WITH_KERNELS):
        said.append(
            f"Few devices have a kernel for {spoken(found.knee)}: without one the network is smaller in storage alone, "
            "not faster."
        )
    if found.calibrated_on < CALIBRATION_SIZE:
        said.append(f"Only {found.calibrated_on} calibration images; the paper uses {CALIBRATION_SIZE}.")
    return said


def as_text(found: Probe) -> str:
    """The table in fixed columns, and the advice under it."""
    rows = [
        {
            "bits": row["bits"],
            "C": f"{row['compression']:.2f}",
            "P (%) [95 %]" if found.correct is not None else "score (%)": percent(row),
            "T (ms)": f"{row['latency_ms']:.3f}",
            "I": f"{row['index']:.3f}",
            "I'": f"{row['gated_index']:.3f}",
        }
        | ({} if found.correct is None else {"P(knee)": f"{row['knee_probability']:.2f}"})
        for row in found.table.to_dict("records")
    ]
    return "\n".join([pd.DataFrame(rows).to_string(index=False), "", _conditions(found), *advice(found)])


def percent(row: dict[str, Any]) -> str:
    values = [100 * row[name] for name in ("accuracy", "accuracy_low", "accuracy_high")]
    return f"{values[0]:.2f}" if np.isnan(values[1]) else "{:.2f} [{:.2f}, {:.2f}]".format(*values)


def _conditions(found: Probe) -> str:
    passes = found.timings.latencies[str(FULL_PRECISION)].passes
    said = f"P: {found.images} images; I' counts what is above {found.threshold:.2%}, from a tolerance of "
    timed = f"median of {passes} passes of {min(latency.BATCH_SIZE, found.images)} images, simulated quantization"
    return f"{said}{found.tolerance:g}. T: {timed}."


def save(found: Probe, file: Path) -> None:
    """Write the table as ``.csv``, or everything as ``.json``."""
    table = file.suffix == ".csv"
    output.write(file, found.table.to_csv(index=False) if table else json.dumps(found.to_dict(), indent=1) + "\n")
