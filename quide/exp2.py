"""The page of EXP-2 (ResNet-18 on CIFAR-10, §4.1 to §5): its runs, and what it asks beyond Table 1's rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from quide import latency, metric, paper, profiles, records, report, runs, stats, table1
from quide.evaluate import PAPER_BITS
from quide.report import number, percent, with_origin
from quide.table1 import Condition, claims, mean_ratios, ratio

MODEL, DATASET, CONDITION = "resnet18", "cifar10", "cifar10-resnet18"
RERUN = "quide run exp2 --profile paper --device cuda"
SHORT = "quide run exp2 --profile short"
ROUNDED = ("8", "4", "2")  # timed configurations that round after each layer
# What moving the quantizers comes to in a network without max-pooling between its layers.
SHOWN = {runs.COMMUTED_8: "8 (merged with the ReLU)"}


# --- what is run -----------------------------------------------------------------------------------------------------


def run(
    seeds: Sequence[int], profile: str, device: str = "cpu"
) -> list[tuple[runs.Case, records.Record, records.Record]]:
    """Training, accuracy and latency of each seed, computed where there is no record; each triple holds the case, its
    accuracy and its latency. None at the profiles of embedded weights, which ResNet-18 has too many of."""
    if profiles.profile(profile).embedded:
        return []
    done = []
    for case in [runs.Case(MODEL, DATASET, seed, profile) for seed in seeds]:
        runs.training(case, device).result()
        done.append((case, runs.accuracy(case).result(), runs.timing(case, device, progress=False).result()))
    return done


def best_known() -> Condition:
    """What records hold: the paper profile's, or else those of the short schedule."""
    return table1.best_known(MODEL, DATASET, ("paper", "short"), RERUN)


def say_run(condition: Condition, profile: str) -> None:
    """What this page ran, what it shows, and the commands for what it lacks."""
    lines = []
    if profiles.profile(profile).embedded:
        lines.append(f"At profile `{profile}` nothing is run: no weights of ResNet-18 travel with the checkout.")
    if condition.measured is None:
        lines.append(
            "**There is no record of ResNet-18 on CIFAR-10 here**; the paper's side is shown alone. To train it for "
            f"{profiles.profile('short').epochs} epochs, as a CPU can: `{SHORT} --seeds 0`."
        )
    elif condition.shortened:
        lines.append(
            f"**Ours is from a short schedule: {condition.shortened}.** A network that has not finished training is "
            "another network, so nothing that hangs on its accuracy gets a verdict."
        )
    if condition.profile == "paper":
        lines.append("Ours is from records of the paper's full protocol.")
    else:
        lines.append(f"To run the paper's full protocol, which takes a GPU: `{RERUN}`.")
    report.say(" ".join(lines))


def made_by(condition: Condition) -> str:
    """The command that makes the records of a condition."""
    return SHORT if condition.shortened else RERUN


def say_absent() -> None:
    """In place of what is drawn from records, where there are none."""
    report.say(f"There is no record to show here. To make one: `{RERUN}`")


# --- accuracy --------------------------------------------------------------------------------------------------------


def say_training(condition: Condition) -> None:
    """How training went, from its records."""
    lines = []
    for record in records.collect("training", condition.profile, MODEL, DATASET) if condition.measured else []:
        values, history = record.values, record.values["history"]
        lines.append(
            f"{condition.name}, seed {record.spec.seed}: {len(history)} epochs in "
            f"{values['training']['seconds'] / 60:.0f} minutes. Test accuracy is "
            f"{percent(history[0]['test_accuracy'], 1)} after the first, {percent(values['best_accuracy'], 1)} after "
            f"the best (epoch {values['best_epoch']}), {percent(values['last_accuracy'], 1)} after the last"
        )
    report.say(". ".join(lines) + "." if lines else "There is no training record yet.")


def drop_table(condition: Condition) -> pd.DataFrame:
    """What each width loses against full precision: the paper's drop, ours with an interval, verdict and reason."""
    rows = []
    for bits in PAPER_BITS[1:]:
        stated, origin = _stated_drop(condition, bits)
        row = {"condition": condition.name, "bits": bits}
        row["paper: drop (pp)"] = with_origin(number(100 * stated, 2), origin)
        if condition.measured is None:
            row |= {"ours: drop (pp)": "no record", "verdict": report.UNDECIDED, "reason": condition.absence}
        else:
            ours = _drop(condition, bits)
            verdict, reason = drop_verdict(condition, bits)
            row |= {"ours: drop (pp)": report.with_interval(ours, 100), "verdict": verdict, "reason": reason}
        rows.append(row)
    return pd.DataFrame(rows)


