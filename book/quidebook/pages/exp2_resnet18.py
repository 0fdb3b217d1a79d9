"""The page of EXP-2 (ResNet-18 on CIFAR-10, §4.1 to §5): its runs, and what it asks beyond Table 1's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from quide import latency, metric, ptq, stats
from quide.evaluate import PAPER_BITS
from quide.experiments import deployed, paper, profiles, records, runs
from quidebook import report
from quidebook.report import number, percent, with_origin
from quidebook.shared import arithmetic, table1
from quidebook.shared.table1 import Condition, claims, mean_ratios, ratio

MODEL, DATASET, CONDITION = "resnet18", "cifar10", "cifar10-resnet18"
PUBLISHED = (
    "resnet20"  # a residual network that is trained to the end, for whoever lacks the GPU that the paper's takes
)
RERUN = "quide run exp2 --profile paper --device cuda"
SHORT = "quide run exp2 --profile short"
BESIDE = f"quide run exp2 --profile paper --models {PUBLISHED}"
ROUNDED = ("8", "4", "2")  # timed configurations that round after each layer
# What moving the quantizers comes to in a network without max-pooling between its layers.
SHOWN = {runs.COMMUTED_8: "8 (merged with the ReLU)"}
SITES = {"output": "before its ReLU (the paper's)", "relu": "after its ReLU", "input": "at its input"}
SITED_BITS = (32, 8, 4)


# --- what is run -----------------------------------------------------------------------------------------------------


def run(
    models: Sequence[str], seeds: Sequence[int], profile: str, device: str = "cpu"
) -> list[tuple[runs.Case, records.Record, records.Record]]:
    """Training, accuracy and latency of each network and seed, computed where there is no record; each triple holds the
    case, its accuracy and its latency. None at the profiles of embedded weights, which these networks have too many of.

    The published network is not trained, so that it has no short schedule: it is run by the paper's protocol always,
    and timed once. If its weights cannot be had, that is said.

    Raises:
        ValueError: a model that is neither the paper's nor the published one.
    """
    if unknown := sorted(set(models) - {MODEL, PUBLISHED}):
        raise ValueError(f"models must be of {MODEL}, {PUBLISHED}, got {unknown[0]!r}")
    if profiles.profile(profile).embedded:
        return []
    done = []
    for case in [runs.Case(MODEL, DATASET, seed, profile) for seed in seeds if MODEL in models]:
        runs.training(case, device).result()
        done.append((case, runs.accuracy(case).result(), runs.timing(case, device, progress=False).result()))
    if PUBLISHED in models:
        done += _run_published(seeds, device)
    for model in dict.fromkeys(case.model for case, _, _ in done):
        try:
            deployed.run(next(case for case, _, _ in done if case.model == model)).result()
        except ModuleNotFoundError as error:
            report.say(f"Real 8-bit arithmetic was not timed: {error}.")
            break
    return done


def _run_published(seeds: Sequence[int], device: str) -> list[tuple[runs.Case, records.Record, records.Record]]:
    cases, done = [runs.Case(PUBLISHED, DATASET, seed, "paper") for seed in seeds], []
    try:
        for case in cases:
            timed = runs.timing(cases[0], device, progress=False).result()
            done.append((case, runs.accuracy(case).result(), timed))
            for site in SITES:
                sited(case, site).result()
    except FileNotFoundError as error:
        report.say(f"{runs.published_network(PUBLISHED).title} was not run: {error}.")
    return done


def sited(case: runs.Case, site: str) -> runs.Run:
    """Accuracy with activations rounded at one of :data:`SITES`; the paper's is the run of all widths."""
    if site == ptq.PAPER.activation_site:
        return runs.accuracy(case)
    return runs.accuracy(case, SITED_BITS, replace(ptq.PAPER, activation_site=site))


def best_known() -> Condition:
    """What records hold of the paper's network: the paper profile's, or else those of the short schedule."""
    return table1.best_known(MODEL, DATASET, ("paper", "short"), RERUN)


