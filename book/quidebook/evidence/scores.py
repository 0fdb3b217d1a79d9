"""Accuracy and latency records joined into scores: one data frame from which every table and figure is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from quide import metric, stats
from quide.experiments import paper, records, runs, select
from quide.experiments.records import Record
from quide.ptq.scheme import PAPER
from quide.stats import unpack_bits

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
    """

    condition: str
    table: pd.DataFrame
    correct: np.ndarray
    threshold: float
    device: str
    noisy: tuple[str, ...]
    aa_ratios: tuple[float, ...]
    records: list[Record]

    @property
    def seeds(self) -> list[int]:
        """The seeds it covers."""
        return sorted(self.table.seed.unique().tolist())

    @property
    def latencies(self) -> np.ndarray:
        """``(seeds, bits)`` in milliseconds."""
        return self.table.pivot(index="seed", columns="bits", values="latency_ms")[list(paper.BITS)].to_numpy()

    def knee(self) -> stats.KneeBootstrap:
        """Probability of each width being the knee of I', over test images and seeds."""
        facts = paper.conditions().loc[self.condition]
        return stats.bootstrap_knee(
            self.correct, self.latencies, paper.BITS,
            tolerance=float(facts["tolerance"]), num_classes=int(facts["num_classes"]),
        )  # fmt: skip

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

    Nothing is computed. Latencies come from the one device that covers most seeds. The timing of a published network
    does for all its seeds, since they change no weight.
    """
    timed = _timings(model, dataset, profile)
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
    table["index"] = metric.intelligence_index(table.compression, table.accuracy, table.latency_ms)
    table["gated_index"] = metric.gated_index(table.compression, table.accuracy, table.latency_ms, threshold)
    hits = [[unpack_bits(record.values["correct"][str(bits)]) for bits in paper.BITS] for record in known.values()]
    used = list({record.spec.key: record for record in (timed[seed] for seed in known)}.values())
    return Measured(
        condition,
        table,
        np.stack(hits),
        float(threshold),
        device_name(used[0]),
        tuple(sorted({reason for record in used for reason in record.values["reasons"]})),
        tuple(record.values["aa_ratio"] for record in used),
        [*known.values(), *used],
    )


def _is_sweep(record: Record) -> bool:
    """Whether it is the accuracy of the best epoch at the paper's widths by the paper's scheme."""
    details = record.spec.details
    asked = tuple(details["bits"]) == paper.BITS and details["selection"] == "best"
    return asked and details["scheme"] == records.described(PAPER) and details.keys() - {"epochs"} == SWEEP


def device_name(record: Record) -> str:
    """The device a latency record was taken on, in words."""
    environment = record.spec.details["environment"]
    threads = f", {environment['threads']} threads" if environment["device"] == "cpu" else ""
    return f"{environment['device_name']}{threads}, torch {environment['torch']}"


def _timings(model: str, dataset: str, profile: str) -> dict[int, Record]:
    """Latency records by seed, of the one device that has most seeds (the first by name among equals)."""
    by_device: dict[str, dict[int, Record]] = {}
    for record in records.collect("latency", profile, model, dataset):
        by_device.setdefault(device_name(record), {})[record.spec.seed] = record
    return max((by_device[name] for name in sorted(by_device)), key=len, default={})
