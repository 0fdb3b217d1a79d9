"""The page of EXP-2 on ImageNet-1K (§4.2): which runs it needs, its tables and its figure, and the facts it tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from quide import metric, stats
from quide.experiments import imagenet_runs, paper, records
from quide.experiments.imagenet_runs import CONDITION, LOW_BITS, PROFILE, SCHEMES, SEARCHED, UNTIMED
from quide.ptq.width import PAPER_BITS, label
from quide.stats import Hits, Interval
from quidebook import report
from quidebook.report import UNKNOWN, Absent
from quidebook.shared.imagenet import PAPERS, PUBLISHED_IMAGES, RERUN, ImageNetRecords, change, hits, kept
from quidebook.shared.imagenet import stated as stated_rows
from quidebook.shared.imagenet import title as titled

NO_RECORD = Absent("ImageNet", f"QUIDE_IMAGENET=<folder> {RERUN}")
STYLES = {"resnet18": ("s-", report.PURPLE), "resnet50": ("o-", report.BLUE)}
SCHEME_STYLES = {
    "paper": ("o", report.BLUE),
    "weights per channel": ("^", report.GREEN),
    "least-squares ranges": ("v", report.PURPLE),
    "both": ("P", report.GREY),
}
READING = {"paper": "our reading of the paper's"}  # of the quantizers; the others are named for what they are


# --- what is run -----------------------------------------------------------------------------------------------------


def run(
    models: Sequence[str],
    seeds: Sequence[int],
    images: int | None,
    few: int,
    fewer: int,
    fewest: int,
    profile: str,
) -> None:
    """Every run of the page where there is no record, at profile ``paper`` and with ``QUIDE_IMAGENET`` set.

    Nothing of ImageNet is embedded, so that the other profiles only read records. A network that cannot be had is said
    to be absent, and the next one is run.

    Args:
        models: networks of ImageNet, see :data:`quide.models.pretrained.NETWORKS`.
        seeds: of the calibration draw.
        images: how many validation images accuracy is measured on; None for all.
        few: likewise, for the quantizers that the paper does not describe.
        fewer: likewise, for the genetic search of mixed precision.
        fewest: likewise, for every one of its configurations.
        profile: ``"smoke"``, ``"quick"`` or ``"paper"``.
    """
    from quide.data import imagenet  # with torch, which a page that shows records does not need

    if profile != PROFILE or imagenet.folder() is None:
        return
    for model in models:
        for seed in seeds:
            try:
                imagenet_runs.accuracy(imagenet_runs.ImageNetCase(model, seed, images)).result()
                imagenet_runs.quantizers(imagenet_runs.ImageNetCase(model, seed, few)).result()
                imagenet_runs.mixed(imagenet_runs.ImageNetCase(model, seed, fewer), "genetic").result()
                imagenet_runs.mixed(imagenet_runs.ImageNetCase(model, seed, fewest), "exhaustive").result()
            except FileNotFoundError as error:
                report.say(f"{titled(model)} was not run: {error}.")
                break


# --- accuracy --------------------------------------------------------------------------------------------------------


def images(known: ImageNetRecords) -> list[dict[str, object]]:
    """What each network was run on: title, weights, images, calibration, seen (of those, among the images), seed,
    accuracy in full precision (fraction), and whether it is the whole validation set."""
    return [
        {
            "title": titled(model),
            "weights": record.spec.details["weights"],
            "images": record.values["images"],
            "calibration": record.spec.details["calibration"],
            "seen": int(Hits.unpacked(record.values["calibrated_on"]).correct.sum()),
            "seed": record.spec.seed,
            "accuracy": record.values["accuracy"]["32"],
            "whole": record.values["images"] >= PUBLISHED_IMAGES,
        }
        for model, record in known.accuracy.items()
    ]


def held_out(known: ImageNetRecords) -> list[dict[str, object]]:
    """The 8-bit change (pp) on the images that were not calibrated on, and on all: title, fresh (how many), change,
    change_of_all. Nothing where all images are of one kind."""
    facts = []
    for model, record in known.accuracy.items():
        fresh = ~Hits.unpacked(record.values["calibrated_on"]).correct
        if fresh.all() or not fresh.any():
            continue
        full, narrow = (Hits(hits(record, name).correct[fresh]) for name in ("32", "8"))
        row = {"title": titled(model), "fresh": int(fresh.sum()), "change": _percent(narrow.change(full))}
        facts.append(row | {"change_of_all": _percent(change(record, "8"))})
    return facts


def figure_accuracy(known: ImageNetRecords) -> tuple[Figure, str]:
    """A figure and what is seen: accuracy against bits: ours, the paper's, and other quantizers at 8 and 4 bits."""
    figure, (left, right) = report.panels(2, width=7.4, height=3.4, sharey=True)
    stated, words = 100 * stated_rows().accuracy, []
    hollow = {"color": report.ORANGE, "markerfacecolor": "none", "markersize": 8, "label": "ResNet-18, the paper"}
    left.plot(report.positions(PAPER_BITS, list(stated.index)), stated, "D", **hollow)
    for model, record in known.accuracy.items():
        bounds = {bits: _percent(hits(record, label(bits)).interval()) for bits in PAPER_BITS}
        words.append(_bars(left, PAPER_BITS, bounds, STYLES[model], f"{titled(model)}, ours"))
    report.bit_axis(left, PAPER_BITS)
    left.set(ylabel="top-1 accuracy (%)", ylim=(-2, 102), title="by width")
    left.legend(fontsize=8)
    for model, record in known.quantizers.items():
        for place, (scheme, style) in enumerate(SCHEME_STYLES.items()):
            bounds = {bits: _percent(hits(record, f"{scheme}, {bits}").interval()) for bits in LOW_BITS}
            shift, name = 0.12 * (place - (len(SCHEME_STYLES) - 1) / 2), READING.get(scheme, scheme)
            words.append(f"{titled(model)}, {_bars(right, LOW_BITS, bounds, style, name, shift)}")
        right.legend(fontsize=8, loc="lower left")
    if not known.quantizers:
        right.text(0.5, 50, "no record", ha="center")
    report.bit_axis(right, LOW_BITS)
    right.set(title="by quantizer", xlim=(-0.5, len(LOW_BITS) - 0.5))
    alt = "; ".join([*words, f"ResNet-18, the paper: {report.points(stated, 1)}"])
    return figure, f"Plots by bit-width, in %. {alt}."


