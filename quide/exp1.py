"""The page of EXP-1 (SimpleCNN, §4.1 and §4.2): which runs it needs, and each of its tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from quide import metric, paper, ptq, recipes, records, report, runs, scores, stats
from quide.evaluate import PAPER_BITS, label
from quide.recipes import SEARCHED
from quide.report import UNKNOWN, number, percent, with_origin
from quide.scores import CONDITION, Measured

MODEL = "simplecnn"
NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
BETWEEN = (6, 5, 3)  # widths the paper skips
SITES = {"output": "layer output, before ReLU", "relu": "after ReLU", "input": "layer input"}
SITE_MARKERS = {"output": ("o", report.ORANGE), "relu": ("s", report.BLUE), "input": ("^", report.GREEN)}
TIMED = (*map(label, PAPER_BITS), runs.INTEGER_16, runs.COMMUTED_8)
WIDTH_STYLES = {32: report.GREY, 16: report.PURPLE, 8: report.BLUE, 4: report.ORANGE, 2: report.GREEN}


@dataclass(frozen=True)
class Condition:
    """One data set of the page: what was measured, at which profile; ``measured`` is None when there is no record."""

    dataset: str
    profile: str
    measured: Measured | None

    @property
    def name(self) -> str:
        """As printed; anything but the paper's full protocol says so."""
        return (
            NAMES[self.dataset]
            if self.profile in ("paper", "none")
            else f"{NAMES[self.dataset]} ({self.profile} profile)"
        )

    @property
    def stated(self) -> pd.DataFrame:
        """The paper's rows, indexed by width."""
        return paper.table1(CONDITION[MODEL, self.dataset]).set_index("bits")

    @property
    def facts(self) -> pd.Series:
        """The paper's facts about the condition."""
        return paper.conditions().loc[CONDITION[MODEL, self.dataset]]


# --- what is run -----------------------------------------------------------------------------------------------------


def run(cases: Sequence[runs.Case], device: str = "cpu") -> list[tuple[runs.Case, records.Record, records.Record]]:
    """Accuracy and latency of every case, computed where there is no record; at the paper profile the training, the
    widths between the paper's and the recipe grid as well. Each triple holds the case, its accuracy and its latency."""
    for case in cases:
        if case.dataset == "cifar100" and case.size.embedded:
            raise ValueError(
                "datasets: no CIFAR-100 images are embedded; run it at profile paper after: quide data fetch cifar100"
            )
    done = []
    for case in tqdm(cases, desc="runs", unit="run"):
        if not case.size.embedded:
            for wanted in paper_profile_runs(case, device):
                wanted.result()
        done.append((case, runs.accuracy(case).result(), runs.timing(case, device, progress=False).result()))
    return done


def paper_profile_runs(case: runs.Case, device: str = "cpu") -> list[runs.Run]:
    """Everything the page shows of a case at the paper profile, besides its sweep and its timing."""
    grid = [recipe.run(case) for recipe in recipes.grid()]
    return [runs.training(case, device), runs.accuracy(case, BETWEEN), *grid]


def conditions(datasets: Iterable[str]) -> list[Condition]:
    """What records hold of each data set: the paper profile's, or the best profile there is."""
    found = []
    for dataset in datasets:
        for profile in ("paper", "quick", "smoke"):
            measured = scores.measured(MODEL, dataset, profile)
            if measured is not None:
                break
        found.append(Condition(dataset, profile if measured else "none", measured))
    return found


def recipe_results(datasets: Iterable[str]) -> pd.DataFrame:
    """Accuracies of the recipe grid from paper-profile records, one row a (dataset, recipe, seed, configuration).

    Columns: dataset, recipe, axis, site, seed, configuration, accuracy.
    """
    rows = [
        (dataset, recipe.name, recipe.axis, recipe.scheme.activation_site, record.spec.seed, configuration, accuracy)
        for dataset, recipe, record in _known_recipes(datasets)
        for configuration, accuracy in record.values["accuracy"].items()
    ]
    return pd.DataFrame(rows, columns=["dataset", "recipe", "axis", "site", "seed", "configuration", "accuracy"])


