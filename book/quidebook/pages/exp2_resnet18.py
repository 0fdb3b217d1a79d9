"""The page of EXP-2 (ResNet-18 on CIFAR-10, §4.1 to §5): what it asks beyond Table 1, and the facts it tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from quide import search
from quide.experiments import runs
from quide.experiments.campaign import SITED_BITS
from quide.experiments.deployed import INTEGER, RUNTIME, TORCH
from quide.models import registry
from quide.ptq.width import label
from quide.stats import Hits
from quidebook import report
from quidebook.evidence.conditions import Condition, present, trainings
from quidebook.report import Absent, Facts, number, tabled, with_origin
from quidebook.shared import claims, deployed, residual, table1
from quidebook.shared.landscape import countings
from quidebook.shared.residual import BESIDE, DATASET, MODEL, PUBLISHED, RERUN, ROUNDED, SITES, preferred
from quidebook.verdicts import NEAR, UNDECIDED, cells

SHORT = "quide run exp2 --profile short"
NO_RECORD = Absent("ResNet-18 on CIFAR-10", RERUN)
NOT_DEPLOYED = Absent("real 8-bit arithmetic", f"pip install 'quide[deploy]' && {BESIDE}")
SEARCHES = 100  # seeds of the genetic search by parts
# What moving the quantizers comes to in a network without max-pooling between its layers.
SHOWN = {runs.COMMUTED_8: "8 (merged with the ReLU)"}


def made_by(found: Sequence[Condition]) -> list[str]:
    """The commands that make the records shown."""
    commands = [SHORT if condition.shortened else RERUN for condition in found if not condition.published]
    return commands + [BESIDE for condition in found if condition.published]


def apart(found: Sequence[Condition]) -> tuple[list[Condition], list[Condition]]:
    """The conditions to look at, and those whose training ended far below the paper's accuracy, which are other
    networks."""
    measured = present(found)
    short = [c for c in measured if c.shortened and c.summary.accuracy[32] < c.stated.accuracy[32] - NEAR]
    return [condition for condition in measured if condition not in short], short


def answer(found: Sequence[Condition]) -> Facts:
    """Where the two scores part on the published network, and what 8 bits cost simulated and in integers, in words."""
    parts = parted(found)
    if isinstance(parts, Absent):
        return parts
    timed = report.listed(
        "{integers:.1f} in integers against {simulated:.1f} simulated ({network})", deployed.facts(found)
    )
    return parts | {"timed": timed or "not measured"}


def merging(found: Sequence[Condition]) -> Facts:
    """On which networks rounding merged with the ReLU takes less time than before it, and on which not."""
    ratios = {condition.name: table1.mean_ratios(condition) for condition in present(found)}
    known = {name: each for name, each in ratios.items() if runs.COMMUTED_8 in each}
    saves = [name for name, each in known.items() if each[runs.COMMUTED_8] < each["8"]]
    rest = [name for name in known if name not in saves]
    return {"saves": " and ".join(saves) or "none", "rest": " and ".join(rest) or "none"}


# --- accuracy --------------------------------------------------------------------------------------------------------


def published(found: Sequence[Condition]) -> Facts:
    """The network that stands beside the paper's: title, source, accuracy (fraction), seeds, images calibrated on."""
    network = registry.row(PUBLISHED, DATASET)
    for condition in found:
        if condition.published:
            facts = {"title": network.title, "source": network.source, "images": runs.CALIBRATION_SIZE}
            seeds = len(condition.measured.seeds)
            return facts | {"accuracy": condition.summary.accuracy[32], "seeds": seeds}
    return Absent(f"the published {network.title} ({network.source})", BESIDE)


