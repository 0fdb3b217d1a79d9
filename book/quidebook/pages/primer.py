"""The primer on quantization: its figures, drawn by this library's own quantizers on a real trained network."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quide import ptq
from quide.experiments import runs
from quide.experiments.profiles import PROFILES
from quide.experiments.runs import GROUP
from quide.ptq.scheme import PER_CHANNEL, PER_TENSOR
from quide.stats import Hits, Interval
from quidebook import report
from quidebook.evidence.conditions import NAMES

if TYPE_CHECKING:  # torch computes what is shown, and is loaded when that is asked for
    import torch
    from torch import nn

    from quide.data.datasets import ImageSet

MODEL, SEED = "simplecnn", 0  # the network whose weights travel with the checkout
SHOWN = 32  # calibration images whose activations are drawn
WIDTHS = (8, 4, 3, 2)  # bits at which accuracy is measured
DB_A_BIT = 20 * math.log10(2)  # halving the step halves the error: a quarter of its power
FIRST, SECOND = "conv1", "conv2"
LIGHT = "#BBBBBB"  # of histograms, for lines to be seen on them


@dataclass(frozen=True)
class Example:
    """A trained network and what is shown of it.

    Attributes:
        name: network and data set, for captions.
        network: in evaluation mode.
        calibration: normalized training images ``(n, c, h, w)``.
        tested: labelled test images.
        activations: by layer, its outputs on the first of the calibration images, flat, before any ReLU.
    """

    name: str
    network: nn.Module
    calibration: torch.Tensor
    tested: ImageSet
    activations: dict[str, torch.Tensor]

    def weight(self, layer: str) -> torch.Tensor:
        """Of a layer, as trained."""
        return self.network.get_submodule(layer).weight.detach()


def example(dataset: str, profile: str) -> Example:
    """The embedded network of a data set; only the smoke profile limits the test images.

    Raises:
        ValueError: unknown profile, or a data set without embedded images.
    """
    from quide.experiments import inputs

    size = PROFILES["smoke"] if profile == "smoke" else PROFILES["quick"]
    case = runs.Case(MODEL, dataset, SEED, size.name)
    network, calibration = inputs.network(case).eval(), inputs.calibration_images(case)
    activations = _outputs(network, calibration[:SHOWN])
    return Example(f"SimpleCNN on {NAMES[dataset]}", network, calibration, inputs.test_images(case), activations)


def _outputs(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each conv and linear layer returns, flat; cloned, since the ReLU behind overwrites it."""
    import torch

    found, watched = {}, copy.deepcopy(network)
    for name in ptq.quantizable_layers(network):
        watched.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: found.update({name: output.clone().flatten()})
        )
    with torch.inference_mode():
        watched(images)
    return found


def signal_to_noise(values: torch.Tensor, rounded: torch.Tensor) -> float:
    """How many decibels the values' power lies above that of what rounding did to them; infinite for no change."""
    noise = float((rounded - values).double().square().sum())
    return math.inf if noise == 0 else 10 * math.log10(float(values.double().square().sum()) / noise)


# --- the grid --------------------------------------------------------------------------------------------------------


def figure_grid(bits: int) -> tuple[Figure, str]:
    """A quantizer for the range −1 to 1: what it makes of a value, and the error."""
    import torch

    values = torch.linspace(-1.5, 1.5, 1501)
    grid = ptq.symmetric_grid(values.new_tensor(-1.0), values.new_tensor(1.0), bits)
    stored, step = ptq.fake_quantize(values, grid), float(grid.scale)
    figure, (left, right) = report.panels(2, height=3)
    left.plot(values, values, color=report.GREY, linestyle="--", label="value itself")
    left.plot(values, stored, color=report.BLUE, label="stored")
    left.set(title=f"{bits} bits: {grid.high - grid.low + 1} levels", xlabel="value", ylabel="stored as")
    left.legend()
    right.plot(values, stored - values, color=report.ORANGE)
    right.axhspan(-step / 2, step / 2, color=report.GREY, alpha=0.2, label="half a step")
    right.set(title="error", xlabel="value", ylabel="stored − value")
    right.legend()
    error = (stored - values).abs()
    inside = float(error[values.abs() <= 1].max())
    alt = (
        f"Left, a staircase of {grid.high - grid.low + 1} steps around a diagonal, flat beyond −1 and 1. Right, a "
        f"sawtooth that reaches {inside:.3f} within the range and {float(error.max()):.2f} at the ends of the axis."
    )
    return figure, alt


