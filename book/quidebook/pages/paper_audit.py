"""The page that examines the paper: its statements against its own numbers, and against our records where they answer.

Every fact is computed from ``data/paper``; what follows from it is said on the page. Accuracies and shares are
fractions, latencies milliseconds per batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import chi2

from quide import metric
from quide.evaluate import label
from quide.experiments import paper
from quide.experiments.recipes import SEARCHED
from quide.latency import BATCH_SIZE
from quidebook import report, verdicts
from quidebook.evidence import consistency, readings, sensitivity
from quidebook.evidence.conditions import NAMES, present
from quidebook.evidence.readings import Reading
from quidebook.evidence.scores import Measured
from quidebook.report import UNKNOWN, number, percent, with_origin
from quidebook.shared import claims, landscape, simplecnn, table2
from quidebook.shared.landscape import Landscapes
from quidebook.shared.table3 import LLAMA

C10, C100, R18, IN = "cifar10-simplecnn", "cifar100-simplecnn", "cifar10-resnet18", "imagenet-resnet18"
SIMPLECNN = {"MNIST": (1, 28, 10), "CIFAR-10": (3, 32, 10), "CIFAR-100": (3, 32, 100)}  # channels, side, classes
RESNET18_WEIGHTS, RESNET18_LAST = 11_678_912, 512_000  # of torchvision's ResNet-18: all layers, and the last one
UNITS = {"ms per batch (the paper's)": 1.0, "ms per image": float(BATCH_SIZE), "s per batch": 1000.0}  # in ms
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
    """Display a finding as a list of its parts, each a template of its facts; what is empty is left out."""
    parts = {
        "The paper": paper,
        "Computed": f"{finding.headline} {computed}",
        "Our records": ours and f"{ours.rstrip('.')}.",
        "How sure": f"It rests on {finding.rests_on}. {sure}",
        "What would settle it": settles,
    }
    report.say("\n".join(f"- **{name}.** {text}" for name, text in parts.items() if text), finding.facts)


def ours(found: Sequence[Measured]) -> list[dict[str, object]]:
    """What records of each condition have to say to the findings; ``spread_8`` is that of T at 8 bits over seeds."""
    rows = []
    for each in found:
        reading = readings.of_measured(each)
        scores, latencies = reading.gated_index(), reading.table["latency_ms"]
        timed = each.table[each.table["bits"] == 8]["latency_ms"]
        rows.append(
            {"name": reading.facts["label"], "stated": reading.tolerance, "spread_8": timed.std() / timed.mean()}
            | {"knees": _stretches(sensitivity.over_tolerance(reading))}
            | {f"gated_{bits}": scores[bits] for bits in scores.index}
            | {f"times_{bits}": latencies[bits] / latencies[32] for bits in latencies.index}
        )
    return rows


# --- what was measured -----------------------------------------------------------------------------------------------


def confirmed(truth: Landscapes | None) -> dict[str, int] | report.Absent:
    """How many claims about SimpleCNN there are that our own measurements answer, and how many they confirm."""
    found = present(simplecnn.conditions(NAMES))
    answers = [verdict for each in found for _, verdict, _ in claims.of_table1(each)]
    if not answers:
        return report.Absent("SimpleCNN", "quide run exp1 --profile paper")
    if truth is not None:
        searched = table2.table(truth).set_index("widths").query('network == "the paper\'s GA"')
        answers += searched["verdict"].tolist()
    return {"confirmed": answers.count(verdicts.REPRODUCED), "claims": len(answers)}


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


def thresholds_table() -> pd.DataFrame:
    """One row a condition: full-precision accuracy, tolerance, Eq. 4, what the scores imply, what they fit."""
    known = paper.numbers().query("quantity == 'threshold' and origin == 'derived'")
    rows = []
    for name, facts in paper.conditions().iterrows():
        implied = known[known["condition"] == name]
        words = [f"{row['low']:.5f} to {row['high']:.5f} ({row['bits']} bits)" for _, row in implied.iterrows()]
        rows.append(
            {
                "condition": facts["label"],
                "P_FP": number(facts["full_precision_accuracy"], 4),
                "δ": number(facts["tolerance"], 2),
                "P_FP − δ": number(facts["full_precision_accuracy"] - facts["tolerance"], 4),
                "Eq. 4": number(facts[EQUATION], 4),
                "implied by I'/I": "; ".join(words) or UNKNOWN,
                "fits": with_origin(number(facts["threshold_used"], 2), facts["threshold_origin"]),
            }
        )
    return pd.DataFrame(rows)


def gate() -> dict[str, object]:
    """Where I' is zero among the networks that the paper calls collapsed, and where it lies above full precision."""
    rows = _collapsed()
    above = [row for row in rows if row["gated"] > max(row["full"])]
    return {
        "closed": sum(row["gated"] <= 0 for row in rows),
        "networks": len(rows),
        "above": _and(f"{row['name']} ({row['gated']:.3f} against {row['full'][0]:.3f})" for row in above),
    }


def gate_table() -> pd.DataFrame:
    """Each collapse at 4 bits: accuracies, scores, and the tolerance at which the gate would close."""
    return pd.DataFrame(
        {
            "condition": row["name"],
            "P at 32 bits": percent(row["reference"]),
            "P at 4 bits": percent(row["accuracy"]),
            "I' at 4 bits": number(row["gated"]),
            "I' at 32 bits": " to ".join(map(number, row["full"])),
            "δ used": number(row["tolerance"], 2),
            "gate closes for δ up to": number(row["reference"] - row["accuracy"], 3),
        }
        for row in _collapsed()
    )


