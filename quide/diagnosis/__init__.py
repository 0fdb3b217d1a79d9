"""Where a quantized network loses its accuracy, and why: layer by layer, weights and activations apart."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from quide import evaluate
from quide.data.datasets import BATCH
from quide.diagnosis.ranges import by_layer, grids_of
from quide.diagnosis.sentence import sentence
from quide.evaluate.inputs import Images, calibration_images, check_outputs, gathered
from quide.ptq.check import check_scheme
from quide.ptq.grid import FakeQuantize
from quide.ptq.prepared import META, Prepared, layer_widths, prepare
from quide.ptq.scheme import FULL_PRECISION, PAPER, Scheme
from quide.ptq.width import Bits
from quide.stats import Hits, Interval

OUTLIER = 8  # times the median channel: three bits of the grid serve one channel alone
CLIPPED = 0.01  # share of a layer's activations beyond its grid from which on clipping is named
FOLDED = 1e-4  # of the largest output: what folding a batch norm may change by rounding
ROUNDED = 1e-6  # by which a scale differs where it was rounded another way
SIDES = ("both", "weights", "activations")


def sensitivity(
    model: nn.Module,
    images: Images,
    labels: torch.Tensor | None,
    calibration: torch.Tensor | Iterable,
    bits: Bits | Sequence[Bits] = 4,
    *,
    scheme: Scheme = PAPER,
    keep: Mapping[str, Bits] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """What each layer alone costs in accuracy, and what leaving it alone in full precision gives back.

    Args:
        model, images, labels, calibration: as :func:`quide.sweep` takes them; batches are put together.
        bits, keep: as :func:`quide.quantize` takes them; a layer that ``keep`` names has its width in all networks but
            that of full precision, and no row.
        scheme: the PTQ recipe; 16 bits are always a grid here.
        progress: show a bar over the layers.

    Returns:
        One row a layer: ``layer``; its number of ``weights``; ``accuracy`` (fraction) with that layer alone quantized;
        ``drop`` from full precision, and ``weights_drop`` and ``activations_drop`` with only those of the layer
        rounded; ``left_accuracy`` with every layer quantized but that one, and ``left_gain`` over all quantized.
        Drops and gains have 95 % paired intervals in ``_low`` and ``_high``. ``attrs`` holds ``full_precision`` and
        ``quantized``, the accuracies of the two whole networks.

    Raises:
        ValueError: as :func:`quide.sweep`.
    """
    check_scheme(scheme)
    scheme = replace(scheme, sixteen_bit="grid")
    prepared = prepare(model, calibration_images(calibration, images), scheme, keep=keep, fastest_layout=True)
    return _Bench(prepared, *gathered(images, labels, prepared), bits).sensitivity(progress)


def diagnose(
    model: nn.Module,
    images: Images,
    labels: torch.Tensor | None,
    calibration: torch.Tensor | Iterable,
    bits: Bits | Sequence[Bits] = 4,
    *,
    scheme: Scheme = PAPER,
    keep: Mapping[str, Bits] | None = None,
    quantized: nn.Module | None = None,
    progress: bool = False,
) -> Diagnosis:
    """Find out why a network loses accuracy when it is quantized.

    Args:
        model, images, labels, calibration, bits, scheme, keep, progress: as for :func:`sensitivity`.
        quantized: a network that :func:`quide.quantize` or :func:`quide.load` made of ``model``, to have its grids
            compared with what the calibration images ask for; ``bits``, ``scheme`` and ``keep`` are then its own.

    Raises:
        ValueError: as :func:`quide.sweep`; ``quantized`` is of another kind, or of other layers.
    """
    calibration = calibration_images(calibration, images)
    if quantized is not None:
        how = getattr(quantized, "meta", {}).get(META)
        if how is None:
            raise ValueError(f"quantized must be what quide.quantize returned, got {type(quantized).__name__}")
        bits, scheme, keep = how.bits, how.scheme, how.keep
    check_scheme(scheme)
    fastest = quantized is None or how.fastest_layout
    prepared = prepare(model, calibration, replace(scheme, sixteen_bit="grid"), keep=keep, fastest_layout=fastest)
    if quantized is not None and list(how.layers) != prepared.layers:
        raise ValueError(f"quantized must be made of the model, got one with layers {', '.join(how.layers)}")
    images, labels = gathered(images, labels, prepared)
    bench = _Bench(prepared, images, labels, bits)
    network = bench.network(bench.widths) if quantized is None else quantized
    found = {side: bench.hits(bench.network(bench.widths, side)) for side in SIDES[1:]} | {"both": bench.hits(network)}
    exact, difference = _sanity(model, prepared, calibration, images[:BATCH])
    ranges = by_layer(prepared, bench.widths, grids_of(network), calibration, images)
    return Diagnosis(
        bits=bench.widths,
        images=len(images),
        calibrated_on=len(calibration),
        classes=bench.classes,
        exact=exact,
        difference=difference,
        cleaned=prepared.cleaned,
        full_precision=bench.full.interval(),
        accuracy={side: found[side].interval() for side in SIDES},
        drop={side: bench.full.change(found[side]) for side in SIDES},
        layers=bench.sensitivity(progress).merge(ranges, on="layer"),
        per_channel=scheme.weight_per_channel,
    )


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found.

    Attributes:
        bits: width by layer.
        images, calibrated_on, classes: how many of each.
        exact: whether the traced network at 32 bits, before batch norms are folded, gives exactly the model's outputs.
        difference: the largest change of an output by folding, as a share of the largest output.
        cleaned: number of denormal weights that were set to zero first.
        full_precision: accuracy (fraction) with its 95 % interval.
        accuracy, drop: of the quantized network (``"both"``), and with its ``"weights"`` or ``"activations"`` alone
            rounded; drops are from full precision, with paired intervals.
        layers: :func:`sensitivity`, and by layer: the output channel whose weights reach furthest (``weight_channel``)
            and how many times the median channel that is (``weight_outlier``); the same of its activations on the
            calibration images, and their range; its grid's ``scale`` and ``zero_point`` and the zero point that the
            range asks for (``zero_point_due``); the share of activations beyond the grid, of the test images
            (``clipped``) and of the calibration images (``clipped_calibration``); the share of weights that are rounded
            to zero; the batch norm that was not folded, the channel it multiplies by the largest factor, and how many
            times the median factor that is.
        per_channel: whether each channel's weights have a scale of their own.
    """

    bits: tuple
    images: int
    calibrated_on: int
    classes: int
    exact: bool
    difference: float
    cleaned: int
    full_precision: Interval
    accuracy: dict[str, Interval]
    drop: dict[str, Interval]
    layers: pd.DataFrame = field(repr=False)
    per_channel: bool = False

    @cached_property
    def cause(self) -> tuple[str, dict[str, Any] | None]:
        """Kind of fault, and the row of the layer it is in."""
        rows = self.layers.to_dict("records")
        if self.difference > FOLDED or not (self.exact or self.cleaned):
            return "tracing", None
        rounding = [row for row in rows if pd.notna(row["zero_point"])]
        wrong = [row for row in rounding if row["zero_point"] != row["zero_point_due"]]
        wrong += [row for row in rounding if abs(row["scale_ratio"] - 1) > ROUNDED]
        if wrong:
            return "grid", max(wrong, key=lambda row: row["clipped_calibration"])
        if self.full_precision.low <= 1 / self.classes:
            widest = max(rows, key=lambda row: row["weight_outlier"])
            return "chance", widest if widest["weight_outlier"] >= OUTLIER else None
        if self.drop["both"].low <= 0:
            return "none", None
        worst = max(rows, key=lambda row: row["drop"])
        return ("everywhere", None) if worst["drop_low"] <= 0 else (self._of_layer(worst), worst)

    def _of_layer(self, row: dict[str, Any]) -> str:
        norm = isinstance(row["batch_norm"], str)
        if norm and row["batch_norm_spread"] >= OUTLIER:  # which folding would have evened out
            return "batch norm"
        if row["weight_outlier"] >= OUTLIER and row["weights_drop_low"] > 0 and not self.per_channel:
            return "outlier weights"
        if norm:
            return "batch norm"
        if row["activations_drop"] > row["weights_drop"]:
            if row["clipped"] >= CLIPPED:
                return "clipped"
            if row["activation_outlier"] >= OUTLIER:
                return "outlier activations"
        return "width"

    @property
    def sentence(self) -> str:
        """The diagnosis; every number in it is in :meth:`to_dict`."""
        return sentence(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        kind, row = self.cause
        plain = {
            name: getattr(self, name)
            for name in ("images", "calibrated_on", "classes", "exact", "difference", "cleaned")
        }
        return plain | {
            "bits": [str(width) for width in self.bits],
            "full_precision": asdict(self.full_precision),
            "accuracy": {side: asdict(interval) for side, interval in self.accuracy.items()},
            "drop": {side: asdict(interval) for side, interval in self.drop.items()},
            "guessing": 1 / self.classes,
            "layers": json.loads(self.layers.to_json(orient="records", double_precision=15)),
            "cause": {"kind": kind, "layer": row["layer"] if row else None},
            "diagnosis": self.sentence,
        }


def plot(table: pd.DataFrame) -> Any:
    """:func:`sensitivity` as a matplotlib figure: what each layer costs, worst first, weights and activations apart.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("matplotlib is missing; install it with: pip install 'quide[book]'") from error
    rows = table.sort_values("drop")
    figure = Figure(figsize=(7, 1 + 0.25 * len(rows)), layout="constrained")
    axis, places = figure.subplots(), range(len(rows))
    errors = 100 * abs(rows[["drop_low", "drop_high"]].sub(rows["drop"], axis=0).T.to_numpy())
    axis.barh(places, 100 * rows["drop"], xerr=errors, color="#0072B2", alpha=0.5, label="both [95 %]")
    axis.plot(100 * rows.weights_drop, places, "s", color="#D55E00", label="weights alone")
    axis.plot(100 * rows.activations_drop, places, "o", color="#009E73", label="activations alone")
    axis.set(yticks=places, yticklabels=rows.layer, xlabel="accuracy lost (percentage points)")
    axis.legend()
    return figure


# --- networks and their accuracy -------------------------------------------------------------------------------------


class _Bench:
    """The networks of one width, and how right they are on one test set."""

    def __init__(self, prepared: Prepared, images: torch.Tensor, labels: torch.Tensor, bits: int | Sequence[int]):
        self.prepared, self.images, self.labels = prepared, images, labels
        self.widths = layer_widths(bits, prepared.layers)
        self.classes = _classes(prepared, images, labels)
        self.full = self.hits(prepared.full_precision())

    def hits(self, network: nn.Module) -> Hits:
        predicted = evaluate.predict(network, self.images.split(BATCH))
        return Hits((predicted == self.labels).cpu().numpy())

    def network(self, widths: Sequence, side: str = "both") -> nn.Module:
        """The network at these widths, or with its weights or its activations alone rounded."""
        if side == "both":
            return self.prepared.at(widths)
        network = self.prepared.at(widths, commute=False)
        for name, part in list(network.named_modules()):
            if side == "weights" and isinstance(part, FakeQuantize):
                network.add_submodule(name, nn.Identity())
        for layer in self.prepared.layers if side == "activations" else ():
            network.get_submodule(layer).weight = self.prepared.graph.get_submodule(layer).weight
        return network

    def sensitivity(self, progress: bool) -> pd.DataFrame:
        everything = self.hits(self.network(self.widths))
        rows = []
        for place, layer in enumerate(tqdm(self.prepared.layers, unit="layer", disable=not progress)):
            alone, left = [FULL_PRECISION] * len(self.widths), list(self.widths)
            alone[place], left[place] = self.widths[place], FULL_PRECISION
            both, weights, activations = (self.hits(self.network(alone, side)) for side in SIDES)
            without = self.hits(self.network(left))
            rows.append(
                {"layer": layer, "weights": self.prepared.graph.get_submodule(layer).weight.numel()}
                | {"accuracy": both.accuracy}
                | _columns("drop", self.full.change(both))
                | _columns("weights_drop", self.full.change(weights))
                | _columns("activations_drop", self.full.change(activations))
                | {"left_accuracy": without.accuracy}
                | _columns("left_gain", without.change(everything))
            )
        table = pd.DataFrame(rows)
        table.attrs = {"full_precision": self.full.accuracy, "quantized": everything.accuracy}
        return table


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


@torch.inference_mode()
def _sanity(
    model: nn.Module, prepared: Prepared, calibration: torch.Tensor, images: torch.Tensor
) -> tuple[bool, float]:
    """Whether 32 bits are exactly the model; and by how much folding changes its outputs, of the largest."""
    scheme = replace(prepared.scheme, fold_batch_norm=False)
    unfolded = prepare(model, calibration[:2], scheme, keep=prepared.keep).full_precision()
    expected = copy.deepcopy(model).eval()(images.clone())
    exact = torch.equal(unfolded(images.clone()), expected)
    change = (prepared.full_precision()(images.clone()) - expected).abs().max()
    return exact, float(change / expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny))


@torch.inference_mode()
def _classes(prepared: Prepared, images: torch.Tensor, labels: torch.Tensor) -> int:
    return check_outputs(prepared.full_precision()(images[:1].clone()), labels, rows=1)
