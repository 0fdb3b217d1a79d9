"""The page of EXP-1 (SimpleCNN, §4.1 and §4.2): its tables and figures, and the facts it tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from quide import metric, stats
from quide.experiments import paper, records, runs
from quide.experiments.campaign import BETWEEN
from quide.experiments.recipes import SEARCHED
from quide.experiments.runs import CONDITION
from quide.ptq.width import label
from quidebook import report, verdicts
from quidebook.evidence.conditions import NAMES, Condition, present, trainings
from quidebook.report import Absent, Facts, gathered, mean_std, number, percent, tabled
from quidebook.shared import simplecnn, sites, table1
from quidebook.shared.simplecnn import MODEL, RERUN, stated
from quidebook.shared.sites import SITE_MARKERS, SITES

SAME = 1e-9  # as fractions: accuracies of recipes that give the same network
WHY_ALIKE = {  # axis of a departure from quide.PAPER that changes nothing -> why
    "weight levels": "with min-max no weight reaches the one integer that it adds",
    "rounding": "hardly a value lies halfway between two integers",
}
NO_GRID = Absent("the recipe grid", RERUN)
knees = sites.knees


def records_used(found: Sequence[Condition]) -> list[records.Record]:
    """The records the page was drawn from."""
    shown = present(found)
    grid = [record for _, _, record in simplecnn.known_recipes(c.dataset for c in shown)]
    return [record for c in shown for record in (*trainings(c), *c.measured.records)] + grid


def answer(found: Sequence[Condition], moved_knees: Sequence[Mapping[str, object]]) -> Facts:
    """The knee of each condition, ours and the paper's, and where it lies with another activation site, in words."""
    shown = present(found)
    if not shown:
        return Absent("SimpleCNN", RERUN)
    ours = [
        {"name": c.name, "ours": int(c.summary.gated_index.idxmax()), "stated": int(c.facts["knee_bits"])}
        for c in shown
    ]
    after = [one for one in moved_knees if one["site"] == SITES["relu"]]
    return {
        "knees": report.listed("{ours} bits on {name} (the paper: {stated})", ours),
        "after": report.listed("{knee} bits on {condition}", after) or "not measured",
    }


# --- accuracy and latency --------------------------------------------------------------------------------------------


def reproduced(found: Sequence[Condition]) -> Facts:
    """How many accuracies can be compared, and how many of them have which verdict; how many of them chose our
    quantizer; the seeds, in words."""
    table = table1.accuracy_table(found)
    counts = table.verdict.value_counts()
    names = {"reproduced": verdicts.REPRODUCED, "part": verdicts.IN_PART, "other": verdicts.NOT_REPRODUCED}
    tally = {name: int(counts.get(verdict, 0)) for name, verdict in names.items()}
    seeds = "; ".join(f"{c.name}: {', '.join(map(str, c.measured.seeds))}" for c in present(found))
    fitted = int(table.reason.str.contains("was chosen by").sum())
    return tally | {"comparable": sum(tally.values()), "seeds": seeds, "fitted": fitted}


def selection(condition: Condition) -> Facts:
    """What choosing the best epoch adds to the last one's accuracy (pp), mean over seeds."""
    trained = [record.values for record in records.collect("training", "paper", MODEL, condition.dataset)]
    if not trained:
        return Absent(f"training on {condition.name}", condition.rerun)
    gain = np.mean([values["best_accuracy"] - values["last_accuracy"] for values in trained])
    return {"condition": condition.name, "gain": 100 * gain, "seeds": len(trained)}


def stated_slowdown() -> Facts:
    """Latency at 4 bits over that at 32, as the paper's numbers for CIFAR-10 imply it."""
    latency = paper.table1(CONDITION[MODEL, "cifar10"]).set_index("bits").latency_ms
    return {"four": latency[4] / latency[32]}


# --- the knee --------------------------------------------------------------------------------------------------------


@gathered
def between(found: Sequence[Condition]) -> Iterator[dict[str, object]]:
    """The paper's narrow widths and those it skips, widest first, of each condition with records of all of them.

    Latency is that of 8 bits throughout, since simulated rounding costs the same at any width. Keys: condition, bits,
    share (accuracy over seeds, in words), score (I'), stated ("yes" of the paper's widths), best (whether its score is
    the highest), mark (that in words), paper (the best of the paper's widths), gain (the score over that width's).
    """
    for condition in present(found):
        measured = condition.measured
        cases = [runs.Case(MODEL, condition.dataset, seed, condition.profile) for seed in measured.seeds]
        known = [runs.accuracy(case, BETWEEN).known() for case in cases]
        if None in known:
            continue
        shares = {bits: pd.Series([record.values["accuracy"][label(bits)] for record in known]) for bits in BETWEEN}
        shares |= {bits: condition.by_seed[bits] for bits in (8, 4, 2)}
        latency = measured.table[measured.table.bits == 8].latency_ms.to_numpy()
        score = pd.Series(
            {b: metric.gated_index(32 / b, shares[b].to_numpy(), latency, measured.threshold).mean() for b in shares}
        )
        theirs = score.drop(list(BETWEEN)).idxmax()
        for bits in sorted(shares, reverse=True):
            row = {"condition": condition.name, "bits": bits, "share": mean_std(shares[bits]), "score": score[bits]}
            row |= {"stated": "no" if bits in BETWEEN else "yes", "best": bool(bits == score.idxmax()), "paper": theirs}
            yield row | {"mark": " (highest)" * row["best"], "gain": score[bits] / score[theirs]}


