"""The page that examines the metric (App. A): rankings, tolerance, functional form, components, a unit-free variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from scipy.special import expit
from scipy.stats import kendalltau

from quide import metric, stats
from quide.evaluate import PAPER_BITS, label
from quide.experiments import mixed, paper
from quide.latency import BATCH_SIZE
from quidebook import report
from quidebook.evidence import readings, sensitivity
from quidebook.evidence.readings import Reading
from quidebook.evidence.scores import Measured
from quidebook.report import UNKNOWN, number, percent, with_origin
from quidebook.shared.landscape import Landscapes
from quidebook.shared.table1 import WIDTH_STYLES

SCORES = {
    "index": "I",
    "gated_index": "I'",
    "accuracy_compression_product": "ACP",
    "accuracy_per_log_latency": "ALS",
}
LINES = {32: "-", 16: "--", 8: "-.", 4: (0, (4, 1, 1, 1, 1, 1)), 2: ":"}
HATCHES = {32: "..", 16: "xx", 8: "", 4: "//", 2: "\\\\", None: ""}
SOFTNESS = 0.05  # width of the soft gate, in accuracy: a tenth to nine tenths open over 0.22
AXES = ("C", "P", "1/T", "I")  # of the radar chart, in the order of the paper's Figure 7 caption
CELLS = ("C", "P", "T", "I", "I'")  # of the heat map
COLOURS = "cividis"  # grows lighter from end to end, so that a print in grey reads the same


# --- Table 4 ---------------------------------------------------------------------------------------------------------


def rankings_table(found: Sequence[Measured]) -> pd.DataFrame:
    """Table 4: the order of the widths by each score in each condition, the paper's and ours, with a verdict."""
    ours = {each.condition: scores_of(readings.of_measured(each)) for each in found}
    rows = []
    for condition, facts in paper.conditions().iterrows():
        for score, sign in SCORES.items():
            stated = _stated_order(condition, score)
            if stated is None and condition not in ours:
                continue
            row = {"condition": facts["label"], "score": sign, "paper": _shown(stated), "ours": "no record"}
            verdict, reason = report.UNDECIDED, "no order in the text" if stated is None else "not measured here"
            if condition in ours:
                order = metric.rank(PAPER_BITS, ours[condition][score])
                row["ours"] = " > ".join(map(str, order))
                if stated is not None:
                    verdict, reason = report.order_verdict(stated["order"], order, stated["scope"])
            rows.append(row | {"verdict": verdict, "reason": reason})
    return pd.DataFrame(rows)


def say_rankings(table: pd.DataFrame) -> None:
    """How many orders agree."""
    compared = table[table["verdict"] != report.UNDECIDED]
    if compared.empty:
        return report.say("There is no record yet to compare the paper's orders with.")
    counts = compared["verdict"].value_counts()
    reproduced, in_part = counts.get(report.REPRODUCED, 0), counts.get(report.IN_PART, 0)
    gated = compared[compared["score"] == "I'"]
    first = gated["verdict"].isin([report.REPRODUCED, report.IN_PART]).sum()
    report.say(
        f"Of {len(compared)} orders that can be compared, {reproduced} reproduce and {in_part} more in their first "
        f"place. For I', the score that the paper recommends, the first place agrees in {first} of {len(gated)}."
    )


def claims_table(found: Sequence[Measured]) -> pd.DataFrame:
    """What the caption of Table 4 says of the scores, for the paper's numbers and for ours."""
    rows = []
    for each in _all_readings(found):
        scores = scores_of(each)
        orders = {sign: metric.rank(scores.index, scores[score]) for score, sign in SCORES.items()}
        agreement = kendalltau(scores["index"], scores["accuracy_compression_product"]).statistic
        rows.append(
            {
                "condition": each.label,
                "I and ACP agree (Kendall's tau)": number(agreement, 2),
                **{f"first by {sign}": f"{order[0]} bits" for sign, order in orders.items()},
                "assumes": each.assumes or UNKNOWN,
            }
        )
    return pd.DataFrame(rows)