def trained(condition: Condition) -> list[dict[str, object]]:
    """How each training went: condition, seed, epochs, of (the paper's), minutes, best accuracy
    (fraction), and stated (the paper's)."""
    return [
        {
            "condition": condition.name,
            "seed": record.spec.seed,
            "epochs": len(record.values["history"]),
            "of": registry.row(MODEL, DATASET).recipe.epochs,
            "minutes": record.values["training"]["seconds"] / 60,
            "best": record.values["best_accuracy"],
            "stated": condition.stated.accuracy[32],
        }
        for record in (trainings(condition) if condition.measured else [])
    ]


def accuracy_table(found: Sequence[Condition]) -> pd.DataFrame:
    """The paper's accuracy and ours, and what each width loses against full precision; verdicts, if there are any."""
    table = _accuracies(found)
    undecided = "verdict" in table and set(table.verdict) == {UNDECIDED}
    return table.drop(columns=["verdict", "reason"]) if undecided else table


@tabled
def _accuracies(found: Sequence[Condition]) -> Iterator[dict]:
    for condition in present(found):
        for bits, stated in condition.stated.iterrows():
            row = {"network": condition.name, "bits": bits}
            row["paper P (%)"] = with_origin(number(100 * stated.accuracy, 2), stated.accuracy_origin)
            row["ours P (%)"] = report.spread(condition.summary.loc[bits], "accuracy", 100)
            if bits == 32:
                row |= dict.fromkeys(("paper: drop", "ours: drop"), report.UNKNOWN)
                yield row | cells(claims.accuracy(condition, bits))
                continue
            drop, origin = residual.stated_drop(condition, bits)
            row["paper: drop"] = with_origin(number(100 * drop, 2), origin)
            row["ours: drop"] = report.with_interval(residual.drop(condition, bits), 100)
            yield row | cells(residual.drop_verdict(condition, bits))


# --- latency ---------------------------------------------------------------------------------------------------------


def figure_overhead(found: Sequence[Condition]) -> tuple[Figure, str]:
    """A figure and what is seen: latency over that of 32 bits in PyTorch, rounding in float32 and in integers."""
    names, known = (runs.INTEGER_16, *ROUNDED, runs.COMMUTED_8, RUNTIME, INTEGER), deployed.measured(found)
    drawn = {}
    for condition in present(found):
        simulated = {name: table1.ratios(condition, name) for name in names[:-2]}
        real = known.get(condition.network)
        integers = {name: table1.ratio(real, name, TORCH) for name in names[-2:]} if real else {}
        drawn[condition.network] = simulated | integers
    figure, (axis,) = report.panels(width=7, height=3.6)
    alt = table1.draw_ratios(axis, drawn, {name: SHOWN.get(name, name) for name in names}, "32 bits in PyTorch")
    saves = "Rounding costs time where it is simulated, and saves it in integers"
    axis.set(ylabel="bits", title=saves if deployed.faster_than_simulated(found) else "What rounding costs")
    return figure, alt


# --- I against I' ----------------------------------------------------------------------------------------------------


@tabled
def reversal_table(found: Sequence[Condition]) -> Iterator[dict]:
    """I and I' at 8 and 4 bits and which of the two each prefers, the paper's and ours."""
    sources = {"the paper's ResNet-18": residual.stated_table()} | {
        f"ours, {c.name}": c.summary for c in present(found)
    }
    for source, table in sources.items():
        row = {"source": source}
        for quantity, sign in table1.SCORES:
            row |= {f"{sign}({bits})": number(table[quantity][bits]) for bits in (8, 4)}
            row[f"{sign} prefers"] = preferred(table[quantity])
        yield row


def partings(found: Sequence[Condition]) -> list[dict[str, object]]:
    """Between which thresholds (fractions, low and high) I prefers 4 bits and I' 8, both taking the same time: with the
    paper's accuracies, and with ours at our threshold.

    ``kind`` is "part", or what both scores prefer at any threshold, "4" or "8".
    """
    facts = [{"source": "the paper", "threshold": np.nan} | parting(residual.stated_table().accuracy)]
    for condition in present(found):
        ours = {"source": condition.name, "threshold": condition.measured.threshold}
        facts.append(ours | parting(condition.summary.accuracy))
    return facts