def _known_recipes(datasets: Iterable[str]) -> Iterator[tuple[str, recipes.Recipe, records.Record]]:
    for dataset in datasets:
        for seed in sorted({record.spec.seed for record in records.collect("accuracy", "paper", MODEL, dataset)}):
            for recipe in recipes.grid():
                record = recipe.run(runs.Case(MODEL, dataset, seed, "paper")).known()
                if record is not None:
                    yield dataset, recipe, record


# --- Table 1: accuracy -----------------------------------------------------------------------------------------------


def accuracy_table(found: Sequence[Condition]) -> pd.DataFrame:
    """One row a condition and width: the paper's accuracy, ours over seeds, verdict and reason."""
    rows = []
    for condition in found:
        ours = _summary(condition)
        for bits, stated in condition.stated.iterrows():
            row = {"condition": condition.name, "bits": bits}
            row["paper P (%)"] = with_origin(_percent_with_std(stated), stated.accuracy_origin)
            if ours is None:
                row |= {"ours P (%)": "no record", "verdict": report.UNDECIDED, "reason": _absence(condition.dataset)}
            else:
                mine = ours.loc[bits]
                verdict, reason = report.accuracy_verdict(
                    stated.accuracy, mine.accuracy, mine.accuracy_low, mine.accuracy_high
                )
                row |= {"ours P (%)": report.spread(mine, "accuracy", 100), "verdict": verdict, "reason": reason}
            rows.append(row)
    return pd.DataFrame(rows)


def say_accuracy(found: Sequence[Condition]) -> None:
    """How many of the stated accuracies reproduce."""
    table = accuracy_table(found)
    comparable = table[table.verdict != report.UNDECIDED]
    counts = comparable.verdict.value_counts()
    parts = [
        f"{counts.get(verdict, 0)} {verdict[2:]}"
        for verdict in (report.REPRODUCED, report.IN_PART, report.NOT_REPRODUCED)
    ]
    seeds = {condition.name: condition.measured.seeds for condition in found if condition.measured}
    listed = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in seeds.items())
    report.say(f"Of {len(comparable)} comparable accuracies: {', '.join(parts)}. Seeds: {listed}.")


def say_selection(found: Sequence[Condition]) -> None:
    """Best against last epoch, from the training records."""
    lines = []
    for condition in found:
        trained = records.collect("training", "paper", MODEL, condition.dataset)
        if not trained:
            continue
        gains = [100 * (record.values["best_accuracy"] - record.values["last_accuracy"]) for record in trained]
        epochs = ", ".join(str(record.values["best_epoch"]) for record in trained)
        lines.append(
            f"{condition.name}: the best epoch is {np.mean(gains):.2f} pp above the last (mean of {len(gains)} seeds; "
            f"best epochs {epochs})"
        )
    report.say("; ".join(lines) + "." if lines else "There is no training record yet.")


# --- Figure 2 and latency --------------------------------------------------------------------------------------------


def figure_components(found: Sequence[Condition]) -> tuple:
    """Figure 2: accuracy and latency by width, ours with seeds' range, the paper's where it states them."""
    shown = _present(found)
    figure, axes = report.panels(2, max(len(shown), 1), width=7, height=2.6 * max(len(shown), 1))
    words = []
    for row, condition in enumerate(shown):
        ours, stated = _summary(condition), condition.stated
        left, right = axes[2 * row], axes[2 * row + 1]
        _lines(left, ours, stated, "accuracy", 100)
        left.set(title=f"{condition.name}: accuracy P", ylabel="test accuracy (%)", ylim=(0, 103))
        _lines(right, ours, stated, "latency_ms", 1)
        right.set(title=f"{condition.name}: latency T", ylabel="ms a batch of 64", ylim=(0, None))
        left.legend()
        words.append(
            f"{condition.name}: accuracy falls from {percent(ours.accuracy[32], 1)} at 32 bits over "
            f"{percent(ours.accuracy[8], 1)} at 8 and {percent(ours.accuracy[4], 1)} at 4 to "
            f"{percent(ours.accuracy[2], 1)} at "
            f"2 bits; latency rises from {ours.latency_ms[32]:.2f} ms at 32 bits to {ours.latency_ms[8]:.2f} ms at 8"
        )
    caption = (
        "The paper's Figure 2 for SimpleCNN: accuracy and latency by bit-width. Filled: ours, mean and standard "
        "deviation over seeds "
        f"({_devices(shown)}). Hollow: stated or implied by the paper (RTX 3090)."
    )
    return figure, "fig-exp1-components", caption, "Line plots by bit-width. " + ". ".join(words) + "."


