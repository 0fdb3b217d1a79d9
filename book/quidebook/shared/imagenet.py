"""ImageNet-1K for the pages that draw on it: what records hold, the rows of Tables 1 and 2, and the claims, judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from quide import metric
from quide.experiments import paper, records, select
from quide.experiments.imagenet_runs import ACCURACY, CONDITION, DATASET, QUANTIZERS, SEARCHED, UNTIMED
from quide.models import registry
from quide.ptq.width import PAPER_BITS, label
from quide.stats import Hits, Interval
from quidebook import report, verdicts
from quidebook.report import NO_RECORD, UNKNOWN, number, percent, tabled, with_origin
from quidebook.verdicts import CLOSE, IN_PART, NEAR, NOT_REPRODUCED, REPRODUCED, UNDECIDED

PAPERS = "resnet18"  # the network of the paper's rows
MODELS = [row.model for row in registry.ROWS if row.dataset == DATASET]
PUBLISHED_IMAGES = 50_000  # of the validation set; fewer are another set, on which levels do not compare
CLAIM = ["claim", "verdict", "evidence"]
RERUN = "quide run exp2_imagenet --profile paper"
NOT_RUN = verdicts.not_run(RERUN)
Widths = int | tuple[int, ...]


@dataclass(frozen=True)
class ImageNetRecords:
    """Records by network, of several of a kind the one on most images: accuracy by width, and other quantizers.

    Those of searches for mixed precision are on too few images to rank anything, and are not shown.
    """

    accuracy: dict[str, records.Record]
    quantizers: dict[str, records.Record]

    @property
    def used(self) -> list[records.Record]:
        """All of them."""
        return [record for kind in vars(self).values() for record in kind.values()]

    @property
    def main(self) -> records.Record | None:
        """The accuracy record that the paper's rows are compared with: of its own network, else of another."""
        return self.accuracy.get(PAPERS) or next(iter(self.accuracy.values()), None)


def found() -> ImageNetRecords:
    """What records hold. A record that other code made is taken with a :class:`StaleRecordWarning`."""
    return ImageNetRecords(_best(ACCURACY), _best(QUANTIZERS))


def _best(kind: str) -> dict[str, records.Record]:
    def worth(record: records.Record) -> tuple[int, int]:
        return record.values["images"], -record.spec.seed

    best = {model: select.best(kind, worth, model=model, dataset=DATASET) for model in MODELS}
    return {model: record for model, record in best.items() if record is not None}


# --- numbers ---------------------------------------------------------------------------------------------------------


def title(model: str) -> str:
    """A network as printed."""
    return registry.row(model, DATASET).title


def stated() -> pd.DataFrame:
    """The paper's rows of Table 1, indexed by width."""
    return paper.table1(CONDITION).set_index("bits")


def hits(record: records.Record, name: str) -> Hits:
    """Which images a configuration is right on."""
    return Hits.unpacked(record.values["correct"][name])


def change(record: records.Record, name: str, reference: str = "32") -> Interval:
    """Accuracy less that of another configuration, on the same images (fraction)."""
    return hits(record, name).change(hits(record, reference))


def kept(record: records.Record, name: str) -> Interval:
    """Share of the full-precision accuracy that is left."""
    return hits(record, name).kept(hits(record, "32"))


def relative_score(record: records.Record, name: str, widths: Widths) -> float:
    """I' over that of uniform 8 bits, at equal latency; NaN where that is zero."""
    accuracy = record.values["accuracy"]
    limit = paper.threshold(CONDITION, accuracy["32"])
    ours, reference = (
        metric.gated_index(metric.compression_ratio(bits), accuracy[key], UNTIMED, limit)
        for bits, key in ((widths, name), (8, "8"))
    )
    return ours / reference if reference else float("nan")


# --- verdicts --------------------------------------------------------------------------------------------------------


def judge(record: records.Record, verdict: str, reason: str) -> tuple[str, str]:
    """The verdict, as far as the network bears it: one that is not the paper's supports at most."""
    return (verdict, reason) if record.spec.model == PAPERS else verdicts.on_another_network(verdict, reason)


