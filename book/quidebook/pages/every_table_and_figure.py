"""The page of evidence: a verdict on every table and figure of the paper, what is recorded, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from quide import _paths, search
from quide.data.facts import INFO
from quide.experiments import llm_runs, paper, provenance, records, runs, staleness
from quide.experiments.mixed import CHOICES, Landscape
from quide.experiments.profiles import PROFILES
from quide.experiments.recipes import SEARCHED
from quide.experiments.records import Record
from quide.models import registry
from quide.ptq.width import label
from quidebook import report, tables
from quidebook.evidence import readings, sensitivity
from quidebook.evidence.conditions import FITTED, Condition, best_known, present
from quidebook.evidence.scores import Measured
from quidebook.report import NO_RECORD, UNKNOWN, Absent, Facts, percent, tabled, with_origin
from quidebook.shared import (
    answer,
    claims,
    components,
    imagenet,
    landscape,
    language,
    residual,
    simplecnn,
    table1,
    table2,
)
from quidebook.shared.answer import judged
from quidebook.shared.imagenet import ImageNetRecords
from quidebook.shared.landscape import Landscapes
from quidebook.verdicts import ABSENT, CLOSE, IN_PART, NEAR, NOT_REPRODUCED, REPRODUCED, SUPPORTS, UNDECIDED, held

SEEDS = PROFILES["paper"].searches  # of the genetic search, for Algorithm 1; as many as on the page of EXP-3
CLEARLY = 0.95  # share of test sets drawn anew from which a difference counts as more than chance
EXP1, EXP2, IMAGENET, EXP3, AUDIT, ANALYSIS, LLAMA = (
    "exp1_simplecnn", "exp2_resnet18", "exp2_imagenet", "exp3_mixed_precision", "paper_audit", "metric_analysis",
    "llama3_mmlu",
)  # fmt: skip
PAPERS_NAMES = {language.PAPERS: "llama3-8b"}  # as the list of conditions has the model
Judged = tuple[str, Facts]
NOTHING: Judged = UNDECIDED, Absent("it", simplecnn.RERUN)
# Where an exhibit is taken up: the page, the section, and the words of the link.
PLACES = {
    "Table 1": [
        (EXP1, "table-1-accuracy-paper-against-ours", "SimpleCNN"),
        (EXP2, "table-1-accuracy-paper-against-ours", "ResNet-18 on CIFAR-10"),
        (IMAGENET, "table-1-accuracy-by-width", "ImageNet"),
    ],
    "Table 2": [
        (EXP3, "table-2-paper-against-ours", "CIFAR-10"),
        (IMAGENET, "table-2-mixed-precision-in-six-groups", "ImageNet"),
    ],
    "Table 3": [(LLAMA, "table-3", "Llama on MMLU"), (AUDIT, "the-units-of-table-3", "its units")],
    "Table 4": [(ANALYSIS, "table-4-four-scores-four-orders", "The metric, examined")],
    "Figure 1": [(EXP1, "figure-1-i-and-i-by-width", "SimpleCNN"), (EXP2, "figure-1-i-and-i-by-width", "ResNet-18")],
    "Figure 2": [
        (EXP1, "figure-2-the-two-components", "SimpleCNN"),
        (EXP2, "figure-2-the-two-components", "ResNet-18"),
        (IMAGENET, "table-1-accuracy-by-width", "ImageNet, accuracy"),
    ],
    "Figure 3": [(EXP3, "figure-3-the-pareto-frontier", "EXP-3")],
    "Figure 4": [(EXP3, "figure-4-the-index-and-its-parts", "EXP-3")],
    "Figure 5": [(ANALYSIS, "figure-5-the-knee-over-the-tolerance", "The metric, examined")],
    "Figure 6": [(ANALYSIS, "figure-6-the-boundary-between-accuracy-and-compression", "The metric, examined")],
    "Figure 7": [(ANALYSIS, "figures-7-and-8", "The metric, examined")],
    "Figure 8": [(ANALYSIS, "figures-7-and-8", "The metric, examined")],
    "Algorithm 1": [(EXP3, "is-the-search-any-good", "EXP-3")],
}


@dataclass(frozen=True)
class Known:
    """What the committed records hold of the paper's conditions.

    Attributes:
        conditions: those of Table 1 on small images, measured or not.
        beside: networks that stand beside one of the paper's, if there are records of them: of others, or trained less.
        imagenet: the records of the page on ImageNet.
        language: the records of the page on language models.
        measured: the conditions with accuracy and latency.
        truth: every mixed configuration on CIFAR-10; None without records.
    """

    conditions: list[Condition]
    beside: list[Condition]
    imagenet: ImageNetRecords
    language: language.LanguageRecords
    measured: list[Measured]
    truth: Landscapes | None

    @cached_property
    def accuracies(self) -> pd.DataFrame:
        """Every accuracy of Table 1 with its verdict, of the paper's networks: condition, bits, verdict."""
        images = imagenet.table1(self.imagenet).rename(columns={"network": "condition"})
        images = images[images["condition"] == registry.row(imagenet.PAPERS, imagenet.DATASET).title]
        return pd.concat([table1.accuracy_table(self.conditions), images])[["condition", "bits", "verdict"]]

    @property
    def absent(self) -> list[str]:
        """Conditions of Table 1 that were not measured by the paper's protocol, as printed."""
        names = {each.condition for each in self.measured}
        if imagenet.PAPERS in self.imagenet.accuracy:
            names.add(imagenet.CONDITION)
        listed = paper.table1()["condition"].unique()
        return [str(paper.conditions().at[name, "label"]) for name in listed if name not in names]

    @property
    def used(self) -> list[Record]:
        """The records that the verdicts are drawn from."""
        rows = [record for each in self.measured for record in each.records] + residual.records_used(self.beside)
        return rows + self.imagenet.used + self.language.used + (self.truth.used if self.truth else [])


