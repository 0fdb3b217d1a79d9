"""The page of EXP-2 on ImageNet-1K (§4.2): which runs it needs, and each of its tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from quide import metric, stats
from quide.data import imagenet
from quide.evaluate import PAPER_BITS, label
from quide.experiments import imagenet_runs, paper, records
from quide.experiments.imagenet_runs import (
    ACCURACY,
    CONDITION,
    DATASET,
    LOW_BITS,
    MIXED,
    PROFILE,
    QUANTIZERS,
    SCHEMES,
    SEARCHED,
)
from quide.models import pretrained
from quide.stats import Interval, unpack_bits
from quidebook import report
from quidebook.report import UNKNOWN, number, percent, with_origin

PAPERS = "resnet18"  # the network of the paper's rows
PUBLISHED_IMAGES = 50_000  # of the validation set; fewer are another set, on which levels do not compare
CLAIM = ["claim", "verdict", "evidence"]
RERUN = "quide run exp2_imagenet --profile paper"
STYLES = {"resnet18": ("s-", report.PURPLE), "resnet50": ("o-", report.BLUE)}
SCHEME_STYLES = {
    "paper": ("o", report.BLUE),
    "weights per channel": ("^", report.GREEN),
    "least-squares ranges": ("v", report.PURPLE),
    "both": ("P", report.GREY),
}


@dataclass(frozen=True)
class Found:
    """Records of the page by network, of several of a kind the one on most images: accuracy by width, other
    quantizers, the mixed-precision configurations that the genetic search tried, and all of them on fewer images."""

    accuracy: dict[str, records.Record]
    quantizers: dict[str, records.Record]
    searched: dict[str, records.Record]
    every: dict[str, records.Record]

    @property
    def used(self) -> list[records.Record]:
        """All of them."""
        return [record for kind in vars(self).values() for record in kind.values()]


# --- what is run -----------------------------------------------------------------------------------------------------


def run(
    models: Sequence[str],
    seeds: Sequence[int],
    images: int | None,
    few: int,
    fewer: int,
    fewest: int,
    profile: str,
) -> None:
    """Every run of the page where there is no record, at profile ``paper`` and with ``QUIDE_IMAGENET`` set.

    Nothing of ImageNet is embedded, so that the other profiles only read records. A network that cannot be had is said
    to be absent, and the next one is run.

    Args:
        models: networks of ImageNet, see :data:`quide.models.pretrained.NETWORKS`.
        seeds: of the calibration draw.
        images: how many validation images accuracy is measured on; None for all.
        few: likewise, for the quantizers that the paper does not describe.
        fewer: likewise, for the genetic search of mixed precision.
        fewest: likewise, for every one of its configurations.
        profile: ``"smoke"``, ``"quick"`` or ``"paper"``.
    """
    if profile != PROFILE or imagenet.folder() is None:
        return
    for model in models:
        for seed in seeds:
            try:
                imagenet_runs.accuracy(imagenet_runs.Case(model, seed, images)).result()
                imagenet_runs.quantizers(imagenet_runs.Case(model, seed, few)).result()
                imagenet_runs.mixed(imagenet_runs.Case(model, seed, fewer), "genetic").result()
                imagenet_runs.mixed(imagenet_runs.Case(model, seed, fewest), "exhaustive").result()
            except FileNotFoundError as error:
                report.say(f"{pretrained.network(model).title} was not run: {error}.")
                break


def found() -> Found:
    """What records hold. A record that other code made is taken with a :class:`StaleRecordWarning`."""
    wanted = ((ACCURACY, None), (QUANTIZERS, None), (MIXED, "genetic"), (MIXED, "exhaustive"))
    return Found(*({model: best for model, best in _best(kind, method)} for kind, method in wanted))


def _best(kind: str, method: str | None) -> Iterator[tuple[str, records.Record]]:
    today = imagenet_runs.code(kind)
    for model in pretrained.trained_on(DATASET):
        collected = records.collect(kind, PROFILE, model, DATASET)
        known = [record for record in collected if record.spec.details.get("method") == method]
        if known:
            best = max(known, key=_worth)
            records.warn_if_stale(best, today)
            yield model, best


def _worth(record: records.Record) -> tuple:
    return record.values["images"], -record.spec.seed


# --- what it was run on ----------------------------------------------------------------------------------------------


def say_images(known: Found) -> None:
    """Which images were used, and what may be read from them."""
    if not known.accuracy:
        return say_absent()
    for model, record in known.accuracy.items():
        details, values = record.spec.details, record.values
        count, seen = values["images"], int(unpack_bits(values["calibrated_on"]).sum())
        shared = f", {seen} of them among the images scored," if seen else ""
        text = (
            f"{_title(model)} ({details['weights']}): {count:,} images scored, {details['calibration']} calibrated on"
            f"{shared} drawn with seed {record.spec.seed}. In full precision it is right on "
            f"{percent(values['accuracy']['32'])} of them."
        )
        if count < PUBLISHED_IMAGES:
            text += (
                f" These are not the {PUBLISHED_IMAGES:,} images of the validation set, and so high an accuracy says "
                "that they are almost surely images the network was trained on. They are good for the change from full "
                "precision, not for a comparison of the levels with published ones."
            )
        report.say(text)


def say_absent() -> None:
    """In place of what is drawn from records, where there are none."""
    report.say(
        "There is no record of ImageNet here. To make them, have its images on disk, "
        f"{imagenet.REMEDY}, and run `{RERUN}`."
    )


# --- Table 1 ---------------------------------------------------------------------------------------------------------


def table1(known: Found) -> pd.DataFrame:
    """Table 1's ImageNet rows: the paper's accuracy, ours, the change, and the share of full precision that is kept."""
    stated, rows = _stated(), []
    for model in pretrained.trained_on(DATASET):
        record = known.accuracy.get(model)
        for bits in PAPER_BITS:
            paper_says = with_origin(number(100 * stated.accuracy[bits], 2), stated.accuracy_origin[bits])
            share = stated.accuracy[bits] / stated.accuracy[32]
            row = {"network": _title(model), "bits": bits, "paper P (%)": paper_says}
            row["paper, of 32 bits"] = percent(share)
            if record is None:
                row |= dict.fromkeys(("ours P (%)", "change (pp)", "ours, of 32 bits"), "no record")
                row |= {"verdict": report.UNDECIDED, "reason": f"not run; {RERUN}"}
            else:
                kept = _kept(record, label(bits))
                row["ours P (%)"] = report.with_interval(_interval(record, label(bits)), 100)
                row["change (pp)"] = UNKNOWN if bits == 32 else report.with_interval(_change(record, label(bits)), 100)
                row["ours, of 32 bits"] = UNKNOWN if bits == 32 else report.with_interval(kept, 100)
                verdict = _level_verdict(model, record, stated) if bits == 32 else _share_verdict(share, kept)
                row |= dict(zip(("verdict", "reason"), verdict, strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def figure_accuracy(known: Found) -> tuple:
    """Accuracy against bits: ours, the paper's, and other quantizers at 8 and 4 bits."""
    figure, axes = report.panels(2, width=7.4, height=3.4, sharey=True)
    stated, words = _stated(), []
    axes[0].plot(
        report.positions(PAPER_BITS, list(stated.index)), 100 * stated.accuracy, "D", color=report.ORANGE,
        markerfacecolor="none", markersize=8, label="ResNet-18, the paper",
    )  # fmt: skip
    for model, record in known.accuracy.items():
        style, colour = STYLES[model]
        bounds = [_interval(record, label(bits)) for bits in PAPER_BITS]
        _bars(axes[0], report.positions(PAPER_BITS, PAPER_BITS), bounds, style, colour, f"{_title(model)}, ours")
        shown = ", ".join(f"{percent(record.values['accuracy'][label(bits)], 1)} at {bits}" for bits in PAPER_BITS)
        words.append(f"{_title(model)}: {shown} bits")
    report.bit_axis(axes[0], PAPER_BITS)
    axes[0].set(ylabel="top-1 accuracy (%)", ylim=(-2, 102), title="by width")
    axes[0].legend(fontsize=8)
    for model, record in known.quantizers.items():
        for place, (scheme, (marker, colour)) in enumerate(SCHEME_STYLES.items()):
            bounds = [_interval(record, f"{scheme}, {bits}") for bits in LOW_BITS]
            offset = 0.12 * (place - (len(SCHEME_STYLES) - 1) / 2)
            where = [position + offset for position in report.positions(LOW_BITS, LOW_BITS)]
            _bars(axes[1], where, bounds, marker, colour, f"{scheme}")
            words.append(f"{_title(model)}, {scheme}, 4 bits: {percent(bounds[-1].estimate, 1)}")
        axes[1].legend(fontsize=8, loc="lower left")
    if not known.quantizers:
        axes[1].text(0.5, 50, "no record", ha="center")
    report.bit_axis(axes[1], LOW_BITS)
    axes[1].set(title="by quantizer", xlim=(-0.5, len(LOW_BITS) - 0.5))
    caption = (
        "ImageNet-1K: accuracy by width with the paper's quantizer (left), and by quantizer at 8 and 4 bits on fewer "
        "images (right). Filled: ours, with 95 % Wilson intervals. Hollow: the paper, another network on other images."
    )
    return figure, "fig-exp2-imagenet", caption, "Plots by bit-width. " + "; ".join(words) + "."


