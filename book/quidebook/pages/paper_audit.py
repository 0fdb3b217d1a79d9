"""The page that examines the paper: its statements against its own numbers, and against our records where they answer.

Every fact is computed from ``data/paper``; what follows from it is said on the page. Accuracies and shares are
fractions, latencies milliseconds per batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import chi2

from quide import metric
from quide.experiments import paper
from quide.experiments.recipes import SEARCHED
from quide.ptq.width import label
from quidebook import frame, report
from quidebook.evidence import consistency, readings, sensitivity
from quidebook.evidence.readings import Reading
from quidebook.evidence.scores import Measured
from quidebook.report import UNKNOWN, gathered, number, with_origin
from quidebook.shared import landscape
from quidebook.shared.landscape import Landscapes
from quidebook.shared.table3 import LLAMA

C10, C100, R18, IN = "cifar10-simplecnn", "cifar100-simplecnn", "cifar10-resnet18", "imagenet-resnet18"
SIMPLECNN = {"MNIST": (1, 28, 10), "CIFAR-10": (3, 32, 10), "CIFAR-100": (3, 32, 100)}  # channels, side, classes
UNITS = (1.0, 64.0, 1000.0)  # ms per batch of 64 (the paper's), ms per image, s per batch: all in the first
STEADY = "never"
EQUATION = "threshold_equation_4"
STEP = 0.05  # what a round threshold is a multiple of
DIGITS, ASSUMES = "the printed digits", "the printed digits and an assumption"


@dataclass(frozen=True)
class Finding:
    """What comes out of an examination: the matter, one sentence on it as a template, what that rests on
    (:data:`DIGITS` or :data:`ASSUMES`), and the facts for it and for what the page says of it."""

    title: str
    headline: str
    rests_on: str
    facts: Mapping[str, object]


def overview(findings: Iterable[Finding]) -> pd.DataFrame:
    """One row a finding: the matter, what comes out, what it rests on."""
    return pd.DataFrame(
        {"matter": each.title, "what comes out": report.worded(each.headline, each.facts), "rests on": each.rests_on}
        for each in findings
    )


def say(finding: Finding, paper: str, computed: str, sure: str, settles: str, ours: str = "") -> None:
    """Display, folded, the parts of a finding, each a template of its facts; what is empty is left out. What comes out
    of it stands in :func:`overview`."""
    parts = {
        "The paper": paper,
        "Computed": computed,
        "Our records": ours and f"{ours.rstrip('.')}.",
        "How sure": f"It rests on {finding.rests_on}. {sure}",
        "What would settle it": settles,
    }
    text = report.worded("\n".join(f"- **{name}.** {text}" for name, text in parts.items() if text), finding.facts)
    frame.fold("", f"{finding.title}: details", text)


def ours(found: Sequence[Measured]) -> list[dict[str, object]]:
    """:func:`described` of our records, with ``gated`` and ``times`` as means over seeds, which EXP-1 prints too; and
    the ``spread`` of T at 8 bits over seeds as a share of its mean."""
    rows = []
    for each in found:
        taken = each.table.pivot(index="seed", columns="bits", values="latency_ms")
        means = {"gated": each.summary().set_index("bits").gated_index, "times": taken.div(taken[32], axis=0).mean()}
        spread = taken[8].std() / taken[8].mean()
        rows.append(described(readings.of_measured(each)) | means | {"spread": spread})
    return rows


def described(reading: Reading) -> dict[str, object]:
    """What the findings and their tables ask of a reading.

    ``by_unit`` has the knee in each of :data:`UNITS`, ``crossing`` the threshold below which 4 bits lead 8; by width,
    ``gated`` is I', ``times`` the latency over that at 32 bits.
    """
    widths, latencies = reading.table.index, reading.table["latency_ms"]
    tolerances, constants = sensitivity.over_tolerance(reading), sensitivity.over_time_constant(reading)
    return {
        "label": reading.label,
        "name": reading.facts["label"],
        "assumes": reading.assumes or UNKNOWN,
        "tolerance": reading.tolerance,
        "by_tolerance": "; ".join(
            f"{'none' if each.knee is None else f'{each.knee} bits'} from {each.low:.3f} to {each.high:.3f}"
            for each in tolerances
            if round(each.high, 3) > round(each.low, 3)
        ),
        "crossing": sensitivity.crossing_threshold(reading),
        "by_unit": [metric.knee(widths, reading.gated_index(None, unit)) for unit in UNITS],
        "turns": "; ".join(f"{a.knee} to {b.knee} bits at {a.high:.2f} ms" for a, b in pairwise(constants)) or STEADY,
        "gated": reading.gated_index(),
        "times": latencies / latencies.get(32, np.nan),
    }


# --- thresholds and the gate -----------------------------------------------------------------------------------------


def thresholds() -> dict[str, float]:
    """Eq. 4 against the thresholds that the scores were computed with."""
    table, (low, high) = paper.conditions(), consistency.known(f"{R18}.threshold.4")
    steps = (table["full_precision_accuracy"] - table["tolerance"]).round(2) / STEP
    known = readings.of_paper()
    knees = [metric.knee(each.table.index, each.gated_index(table.at[each.condition, EQUATION])) for each in known]
    return {
        "fits": int(np.isclose(steps, steps.round()).sum()),
        "conditions": len(table),
        "step": STEP,
        "low": low,
        "high": high,
        "equation_4": table.at[R18, EQUATION],
        "llama": table.at[LLAMA, "threshold_used"],
        "llama_equation_4": table.at[LLAMA, EQUATION],
        "changed": sum(knee != each.knee for knee, each in zip(knees, known, strict=True)),
        "readings": len(known),
    }


@gathered
def conditions() -> Iterator[dict[str, object]]:
    """The paper's conditions, with the thresholds that I' over I implies and the one that the scores fit."""
    known = paper.numbers().query("quantity == 'threshold' and origin == 'derived'")
    for name, facts in paper.conditions().iterrows():
        implied = known[known["condition"] == name]
        words = [f"{row['low']:.5f} to {row['high']:.5f} ({row['bits']} bits)" for _, row in implied.iterrows()]
        fits = with_origin(number(facts["threshold_used"], 2), facts["threshold_origin"])
        less = facts["full_precision_accuracy"] - facts["tolerance"]
        yield dict(facts) | {"less": less, "implied": "; ".join(words) or UNKNOWN, "fits": fits}


def gate() -> dict[str, object]:
    """Where I' is zero among the networks that the paper calls collapsed, and where it lies above full precision."""
    rows = collapsed()
    above = [row for row in rows if row["gated"] > max(row["full"])]
    return {
        "closed": sum(row["gated"] <= 0 for row in rows),
        "networks": len(rows),
        "above": " and ".join(f"{row['name']} ({row['gated']:.3f} against {row['full'][0]:.3f})" for row in above),
    }


