"""The page of EXP-2 on ImageNet-1K (§4.2): its tables and its figure, and the facts it tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from quide.experiments.imagenet_runs import LOW_BITS, SCHEMES
from quide.ptq.width import PAPER_BITS, label
from quide.stats import Hits, Interval
from quidebook import report
from quidebook.report import Absent, Facts, gathered, scaled
from quidebook.shared.imagenet import PUBLISHED_IMAGES, RERUN, ImageNetRecords, change, hits, kept, table1
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
BOTH = {"both": "weights per channel, least-squares ranges"}
READING = {"paper": "our reading of the paper's"}  # of the quantizers; the others are named for what they are


def answer(known: ImageNetRecords) -> Facts:
    """What 8 and 4 bits change on the record that is compared with the paper, and what the best quantizer keeps at 4.

    Keys: title, eight and four (change in pp), kept and best_kept (shares, by our reading of the paper's quantizer and
    by the ``best``); the last three NaN and empty without such a record.
    """
    if known.main is None:
        return NO_RECORD
    facts = {"title": titled(known.main.spec.model), "images": known.main.values["images"]}
    facts |= {"eight": scaled(change(known.main, "8")), "four": scaled(change(known.main, "4"))}
    other = known.quantizers.get(known.main.spec.model)
    if other is None:
        return facts | {"kept": np.nan, "best_kept": np.nan, "best": ""}
    name = max(SCHEMES, key=lambda scheme: other.values["accuracy"][f"{scheme}, 4"])
    facts |= {"kept": kept(other, "paper, 4"), "best_kept": kept(other, f"{name}, 4")}
    return facts | {"best": BOTH.get(name, name)}


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


def accuracy_table(known: ImageNetRecords) -> pd.DataFrame:
    """:func:`quidebook.shared.imagenet.table1` of the networks that there are records of."""
    table = table1(known)
    return table[table.network.isin([titled(model) for model in known.accuracy])]


@gathered
def held_out(known: ImageNetRecords) -> Iterator[dict[str, object]]:
    """The 8-bit change (pp) on the images that were not calibrated on, and on all: title, fresh (how many), change,
    change_of_all. Nothing where all images are of one kind."""
    for model, record in known.accuracy.items():
        fresh = ~Hits.unpacked(record.values["calibrated_on"]).correct
        if fresh.all() or not fresh.any():
            continue
        full, narrow = (Hits(hits(record, name).correct[fresh]) for name in ("32", "8"))
        row = {"title": titled(model), "fresh": int(fresh.sum()), "change": scaled(narrow.change(full))}
        yield row | {"change_of_all": scaled(change(record, "8"))}


def figure_accuracy(known: ImageNetRecords) -> tuple[Figure, str]:
    """A figure and what is seen: accuracy against bits: ours, the paper's, and other quantizers at 8 and 4 bits."""
    figure, (left, right) = report.panels(2, width=7.4, height=3.6, sharey=True)
    stated, words = 100 * stated_rows().accuracy, []
    hollow = {"color": report.ORANGE, "markerfacecolor": "none", "markersize": 8, "label": "ResNet-18, the paper"}
    left.plot(report.positions(PAPER_BITS, list(stated.index)), stated, "D", **hollow)
    for model, record in known.accuracy.items():
        bounds = {bits: scaled(hits(record, label(bits)).interval()) for bits in PAPER_BITS}
        words.append(_bars(left, PAPER_BITS, bounds, STYLES[model], f"{titled(model)}, ours"))
    report.bit_axis(left, PAPER_BITS)
    left.set(ylabel="top-1 accuracy (%)", ylim=(-2, 102), title="our reading of the paper's quantizer")
    left.legend(fontsize=8, loc="lower left")
    for model, record in known.quantizers.items():
        for place, (scheme, style) in enumerate(SCHEME_STYLES.items()):
            bounds = {bits: scaled(hits(record, f"{scheme}, {bits}").interval()) for bits in LOW_BITS}
            shift, name = 0.12 * (place - (len(SCHEME_STYLES) - 1) / 2), READING.get(scheme, scheme)
            words.append(f"{titled(model)}, {_bars(right, LOW_BITS, bounds, style, name, shift)}")
        right.legend(fontsize=8, loc="lower left")
    if not known.quantizers:
        right.text(0.5, 50, report.NO_RECORD, ha="center")
    report.bit_axis(right, LOW_BITS)
    right.set(
        title="other quantizers keep more at 4 bits" if _better(known) else "by quantizer",
        xlim=(-0.5, len(LOW_BITS) - 0.5),
    )
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
            "accuracy": scaled(hits(record, name := f"{scheme}, {bits}").interval()),
            "kept": scaled(kept(record, name)),
            "change": np.nan if scheme == "paper" else scaled(change(record, name, f"paper, {bits}")),
        }
        for model, record in known.quantizers.items()
        for scheme in SCHEMES
        for bits in LOW_BITS
    ]


def _better(known: ImageNetRecords) -> bool:
    """Whether another quantizer than the paper's keeps clearly more at 4 bits on every network."""
    low = [
        kept(record, f"{scheme}, 4")
        for record in known.quantizers.values()
        for scheme in ("paper", max(SCHEMES, key=lambda each, of=record: of.values["accuracy"][f"{each}, 4"]))
    ]
    return bool(low) and all(one.high < best.low for one, best in zip(low[::2], low[1::2], strict=True))


def _bars(
    axis, bits: Sequence[int], bounds: dict[int, Interval], style: tuple[str, str], name: str, shift: float = 0
) -> str:
    """Draws the intervals; what is seen, in words."""
    places = [place + shift for place in report.positions(bits, bits)]
    report.error_bars(axis, places, bounds.values(), fmt=style[0], color=style[1], label=name)
    return f"{name}: {report.points(pd.Series({width: each.estimate for width, each in bounds.items()}), 1)}"