def quantizer_table(known: Found) -> pd.DataFrame:
    """Accuracy by quantizer at 8 and 4 bits, and the paired change from the paper's quantizer."""
    rows = []
    for model, record in known.quantizers.items():
        for scheme in SCHEMES:
            for bits in LOW_BITS:
                name = f"{scheme}, {bits}"
                gain = _change(record, name, f"paper, {bits}")
                rows.append(
                    {
                        "quantizer": "the paper's (quide.PAPER)" if scheme == "paper" else scheme,
                        "network": _title(model),
                        "bits": bits,
                        "P (%)": report.with_interval(_interval(record, name), 100),
                        "of 32 bits": report.with_interval(_kept(record, name), 100),
                        "change from the paper's (pp)": UNKNOWN
                        if scheme == "paper"
                        else report.with_interval(gain, 100),
                        "images": record.values["images"],
                    }
                )
    return pd.DataFrame(rows)


def say_held_out(known: Found) -> None:
    """The 8-bit change on the images that were not calibrated on."""
    for model, record in known.accuracy.items():
        fresh = ~unpack_bits(record.values["calibrated_on"])
        if fresh.all() or not fresh.any():
            continue
        change = stats.paired_difference_interval(_hits(record, "32")[fresh], _hits(record, "8")[fresh])
        report.say(
            f"{_title(model)}: on the {int(fresh.sum())} images that no range was read from, 8 bits change accuracy by "
            f"{report.with_interval(change, 100)} pp; on all of them by "
            f"{report.with_interval(_change(record, '8'), 100)} pp."
        )