def parting(accuracy: pd.Series) -> dict[str, object]:
    """kind, low and high of :func:`partings`.

    By Eq. 2, I prefers 4 bits when 8 P(4) > 4 P(8); by Eq. 3, I' prefers 8 when 4 (P(8) - t) > 8 (P(4) - t), which is
    t > 2 P(4) - P(8), as long as t < P(8).
    """
    kind = "4" if accuracy[4] >= accuracy[8] else "8" if 2 * accuracy[4] <= accuracy[8] else "part"
    return {"kind": kind, "low": 2 * accuracy[4] - accuracy[8], "high": accuracy[8]}


@tabled
def site_table(found: Sequence[Condition]) -> Iterator[dict]:
    """The published network with activations rounded at different places: accuracy at 8 and 4 bits (mean and standard
    deviation over calibration draws), and which width I and I' prefer when both take the same time."""
    for condition in found:
        known = residual.sited_records([condition])
        for site, words in SITES.items():
            if not (sited := [record.values["accuracy"] for (_, name), record in known.items() if name == site]):
                continue
            shares = {bits: [accuracy[str(bits)] for accuracy in sited] for bits in SITED_BITS}
            mean = pd.Series({bits: np.mean(share) for bits, share in shares.items()})
            scores = residual.equal_latency(mean, condition.measured.threshold)
            row = {"network": condition.name, "activations rounded": words}
            row |= {f"{bits} bits (%)": report.mean_std(shares[bits]) for bits in SITED_BITS[1:]}
            row |= {f"{sign} prefers": preferred(scores[quantity]) for quantity, sign in table1.SCORES}
            yield row | {"draws": len(sited)}


# --- mixed precision by parts ----------------------------------------------------------------------------------------


@tabled
def stages_table(found: Sequence[Condition]) -> Iterator[dict]:
    """The configuration of a network's parts with the highest I' at equal latency, where uniform widths stand, and how
    often the paper's search finds it; one row a network and way to count compression."""
    for network, (record, land) in residual.staged(found).items():
        for counting, counted in countings(land):
            space = counted.fitness.__getitem__, len(land.num_weights), record.spec.details["choices"]
            explored = [search.genetic(*space, seed=seed) for seed in range(SEARCHES)]
            hits = sum(one.best_fitness == counted.fitness[counted.best] for one in explored)
            place = {bits: counted.place((bits,) * len(land.num_weights)) for bits in (8, 4)}
            right = Hits(land.correct[:, land.index_of(counted.best)]).interval()
            yield {
                "network": network,
                "C": counting,
                "highest I'": label(counted.best),
                "right (%)": report.with_interval(right, 100),
                "uniform 8, 4: ranks": f"{place[8]:,}, {place[4]:,}",
                "search finds it": f"{hits} of {SEARCHES} seeds",
                "evaluations": f"{np.median([one.evaluations for one in explored]):.0f}",
            }


def staged(found: Sequence[Condition]) -> list[dict[str, object]]:
    """What :func:`stages_table` is of: network, parts (names), configurations and images, how many."""
    return [
        {
            "network": network,
            "parts": report.plain(", ".join(record.values["groups"])),
            "configurations": len(land.configurations),
            "images": record.values["images"],
        }
        for network, (record, land) in residual.staged(found).items()
    ]


def parted(found: Sequence[Condition]) -> Facts:
    """At which of the places the two scores of the first network prefer different widths, as in the paper, and at which
    the same."""
    rows = site_table(found)
    if rows.empty:
        return Absent("activations rounded at other places", BESIDE)
    rows = rows[rows.network == rows.network.iloc[0]]
    differ = (rows["I prefers"] == "4 bits") & (rows["I' prefers"] == "8 bits")
    where = [" or ".join(rows[part]["activations rounded"]) or "nowhere" for part in (differ, ~differ)]
    return {"network": rows.network.iloc[0], "different": where[0], "same": where[1]}
