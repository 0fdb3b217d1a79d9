"""EXP-1's networks for the pages that draw on them: what records hold, the grid of recipes, and the claims, judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from quide import stats
from quide.experiments import paper, recipes, records, runs
from quide.experiments.recipes import SEARCHED, Recipe
from quide.experiments.runs import CONDITION
from quide.ptq.scheme import PAPER
from quide.ptq.width import label
from quidebook import verdicts
from quidebook.evidence.conditions import Condition, best_known
from quidebook.report import percent
from quidebook.shared import claims

MODEL, RERUN = "simplecnn", "quide run exp1 --profile paper"
COLUMNS = ["dataset", "recipe", "axis", "site", "seed", "configuration", "accuracy"]


def conditions(datasets: Iterable[str]) -> list[Condition]:
    """What records hold of each data set: the paper profile's, or the best profile there is."""
    rerun = "quide data fetch {0}, then quide run exp1 --datasets {0} --profile paper"
    return [best_known(MODEL, dataset, ("paper", "quick", "smoke"), rerun.format(dataset)) for dataset in datasets]


def recipe_results(datasets: Iterable[str]) -> pd.DataFrame:
    """Accuracies of the recipe grid from paper-profile records, one row a (dataset, recipe, seed, configuration).

    Columns: dataset, recipe, axis, site, seed, configuration, accuracy (fraction).
    """
    rows = [
        (dataset, recipe.name, recipe.axis, recipe.scheme.activation_site, record.spec.seed, configuration, accuracy)
        for dataset, recipe, record in known_recipes(datasets)
        for configuration, accuracy in record.values["accuracy"].items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def known_recipes(datasets: Iterable[str]) -> Iterator[tuple[str, Recipe, records.Record]]:
    """The records of the grid: data set, recipe, record."""
    for dataset in datasets:
        for seed in sorted({record.spec.seed for record in records.collect("accuracy", "paper", MODEL, dataset)}):
            for recipe in recipes.grid():
                if (record := recipe.run(runs.Case(MODEL, dataset, seed, "paper")).known()) is not None:
                    yield dataset, recipe, record


def base_recipe() -> str:
    """The name in the grid of what quide.PAPER does."""
    return next(recipe.name for recipe in recipes.grid() if recipe.axis == "grid" and recipe.scheme == PAPER)


def stated(dataset: str, configuration: str) -> float:
    """The accuracy (fraction) that the paper states for a configuration, NaN if none."""
    try:
        return paper.number(f"{CONDITION[MODEL, dataset]}.accuracy.{configuration}")
    except KeyError:
        return float("nan")


def summary_table(found: Sequence[Condition], grid: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims about EXP-1, one a row, with verdict and evidence.

    Args:
        found: :func:`conditions`.
        grid: :func:`recipe_results`.
    """
    rows = [row for condition in found for row in claims.of_table1(condition)]
    name = label(SEARCHED)
    mixed = grid[(grid.dataset == "cifar10") & (grid.recipe == base_recipe()) & (grid.configuration == name)].accuracy
    if len(mixed):
        ours, claimed = stats.mean_interval(mixed.to_numpy()), stated("cifar10", name)
        verdict, reason = verdicts.accuracy_verdict(claimed, ours.estimate, ours.low, ours.high)
        rows.append((f"CIFAR-10: accuracy at {name} ({percent(claimed)})", verdict, reason + claims.fitted(
            CONDITION[MODEL, "cifar10"], name
        )))  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "verdict", "evidence"])