# --- Table 2 ---------------------------------------------------------------------------------------------------------


def table2(known: Found) -> pd.DataFrame:
    """Table 2's ImageNet rows, always with uniform 8 bits among them; I' at equal latency, since none was measured."""
    stated = paper.table2()
    stated = stated[stated.condition == CONDITION]
    rows = [
        _table2_row(known, name, widths, _one(stated, **wanted))
        for name, widths, wanted in (
            ("full precision", 32, {"bits": 32}),
            ("uniform 8", 8, {"bits": 8}),
            ("uniform 4", 4, {"bits": 4}),
            ("the paper's search", SEARCHED, {"topology": label(SEARCHED)}),
        )
    ]
    rows += [
        dict.fromkeys(rows[0], UNKNOWN)
        | {"method": f"{name} (the paper's)", "paper I'": number(_score(stated, method)), "verdict": report.UNDECIDED}
        | {"reason": "stated without its widths or accuracy"}
        for name, method in (("HAQ", "haq"), ("BRECQ", "brecq"))
    ]
    return pd.DataFrame(rows)


def _table2_row(known: Found, name: str, widths: int | tuple[int, ...], stated: pd.Series | None) -> dict:
    record, uniform = _main(known), _stated()
    accuracy, origin = (stated.accuracy, stated.accuracy_origin) if stated is not None else (np.nan, "unknown")
    if isinstance(widths, int):  # Table 1 states it where Table 2 does not
        accuracy, origin = uniform.accuracy[widths], uniform.accuracy_origin[widths]
    row = {"method": name, "widths": label(widths), "paper P (%)": with_origin(number(100 * accuracy, 2), origin)}
    row["paper I'"] = UNKNOWN if stated is None else with_origin(number(stated.gated_index), stated.gated_index_origin)
    row["our network"] = UNKNOWN if record is None else _title(record.spec.model)
    if record is None:
        row |= dict.fromkeys(("ours P (%)", "C", "C by size", "ours I' / I'(8), equal T"), "no record")
        return row | {"verdict": report.UNDECIDED, "reason": f"not run; {RERUN}"}
    name = label(widths)
    row |= {
        "ours P (%)": report.with_interval(_interval(record, name), 100),
        "C": number(metric.compression_ratio(widths), 2),
        "C by size": number(_by_size(record, widths), 2),
        "ours I' / I'(8), equal T": number(_relative_score(record, name, widths), 2),
    }
    if widths == 32:
        return row | {"verdict": report.UNDECIDED, "reason": "what the others are compared with"}
    verdict, reason = _share_verdict(accuracy / uniform.accuracy[32], _kept(record, name))
    return row | {"verdict": verdict, "reason": reason}