def guesses(accuracy: float) -> bool:
    """Whether an accuracy is no better than guessing, to within what accuracies may differ by."""
    return accuracy <= 1 / int(paper.conditions().at[CONDITION, "num_classes"]) + CLOSE


def level_verdict(record: records.Record) -> tuple[str, str]:
    """On the accuracy in full precision; none of another network, nor of other images than the validation set's."""
    if record.spec.model != PAPERS:
        return UNDECIDED, "another network than the paper's"
    if record.values["images"] < PUBLISHED_IMAGES:
        return UNDECIDED, "other images than the validation set's"
    ours = hits(record, "32").interval()
    return verdicts.accuracy_verdict(stated().accuracy[32], ours.estimate, ours.low, ours.high)


def share_verdict(record: records.Record, name: str, accuracy: float) -> tuple[str, str]:
    """On the share of full precision that a configuration keeps, given the paper's accuracy (fraction) of it.

    None where both do no better than guessing, or the images are so few that the interval would excuse almost anything.
    """
    if guesses(accuracy) and guesses(record.values["accuracy"][name]):
        return UNDECIDED, "both do no better than guessing"
    ours = kept(record, name)
    if (wide := ours.high - ours.low) > 2 * NEAR:
        return UNDECIDED, f"too few images: the interval is {100 * wide:.1f} pp wide"
    share = accuracy / stated().accuracy[32]
    verdict, reason = verdicts.accuracy_verdict(share, ours.estimate, ours.low, ours.high)
    return judge(record, verdict, f"share of 32 bits: {reason}")


def within_verdict(record: records.Record, moved: Interval, limit: float) -> tuple[str, str]:
    """Reproduced where a change is within ``limit`` and known to 1 pp, in part where it is within 1 pp."""
    reason = f"change {report.with_interval(moved, 100)} pp"
    if abs(moved.estimate) > limit:
        return judge(record, IN_PART if abs(moved.estimate) <= CLOSE else NOT_REPRODUCED, reason)
    if moved.high - moved.low <= 2 * CLOSE:
        return judge(record, REPRODUCED, reason)
    return judge(record, IN_PART, f"{reason}: within the limit, on too few images to know it to {100 * CLOSE:g} pp")


def collapse_verdict(record: records.Record, name: str) -> tuple[str, str]:
    """Whether a configuration does no better than guessing."""
    accuracy = record.values["accuracy"][name]
    return judge(record, verdicts.held(guesses(accuracy)), f"ours {percent(accuracy)}")


# --- tables ----------------------------------------------------------------------------------------------------------


@tabled
def table1(known: ImageNetRecords) -> Iterator[dict]:
    """Table 1's ImageNet rows: the paper's accuracy, ours, the change, and the share of full precision that is kept."""
    theirs = stated()
    for model in MODELS:
        record = known.accuracy.get(model)
        for bits in PAPER_BITS:
            accuracy = theirs.accuracy[bits]
            row = {"network": title(model), "bits": bits}
            row["paper P (%)"] = with_origin(number(100 * accuracy, 2), theirs.accuracy_origin[bits])
            row["paper, of 32 bits"] = percent(accuracy / theirs.accuracy[32])
            if record is None:
                row |= dict.fromkeys(("ours P (%)", "change (pp)", "ours, of 32 bits"), NO_RECORD)
                verdict = NOT_RUN
            else:
                name = label(bits)
                cells = change(record, name), kept(record, name)
                row["ours P (%)"] = report.with_interval(hits(record, name).interval(), 100)
                row |= {
                    column: UNKNOWN if bits == 32 else report.with_interval(interval, 100)
                    for column, interval in zip(("change (pp)", "ours, of 32 bits"), cells, strict=True)
                }
                verdict = level_verdict(record) if bits == 32 else share_verdict(record, name, accuracy)
            yield row | verdicts.cells(verdict)


