"""The page of AIQ (arXiv 2512.14090): its authors' table beside ours, searches by its objective, and what else chooses.

Everything but the count of MobileNetV2 is read from records and from ``data/paper/aiq.csv``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from quide.experiments import aiq, campaign, throughput
from quide.experiments.aiq import AUTHORS, PRINTED, PUBLISHED, THEIRS, traffic
from quide.experiments.records import Record
from quide.search.aiq import AiqObjective
from quidebook import report
from quidebook.report import Absent, gathered, tabled
from quidebook.shared.aiq import (
    COMMAND,
    TITLES,
    AiqRecords,
    absent,
    asked,
    change,
    choices,
    frontier,
    gain,
    grouped,
    objective_name,
    selected_change,
    stated,
)  # fmt: skip
from quidebook.shared.throughput import deployed_verdict
from quidebook.verdicts import held

NAMES = {"32": "full precision", "8": "uniform 8 bits", "4": "uniform 4 bits", "greedy": "their greedy search"}
STATED = {"32": "fp32", "8": "int8", "4": "int4", "greedy": "greedy"}  # as data/paper/aiq.csv calls them
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
ROUGHLY = 5.0  # percentage points around "about 50 %"


def run(seed: int, profile: str) -> None:
    """Every run of the page where there is no record, at profile ``paper``; what cannot be had is said to be absent."""
    wanted = [*aiq.runs(seed), *throughput.wanted(seed)] if profile == "paper" else ()
    for line in campaign.attempt(wanted):
        report.say(line)


# --- their table -----------------------------------------------------------------------------------------------------


@tabled
def their_table(known: AiqRecords) -> Iterable[dict]:
    """Their four networks: accuracy in their files, of their weights, and of ours; intensity likewise."""
    if THEIRS not in known.networks:
        return
    record = known.networks[THEIRS]
    counted, values = traffic(record), record.values
    base = counted.intensity(counted.uniform(32))
    for name in PUBLISHED:
        key = STATED[name]
        ours = counted.intensity(tuple(values["widths"][name]))
        yield {
            "network": NAMES[name],
            "top-1 stated": report.percent(stated(f"{key}.accuracy")),
            "their weights, our code": report.percent(values["accuracy"][f"theirs {name}"]),
            "our rounding": report.percent(values["accuracy"][name]),
            "intensity stated": report.number(stated(f"{key}.intensity"), 3),
            "ours": report.number(ours, 3),
            "gain": f"{100 * (ours / base - 1):+.1f} %",
        }


def reproduced(known: AiqRecords) -> Mapping[str, object] | Absent:
    """Facts: right (how many of the 4 networks are right on as many images as stated), images, same (least share of
    weights equal bit for bit), change of the greedy network (pp, paired)."""
    if gone := absent(known):
        return gone
    values = known.networks[THEIRS].values
    right = sum(
        round(values["accuracy"][f"theirs {name}"] * values["images"])
        == round(stated(f"{STATED[name]}.accuracy") * values["images"])
        for name in PUBLISHED
    )
    greedy = tuple(values["widths"]["greedy"])
    return {
        "right": right,
        "of": len(PUBLISHED),
        "images": values["images"],
        "same": min(values["same_weights"].values()),
        "change": change(values, "greedy"),
        "gain": gain(traffic(known.networks[THEIRS]), greedy),
        "four": sum(width == 4 for width in greedy),
        "eight": sum(width == 8 for width in greedy),
    }


@tabled
def claim_table(known: AiqRecords) -> Iterable[dict]:
    """ "About 50 % more intensity within 1 percentage point", judged for each of the rounded networks."""
    if THEIRS not in known.networks:
        return
    record = known.networks[THEIRS]
    counted, values = traffic(record), record.values
    for name in PUBLISHED[1:]:
        widths = tuple(values["widths"][name])
        gained, lost = 100 * gain(counted, widths), change(values, name)
        enough = abs(gained - 100 * stated("claim.gain")) <= ROUGHLY
        limit = -stated("claim.within")
        close, beyond = lost.estimate >= limit, ", the interval reaches beyond" if lost.low < limit else ""
        kept = f"within 1 pp{beyond}" if close else "loses more than 1 pp"
        yield {
            "network": NAMES[name],
            "both halves hold": "yes" if enough and close else "no",
            "gain in intensity": f"{gained:+.1f} %",
            "change of top-1 (pp)": report.with_interval(lost),
            "reason": ("" if enough else f"more than {ROUGHLY:.0f} points from 50 %; ") + kept,
        }


# --- searches --------------------------------------------------------------------------------------------------------


@tabled
def search_table(known: AiqRecords) -> Iterable[dict]:
    """What each search found, on the images it did not select by; and random widths of as many bytes."""
    for record in known.searches:
        values, counted = record.values, traffic(record)
        model, method, split, objective = asked(record)
        if method == "exhaustive":
            continue
        shown = {"network": TITLES[model], "search": method, "objective": objective_name(objective)}
        yield {
            **shown,
            "selected on": f"{record.spec.details['selection_images']:,} {split} images",
            "evaluated": str(len(values["evaluated"])),
            "layers at 4, 8, 32": _counts(values["found"]),
            "gain": f"{100 * gain(counted, values['found']):+.1f} %",
            "change there (pp)": f"{selected_change(record):+.2f}",
            "change on the others (pp)": report.with_interval(change(values, "found")),
        }


@gathered
def random_facts(known: AiqRecords) -> Iterator[dict[str, object]]:
    """Where random widths of as many bytes were tested: what, of which network; how many, how many do better than the
    search, the best and the worst change against it (pp, paired)."""
    named = [(record, "greedy", f"{TITLES[THEIRS]}, at their widths") for record in known.networks.values()]
    named += [
        (record, "found", f"{TITLES[record.spec.model]}, selected on {record.spec.details['selection_split']} images")
        for record in known.searches
    ]
    for record, of, what in named:
        drawn = [name for name in record.values["accuracy"] if name.startswith("random")]
        if not drawn:
            continue
        changes = sorted((change(record.values, name, of) for name in drawn), key=lambda one: one.estimate)
        better = sum(change.estimate > 0 for change in changes)
        yield {"what": what, "count": len(drawn), "better": better, "worst": changes[0], "best": changes[-1]}


def search_facts(known: AiqRecords) -> Mapping[str, object] | Absent:
    """The authors' search on their network, by training images and by test images: gain and change of each."""
    by = {split: known.of(THEIRS, "greedy", split) for split in ("train", "test")}
    if None in by.values():
        return Absent("AIQ's search on its authors' network", COMMAND)
    facts: dict[str, object] = {}
    for split, record in by.items():
        facts |= {
            f"{split}_gain": gain(traffic(record), record.values["found"]),
            f"{split}_change": change(record.values, "found"),
            f"{split}_selected": selected_change(record),
        }
    return facts