def mixed_table(explored: dict[str, records.Record], most: int = 6) -> pd.DataFrame:
    """The configurations with the highest I' at equal latency, then the paper's and the uniform ones.

    Args:
        explored: ``searched`` or ``every`` of :class:`Found`.
        most: how many of the highest.
    """
    rows = []
    for model, record in explored.items():
        values = record.values
        accuracy = dict(zip(values["configurations"], values["accuracy"], strict=True))
        scores = _scores(record)
        order = sorted(accuracy, key=lambda name: -scores[name])
        uniform = label((8,) * len(SEARCHED))
        listed = [name for name in order if name in order[:most] or name == label(SEARCHED) or _is_uniform(name)]
        for name in listed:
            interval = stats.wilson_interval(round(accuracy[name] * values["images"]), values["images"])
            rows.append(
                {
                    "widths": name,
                    "network": _title(model),
                    "place": f"{_place(scores, name):,} of {len(order):,}",
                    "P (%)": report.with_interval(interval, 100, 1),
                    "C": number(metric.compression_ratio(_widths(name)), 2),
                    "C by size": number(metric.compression_ratio(_widths(name), values["num_weights"]), 2),
                    "I' / I'(8), equal T": number(scores[name] / scores[uniform], 2) if scores[uniform] else UNKNOWN,
                }
            )
    return pd.DataFrame(rows)


def _scores(record: records.Record) -> dict[str, float]:
    """I' at equal latency by configuration."""
    values = record.values
    threshold = _threshold(values["full_precision_accuracy"])
    names = zip(values["configurations"], values["accuracy"], strict=True)
    return {name: _equal_latency(_widths(name), accuracy, threshold) for name, accuracy in names}


def _place(scores: dict[str, float], name: str) -> int:
    """1 for the best; those with equal scores share the first of their places."""
    return 1 + sum(score > scores[name] for score in scores.values())


def _widths(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split("-")))


def _is_uniform(name: str) -> bool:
    return len(set(_widths(name))) == 1


def say_search(known: Found) -> None:
    """How the space was explored, and what all of it would cost."""
    if not known.searched:
        return report.say(f"No record of a search on ImageNet is here. To make it: `{RERUN}`")
    for model, record in known.searched.items():
        values = record.values
        space = len(record.spec.details["choices"]) ** len(values["groups"])
        report.say(
            f"{_title(model)}: {len(values['configurations'])} of {space:,} configurations were evaluated, on "
            f"{values['images']} images, the uniform ones among them. All of them by a {{term}}`prefix tree` would "
            f"cost as much as {values['tree_passes']:.0f} plain forward passes an image: its last stages hold much of "
            "the work and are the ones that it repeats most. So few images tell a collapse from a success, not one "
            "good configuration from another."
        )