def latency_table(found: Sequence[Condition]) -> pd.DataFrame:
    """Latency of every timed configuration relative to 32 bits, with the noise floor of the A/A pair."""
    rows = []
    for condition in _present(found):
        timed = [record for record in condition.measured.records if record.spec.kind == "latency"]
        for name in TIMED:
            ratios = [_ratio(record, name) for record in timed]
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


def say_latency(found: Sequence[Condition]) -> None:
    """What the extra timings show."""
    lines = []
    for condition in _present(found):
        timed = [record for record in condition.measured.records if record.spec.kind == "latency"]
        mean = {name: np.mean([_ratio(record, name)[0] for record in timed]) for name in TIMED}
        lines.append(
            f"On {condition.name} an 8-bit pass takes {mean['8']:.2f} times the 32-bit one, "
            f"{mean[runs.COMMUTED_8]:.2f} times when the same numbers are computed after pooling, and a 16-bit integer "
            f"grid {mean[runs.INTEGER_16]:.2f} times"
        )
    stated = paper.table1(CONDITION[MODEL, "cifar10"]).set_index("bits").latency_ms
    lines.append(f"The paper's own numbers imply {stated[4] / stated[32]:.2f} times for 4 bits on CIFAR-10 (its GPU)")
    report.say(". ".join(lines) + ". So $T$, and through it the index, depends on how the simulator is written.")


# --- Table 1: scores -------------------------------------------------------------------------------------------------


def score_table(found: Sequence[Condition]) -> pd.DataFrame:
    """Latency, I and I' of the paper and ours, one row a condition and width."""
    rows = []
    for condition in found:
        ours = _summary(condition)
        for bits, stated in condition.stated.iterrows():
            row = {"condition": condition.name, "bits": bits, "C": number(stated.compression, 0)}
            for quantity, sign, digits in (("latency_ms", "T (ms)", 2), ("index", "I", 3), ("gated_index", "I'", 3)):
                row[f"paper {sign}"] = with_origin(number(stated[quantity], digits), stated[f"{quantity}_origin"])
                row[f"ours {sign}"] = "no record" if ours is None else _plus_minus(ours.loc[bits], quantity, digits)
            rows.append(row)
    return pd.DataFrame(rows)


