"""Accuracy and latency records joined into scores: one data frame from which every table and figure is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from quide import metric, stats
from quide.experiments import paper, records, runs, select
from quide.experiments.records import Record
from quide.ptq.scheme import PAPER
from quide.stats import unpack_bits
from quidebook import report

# The choices behind a sweep; a record that has more of them was made in another way.
SWEEP = {"scheme", "bits", "selection", "calibration_size", "training_seed", "test_images"}


@dataclass(frozen=True)
class Measured:
    """What is known of one network on one data set at one profile.

    Attributes:
        condition: its name in :func:`quide.experiments.paper.conditions`, or that of the one it stands beside.
        table: one row a (seed, bits): compression, accuracy, latency_ms, index, gated_index.
        correct: bool ``(seeds, bits, images)``, the widths in the order of :data:`quide.experiments.paper.BITS`.
        threshold: of Eq. 4, from the mean full-precision accuracy and the paper's tolerance.
        device: where the latencies were taken; ``noisy`` says why not to trust them (empty when there is no reason).
        aa_ratios: of each seed's timing run.
        records: the records it is made of.
        tried: how many timing runs these were chosen from, on this device and others.
    """

    condition: str
    table: pd.DataFrame
    correct: np.ndarray
    threshold: float
    device: str
    noisy: tuple[str, ...]
    aa_ratios: tuple[float, ...]
    records: list[Record]
    tried: int = 0

    @property
    def seeds(self) -> list[int]:
        """The seeds it covers."""
        return sorted(self.table.seed.unique().tolist())

    @property
    def latencies(self) -> np.ndarray:
        """``(seeds, bits)`` in milliseconds."""
        return self.table.pivot(index="seed", columns="bits", values="latency_ms")[list(paper.BITS)].to_numpy()

    @property
    def timed(self) -> list[Record]:
        """The latency records, one a seed; of published weights one for all seeds."""
        return [record for record in self.records if record.spec.kind == "latency"]

    def sixteen_as(self, name: str) -> Measured | None:
        """The same with 16 bits timed as one of :data:`quide.experiments.runs.SIXTEEN`; None where it was not."""
        if not all(name in record.values["latencies"] for record in self.timed):
            return None
        return self._with_latency(lambda timed, bits: timed[name if bits == 16 else str(bits)]["median_ms"])

    def knee_despite_noise(self) -> bool:
        """Whether the width with the highest mean I' keeps it with its latencies at their 90th percentile, and those of
        all other widths at their 10th."""
        first = self.summary().set_index("bits").gated_index.idxmax()
        worst = self._with_latency(lambda timed, bits: timed[str(bits)]["p90_ms" if bits == first else "p10_ms"])
        return worst.summary().set_index("bits").gated_index.idxmax() == first

    def _with_latency(self, of: Callable[[Mapping, int], float]) -> Measured:
        """The same with other latencies (ms), from a record's latencies by configuration and a width."""
        by_seed, table = {record.spec.seed: record for record in self.timed}, self.table.copy()
        table["latency_ms"] = [
            of(by_seed.get(seed, self.timed[0]).values["latencies"], bits)
            for seed, bits in zip(table.seed, table.bits, strict=True)
        ]
        return replace(self, table=_scored(table, self.threshold))

    def knee(self) -> stats.KneeBootstrap:
        """Probability of each width being the knee of I', over test images and seeds."""
        facts = paper.conditions().loc[self.condition]
        return stats.bootstrap_knee(
            self.correct, self.latencies, paper.BITS,
            tolerance=float(facts["tolerance"]), num_classes=int(facts["num_classes"]),
        )  # fmt: skip

    @property
    def likeliest(self) -> tuple[int | None, float]:
        """The width that most often is the knee of I', and how often it is."""
        return max(self.knee().probability.items(), key=lambda share: share[1])

    def summary(self) -> pd.DataFrame:
        """One row a width: mean, standard deviation and 95 % t-interval over seeds of each quantity; of a latency that
        serves several seeds the value alone."""
        rows = []
        for bits, part in self.table.groupby("bits", sort=False):
            row = {"bits": bits, "compression": part.compression.iloc[0], "seeds": len(part)}
            for quantity in ("accuracy", "latency_ms", "index", "gated_index"):
                values = part[quantity].to_numpy()
                if quantity == "latency_ms":
                    values = values[: len(self.aa_ratios)]
                interval = stats.mean_interval(values)
                row |= {
                    quantity: interval.estimate,
                    f"{quantity}_std": values.std(ddof=1) if len(values) > 1 else np.nan,
                    f"{quantity}_low": interval.low,
                    f"{quantity}_high": interval.high,
                }
            rows.append(row)
        return pd.DataFrame(rows)