def known() -> list[Condition]:
    """The same, and behind it the published network, if there are records of it."""
    return [best_known(), *table1.present([table1.best_known(PUBLISHED, DATASET, ("paper",), BESIDE)])]


def say_run(condition: Condition, profile: str) -> None:
    """What this page ran, what it shows of the paper's network, and the commands for what it lacks."""
    lines = []
    if profiles.profile(profile).embedded:
        lines.append(f"At profile `{profile}` nothing is run: no weights of these networks travel with the checkout.")
    if condition.measured is None:
        lines.append(
            "**There is no record of ResNet-18 on CIFAR-10 here**; the paper's side is shown without it. To train it "
            f"for {profiles.profile('short').epochs} epochs, as a CPU can: `{SHORT} --seeds 0`."
        )
    elif condition.shortened:
        lines.append(
            f"**Our ResNet-18 is from a short schedule: {condition.shortened}.** A network that has not finished "
            "training is another network, so nothing that hangs on its accuracy gets a verdict."
        )
    if condition.profile == "paper":
        lines.append("Our ResNet-18 is from records of the paper's full protocol.")
    else:
        lines.append(f"To run the paper's full protocol, which takes a GPU: `{RERUN}`.")
    report.say(" ".join(lines))


def say_published(found: Sequence[Condition]) -> None:
    """Which published network stands beside the paper's, and what may be read from it."""
    facts = runs.published_network(PUBLISHED)
    for condition in found:
        if not condition.published:
            continue
        seeds = len(condition.measured.seeds)
        report.say(
            f"Beside it stands **a network that is trained to the end: {facts.title}**, as its author published it "
            f"({facts.source}). It is right on {percent(condition.summary.accuracy[32])} of the test images. With "
            f"{seeds} seeds it is calibrated on {seeds} draws of {runs.CALIBRATION_SIZE} training images; nothing else "
            "of it hangs on the seed. It is smaller than the paper's, so its accuracies get no verdict; what rounding "
            "does to the order of the widths, and to latency, does."
        )
        return
    report.say(f"The published {facts.title} ({facts.source}) has no record here. To run it: `{BESIDE}`.")


def made_by(found: Sequence[Condition]) -> list[str]:
    """The commands that make the records shown."""
    commands = [SHORT if condition.shortened else RERUN for condition in found if not condition.published]
    return commands + [BESIDE for condition in found if condition.published]


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


def drop_table(found: Sequence[Condition]) -> pd.DataFrame:
    """What each width loses against full precision: the paper's drop, ours with an interval, verdict and reason."""
    rows = []
    for condition in found:
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
    return condition.judged(*report.accuracy_verdict(stated, ours.estimate, ours.low, ours.high), level=True)


def _stated_drop(condition: Condition, bits: int) -> tuple[float, str]:
    """The paper's drop (fraction), and whether it is stated or follows from the accuracies."""
    name = f"{CONDITION}.accuracy_drop.{bits}"
    if name in paper.numbers().index:
        return paper.number(name), "stated"
    return condition.stated.accuracy[32] - condition.stated.accuracy[bits], "derived"


def _drop(condition: Condition, bits: int) -> stats.Interval:
    """Ours (fraction): mean over seeds with its t-interval; of one network, with that over its paired test images."""
    correct = condition.measured.correct
    full, narrow = (correct[:, PAPER_BITS.index(width)] for width in (32, bits))
    if condition.published:  # its seeds share the weights: the images are what it could have got right by chance
        return stats.mean_interval((full.astype(float) - narrow).mean(0))
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


def latency_table(found: Sequence[Condition]) -> pd.DataFrame:
    """:func:`quidebook.shared.table1.latency_table` in these networks' words."""
    return table1.latency_table(found).replace(SHOWN)


