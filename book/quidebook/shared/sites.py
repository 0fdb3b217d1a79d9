"""Where an activation is rounded: accuracies of SimpleCNN at three sites, from records, and the knee at each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from quide.experiments import recipes, runs
from quide.experiments.records import Record
from quide.ptq.scheme import PAPER
from quide.ptq.width import PAPER_BITS, label
from quide.stats import Hits
from quidebook import report
from quidebook.evidence.conditions import Condition, present
from quidebook.evidence.scores import Measured

SITES = {"output": "layer output, before ReLU", "relu": "after ReLU", "input": "layer input"}
SITE_MARKERS = {"output": ("o", report.ORANGE), "relu": ("s", report.BLUE), "input": ("^", report.GREEN)}


def at_sites(grid: pd.DataFrame, configuration: str | None = None) -> pd.DataFrame:
    """The three recipes that differ in the activation site alone, at one configuration or all."""
    plain = grid[grid.recipe.isin({f"{site} minmax, weights per tensor" for site in SITES})]
    return plain if configuration is None else plain[plain.configuration == configuration]


def at_each(condition: Condition) -> Iterator[tuple[str, Measured]]:
    """Each site, and what is measured of a condition there; 32 and 16 bits and all latencies are those of the first."""
    for site in SITES:
        if (correct := correct_at_site(condition, site)) is not None:
            yield site, replace(condition.measured, correct=correct)


@report.gathered
def knees(found: Sequence[Condition]) -> Iterator[dict[str, object]]:
    """The knee of each condition when only the activation site moves.

    Keys: condition, site (in words), knee (the likeliest), p32 to p2 (probabilities), index8 and index4 (I').
    """
    for condition in present(found):
        for site, moved in at_each(condition):
            knee = moved.knee()
            row = {"condition": condition.name, "site": SITES[site]}
            row |= {"knee": max(knee.probability, key=knee.probability.get)}
            row |= {f"p{bits}": knee.probability[bits] for bits in PAPER_BITS}
            yield row | {f"index{bits}": knee.interval(bits).estimate for bits in (8, 4)}


def correct_at_site(condition: Condition, site: str) -> np.ndarray | None:
    """The condition's correctness with 8, 4 and 2 bits taken from another activation site; None without records."""
    correct, known = condition.measured.correct.copy(), _records(condition, site)
    if None in known:
        return None
    for row, record in enumerate(known):
        for bits in recipes.GRID_BITS:
            correct[row, PAPER_BITS.index(bits)] = Hits.unpacked(record.values["correct"][label(bits)]).correct
    return correct


def records_used(condition: Condition) -> list[Record]:
    """The records of the condition at all sites."""
    return [record for site in SITES for record in _records(condition, site) if record is not None]


def _records(condition: Condition, site: str) -> list[Record | None]:
    """The condition's record at a site, a seed each."""
    scheme = replace(PAPER, activation_site=site)
    recipe = next(one for one in recipes.grid() if one.axis == "grid" and one.scheme == scheme)
    network = condition.model, condition.dataset
    cases = (runs.Case(*network, seed, condition.profile) for seed in condition.measured.seeds)
    return [recipe.run(case).known() for case in cases]