def measured(model: str, dataset: str, profile: str) -> Measured | None:
    """Join what records hold; None when there is no seed with both an accuracy and a latency record.

    Nothing is computed. Latencies come from the one device that covers most seeds, the quietest of equals
    (:func:`quide.experiments.select.unrest` of its most disturbed timing). The timing of a published network does for
    all its seeds, since they change no weight.
    """
    timed, tried = _timings(model, dataset, profile)
    sweeps = select.known("accuracy", profile, model, dataset, _is_sweep)
    swept = {each.spec.seed: each for each in sorted(sweeps, key=lambda each: runs.schedule_of(each.spec) or 0)}
    if (model, dataset) in runs.PUBLISHED and timed:
        timed = dict.fromkeys(swept, timed[min(timed)]) | timed
    known = {seed: record for seed, record in sorted(swept.items()) if seed in timed}
    if not known:
        return None
    condition = (runs.CONDITION | runs.BESIDE)[model, dataset]
    full_precision = float(np.mean([record.values["accuracy"]["32"] for record in known.values()]))
    threshold = paper.threshold(condition, full_precision)
    table = pd.DataFrame(
        {
            "seed": seed,
            "bits": bits,
            "compression": metric.compression_ratio(bits),
            "accuracy": record.values["accuracy"][str(bits)],
            "latency_ms": timed[seed].values["latencies"][str(bits)]["median_ms"],
        }
        for seed, record in known.items()
        for bits in paper.BITS
    )
    hits = [[unpack_bits(record.values["correct"][str(bits)]) for bits in paper.BITS] for record in known.values()]
    used = list({record.spec.key: record for record in (timed[seed] for seed in known)}.values())
    return Measured(
        condition,
        _scored(table, threshold),
        np.stack(hits),
        float(threshold),
        device_name(used[0]),
        tuple(sorted({reason for record in used for reason in record.values["reasons"]})),
        tuple(record.values["aa_ratio"] for record in used),
        [*known.values(), *used],
        tried,
    )


def _scored(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    parts = table.compression, table.accuracy, table.latency_ms
    return table.assign(index=metric.intelligence_index(*parts), gated_index=metric.gated_index(*parts, threshold))


def _is_sweep(record: Record) -> bool:
    """Whether it is the accuracy of the best epoch at the paper's widths by the paper's scheme."""
    details = record.spec.details
    asked = tuple(details["bits"]) == paper.BITS and details["selection"] == "best"
    return asked and details["scheme"] == records.described(PAPER) and details.keys() - {"epochs"} == SWEEP


def device_name(record: Record) -> str:
    """The device a latency record was taken on, in words."""
    environment = record.spec.details["environment"]
    threads = f", {environment['threads']} threads" if environment["device"] == "cpu" else ""
    return report.plain(f"{environment['device_name']}{threads}, torch {environment['torch']}")


def _timings(model: str, dataset: str, profile: str) -> tuple[dict[int, Record], int]:
    """Latency records by seed, of one device (:func:`measured`), and how many timing runs there were on any."""
    by_device: dict[str, dict[int, Record]] = {}
    known = records.collect("latency", profile, model, dataset)
    for record in known:
        by_device.setdefault(device_name(record), {})[record.spec.seed] = record

    def worth(name: str) -> tuple:
        return -len(by_device[name]), max(select.unrest(one.values) for one in by_device[name].values())

    chosen = by_device[min(by_device, key=worth)] if known else {}
    return chosen, sum(len(record.values.get("tried", [record])) for record in known)
