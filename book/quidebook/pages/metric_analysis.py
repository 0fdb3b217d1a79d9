"""The page that examines the metric (App. A): rankings, tolerance, functional form, components, a unit-free variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from scipy.stats import kendalltau

from quide import metric, stats
from quide.experiments import paper
from quide.latency import BATCH_SIZE
from quidebook import report
from quidebook.evidence import readings, sensitivity
from quidebook.evidence.readings import Reading
from quidebook.evidence.scores import Measured
from quidebook.report import NO_RECORD, UNKNOWN, number, percent, tabled
from quidebook.shared import components
from quidebook.shared.components import FORMS, SCORES, Components
from quidebook.shared.simplecnn import RERUN
from quidebook.shared.table1 import WIDTH_STYLES
from quidebook.verdicts import IN_PART, NONE, REPRODUCED

HATCHES = {32: "..", 16: "xx", 8: "", 4: "//", 2: "\\\\", None: ""}
COLOURS = "cividis"  # grows lighter from end to end, so that a print in grey reads the same


# --- Table 4 ---------------------------------------------------------------------------------------------------------


def agreement(rankings: pd.DataFrame) -> report.Facts:
    """How many of ``ours`` beside an order of the paper's are ``reproduced``, ``in_part`` or ``unjudged``; and in how
    many by I' (``gated``) the first place is the paper's (``first``), however they were timed."""
    both = rankings[(rankings["ours"] != NO_RECORD) & (rankings["paper"] != UNKNOWN)]
    if both.empty:
        return report.Absent("an order to compare the paper's with", RERUN)
    gated = both[both["score"] == "I'"]
    counts = {"reproduced": {REPRODUCED}, "in_part": {IN_PART}, "unjudged": NONE}
    return {
        "ours": len(both),
        **{name: int(both["verdict"].isin(those).sum()) for name, those in counts.items()},
        "first": sum(one.split(" ")[0] == other.split(" ")[0] for one, other in gated[["paper", "ours"]].to_numpy()),
        "gated": len(gated),
    }


@tabled
def claims_table(found: Sequence[Measured]) -> Iterator[dict]:
    """What the caption of Table 4 says of the scores, for the paper's numbers and for ours."""
    for each in _all_readings(found):
        scores = components.scores_of(each)
        first = {sign: metric.rank(scores.index, scores[score])[0] for score, sign in SCORES.items()}
        yield {
            "condition": each.label,
            "I and ACP agree (Kendall's tau)": _tau(scores["index"], scores["accuracy_compression_product"]),
            **{f"first by {sign}": f"{bits} bits" for sign, bits in first.items()},
            "assumes": each.assumes or UNKNOWN,
        }


# --- Figure 5 --------------------------------------------------------------------------------------------------------


def figure_tolerance(found: Sequence[Measured]) -> tuple[plt.Figure, str]:
    """Figure 5: the knee of I' over the tolerance, one bar a reading."""
    shown = _all_readings(found)
    figure, (axis,) = report.panels(width=7.4, height=0.9 + 0.5 * len(shown))
    words = []
    for place, each in enumerate(shown):
        stretches = sensitivity.over_tolerance(each)
        for stretch in stretches:
            _stretch(axis, place, stretch)
        axis.plot(each.tolerance, place, "*", color="black", markersize=13, markeredgecolor="white", zorder=3)
        parts = [f"{_bits(part.knee)} from {part.low:.3f} to {part.high:.3f}" for part in stretches]
        words.append(f"{_named(each)}: {', '.join(parts)}, stated {each.tolerance:.2f}")
    axis.set_yticks(range(len(shown)), [_named(each).replace(", ", ",\n", 1) for each in shown], fontsize=8)
    facts = tolerance(found)
    holds = f"The knee at the stated δ holds\nfor most tolerances in {facts['wide']} of {facts['bars']} bars"
    axis.set(xlabel="tolerance δ", xlim=(0, None), title=holds)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return figure, "Bars divided by knee. " + "; ".join(words) + "."


def _stretch(axis: plt.Axes, place: int, stretch: sensitivity.Stretch) -> None:
    length, knee = stretch.high - stretch.low, stretch.knee
    colour = report.GREY if knee is None else WIDTH_STYLES[knee]
    axis.barh(place, length, left=stretch.low, height=0.62, color=colour, hatch=HATCHES[knee], edgecolor="white")
    if length > 0.08:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axis.text(stretch.low + 0.015, place, _bits(knee), va="center", fontsize=8, bbox=box)


def tolerance(found: Sequence[Measured]) -> dict[str, object]:
    """In how many ``bars`` the knee at the stated tolerance holds over more than half of all (``wide``), and the
    condition ``nearest`` to a change: the tolerance at its ``turn``, and as ``stated``."""
    shown = _all_readings(found)
    wide, distances = 0, {}
    for each in shown:
        stretches = sensitivity.over_tolerance(each)
        holding = next(stretch for stretch in stretches if stretch.low <= each.tolerance <= stretch.high)
        wide += holding.high - holding.low > stretches[-1].high / 2
        for stretch in stretches[:-1]:
            distances[abs(stretch.high - each.tolerance)] = _named(each), stretch.high, each.tolerance
    nearest = dict(zip(("nearest", "turn", "stated"), distances[min(distances)], strict=True))
    return {"wide": wide, "bars": len(shown)} | nearest