def _collapsed() -> list[dict]:
    """The conditions whose 4-bit accuracy §4.2 and §4.3 call a collapse; ``full`` is I' at 32 bits, or its range."""
    table = paper.conditions()
    like_cifar10 = metric.gated_index(
        1.0, paper.number(f"{C100}.accuracy.32"), paper.number(f"{C10}.latency_ms.32"), table.at[C100, "threshold_used"]
    )
    full = {
        C10: [paper.number(f"{C10}.gated_index.32")],
        C100: [like_cifar10],
        R18: consistency.known(f"{R18}.gated_index.32"),
    }
    return [
        {
            "name": readings.label(name),
            "reference": paper.number(f"{name}.accuracy.32"),
            "accuracy": paper.number(f"{name}.accuracy.4"),
            "gated": paper.number(f"{name}.gated_index.4"),
            "full": full.get(name, [np.nan]),
            "tolerance": table.at[name, "tolerance"],
        }
        for name in (C10, C100, R18, IN)
    ]


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


def size_table() -> pd.DataFrame:
    """Nominal and true compression of some assignments, on SimpleCNN's data sets and on ResNet-18."""
    rows = [
        _size_row(f"SimpleCNN / {name}", widths, widths, layer_sizes(*shape))
        for name, shape in SIMPLECNN.items()
        for widths in (SEARCHED, (8, 8, 8, 2), (8, 8, 4, 8))
    ]
    sizes = (RESNET18_WEIGHTS - RESNET18_LAST, RESNET18_LAST)  # the paper's last group is the last layer
    return pd.DataFrame([*rows, _size_row("ResNet-18 / ImageNet-1K", table2.SEARCHED_IN, (8, 16), sizes)])


def _size_row(network: str, named: Sequence[int], widths: Sequence[int], sizes: Sequence[int]) -> dict[str, str]:
    odd = [n for width, n in zip(widths, sizes, strict=True) if width != 8]
    return {
        "network": network,
        "widths": label(named),
        "weights not at 8 bits": percent(sum(odd) / sum(sizes)),
        "C, layers alike": number(metric.compression_ratio(named)),
        "C, by weights": number(metric.compression_ratio(widths, sizes)),
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
    unmoved = [
        each.facts["label"] for each in readings.of_paper() if each.table["latency_ms"].nunique() > 1 and _steady(each)
    ]
    return {
        "knee_ms": gated[0].knee,
        "knee_s": gated[-1].knee,
        "turn": gated[0].high,
        "raw_ms": raw[0].knee,
        "raw_s": raw[-1].knee,
        "raw_turn": raw[0].high,
        "by_unit": ", ".join(f"{bits} bits in {unit}" for unit, bits in _knees(resnet).items()),
        "unmoved": _and(dict.fromkeys(unmoved)),
        "steady": sum(_steady(readings.of_measured(each)) for each in found),
        "measured": len(found),
    }


def units_table(found: Sequence[Measured]) -> pd.DataFrame:
    """Knee in each unit, and the time constants at which it changes, for every reading."""
    rows = []
    for each in _all_readings(found):
        stretches = sensitivity.over_time_constant(each)
        turns = "; ".join(f"{a.knee} to {b.knee} bits at {a.high:.2f} ms" for a, b in pairwise(stretches))
        rows.append(
            {"condition": each.label}
            | {unit: f"{bits} bits" for unit, bits in _knees(each).items()}
            | {"changes": turns or "never", "assumes": each.assumes or UNKNOWN}
        )
    return pd.DataFrame(rows)


def _knees(reading: Reading) -> dict[str, int | None]:
    return {unit: metric.knee(reading.table.index, reading.gated_index(None, tau)) for unit, tau in UNITS.items()}


def _steady(reading: Reading) -> bool:
    return len(sensitivity.over_time_constant(reading)) == 1


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
        "fast": _nan(sensitivity.crossing_threshold(fast)),
        "stated": slow.tolerance,
        "resnet": resnet.tolerance,
    }


def tolerance_table(found: Sequence[Measured]) -> pd.DataFrame:
    """For every reading, which knee holds over which tolerances."""
    return pd.DataFrame(
        {
            "condition": each.label,
            "δ stated": number(each.tolerance, 2),
            "knee by δ": _stretches(sensitivity.over_tolerance(each)),
            "4 bits lead below a threshold of": number(_nan(sensitivity.crossing_threshold(each))),
            "assumes": each.assumes or UNKNOWN,
        }
        for each in _all_readings(found)
    )


def _stretches(stretches: Sequence[sensitivity.Stretch]) -> str:
    return "; ".join(
        f"{'none' if each.knee is None else f'{each.knee} bits'} from {each.low:.3f} to {each.high:.3f}"
        for each in stretches
        if round(each.high, 3) > round(each.low, 3)
    )


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


def latency_table(found: Sequence[Measured]) -> pd.DataFrame:
    """Latency by width relative to the fastest, as stated and as measured."""
    rows = []
    for each in [readings.resnet18(), *map(readings.of_measured, found)]:
        latencies = each.table["latency_ms"]
        times = (latencies / latencies.min()).reindex(paper.BITS)
        rows.append(
            {"condition": each.label, "T of the fastest (ms)": number(latencies.min(), 2)}
            | {f"{bits} bits": number(value, 2) for bits, value in times.items()}
        )
    return pd.DataFrame(rows)


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


# --- helpers ---------------------------------------------------------------------------------------------------------


def _all_readings(found: Sequence[Measured]) -> list[Reading]:
    return [*readings.of_paper(), *map(readings.of_measured, found)]


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)


def _nan(value: float | None) -> float:
    return np.nan if value is None else value