def known() -> Known:
    """The records of the paper profile."""
    conditions = [*answer.conditions(), best_known(residual.MODEL, residual.DATASET, ("paper",), residual.RERUN)]
    beside = [each for each in present(residual.known()) if each.published or each.shortened]
    found = imagenet.found(), language.found("paper"), readings.measured_conditions(), landscape.known()
    return Known(conditions, beside, *found)


# --- every table and figure ------------------------------------------------------------------------------------------


@tabled
def table(found: Known, words: Mapping[str, str]) -> Iterator[dict]:
    """One row an exhibit: exhibit, verdict, evidence, in this book (links).

    Args:
        words: by exhibit, a template of the facts that :data:`JUDGES` gives of it.
    """
    missing = f" Not measured: {', '.join(found.absent)}." if found.absent else ""
    for exhibit in paper.exhibits().index:
        verdict, evidence = JUDGES[exhibit](found)
        if isinstance(evidence, dict):
            evidence |= {"missing": missing}
        text = report.worded(words[exhibit], evidence).replace("`", "")
        yield {"exhibit": exhibit, "verdict": verdict, "evidence": text, "in this book": links(exhibit)}


def links(exhibit: str) -> tables.Links:
    """Links to the sections on an exhibit; a page that this copy of the book lacks is left out."""
    folder = _paths.home() / "notebooks"
    shown = [place for place in PLACES[exhibit] if (folder / f"{place[0]}.ipynb").exists()]
    return tables.Links(tuple((words, f"{page}.html{'#' * bool(section)}{section}") for page, section, words in shown))


def counted(verdicts: Sequence[str]) -> str:
    """Which verdict was given how many times."""
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).most_common())


def _table1(found: Known) -> Judged:
    accuracies, knees = found.accuracies["verdict"], table1.knee_table(found.conditions)
    knees = knees["verdict"] if len(knees) else []
    cells = paper.table1()[["accuracy_origin", "latency_ms_origin", "index_origin", "gated_index_origin"]]
    origins = Counter(cells.to_numpy().ravel())
    beside = [(each, residual.summary_table([each])["verdict"]) for each in found.beside]
    return judged([*accuracies, *knees], found.absent), {
        "cells": cells.size,
        "stated": origins["stated"],
        "implied": origins["derived"],
        "accuracies": _tally(accuracies),
        "fitted": sum(configuration.isdecimal() for _, configuration in FITTED),
        "knees": _tally(knees),
        "beside": "; ".join(f"{each.name} for {each.facts['label']}: {_tally(of_it)}" for each, of_it in beside),
    }


def _table2(found: Known) -> Judged:
    images, record = imagenet.table2(found.imagenet)["verdict"], found.imagenet.main
    by = f"{imagenet.title(record.spec.model)}, {record.values['images']:,} images" if record else NO_RECORD
    facts = {"images": _tally(images), "by": by, "searched": label(SEARCHED), "fitted": len(FITTED)}
    facts |= {"accuracies": NO_RECORD, "claims": NO_RECORD, "place": UNKNOWN, "uniform": UNKNOWN, "all": UNKNOWN}
    if found.truth is None:
        return judged(images), facts
    rows, main = table2.table(found.truth)["verdict"], found.truth.main
    claimed = [verdict for _, verdict, _ in table2.claims(found.truth)]
    facts |= {"accuracies": _tally(rows), "claims": _tally(claimed), "all": len(main.configurations)}
    facts |= {"place": main.place(SEARCHED), "uniform": main.place(landscape.uniform(8))}
    return judged([*rows, *claimed, *images], ["HAQ", "BRECQ"]), facts


