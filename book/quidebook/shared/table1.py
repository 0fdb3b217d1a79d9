"""The conditions of Table 1 for the pages on them: rows of the table, Figures 1 and 2, latencies, the knee."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from quide import metric
from quide.experiments import paper, records, runs, select
from quide.latency import AA_LIMIT, SPREAD_LIMIT
from quide.ptq.width import PAPER_BITS, label
from quidebook import report
from quidebook.evidence.conditions import Condition, present
from quidebook.report import NO_RECORD, UNKNOWN, number, tabled, with_origin
from quidebook.shared import claims
from quidebook.verdicts import CLOSE, UNDECIDED, cells

TIMED = (*map(label, PAPER_BITS), runs.BFLOAT_16, runs.INTEGER_16, runs.COMMUTED_8)
MARKS = (("o", report.BLUE), ("s", report.ORANGE))  # of networks side by side
WIDTH_STYLES = {32: report.GREY, 16: report.PURPLE, 8: report.BLUE, 4: report.ORANGE, 2: report.GREEN}
SCORES = (("index", "I"), ("gated_index", "I'"))


def _rows(found: Sequence[Condition]) -> Iterator[tuple[Condition, int, pd.Series, pd.Series | None, dict]]:
    """Of each condition and width: what is stated, what is ours if anything, and the head of a row."""
    for condition in found:
        ours = condition.summary
        for bits, stated in condition.stated.iterrows():
            head = {"condition": condition.name, "bits": bits}
            yield condition, bits, stated, None if ours is None else ours.loc[bits], head


# --- accuracy --------------------------------------------------------------------------------------------------------


@tabled
def accuracy_table(found: Sequence[Condition]) -> Iterator[dict]:
    """One row a condition and width: the paper's accuracy, ours over seeds, verdict and reason."""
    for condition, bits, stated, ours, row in _rows(found):
        spread = "" if pd.isna(stated.accuracy_std) else f" ± {100 * stated.accuracy_std:.2f}"
        row["paper P (%)"] = with_origin(number(100 * stated.accuracy, 2) + spread, stated.accuracy_origin)
        row["ours P (%)"] = NO_RECORD if ours is None else report.spread(ours, "accuracy", 100)
        yield row | cells(claims.accuracy(condition, bits))


# --- latency ---------------------------------------------------------------------------------------------------------


def ratio(record: records.Record, name: str, over: str = "32") -> tuple[float, float, float]:
    """Median, p10 and p90 of a configuration over the median of another, 32 bits by default, from one timing run."""
    reference = record.values["latencies"][over]["median_ms"]
    timed = record.values["latencies"][name]
    return timed["median_ms"] / reference, timed["p10_ms"] / reference, timed["p90_ms"] / reference


def ratios(condition: Condition, name: str) -> tuple[float, float, float]:
    """The same over the timing runs: mean of the medians, least p10, greatest p90."""
    middle, low, high = zip(*(ratio(record, name) for record in condition.measured.timed), strict=True)
    return float(np.mean(middle)), min(low), max(high)


def mean_ratios(condition: Condition) -> dict[str, float]:
    """Median latency of each timed configuration relative to 32 bits, mean over seeds."""
    return {name: ratios(condition, name)[0] for name in timed_names(condition)}


def slowdown(condition: Condition) -> dict[str, object]:
    """Latency over that of 32 bits: rounded to eight, four, two bits, to eight bits after what follows the layer
    (merged), to a 16-bit grid, and as float16 (cast); the condition and the network as printed."""
    mean = mean_ratios(condition)
    names = {"eight": "8", "four": "4", "two": "2", "grid": runs.INTEGER_16, "merged": runs.COMMUTED_8, "cast": "16"}
    facts = {key: mean[name] for key, name in names.items()}
    return {"condition": condition.name, "network": condition.network} | facts


def timed_names(condition: Condition) -> list[str]:
    """What was timed of a condition: all of :data:`TIMED`, or fewer in records from before there were as many."""
    return [name for name in TIMED if all(name in record.values["latencies"] for record in condition.measured.timed)]