def drop_verdict(condition: Condition, bits: int) -> tuple[str, str]:
    """Verdict and reason for the drop at a width, by the limits for accuracies."""
    stated, _ = _stated_drop(condition, bits)
    ours = _drop(condition, bits)
    return condition.judged(*report.accuracy_verdict(stated, ours.estimate, ours.low, ours.high))


def _stated_drop(condition: Condition, bits: int) -> tuple[float, str]:
    """The paper's drop (fraction), and whether it is stated or follows from the accuracies."""
    name = f"{CONDITION}.accuracy_drop.{bits}"
    if name in paper.numbers().index:
        return paper.number(name), "stated"
    return condition.stated.accuracy[32] - condition.stated.accuracy[bits], "derived"


def _drop(condition: Condition, bits: int) -> stats.Interval:
    """Ours (fraction): mean over seeds with its t-interval; of one seed, with that of its paired test images."""
    correct = condition.measured.correct
    full, narrow = (correct[:, PAPER_BITS.index(width)] for width in (32, bits))
    if len(correct) == 1:
        return stats.paired_difference_interval(narrow[0], full[0])
    return stats.mean_interval(full.mean(1) - narrow.mean(1))


# --- latency ---------------------------------------------------------------------------------------------------------


def say_stated_latency() -> None:
    """What the paper's own latencies say of what was timed."""
    stated = paper.table1(CONDITION).set_index("bits").latency_ms
    narrow = ", ".join(f"{stated[bits]:.2f} ms at {bits}" for bits in (8, 4, 2))
    report.say(
        f"The paper states {stated[16]:.2f} ms at 16 bits, {narrow}: {stated[8] / stated[16]:.2f} times as long, "
        "and no shorter for 2 bits than for 8."
    )


def latency_table(condition: Condition) -> pd.DataFrame:
    """:func:`quide.table1.latency_table` in this network's words."""
    return table1.latency_table([condition]).replace(SHOWN)


def figure_overhead(condition: Condition) -> tuple:
    """Latency, relative to full precision, of everything that computes in float32 and rounds in between."""
    names = (runs.INTEGER_16, *ROUNDED, runs.COMMUTED_8)
    figure, axes = report.panels(width=7, height=2.8)
    axis, words = axes[0], []
    for place, name in enumerate(names):
        timed = np.array([ratio(record, name) for record in condition.timed])
        middle, low, high = timed[:, 0].mean(), timed[:, 1].min(), timed[:, 2].max()
        axis.errorbar(middle, place, xerr=[[middle - low], [high - middle]], fmt="o", color=report.BLUE, capsize=3)
        words.append(f"{SHOWN.get(name, name)}: {middle:.2f}")
    axis.axvline(1, color=report.GREY, linestyle="--", linewidth=1)
    axis.set_yticks(range(len(names)), [SHOWN.get(name, name) for name in names])
    axis.invert_yaxis()
    axis.set(xlabel="latency relative to 32 bits", ylabel="bits", xlim=(0, None))
    caption = (
        f"{condition.network} with simulated quantization: latency relative to the same network without (dashed), "
        f"median and 10th to 90th percentile ({condition.measured.device})."
    )
    return figure, "fig-exp2-overhead", caption, "Dot plot. " + "; ".join(words) + " times the latency of 32 bits."


def say_latency(condition: Condition) -> None:
    """What our ratios show: rounding costs the same at any width, and less where less is done for it."""
    if condition.measured is None:
        return say_absent()
    mean = mean_ratios(condition)
    narrow = ", ".join(f"{mean[name]:.2f} at {name} bits" for name in ROUNDED)
    report.say(
        f"Relative to full precision, ours is {narrow}, and {mean[runs.INTEGER_16]:.2f} at 16 bits on an integer grid. "
        f"The same 8-bit numbers take {mean[runs.COMMUTED_8]:.2f} when rounding is merged with the ReLU after it and "
        f"overwrites what it reads. The float16 cast computes otherwise, and takes {mean['16']:.2f} on this device."
    )