def say_every(known: Found) -> None:
    """What the whole space says of the search, and of the paper's widths."""
    if not known.every:
        return report.say(f"No record of all configurations on ImageNet is here. To make it: `{RERUN}`")
    for model, record in known.every.items():
        scores, count = _scores(record), record.values["images"]
        text = (
            f"{_title(model)}: all {len(scores):,} configurations by a prefix tree, on {count} images. The paper's "
            f"{label(SEARCHED)} is in place {_place(scores, label(SEARCHED)):,} by $I'$ at equal latency, uniform 8 "
            f"bits in place {_place(scores, label((8,) * len(SEARCHED))):,}"
        )
        if model in known.searched:
            found = _scores(known.searched[model])
            best = max(found, key=found.get)
            text += f"; what the search liked best, {best}, in place {_place(scores, best):,}"
        narrow = [name for name in scores if 4 in _widths(name) and 2 not in _widths(name)]
        working = [name for name in narrow if scores[name] > 0]
        report.say(
            f"{text}. Of the {len(narrow):,} configurations with 4 bits somewhere, and 2 bits nowhere, "
            f"{len(working):,} stay above the threshold."
        )


# --- the end of the page ---------------------------------------------------------------------------------------------


def summary_table(known: Found) -> pd.DataFrame:
    """The paper's claims about ImageNet, one a row, with verdict and evidence."""
    record = _main(known)
    if record is None:
        return pd.DataFrame([("ImageNet-1K: everything", report.UNDECIDED, f"not run; {RERUN}")], columns=CLAIM)
    stated, uniform = _stated().accuracy, record.values["accuracy"]
    where = f"{_title(record.spec.model)}: "
    sixteen, eight = _change(record, "16"), _change(record, "8")
    rows = [
        ("16 bits lose nothing", *_within(sixteen, 0.0001)),
        (f"8 bits are nearly lossless ({100 * (stated[8] - stated[32]):+.2f} pp)", *_within(eight, report.CLOSE)),
    ]
    for bits in (4, 2):
        verdict, reason = report.accuracy_verdict(stated[bits], *_values(_interval(record, label(bits))))
        evidence = f"{percent(uniform[label(bits)])}, {reason}"
        rows.append((f"{bits} bits collapse ({percent(stated[bits])})", verdict, evidence))
    rows += _open_question(known, record.spec.model)
    name = label(SEARCHED)
    change = _change(record, name, "8")
    score = _relative_score(record, name, SEARCHED)
    rows.append((f"{name} is as accurate as uniform 8", *_within(change, report.CLOSE)))
    verdict = report.REPRODUCED if score > 1 else report.NOT_REPRODUCED
    evidence = f"at equal latency its I' is {score:.2f} times that of uniform 8"
    rows.append((f"(implied) {name} scores above uniform 8", verdict, evidence))
    frame = pd.DataFrame(rows, columns=CLAIM)
    return frame.assign(evidence=where + frame.evidence)


def _open_question(known: Found, model: str) -> list[tuple[str, str, str]]:
    """What the paper's numbers cannot tell: whether the width or the quantizer is to blame."""
    if model not in known.quantizers:
        return []
    record, bits = known.quantizers[model], min(LOW_BITS)
    best = max(SCHEMES, key=lambda scheme: record.values["accuracy"][f"{scheme}, {bits}"])
    shares = [report.with_interval(_kept(record, f"{scheme}, {bits}"), 100, 1) for scheme in ("paper", best)]
    evidence = f"of full precision, the paper's quantizer keeps {shares[0]} %, the best ({best}) {shares[1]} %"
    return [(f"(not asked) {bits} bits collapse with other quantizers too", report.UNDECIDED, evidence)]


def absent_table(known: Found) -> pd.DataFrame:
    """What has not been run, and the command that runs it."""
    rows = []
    if PAPERS not in known.accuracy or known.accuracy[PAPERS].values["images"] < PUBLISHED_IMAGES:
        rows.append(
            ("the paper's network on the validation set", "its weights, or the images, were not at hand", RERUN)
        )
    if not known.quantizers:
        rows.append(("quantizers that the paper does not describe", "no record yet", RERUN))
    if not known.every:
        rows.append(("every mixed-precision configuration", "no record yet", RERUN))
    rows.append(("latency", "not timed: I' is given at equal latency", UNKNOWN))
    return pd.DataFrame(rows, columns=["absent", "why", "command, with QUIDE_IMAGENET set"])


# --- helpers ---------------------------------------------------------------------------------------------------------


def _stated() -> pd.DataFrame:
    return paper.table1(CONDITION).set_index("bits")


def _title(model: str) -> str:
    return pretrained.network(model).title


