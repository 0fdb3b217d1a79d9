"""What the experiments run, and every run that they would make: fresh, stale or absent. Needs no torch to tell.

A timing belongs to the machine it is taken on: that of any machine counts. What is measured on ImageNet and on language
models is named by files that are seldom here: what there is counts, and a kind without a record is one absent run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from tqdm import tqdm

from quide import latency
from quide.experiments import (
    aiq,
    deployed,
    imagenet_runs,
    kernels,
    ladder,
    mixed,
    paper,
    parameters,
    profiles,
    recipes,
    records,
    runs,
    select,
    staleness,
    throughput,
    tiny,
)
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
NAMES = ("kind", "profile", "model", "dataset")  # what runs are counted by
_EXPERIMENTS = {  # by kind or family; other kinds are of the experiment that the network belongs to
    "mixed_accuracy": "exp3", "mixed_latency": "exp3", "weight_only": "llama3_mmlu", "imagenet": "exp2_imagenet",
    "llm": "llama3_mmlu", "aiq_networks": "aiq", "aiq_layers": "aiq", "aiq_search": "aiq",
    "throughput_accuracy": "aiq", "throughput": "aiq",
    "ladder": "better_ptq", "calibration_draws": "better_ptq",
    "kernel_accuracy": "real_kernels", "kernel_latency": "real_kernels", "roofline": "real_kernels",
    "litert": "real_kernels", "linear_latency": "real_kernels",
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
        same = all(getattr(record.spec, name) == getattr(self, name) for name in (*NAMES, "seed"))
        return same and (self.keys is None or record.key in self.keys)


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
    table = pd.DataFrame(rows).groupby([*NAMES, "command"], sort=False, as_index=False)
    return table[list(COUNTS)].sum()


def planned() -> list[Planned]:
    """What the experiments on image networks would make."""
    every = (
        runs.Case(row.model, row.dataset, seed, profile)
        for row in registry.ROWS if row.builder and not row.aside
        for profile in ("paper", "short") if profile == "paper" or row.slow
        for seed in SEEDS
    )  # fmt: skip
    found = []
    for case in every:
        found += [_of(one.spec, *one.others) for one in everything(case)]
        found += [Planned(kind, case.model, case.dataset, case.seed, case.profile) for kind in timed_kinds(case)]
    found += [
        Planned(kind, *network, SEEDS[0], runs.longest_profile(*network))
        for network in kernels.MODELS for kind in kernels.kinds(network[1])
    ]  # fmt: skip
    found.append(Planned(tiny.KIND, tiny.MODEL, tiny.DATASET, SEEDS[0], "paper"))
    found.append(Planned(kernels.LINEAR, kernels.LANGUAGE_MODEL, "random", SEEDS[0], "paper"))
    found += [Planned(kind, *throughput.NETWORK, SEEDS[0], "paper") for kind in throughput.KINDS]
    return found + [_of(run.spec) for run in (*ladder.wanted(), *aiq.runs())]


def cases(models: Sequence[str], dataset: str, seeds: Sequence[int], profile: str) -> list[runs.Case]:
    """A case for each network and seed. Weights of others have no short schedule: theirs are of the paper profile. None
    of a network that has no embedded weights, at the profiles that ask for them.

    Raises:
        ValueError: a network that there is none of on the data set.
    """
    published = {model: registry.row(model, dataset).published for model in models}
    embedded = profiles.profile(profile).embedded
    return [
        runs.Case(model, dataset, seed, "paper" if published[model] else profile)
        for model in models if model == "simplecnn" or not embedded
        for seed in seeds
    ]  # fmt: skip


def of(case: runs.Case, device: str = "cpu") -> list[Run]:
    """What EXP-1 and EXP-2 ask of a case besides timings: training, sweeps, recipes."""
    found = [] if case.published else [runs.training(case, device)]
    found.append(runs.accuracy(case))
    if case.model == "simplecnn":
        return [*found, runs.accuracy(case, BETWEEN), *(recipe.run(case) for recipe in recipes.grid())]
    found += [sited(case, site) for site in SITES]
    return found + ([mixed.by_stages(case)] if case.seed == SEEDS[0] else [])


def sited(case: runs.Case, site: str) -> Run:
    """Accuracy with activations rounded elsewhere; at the site of quide.PAPER it is the run of all widths."""
    if site == PAPER.activation_site:
        return runs.accuracy(case)
    return runs.accuracy(case, SITED_BITS, replace(PAPER, activation_site=site))


def measure(wanted: Sequence[runs.Case], device: str = "cpu") -> list[str]:
    """Everything that EXP-1 and EXP-2 ask of cases, computed where there is no record; of embedded weights the sweep
    and the timing. What cannot be had is left out: a line on each is returned. ``ValueError``: no such device here."""
    parameters.check_device(device)
    left_out: dict[str, str] = {}
    for case in tqdm(wanted, desc="runs", unit="run"):
        first = case == next(one for one in wanted if (one.model, one.dataset) == (case.model, case.dataset))
        try:
            for run in [runs.accuracy(case)] if case.size.embedded else of(case, device):
                run.result()
            if first or not case.published:  # weights that no seed changes are timed once
                runs.timing(case, device, progress=False).result()
            if first and case.model != "simplecnn":
                deployed.run(case).result()
        except FileNotFoundError as error:
            if not case.published:
                raise
            left_out.setdefault(case.model, f"{case.row.title} was not run: {error}.")
        except ModuleNotFoundError as error:
            left_out.setdefault(deployed.KIND, f"Real 8-bit arithmetic was not timed: {error}.")
    return list(left_out.values())


def measure_mixed(wanted: Sequence[runs.Case], device: str = "cpu") -> None:
    """What EXP-3 asks: accuracy of every configuration of each case, latency of those of the first."""
    parameters.check_device(device)
    for case in tqdm(wanted, desc="runs", unit="run"):
        mixed.accuracy(case, progress=False).result()
    mixed.timing(wanted[0], device, progress=False).result()


def attempt(wanted: Iterable[Run]) -> list[str]:
    """Every run, computed where there is no record; a line on each that cannot be had here is returned."""
    left_out = []
    for run in wanted:
        try:
            run.result()
        except (FileNotFoundError, ModuleNotFoundError) as error:
            left_out.append(f"{run.spec.kind} of {run.spec.model} was not run: {error}.")
    return left_out


def measure_imagenet(
    models: Sequence[str], seeds: Sequence[int], images: int | None, few: int, fewer: int, fewest: int, profile: str
) -> list[str]:
    """What EXP-2 asks on ImageNet, at profile ``paper`` and with ``QUIDE_IMAGENET`` set, since nothing of it is
    embedded; a line on each network that cannot be had is returned.

    Args:
        models: networks of ImageNet, see :data:`quide.models.pretrained.NETWORKS`.
        seeds: of the calibration draw.
        images: how many validation images accuracy is measured on; None for all.
        few: likewise, for the quantizers that the paper does not describe.
        fewer: likewise, for the genetic search of mixed precision.
        fewest: likewise, for every one of its configurations.
        profile: any but ``paper`` runs nothing.
    """
    if profile != imagenet_runs.PROFILE:
        return []
    from quide.data import imagenet  # with torch, which a page that shows records does not need

    left_out: list[str] = []
    if imagenet.folder() is None:
        return left_out
    for model in models:
        try:
            for seed in seeds:
                imagenet_runs.accuracy(imagenet_runs.ImageNetCase(model, seed, images)).result()
                imagenet_runs.quantizers(imagenet_runs.ImageNetCase(model, seed, few)).result()
                imagenet_runs.mixed(imagenet_runs.ImageNetCase(model, seed, fewer), "genetic").result()
                imagenet_runs.mixed(imagenet_runs.ImageNetCase(model, seed, fewest), "exhaustive").result()
        except FileNotFoundError as error:
            left_out.append(f"{registry.row(model, imagenet_runs.DATASET).title} was not run: {error}.")
    return left_out


def everything(case: runs.Case) -> list[Run]:
    """What all experiments ask of a case besides timings."""
    more = [mixed.accuracy(case), runs.weight_only(case)] if (case.model, case.dataset) == SEARCHED else []
    return of(case) + more


def _of(spec: RunSpec, *others: RunSpec) -> Planned:
    keys = tuple(one.key for one in (spec, *others))
    return Planned(spec.kind, spec.model, spec.dataset, spec.seed, spec.profile, keys)


def timed_kinds(case: runs.Case) -> list[str]:
    """What the experiments time of a case, keys of :data:`TIMINGS`."""
    first = case.seed == SEEDS[0]
    kinds = ["latency"] if first or not case.published else []
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
    named = {name: getattr(what, name) for name in NAMES}
    return named | {each: int(each == state) for each in COUNTS} | {"command": command(what)}


def command(what: RunSpec | Planned) -> str:
    """What makes a run."""
    if (experiment := _EXPERIMENTS.get(_family(what.kind) or what.kind)) is None:
        experiment = paper.experiment(registry.row(what.model, what.dataset).condition)
    chosen = {"exp1": f" --datasets {what.dataset}", "exp2": f" --models {what.model}"}.get(experiment, "")
    profile = "paper" if experiment in _EXPERIMENTS.values() else what.profile  # the size of their pages
    return f"quide run {experiment}{chosen} --profile {profile}"


def _family(kind: str) -> str:
    return next((family for family in ("imagenet", "llm") if kind.startswith(f"{family}_")), "")