def scores_of(reading: Reading) -> pd.DataFrame:
    """The four scores of Table 4, one column each, indexed by bit-width."""
    table = reading.table
    product = metric.accuracy_compression_product(table["compression"], table["accuracy"])
    speed = metric.accuracy_per_log_latency(table["accuracy"], table["latency_ms"])
    return pd.DataFrame(dict(zip(SCORES, (reading.index(), reading.gated_index(), product, speed), strict=True)))


def _stated_order(condition: str, score: str) -> pd.Series | None:
    """The longest order that the text gives or implies."""
    known = paper.rankings().query("condition == @condition and metric == @score")
    return None if known.empty else known.loc[known["order"].map(len).idxmax()]


def _shown(stated: pd.Series | None) -> str:
    if stated is None:
        return UNKNOWN
    note = {"complete": "", "top": " > others", "relative": " (of these)"}[stated["scope"]]
    return with_origin(" > ".join(map(str, stated["order"])) + note, stated["origin"])


# --- Figure 5 --------------------------------------------------------------------------------------------------------


def figure_tolerance(found: Sequence[Measured]) -> tuple:
    """Figure 5: the knee of I' over the tolerance, one bar a reading."""
    shown = _all_readings(found)
    figure, (axis,) = report.panels(width=7.4, height=0.9 + 0.5 * len(shown))
    words = []
    for place, each in enumerate(shown):
        stretches = sensitivity.over_tolerance(each)
        for stretch in stretches:
            _stretch(axis, place, stretch)
        axis.plot(each.tolerance, place, "*", color="black", markersize=13, markeredgecolor="white", zorder=3)
        words.append(f"{_named(each)}: " + ", ".join(map(_in_words, stretches)) + f", stated {each.tolerance:.2f}")
    axis.set_yticks(range(len(shown)), [_named(each).replace(", ", ",\n", 1) for each in shown], fontsize=8)
    axis.set(xlabel="tolerance δ", xlim=(0, None))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    caption = (
        "The paper's Figure 5 as a map: the knee of I' for every tolerance δ, by the paper's numbers and by ours. Each "
        "bar ends where the threshold reaches chance. The star is the tolerance that the paper states."
    )
    return figure, "fig-analysis-tolerance", caption, "Bars divided by knee. " + "; ".join(words) + "."