# --- the recipe question ---------------------------------------------------------------------------------------------


@tabled
def site_table(grid: pd.DataFrame, moved_knees: Sequence[Mapping[str, object]] = ()) -> Iterator[dict]:
    """Accuracy at the grid's configurations, and the knee, by activation site; what the paper states in last rows."""
    known = {(one["condition"], one["site"]): f"{one['knee']}-bit" for one in moved_knees}
    for dataset, part in sites.at_sites(grid).groupby("dataset", sort=False):
        name, configurations = NAMES[dataset], list(dict.fromkeys(part.configuration))
        for site, title in SITES.items():
            cells = part[part.site == site].groupby("configuration").accuracy
            row = {"condition": name, "rounded at": title, "knee": known.get((name, title), report.UNKNOWN)}
            yield row | {each: mean_std(cells.get_group(each)) for each in configurations if each in cells.groups}
        knee = paper.conditions().at[CONDITION[MODEL, dataset], "knee_bits"]
        row = {"condition": name, "rounded at": "the paper states", "knee": f"{int(knee)}-bit"}
        yield row | {each: number(100 * stated(dataset, each), 2) for each in configurations}


def figure_sites(grid: pd.DataFrame, moved_knees: Sequence[Mapping[str, object]]) -> tuple[Figure, str]:
    """A figure and what is seen: accuracy at 4 bits on CIFAR-10 by site, one point a seed, and the knee at each."""
    four = sites.at_sites(grid[grid.dataset == "cifar10"], "4")
    known = {one["site"]: one["knee"] for one in moved_knees if one["condition"] == NAMES["cifar10"]}
    figure, (axis,) = report.panels(width=6.5, height=3.2)
    words = []
    for place, (site, (marker, colour)) in enumerate(SITE_MARKERS.items()):
        values = 100 * four[four.site == site].accuracy.to_numpy()
        axis.plot(np.full(len(values), place), values, marker, color=colour, markersize=8, alpha=0.8)
        knee = f"knee: {known[SITES[site]]} bits" if SITES[site] in known else ""
        axis.annotate(knee, (place + 0.08, values.mean()), va="center", color=colour)
        words.append(f"{SITES[site]}: {values.min():.1f} to {values.max():.1f} %{', ' * bool(knee)}{knee}")
    theirs = 100 * stated("cifar10", "4")
    axis.axhline(theirs, color=report.GREY, linestyle="--", linewidth=1)
    axis.annotate(f"the paper, {theirs:.2f} %", (2.65, theirs), ha="right", va="bottom", color=report.GREY)
    axis.set_xticks(range(3), ["output,\nbefore ReLU", "after\nReLU", "input of\nnext layer"])
    moves = "the site moves the knee" if len(set(known.values())) > 1 else "the site moves the accuracy"
    axis.set(title=f"CIFAR-10 at 4 bits: {moves}", ylabel="accuracy (%)", xlim=(-0.4, 2.7))
    return figure, f"Dot plot, 4-bit accuracy by site. {'; '.join(words)}. The paper states {theirs:.2f} %."


@gathered
def moved(grid: pd.DataFrame) -> Iterator[dict[str, object]]:
    """How far moving the quantizer off the layer's output moves the 4-bit accuracy, paired by seed.

    Keys: condition, site (in words), gain, low and high (pp), seeds; ``share``: the gain over what 4 bits lose against
    8 at the layer's output.
    """
    for dataset in dict.fromkeys(grid.dataset):
        four, eight = (
            sites.at_sites(grid[grid.dataset == dataset], bits).pivot(index="seed", columns="site", values="accuracy")
            for bits in ("4", "8")
        )
        for site in ("relu", "input"):
            gain = stats.mean_interval((100 * (four[site] - four["output"])).to_numpy())
            lost = 100 * (eight["output"] - four["output"]).mean()
            row = {"condition": NAMES[dataset], "site": SITES[site], "seeds": len(four), "share": gain.estimate / lost}
            yield row | {"gain": gain.estimate, "low": gain.low, "high": gain.high}