# --- the audit -------------------------------------------------------------------------------------------------------


@tabled
def objective_table() -> Iterable[dict]:
    """Which of the stated rows each form of the objective prefers, from the stated numbers alone."""
    forms = {"as printed": PRINTED, "as in their program": AUTHORS}
    forms["as in their program, lambda 0.5"] = AiqObjective(
        0.5, AUTHORS.intensity_unit, AUTHORS.drop_unit, AUTHORS.floor
    )
    for title, objective in forms.items():
        score = {
            name: objective(stated(f"{key}.intensity"), stated(f"{key}.accuracy"), stated("fp32.accuracy"))
            for name, key in STATED.items()
        }
        best = max(score, key=score.get)
        yield {"objective": title, "prefers": NAMES[best]} | {NAMES[n]: report.number(v, 4) for n, v in score.items()}


def batch_facts(known: AiqRecords) -> Mapping[str, object] | Absent:
    """Gain of uniform 4 bits by batch, and of 8 and 4 bits for weights and activations alike."""
    if gone := absent(known):
        return gone
    counted = traffic(known.networks[THEIRS])
    gains = {f"at_{batch}": gain(counted, counted.uniform(4), batch) for batch in BATCHES}
    full = counted.bytes(counted.uniform(32))
    for bits in (8, 4):  # how many times the intensity is that of full precision where activations have the width too
        saved = counted.activation_bytes * (1 - bits / 32)
        gains[f"both_{bits}"] = full / (counted.bytes(counted.uniform(bits)) - saved)
    return gains


def figure_batch(known: AiqRecords) -> tuple[Figure, str]:
    """A figure and what is seen: the gain in intensity of 8 and 4 bits against the batch."""
    figure, (axis,) = report.panels(width=6.0, height=3.2)
    counted, words = traffic(known.networks[THEIRS]), []
    for bits, style, colour in ((8, "o-", report.BLUE), (4, "s--", report.ORANGE)):
        gains = [100 * gain(counted, counted.uniform(bits), batch) for batch in BATCHES]
        axis.plot(BATCHES, gains, style, color=colour, label=f"weights at {bits} bits")
        words.append(f"{bits} bits: " + ", ".join(f"{g:.1f} at {b}" for g, b in zip(gains, BATCHES, strict=True)))
    axis.set_xscale("log", base=2)
    axis.set(
        xlabel="images in a batch", ylabel="gain in intensity (%)", title="The larger the batch, the less is gained"
    )
    axis.set_xticks(BATCHES, map(str, BATCHES))
    axis.legend()
    return figure, "Gain in %, by batch. " + "; ".join(words) + "."