def draw_ratios(
    axis: plt.Axes,
    drawn: Mapping[str, Mapping[str, tuple[float, float, float]]],
    names: Mapping[str, str],
    reference: str,
) -> str:
    """Dots with bars from p10 to p90: a row for each of ``names``, in it a mark for each network.

    What is seen, in words.

    Args:
        axis: to draw on.
        drawn: by network, :func:`ratio` of each name that was measured.
        names: as printed.
        reference: what all are relative to, in words.
    """
    said, order = [], list(names)
    for row, ((network, values), (mark, color)) in enumerate(zip(drawn.items(), MARKS, strict=False)):
        places = [order.index(name) + 0.25 * (row - (len(drawn) - 1) / 2) for name in values]
        middle, low, high = np.array(list(values.values())).T
        error = [middle - low, high - middle]
        axis.errorbar(middle, places, xerr=error, fmt=mark, color=color, capsize=3, label=network)
        told = ", ".join(f"{names[name]} {one[0]:.2f}" for name, one in values.items())
        said.append(f"{network}: {told}")
    axis.figure.legend(loc="outside lower center", ncols=2)
    axis.axvline(1, color=report.GREY, linestyle="--", linewidth=1)
    axis.set_yticks(range(len(names)), names.values())
    axis.invert_yaxis()
    axis.set(xlabel=f"latency relative to {reference}", xlim=(0, None))
    return f"Dot plot, latency over that of {reference}. {'. '.join(said)}."


@tabled
def latency_table(found: Sequence[Condition]) -> Iterator[dict]:
    """Latency of every timed configuration over that of 32 bits, a column for each condition: mean of the medians, and
    least 10th to greatest 90th percentile; then the noise floor of the A/A pair."""
    shown = present(found)
    names = {condition.name: timed_names(condition) for condition in shown}
    for name in [name for name in TIMED if any(name in timed for timed in names.values())]:
        cells = {
            c.name: "{:.2f} ({:.2f} to {:.2f})".format(*ratios(c, name)) if name in names[c.name] else UNKNOWN
            for c in shown
        }
        yield {"configuration": name} | cells
    if shown:
        aa = {c.name: c.measured.aa_ratios for c in shown}
        cells = {name: f"{np.mean(each):.3f} ({min(each):.3f} to {max(each):.3f})" for name, each in aa.items()}
        yield {"configuration": "32 against itself (A/A)"} | cells
        yield {"configuration": "32, in ms"} | {c.name: number(c.summary.latency_ms[32], 2) for c in shown}
        yield {"configuration": "the clock was"} | {c.name: "noisy" if c.measured.noisy else "quiet" for c in shown}


def clock(found: Sequence[Condition]) -> report.Facts:
    """How steady the clock was: the worst A/A ratio's distance from 1 (``off``) and the widest ``spread``, each with
    its ``limit``; how many timing runs are shown, and how many there were (``tried``)."""
    shown = present(found)
    timed = [select.unrest(record.values) for condition in shown for record in condition.measured.timed]
    if not timed:
        return report.Absent("a timing", "quide run exp1")
    return {
        "off": max(off for _, off, _ in timed),
        "off_limit": AA_LIMIT,
        "spread": max(spread for *_, spread in timed),
        "spread_limit": SPREAD_LIMIT,
        "shown": len(timed),
        "tried": sum(condition.measured.tried for condition in shown),
    }


def figure_components(found: Sequence[Condition]) -> tuple[Figure, str]:
    """Figure 2 and what is seen: accuracy and latency by width, ours with seeds' range, the paper's where known."""
    figure, axes = report.panels(2, len(found), width=7, height=2.7 * len(found))
    words = []
    for condition, left, right in zip(found, axes[::2], axes[1::2], strict=True):
        words += [_lines(left, condition, "accuracy", "accuracy in %", 1, 100)]
        words += [_lines(right, condition, "latency_ms", "latency in ms", 2)]
        ours = condition.summary
        if ours is not None:
            kept = ours.index[ours.accuracy >= ours.accuracy[32] - CLOSE].min()
            left.set_title(f"{_short(condition)}: P holds to {kept} bits")
            right.set_title(f"{_short(condition)}: T is least at {ours.latency_ms.idxmin()} bits")
        left.set(ylabel="test accuracy P (%)", ylim=(0, 103))
        right.set(ylabel="T, ms per batch of 64", yscale="log")
        right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.yaxis.set_major_formatter("{x:g}")
        right.yaxis.set_minor_formatter(NullFormatter())
    report.legend_below(figure, axes[0], ncols=2)
    return figure, f"Line plots by bit-width. {'. '.join(words)}."


# --- scores ----------------------------------------------------------------------------------------------------------


@tabled
def score_table(found: Sequence[Condition]) -> Iterator[dict]:
    """Latency, I and I' of the paper and ours, one row a condition and width."""
    for _, _, stated, ours, row in _rows(found):
        row["C"] = number(stated.compression, 0)
        for quantity, sign, digits in (("latency_ms", "T (ms)", 2), *((name, sign, 3) for name, sign in SCORES)):
            row[f"paper {sign}"] = with_origin(number(stated[quantity], digits), stated[f"{quantity}_origin"])
            std = np.nan if ours is None else ours[f"{quantity}_std"]
            spread = "" if np.isnan(std) else f" ± {std:.{digits}f}"
            row[f"ours {sign}"] = NO_RECORD if ours is None else number(ours[quantity], digits) + spread
        yield row