# --- clipping against rounding ---------------------------------------------------------------------------------------


def clipping_errors(values: torch.Tensor, bits: int, shares: Sequence[float]) -> pd.DataFrame:
    """Mean squared error of rounding and of clipping, relative to the mean square of the values.

    One row a share: the grid reaches that share of the largest magnitude. Columns: rounding, clipping, total.
    """
    largest, power = values.abs().max(), float(values.double().square().mean())
    rows = []
    for share in shares:
        reach = largest * share
        error = (ptq.fake_quantize(values, ptq.symmetric_grid(-reach, reach, bits)) - values).square()
        outside = values.abs() > reach
        parts = [float(error[where].double().sum()) / len(values) / power for where in (~outside, outside)]
        rows.append((*parts, sum(parts)))
    return pd.DataFrame(rows, index=pd.Index(shares, name="share"), columns=["rounding", "clipping", "total"])


def figure_clipping(shown: Example, bits: int) -> tuple[Figure, str]:
    """Both errors over the range of the grid, at the page's width and at 8 bits, and what three observers choose."""
    weight = shown.weight(SECOND)
    shares = np.linspace(0.05, 1, 39).tolist()
    widths = sorted({bits, 8})
    figure, axes = report.panels(len(widths), height=3.3)
    words = []
    for axis, width in zip(axes, widths, strict=True):
        errors = clipping_errors(weight.flatten(), width, shares)
        for part, color, style in (
            ("rounding", report.BLUE, "--"), ("clipping", report.ORANGE, ":"), ("total", "black", "-"),
        ):  # fmt: skip
            axis.plot(100 * errors.index, errors[part], color=color, linestyle=style, label=part)
        chosen = observers(weight, width)
        for (name, share), marker in zip(chosen.items(), ("o", "s", "^"), strict=True):
            total = clipping_errors(weight.flatten(), width, [share]).total.iloc[0]
            axis.plot(100 * share, total, marker, color="black", markerfacecolor="white", markersize=8, label=name)
        axis.set(title=f"{width} bits", xlabel="range of the grid (% of the largest)", ylabel="error (share of power)")
        axis.set(yscale="log", ylim=(errors.total.min() / 5, 2))
        least = errors.total.idxmin()
        words.append(
            f"at {width} bits the total error is least, {errors.total.min():.2g}, where the grid spans {least:.0%} of "
            f"the range, and {errors.total.iloc[-1]:.2g} at the full range"
        )
    axes[-1].legend(fontsize=8)
    alt = f"Rounding error rises with the range, clipping error falls: {'; '.join(words)}."
    return figure, alt


def observers(weight: torch.Tensor, bits: int) -> dict[str, float]:
    """Share of the full range that each rule of :mod:`quide.ptq.ranges` gives the grid of a weight tensor."""
    from quide.ptq.ranges import weight_range

    full = float(weight.abs().max())
    rules = {"min-max": "minmax", "percentile": "percentile", "least squares": "mse"}
    return {
        name: float(weight_range(weight, rule, bits, ptq.PAPER.percentile, per_channel=False)[1]) / full
        for name, rule in rules.items()
    }


# --- zero point ------------------------------------------------------------------------------------------------------


def figure_zero_point(shown: Example, bits: int) -> tuple[Figure, str]:
    """Activations after the first ReLU, under the levels of a symmetric and of an affine grid."""
    values = shown.activations[FIRST].relu()
    low, high = values.min(), values.max()
    grids = {"symmetric": ptq.symmetric_grid(low, high, bits), "affine": ptq.affine_grid(low, high, bits)}
    figure, axes = report.panels(1, 2, height=4.2, sharex=True)
    words = []
    for axis, (name, grid) in zip(axes, grids.items(), strict=True):
        levels = _draw_levels(axis, values, grid)
        used = int((levels >= 0).sum())
        noise = signal_to_noise(values, ptq.fake_quantize(values, grid))
        axis.set(title=f"{name}: {used} of {len(levels)} levels are of use", ylabel="values")
        words.append(f"{name}, zero point {grid.zero_point}: {used} of {len(levels)} levels of use, {noise:.1f} dB")
    axes[-1].set(xlabel=f"{FIRST} after its ReLU")
    alt = f"Two histograms of values from {float(low):.1f} to {float(high):.1f}. {'; '.join(words)}."
    return figure, alt


