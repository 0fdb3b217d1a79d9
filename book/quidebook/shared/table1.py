"""The conditions of Table 1 for the pages on them: what is known of each, its rows of the table, Figures 1 and 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

from quide import metric, stats
from quide.evaluate import PAPER_BITS, label
from quide.experiments import paper, records, runs
from quide.experiments.runs import BESIDE, CONDITION
from quidebook import report
from quidebook.evidence import scores
from quidebook.evidence.scores import Measured
from quidebook.report import UNKNOWN, number, percent, with_origin

NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
TIMED = (*map(label, PAPER_BITS), runs.INTEGER_16, runs.COMMUTED_8)
MARKS = (("o", report.BLUE), ("s", report.ORANGE))  # of networks side by side
WIDTH_STYLES = {32: report.GREY, 16: report.PURPLE, 8: report.BLUE, 4: report.ORANGE, 2: report.GREEN}


@dataclass(frozen=True)
class Condition:
    """A network on a data set: what was measured, at which profile; ``measured`` is None when there is no record.

    ``rerun`` says how its records of the paper profile are made.
    """

    model: str
    dataset: str
    profile: str
    measured: Measured | None
    rerun: str

    @property
    def name(self) -> str:
        """The data set as printed; anything but the paper's network and full protocol says so."""
        if self.published:
            return f"{NAMES[self.dataset]} ({self.network})"
        return (
            NAMES[self.dataset]
            if self.profile in ("paper", "none")
            else f"{NAMES[self.dataset]} ({self.profile} profile)"
        )

    @property
    def published(self) -> bool:
        """Whether the network is one that others have trained, and not the paper's."""
        return (self.model, self.dataset) in BESIDE

    @property
    def paper_name(self) -> str:
        """What :mod:`quide.experiments.paper` calls the condition, or the one that it stands beside."""
        return (CONDITION | BESIDE)[self.model, self.dataset]

    @property
    def stated(self) -> pd.DataFrame:
        """The paper's rows, indexed by width."""
        return paper.table1(self.paper_name).set_index("bits")

    @property
    def facts(self) -> pd.Series:
        """The paper's facts about the condition."""
        return paper.conditions().loc[self.paper_name]

    @property
    def network(self) -> str:
        """The network as printed."""
        return runs.published_network(self.model).title if self.published else self.facts["label"].split(" / ")[0]

    @property
    def page(self) -> str:
        """The experiment whose page is about it, as notebooks are named."""
        return self.facts["experiment"].split(";")[0].replace("-", "").lower()

    @property
    def summary(self) -> pd.DataFrame | None:
        """:meth:`quidebook.evidence.scores.Measured.summary` indexed by width, if there is a record."""
        return None if self.measured is None else self.measured.summary().set_index("bits")

    @property
    def timed(self) -> list[records.Record]:
        """The latency records, one a seed."""
        return [record for record in self.measured.records if record.spec.kind == "latency"]

    @property
    def absence(self) -> str:
        """What to say where there is no record."""
        return f"not run yet; {self.rerun}"

    @property
    def shortened(self) -> str:
        """In words, how much shorter than the paper's the training was; empty when it was not."""
        if self.measured is None or self.published:
            return ""
        case = runs.Case(self.model, self.dataset, self.measured.seeds[0], self.profile)
        if case.size.epochs is None:
            return ""
        return f"trained for {case.recipe.epochs} epochs, the paper for {runs.RECIPES[self.model, self.dataset].epochs}"

    def judged(self, verdict: str, reason: str, level: bool = False) -> tuple[str, str]:
        """A verdict on what hangs on training, and its reason.

        None is given where the training was shortened; nor on the ``level`` that an accuracy or its drop has, which is
        the network's own, where the network is not the paper's.
        """
        if self.shortened:
            return report.UNDECIDED, f"{reason}; {self.shortened}"
        if level and self.published:
            return report.UNDECIDED, f"{reason}; another network than the paper's"
        return verdict, reason


def best_known(model: str, dataset: str, profiles: Sequence[str], rerun: str) -> Condition:
    """What is known of a condition at the first of ``profiles`` that has records of it."""
    for profile in profiles:
        if (measured := scores.measured(model, dataset, profile)) is not None:
            return Condition(model, dataset, profile, measured, rerun)
    return Condition(model, dataset, "none", None, rerun)