@gathered
def collapsed() -> Iterator[dict[str, object]]:
    """The conditions whose 4-bit accuracy §4.2 and §4.3 call a collapse; ``full`` is I' at 32 bits, or its range;
    ``closes`` the tolerance up to which the gate would close."""
    table = paper.conditions()
    like_cifar10 = metric.gated_index(
        1.0, paper.number(f"{C100}.accuracy.32"), paper.number(f"{C10}.latency_ms.32"), table.at[C100, "threshold_used"]
    )
    full = {
        C10: [paper.number(f"{C10}.gated_index.32")],
        C100: [like_cifar10],
        R18: consistency.known(f"{R18}.gated_index.32"),
    }
    for name in (C10, C100, R18, IN):
        reference, accuracy = (paper.number(f"{name}.accuracy.{bits}") for bits in (32, 4))
        yield {
            "name": readings.label(name),
            "reference": reference,
            "accuracy": accuracy,
            "gated": paper.number(f"{name}.gated_index.4"),
            "full": full.get(name, [np.nan]),
            "range": " to ".join(map(number, full.get(name, [np.nan]))),
            "tolerance": table.at[name, "tolerance"],
            "closes": reference - accuracy,
        }


# --- size and the search ---------------------------------------------------------------------------------------------


def size(truth: Landscapes | None = None) -> dict[str, object]:
    """Compression by layers against compression by weights, of the searched network and of its like."""
    sizes = layer_sizes(*SIMPLECNN["CIFAR-10"])
    nominal, by_size = metric.compression_ratio(SEARCHED), metric.compression_ratio(SEARCHED, sizes)
    score = paper.number(f"{C10}.gated_index.{label(SEARCHED)}")
    facts = {
        "searched": label(SEARCHED),
        "stated": paper.number(f"{C10}.compression.{label(SEARCHED)}"),
        "nominal": nominal,
        "by_size": by_size,
        "unpadded": metric.compression_ratio(SEARCHED, layer_sizes(*SIMPLECNN["CIFAR-10"], padding=0)),
        "share": sizes[-1] / sum(sizes),
        "saved": 1 - 4 / by_size,
        "score": score,
        "score_by_size": score * by_size / nominal,
        "other": metric.compression_ratio((8, 8, 4, 8), sizes),
    }
    if truth is None:
        return facts
    land, weighted = truth.main, truth.main.size_weighted()
    return facts | {
        "best": label(land.best),
        "best_by_size": label(weighted.best),
        "rank": land.place(SEARCHED),
        "rank_by_size": weighted.place(SEARCHED),
        "configurations": len(land.configurations),
    }


