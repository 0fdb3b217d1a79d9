"""The first page: a verdict on each of the paper's claims, from records, with the facts behind it; the key figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd
import yaml
from matplotlib.figure import Figure

from quide import _paths, metric
from quide.experiments import paper
from quide.experiments.recipes import SEARCHED
from quide.experiments.records import Record
from quide.ptq.width import PAPER_BITS
from quidebook import report, tables
from quidebook.evidence import readings
from quidebook.evidence.conditions import NAMES, Condition, best_known, present
from quidebook.evidence.scores import Measured
from quidebook.report import Absent, Facts, percent, tabled
from quidebook.shared import claims, landscape, residual, simplecnn, sites, table2
from quidebook.shared.sites import SITE_MARKERS
from quidebook.verdicts import IN_PART, NOISY, NONE, REPRODUCED, SUPPORTS, UNDECIDED, held

Answer = tuple[str, Facts]
WHERE = {"output": "before the ReLU", "relu": "after the ReLU", "input": "at the next layer's input"}
CIFAR10 = "cifar10"


def judged(parts: Iterable[str], missing: Sequence[str] = ()) -> str:
    """The verdict on a whole from those on its parts, of which the ones that cannot be compared do not count.

    Reproduced: all parts, and nothing is ``missing``. Not reproduced: none, not even in part. In part: what is between.
    """
    parts = set(parts)
    verdicts = parts - NONE
    if verdicts != {SUPPORTS}:  # what another network supports adds nothing to what the paper's own decides
        verdicts -= {SUPPORTS}
    if not verdicts:
        return NOISY if NOISY in parts else UNDECIDED
    if verdicts == {REPRODUCED} and missing:
        return IN_PART
    return verdicts.pop() if len(verdicts) == 1 else IN_PART


def conditions() -> list[Condition]:
    """SimpleCNN's, measured with the paper's settings or not at all."""
    return [best_known(simplecnn.MODEL, dataset, ("paper",), simplecnn.RERUN) for dataset in NAMES]


def answers() -> dict[str, Answer]:
    """Verdict and facts by claim: one number, the gate, the knee, 16 bits, the search."""
    found = conditions()
    return {
        "one number": one_number(),
        "gate": gate(found),
        "knee": knee(found),
        "16 bits": sixteen_bits(found),
        "search": searched(),
    }


def one_number() -> Answer:
    """Whether one number ranks widths without a choice: it does if the unit of latency moves no knee."""
    reading = readings.resnet18()
    facts = {
        name: metric.knee(reading.table.index, reading.gated_index(None, unit))
        for name, unit in (("ms", 1.0), ("s", 1000.0))
    }
    return (REPRODUCED if facts["ms"] == facts["s"] else IN_PART), facts


def gate(found: Sequence[Condition]) -> Answer:
    """Whether I prefers 4 bits to 8 on CIFAR-10 and I' corrects it, at each activation site."""
    corrected = {site: _corrected(measured) for site, measured in _sites(found)}
    if not corrected:
        return UNDECIDED, Absent("the activation sites", simplecnn.RERUN)
    sites_with = " and ".join(WHERE[site] for site, holds in corrected.items() if holds)
    everywhere = f"{'yes' if all(corrected.values()) else 'no'}, wherever activations are rounded"
    split = any(corrected.values()) and not all(corrected.values())
    where = f"yes if activations are rounded {sites_with}, elsewhere no" if split else everywhere
    return judged(map(held, corrected.values())), {"where": where}


def knee(found: Sequence[Condition]) -> Answer:
    """Whether each task has the paper's knee, by our reading, and on CIFAR-10 at the other activation sites as well."""
    shown = present(found)
    if not shown:
        return UNDECIDED, Absent("SimpleCNN", simplecnn.RERUN)
    knees = {condition.name: condition.measured.likeliest[0] for condition in shown}
    elsewhere = [measured.likeliest[0] for site, measured in _sites(found) if site != "output"]
    stated = {each.dataset: int(each.facts["knee_bits"]) for each in shown}
    moved = [held(bits == stated[CIFAR10]) for bits in elsewhere]
    return judged([*(claims.knee(each)[0] for each in shown), *moved]), {
        "knees": " and ".join(f"{name} {bits}" for name, bits in knees.items()),
        "elsewhere": " or ".join(map(str, sorted(set(elsewhere)))) or report.UNKNOWN,
    }


def sixteen_bits(found: Sequence[Condition]) -> Answer:
    """Whether 16 bits lose no accuracy, on every network that was measured."""
    shown = [*present(found), *present(residual.known())]
    if not shown:
        return UNDECIDED, Absent("SimpleCNN", simplecnn.RERUN)
    changes = [each.by_seed[16].mean() - each.by_seed[32].mean() for each in shown]
    names = dict.fromkeys(each.network for each in shown)
    facts = {"most": 100 * max(map(abs, changes)), "names": ", ".join(names)}
    return judged(claims.lossless(each, 16, 0.0001)[0] for each in shown), facts


