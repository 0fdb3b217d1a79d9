"""The page that lists every table, figure and algorithm of the paper: where the book has it, verdict and evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from scipy.stats import kendalltau

from quide import _paths, search
from quide.experiments import paper
from quide.experiments.mixed import CHOICES, Landscape
from quide.experiments.recipes import SEARCHED
from quide.experiments.records import Record
from quide.models import registry
from quide.ptq.width import label
from quidebook import report
from quidebook.evidence import readings, sensitivity
from quidebook.evidence.conditions import NAMES, Condition, best_known, present
from quidebook.evidence.scores import Measured
from quidebook.report import number, percent
from quidebook.shared import components, imagenet, landscape, language, residual, table1, table2
from quidebook.shared.claims import lossless
from quidebook.shared.imagenet import ImageNetRecords
from quidebook.shared.landscape import Landscapes
from quidebook.verdicts import ABSENT, CLOSE, IN_PART, NEAR, NONE, NOT_REPRODUCED, REPRODUCED, SUPPORTS, UNDECIDED

SEEDS = 25  # of the genetic search, for Algorithm 1
CLEARLY = 0.95  # share of test sets drawn anew from which a difference counts as more than chance
EXP1, EXP2, IMAGENET, EXP3, AUDIT, ANALYSIS, LLAMA = (
    "exp1_simplecnn", "exp2_resnet18", "exp2_imagenet", "exp3_mixed_precision", "paper_audit", "metric_analysis",
    "llama3_mmlu",
)  # fmt: skip
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
    "Table 3": [(LLAMA, "table-3-paper-and-ours", "Llama on MMLU"), (AUDIT, "the-units-of-table-3", "its units")],
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
    "Figure 7": [(ANALYSIS, "figure-7-the-components-of-each-width", "The metric, examined")],
    "Figure 8": [(ANALYSIS, "figure-8-correlations-of-the-components", "The metric, examined")],
    "Algorithm 1": [(EXP3, "is-the-search-any-good", "EXP-3")],
}


@dataclass(frozen=True)
class Known:
    """What the committed records hold of the paper's conditions.

    Attributes:
        conditions: those of Table 1 on small images, measured or not.
        imagenet: the records of the page on ImageNet.
        language: the records of the page on language models.
        beside: networks of others that stand beside one of the paper's, if there are records of them.
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


def known() -> Known:
    """The records of the paper profile."""
    conditions = [best_known("simplecnn", dataset, ("paper",), "quide run exp1") for dataset in NAMES]
    conditions.append(best_known(residual.MODEL, residual.DATASET, ("paper",), residual.RERUN))
    return Known(
        conditions,
        [each for each in residual.known() if each.published],
        imagenet.found(),
        language.found("paper"),
        readings.measured_conditions(),
        landscape.known(),
    )


def judged(parts: Iterable[str], missing: Sequence[str] = ()) -> str:
    """The verdict on an exhibit from those on its parts, of which the ones that cannot be compared do not count.

    Reproduced: all parts, and nothing of the exhibit is ``missing``. Not reproduced: none, not even in part. In part:
    anything between.
    """
    verdicts = set(parts) - NONE
    if verdicts != {SUPPORTS}:  # what another network supports adds nothing to what the paper's own decides
        verdicts -= {SUPPORTS}
    if not verdicts:
        return UNDECIDED
    if verdicts == {REPRODUCED} and missing:
        return IN_PART
    return verdicts.pop() if len(verdicts) == 1 else IN_PART


def table(found: Known) -> pd.DataFrame:
    """One row an exhibit: exhibit, verdict, evidence, in this book (links), shows."""
    rows = []
    for exhibit, facts in paper.exhibits().iterrows():
        verdict, evidence = JUDGES[exhibit](found)
        row = {"exhibit": exhibit, "verdict": verdict, "evidence": evidence, "in this book": links(exhibit)}
        rows.append(row | {"shows": f"§{facts['section']}: {facts['shows']} (known: {facts['known']})"})
    return pd.DataFrame(rows)


def links(exhibit: str) -> report.Links:
    """Links to the sections on an exhibit; a page that this copy of the book lacks is left out."""
    folder = _paths.home() / "notebooks"
    shown = [place for place in PLACES[exhibit] if (folder / f"{place[0]}.ipynb").exists()]
    return report.Links(tuple((words, f"{page}.html{'#' * bool(section)}{section}") for page, section, words in shown))


def counted(rows: pd.DataFrame) -> dict[str, object]:
    """How many exhibits there are, and which verdict how many of them have."""
    counts = Counter(rows["verdict"]).most_common()
    return {"exhibits": len(rows), "verdicts": "; ".join(f"{verdict}: **{count}**" for verdict, count in counts)}


def records_used(found: Known) -> list[Record]:
    """The records that the verdicts were drawn from."""
    rows = [record for each in found.measured for record in each.records]
    rows += residual.records_used(found.beside)
    return rows + found.imagenet.used + found.language.used + (found.truth.used if found.truth else [])


# --- tables ----------------------------------------------------------------------------------------------------------