def _main(known: Found) -> records.Record | None:
    """The accuracy record that the paper's rows are compared with: of its own network, else of another."""
    return known.accuracy.get(PAPERS) or next(iter(known.accuracy.values()), None)


def _hits(record: records.Record, name: str) -> np.ndarray:
    return unpack_bits(record.values["correct"][name])


def _interval(record: records.Record, name: str) -> Interval:
    hits = _hits(record, name)
    return stats.wilson_interval(int(hits.sum()), len(hits))


def _change(record: records.Record, name: str, reference: str = "32") -> Interval:
    return stats.paired_difference_interval(_hits(record, reference), _hits(record, name))


def _kept(record: records.Record, name: str) -> Interval:
    """Share of the full-precision accuracy that is left; its interval is that of the paired change, from 0 up."""
    full = record.values["accuracy"]["32"]
    return Interval(*(max(1 + value / full, 0.0) for value in _values(_change(record, name))))


def _values(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _share_verdict(stated: float, kept: Interval) -> tuple[str, str]:
    """None where the images are so few that the interval would excuse almost anything."""
    if kept.high - kept.low > 2 * report.NEAR:
        return report.UNDECIDED, f"too few images: the interval is {100 * (kept.high - kept.low):.1f} pp wide"
    verdict, reason = report.accuracy_verdict(stated, *_values(kept))
    return verdict, f"share of 32 bits: {reason}"


def _level_verdict(model: str, record: records.Record, stated: pd.DataFrame) -> tuple[str, str]:
    if model != PAPERS:
        return report.UNDECIDED, "another network than the paper's"
    if record.values["images"] < PUBLISHED_IMAGES:
        return report.UNDECIDED, "other images than the validation set's"
    return report.accuracy_verdict(stated.accuracy[32], *_values(_interval(record, "32")))


def _within(change: Interval, limit: float) -> tuple[str, str]:
    """Verdict and evidence: reproduced where the change is within ``limit`` and known to 1 pp, in part where its
    interval reaches it."""
    evidence = f"change {report.with_interval(change, 100)} pp"
    if abs(change.estimate) <= limit:
        if change.high - change.low <= 2 * report.CLOSE:
            return report.REPRODUCED, evidence
        return (
            report.IN_PART,
            f"{evidence}: within the limit, on too few images to know it to {100 * report.CLOSE:g} pp",
        )
    return report.IN_PART if change.low <= limit and change.high >= -limit else report.NOT_REPRODUCED, evidence


def _threshold(full_precision: float) -> float:
    facts = paper.conditions().loc[CONDITION]
    return metric.accuracy_threshold(full_precision, float(facts["tolerance"]), int(facts["num_classes"]))


def _equal_latency(widths: int | tuple[int, ...], accuracy: float, threshold: float) -> float:
    return metric.gated_index(metric.compression_ratio(widths), accuracy, imagenet_runs.UNTIMED, threshold)


def _relative_score(record: records.Record, name: str, widths: int | tuple[int, ...]) -> float:
    """I' over that of uniform 8 bits, at equal latency; NaN where that is zero."""
    accuracy = record.values["accuracy"]
    threshold = _threshold(accuracy["32"])
    reference = _equal_latency(8, accuracy["8"], threshold)
    return _equal_latency(widths, accuracy[name], threshold) / reference if reference else float("nan")


def _by_size(record: records.Record, widths: int | tuple[int, ...]) -> float:
    sizes = record.values["num_weights"]
    return metric.compression_ratio(widths if isinstance(widths, tuple) else (widths,) * len(sizes), sizes)


def _one(table: pd.DataFrame, **wanted) -> pd.Series | None:
    """The row with these values; None if there is none."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    return None if table.empty else table.iloc[0]


def _score(table: pd.DataFrame, method: str) -> float:
    row = _one(table, method=method)
    return float("nan") if row is None else row.gated_index


def _bars(axis, places: Sequence[float], bounds: Sequence[Interval], style: str, colour: str, name: str) -> None:
    middle = np.array([100 * bound.estimate for bound in bounds])
    error = np.abs([[100 * bound.low for bound in bounds], [100 * bound.high for bound in bounds]] - middle)
    axis.errorbar(places, middle, yerr=error, fmt=style, color=colour, capsize=3, label=name)