@tabled
def ranking_table(found: Sequence[Condition]) -> Iterator[dict]:
    """Order of the widths by I and I': each order of the paper, ours by what 16 bits are timed as, and whether first
    place and order agree."""
    stated = paper.rankings()
    for condition in present(found):
        for quantity, sign in SCORES:
            known = stated[(stated.condition == condition.paper_name) & (stated.metric == quantity)]
            for mine, sixteen in _orders(condition, quantity).items():
                row = {"condition": condition.name, "score": sign, "paper": UNKNOWN, "ours": " > ".join(map(str, mine))}
                if known.empty:
                    yield row | cells((UNDECIDED, "no order stated"))
                for order, origin, scope in known[["order", "origin", "scope"]].itertuples(index=False):
                    row["paper"] = with_origin(" > ".join(map(str, order)), origin)
                    yield row | cells(claims.order(condition, order, mine, scope, ", ".join(sixteen)))


def _orders(condition: Condition, quantity: str) -> dict[tuple[int, ...], list[str]]:
    """Each order of the widths, best first, by what 16 bits can be timed as."""
    orders: dict[tuple[int, ...], list[str]] = {}
    for name, words in runs.SIXTEEN.items():
        if (measured := condition.measured.sixteen_as(name)) is not None:
            scores = measured.summary().set_index("bits")[quantity][list(PAPER_BITS)]
            orders.setdefault(tuple(metric.rank(PAPER_BITS, scores)), []).append(words)
    return orders


def figure_index(found: Sequence[Condition]) -> tuple[Figure, str]:
    """Figure 1 and what is seen: I and I' by width, ours and the paper's."""
    figure, axes = report.panels(2, len(found), width=7, height=2.7 * len(found))
    words = []
    for axis, (condition, (quantity, sign)) in zip(axes, ((c, score) for c in found for score in SCORES), strict=True):
        words.append(_lines(axis, condition, quantity, sign, 3))
        if condition.summary is not None:
            axis.set_title(f"{_short(condition)}: {sign} is highest at {condition.summary[quantity].idxmax()} bits")
        top = axis.get_ylim()[1]
        axis.set(ylabel=sign, ylim=(-0.04 * top, 1.05 * top))  # so that markers at the edges are whole
    report.legend_below(figure, axes[0], ncols=2)
    return figure, f"Line plots by bit-width. {'. '.join(words)}."


# --- the knee --------------------------------------------------------------------------------------------------------


@tabled
def knee_table(found: Sequence[Condition]) -> Iterator[dict]:
    """Knee probabilities per condition beside the paper's knee, with a verdict."""
    for condition in present(found):
        probability = condition.measured.knee().probability
        shares = ", ".join(f"{bits}-bit {probability[bits]:.3f}" for bits in PAPER_BITS if probability[bits])
        row = {"condition": condition.name, "paper's knee": f"{int(condition.facts['knee_bits'])}-bit"}
        row |= {"ours (probability)": shares, "threshold": f"{condition.measured.threshold:.3f}"}
        yield row | cells(claims.knee(condition))


def _short(condition: Condition) -> str:
    """What a panel is about: the network where it is not the paper's to the end, else the data set."""
    return condition.network if condition.published or condition.shortened else condition.name


def _lines(axis: plt.Axes, condition: Condition, quantity: str, title: str, digits: int, scale: float = 1) -> str:
    """Draws ours, if any, as a filled line with bars of one standard deviation, and the paper's known points hollow.

    What is seen, in words.
    """
    ours, stated = condition.summary, scale * condition.stated[quantity].dropna()
    words = NO_RECORD
    if ours is not None:
        values, error = scale * ours[quantity], scale * ours[f"{quantity}_std"].fillna(0)
        places = report.positions(PAPER_BITS, list(ours.index))
        axis.errorbar(places, values, yerr=error, fmt="o-", color=report.BLUE, capsize=3, label="ours")
        words = f"ours {report.points(values, digits)}, highest at {values.idxmax()} bits"
    theirs = f"the paper's {condition.facts['label'].split(' / ')[0]}" if condition.published else "the paper"
    hollow = {"color": report.ORANGE, "markerfacecolor": "none", "markersize": 8, "label": theirs}
    axis.plot(report.positions(PAPER_BITS, list(stated.index)), stated, "D", **hollow)
    report.bit_axis(axis, PAPER_BITS)
    axis.set_xlim(-0.3, len(PAPER_BITS) - 0.7)  # markers at the ends are whole
    theirs = report.points(stated, digits) or "not in its text"
    return f"{condition.name}, {title}: {words}; the paper's {theirs}"


def devices(found: Sequence[Condition]) -> str:
    """What the latencies were taken on, in words."""
    return "; ".join(sorted({condition.measured.device for condition in present(found)})) or NO_RECORD
