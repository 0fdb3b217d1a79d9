"""The page of EXP-2 (ResNet-18 on CIFAR-10, §4.1 to §5): its runs, what it asks beyond Table 1, the facts it tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from quide.experiments import deployed, profiles, records, runs
from quide.models import registry
from quidebook import report
from quidebook.evidence.conditions import Condition, present, trainings
from quidebook.report import Absent, Facts, number, tabled, with_origin
from quidebook.shared import residual, table1
from quidebook.shared.residual import BESIDE, DATASET, MODEL, PUBLISHED, RERUN, ROUNDED, SITED_BITS, SITES, preferred
from quidebook.shared.table1 import judged

SHORT = "quide run exp2 --profile short"
NO_RECORD = Absent("ResNet-18 on CIFAR-10", RERUN)
# What moving the quantizers comes to in a network without max-pooling between its layers.
SHOWN = {runs.COMMUTED_8: "8 (merged with the ReLU)"}


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
                residual.sited(case, site).result()
    except FileNotFoundError as error:
        report.say(f"{registry.row(PUBLISHED, DATASET).title} was not run: {error}.")
    return done


def made_by(found: Sequence[Condition]) -> list[str]:
    """The commands that make the records shown."""
    commands = [SHORT if condition.shortened else RERUN for condition in found if not condition.published]
    return commands + [BESIDE for condition in found if condition.published]


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
    """How each training went: condition, seed, epochs, minutes, best_epoch, accuracy (fraction) first, best, last."""
    return [
        {
            "condition": condition.name,
            "seed": record.spec.seed,
            "epochs": len(record.values["history"]),
            "minutes": record.values["training"]["seconds"] / 60,
            "first": record.values["history"][0]["test_accuracy"],
            "best": record.values["best_accuracy"],
            "best_epoch": record.values["best_epoch"],
            "last": record.values["last_accuracy"],
        }
        for record in (trainings(condition) if condition.measured else [])
    ]


@tabled
def drop_table(found: Sequence[Condition]) -> Iterator[dict]:
    """What each width loses against full precision: the paper's drop, ours with an interval, verdict and reason."""
    for condition in found:
        for bits in (16, 8, 4, 2):
            stated, origin = residual.stated_drop(condition, bits)
            ours = "no record"
            if condition.measured is not None:
                ours = report.with_interval(residual.drop(condition, bits), 100)
            row = {"condition": condition.name, "bits": bits}
            row |= {"paper: drop (pp)": with_origin(number(100 * stated, 2), origin), "ours: drop (pp)": ours}
            yield row | judged(residual.drop_verdict(condition, bits))


# --- latency ---------------------------------------------------------------------------------------------------------


def latency_table(found: Sequence[Condition]) -> pd.DataFrame:
    """:func:`quidebook.shared.table1.latency_table` in these networks' words."""
    return table1.latency_table(found).replace(SHOWN)


def figure_overhead(found: Sequence[Condition]) -> tuple[Figure, str]:
    """A figure and what is seen: latency, over full precision's, of all that computes in float32 and rounds."""
    names, measured = (runs.INTEGER_16, *ROUNDED, runs.COMMUTED_8), present(found)
    figure, (axis,) = report.panels(width=7, height=2.8)
    ratios = {c.network: [table1.ratios(c, name) for name in names] for c in measured}
    axis.set_ylabel("bits")
    return figure, table1.draw_ratios(axis, ratios, [SHOWN.get(name, name) for name in names], "32 bits")


def slowdown(condition: Condition) -> Facts:
    """Latency over that of 32 bits: rounded to eight, four, two bits, to a 16-bit grid, to eight bits merged with the
    ReLU, and as float16 (cast)."""
    mean = table1.mean_ratios(condition)
    names = {"eight": "8", "four": "4", "two": "2", "grid": runs.INTEGER_16, "merged": runs.COMMUTED_8, "cast": "16"}
    return {"network": condition.network} | {key: mean[name] for key, name in names.items()}


# --- I against I' ----------------------------------------------------------------------------------------------------


@tabled
def reversal_table(found: Sequence[Condition]) -> Iterator[dict]:
    """I and I' at 8 and 4 bits and which of the two each prefers, the paper's and ours."""
    sources = {"the paper": found[0].stated} | {f"ours, {c.name}": c.summary for c in present(found)}
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
    facts = [{"source": "the paper", "threshold": np.nan} | parting(found[0].stated.accuracy)]
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
            row = {"network": condition.network, "activations rounded": words}
            row |= {f"{bits} bits (%)": _mean_and_deviation(shares[bits]) for bits in SITED_BITS[1:]}
            row |= {f"{sign} prefers": preferred(scores[quantity]) for quantity, sign in table1.SCORES}
            yield row | {"draws": len(sited)}


def parted(found: Sequence[Condition]) -> Facts:
    """At which of the places the two scores prefer different widths, as in the paper, and at which the same."""
    rows = site_table(found)
    if rows.empty:
        return Absent("activations rounded at other places", BESIDE)
    apart = (rows["I prefers"] == "4 bits") & (rows["I' prefers"] == "8 bits")
    where = [", ".join(rows[part]["activations rounded"]) or "nowhere" for part in (apart, ~apart)]
    return {"network": rows.network.iloc[0], "different": where[0], "same": where[1]}


def _mean_and_deviation(shares: Sequence[float]) -> str:
    return f"{100 * np.mean(shares):.2f}" + (f" ± {100 * np.std(shares, ddof=1):.2f}" if len(shares) > 1 else "")