def table2(known: ImageNetRecords) -> pd.DataFrame:
    """Table 2's ImageNet rows, always with uniform 8 bits among them; I' at equal latency, since none was measured."""
    theirs = paper.table2()
    theirs = theirs[theirs.condition == CONDITION]
    rows = [
        _table2_row(known.main, name, widths, theirs[theirs[column] == value])
        for name, widths, column, value in (
            ("full precision", 32, "bits", 32),
            ("uniform 8", 8, "bits", 8),
            ("uniform 4", 4, "bits", 4),
            ("the paper's search", SEARCHED, "topology", label(SEARCHED)),
        )
    ]
    for name, method in (("HAQ", "haq"), ("BRECQ", "brecq")):
        score = theirs[theirs.method == method].gated_index
        row = dict.fromkeys(rows[0], UNKNOWN) | {"method": f"{name} (the paper's)", "verdict": UNDECIDED}
        row["paper I'"] = UNKNOWN if score.empty else number(score.iloc[0])
        rows.append(row | {"reason": "stated without its widths or accuracy"})
    return pd.DataFrame(rows)


def _table2_row(record: records.Record | None, method: str, widths: Widths, theirs: pd.DataFrame) -> dict:
    row, name = {"method": method, "widths": label(widths)}, label(widths)
    # Table 1 states the accuracy of a uniform width where Table 2 does not.
    source = stated().loc[widths] if isinstance(widths, int) else None if theirs.empty else theirs.iloc[0]
    accuracy = np.nan if source is None else source.accuracy
    row["paper P (%)"] = UNKNOWN if source is None else with_origin(number(100 * accuracy, 2), source.accuracy_origin)
    row["paper I'"] = UNKNOWN
    if not theirs.empty:
        row["paper I'"] = with_origin(number(theirs.gated_index.iloc[0]), theirs.gated_index_origin.iloc[0])
    row["our network"] = UNKNOWN if record is None else title(record.spec.model)
    if record is None:
        row |= dict.fromkeys(("ours P (%)", "C", "C by size", "ours I' / I'(8), equal T"), NO_RECORD)
        return row | verdicts.cells(NOT_RUN)
    sizes = record.values["num_weights"]
    by_size = metric.compression_ratio(widths if isinstance(widths, tuple) else (widths,) * len(sizes), sizes)
    row |= {
        "ours P (%)": report.with_interval(hits(record, name).interval(), 100),
        "C": number(metric.compression_ratio(widths), 2),
        "C by size": number(by_size, 2),
        "ours I' / I'(8), equal T": number(relative_score(record, name, widths), 2),
    }
    verdict = UNDECIDED, "what the others are compared with"
    if widths != 32:
        verdict = share_verdict(record, name, accuracy)
    return row | verdicts.cells(verdict)


def summary_table(known: ImageNetRecords) -> pd.DataFrame:
    """The paper's claims about ImageNet, one a row, with verdict and evidence."""
    record = known.main
    if record is None:
        return pd.DataFrame([("ImageNet-1K: everything", *NOT_RUN)], columns=CLAIM)
    theirs, searched = stated().accuracy, label(SEARCHED)
    drop = 100 * (theirs[8] - theirs[32])
    rows = [
        ("16 bits lose nothing", *within_verdict(record, change(record, "16"), 0.0001)),
        (f"8 bits are nearly lossless ({drop:+.2f} pp)", *share_verdict(record, "8", theirs[8])),
        *(
            (f"{bits} bits collapse ({percent(theirs[bits])})", *collapse_verdict(record, label(bits)))
            for bits in (4, 2)
        ),
        (f"{searched} is as accurate as uniform 8", *within_verdict(record, change(record, searched, "8"), CLOSE)),
    ]
    score = relative_score(record, searched, SEARCHED)
    words = f"at equal latency its I' is {score:.2f} times that of uniform 8"
    verdict = judge(record, verdicts.held(score > 1), words)
    frame = pd.DataFrame([*rows, (f"(implied) {searched} scores above uniform 8", *verdict)], columns=CLAIM)
    return frame.assign(evidence=f"{title(record.spec.model)}: " + frame.evidence)