def _draw_levels(axis: Axes, values: torch.Tensor, grid: ptq.Grid) -> np.ndarray:
    """A histogram, and the levels of a grid over it, those below zero dotted; the levels."""
    levels = (np.arange(grid.low, grid.high + 1) - grid.zero_point) * float(grid.scale)
    axis.hist(values.numpy(), bins=80, color=LIGHT, log=True)
    for level in levels:
        axis.axvline(level, color=report.ORANGE if level < 0 else report.BLUE, linestyle=":" if level < 0 else "-")
    return levels


# --- before or after the ReLU ----------------------------------------------------------------------------------------


def site_noise(values: torch.Tensor, widths: Sequence[int]) -> pd.DataFrame:
    """Signal to noise (dB) behind the ReLU, by width, with the quantizer before it and after it."""
    rows = []
    for bits in widths:
        kept = values.relu()
        before = ptq.fake_quantize(values, ptq.affine_grid(values.min(), values.max(), bits)).relu()
        after = ptq.fake_quantize(kept, ptq.affine_grid(kept.min(), kept.max(), bits))
        rows.append((signal_to_noise(kept, before), signal_to_noise(kept, after)))
    return pd.DataFrame(rows, index=pd.Index(widths, name="bits"), columns=["before", "after"])


def figure_sites(shown: Example, bits: int) -> tuple[Figure, str]:
    """Where the levels go when the quantizer sits before the ReLU, and what that costs behind it."""
    values = shown.activations[FIRST]
    grid = ptq.affine_grid(values.min(), values.max(), bits)
    figure, (left, right) = report.panels(2, height=3.2)
    levels = _draw_levels(left, values, grid)
    lost = int((levels < 0).sum())
    left.set(title=f"{lost} of {len(levels)} levels are lost", xlabel=f"{FIRST} before its ReLU", ylabel="values")
    found = site_noise(values, range(2, 9))
    right.plot(found.index, found.before, "o--", color=report.ORANGE, label="rounded before")
    right.plot(found.index, found.after, "s-", color=report.BLUE, label="rounded after")
    right.set(title="behind the ReLU", xlabel="bits", ylabel="signal to noise (dB)")
    right.legend()
    gain = found.after - found.before
    alt = (
        f"Left, a histogram with {len(levels)} levels, {lost} of them below zero. Right, two rising lines: after the "
        f"ReLU is better at every width, by {gain.min():.1f} to {gain.max():.1f} dB."
    )
    return figure, alt


def site_gain(shown: Example, bits: int) -> dict[str, float]:
    """What the site is worth at a width, in ``gain`` (dB) and ``worth`` (bits)."""
    before, after = site_noise(shown.activations[FIRST], [bits]).iloc[0]
    return {"bits": bits, "gain": after - before, "worth": (after - before) / DB_A_BIT}


# --- a tensor, a channel or a group ----------------------------------------------------------------------------------


def rounded(weight: torch.Tensor, bits: int, granularity: str | int) -> torch.Tensor:
    """By the library, with one range per tensor, per channel, or per so many weights."""
    from quide.ptq.rounding import round_weight  # loads torch

    return round_weight(weight, bits, granularity)


def channel_noise(weight: torch.Tensor, bits: int) -> pd.DataFrame:
    """One row an output channel, sorted by its largest weight: ``largest``, and signal to noise (dB) with one range per
    ``tensor`` and one per ``channel``."""
    by_range = {name: rounded(weight, bits, name) for name in (PER_TENSOR, PER_CHANNEL)}
    rows = [
        {"largest": float(part.abs().max())}
        | {name: signal_to_noise(part, other[place]) for name, other in by_range.items()}
        for place, part in enumerate(weight)
    ]
    return pd.DataFrame(rows).sort_values("largest", ascending=False, ignore_index=True)