def figure_recipes(grid: pd.DataFrame) -> tuple[Figure, str]:
    """Every recipe as a point, and what is seen: uniform 4-bit accuracy against the paper's searched topology.

    ``grid`` is that of CIFAR-10.
    """
    ranked, name, facts = _ranked(grid), label(SEARCHED), nearest(grid)
    figure, (axis,) = report.panels(width=6.5, height=4.2)
    for site, (marker, colour) in SITE_MARKERS.items():
        part = ranked[ranked.site == site]
        axis.plot(100 * part["4"], 100 * part[name], marker, color=colour, alpha=0.75, label=SITES[site])
    theirs = 100 * stated("cifar10", "4"), 100 * stated("cifar10", name)
    axis.plot(*theirs, "*", color="black", markersize=16, label="the paper")
    axis.set(
        xlabel="accuracy at 4-4-4-4 (%)",
        ylabel=f"accuracy at {name} (%)",
        title=f"{facts['close']} of {facts['recipes']} recipes come within {facts['limit']:.0f} pp of the paper",
    )
    report.legend_below(figure, axis, ncols=4, fontsize=8)
    alt = (
        f"Scatter of {len(ranked)} recipes. The paper's point is at {theirs[0]:.1f} and {theirs[1]:.1f} %. The nearest "
        f"recipe, {facts['nearest']}, lies at {100 * ranked['4'].iloc[0]:.1f} and {100 * ranked[name].iloc[0]:.1f} %."
    )
    return figure, alt


@tabled
def closest_table(grid: pd.DataFrame) -> Iterator[dict]:
    """The recipes by their distance from the paper's stated CIFAR-10 accuracies; equal ones share a rank."""
    ranked, base = _ranked(grid), simplecnn.base_recipe()
    ranks = ranked.distance.round(9).rank(method="min").astype(int)
    for rank, (_, row) in zip(ranks, ranked.iterrows(), strict=True):
        cells = {"recipe": row.recipe + (" (quide.PAPER)" if row.recipe == base else ""), "rank": rank}
        cells |= {name: percent(row[name], 2) for name in ("8", "4", label(SEARCHED), "2")}
        yield cells | {"largest difference": f"{100 * row.distance:.2f} pp"}


def nearest(grid: pd.DataFrame) -> Facts:
    """How many recipes come near both stated accuracies of CIFAR-10, of how many, at each site; the nearest.

    Keys: close, recipes, nearest, limit (pp); ``near`` and ``of`` each site.
    """
    if grid.empty:
        return NO_GRID
    ranked = _ranked(grid)
    close = ranked[ranked.distance <= verdicts.NEAR]
    facts = {"close": len(close), "recipes": len(ranked), "limit": 100 * verdicts.NEAR}
    facts["nearest"] = ranked.recipe.iloc[0]
    facts |= {f"near_{site}": int((close.site == site).sum()) for site in SITES}
    facts |= {f"of_{site}": int((ranked.site == site).sum()) for site in SITES}
    return facts


@gathered
def alike(grid: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Facts on each departure that :data:`WHY_ALIKE` explains and that shares the rank of ``quide.PAPER``."""
    ranked, base = _ranked(grid), simplecnn.base_recipe()
    shared = ranked[(ranked.distance - ranked.distance[ranked.recipe == base].sum()).abs() < SAME]
    for row in shared[shared.axis.isin(WHY_ALIKE)].itertuples():
        results = grid[grid.recipe.isin([row.recipe, base])].groupby(["seed", "configuration"]).accuracy
        apart = 100 * (results.max() - results.min()).max()
        yield {"recipe": row.recipe, "why": WHY_ALIKE[row.axis], "apart": apart}


def claims_table(found: Sequence[Condition], grid: pd.DataFrame) -> pd.DataFrame:
    """The claims of :func:`quidebook.shared.simplecnn.summary_table` that the accuracies of Table 1 do not answer."""
    table = simplecnn.summary_table(found, grid)
    return table[~table.claim.str.contains(r"full-precision accuracy|accuracy at 4 bits")]


def _ranked(grid: pd.DataFrame) -> pd.DataFrame:
    """One row a recipe, mean over seeds of one data set's rows, by the largest difference from the two accuracies that
    tell recipes apart, nearest first."""
    keys, wanted = ["recipe", "axis", "site"], ("4", label(SEARCHED))
    if grid.empty:
        return pd.DataFrame(columns=[*keys, "distance"])
    wide = grid.pivot_table(index=keys, columns="configuration", values="accuracy", aggfunc="mean").reset_index()
    differences = [(wide[name] - stated("cifar10", name)).abs() for name in wanted]
    return wide.assign(distance=np.maximum(*differences)).sort_values(["distance", "recipe"], ignore_index=True)