def mobilenet() -> Mapping[str, object]:
    """MobileNetV2 on images of 32x32 pixels, counted here: intensity and millions of operations with the groups of its
    convolutions and without, and how many times the second is the first."""
    import torch
    from torchvision.models import mobilenet_v2

    from quide import arithmetic_intensity

    model, image = mobilenet_v2(num_classes=10), torch.zeros(1, 3, 32, 32)
    true, without = (arithmetic_intensity(model, image, as_published=way) for way in (False, True))
    return {
        "stated": stated("mobilenet.intensity"),
        "true": true.intensity,
        "ignored": without.intensity,
        "times": without.intensity / true.intensity,
        "mega": true.flops / 1e6,
        "mega_ignored": without.flops / 1e6,
        "speedup": stated("mobilenet.speedup"),
        "random": stated("mobilenet.random.throughput") / stated("mobilenet.fp32.throughput"),
        "over_random": stated("mobilenet.aiq.throughput") / stated("mobilenet.random.throughput") - 1,
        "lost": 100 * (stated("mobilenet.random.accuracy") - stated("mobilenet.aiq.accuracy")),
    }


def stated_throughput() -> Mapping[str, float]:
    """Their own timing of the four ResNet-20, images per second over that of full precision, batch 128 (stated)."""
    full = stated("fp32.throughput")
    return {key: stated(f"{key}.throughput") / full for key in ("int8", "int4", "greedy")}


# --- layers ----------------------------------------------------------------------------------------------------------


def figure_layers(known: AiqRecords) -> tuple[Figure, str]:
    """A figure and what is seen: change of accuracy against gain in intensity, each layer alone at 4 bits."""
    figure, axes = report.panels(len(known.layers), width=7.6, height=3.4, sharey=True)
    words = []
    for axis, (model, record) in zip(axes, known.layers.items(), strict=True):
        counted, values = traffic(record), record.values
        gains = [100 * each for each in _alone(record)]
        changes = [change(values, name) for name in counted.layers]
        middle = np.array([one.estimate for one in changes])
        report.error_bars(axis, gains, changes, fmt="o", color=report.BLUE, capsize=2, markersize=4)
        axis.axhline(0, color=report.GREY, linewidth=0.8)
        apart = sum(not one.low <= 0 <= one.high for one in changes)
        title = f"{TITLES[model]}:\n{apart} of {len(changes)} layers are told from noise"
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("gain in intensity (%)")
        words.append(f"{TITLES[model]}: changes from {middle.min():.2f} to {middle.max():.2f}")
    axes[0].set_ylabel("change of top-1 (pp)")
    return figure, "One dot a layer at 4 bits, with its 95 % interval. " + "; ".join(words) + "."


@gathered
def layer_facts(known: AiqRecords) -> Iterator[dict[str, object]]:
    """By network: layers, apart (how many intervals leave out zero), largest (change, pp), and the rank correlation of
    the gain with the change, with its p value."""
    for model, record in known.layers.items():
        changes = [change(record.values, name) for name in traffic(record).layers]
        test = spearmanr(_alone(record), [one.estimate for one in changes])
        yield {
            "title": TITLES[model],
            "layers": len(changes),
            "apart": sum(one.high < 0 or one.low > 0 for one in changes),
            "largest": max(abs(one.estimate) for one in changes),
            "rho": float(test.statistic),
            "p": float(test.pvalue),
            "images": record.values["images"],
        }


def _alone(record: Record) -> list[float]:
    """Gain of each layer alone."""
    counted, bits = traffic(record), record.spec.details["bits"]
    full = counted.uniform(32)
    return [gain(counted, (*full[:place], bits, *full[place + 1 :])) for place in range(len(full))]


# --- what each objective chooses -------------------------------------------------------------------------------------


@tabled
def choice_table(known: AiqRecords) -> Iterable[dict]:
    """What each objective chooses among all configurations of the groups, and what that costs on the test images."""
    if (every := grouped(known)) is None:
        return
    edge, layers = set(frontier(every)), [name.partition(".")[0] for name in every.counted.layers]
    starts = [layers.index(group) for group in aiq.GROUPS]
    for name, place in choices(every).items():
        yield {
            "chosen by": name,
            "widths of the groups": "-".join(str(every.widths[place][start]) for start in starts),
            "weights (kB)": f"{every.kilobytes[place]:.1f}",
            "gain in intensity": f"{100 * gain(every.counted, every.widths[place]):+.1f} %",
            "change of top-1 (pp)": f"{100 * (every.tested[place] - every.tested[every.full]):+.2f}",
            "on the frontier": "yes" if place in edge else "no",
        }