def figure_channels(shown: Example, bits: int) -> tuple[Figure, str]:
    """Ranges of the first layer's channels, and how well each is represented."""
    found = channel_noise(shown.weight(FIRST), bits)
    places = np.arange(1, len(found) + 1)
    figure, (left, right) = report.panels(2, height=3.2)
    left.bar(places, found.largest, color=report.BLUE)
    left.axhline(found.largest.max(), color=report.ORANGE, linestyle="--", label="range of the tensor")
    left.set(xlabel="channel, by its range", ylabel="largest weight", ylim=(0, 1.25 * found.largest.max()))
    left.legend(loc="upper right")
    right.plot(places, found.tensor, "o", color=report.ORANGE, label="one range per tensor")
    right.plot(places, found.channel, "s", color=report.BLUE, markerfacecolor="none", label="one range per channel")
    right.set(xlabel="channel, by its range", ylabel="signal to noise (dB)")
    right.margins(y=0.25)
    right.legend(fontsize=8, loc="upper left")
    ratio = found.largest.max() / found.largest.min()
    worst = found.iloc[-1]
    alt = (
        f"{len(found)} bars, the largest {ratio:.1f} times the smallest. The channel of the smallest weights has "
        f"{worst.tensor:.1f} dB with the tensor's range and {worst.channel:.1f} dB with its own."
    )
    return figure, alt


@report.tabled
def range_table(shown: Example, bits: int) -> Iterator[dict[str, str]]:
    """One row a layer: signal to noise of its weights (dB) with one range per tensor, per channel and per group."""
    for layer in ptq.quantizable_layers(shown.network):
        weight = shown.weight(layer)
        noise = (signal_to_noise(weight, rounded(weight, bits, each)) for each in (PER_TENSOR, PER_CHANNEL, GROUP))
        titles = ("per tensor", "per channel", f"per group of {GROUP}")
        yield {"layer": layer} | dict(zip(titles, (f"{each:.1f} dB" for each in noise), strict=True))


# --- signal to noise by width ----------------------------------------------------------------------------------------


def noise_by_width(shown: Example) -> pd.DataFrame:
    """Signal to noise (dB), one row a width: weights and outputs of each layer, quantized as by :data:`quide.PAPER`."""
    columns, widths = {}, range(2, 13)
    for layer in ptq.quantizable_layers(shown.network):
        weight, values = shown.weight(layer), shown.activations[layer]
        low, high = values.min(), values.max()
        rounded = [ptq.quantized_weight(weight, bits, ptq.PAPER) for bits in widths]
        columns[f"{layer} weights"] = [signal_to_noise(weight, each) for each in rounded]
        rounded = [ptq.fake_quantize(values, ptq.affine_grid(low, high, bits)) for bits in widths]
        columns[f"{layer} outputs"] = [signal_to_noise(values, each) for each in rounded]
    return pd.DataFrame(columns, index=pd.Index(widths, name="bits"))


def figure_bits(shown: Example, found: pd.DataFrame) -> tuple[Figure, str]:
    """Signal to noise of every layer by width (:func:`noise_by_width`), beside the slope of the rule of thumb."""
    figure, (left, right) = report.panels(2, height=3.4, sharey=True)
    for axis, kind in ((left, "weights"), (right, "outputs")):
        colours = (report.BLUE, report.ORANGE, report.GREEN, report.PURPLE)
        for layer, marker, color in zip(ptq.quantizable_layers(shown.network), "osD^", colours, strict=True):
            axis.plot(found.index, found[f"{layer} {kind}"], marker, color=color, linestyle="-", label=layer)
        middle = found.filter(like=kind).loc[8].mean()
        rule = middle + DB_A_BIT * (found.index - 8)
        axis.plot(found.index, rule, color="black", linestyle="--", label="6 dB per bit")
        axis.set(title=kind, xlabel="bits")
    left.set_ylabel("signal to noise (dB)")
    right.legend(fontsize=8)
    slopes = _slopes(found)
    alt = (
        f"Straight lines, nearly parallel to the dashed one: from 4 to 12 bits they rise by {slopes.min():.2f} to "
        f"{slopes.max():.2f} dB per bit. At 4 bits they lie between {found.loc[4].min():.0f} and "
        f"{found.loc[4].max():.0f} dB, at 8 bits between {found.loc[8].min():.0f} and {found.loc[8].max():.0f}."
    )
    return figure, alt