# --- functional form -------------------------------------------------------------------------------------------------


def figure_forms(outcomes: pd.DataFrame) -> tuple[plt.Figure, str]:
    """Heat map: how far the order of each form agrees with that of I', and what it puts first."""
    order = list(dict.fromkeys(outcomes["case"]))
    wide, first = (
        outcomes.pivot(index="form", columns="case", values=value).loc[list(FORMS), order] for value in ("tau", "first")
    )
    texts = wide.map(lambda tau: number(tau, 2)) + "\n" + first
    figure, (axis,) = report.panels(width=7.4, height=7.6)
    axis.grid(visible=False)
    seaborn.heatmap(
        wide, ax=axis, annot=texts, fmt="", cmap=COLOURS, vmin=min(0, wide.min().min()), vmax=1, linewidths=0.5,
        annot_kws={"fontsize": 8}, cbar=False,
    )  # fmt: skip
    axis.set_xticklabels([name.replace(", ", ",\n").replace(" / ", " /\n") for name in order], rotation=0, fontsize=8)
    facts = moves(outcomes)
    axis.set(xlabel="", ylabel="", title=f"{facts['kept']} of {facts['forms']} forms never move the first place")
    words = []
    for case, part in outcomes.groupby("case", sort=False):
        best = part["first"].iloc[0]
        other = part[(part["first"] != best) & part["tau"].notna()]
        listed = ", ".join(f"{row.form} ({row.first}, {row.tau:.2f})" for row in other.itertuples()) or "none"
        words.append(f"{case}, I' puts {best} first; forms that put another first, with tau: {listed}")
    return figure, "Heat map. " + ". ".join(words) + "."


def moves(outcomes: pd.DataFrame) -> dict[str, object]:
    """The forms that ``never`` put another configuration first than I' does, and that ``do``, in how many cases; how
    many of how many ``forms`` are the former (``kept``), and in how many ``cases`` the form without a gate is not."""
    reference = outcomes.groupby("case", sort=False)["first"].transform("first")
    compared = outcomes[outcomes["tau"].notna() & (outcomes["form"] != components.PAPERS)]
    moved = compared[compared["first"] != reference[compared.index]]["form"].value_counts()
    never = [form for form in FORMS if form in set(compared["form"]) - set(moved.index)]
    count = outcomes["case"].nunique()
    return {
        "never": ", ".join(f"*{form}*" for form in never),
        "do": ", ".join(f"*{form}* ({times} of {count})" for form, times in moved.items()) or "none",
        "kept": len(never),
        "forms": compared["form"].nunique(),
        "ungated": int(moved.get(components.RAW, 0)),
        "cases": count,
    }


# --- Figure 6 --------------------------------------------------------------------------------------------------------


def figure_boundary(found: Sequence[Measured]) -> tuple[plt.Figure, str]:
    """Figure 6: accuracy against compression, with the accuracy that equals 8 bits by I' at the same latency."""
    shown = components.charted(found)
    columns = 2 if len(shown) == 4 else min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = report.panels(columns, rows, width=7.4, height=3.1 * rows, sharey=True)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    words = []
    for axis, each in zip(axes, shown, strict=False):
        compression, accuracy = each.table["compression"], each.table["accuracy"]
        between = np.linspace(compression.min(), compression.max(), 200)
        even = 100 * components.even_accuracy(each, between)
        axis.plot(between, even, "--", color=report.GREY, label="as good as 8 bits")
        axis.axhline(100 * each.threshold, color="black", linestyle=":", linewidth=1.2, label="threshold")
        axis.plot(compression, 100 * accuracy, "o-", color=report.BLUE, linewidth=0.8)
        for bits in each.table.index:
            spot, away = (compression[bits], 100 * accuracy[bits]), {"xytext": (0, 6), "textcoords": "offset points"}
            axis.annotate(f"{bits}", spot, **away, ha="center", fontsize=8)
        axis.set(xlabel="compression C", xscale="log", ylim=(0, 112))
        needed = float(components.even_accuracy(each, compression[4]))
        side = "above" if accuracy[4] > needed else "below"
        axis.set_title(f"{each.label}:\n4 bits {side} the line", fontsize=9)
        axis.set_xticks(compression, [f"{c:.0f}" for c in compression])
        axis.minorticks_off()
        words.append(
            f"{each.label}: 4 bits have {percent(accuracy[4], 1)} and need {percent(needed, 1)}, above a threshold of "
            f"{percent(each.threshold, 1)}"
        )
    axes[0].set_ylabel("accuracy (%)")
    axes[0].legend(fontsize=8, loc="lower left")
    return figure, "Line plots. " + "; ".join(words) + "."