def present(found: Sequence[Condition]) -> list[Condition]:
    """The conditions that there are records of."""
    return [condition for condition in found if condition.measured is not None]


# --- accuracy --------------------------------------------------------------------------------------------------------


def accuracy_table(found: Sequence[Condition]) -> pd.DataFrame:
    """One row a condition and width: the paper's accuracy, ours over seeds, verdict and reason."""
    rows = []
    for condition in found:
        ours = condition.summary
        for bits, stated in condition.stated.iterrows():
            row = {"condition": condition.name, "bits": bits}
            row["paper P (%)"] = with_origin(_percent_with_std(stated), stated.accuracy_origin)
            if ours is None:
                row |= {
                    "ours P (%)": "no record",
                    "verdict": report.UNDECIDED,
                    "reason": f"not run yet; {condition.rerun}",
                }
            else:
                mine = ours.loc[bits]
                verdict, reason = condition.judged(
                    *report.accuracy_verdict(stated.accuracy, mine.accuracy, mine.accuracy_low, mine.accuracy_high),
                    level=True,
                )
                row |= {"ours P (%)": report.spread(mine, "accuracy", 100), "verdict": verdict, "reason": reason}
            rows.append(row)
    return pd.DataFrame(rows)


def lossless_verdict(condition: Condition, bits: int, limit: float) -> tuple[str, str]:
    """Whether the mean change from 32 bits stays within ``limit``, with the worst seed as evidence."""
    wide = condition.measured.table.pivot(index="seed", columns="bits", values="accuracy")
    change = wide[bits] - wide[32]
    reason = f"mean change {100 * change.mean():+.3f} pp, worst seed {100 * change.min():+.3f} pp"
    if abs(change.mean()) <= limit:
        return condition.judged(report.REPRODUCED, reason)
    return condition.judged(report.IN_PART if abs(change.mean()) <= report.CLOSE else report.NOT_REPRODUCED, reason)


def collapse_verdict(condition: Condition, bits: int) -> tuple[str, str]:
    """Whether a width leaves no more than guessing among the classes, to within what accuracies may differ by."""
    chance, mine = 1 / int(condition.facts["num_classes"]), condition.summary.accuracy[bits]
    reason = f"ours {percent(mine)}, guessing {percent(chance, 0)}"
    return condition.judged(report.REPRODUCED if mine <= chance + report.CLOSE else report.NOT_REPRODUCED, reason)


# --- latency ---------------------------------------------------------------------------------------------------------


def ratio(record: records.Record, name: str, over: str = "32") -> tuple[float, float, float]:
    """Median, p10 and p90 of a configuration over the median of another, 32 bits by default, from one timing run."""
    reference = record.values["latencies"][over]["median_ms"]
    timed = record.values["latencies"][name]
    return timed["median_ms"] / reference, timed["p10_ms"] / reference, timed["p90_ms"] / reference


def draw_ratios(
    axis: plt.Axes, ratios: Mapping[str, Sequence[tuple[float, float, float]]], names: Sequence[str], reference: str
) -> None:
    """Dots with bars from p10 to p90: a row for each of ``names``, in it a mark for each network.

    Args:
        axis: to draw on.
        ratios: by network, :func:`ratio` of each name.
        names: as printed.
        reference: what all are relative to, in words.
    """
    for row, ((network, values), (mark, color)) in enumerate(zip(ratios.items(), MARKS, strict=False)):
        places = np.arange(len(names)) + 0.25 * (row - (len(ratios) - 1) / 2)
        middle, low, high = np.array(values).T
        axis.errorbar(
            middle, places, xerr=[middle - low, high - middle], fmt=mark, color=color, capsize=3, label=network
        )
    axis.legend()
    axis.axvline(1, color=report.GREY, linestyle="--", linewidth=1)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlabel=f"latency relative to {reference}", xlim=(0, None))


def mean_ratios(condition: Condition) -> dict[str, float]:
    """Median latency of each timed configuration relative to 32 bits, mean over seeds."""
    return {name: float(np.mean([ratio(record, name)[0] for record in condition.timed])) for name in TIMED}