def searched() -> Answer:
    """Whether the paper's searched widths score above uniform 8 bits, on each checkpoint."""
    truth = landscape.known()
    if truth is None:
        return UNDECIDED, Absent("mixed widths", "quide run exp3 --profile paper")
    facts = table2.beside_cifar10(truth)
    places = [(land.place(SEARCHED), land.place(landscape.uniform(8))) for land in truth.landscapes.values()]
    by_size = truth.main.size_weighted()
    saved = 1 - 4 / by_size.compression[by_size.index_of(SEARCHED)]
    verdict = judged(held(ours < eight) for ours, eight in places)
    return verdict, facts | {"saved": saved}


@tabled
def table(
    words: dict[str, tuple[str, str, tuple[str, str]]], answered: dict[str, Answer] | None = None
) -> Iterator[dict]:
    """One row a claim: the claim, verdict, evidence, where to read on.

    Args:
        words: by claim, the claim as printed, a template of its facts, and the link's words and address.
        answered: :func:`answers`.
    """
    for name, (verdict, facts) in (answered or answers()).items():
        claim, template, link = words[name]
        evidence = report.worded(template, facts).replace("`", "")
        yield {"claim": claim, "verdict": verdict, "evidence": evidence, "more": tables.Links((link,))}


def records_used() -> list[Record]:
    """The records that the verdicts and the key figure are drawn from."""
    shown, truth = present(conditions()), landscape.known()
    used = [record for each in [*shown, *present(residual.known())] for record in each.measured.records]
    return [*used, *(record for each in shown for record in sites.records_used(each)), *(truth.used if truth else ())]


def by_site(found: Sequence[Condition]) -> str:
    """The knee of CIFAR-10 at each activation site, in words."""
    each = [f"{WHERE[site]} {measured.likeliest[0]} bits" for site, measured in _sites(found)]
    return ", ".join(each) or report.NO_RECORD


def colophon(used: Iterable[Record]) -> dict[str, object]:
    """The book's ``version``, date of ``release`` and ``licence``; how many ``records`` it has, and the ``hours`` that
    they took."""
    cited = yaml.safe_load((_paths.home() / "CITATION.cff").read_text(encoding="utf-8"))
    # A training that was taken up again tells how long all of it took.
    seconds = [record.values.get("training", {}).get("seconds", record.seconds) for record in used]
    facts = {"version": cited["version"], "release": str(cited["date-released"]), "licence": cited["license"]}
    return facts | {"records": len(seconds), "hours": sum(seconds) / 3600}


def key_figure() -> tuple[Figure, str] | Absent:
    """4-bit accuracy on CIFAR-10 at three activation sites beside the paper's, the knee that results on each point."""
    points = [
        (site, measured.correct[:, PAPER_BITS.index(4)].mean(), measured.likeliest[0])
        for site, measured in _sites(conditions())
    ]
    if not points:
        return Absent("the activation sites", simplecnn.RERUN)
    figure, (axis,) = report.panels(width=5.4, height=3.2)
    stated = paper.number("cifar10-simplecnn.accuracy.4")
    axis.axhline(100 * stated, color=report.GREY, linestyle="--", linewidth=1)
    axis.annotate(
        f"the paper: {percent(stated)}, knee 8 bits", (2.85, 100 * stated), (0, -4), textcoords="offset points",
        ha="right", va="top", color=report.GREY,
    )  # fmt: skip
    for place, (site, accuracy, bits) in enumerate(points):
        marker, colour = SITE_MARKERS[site]
        axis.plot(place, 100 * accuracy, marker, color=colour, markersize=10)
        label = f"{percent(accuracy, 1)}\nknee {bits} bits"
        axis.annotate(label, (place, 100 * accuracy), (9, 0), textcoords="offset points", va="center")
    axis.set_xticks(
        range(len(points)),
        [WHERE[site].replace(" the ", "\nthe ").replace("at\nthe next ", "at the next\n") for site, _, _ in points],
    )
    axis.set(
        xlim=(-0.4, 2.9),
        ylim=(54, 76),
        ylabel="4-bit accuracy (%)",
        title="Where activations are rounded decides the knee",
    )
    axis.margins(y=0.2)
    words = [f"rounded {WHERE[site]}: {percent(accuracy, 1)}, knee {bits} bits" for site, accuracy, bits in points]
    return (
        figure,
        f"Dot plot of the 4-bit accuracy on CIFAR-10. {'; '.join(words)}. The paper states {percent(stated)}.",
    )


def _sites(found: Sequence[Condition]):
    for condition in present(found):
        if condition.dataset == CIFAR10:
            yield from sites.at_each(condition)


def _corrected(measured: Measured) -> bool:
    accuracy = pd.Series(measured.correct.mean((0, 2)), PAPER_BITS)
    scores = residual.equal_latency(accuracy, measured.threshold)
    return (residual.preferred(scores["index"]), residual.preferred(scores.gated_index)) == ("4 bits", "8 bits")