def figure_choices(known: AiqRecords) -> tuple[Figure, str]:
    """A figure and what is seen: all configurations, their frontier, and what each objective chooses."""
    every = grouped(known)
    figure, (axis,) = report.panels(width=7.2, height=4.0)
    axis.plot(every.kilobytes, 100 * every.tested, ".", color="#BBBBBB", markersize=4, label="every configuration")
    edge = frontier(every)
    axis.plot(every.kilobytes[edge], 100 * every.tested[edge], "-", color=report.GREY, label="frontier")
    words = []
    styles = ("o", "s", "^", "D", "v", "P")
    for marker, (name, place) in zip(styles, choices(every).items(), strict=True):
        x, y = every.kilobytes[place], 100 * every.tested[place]
        axis.plot([x], [y], marker, markersize=8, markerfacecolor="none", markeredgewidth=1.6, label=name)
        words.append(f"{name}: {x:.0f} kB, {y:.2f} %")
    axis.set_xscale("log")
    axis.set(xlabel="bytes of weights (kB)", ylabel="top-1 on the test images (%)")
    reached = sum(place in edge for place in choices(every).values())
    axis.set_title(f"{reached} of {len(choices(every))} choices lie on the frontier")
    axis.set_ylim(bottom=100 * every.tested[every.full] - 8)
    axis.legend(fontsize=7, loc="lower right")
    return figure, "; ".join(words) + "."


# --- the end of the page ---------------------------------------------------------------------------------------------


@tabled
def verdict_table(known: AiqRecords) -> Iterable[dict]:
    """What AIQ states, beside what was found here."""
    if THEIRS not in known.networks:
        return
    facts, record = reproduced(known), known.networks[THEIRS]
    holds = claim_table(known).set_index("network")["both halves hold"]
    printed = objective_table().set_index("objective").prefers
    widths = np.array(record.values["widths"]["greedy"])
    sizes = np.array(traffic(record).num_weights)
    small, large = (
        float((widths[chosen] == 4).mean()) for chosen in (sizes < np.median(sizes), sizes > np.median(sizes))
    )
    intensity = {name: traffic(record).intensity(tuple(record.values["widths"][name])) for name in PUBLISHED}
    beaten = [name for name in ("8", "4") if intensity["greedy"] > intensity[name]]
    for claim, right, reason in (
        (
            "top-1 of the four networks",
            facts["right"] == facts["of"],
            f"{facts['right']} of {facts['of']} to the image",
        ),
        (
            "about 50 % more intensity within 1 pp",
            holds[NAMES["greedy"]] == "yes",
            report.with_interval(facts["change"]) + " pp",
        ),
        (
            "the highest intensity, beside uniform 8 and 4 bits",
            len(beaten) == 2,
            "above " + (" and ".join(NAMES[name] for name in beaten) or "none") + " only",
        ),
        (
            "larger layers get fewer bits",
            large > small,
            f"4 bits for {large:.0%} of the larger layers, {small:.0%} of the smaller",
        ),
        (
            "the objective leads to the searched network",
            printed["as printed"] == NAMES["greedy"],
            f"as printed it prefers {printed['as printed']}",
        ),
    ):
        yield {"claim": claim, "verdict": held(right), "found here": reason}
    speedup = stated("mobilenet.speedup")
    verdict, reason = deployed_verdict(known.deployed, speedup, COMMAND)
    yield {"claim": f"{speedup} times the throughput on MobileNetV2", "verdict": verdict, "found here": reason}


@tabled
def absent_table(known: AiqRecords, seed: int) -> Iterator[dict]:
    """What has no record, and the command that makes it."""
    there = {record.key for record in known.used}
    for spec in (run.spec for run in aiq.runs(seed) if run.spec.key not in there):
        details = spec.details
        searched = ""
        if "method" in details:
            objective = objective_name(AiqObjective(**details["objective"]))
            searched = f" ({objective} objective), {details['method']} on {details['selection_split']} images"
        what = f"{TITLES[spec.model]} ResNet-20: {spec.kind.removeprefix('aiq_')}{searched}"
        yield {"absent": what, "command": COMMAND}
    if known.deployed is None:
        yield {"absent": "MobileNetV2 timed in 8-bit kernels, their second claim", "command": COMMAND}


def _counts(widths: Iterable[int]) -> str:
    widths = list(widths)
    return ", ".join(str(widths.count(bits)) for bits in (4, 8, 32))