def latency_table(found: Sequence[Condition]) -> pd.DataFrame:
    """Latency of every timed configuration relative to 32 bits, with the noise floor of the A/A pair."""
    rows = []
    for condition in present(found):
        timed = condition.timed
        for name in TIMED:
            ratios = [ratio(record, name) for record in timed]
            low, high = min(r[1] for r in ratios), max(r[2] for r in ratios)
            rows.append(
                {
                    "condition": condition.name,
                    "configuration": name,
                    "median (ms)": number(
                        np.mean([record.values["latencies"][name]["median_ms"] for record in timed]), 2
                    ),
                    "relative to 32 bits": f"{np.mean([r[0] for r in ratios]):.2f} ({low:.2f} to {high:.2f})",
                }
            )
        aa = [record.values["aa_ratio"] for record in timed]
        noisy = "noisy: " + "; ".join(condition.measured.noisy) if condition.measured.noisy else "quiet"
        rows.append(
            {
                "condition": condition.name,
                "configuration": "A/A (32 bits against itself)",
                "median (ms)": noisy,
                "relative to 32 bits": f"{np.mean(aa):.3f} ({min(aa):.3f} to {max(aa):.3f})",
            }
        )
    return pd.DataFrame(rows)


def figure_components(found: Sequence[Condition]) -> tuple:
    """Figure 2: accuracy and latency by width, ours with seeds' range, the paper's where it states them."""
    figure, axes = report.panels(2, len(found), width=7, height=2.6 * len(found))
    words = []
    for row, condition in enumerate(found):
        ours, stated = condition.summary, condition.stated
        left, right = axes[2 * row], axes[2 * row + 1]
        _lines(left, ours, stated, "accuracy", 100)
        left.set(title=f"{condition.name}: accuracy P", ylabel="test accuracy (%)", ylim=(0, 103))
        _lines(right, ours, stated, "latency_ms", 1)
        right.set(title=f"{condition.name}: latency T", ylabel="ms a batch of 64", yscale="log")
        right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.yaxis.set_major_formatter("{x:g}")
        right.yaxis.set_minor_formatter(NullFormatter())
        left.legend()
        if ours is None:
            words.append(f"{condition.name}, no record: the paper's {_stated_points(stated, 'accuracy', 100, 1)} %")
            continue
        words.append(
            f"{condition.name}: accuracy falls from {percent(ours.accuracy[32], 1)} at 32 bits over "
            f"{percent(ours.accuracy[8], 1)} at 8 and {percent(ours.accuracy[4], 1)} at 4 to "
            f"{percent(ours.accuracy[2], 1)} at "
            f"2 bits; latency is {ours.latency_ms[32]:.2f} ms at 32 bits, {ours.latency_ms[16]:.2f} at 16 and "
            f"{ours.latency_ms[8]:.2f} at 8"
        )
    caption = (
        f"The paper's Figure 2 for {found[0].network}: accuracy and latency by bit-width. Filled: ours, mean and "
        f"standard deviation over seeds ({_devices(found)}). Hollow: stated or implied by the paper (RTX 3090)."
    )
    return figure, f"fig-{found[0].page}-components", caption, "Line plots by bit-width. " + ". ".join(words) + "."


# --- scores ----------------------------------------------------------------------------------------------------------


def score_table(found: Sequence[Condition]) -> pd.DataFrame:
    """Latency, I and I' of the paper and ours, one row a condition and width."""
    rows = []
    for condition in found:
        ours = condition.summary
        for bits, stated in condition.stated.iterrows():
            row = {"condition": condition.name, "bits": bits, "C": number(stated.compression, 0)}
            for quantity, sign, digits in (("latency_ms", "T (ms)", 2), ("index", "I", 3), ("gated_index", "I'", 3)):
                row[f"paper {sign}"] = with_origin(number(stated[quantity], digits), stated[f"{quantity}_origin"])
                row[f"ours {sign}"] = "no record" if ours is None else _plus_minus(ours.loc[bits], quantity, digits)
            rows.append(row)
    return pd.DataFrame(rows)


