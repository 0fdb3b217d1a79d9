"""The conditions of Table 1: what the paper states of each, and what was measured of it. Numbers, no verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from quide.experiments import paper, records, runs
from quide.experiments.runs import BESIDE, CONDITION
from quide.models import registry
from quidebook.evidence import scores
from quidebook.evidence.scores import Measured

NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
# Stated accuracies by which the place was chosen that quide.PAPER rounds activations at, since no text names it.
FITTED = {("cifar10-simplecnn", "4"), ("cifar10-simplecnn", "8-8-8-4")}


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
        if self.shortened:
            return f"{self.network}, {self.shortened[0]} epochs"
        if self.published:
            return self.network
        full = self.profile in ("paper", "none")
        return NAMES[self.dataset] if full else f"{NAMES[self.dataset]} ({self.profile} profile)"

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
        return registry.row(self.model, self.dataset).title if self.published else self.facts["label"].split(" / ")[0]

    @property
    def summary(self) -> pd.DataFrame | None:
        """:meth:`quidebook.evidence.scores.Measured.summary` indexed by width, if there is a record."""
        return None if self.measured is None else self.measured.summary().set_index("bits")

    @property
    def by_seed(self) -> pd.DataFrame:
        """Accuracy (fraction), one row a seed and one column a width."""
        return self.measured.table.pivot(index="seed", columns="bits", values="accuracy")

    @property
    def shortened(self) -> tuple[int, int] | None:
        """Epochs that it was trained for and that the paper's was; None where they are the same, or not known."""
        if self.measured is None or self.published or not self.measured.records:
            return None
        shortened = runs.schedule_of(self.measured.records[0].spec)
        return None if shortened is None else (shortened, registry.row(self.model, self.dataset).recipe.epochs)


def best_known(model: str, dataset: str, profiles: Sequence[str], rerun: str) -> Condition:
    """What is known of a condition at the first of ``profiles`` that has records of it."""
    for profile in profiles:
        if (measured := scores.measured(model, dataset, profile)) is not None:
            return Condition(model, dataset, profile, measured, rerun)
    return Condition(model, dataset, "none", None, rerun)


def present(found: Sequence[Condition]) -> list[Condition]:
    """The conditions that there are records of."""
    return [condition for condition in found if condition.measured is not None]


def trainings(condition: Condition) -> list[records.Record]:
    """The records of its training, one a seed."""
    return records.collect("training", condition.profile, condition.model, condition.dataset)