def _stretch(axis: plt.Axes, place: int, stretch: sensitivity.Stretch) -> None:
    length = stretch.high - stretch.low
    colour = report.GREY if stretch.knee is None else WIDTH_STYLES[stretch.knee]
    axis.barh(
        place, length, left=stretch.low, height=0.62, color=colour, hatch=HATCHES[stretch.knee], edgecolor="white"
    )
    if length > 0.08:
        axis.text(
            stretch.low + 0.015, place, _bits(stretch.knee), va="center", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip


def say_tolerance(found: Sequence[Measured]) -> None:
    """Where the stated tolerance lies in its stretch."""
    shown = _all_readings(found)
    wide, distances = 0, {}
    for each in shown:
        stretches = sensitivity.over_tolerance(each)
        holding = next(stretch for stretch in stretches if stretch.low <= each.tolerance <= stretch.high)
        wide += holding.high - holding.low > stretches[-1].high / 2
        for stretch in stretches[:-1]:
            distances[abs(stretch.high - each.tolerance)] = _named(each), stretch.high, each.tolerance
    name, turn, stated = distances[min(distances)]
    report.say(
        f"In {wide} of {len(shown)} bars the knee at the stated tolerance holds over more than half of all possible "
        f"tolerances. Nearest to a change is {name}: it changes at {turn:.3f}, and {stated:.2f} is stated."
    )


# --- functional form -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Components:
    """What a score is made of; arrays of one entry a configuration.

    Attributes:
        names: of the configurations.
        compression, accuracy (fraction), latency_ms.
        threshold: accuracy at which the gate closes.
        reference_ms: latency at full precision; NaN where it is not known.
    """

    names: tuple[str, ...]
    compression: np.ndarray
    accuracy: np.ndarray
    latency_ms: np.ndarray
    threshold: float
    reference_ms: float

    @property
    def margin(self) -> np.ndarray:
        """Accuracy above the threshold, 0 below it."""
        return np.maximum(self.accuracy - self.threshold, 0)


def _share(values: np.ndarray) -> np.ndarray:
    return values / values.max()


FORMS: Mapping[str, Callable[[Components], np.ndarray]] = {
    "I' (the paper's)": lambda x: x.compression * x.margin / np.log2(x.latency_ms + 1),
    "natural logarithm": lambda x: x.compression * x.margin / np.log(x.latency_ms + 1),
    "T in ms an image": lambda x: x.compression * x.margin / np.log2(x.latency_ms / BATCH_SIZE + 1),
    "T in s a batch": lambda x: x.compression * x.margin / np.log2(x.latency_ms / 1000 + 1),
    "T relative to 32 bits (ours)": lambda x: x.compression * x.margin / np.log2(x.latency_ms / x.reference_ms + 1),
    "no latency": lambda x: x.compression * x.margin,
    "square root of T": lambda x: x.compression * x.margin / np.sqrt(x.latency_ms),
    "T itself": lambda x: x.compression * x.margin / x.latency_ms,
    "no gate (I)": lambda x: x.compression * x.accuracy / np.log2(x.latency_ms + 1),
    "gate as a wall": lambda x: x.compression * x.accuracy * (x.margin > 0) / np.log2(x.latency_ms + 1),
    "soft gate": lambda x: (
        x.compression * x.accuracy * expit((x.accuracy - x.threshold) / SOFTNESS) / np.log2(x.latency_ms + 1)
    ),
    "margin squared": lambda x: x.compression * x.margin**2 / np.log2(x.latency_ms + 1),
    "logarithm of C": lambda x: np.log2(x.compression + 1) * x.margin / np.log2(x.latency_ms + 1),
    "weighted sum, equal weights": lambda x: (
        _share(x.compression) + _share(x.margin) + x.latency_ms.min() / x.latency_ms
    ),
}


def forms(cases: Mapping[str, Components]) -> pd.DataFrame:
    """Every form on every case: one row each, with Kendall's tau-b to I' and the configuration it puts first.

    Columns: case, form, tau, first; NaN and empty where a form needs a latency that is not known.
    """
    rows = []
    for case, components in cases.items():
        reference = FORMS["I' (the paper's)"](components)
        for form, score in FORMS.items():
            values = score(components)
            if np.isnan(values).any():
                rows.append((case, form, np.nan, ""))
                continue
            rows.append((case, form, kendalltau(reference, values).statistic, components.names[int(values.argmax())]))
    return pd.DataFrame(rows, columns=["case", "form", "tau", "first"])


def cases(found: Sequence[Measured], truth: Landscapes | None) -> dict[str, Components]:
    """What the forms are tried on: the paper's ResNet-18, the conditions with records, all mixed configurations."""
    known = {each.label: _components(each) for each in (readings.resnet18(), *map(readings.of_measured, found))}
    if truth is not None:
        known[_mixed_name(truth)] = _mixed_components(truth)
    return known


def figure_forms(outcomes: pd.DataFrame) -> tuple:
    """Heat map: how far the order of each form agrees with that of I', and what it puts first."""
    wide = outcomes.pivot(index="form", columns="case", values="tau")
    order = list(dict.fromkeys(outcomes["case"]))
    wide = wide.loc[list(FORMS), order]
    first = outcomes.pivot(index="form", columns="case", values="first").loc[wide.index, order]
    texts = wide.map(lambda tau: number(tau, 2)) + "\n" + first
    figure, (axis,) = report.panels(width=7.4, height=7.6)
    axis.grid(visible=False)
    seaborn.heatmap(
        wide, ax=axis, annot=texts, fmt="", cmap=COLOURS, vmin=-1, vmax=1, linewidths=0.5, annot_kws={"fontsize": 8},
        cbar_kws={"label": "Kendall's tau-b with I'"},
    )  # fmt: skip
    axis.set_xticklabels([name.replace(", ", ",\n").replace(" / ", " /\n") for name in order], rotation=0, fontsize=8)
    axis.set(xlabel="", ylabel="")
    words = []
    for case, part in outcomes.groupby("case", sort=False):
        best = part["first"].iloc[0]
        other = part[(part["first"] != best) & part["tau"].notna()]
        listed = ", ".join(f"{row.form} ({row.first}, {row.tau:.2f})" for row in other.itertuples()) or "none"
        words.append(f"{case}, I' puts {best} first; forms that put another first, with tau: {listed}")
    caption = (
        "Agreement of other functional forms with I': Kendall's tau-b of the two orders, and below it the "
        "configuration that the form puts first. An empty cell: the form needs a latency at 32 bits, which the text "
        "does not give."
    )
    return figure, "fig-analysis-forms", caption, "Heat map. " + ". ".join(words) + "."


def say_forms(outcomes: pd.DataFrame) -> None:
    """Which choices of form change the first place, which do not."""
    reference = outcomes.groupby("case", sort=False)["first"].transform("first")
    compared = outcomes[outcomes["tau"].notna() & (outcomes["form"] != next(iter(FORMS)))]
    moved = compared[compared["first"] != reference[compared.index]]
    never = [form for form in FORMS if form in set(compared["form"]) - set(moved["form"])]
    most = moved["form"].value_counts()
    listed = ", ".join(f"*{form}* ({count} of {outcomes['case'].nunique()})" for form, count in most.items())
    report.say(
        f"The first place never moves with {', '.join(f'*{form}*' for form in never)}, wherever these can be computed. "
        f"It moves with {listed or 'none'}."
    )


def _components(reading: Reading) -> Components:
    table = reading.table
    return Components(
        tuple(map(str, table.index)),
        *(table[column].to_numpy() for column in ("compression", "accuracy", "latency_ms")),
        reading.threshold,
        float(table["latency_ms"].get(metric.FULL_PRECISION_BITS, np.nan)),
    )


def _mixed_components(truth: Landscapes) -> Components:
    land = truth.main
    reference = truth.timed.values["latencies"][mixed.FULL_PRECISION]["median_ms"]
    names = tuple(map(label, land.configurations))
    return Components(names, land.compression, land.accuracy, land.latency_ms, land.threshold, reference)


def _mixed_name(truth: Landscapes) -> str:
    return f"CIFAR-10, {len(truth.main.configurations)} mixed"


# --- Figure 6 --------------------------------------------------------------------------------------------------------


def figure_boundary(found: Sequence[Measured]) -> tuple:
    """Figure 6: accuracy against compression, with the accuracy that equals 8 bits by I' at the same latency."""
    shown = _charted(found)
    figure, axes = _grid(len(shown), 3.1)
    words = []
    for axis, each in zip(axes, shown, strict=False):
        table = each.table
        compression = np.linspace(table["compression"].min(), table["compression"].max(), 200)
        axis.plot(
            compression, 100 * even_accuracy(each, compression), "--", color=report.GREY, label="as good as 8 bits"
        )
        axis.axhline(100 * each.threshold, color="black", linestyle=":", linewidth=1.2, label="threshold")
        axis.plot(table["compression"], 100 * table["accuracy"], "-", color=report.BLUE, linewidth=0.8)
        for bits, row in table.iterrows():
            axis.plot(row["compression"], 100 * row["accuracy"], "o", color=report.BLUE)
            axis.annotate(
                f"{bits}", (row["compression"], 100 * row["accuracy"]), xytext=(0, 6), textcoords="offset points",
                ha="center", fontsize=8,
            )  # fmt: skip
        axis.set(title=each.label, xlabel="compression C", xscale="log", ylim=(0, 112))
        axis.title.set_fontsize(9)
        axis.set_xticks(table["compression"], [f"{c:.0f}" for c in table["compression"]])
        axis.minorticks_off()
        words.append(
            f"{each.label}: 4 bits have {percent(table['accuracy'][4], 1)} and need "
            f"{percent(float(even_accuracy(each, 8.0)), 1)}, above a threshold of {percent(each.threshold, 1)}"
        )
    axes[0].set_ylabel("accuracy (%)")
    axes[0].legend(fontsize=8, loc="lower left")
    caption = (
        "The paper's Figure 6: accuracy against compression by width. Along the dashed line I' is that of 8 bits, if "
        "latency is the same: a width above it scores higher, one below lower. The line comes near the threshold where "
        "compression is high: there I' asks for little."
    )
    return figure, "fig-analysis-boundary", caption, "Line plots. " + "; ".join(words) + "."


def even_accuracy(reading: Reading, compression: float | np.ndarray) -> np.ndarray:
    """The accuracy at which a network of ``compression`` has the I' of 8 bits at the latency of 8 bits."""
    eight = reading.table.loc[8]
    return reading.threshold + (eight["accuracy"] - reading.threshold) * eight["compression"] / compression


# --- Figure 7 --------------------------------------------------------------------------------------------------------


def figure_radar(found: Sequence[Measured]) -> tuple:
    """Figure 7: compression, accuracy, 1/T and I of each width, relative to the best width."""
    shown = _charted(found)
    figure, axes = _grid(len(shown), 3.2, subplot_kw={"projection": "polar"})
    angles = np.linspace(0, 2 * np.pi, len(AXES), endpoint=False)
    words = []
    for axis, each in zip(axes, shown, strict=False):
        shares = radar(each)
        for bits, row in shares.iterrows():
            values = row[list(AXES)].to_numpy()
            axis.plot(
                np.append(angles, 0), np.append(values, values[0]), linestyle=LINES[bits], color=WIDTH_STYLES[bits],
                linewidth=1.6, label=f"{bits} bits",
            )  # fmt: skip
        axis.set_xticks(angles, AXES)
        axis.set_yticks([0.5, 1], ["", ""])
        axis.tick_params(axis="x", pad=4)
        axis.set_ylim(0, 1)
        axis.set_title(each.label, fontsize=9)
        words.append(
            f"{each.label}: " + ", ".join(f"{bits} bits " + _radar_words(row) for bits, row in shares.iterrows())
        )
    figure.legend(*axes[len(shown) - 1].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    caption = (
        "The paper's Figure 7: compression C, accuracy P, speed 1/T and index I of each "
        "width, as shares of the highest. The outer circle is the best width in that respect."
    )
    alt = f"Radar charts, in the order {', '.join(AXES)}, as shares of the best. " + "; ".join(words) + "."
    return figure, "fig-analysis-radar", caption, alt


def radar(reading: Reading) -> pd.DataFrame:
    """Shares of the best width along :data:`AXES`, indexed by bit-width."""
    table = reading.table
    columns = (table["compression"], table["accuracy"], 1 / table["latency_ms"], reading.index())
    return pd.DataFrame({axis: column / column.max() for axis, column in zip(AXES, columns, strict=True)})


def areas(reading: Reading) -> pd.DataFrame:
    """Area of each width's polygon under the three ways to arrange the axes; one column an arrangement."""
    shares = radar(reading)
    found = {}
    for other in combinations(AXES[1:], 2):  # the two neighbours of the first axis decide the arrangement
        opposite = next(axis for axis in AXES[1:] if axis not in other)
        circle = [AXES[0], other[0], opposite, other[1]]
        neighbours = zip(circle, [*circle[1:], circle[0]], strict=True)
        found["-".join(circle)] = sum(shares[a] * shares[b] for a, b in neighbours) / 2  # sin of a right angle is 1
    return pd.DataFrame(found)


def areas_table(found: Sequence[Measured]) -> pd.DataFrame:
    """Kendall's tau between the area of the radar chart and the scores, by arrangement of the axes."""
    rows = []
    for each in _charted(found):
        for arrangement, area in areas(each).items():
            rows.append(
                {
                    "condition": each.label,
                    "axes in the order": arrangement,
                    "largest area": f"{area.idxmax()} bits",
                    "tau with I": number(kendalltau(area, each.index()).statistic, 2),
                    "tau with I'": number(kendalltau(area, each.gated_index()).statistic, 2),
                }
            )
    return pd.DataFrame(rows)


def _radar_words(row: pd.Series) -> str:
    return " ".join(f"{row[axis]:.2f}" for axis in AXES)


# --- Figure 8 --------------------------------------------------------------------------------------------------------


def figure_correlations(found: Sequence[Measured], truth: Landscapes | None) -> tuple:
    """Figure 8: rank correlations of the components, over the uniform widths and over all mixed configurations."""
    shown = correlations(found, truth)
    figure, axes = _grid(len(shown), 3.3)
    words = []
    for axis, (name, (matrix, count)) in zip(axes, shown.items(), strict=False):
        axis.grid(visible=False)
        seaborn.heatmap(
            matrix, ax=axis, annot=True, fmt=".2f", cmap=COLOURS, vmin=-1, vmax=1, cbar=False, square=True,
            linewidths=0.5, annot_kws={"fontsize": 8},
        )  # fmt: skip
        axis.set_title(f"{name}\n({count} points)", fontsize=9)
        axis.tick_params(axis="y", rotation=0)
        pairs = ", ".join(f"{a} and {b} {matrix.loc[a, b]:.2f}" for a, b in combinations(CELLS, 2))
        words.append(f"{name}, {count} points: {pairs}")
    caption = (
        "The paper's Figure 8: Spearman's rank correlation between compression C, accuracy P, latency T and the "
        "scores. With four or five widths a correlation is a coarse thing; the mixed configurations say more."
    )
    return figure, "fig-analysis-correlations", caption, "Heat maps. " + "; ".join(words) + "."


def correlations(found: Sequence[Measured], truth: Landscapes | None) -> dict[str, tuple[pd.DataFrame, int]]:
    """Spearman's rank correlations of :data:`CELLS` and the number of configurations, by case."""
    matrices = {}
    for name, x in cases(found, truth).items():
        columns = (x.compression, x.accuracy, x.latency_ms, FORMS["no gate (I)"](x), FORMS["I' (the paper's)"](x))
        frame = pd.DataFrame(dict(zip(CELLS, columns, strict=True)))
        matrices[name] = frame.corr(method="spearman").round(2) + 0.0, len(frame)  # + 0.0 makes a plain 0 of -0.0
    return matrices


# --- how sure, and the unit-free variant -----------------------------------------------------------------------------


def relative_index(reading: Reading) -> pd.Series:
    """Our unit-free variant of I': latency counted in units of the latency at full precision.

    ``C * max(P - threshold, 0) / log2(T / T_32 + 1)``, which is 1 at 32 bits when nothing is lost and the threshold is
    0. It is I' with the full-precision latency as the time constant.

    Raises:
        ValueError: the reading has no latency at 32 bits.
    """
    if metric.FULL_PRECISION_BITS not in reading.table.index:
        raise ValueError(f"reading must hold a latency at 32 bits, got bits {list(reading.table.index)}")
    return reading.gated_index(None, float(reading.table["latency_ms"][metric.FULL_PRECISION_BITS]))


def in_relative_units(found: Measured) -> Measured:
    """The same with every seed's latencies as multiples of its own at 32 bits."""
    table = found.table.copy()
    full = table[table["bits"] == metric.FULL_PRECISION_BITS].set_index("seed")["latency_ms"]
    table["latency_ms"] /= table["seed"].map(full)
    return replace(found, table=table)


def certainty_table(found: Sequence[Measured]) -> pd.DataFrame:
    """I' and its unit-free variant by width, with 95 % bootstrap intervals, and how often each width is the knee.

    The interval of a probability is that of its simulation (Wilson), not of the experiment.
    """
    rows = []
    for each in found:
        knees = {"": each.knee(), ", relative T": in_relative_units(each).knee()}
        for bits in PAPER_BITS:
            row = {"condition": _label(each), "bits": bits}
            for suffix, knee in knees.items():
                repeats = len(knee.replicates)
                times = round(knee.probability[bits] * repeats)
                row[f"I'{suffix} [95 %]"] = report.with_interval(knee.interval(bits), digits=3)
                row[f"P(knee){suffix} [95 %]"] = report.with_interval(stats.wilson_interval(times, repeats), digits=3)
            rows.append(row)
    return pd.DataFrame(rows)


def say_certainty(found: Sequence[Measured]) -> None:
    """The knee of each condition and how often it stays."""
    if not found:
        return report.say("There is no record yet to compute probabilities from.")
    parts = []
    for each in found:
        probability = each.knee().probability
        best = max(probability, key=probability.get)
        parts.append(f"{_label(each)}: {best} bits in {percent(probability[best], 1)}")
    report.say(f"The knee when test images and seeds are drawn again: {'; '.join(parts)}.")


def relative_table(found: Sequence[Measured]) -> pd.DataFrame:
    """The knee by I' in several units and by the unit-free variant, for every reading with a latency at 32 bits."""
    rows = []
    for each in [*readings.cifar10(), *_resnet18_ends(), *map(readings.of_measured, found)]:
        variant = relative_index(each)
        rows.append(
            {
                "condition": each.label,
                "knee by I', ms a batch": f"{each.knee} bits",
                "ms an image": f"{_knee_at(each, BATCH_SIZE)} bits",
                "s a batch": f"{_knee_at(each, 1000)} bits",
                "relative T (ours)": f"{metric.knee(variant.index, variant)} bits",
                "tau with I'": number(kendalltau(variant, each.gated_index()).statistic, 2),
                "assumes": each.assumes or UNKNOWN,
            }
        )
    return pd.DataFrame(rows)


def say_relative(found: Sequence[Measured]) -> None:
    """What the variant changes, and where it is undecided."""
    low, high = (each.table["latency_ms"][32] for each in _resnet18_ends())
    turn = sensitivity.over_time_constant(readings.resnet18())[0]
    ours = [readings.of_measured(each) for each in found]
    same = sum(metric.knee(each.table.index, relative_index(each)) == each.knee for each in ours)
    measured = f"On our records it gives the same knee as I' in {same} of {len(ours)} conditions. " if ours else ""
    report.say(
        f"{measured}On the paper's ResNet-18 it hangs on the latency at 32 bits, which the text does not give: below "
        f"{turn.high:.2f} ms the knee is {turn.knee} bits, above it 16. From the stated range of {low:.2f} to "
        f"{high:.2f} ms neither can be excluded. In milliseconds the same doubt is there, hidden in the choice of the "
        "unit."
    )


def _resnet18_ends() -> list[Reading]:
    """The paper's ResNet-18 with its latency at 32 bits as short as that of 16 bits, and as long as that of 8."""
    return [readings.resnet18(paper.number(f"cifar10-resnet18.latency_ms.{bits}")) for bits in (16, 8)]


def _knee_at(reading: Reading, time_constant_ms: float) -> int | None:
    return metric.knee(reading.table.index, reading.gated_index(None, time_constant_ms))


# --- helpers ---------------------------------------------------------------------------------------------------------


def _all_readings(found: Sequence[Measured]) -> list[Reading]:
    return [*readings.of_paper(), *map(readings.of_measured, found)]


def _charted(found: Sequence[Measured]) -> list[Reading]:
    """What the appendix's figures are drawn for: the paper's network with most numbers, and ours."""
    return [readings.resnet18(), *map(readings.of_measured, found)]


def _grid(count: int, height: float, **options) -> tuple[plt.Figure, np.ndarray]:
    """Panels in rows of up to three; those left over are not shown."""
    columns = 2 if count == 4 else min(3, count)
    rows = -(-count // columns)
    figure, axes = report.panels(columns, rows, width=7.4, height=height * rows, **options)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes


def _named(reading: Reading) -> str:
    """With its assumption, which tells two readings of one condition apart."""
    return f"{reading.label} ({reading.assumes})" if reading.assumes else reading.label


def _in_words(stretch: sensitivity.Stretch) -> str:
    return f"{_bits(stretch.knee)} from {stretch.low:.3f} to {stretch.high:.3f}"


def _bits(knee: int | None) -> str:
    return "no width" if knee is None else f"{knee} bits"


def _label(found: Measured) -> str:
    return str(paper.conditions().at[found.condition, "label"])