def _table1(found: Known) -> tuple[str, str]:
    accuracies, knees = found.accuracies["verdict"], table1.knee_table(found.conditions)
    verdicts = [*accuracies, *(knees["verdict"] if len(knees) else ())]
    cells = paper.table1()[["accuracy_origin", "latency_ms_origin", "index_origin", "gated_index_origin"]]
    origins = Counter(cells.to_numpy().ravel())
    evidence = [
        f"Of {cells.size} values of P, T, I and I' the text states {origins['stated']} and implies "
        f"{origins['derived']} more. Accuracies that can be compared: {_tally(accuracies)}"
    ]
    if len(knees):
        evidence.append(f"knees: {_tally(knees['verdict'])}")
    for condition in found.beside:
        of_it = residual.summary_table([condition])["verdict"]
        evidence.append(f"claims about {condition.facts['label']}, of {condition.network} beside it: {_tally(of_it)}")
    return judged(verdicts, found.absent), _sentence([*evidence, *_missing(found)])


def _table2(found: Known) -> tuple[str, str]:
    images, record = imagenet.table2(found.imagenet)["verdict"], found.imagenet.main
    beside = f", by {imagenet.title(record.spec.model)} on {record.values['images']:,} images" if record else ""
    if found.truth is None:
        return judged(images), f"ImageNet{beside}: {_tally(images)}; CIFAR-10 has no record."
    rows, main = table2.table(found.truth), found.truth.main
    claims = [verdict for _, verdict, _ in table2.claims(found.truth)]
    evidence = (
        f"CIFAR-10, accuracies: {_tally(rows['verdict'])}; claims: {_tally(claims)}. By I' {label(SEARCHED)} is number "
        f"{main.place(SEARCHED)} of {len(main.configurations)}, and uniform 8 bits, which the table leaves out, number "
        f"{main.place((8,) * len(SEARCHED))}. ImageNet{beside}: {_tally(images)}. HAQ and BRECQ: estimates, not "
        "compared."
    )
    return judged([*rows["verdict"], *claims, *images], ["HAQ", "BRECQ"]), evidence


def _table3(found: Known) -> tuple[str, str]:
    verdict = judged(language.table3_table(found.language)["verdict"])
    claims = language.claims_table(found.language)
    own = claims.iloc[0]
    evidence = (
        f"{own['claim']}: {own['evidence']}. Claims about it that the paper's numbers or smaller models answer: "
        f"{_tally(claims['verdict'])}."
    )
    if verdict != UNDECIDED:
        return verdict, evidence
    return ABSENT, f"The paper's model takes a licence and a large GPU. {evidence}"


def _table4(found: Known) -> tuple[str, str]:
    verdicts = components.rankings_table(found.measured)["verdict"]
    return judged(verdicts, found.absent), _sentence([f"Orders of the widths: {_tally(verdicts)}", *_missing(found)])


# --- figures ---------------------------------------------------------------------------------------------------------


def _figure1(found: Known) -> tuple[str, str]:
    orders = table1.ranking_table(found.conditions)
    if orders.empty:
        return UNDECIDED, "There is no record of it."
    evidence = [f"orders by {sign}: {_tally(part['verdict'])}" for sign, part in orders.groupby("score")]
    return judged(orders["verdict"], found.absent), _sentence([*evidence, *_missing(found)])


def _figure2(found: Known) -> tuple[str, str]:
    """What the text says of the figure: accuracy is stable through 8 bits, and falls at 4 except on MNIST."""
    shown, verdicts, words = present(found.conditions), [], []
    for condition in shown:
        stable, _ = lossless(condition, 8, CLOSE)
        lost = condition.summary.accuracy[32] - condition.summary.accuracy[4]
        collapses = lost > NEAR
        expected = condition.facts["knee_bits"] != 4
        verdicts += [stable, REPRODUCED if collapses == expected else NOT_REPRODUCED]
        words.append(f"{condition.name} loses {100 * lost:.1f} pp")
    accuracies = found.accuracies[found.accuracies["bits"].isin((8, 4))]
    evidence = [f"Stable through 8 bits, and whether accuracy falls at 4: {_tally(verdicts)}"]
    if words:
        evidence.append(f"at 4 bits {' and '.join(words)}")
    return judged([*verdicts, *accuracies["verdict"]], found.absent), _sentence([*evidence, *_missing(found)])


def _figure3(found: Known) -> tuple[str, str]:
    def on_frontier(land: Landscape) -> tuple[str, str]:
        holds = bool(landscape.frontier(land)[land.index_of(SEARCHED)])
        return (REPRODUCED, "yes") if holds else (NOT_REPRODUCED, "no")

    return _over_checkpoints(found, f"The paper's {label(SEARCHED)} lies on the true frontier", on_frontier)


def _figure4(found: Known) -> tuple[str, str]:
    def improves(land: Landscape) -> tuple[str, str]:
        best = search.genetic(land.fitness.__getitem__, len(SEARCHED), CHOICES).best
        uniform = max(map(landscape.uniform, CHOICES), key=land.fitness.__getitem__)
        share = landscape.share_above(land, best, uniform)
        words = f"{label(best)} against uniform {uniform[0]} bits in {percent(share, 0)}"
        return (REPRODUCED if share >= CLEARLY else IN_PART if share > 0.5 else NOT_REPRODUCED), words

    claim = "In how many of the test sets drawn anew the search (ours, seed 0) has a higher I' than every uniform width"
    return _over_checkpoints(found, claim, improves)


