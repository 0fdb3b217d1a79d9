"""The page on status: what has been run, by which code, on which machine and when; and what has not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from quide.data.facts import INFO
from quide.experiments import llm_runs, paper, provenance, records, runs, staleness
from quide.experiments.records import Record
from quide.models import registry
from quidebook.evidence.conditions import Condition, best_known
from quidebook.report import UNKNOWN, tabled, with_origin
from quidebook.shared import claims, imagenet, language

PAPERS_NAMES = {language.PAPERS: "llama3-8b"}  # as the list of conditions has the model


def kept() -> list[Record]:
    """The records that travel with the checkout: those of the profiles paper and short."""
    return [record for record in records.collect() if record.spec.profile in ("paper", "short")]


def counts(kept_records: Sequence[Record]) -> dict[str, int]:
    """How many records there are: ``paper``, ``short``, ``stale`` of both, ``dirty`` of both (made by code that was not
    committed), and ``local`` ones of the smaller profiles."""
    profiles = [record.spec.profile for record in kept_records]
    return {
        "paper": profiles.count("paper"),
        "short": profiles.count("short"),
        "stale": sum(map(staleness.stale, kept_records)),
        "dirty": sum("dirty" in (record.provenance["git_commit"] or "") for record in kept_records),
        "local": len(records.collect()) - len(kept_records),
    }


def at_a_glance() -> pd.DataFrame:
    """One row a condition of the paper, with the best bit-width by its scores, ours and the verdict; and one for each
    network that others have trained and that stands beside it, of which the paper says nothing."""
    rows = []
    for name, facts in paper.conditions().iterrows():
        stated = {"paper: I": _first_by_index(name), "paper: I′": f"{facts['knee_bits']} bits"}
        rows.append({"network / task": facts["label"]} | stated | _measured(facts["model"], facts["dataset"]))
        for (model, dataset), beside in runs.BESIDE.items():
            if beside == name:
                title = f"{registry.row(model, dataset).title} beside it, as published"
                rows.append({"network / task": title} | dict.fromkeys(stated, UNKNOWN) | _measured(model, dataset))
    return pd.DataFrame(rows)


def _first_by_index(condition: str) -> str:
    """Best bit-width by I, from the longest order that the text gives or implies."""
    orders = paper.rankings().query("metric == 'index' and condition == @condition")
    if orders.empty:
        return "not in the text"
    longest = orders.loc[orders["order"].map(len).idxmax()]
    return with_origin(f"{longest['order'][0]} bits", longest["origin"])


def _measured(model: str, dataset: str) -> dict[str, str]:
    """Our knee by the paper's protocol, and the verdict on the paper's."""
    known = (model, dataset) in runs.CONDITION | runs.BESIDE
    condition: Condition | None = best_known(model, dataset, ("paper",), "") if known else None
    if condition is None or condition.measured is None:
        return {"measured: I′": "no record yet", "verdict": UNKNOWN}
    probability = condition.measured.knee().probability
    ours = max(probability, key=probability.get)
    drawn = "calibration draws" if condition.published else "training seeds"
    words = f"{ours} bits (P = {probability[ours]:.2f}, {len(condition.measured.seeds)} {drawn})"
    return {"measured: I′": words, "verdict": claims.knee(condition)[0]}


def kept_table(kept_records: Sequence[Record]) -> pd.DataFrame:
    """One row a kind of measurement, profile, network and machine."""
    facts = pd.DataFrame(map(_facts, kept_records))
    if facts.empty:
        return facts
    grouped = facts.groupby(["measured", "profile", "network / task", "machine", "torch"], sort=False)
    return grouped.agg(
        records=("seed", "size"),
        seeds=("seed", lambda seeds: ", ".join(map(str, sorted(set(seeds))))),
        last=("made", "max"),
        commits=("commit", lambda commits: ", ".join(sorted(set(commits)))),
        minutes=("seconds", lambda seconds: f"{seconds.sum() / 60:.1f}"),
        stale=("stale", "sum"),
        noisy=("noisy", "sum"),
    ).reset_index()


def _facts(record: Record) -> dict[str, object]:
    made = record.provenance
    return {
        "measured": record.spec.kind,
        "profile": record.spec.profile,
        "network / task": f"{record.spec.model} / {record.spec.dataset}",
        "seed": record.spec.seed,
        "machine": made["accelerator"] or made["cpu"],
        "made": made["date"][:10],
        "torch": made["packages"]["torch"],
        "commit": made["git_commit"] or UNKNOWN,
        "seconds": record.values.get("training", {}).get("seconds", record.seconds),
        "stale": staleness.stale(record),
        "noisy": bool(record.values.get("noisy")),
    }


@tabled
def missing_table(kept_records: Sequence[Record]) -> Iterator[dict]:
    """One row a condition of the paper without a record of its own network at the paper profile: what it would take."""
    full = [record.spec for record in kept_records if record.spec.profile == "paper"]
    covered = {(PAPERS_NAMES.get(spec.model, spec.model), spec.dataset) for spec in full}
    for _, facts in paper.conditions().iterrows():
        if (facts["model"], facts["dataset"]) not in covered:
            yield {"network / task": facts["label"], "to measure it": _command(facts)}


def _command(facts: Mapping[str, str]) -> str:
    if facts["dataset"] == imagenet.DATASET:
        return f"QUIDE_IMAGENET=<your folder> {imagenet.RERUN}"
    if facts["dataset"] == llm_runs.MMLU:
        return f"pip install 'quide[llm]' && {language.RERUN}"
    experiment = facts["experiment"].split(";")[0].replace("-", "").lower()
    options = " --device cuda" if registry.row(facts["model"], facts["dataset"]).slow else ""
    if experiment == "exp1":  # the one with several data sets
        options += f" --datasets {facts['dataset']}"
    return f"quide data fetch {facts['dataset']} && quide run {experiment}{options} --profile paper"


@tabled
def splits_table() -> Iterator[dict]:
    """One row a split of an image data set, with what pins it."""
    for name, facts in INFO.items():
        for split, images in facts.sizes.items():
            pinned = (facts.sha256[split] or "not pinned yet")[:16]
            yield {"data set": name, "split": split, "images": f"{images:,}", "SHA-256, first 16 digits": pinned}


@tabled
def made_by_table() -> Iterator[dict]:
    """Who makes the page now."""
    here = provenance.collect()
    facts = {
        "date (UTC)": here["date"][:16].replace("T", " "),
        "commit": here["git_commit"] or UNKNOWN,
        "Python": here["python"],
        "packages": ", ".join(f"{name} {version}" for name, version in here["packages"].items()),
        "machine": f"{here['cpu']}, {here['cores']} cores, {here['platform']}",
        "accelerator": here["accelerator"] or "none",
    }
    for fact, value in facts.items():
        yield {"fact": fact, "value": value}