def show_overhead(found: Sequence[Condition]) -> None:
    """:func:`figure_overhead`, or where nothing was measured that there is none."""
    if measured := table1.present(found):
        report.show(*figure_overhead(measured))
    else:
        say_absent()


def figure_overhead(found: Sequence[Condition]) -> tuple:
    """Latency, relative to full precision, of everything that computes in float32 and rounds in between."""
    names = (runs.INTEGER_16, *ROUNDED, runs.COMMUTED_8)
    figure, axes = report.panels(width=7, height=2.8)
    ratios, words = {}, []
    for condition in found:
        timed = np.array([[ratio(record, name) for name in names] for record in condition.timed])  # run, name, which
        ratios[condition.network] = list(
            zip(timed[..., 0].mean(0), timed[..., 1].min(0), timed[..., 2].max(0), strict=True)
        )
        said = [
            f"{SHOWN.get(name, name)}: {one[0]:.2f}" for name, one in zip(names, ratios[condition.network], strict=True)
        ]
        words.append(f"{condition.network}, {', '.join(said)}")
    table1.draw_ratios(axes[0], ratios, [SHOWN.get(name, name) for name in names], "32 bits")
    axes[0].set_ylabel("bits")
    devices = "; ".join(dict.fromkeys(condition.measured.device for condition in found))
    caption = (
        f"Simulated quantization: latency relative to the same network without (dashed), median and 10th to 90th "
        f"percentile ({devices})."
    )
    return figure, "fig-exp2-overhead", caption, "Dot plot. " + "; ".join(words) + " times the latency of 32 bits."


def say_latency(found: Sequence[Condition]) -> None:
    """What our ratios show: rounding costs the same at any width, and less where less is done for it."""
    lines = []
    for condition in table1.present(found):
        mean = mean_ratios(condition)
        narrow = ", ".join(f"{mean[name]:.2f} at {name} bits" for name in ROUNDED)
        lines.append(
            f"**{condition.network}.** Relative to full precision, ours is {narrow}, and {mean[runs.INTEGER_16]:.2f} "
            f"at 16 bits on an integer grid. The same 8-bit numbers take {mean[runs.COMMUTED_8]:.2f} when rounding is "
            "merged with the ReLU after it and overwrites what it reads. The float16 cast computes otherwise, and "
            f"takes {mean['16']:.2f} on this device."
        )
    report.say("\n\n".join(lines)) if lines else say_absent()


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


def reversal_table(found: Sequence[Condition]) -> pd.DataFrame:
    """I and I' at 8 and 4 bits and which of the two each prefers, the paper's and ours."""
    sources = {"the paper": found[0].stated}
    sources |= {f"ours, {condition.name}": condition.summary for condition in table1.present(found)}
    rows = []
    for source, table in sources.items():
        row = {"source": source}
        for quantity, sign in (("index", "I"), ("gated_index", "I'")):
            row |= {f"{sign}({bits})": number(table[quantity][bits]) for bits in (8, 4)}
            row[f"{sign} prefers"] = _preferred(table, quantity)
        rows.append(row)
    return pd.DataFrame(rows)


def say_reversal(found: Sequence[Condition]) -> None:
    """At which thresholds the two scores part."""
    lines = [f"With the paper's accuracies, {_parting(found[0].stated.accuracy)}."]
    for condition in table1.present(found):
        lines.append(
            f"With ours ({condition.name}), {_parting(condition.summary.accuracy)}; "
            f"our threshold is {percent(condition.measured.threshold, 1)}."
        )
    report.say(" ".join(lines))