def ranking_table(found: Sequence[Condition]) -> pd.DataFrame:
    """Order of the widths by I and I': the paper's, ours, and whether the first place and the whole order agree."""
    rows = []
    stated = paper.rankings()
    for condition in _present(found):
        ours = _summary(condition)
        for quantity, sign in (("index", "I"), ("gated_index", "I'")):
            mine = metric.rank(PAPER_BITS, [ours[quantity][bits] for bits in PAPER_BITS])
            match = stated[(stated.condition == condition.measured.condition) & (stated.metric == quantity)]
            row = {"condition": condition.name, "score": sign, "paper": UNKNOWN, "ours": " > ".join(map(str, mine))}
            if match.empty:
                row |= {"verdict": report.UNDECIDED, "reason": "no order stated"}
            else:
                order, origin, scope = match.iloc[0][["order", "origin", "scope"]]
                row["paper"] = with_origin(" > ".join(map(str, order)), origin)
                row |= dict(zip(("verdict", "reason"), report.order_verdict(order, mine, scope), strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def figure_index(found: Sequence[Condition]) -> tuple:
    """Figure 1: I and I' by width, ours and the paper's."""
    shown = _present(found)
    figure, axes = report.panels(2, max(len(shown), 1), width=7, height=2.7 * max(len(shown), 1))
    words = []
    for row, condition in enumerate(shown):
        ours, stated = _summary(condition), condition.stated
        for axis, quantity, sign in ((axes[2 * row], "index", "I"), (axes[2 * row + 1], "gated_index", "I'")):
            _lines(axis, ours, stated, quantity, 1)
            axis.set(title=f"{condition.name}: {sign}", ylabel=sign, ylim=(0, None))
            best = ours[quantity].idxmax()
            words.append(f"{condition.name}, {sign}: highest at {best} bits ({ours[quantity][best]:.2f})")
        axes[2 * row].legend()
    caption = (
        "The paper's Figure 1 for SimpleCNN: the index I (left) and the gated index I' (right) by bit-width. Filled: "
        f"ours, mean and standard deviation over seeds ({_devices(shown)}). Hollow: stated or implied by the paper. "
        "The two differ in height because their latencies do."
    )
    return figure, "fig-exp1-index", caption, "Line plots by bit-width. " + "; ".join(words) + "."


# --- the knee --------------------------------------------------------------------------------------------------------


def figure_knee(found: Sequence[Condition]) -> tuple:
    """Stacked bars: probability of each width being the knee."""
    shown = _present(found)
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
    return figure, "fig-exp1-knee", caption, "Stacked bars. " + "; ".join(words) + "."


def knee_table(found: Sequence[Condition]) -> pd.DataFrame:
    """Knee probabilities per condition beside the paper's knee, with a verdict."""
    rows = []
    for condition in _present(found):
        bootstrap = condition.measured.knee()
        stated = int(condition.facts["knee_bits"])
        verdict, reason = report.knee_verdict(stated, bootstrap.probability)
        row = {"condition": condition.name, "paper's knee": f"{stated}-bit"}
        row |= {f"P({bits})": f"{bootstrap.probability[bits]:.3f}" for bits in PAPER_BITS}
        rows.append(row | {"threshold": f"{condition.measured.threshold:.3f}", "verdict": verdict, "reason": reason})
    return pd.DataFrame(rows)


def between_table(found: Sequence[Condition]) -> pd.DataFrame:
    """Accuracy and I' at the widths the paper skips, beside their neighbours; latency is that of 8 bits throughout,
    since simulated rounding costs the same at any width. The width with the highest I' of all is marked."""
    rows = []
    for condition in _present(found):
        measured = condition.measured
        cases = [runs.Case(MODEL, condition.dataset, seed, condition.profile) for seed in measured.seeds]
        known = [runs.accuracy(case, BETWEEN).known() for case in cases]
        if None in known:
            continue
        accuracy = {bits: [record.values["accuracy"][label(bits)] for record in known] for bits in BETWEEN}
        wide = measured.table.pivot(index="seed", columns="bits", values="accuracy")
        accuracy |= {bits: wide[bits].tolist() for bits in (8, 4, 2)}
        latency = measured.table[measured.table.bits == 8].latency_ms.to_numpy()
        scored = {
            bits: metric.gated_index(32 / bits, np.array(values), latency, measured.threshold).mean()
            for bits, values in accuracy.items()
        }
        for bits in sorted(accuracy, reverse=True):
            rows.append(
                {
                    "condition": condition.name,
                    "bits": bits,
                    "P (%)": _mean_std(pd.Series(accuracy[bits])),
                    "I'": number(scored[bits]) + (" (highest)" if scored[bits] == max(scored.values()) else ""),
                    "in the paper": "no" if bits in BETWEEN else "yes",
                }
            )
    return pd.DataFrame(rows)


# --- the recipe question ---------------------------------------------------------------------------------------------


def site_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by activation site at the grid's configurations, the paper's stated values in the last rows."""
    rows = []
    for dataset, part in _at_sites(grid).groupby("dataset", sort=False):
        configurations = list(dict.fromkeys(part.configuration))
        for site, title in SITES.items():
            cells = part[part.site == site].groupby("configuration").accuracy
            rows.append(
                {"condition": NAMES[dataset], "activations rounded at": title}
                | {name: _mean_std(cells.get_group(name)) for name in configurations if name in cells.groups}
            )
        rows.append(
            {"condition": NAMES[dataset], "activations rounded at": "the paper states"}
            | _stated_cells(dataset, configurations)
        )
    return pd.DataFrame(rows)


def figure_sites(grid: pd.DataFrame) -> tuple:
    """Accuracy at 4 bits by site, one point a seed."""
    part = _at_sites(grid)
    part = part[part.configuration == "4"]
    datasets = list(dict.fromkeys(part.dataset))
    figure, axes = report.panels(max(len(datasets), 1), width=7, height=2.8)
    words = []
    for axis, dataset in zip(axes, datasets, strict=False):
        for place, (site, title) in enumerate(SITES.items()):
            values = 100 * part[(part.dataset == dataset) & (part.site == site)].accuracy.to_numpy()
            marker, colour = SITE_MARKERS[site]
            axis.plot(np.full(len(values), place), values, marker, color=colour, markersize=8, alpha=0.8)
            words.append(f"{NAMES[dataset]}, {title}: {values.min():.1f} to {values.max():.1f} %")
        stated = _stated(dataset, "4")
        if not np.isnan(stated):
            axis.axhline(100 * stated, color=report.GREY, linestyle="--", linewidth=1)
            axis.annotate("the paper", (2.4, 100 * stated), ha="right", va="bottom", color=report.GREY)
        axis.set_xticks(range(3), ["output,\nbefore ReLU", "after\nReLU", "input of\nnext layer"])
        axis.set(title=NAMES[dataset], ylabel="4-bit accuracy (%)", xlim=(-0.5, 2.5))
    caption = "Accuracy at 4 bits by where activations are rounded, one point a seed. Nothing else differs."
    return figure, "fig-exp1-sites", caption, "Dot plots. " + "; ".join(words) + "."


def say_sites(grid: pd.DataFrame) -> None:
    """How far moving the quantizer moves the 4-bit accuracy, paired by seed."""
    if grid.empty:
        return say_absent()
    part = _at_sites(grid)
    part = part[part.configuration == "4"]
    lines = []
    for dataset, rows in part.groupby("dataset", sort=False):
        wide = rows.pivot(index="seed", columns="site", values="accuracy")
        for site in ("relu", "input"):
            gain = stats.mean_interval((100 * (wide[site] - wide["output"])).to_numpy())
            lines.append(
                f"{NAMES[dataset]}: moving it from the layer's output to {SITES[site]} changes 4-bit accuracy by "
                f"{gain.estimate:+.1f} pp [{gain.low:+.1f}, {gain.high:+.1f}] ({len(wide)} seeds, paired)"
            )
    report.say("; ".join(lines) + ".")


def figure_recipes(grid: pd.DataFrame) -> tuple:
    """Every recipe as a point: uniform 4-bit accuracy against the paper's searched topology; ``grid`` of CIFAR-10."""
    wide = _recipe_means(grid)
    figure, axes = report.panels(width=7, height=4)
    axis = axes[0]
    for site, (marker, colour) in SITE_MARKERS.items():
        part = wide[wide.site == site]
        axis.plot(100 * part["4"], 100 * part[label(SEARCHED)], marker, color=colour, alpha=0.75, label=SITES[site])
    stated = 100 * _stated("cifar10", "4"), 100 * _stated("cifar10", label(SEARCHED))
    axis.plot(*stated, "*", color="black", markersize=16, label="the paper")
    axis.set(xlabel="accuracy at 4-4-4-4 (%)", ylabel=f"accuracy at {label(SEARCHED)} (%)")
    axis.legend(loc="lower right")
    caption = (
        "CIFAR-10: each recipe's accuracy at uniform 4 bits and at the paper's searched topology 8-8-8-4, mean over "
        "seeds. Marker by activation site; the star is what the paper states."
    )
    nearest = _distances(wide).iloc[0]
    alt = (
        f"Scatter of {len(wide)} recipes. The paper's point is at {stated[0]:.1f} and {stated[1]:.1f} %. "
        f"The nearest recipe, {nearest.recipe}, lies at {100 * nearest['4']:.1f} and "
        f"{100 * nearest[label(SEARCHED)]:.1f} %."
    )
    return figure, "fig-exp1-recipes", caption, alt


def say_absent() -> None:
    """In place of what is drawn from the recipe grid, where there is no record of it."""
    report.say("There is no record of the recipe grid here. To make it: `quide run exp1 --profile paper`")


def closest_table(grid: pd.DataFrame, most: int = 12) -> pd.DataFrame:
    """The recipes nearest to the paper's stated CIFAR-10 accuracies, and quide.PAPER wherever it stands."""
    if grid.empty:
        return grid
    ranked = _distances(_recipe_means(grid)).reset_index(drop=True)
    base = _base_recipe()
    shown = ranked[(ranked.index < most) | (ranked.recipe == base)]
    return pd.DataFrame(
        {
            "recipe": row.recipe + (" (quide.PAPER)" if row.recipe == base else ""),
            "place": f"{place + 1} of {len(ranked)}",
            "8": percent(row["8"], 2),
            "4": percent(row["4"], 2),
            label(SEARCHED): percent(row[label(SEARCHED)], 2),
            "2": percent(row["2"], 2),
            "largest difference": f"{100 * row.distance:.2f} pp",
        }
        for place, row in shown.iterrows()
    )


def say_recipes(grid: pd.DataFrame) -> None:
    """Which recipes can and cannot have made the paper's numbers."""
    if grid.empty:
        return say_absent()
    ranked = _distances(_recipe_means(grid))
    close = ranked[ranked.distance <= report.NEAR]
    sites = close.site.value_counts()
    by_site = ", ".join(
        f"{sites.get(site, 0)} of {(ranked.site == site).sum()} at {title}" for site, title in SITES.items()
    )
    report.say(
        f"Within {100 * report.NEAR:.0f} pp of both stated CIFAR-10 accuracies: {len(close)} of {len(ranked)} recipes "
        f"({by_site}). "
        f"The nearest is *{ranked.recipe.iloc[0]}*, the farthest *{ranked.recipe.iloc[-1]}* "
        f"({100 * ranked.distance.iloc[-1]:.1f} pp away)."
    )


def site_knee_table(grid: pd.DataFrame, found: Sequence[Condition]) -> pd.DataFrame:
    """Knee probabilities when only the activation site moves; 32 and 16 bits and all latencies are kept."""
    rows = []
    for condition in _present(found):
        measured = condition.measured
        for site, title in SITES.items():
            correct = _correct_at_site(condition, site)
            if correct is None:
                continue
            knee = replace(measured, correct=correct).knee()
            best = max(knee.probability, key=knee.probability.get)
            row = {"condition": condition.name, "activations rounded at": title, "knee": f"{best}-bit"}
            row |= {f"P({bits})": f"{knee.probability[bits]:.3f}" for bits in PAPER_BITS}
            row |= {f"I'({bits})": number(knee.interval(bits).estimate) for bits in (8, 4)}
            rows.append(row)
    return pd.DataFrame(rows)


# --- the end of the page ---------------------------------------------------------------------------------------------


def summary_table(found: Sequence[Condition], grid: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims about EXP-1, one a row, with verdict and evidence drawn from the tables above."""
    rows = []
    for condition in found:
        if condition.measured is None:
            rows.append((f"{condition.name}: everything", report.UNDECIDED, _absence(condition.dataset)))
            continue
        ours, stated = _summary(condition), condition.stated
        for bits, claim in (
            (32, "full-precision accuracy"),
            (4, "accuracy at 4 bits"),
            (2, "collapse to chance at 2 bits"),
        ):
            mine = ours.loc[bits]
            verdict, reason = report.accuracy_verdict(
                stated.accuracy[bits], mine.accuracy, mine.accuracy_low, mine.accuracy_high
            )
            if verdict != report.UNDECIDED:
                rows.append((f"{condition.name}: {claim} ({percent(stated.accuracy[bits])})", verdict, reason))
        rows.append((f"{condition.name}: 16 bits loses nothing", *_lossless_verdict(condition, 16, 0.0001)))
        rows.append((f"{condition.name}: stable through 8 bits", *_lossless_verdict(condition, 8, report.CLOSE)))
        stated_knee = int(condition.facts["knee_bits"])
        rows.append(
            (
                f"{condition.name}: the knee is {stated_knee}-bit",
                *report.knee_verdict(stated_knee, condition.measured.knee().probability),
            )
        )
    mixed = grid[
        (grid.dataset == "cifar10") & (grid.recipe == _base_recipe()) & (grid.configuration == label(SEARCHED))
    ]
    if len(mixed):
        interval = stats.mean_interval(mixed.accuracy.to_numpy())
        stated_mixed = _stated("cifar10", label(SEARCHED))
        verdict = report.accuracy_verdict(stated_mixed, interval.estimate, interval.low, interval.high)
        rows.append((f"CIFAR-10: accuracy at {label(SEARCHED)} ({percent(stated_mixed)})", *verdict))
    return pd.DataFrame(rows, columns=["claim", "verdict", "evidence"])


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
                    "condition": NAMES[case.dataset],
                    "seed": case.seed,
                    "bits": bits,
                    "P (%) [95 % Wilson]": report.with_interval(interval, 100),
                    "images": count,
                    "T (ms)": number(timed.values["latencies"][name]["median_ms"], 2),
                    "timing": "noisy" if timed.values["noisy"] else "quiet",
                }
            )
    return pd.DataFrame(rows)


def records_used(found: Sequence[Condition]) -> list[records.Record]:
    """The records the page was drawn from."""
    shown = _present(found)
    trained = [record for c in shown for record in records.collect("training", c.profile, MODEL, c.dataset)]
    grid = [record for _, _, record in _known_recipes(c.dataset for c in shown)]
    return trained + [record for c in shown for record in c.measured.records] + grid


# --- helpers ---------------------------------------------------------------------------------------------------------


def _present(found: Sequence[Condition]) -> list[Condition]:
    return [condition for condition in found if condition.measured is not None]


def _summary(condition: Condition) -> pd.DataFrame | None:
    return None if condition.measured is None else condition.measured.summary().set_index("bits")


def _absence(dataset: str) -> str:
    return f"not run yet; quide data fetch {dataset}, then quide run exp1 --datasets {dataset} --profile paper"


def _percent_with_std(stated: pd.Series) -> str:
    text = number(100 * stated.accuracy, 2)
    return text if pd.isna(stated.accuracy_std) else f"{text} ± {100 * stated.accuracy_std:.2f}"


def _plus_minus(row: pd.Series, quantity: str, digits: int) -> str:
    std = row[f"{quantity}_std"]
    return number(row[quantity], digits) if np.isnan(std) else f"{row[quantity]:.{digits}f} ± {std:.{digits}f}"


def _lines(axis, ours: pd.DataFrame, stated: pd.DataFrame, quantity: str, scale: float) -> None:
    """Ours as a filled line with bars of one standard deviation, the paper's known points hollow."""
    order = report.positions(PAPER_BITS, list(ours.index))
    error = scale * ours[f"{quantity}_std"].fillna(0)
    axis.errorbar(order, scale * ours[quantity], yerr=error, fmt="o-", color=report.BLUE, capsize=3, label="ours")
    known = stated[stated[quantity].notna()]
    places = report.positions(PAPER_BITS, list(known.index))
    axis.plot(
        places, scale * known[quantity], "D", color=report.ORANGE, markerfacecolor="none", markersize=8, label="paper"
    )
    report.bit_axis(axis, PAPER_BITS)


def _devices(shown: Sequence[Condition]) -> str:
    return "; ".join(sorted({condition.measured.device for condition in shown})) or "no record"


def _ratio(record: records.Record, name: str) -> tuple[float, float, float]:
    """Median, p10 and p90 of a configuration over the median of 32 bits, from one timing run."""
    reference = record.values["latencies"]["32"]["median_ms"]
    timed = record.values["latencies"][name]
    return timed["median_ms"] / reference, timed["p10_ms"] / reference, timed["p90_ms"] / reference


def _lossless_verdict(condition: Condition, bits: int, limit: float) -> tuple[str, str]:
    """Whether the mean change from 32 bits stays within ``limit``, with the worst seed as evidence."""
    wide = condition.measured.table.pivot(index="seed", columns="bits", values="accuracy")
    change = wide[bits] - wide[32]
    reason = f"mean change {100 * change.mean():+.3f} pp, worst seed {100 * change.min():+.3f} pp"
    if abs(change.mean()) <= limit:
        return report.REPRODUCED, reason
    return (report.IN_PART if abs(change.mean()) <= report.CLOSE else report.NOT_REPRODUCED), reason


def _at_sites(grid: pd.DataFrame) -> pd.DataFrame:
    """The three recipes that differ in the activation site alone."""
    plain = {f"{site} minmax, weights per tensor" for site in SITES}
    return grid[grid.recipe.isin(plain)]


def _base_recipe() -> str:
    return next(recipe.name for recipe in recipes.grid() if recipe.axis == "grid" and recipe.scheme == ptq.PAPER)


def _mean_std(values: pd.Series) -> str:
    text = f"{100 * values.mean():.2f}"
    return text if len(values) == 1 else f"{text} ± {100 * values.std(ddof=1):.2f}"


def _stated(dataset: str, configuration: str) -> float:
    """The accuracy the paper states for a configuration, NaN if none."""
    try:
        return paper.number(f"{CONDITION[MODEL, dataset]}.accuracy.{configuration}")
    except KeyError:
        return float("nan")


def _stated_cells(dataset: str, configurations: Iterable[str]) -> dict[str, str]:
    return {name: number(100 * _stated(dataset, name), 2) for name in configurations}


def _recipe_means(grid: pd.DataFrame) -> pd.DataFrame:
    """One row a recipe: accuracy by configuration, mean over seeds, of one data set's rows."""
    keys = ["recipe", "axis", "site"]
    wide = grid.pivot_table(index=keys, columns="configuration", values="accuracy", aggfunc="mean")
    return wide.reset_index()


def _distances(wide: pd.DataFrame) -> pd.DataFrame:
    """Recipes by their largest difference from the two accuracies that tell recipes apart, nearest first."""
    differences = [(wide[name] - _stated("cifar10", name)).abs() for name in ("4", label(SEARCHED))]
    return wide.assign(distance=np.maximum(*differences)).sort_values(["distance", "recipe"], ignore_index=True)


def _correct_at_site(condition: Condition, site: str) -> np.ndarray | None:
    """The condition's correctness with 8, 4 and 2 bits taken from another activation site; None without records."""
    correct = condition.measured.correct.copy()
    scheme = replace(ptq.PAPER, activation_site=site)
    recipe = next(r for r in recipes.grid() if r.axis == "grid" and r.scheme == scheme)
    for row, seed in enumerate(condition.measured.seeds):
        record = recipe.run(runs.Case(MODEL, condition.dataset, seed, condition.profile)).known()
        if record is None:
            return None
        for bits in recipes.GRID_BITS:
            correct[row, PAPER_BITS.index(bits)] = records.unpack_bits(record.values["correct"][label(bits)])
    return correct