def _table3(found: Known) -> Judged:
    verdict = judged(language.table3_table(found.language)["verdict"])
    claimed = language.claims_table(found.language)
    own = claimed.iloc[0]
    facts = {"claim": own["claim"], "evidence": own["evidence"], "claims": _tally(claimed["verdict"])}
    return (ABSENT if verdict == UNDECIDED else verdict), facts


def _table4(found: Known) -> Judged:
    orders = components.rankings_table(found.measured)["verdict"]
    return judged(orders, found.absent), {"orders": _tally(orders)}


def _figure1(found: Known) -> Judged:
    orders = table1.ranking_table(found.conditions)
    if orders.empty:
        return NOTHING
    each = "; ".join(f"by {sign} {_tally(part['verdict'])}" for sign, part in orders.groupby("score"))
    return judged(orders["verdict"], found.absent), {"orders": each}


def _figure2(found: Known) -> Judged:
    """What the text says of the figure: accuracy is stable through 8 bits, and falls at 4 except on MNIST."""
    verdicts, lost = [], {}
    for condition in present(found.conditions):
        lost[condition.name] = condition.summary.accuracy[32] - condition.summary.accuracy[4]
        falls = (lost[condition.name] > NEAR) == (condition.facts["knee_bits"] != 4)
        verdicts += [claims.lossless(condition, 8, CLOSE)[0], held(falls)]
    accuracies = found.accuracies[found.accuracies["bits"].isin((8, 4))]
    return judged([*verdicts, *accuracies["verdict"]], found.absent), {
        "parts": _tally(verdicts),
        "lost": ", ".join(f"{name} {100 * loss:.1f} pp" for name, loss in lost.items()) or UNKNOWN,
    }


def _figure3(found: Known) -> Judged:
    def on_frontier(land: Landscape) -> tuple[str, str]:
        holds = landscape.frontier(land)[land.index_of(SEARCHED)]
        return held(holds), "yes" if holds else "no"

    return _over_checkpoints(found, on_frontier)


def _figure4(found: Known) -> Judged:
    def improves(land: Landscape) -> tuple[str, str]:
        best = search.genetic(land.fitness.__getitem__, len(SEARCHED), CHOICES).best
        uniform = max(map(landscape.uniform, CHOICES), key=land.fitness.__getitem__)
        share = landscape.share_above(land, best, uniform)
        words = f"{label(best)} against uniform {uniform[0]} bits in {percent(share, 0)}"
        return (REPRODUCED if share >= CLEARLY else IN_PART if share > 0.5 else NOT_REPRODUCED), words

    return _over_checkpoints(found, improves)


def _figure5(found: Known) -> Judged:
    """The text: raising the threshold moves the best width, from high throughput to safety."""
    verdicts, words = [], []
    for each in map(readings.of_measured, found.measured):
        knees = [part.knee for part in reversed(sensitivity.over_tolerance(each)) if part.knee is not None]
        verdicts.append(held(len(knees) > 1 and knees == sorted(knees)))
        words.append(f"{each.facts['label']} {', '.join(map(str, knees))} bits")
    return (judged(verdicts), {"knees": "; ".join(words)}) if words else NOTHING


def _figure6(found: Known) -> Judged:
    words = []
    for each in map(readings.of_measured, found.measured):
        needed = float(components.even_accuracy(each, each.table["compression"][4]))
        words.append(f"{each.facts['label']} {percent(needed, 1)}, has {percent(each.table['accuracy'][4], 1)}")
    return UNDECIDED, {"needed": "; ".join(words) or UNKNOWN}


def _figure7(found: Known) -> Judged:
    """The text: the area of a width's polygon goes with I. It does not say in which order the axes stand."""
    if not found.measured:
        return NOTHING
    facts = components.areas_and_index(found.measured)
    parts = {REPRODUCED: facts["agreeing"], NOT_REPRODUCED: facts["cases"] - facts["agreeing"]}
    return judged(verdict for verdict, count in parts.items() if count), facts


def _figure8(found: Known) -> Judged:
    matrices = components.correlations(components.cases(found.measured, found.truth))
    shown = "; ".join(f"{name} {matrix.loc['C', 'P']:.2f}" for name, (matrix, _) in matrices.items())
    return UNDECIDED, {"correlations": shown}


def _algorithm1(found: Known) -> Judged:
    if found.truth is None:
        return NOTHING
    main = found.truth.main
    done = [search.genetic(main.fitness.__getitem__, len(SEARCHED), CHOICES, seed=seed) for seed in range(SEEDS)]
    hits = sum(each.best == main.best for each in done)
    facts = {"hits": hits, "seeds": SEEDS, "all": len(main.configurations), "asked": done[0].calls}
    return held(hits > SEEDS / 2), facts