def quantizers(known: ImageNetRecords) -> list[dict[str, object]]:
    """Every quantizer at 8 and 4 bits: quantizer, network, bits, images; accuracy, kept (of full precision) and change
    (from quide.PAPER, paired), all in percent with their intervals, the change of quide.PAPER itself unknown."""
    return [
        {
            "quantizer": f"{READING[scheme]} (quide.PAPER)" if scheme in READING else scheme,
            "network": titled(model),
            "bits": bits,
            "images": record.values["images"],
            "accuracy": _percent(hits(record, name := f"{scheme}, {bits}").interval()),
            "kept": _percent(kept(record, name)),
            "change": np.nan if scheme == "paper" else _percent(change(record, name, f"paper, {bits}")),
        }
        for model, record in known.quantizers.items()
        for scheme in SCHEMES
        for bits in LOW_BITS
    ]


# --- mixed precision -------------------------------------------------------------------------------------------------


def scores(record: records.Record) -> pd.DataFrame:
    """Every configuration that was tried, by its name, best first: accuracy (fraction), I' at equal latency (score),
    and place: 1 for the best; those with equal scores share the first of their places."""
    values = record.values
    compression = [metric.compression_ratio(_widths(name)) for name in values["configurations"]]
    limit = paper.threshold(CONDITION, values["full_precision_accuracy"])
    score = metric.gated_index(compression, values["accuracy"], UNTIMED, limit)
    frame = pd.DataFrame({"accuracy": values["accuracy"], "score": score}, index=values["configurations"])
    frame["place"] = frame.score.rank(method="min", ascending=False).astype(int)
    return frame.sort_values("place", kind="stable")


