"""The page of EXP-1 (SimpleCNN, §4.1 and §4.2): which runs it needs, and each of its tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from quide import metric, ptq, stats
from quide.evaluate import PAPER_BITS, label
from quide.experiments import paper, recipes, records, runs
from quide.experiments.recipes import SEARCHED
from quide.experiments.runs import CONDITION
from quide.stats import unpack_bits
from quidebook import report
from quidebook.report import number, percent
from quidebook.shared import table1
from quidebook.shared.table1 import NAMES, Condition, accuracy_table, claims, mean_ratios, present

MODEL = "simplecnn"
BETWEEN = (6, 5, 3)  # widths the paper skips
SITES = {"output": "layer output, before ReLU", "relu": "after ReLU", "input": "layer input"}
SITE_MARKERS = {"output": ("o", report.ORANGE), "relu": ("s", report.BLUE), "input": ("^", report.GREEN)}


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
    rerun = "quide data fetch {0}, then quide run exp1 --datasets {0} --profile paper"
    return [
        table1.best_known(MODEL, dataset, ("paper", "quick", "smoke"), rerun.format(dataset)) for dataset in datasets
    ]


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


def say_latency(found: Sequence[Condition]) -> None:
    """What the extra timings show."""
    lines = []
    for condition in present(found):
        mean = mean_ratios(condition)
        lines.append(
            f"On {condition.name} an 8-bit pass takes {mean['8']:.2f} times the 32-bit one, "
            f"{mean[runs.COMMUTED_8]:.2f} times when the same numbers are computed after pooling, and a 16-bit integer "
            f"grid {mean[runs.INTEGER_16]:.2f} times; the float16 cast that 16 bits are timed as takes {mean['16']:.1f}"
        )
    stated = paper.table1(CONDITION[MODEL, "cifar10"]).set_index("bits").latency_ms
    lines.append(f"The paper's own numbers imply {stated[4] / stated[32]:.2f} times for 4 bits on CIFAR-10 (its GPU)")
    report.say(". ".join(lines) + ". So $T$, and through it the index, depends on how the simulator is written.")


# --- the knee --------------------------------------------------------------------------------------------------------


def between_table(found: Sequence[Condition]) -> pd.DataFrame:
    """Accuracy and I' at the widths the paper skips, beside their neighbours; latency is that of 8 bits throughout,
    since simulated rounding costs the same at any width. The width with the highest I' of all is marked."""
    rows = []
    for condition in present(found):
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
    for condition in present(found):
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
            rows.append((f"{condition.name}: everything", report.UNDECIDED, condition.absence))
            continue
        rows += claims(condition)
    mixed = grid[
        (grid.dataset == "cifar10") & (grid.recipe == _base_recipe()) & (grid.configuration == label(SEARCHED))
    ]
    if len(mixed):
        interval = stats.mean_interval(mixed.accuracy.to_numpy())
        stated_mixed = _stated("cifar10", label(SEARCHED))
        verdict = report.accuracy_verdict(stated_mixed, interval.estimate, interval.low, interval.high)
        rows.append((f"CIFAR-10: accuracy at {label(SEARCHED)} ({percent(stated_mixed)})", *verdict))
    return pd.DataFrame(rows, columns=["claim", "verdict", "evidence"])


def records_used(found: Sequence[Condition]) -> list[records.Record]:
    """The records the page was drawn from."""
    shown = present(found)
    trained = [record for c in shown for record in records.collect("training", c.profile, MODEL, c.dataset)]
    grid = [record for _, _, record in _known_recipes(c.dataset for c in shown)]
    return trained + [record for c in shown for record in c.measured.records] + grid


# --- helpers ---------------------------------------------------------------------------------------------------------


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
            correct[row, PAPER_BITS.index(bits)] = unpack_bits(record.values["correct"][label(bits)])
    return correct