def site_table(found: Sequence[Condition]) -> pd.DataFrame:
    """The published network with activations rounded at different places: accuracy at 8 and 4 bits (mean and standard
    deviation over calibration draws), and which width I and I' prefer when both take the same time."""
    rows = []
    for condition in found:
        known = _sited_records([condition])
        for site, words in SITES.items():
            if not (sited := [record for (_, name), record in known.items() if name == site]):
                continue
            shares = {bits: [each.values["accuracy"][str(bits)] for each in sited] for bits in SITED_BITS}
            table = pd.DataFrame({"accuracy": {bits: np.mean(share) for bits, share in shares.items()}})
            for quantity, threshold in (("index", 0.0), ("gated_index", condition.measured.threshold)):
                compression = np.array([metric.compression_ratio(bits) for bits in table.index])
                table[quantity] = metric.gated_index(compression, table.accuracy, 1.0, threshold)
            row = {"network": condition.network, "activations rounded": words}
            row |= {f"{bits} bits (%)": _mean_and_deviation(shares[bits]) for bits in SITED_BITS[1:]}
            row |= {
                f"{sign} prefers": _preferred(table, name) for name, sign in (("index", "I"), ("gated_index", "I'"))
            }
            rows.append(row | {"draws": len(sited)})
    return pd.DataFrame(rows)


def say_sites(found: Sequence[Condition]) -> None:
    """Where the reversal is found and where it is not, of the places that activations can be rounded at."""
    rows = site_table(found)
    if rows.empty:
        return
    parted = (rows["I prefers"] == "4 bits") & (rows["I' prefers"] == "8 bits")
    where = {kind: ", ".join(part["activations rounded"]) or "nowhere" for kind, part in rows.groupby(parted)}
    report.say(
        f"So of the same {rows.network.iloc[0]}, at 4 bits, the two scores prefer different widths where activations "
        f"are rounded {where.get(True, 'nowhere')}; and the same width where they are rounded "
        f"{where.get(False, 'nowhere')}. The paper's reversal belongs to its quantizer as much as to the network."
    )


def _sited_records(found: Sequence[Condition]) -> dict[tuple[int, str], records.Record]:
    """What is known of a published network by seed and by one of :data:`SITES`."""
    sited_records = {}
    for condition in found:
        for seed in condition.measured.seeds if condition.published else ():
            case = runs.Case(condition.model, DATASET, seed, condition.profile)
            sited_records |= {(seed, site): known for site in SITES if (known := sited(case, site).known()) is not None}
    return sited_records


def _mean_and_deviation(shares: Sequence[float]) -> str:
    return f"{100 * np.mean(shares):.2f}" + (f" ± {100 * np.std(shares, ddof=1):.2f}" if len(shares) > 1 else "")


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


def summary_table(found: Sequence[Condition]) -> pd.DataFrame:
    """The paper's claims about EXP-2, one a row, with verdict and evidence drawn from the tables above."""
    rows = []
    for condition in found:
        if condition.measured is None:
            rows.append((f"{condition.name}: everything", report.UNDECIDED, condition.absence))
        else:
            rows += _claims(condition)
    return pd.DataFrame(rows + arithmetic.claims(found), columns=["claim", "verdict", "evidence"])


def _claims(condition: Condition) -> list[tuple[str, str, str]]:
    name, (stated, _) = condition.name, _stated_drop(condition, 4)
    verdict, _ = drop_verdict(condition, 4)
    lost = f"ours {report.with_interval(_drop(condition, 4), 100)} pp"
    return [
        *claims(condition),
        (f"{name}: 4 bits lose {100 * stated:.0f} pp", *condition.judged(verdict, lost, level=True)),
        (f"{name}: I prefers 4 bits to 8, I' 8 to 4", *reversal_verdict(condition)),
        (f"{name}: slower when quantized, and as slow at 8 as at 2 bits", *overhead_verdict(condition)),
    ]


def records_used(found: Sequence[Condition]) -> list[records.Record]:
    """The records the page was drawn from."""
    used = []
    for condition in table1.present(found):
        used += records.collect("training", condition.profile, condition.model, DATASET) + condition.measured.records
    used += [*_sited_records(found).values(), *arithmetic.measured(found).values()]
    return list({record.spec.key: record for record in used}.values())  # the paper's site is among the measured