def slopes(found: pd.DataFrame) -> dict[str, float]:
    """The ``least`` and ``most`` dB per bit, and the error as a share of the signal (root mean squares, median over
    weights and outputs) at 8, 4 and 2 bits."""
    measured = _slopes(found)
    noise = 10 ** (-found.loc[[8, 4, 2]].median(axis=1) / 20)
    return {"least": measured.min(), "most": measured.max()} | {f"noise_{bits}": noise[bits] for bits in (8, 4, 2)}


def _slopes(found: pd.DataFrame) -> pd.Series:
    """Mean rise per bit of each column, from 4 to 12 bits."""
    return (found.loc[12] - found.loc[4]) / (12 - 4)


# --- batch norm ------------------------------------------------------------------------------------------------------


def folded(shown: Example) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The first layer's weight before and after folding a batch norm into it, and by how much outputs differ at most.

    The network has none; here one is put behind its first layer, and learns that layer's statistics on real images.
    """
    import torch
    from torch import nn

    layer = copy.deepcopy(shown.network.get_submodule(FIRST))
    norm = nn.BatchNorm2d(layer.out_channels, momentum=None)  # a plain average over the images shown
    images = shown.calibration[:SHOWN]
    with torch.no_grad():
        norm.train()(layer(images))
    both = nn.Sequential(layer, norm.eval())
    merged = ptq.prepare(both, images).at(ptq.FULL_PRECISION)
    with torch.inference_mode():
        difference = float((merged(images) - both(images)).abs().max())
    (after,) = [part.weight.detach() for part in merged.modules() if isinstance(part, nn.Conv2d)]
    return layer.weight.detach(), after, difference


def folding(shown: Example, bits: int) -> dict[str, float]:
    """By how much the folded layer's results ``differ`` at most, and mean dB of a channel ``before`` and ``after``
    folding with one range per tensor, and after it with one per ``channel``."""
    before, after, difference = folded(shown)
    noise = [channel_noise(weight, bits).mean() for weight in (before, after)]
    return {
        "bits": bits,
        "differ": difference,
        "before": noise[0].tensor,
        "after": noise[1].tensor,
        "channel": noise[1].channel,
    }


# --- weights alone ---------------------------------------------------------------------------------------------------


def accuracies(shown: Example) -> dict[int, tuple[Interval, Interval]]:
    """By width, accuracy with weights and activations rounded, and with weights alone (95 %, Wilson)."""
    from quide import evaluate
    from quide.ptq.rounding import round_weights

    prepared, layers = ptq.prepare(shown.network, shown.calibration), ptq.quantizable_layers(shown.network)
    return {
        bits: tuple(
            Hits(evaluate.correct(network, shown.tested).numpy()).interval()
            for network in (prepared.at(bits), round_weights(shown.network, layers, bits))
        )
        for bits in (ptq.FULL_PRECISION, *WIDTHS)
    }


@report.tabled
def weight_only_table(found: Mapping[int, tuple[Interval, Interval]]) -> Iterator[dict[str, str]]:
    """:func:`accuracies` in percent."""
    for bits, measured in found.items():
        cells = (report.with_interval(each, 100, 1) for each in measured)
        yield {"bits": str(bits)} | dict(zip(("weights and activations", "weights alone"), cells, strict=True))


def answer(shown: Example, found: Mapping[int, tuple[Interval, Interval]]) -> dict[str, object]:
    """Accuracies of the network for the head of the page: full precision, 8 and 4 bits, and 4 with weights alone."""
    both, alone = ({bits: each[place].estimate for bits, each in found.items()} for place in (0, 1))
    return {"name": shown.name, "full": both[32], "at_8": both[8], "at_4": both[4], "weights_4": alone[4]}