def overhead_verdict(condition: Condition) -> tuple[str, str]:
    """Whether rounding slows the network down, and as much at 8 as at 4 and 2 bits, to within what one configuration
    timed twice may differ by (:data:`quide.latency.AA_LIMIT`). It does not hang on training."""
    mean = mean_ratios(condition)
    values = [mean[name] for name in ROUNDED]
    slower, alike = min(values) > 1 + latency.AA_LIMIT, max(values) / min(values) <= 1 + latency.AA_LIMIT
    reason = f"{min(values):.2f} to {max(values):.2f} times full precision"
    if slower and alike:
        return report.REPRODUCED, reason
    return (report.IN_PART if slower or alike else report.NOT_REPRODUCED), reason


# --- I against I' ----------------------------------------------------------------------------------------------------


def reversal_table(condition: Condition) -> pd.DataFrame:
    """I and I' at 8 and 4 bits and which of the two each prefers, the paper's and ours."""
    sources = {"the paper": condition.stated}
    if condition.measured is not None:
        sources[f"ours, {condition.name}"] = condition.summary
    rows = []
    for source, table in sources.items():
        row = {"source": source}
        for quantity, sign in (("index", "I"), ("gated_index", "I'")):
            row |= {f"{sign}({bits})": number(table[quantity][bits]) for bits in (8, 4)}
            row[f"{sign} prefers"] = _preferred(table, quantity)
        rows.append(row)
    return pd.DataFrame(rows)


def say_reversal(condition: Condition) -> None:
    """At which thresholds the two scores part."""
    lines = [f"With the paper's accuracies, {_parting(condition.stated.accuracy)}."]
    if condition.measured is not None:
        lines.append(
            f"With ours ({condition.name}), {_parting(condition.summary.accuracy)}; "
            f"our threshold is {percent(condition.measured.threshold, 1)}."
        )
    report.say(" ".join(lines))


def reversal_verdict(condition: Condition) -> tuple[str, str]:
    """Whether I prefers 4 bits to 8, and I' 8 to 4."""
    raw, gated = (_preferred(condition.summary, quantity) for quantity in ("index", "gated_index"))
    verdict = report.REPRODUCED if (raw, gated) == ("4 bits", "8 bits") else report.NOT_REPRODUCED
    return condition.judged(verdict, f"I prefers {raw}, I' {gated}")


def _preferred(table: pd.DataFrame, quantity: str) -> str:
    """8 or 4 bits, whichever scores higher; neither where both score zero."""
    best = metric.knee((8, 4), [table[quantity][bits] for bits in (8, 4)])
    return "neither" if best is None else f"{best} bits"


def _parting(accuracy: pd.Series) -> str:
    """The thresholds at which I prefers 4 bits and I' 8 when both take the same time, in words.

    By Eq. 2, I prefers 4 bits when 8 P(4) > 4 P(8); by Eq. 3, I' prefers 8 when 4 (P(8) - t) > 8 (P(4) - t), which is
    t > 2 P(4) - P(8), as long as t < P(8).
    """
    if accuracy[4] >= accuracy[8]:
        return "4 bits are right as often as 8 bits, so both scores prefer them"
    if 2 * accuracy[4] <= accuracy[8]:
        return "4 bits keep no more than half of what 8 bits get right, so I prefers 8 bits as I' does"
    return (
        "4 bits keep more than half of what 8 bits get right, so I prefers them; I' prefers 8 bits at any threshold "
        f"between {percent(2 * accuracy[4] - accuracy[8], 1)} and {percent(accuracy[8], 1)}"
    )


# --- the end of the page ---------------------------------------------------------------------------------------------


def summary_table(condition: Condition) -> pd.DataFrame:
    """The paper's claims about EXP-2, one a row, with verdict and evidence drawn from the tables above."""
    if condition.measured is None:
        rows = [(f"{condition.name}: everything", report.UNDECIDED, condition.absence)]
    else:
        name, (stated, _) = condition.name, _stated_drop(condition, 4)
        verdict, _ = drop_verdict(condition, 4)
        lost = f"ours {report.with_interval(_drop(condition, 4), 100)} pp"
        rows = [
            *claims(condition),
            (f"{name}: 4 bits lose {100 * stated:.0f} pp", *condition.judged(verdict, lost)),
            (f"{name}: I prefers 4 bits to 8, I' 8 to 4", *reversal_verdict(condition)),
            (f"{name}: slower when quantized, and as slow at 8 as at 2 bits", *overhead_verdict(condition)),
        ]
    return pd.DataFrame(rows, columns=["claim", "verdict", "evidence"])


def records_used(condition: Condition) -> list[records.Record]:
    """The records the page was drawn from."""
    if condition.measured is None:
        return []
    return records.collect("training", condition.profile, MODEL, DATASET) + condition.measured.records