def layer_sizes(channels: int, side: int, classes: int, padding: int = 1) -> list[int]:
    """Weights of SimpleCNN's four layers; ``padding`` of its convolutions is 1 in the book, 0 is the other reading."""
    for _ in range(2):  # a convolution of 3 by 3, then pooling by 2
        side = (side + 2 * padding - 2) // 2
    return [9 * channels * 32, 9 * 32 * 64, 64 * side**2 * 128, 128 * classes]


def search_space(truth: Landscapes | None = None) -> dict[str, object]:
    """How many networks the search scores, and how many there are."""
    facts = landscape.budget()
    facts |= {"times": facts["asked"] / facts["space"]}
    if truth is None:
        return facts
    explored = truth.explored
    return facts | {
        "scored": explored.evaluations,
        "best": label(explored.best),
        "rank": truth.main.place(explored.best),
    }


# --- units and tolerance ---------------------------------------------------------------------------------------------


def units(found: Sequence[Measured]) -> dict[str, object]:
    """The knee of ResNet-18 with latency in other units, and where it moves; where else it does not."""
    resnet = readings.resnet18()
    gated, raw = sensitivity.over_time_constant(resnet), sensitivity.over_time_constant(resnet, gated=False)
    others = [described(each) for each in readings.of_paper() if each.table["latency_ms"].nunique() > 1]
    return {
        "by_unit": described(resnet)["by_unit"],
        "turn": gated[0].high,
        "raw_ms": raw[0].knee,
        "raw_s": raw[-1].knee,
        "raw_turn": raw[0].high,
        "unmoved": " and ".join(dict.fromkeys(each["name"] for each in others if each["turns"] == STEADY)),
        "steady": sum(each["turns"] == STEADY for each in ours(found)),
        "measured": len(found),
    }


def tolerance() -> dict[str, object]:
    """How far the knee depends on the tolerance: on ResNet-18 it holds from ``low`` to ``high``; on CIFAR-10 4 bits
    take over at ``slow`` with the longest latency at 8 bits, at ``equal`` with equal latencies."""
    fast, slow = readings.cifar10()
    resnet = readings.resnet18()
    holding = next(each for each in sensitivity.over_tolerance(resnet) if each.low < resnet.tolerance < each.high)
    accuracy = slow.table["accuracy"]
    return {
        "knee": holding.knee,
        "low": holding.low,
        "high": holding.high,
        "slow": slow.full_precision - sensitivity.crossing_threshold(slow),
        # At equal latency 4 bits reach 8 where the threshold is 2 P(4) - P(8).
        "equal": slow.full_precision - (2 * accuracy[4] - accuracy[8]),
        "fast": sensitivity.crossing_threshold(fast),
        "stated": slow.tolerance,
        "resnet": resnet.tolerance,
    }


# --- latency ---------------------------------------------------------------------------------------------------------


def latency() -> dict[str, float]:
    """How much slower the slowest width is than the fastest, in milliseconds and in their logarithm."""
    slow, fast, longest, shortest = (
        paper.number(f"{condition}.latency_ms.{end}")
        for condition, end in ((R18, 8), (R18, 16), (C10, "max"), (C10, "min"))
    )
    return {
        "resnet": slow / fast,
        "simplecnn": longest / shortest,
        "resnet_damped": paper.number(f"{R18}.latency_penalty_ratio.range"),
        "simplecnn_damped": paper.number(f"{C10}.latency_penalty_ratio.range"),
    }


def noise() -> dict[str, float]:
    """The budget of the spread of I' at 8 bits on CIFAR-100, by first-order propagation of independent errors."""
    known = paper.numbers()
    row = known.loc[f"{C100}.gated_index.8"]
    margin = paper.number(f"{C100}.accuracy.32") - paper.conditions().at[C100, "threshold_used"]
    slowest = float(known.at[f"{C100}.latency_ms.8", "high"])
    accuracy_spread = paper.number("any.accuracy_std.8-and-wider")
    relative, by_accuracy = row["spread"] / row["value"], accuracy_spread / margin
    by_penalty = np.sqrt(relative**2 - by_accuracy**2)
    # log2(T + 1) changes by dT / ((T + 1) ln 2).
    latency_spread = by_penalty * metric.latency_penalty(slowest) * (slowest + 1) * np.log(2)
    four = known.loc[f"{C100}.accuracy.4"]
    degrees = len(consistency.setting("all", "seeds").split(";")) - 1
    return {
        "score": row["value"],
        "spread": row["spread"],
        "accuracy_spread_pp": 100 * accuracy_spread,
        "relative": relative,
        "by_accuracy": by_accuracy,
        "latency_spread": latency_spread,
        "latency_relative": latency_spread / slowest,
        "gap": paper.number(f"{C100}.index.4") - paper.number(f"{C100}.index.16"),
        "index_spread": paper.number(f"{C100}.index.4") * four["spread"] / four["value"],
        "low": np.sqrt(degrees / chi2.ppf(0.975, degrees)),
        "high": np.sqrt(degrees / chi2.ppf(0.025, degrees)),
    }