def configurations(explored: Mapping[str, records.Record], most: int = 6) -> list[dict[str, object]]:
    """The configurations with the highest I' at equal latency, then the paper's and the uniform ones.

    Keys: widths, network, place, of (how many), accuracy (in percent, with its interval), compression and by_size, gain
    (I' over that of uniform 8 bits, unknown where that is zero).

    Args:
        explored: ``searched`` or ``every`` of :class:`ImageNetRecords`.
        most: how many of the highest.
    """
    facts = []
    for model, record in explored.items():
        ranked, values = scores(record), record.values
        always = [name == label(SEARCHED) or len(set(_widths(name))) == 1 for name in ranked.index]
        for name, row in ranked[always | (np.arange(len(ranked)) < most)].iterrows():
            interval = stats.wilson_interval(round(row.accuracy * values["images"]), values["images"])
            uniform = ranked.score[_uniform(8)]
            cells = {"widths": name, "network": titled(model), "place": int(row.place), "of": len(ranked)}
            cells |= {"accuracy": _percent(interval), "gain": row.score / uniform if uniform else np.nan}
            cells |= {"compression": metric.compression_ratio(_widths(name))}
            facts.append(cells | {"by_size": metric.compression_ratio(_widths(name), values["num_weights"])})
    return facts


def searches(known: ImageNetRecords) -> list[dict[str, object]]:
    """How the space was explored: title, evaluated, space, images; and passes: what all of it by a prefix tree would
    cost, in plain forward passes per image."""
    return [
        {
            "title": titled(model),
            "evaluated": len(record.values["configurations"]),
            "space": len(record.spec.details["choices"]) ** len(record.values["groups"]),
            "images": record.values["images"],
            "passes": record.values["tree_passes"],
        }
        for model, record in known.searched.items()
    ]


def whole_space(known: ImageNetRecords) -> list[dict[str, object]]:
    """What the whole space says of the search and of the paper's widths, by network.

    Keys: title, configurations, images, widths (the paper's); the places of those (paper), of uniform 8 bits (uniform)
    and of what the search liked best (best, its place liked; absent without a search); narrow: the configurations with
    4 bits somewhere and 2 nowhere, and how many of these stay above the threshold (working).
    """
    facts = []
    for model, record in known.every.items():
        ranked = scores(record)
        narrow = ranked[[4 in _widths(name) and 2 not in _widths(name) for name in ranked.index]]
        row = {"title": titled(model), "configurations": len(ranked), "images": record.values["images"]}
        row |= {"widths": label(SEARCHED), "paper": ranked.place[label(SEARCHED)], "uniform": ranked.place[_uniform(8)]}
        row |= {"narrow": len(narrow), "working": int((narrow.score > 0).sum())}
        if model in known.searched:
            best = scores(known.searched[model]).index[0]
            row |= {"best": best, "liked": ranked.place[best]}
        facts.append(row)
    return facts


# --- the end of the page ---------------------------------------------------------------------------------------------


def absent_table(known: ImageNetRecords) -> pd.DataFrame:
    """What has not been run, and the command that runs it."""
    rows = []
    if PAPERS not in known.accuracy or known.accuracy[PAPERS].values["images"] < PUBLISHED_IMAGES:
        rows.append(
            ("the paper's network on the validation set", "its weights, or the images, were not at hand", RERUN)
        )
    if not known.quantizers:
        rows.append(("quantizers that the paper does not describe", "no record yet", RERUN))
    if not known.every:
        rows.append(("every mixed-precision configuration", "no record yet", RERUN))
    rows.append(("latency", "not timed: I' is given at equal latency", UNKNOWN))
    return pd.DataFrame(rows, columns=["absent", "why", "command, with QUIDE_IMAGENET set"])


# --- helpers ---------------------------------------------------------------------------------------------------------


def _widths(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split("-")))


def _uniform(bits: int) -> str:
    return label((bits,) * len(SEARCHED))


def _percent(interval: Interval) -> Interval:
    return Interval(100 * interval.estimate, 100 * interval.low, 100 * interval.high)


def _bars(
    axis, bits: Sequence[int], bounds: dict[int, Interval], style: tuple[str, str], name: str, shift: float = 0
) -> str:
    """Draws the intervals; what is seen, in words."""
    middle, low, high = (np.array([getattr(b, end) for b in bounds.values()]) for end in ("estimate", "low", "high"))
    places = [place + shift for place in report.positions(bits, bits)]
    axis.errorbar(
        places, middle, yerr=[middle - low, high - middle], fmt=style[0], color=style[1], capsize=3, label=name
    )
    return f"{name}: {report.points(pd.Series(middle, list(bounds)), 1)}"