# --- Figures 7 and 8 -------------------------------------------------------------------------------------------------


def areas(found: Sequence[Measured]) -> dict[str, object]:
    """:func:`quidebook.shared.components.areas_and_index`, and how many widths have the largest area in some
    arrangement of one network (``most``)."""
    shown = map(components.areas, components.charted(found))
    return components.areas_and_index(found) | {"most": max(each.idxmax().nunique() for each in shown)}


def correlations(tried: Mapping[str, Components]) -> list[dict[str, object]]:
    """By case its ``name``, ``points`` and rank correlations: of C and P, of P and I', of T and I'."""
    return [
        {"name": name, "points": count, "cp": matrix.loc["C", "P"], "pi": matrix.loc["P", "I'"]}
        | {"ti": matrix.loc["T", "I'"]}
        for name, (matrix, count) in components.correlations(tried).items()
    ]


# --- how sure, and the unit-free variant -----------------------------------------------------------------------------


@tabled
def certainty_table(found: Sequence[Measured]) -> Iterator[dict]:
    """I' and its unit-free variant by width, with 95 % bootstrap intervals, and how often each width is the knee.

    The interval of a probability is that of its simulation (Wilson), not of the experiment.
    """
    for each in found:
        knees = {"": each.knee(), ", relative T": components.in_relative_units(each).knee()}
        for bits in paper.BITS:
            row = {"condition": readings.label(each.condition), "bits": bits}
            for suffix, knee in knees.items():
                repeats = len(knee.replicates)
                share = stats.wilson_interval(round(knee.probability[bits] * repeats), repeats)
                row[f"I'{suffix} [95 %]"] = report.with_interval(knee.interval(bits), digits=3)
                row[f"Pr(knee){suffix} [95 %]"] = report.with_interval(share, digits=3)
            yield row


def certainty(found: Sequence[Measured]) -> report.Facts:
    """The ``knees`` of all conditions and how often each stays; how many ``seeds`` are drawn from."""
    if not found:
        return report.Absent("a condition whose knee could be drawn again", RERUN)
    knees = [{"label": readings.label(each.condition), "knee": each.likeliest} for each in found]
    return {
        "knees": report.listed("{label}: {knee[0]} bits in {knee[1]:pct1}", knees),
        "seeds": " or ".join(sorted({str(len(each.seeds)) for each in found})),
    }


@tabled
def relative_table(found: Sequence[Measured]) -> Iterator[dict]:
    """The knee by I' in several units and by the unit-free variant, for every reading with a latency at 32 bits."""
    for each in [*readings.cifar10(), *resnet18_ends(), *map(readings.of_measured, found)]:
        variant = components.relative_index(each)
        scores = {
            "knee by I', ms per batch": each.gated_index(),
            "ms per image": each.gated_index(None, BATCH_SIZE),
            "s per batch": each.gated_index(None, 1000),
            "relative T (ours)": variant,
        }
        yield (
            {"condition": each.label}
            | {unit: f"{metric.knee(score.index, score)} bits" for unit, score in scores.items()}
            | {"tau with I'": _tau(variant, each.gated_index()), "assumes": each.assumes or UNKNOWN}
        )


def relative_to_ours(found: Sequence[Measured]) -> report.Facts:
    """In how many of ``conditions`` with records the variant has the ``same`` knee as I'."""
    ours = [readings.of_measured(each) for each in found]
    same = sum(metric.knee(each.table.index, components.relative_index(each)) == each.knee for each in ours)
    absent = report.Absent("a condition to try the variant on", RERUN)
    return {"same": same, "conditions": len(ours)} if ours else absent


def relative_to_the_papers() -> dict[str, float | int | None]:
    """On the paper's ResNet-18: the range of T at 32 bits that the text leaves, where in it the knee changes from
    ``knee``, in ms."""
    low, high = (each.table["latency_ms"][32] for each in resnet18_ends())
    turn = sensitivity.over_time_constant(readings.resnet18())[0]
    return {"low": low, "high": high, "turn": turn.high, "knee": turn.knee}


def resnet18_ends() -> list[Reading]:
    """The paper's ResNet-18 with its latency at 32 bits as short as that of 16 bits, and as long as that of 8."""
    return [readings.resnet18(paper.number(f"cifar10-resnet18.latency_ms.{bits}")) for bits in (16, 8)]


def _all_readings(found: Sequence[Measured]) -> list[Reading]:
    return [*readings.of_paper(), *map(readings.of_measured, found)]


def _tau(one: pd.Series, other: pd.Series) -> str:
    return number(kendalltau(one, other).statistic, 2)


def _named(reading: Reading) -> str:
    """With its assumption, which tells two readings of one condition apart."""
    return f"{reading.label} ({reading.assumes})" if reading.assumes else reading.label


def _bits(knee: int | None) -> str:
    return "no width" if knee is None else f"{knee} bits"
