"""Every run that the experiments would make at the profiles paper and short: fresh, stale or absent. Needs no torch.

A timing belongs to the machine it is taken on: that of any machine counts. What is measured on ImageNet and on language
models is named by files that are seldom here: what there is counts, and a kind without a record is one absent run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import pandas as pd

from quide import latency
from quide.experiments import aiq, deployed, mixed, recipes, records, runs, select, staleness
from quide.experiments.measured import KINDS, Run
from quide.experiments.records import Record, RunSpec
from quide.models import registry
from quide.ptq.scheme import PAPER

SEEDS = (0, 42, 123)
BETWEEN = (6, 5, 3)  # widths between the paper's
SITES, SITED_BITS = ("relu", "input"), (32, 8, 4)  # where else a published network is rounded, and at which widths
SEARCHED = ("simplecnn", "cifar10")  # the network of mixed precision
TIMINGS = {"latency": runs.timing, deployed.KIND: deployed.run, "mixed_latency": mixed.timing}  # by kind
COUNTS = ("fresh", "stale", "absent")
_EXPERIMENTS = {
    "mixed_accuracy": "exp3", "mixed_latency": "exp3", "weight_only": "llama3_mmlu", "imagenet": "exp2_imagenet",
    "llm": "llama3_mmlu", "aiq_networks": "aiq", "aiq_layers": "aiq", "aiq_search": "aiq", "simplecnn": "exp1",
    "resnet18": "exp2", "resnet20": "exp2",
}  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """A run that an experiment would make; ``keys`` of the records that are its own, None where any machine's is."""

    kind: str
    model: str
    dataset: str
    seed: int
    profile: str
    keys: tuple[str, ...] | None = None

    def stands(self, record: Record) -> bool:
        """Whether a record is of this run."""
        spec = record.spec
        same = (spec.kind, spec.model, spec.dataset, spec.seed, spec.profile)
        if same != (self.kind, self.model, self.dataset, self.seed, self.profile):
            return False
        return self.keys is None or record.key in self.keys


def status() -> pd.DataFrame:
    """How many runs are ``fresh``, ``stale`` and ``absent``, one row a kind, profile, model and data set; and the
    ``command`` that makes them. Records beyond what the experiments would make are counted as well."""
    left = {record.key: record for record in records.collect()}
    rows = []
    for one in planned():
        mine = [record for record in left.values() if one.stands(record)]
        rows += [_row(record.spec, _state(record)) for record in mine] or [_row(one, "absent")]
        for record in mine:
            del left[record.key]
    rows += [_row(record.spec, _state(record)) for record in left.values()]
    there = {record.spec.kind for record in left.values()}
    rows += [
        _row(Planned(kind, "any", _family(kind), 0, "paper"), "absent")
        for kind in KINDS
        if _family(kind) and kind not in there
    ]
    table = pd.DataFrame(rows).groupby(["kind", "profile", "model", "dataset", "command"], sort=False, as_index=False)
    return table[list(COUNTS)].sum()


def planned() -> list[Planned]:
    """What the experiments on image networks would make."""
    cases = (
        runs.Case(row.model, row.dataset, seed, profile)
        for row in registry.ROWS if row.builder
        for profile in ("paper", "short") if profile == "paper" or row.slow
        for seed in SEEDS
    )  # fmt: skip
    found = [one for case in cases for one in (*_named(case), *_timed(case))]
    return found + [_of(run.spec, (run.spec.key,)) for run in aiq.runs()]


def run(wanted: Iterable[Run], refresh: bool = False) -> list[Record]:
    """The record of each run, computed and saved if there is none."""
    return [one.result(refresh) for one in wanted]


def of(case: runs.Case) -> list[Run]:
    """What the experiments ask of a case besides timings: training, sweeps, recipes, configurations."""
    found = [] if case.published else [runs.training(case)]
    found.append(runs.accuracy(case))
    if case.published:
        found += [runs.accuracy(case, SITED_BITS, replace(PAPER, activation_site=site)) for site in SITES]
    if case.model == "simplecnn":
        found += [runs.accuracy(case, BETWEEN), *(recipe.run(case) for recipe in recipes.grid())]
    if (case.model, case.dataset) == SEARCHED:
        found += [mixed.accuracy(case), runs.weight_only(case)]
    return found


def _named(case: runs.Case) -> Iterator[Planned]:
    for one in of(case):
        keys = tuple(spec.key for spec in (one.spec, *one.others))
        yield _of(one.spec, keys)


def _of(spec: RunSpec, keys: tuple[str, ...]) -> Planned:
    return Planned(spec.kind, spec.model, spec.dataset, spec.seed, spec.profile, keys)


def _timed(case: runs.Case) -> Iterator[Planned]:
    return (Planned(kind, case.model, case.dataset, case.seed, case.profile) for kind in timed_kinds(case))


def timed_kinds(case: runs.Case) -> list[str]:
    """What the experiments time of a case, keys of :data:`TIMINGS`."""
    first = case.seed == SEEDS[0]
    kinds = ["latency"] if first or not case.published else []  # weights that no seed changes are timed once
    kinds += [deployed.KIND] if first and case.model != "simplecnn" else []
    return kinds + (["mixed_latency"] if first and (case.model, case.dataset) == SEARCHED else [])


def retime(timing: Run, tries: int = 3, wait_s: float = 0.0) -> Record:
    """Time a case again on this machine and keep the quietest (:func:`quide.experiments.select.unrest`).

    Tries until a timing is quiet, ``tries`` times at most, each after waiting up to ``wait_s`` seconds for a quiet
    machine. The record there was stays where none is quieter. A new one holds how each try went, in ``tried``.
    """
    before = records.load(timing.spec)
    tried: list[dict] = []

    def compute() -> dict:
        while len(tried) < tries and not (tried and not tried[-1]["noisy"]):
            latency.wait_for_quiet(wait_s)
            tried.append(timing.compute())
        signs = [dict(zip(("noisy", "aa_off", "spread"), select.unrest(one), strict=True)) for one in tried]
        return min(tried, key=select.unrest) | {"tried": signs}

    made = replace(timing, compute=compute).result(refresh=True)
    if before is not None and select.unrest(before.values) < select.unrest(made.values):
        records.save(before)
        return before
    return made


def _state(record: Record) -> str:
    return "stale" if staleness.stale(record) else "fresh"


def _row(what: RunSpec | Planned, state: str) -> dict:
    counts = {each: int(each == state) for each in COUNTS}
    named = {"kind": what.kind, "profile": what.profile, "model": what.model, "dataset": what.dataset}
    return named | counts | {"command": command(what)}


def command(what: RunSpec | Planned) -> str:
    """What makes a run."""
    experiment = _EXPERIMENTS.get(what.kind) or _EXPERIMENTS[_family(what.kind) or what.model]
    chosen = {"exp1": f" --datasets {what.dataset}", "exp2": f" --models {what.model}"}.get(experiment, "")
    return f"quide run {experiment}{chosen} --profile {what.profile}"


def _family(kind: str) -> str:
    return next((family for family in ("imagenet", "llm") if kind.startswith(f"{family}_")), "")