def ranking_table(found: Sequence[Condition]) -> pd.DataFrame:
    """Order of the widths by I and I': each order of the paper, ours, and whether first place and order agree."""
    rows = []
    stated = paper.rankings()
    for condition in present(found):
        ours = condition.summary
        for quantity, sign in (("index", "I"), ("gated_index", "I'")):
            mine = metric.rank(PAPER_BITS, [ours[quantity][bits] for bits in PAPER_BITS])
            known = stated[(stated.condition == condition.measured.condition) & (stated.metric == quantity)]
            row = {"condition": condition.name, "score": sign, "paper": UNKNOWN, "ours": " > ".join(map(str, mine))}
            if known.empty:
                rows.append(row | {"verdict": report.UNDECIDED, "reason": "no order stated"})
            for order, origin, scope in known[["order", "origin", "scope"]].itertuples(index=False):
                verdict, reason = condition.judged(*report.order_verdict(order, mine, scope))
                paper_says = with_origin(" > ".join(map(str, order)), origin)
                rows.append(row | {"paper": paper_says, "verdict": verdict, "reason": reason})
    return pd.DataFrame(rows)


def figure_index(found: Sequence[Condition]) -> tuple:
    """Figure 1: I and I' by width, ours and the paper's."""
    figure, axes = report.panels(2, len(found), width=7, height=2.7 * len(found))
    words = []
    for row, condition in enumerate(found):
        ours, stated = condition.summary, condition.stated
        for axis, quantity, sign in ((axes[2 * row], "index", "I"), (axes[2 * row + 1], "gated_index", "I'")):
            _lines(axis, ours, stated, quantity, 1)
            axis.set(title=f"{condition.name}: {sign}", ylabel=sign, ylim=(0, None))
            if ours is None:
                words.append(
                    f"{condition.name}, {sign}, no record: the paper's {_stated_points(stated, quantity, 1, 3)}"
                )
                continue
            best = ours[quantity].idxmax()
            words.append(f"{condition.name}, {sign}: highest at {best} bits ({ours[quantity][best]:.2f})")
        axes[2 * row].legend()
    caption = (
        f"The paper's Figure 1 for {found[0].network}: the index I (left) and the gated index I' (right) by bit-width. "
        f"Filled: ours, mean and standard deviation over seeds ({_devices(found)}). Hollow: stated or implied by the "
        "paper. The two differ in height because their latencies do."
    )
    return figure, f"fig-{found[0].page}-index", caption, "Line plots by bit-width. " + "; ".join(words) + "."


# --- the knee --------------------------------------------------------------------------------------------------------


def figure_knee(found: Sequence[Condition]) -> tuple:
    """Stacked bars: probability of each width being the knee."""
    shown = present(found)
    figure, axes = report.panels(width=7, height=0.9 + 0.55 * max(len(shown), 1))
    axis, words = axes[0], []
    for place, condition in enumerate(shown):
        probability = condition.measured.knee().probability
        start = 0.0
        for bits in PAPER_BITS:
            share = probability[bits]
            if share == 0:
                continue
            axis.barh(place, share, left=start, color=WIDTH_STYLES[bits], edgecolor="white", height=0.6)
            if share > 0.06:
                axis.text(
                    start + share / 2,
                    place,
                    f"{bits}-bit\n{share:.2f}",
                    ha="center",
                    va="center",
                    color="white",
                    fontsize=8,
                )
            start += share
        words.append(
            f"{condition.name}: " + ", ".join(f"{b}-bit {probability[b]:.2f}" for b in PAPER_BITS if probability[b])
        )
    axis.set_yticks(range(len(shown)), [condition.name for condition in shown])
    axis.set(xlim=(0, 1), xlabel="probability of being the knee of I'")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    caption = "Probability that each bit-width is the knee of I', over resampled test images and seeds."
    return figure, f"fig-{found[0].page}-knee", caption, "Stacked bars. " + "; ".join(words) + "."


def knee_table(found: Sequence[Condition]) -> pd.DataFrame:
    """Knee probabilities per condition beside the paper's knee, with a verdict."""
    rows = []
    for condition in present(found):
        bootstrap = condition.measured.knee()
        stated = int(condition.facts["knee_bits"])
        verdict, reason = condition.judged(*report.knee_verdict(stated, bootstrap.probability))
        row = {"condition": condition.name, "paper's knee": f"{stated}-bit"}
        shares = {bits: bootstrap.probability[bits] for bits in PAPER_BITS if bootstrap.probability[bits]}
        row |= {"ours (probability)": ", ".join(f"{bits}-bit {share:.3f}" for bits, share in shares.items())}
        rows.append(row | {"threshold": f"{condition.measured.threshold:.3f}", "verdict": verdict, "reason": reason})
    return pd.DataFrame(rows)