def _figure5(found: Known) -> tuple[str, str]:
    """The text: raising the threshold moves the best width, from high throughput to safety."""
    verdicts, words = [], []
    for each in map(readings.of_measured, found.measured):
        knees = [part.knee for part in reversed(sensitivity.over_tolerance(each)) if part.knee is not None]
        verdicts.append(REPRODUCED if len(knees) > 1 and knees == sorted(knees) else NOT_REPRODUCED)
        words.append(f"{each.facts['label']} {', '.join(map(str, knees))} bits")
    if not words:
        return UNDECIDED, "There is no record of it."
    return judged(verdicts), f"Knee as the threshold rises: {'; '.join(words)}."


def _figure6(found: Known) -> tuple[str, str]:
    words = []
    for each in map(readings.of_measured, found.measured):
        needed = float(components.even_accuracy(each, each.table["compression"][4]))
        words.append(f"{each.facts['label']} {percent(needed, 1)} and has {percent(each.table['accuracy'][4], 1)}")
    ours = f" To equal 8 bits by I' at the same latency, 4 bits need: {'; '.join(words)}." if words else ""
    return UNDECIDED, f"The text gives a caption and no value, order or claim.{ours}"


def _figure7(found: Known) -> tuple[str, str]:
    """The text: the area of a width's polygon goes with I. It does not say in which order the axes stand."""
    if not found.measured:
        return UNDECIDED, "There is no record of it."
    shown = components.charted(found.measured)
    tau = [kendalltau(area, each.index()).statistic for each in shown for _, area in components.areas(each).items()]
    agreeing = sum(value > 0 for value in tau)
    return judged(REPRODUCED if value > 0 else NOT_REPRODUCED for value in tau), (
        f"Area and I go together (Kendall's tau above 0) in {agreeing} of {len(tau)} cases, each a network (ours, and "
        "the paper's ResNet-18 on CIFAR-10) and an order of the axes, which the text does not give; tau from "
        f"{number(min(tau), 2)} to {number(max(tau), 2)}. I is itself one of the axes, so some agreement is built in."
    )


def _figure8(found: Known) -> tuple[str, str]:
    matrices = components.correlations(components.cases(found.measured, found.truth))
    words = [f"{name} {matrix.loc['C', 'P']:.2f}" for name, (matrix, _) in matrices.items()]
    return UNDECIDED, f"The text names no correlation. Ours of C and P: {'; '.join(words)}."


def _algorithm1(found: Known) -> tuple[str, str]:
    if found.truth is None:
        return UNDECIDED, "There is no record of it."
    main = found.truth.main
    done = [search.genetic(main.fitness.__getitem__, len(SEARCHED), CHOICES, seed=seed) for seed in range(SEEDS)]
    hits = sum(each.best == main.best for each in done)
    verdict = REPRODUCED if hits > SEEDS / 2 else NOT_REPRODUCED
    return verdict, (
        f"Run as printed, it finds the best of all {len(main.configurations)} configurations with {hits} of {SEEDS} "
        f"seeds; it asks for {done[0].calls} fitness values."
    )


JUDGES: dict[str, Callable[[Known], tuple[str, str]]] = {
    "Table 1": _table1,
    "Table 2": _table2,
    "Table 3": _table3,
    "Table 4": _table4,
    "Figure 1": _figure1,
    "Figure 2": _figure2,
    "Figure 3": _figure3,
    "Figure 4": _figure4,
    "Figure 5": _figure5,
    "Figure 6": _figure6,
    "Figure 7": _figure7,
    "Figure 8": _figure8,
    "Algorithm 1": _algorithm1,
}


# --- helpers ---------------------------------------------------------------------------------------------------------


def _over_checkpoints(found: Known, claim: str, answer: Callable[[Landscape], tuple[str, str]]) -> tuple[str, str]:
    """Verdict and evidence of a claim that each searched checkpoint answers by a verdict and words."""
    if found.truth is None:
        return UNDECIDED, "There is no record of it."
    answers = {seed: answer(land) for seed, land in found.truth.landscapes.items()}
    listed = "; ".join(f"seed {seed}: {words}" for seed, (_, words) in answers.items())
    return judged(verdict for verdict, _ in answers.values()), f"{claim}: {listed}."


def _tally(verdicts: Iterable[str]) -> str:
    """How many are reproduced, in part, and not; those that cannot be compared aside."""
    counts = Counter(verdicts)
    words = (
        (REPRODUCED, "reproduced"), (SUPPORTS, "supported by another network"), (IN_PART, "in part"),
        (NOT_REPRODUCED, "not"),
    )  # fmt: skip
    return ", ".join(f"{counts[verdict]} {word}" for verdict, word in words if counts[verdict]) or "none to compare"


def _missing(found: Known) -> list[str]:
    return [f"not measured: {', '.join(found.absent)}"] if found.absent else []


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