JUDGES: dict[str, Callable[[Known], Judged]] = {
    "Table 1": _table1, "Table 2": _table2, "Table 3": _table3, "Table 4": _table4, "Figure 1": _figure1,
    "Figure 2": _figure2, "Figure 3": _figure3, "Figure 4": _figure4, "Figure 5": _figure5, "Figure 6": _figure6,
    "Figure 7": _figure7, "Figure 8": _figure8, "Algorithm 1": _algorithm1,
}  # fmt: skip


def _over_checkpoints(found: Known, answered: Callable[[Landscape], tuple[str, str]]) -> Judged:
    """Of what each searched checkpoint answers by a verdict and words."""
    if found.truth is None:
        return NOTHING
    answers = {seed: answered(land) for seed, land in found.truth.landscapes.items()}
    words = "; ".join(f"seed {seed}: {words}" for seed, (_, words) in answers.items())
    return judged(verdict for verdict, _ in answers.values()), {"answers": words}


def _tally(verdicts: Iterable[str]) -> str:
    """How many are reproduced, in part, and not; those that cannot be compared aside."""
    counts = Counter(verdicts)
    words = {REPRODUCED: "reproduced", SUPPORTS: "supported", IN_PART: "in part", NOT_REPRODUCED: "not"}
    return ", ".join(f"{counts[each]} {word}" for each, word in words.items() if counts[each]) or "none to compare"


# --- the six conditions ----------------------------------------------------------------------------------------------


@tabled
def at_a_glance() -> Iterator[dict]:
    """One row a condition of the paper, with the best bit-width by its scores, ours and the verdict; and one for each
    network that stands beside it, trained by others or for fewer epochs, of which the paper says nothing."""
    for name, facts in paper.conditions().iterrows():
        order = components.stated_order(name, "index")
        first = "not in the text" if order is None else with_origin(f"{order['order'][0]} bits", order["origin"])
        stated = {"paper: I": first, "paper: I′": f"{facts['knee_bits']} bits"}
        case = facts["model"], facts["dataset"]
        own = best_known(*case, ("paper",), "") if case in runs.CONDITION else None
        yield {"network / task": facts["label"]} | _measured(own) | stated
        less = [best_known(*case, ("short",), "")] if own and not own.measured else []
        others = [best_known(*key, ("paper",), "") for key, beside in runs.BESIDE.items() if beside == name]
        for each in [*present(less), *others]:
            title = f"{each.name} beside it" + ", as published" * each.published
            yield {"network / task": title} | _measured(each) | dict.fromkeys(stated, UNKNOWN)


def _measured(condition: Condition | None) -> dict[str, str]:
    """Our knee by the paper's protocol, and the verdict on the paper's."""
    if condition is None or condition.measured is None:
        return {"verdict": UNKNOWN, "measured: I′": NO_RECORD}
    ours, share = condition.measured.likeliest
    seeds = len(condition.measured.seeds)
    drawn = ("calibration draw" if condition.published else "training seed") + "s" * (seeds > 1)
    words = f"{ours} bits (Pr = {share:.2f}, {seeds} {drawn})"
    return {"verdict": claims.knee(condition)[0], "measured: I′": words}


# --- what is recorded, and what is not -------------------------------------------------------------------------------


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


@tabled
def missing_table(kept_records: Sequence[Record]) -> Iterator[dict]:
    """One row a condition of the paper without a record of its own network at the paper profile: what it would take."""
    full = [record.spec for record in kept_records if record.spec.profile == "paper"]
    covered = {(PAPERS_NAMES.get(spec.model, spec.model), spec.dataset) for spec in full}
    for _, facts in paper.conditions().iterrows():
        if (facts["model"], facts["dataset"]) not in covered:
            yield {"network / task": facts["label"], "to measure it": _command(facts)}


def _command(facts: pd.Series) -> str:
    if facts["dataset"] == imagenet.DATASET:
        return f"QUIDE_IMAGENET=<your folder> {imagenet.RERUN}"
    if facts["dataset"] == llm_runs.MMLU:
        return f"pip install 'quide[llm]' && {language.RERUN}"
    experiment = paper.experiment(facts.name)
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


def made_by() -> dict[str, str]:
    """Who makes the page now."""
    here = provenance.collect()
    return {
        "date": here["date"][:16].replace("T", " "),
        "commit": here["git_commit"] or UNKNOWN,
        "python": here["python"],
        "packages": ", ".join(f"{name} {version}" for name, version in here["packages"].items()),
        "machine": f"{here['cpu']}, {here['cores']} cores, {here['platform']}",
    }