# --- the end of a page -----------------------------------------------------------------------------------------------


def claims(condition: Condition) -> list[tuple[str, str, str]]:
    """What the paper claims of each condition of Table 1, with verdict and evidence; of one that has records."""
    ours, stated, rows = condition.summary, condition.stated, []
    for bits, claim in ((32, "full-precision accuracy"), (4, "accuracy at 4 bits")):
        mine = ours.loc[bits]
        verdict = report.accuracy_verdict(stated.accuracy[bits], mine.accuracy, mine.accuracy_low, mine.accuracy_high)
        if not np.isnan(stated.accuracy[bits]):
            judged = condition.judged(*verdict, level=True)
            rows.append((f"{condition.name}: {claim} ({percent(stated.accuracy[bits])})", *judged))
    if not np.isnan(stated.accuracy[2]):
        rows.append((f"{condition.name}: collapse to chance at 2 bits", *collapse_verdict(condition, 2)))
    rows.append((f"{condition.name}: 16 bits loses nothing", *lossless_verdict(condition, 16, 0.0001)))
    rows.append((f"{condition.name}: stable through 8 bits", *lossless_verdict(condition, 8, report.CLOSE)))
    knee = int(condition.facts["knee_bits"])
    verdict = report.knee_verdict(knee, condition.measured.knee().probability)
    return [*rows, (f"{condition.name}: the knee is {knee}-bit", *condition.judged(*verdict))]


def this_run_table(done: Sequence[tuple[runs.Case, records.Record, records.Record]]) -> pd.DataFrame:
    """Accuracy and latency of the cases this rendering ran."""
    rows = []
    for case, accuracy, timed in done:
        count = accuracy.values["images"]
        for bits in PAPER_BITS:
            name = label(bits)
            hits = round(accuracy.values["accuracy"][name] * count)
            interval = stats.wilson_interval(hits, count)
            rows.append(
                {
                    "condition": Condition(case.model, case.dataset, "none", None, "").name,
                    "seed": case.seed,
                    "bits": bits,
                    "P (%) [95 % Wilson]": report.with_interval(interval, 100),
                    "images": count,
                    "T (ms)": number(timed.values["latencies"][name]["median_ms"], 2),
                    "timing": "noisy" if timed.values["noisy"] else "quiet",
                }
            )
    return pd.DataFrame(rows)


# --- helpers ---------------------------------------------------------------------------------------------------------


def _percent_with_std(stated: pd.Series) -> str:
    text = number(100 * stated.accuracy, 2)
    return text if pd.isna(stated.accuracy_std) else f"{text} ± {100 * stated.accuracy_std:.2f}"


def _plus_minus(row: pd.Series, quantity: str, digits: int) -> str:
    std = row[f"{quantity}_std"]
    return number(row[quantity], digits) if np.isnan(std) else f"{row[quantity]:.{digits}f} ± {std:.{digits}f}"


def _lines(axis, ours: pd.DataFrame | None, stated: pd.DataFrame, quantity: str, scale: float) -> None:
    """Ours, if any, as a filled line with bars of one standard deviation, the paper's known points hollow."""
    if ours is not None:
        order = report.positions(PAPER_BITS, list(ours.index))
        error = scale * ours[f"{quantity}_std"].fillna(0)
        axis.errorbar(order, scale * ours[quantity], yerr=error, fmt="o-", color=report.BLUE, capsize=3, label="ours")
    known = stated[stated[quantity].notna()]
    places = report.positions(PAPER_BITS, list(known.index))
    axis.plot(
        places, scale * known[quantity], "D", color=report.ORANGE, markerfacecolor="none", markersize=8, label="paper"
    )
    report.bit_axis(axis, PAPER_BITS)


def _stated_points(stated: pd.DataFrame, quantity: str, scale: float, digits: int) -> str:
    known = (scale * stated[quantity]).dropna()
    return ", ".join(f"{value:.{digits}f} at {bits}" for bits, value in known.items()) or "values are not in the text"


def _devices(found: Sequence[Condition]) -> str:
    return "; ".join(sorted({condition.measured.device for condition in present(found)})) or "no record"
