"""What AIQ's records say: changes and gains of their networks, and what objectives choose among all configurations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from quide import metric
from quide.experiments import aiq, paper, select
from quide.experiments.aiq import AUTHORS, OURS, PRINTED, THEIRS, Traffic, traffic
from quide.experiments.records import Record
from quide.search import Configuration, pareto_front
from quide.search.aiq import AiqObjective
from quide.stats import Hits, Interval
from quidebook.report import Absent, scaled
from quidebook.shared import throughput
from quidebook.shared.throughput import Deployed

COMMAND = "QUIDE_DATA=<folder> quide run aiq --profile paper"
TITLES = {THEIRS: "AIQ's authors'", OURS: "published, without projections"}


@dataclass(frozen=True)
class AiqRecords:
    """What the page is made from."""

    networks: Mapping[str, Record]
    layers: Mapping[str, Record]
    searches: tuple[Record, ...]
    deployed: Deployed | None = None

    @cached_property
    def used(self) -> list[Record]:
        """All of them."""
        last = self.deployed.used if self.deployed else []
        return [*self.networks.values(), *self.layers.values(), *self.searches, *last]

    def of(self, model: str, method: str, split: str = "train") -> Record | None:
        """A search by the objective of AIQ's program; None where there is no record of it."""
        wanted = model, method, split, AUTHORS
        return next((record for record in self.searches if asked(record) == wanted), None)


def found() -> AiqRecords:
    """The records there are."""
    of = {kind: {record.spec.model: record for record in select.known(kind)} for kind in ("aiq_networks", "aiq_layers")}
    return AiqRecords(of["aiq_networks"], of["aiq_layers"], tuple(select.known("aiq_search")), throughput.found())


def absent(known: AiqRecords) -> Absent | None:
    """In place of facts, where a record of the authors' networks is missing."""
    return None if THEIRS in known.networks else Absent("the networks of AIQ's authors", COMMAND)


def stated(name: str) -> float:
    """A number of AIQ's paper, program or result files, accuracies as fractions; see ``data/paper/aiq.csv``."""
    row = paper.aiq().loc[name]
    return row.value / 100 if row.unit == "%" else row.value


@dataclass(frozen=True)
class Grouped:
    """Every configuration of the exhaustive search: widths, kilobytes of weights, accuracy on the images it selects by
    and on the test images, and the network they are of."""

    counted: Traffic
    widths: tuple[Configuration, ...]
    kilobytes: np.ndarray
    selected: np.ndarray
    tested: np.ndarray

    @property
    def full(self) -> int:
        """Place of full precision."""
        return self.widths.index(self.counted.uniform(32))

    @property
    def intensity(self) -> np.ndarray:
        """Of each."""
        return np.array([self.counted.intensity(widths) for widths in self.widths])


def grouped(known: AiqRecords) -> Grouped | None:
    """The exhaustive search on the authors' network; None without its record."""
    if (record := known.of(THEIRS, "exhaustive")) is None:
        return None
    values, counted = record.values, traffic(record)
    widths = tuple(tuple(row[0]) for row in values["evaluated"])
    kilobytes = np.array([np.dot(counted.num_weights, each) / 8000 for each in widths])
    right = np.array([row[1] for row in values["evaluated"]])
    selected = right / record.spec.details["selection_images"]
    return Grouped(counted, widths, kilobytes, selected, np.array(values["tested"]) / values["images"])


def choices(every: Grouped) -> dict[str, int]:
    """What each objective chooses by the images selected by, by name: its place."""
    full = every.selected[every.full]
    score = {
        name: [objective(ai, accuracy, full) for ai, accuracy in zip(every.intensity, every.selected, strict=True)]
        for name, objective in (("AIQ, their program", AUTHORS), ("AIQ, printed", PRINTED))
    }
    compression = [metric.compression_ratio(widths) for widths in every.widths]
    floor = paper.threshold("cifar10-resnet18", full)
    score["I', equal T"] = metric.gated_index(compression, every.selected, 1.0, floor)
    chosen = {name: int(np.argmax(values)) for name, values in score.items()}
    budget = every.kilobytes[chosen["AIQ, their program"]]
    chosen["HAQ's: best within AIQ's bytes"] = _best(every.selected, every.kilobytes <= budget, -every.kilobytes)
    within = every.selected >= full - stated("claim.within") / 100
    chosen["a deployer's: fewest bytes within 1 pp"] = _best(-every.kilobytes, within, every.selected)
    true = every.tested >= every.tested[every.full] - stated("claim.within") / 100
    chosen["in hindsight: fewest bytes within 1 pp on the test images"] = _best(-every.kilobytes, true, every.tested)
    return chosen


def _best(worth: np.ndarray, allowed: np.ndarray, then: np.ndarray) -> int:
    """The place of highest worth among those allowed; of equals the one that is best by the second."""
    return max(np.flatnonzero(allowed), key=lambda place: (worth[place], then[place]))


def frontier(every: Grouped) -> list[int]:
    """Places of the configurations that none beats in both bytes and accuracy on the test images, smallest first."""
    kept = pareto_front(np.stack([-every.kilobytes, every.tested], 1))
    return sorted(np.flatnonzero(kept), key=lambda place: every.kilobytes[place])


def asked(record: Record) -> tuple[str, str, str, AiqObjective]:
    details = record.spec.details
    return record.spec.model, details["method"], details["selection_split"], aiq.objective_of(record)


def objective_name(objective: AiqObjective) -> str:
    return {AUTHORS: "their program's", PRINTED: "printed"}.get(objective, "other")


def change(values: Mapping, name: str, reference: str = "32") -> Interval:
    """Of top-1 in percentage points, paired."""
    ours, theirs = (Hits.unpacked(values["correct"][each]) for each in (name, reference))
    return scaled(ours.change(theirs))


def gain(counted: Traffic, widths: Iterable[int], batch: int = 1) -> float:
    return counted.intensity(tuple(widths), batch) / counted.intensity(counted.uniform(32), batch) - 1


def selected_change(record: Record) -> float:
    """Of top-1 on the images selected by, in percentage points."""
    right = {tuple(widths): count for widths, count, _ in record.values["evaluated"]}
    lost = right[tuple(record.values["found"])] - right[traffic(record).uniform(32)]
    return 100 * lost / record.spec.details["selection_images"]


def turning_point() -> dict[str, float]:
    """Lambda of the printed objective above which it prefers uniform 4 bits to what their search found (stated), as
    ``turn``; and ``used``, theirs."""
    four, greedy = ((stated(f"{key}.intensity"), 100 * stated(f"{key}.accuracy")) for key in ("int4", "greedy"))
    per_point, lost = four[0] - greedy[0], greedy[1] - four[1]
    return {"turn": lost / (lost + per_point), "used": stated("search.trade_off")}


def exchange() -> dict[str, float]:
    """Percentage points of accuracy that each form of the objective gives for one operation per byte."""
    return {
        name: one.trade_off / one.intensity_unit * one.drop_unit / (1 - one.trade_off)
        for name, one in (("program", AUTHORS), ("printed", PRINTED))
    }
