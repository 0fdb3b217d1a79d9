"""Records with numbers that tests know, for what is drawn from records."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quide.experiments import records, runs
from quide.stats import pack_bits

IMAGES = 2000  # shares are multiples of a two-thousandth
LATENCY = {
    "32": 2.0, "16": 3.0, "8": 4.0, "4": 4.0, "2": 4.0,
    runs.INTEGER_16: 4.0, runs.BFLOAT_16: 3.0, runs.COMMUTED_8: 2.5,
}  # fmt: skip
PROVENANCE = {
    "date": "2026-01-02T03:04:05+00:00", "git_commit": "abc", "cpu": "a CPU", "accelerator": None,
    "packages": {"torch": "2.14.0"},
}  # fmt: skip


def bits_with(share: float, shift: int) -> np.ndarray:
    """Exactly ``share`` of the images right, which ones depending on ``shift``."""
    hits = np.zeros(IMAGES, bool)
    hits[: round(share * IMAGES)] = True
    return np.roll(hits, shift)


def save_accuracy(run: runs.Run, accuracy: dict[str, float]) -> None:
    values = {
        "accuracy": accuracy,
        "correct": {name: pack_bits(bits_with(share, 0)) for name, share in accuracy.items()},
        "images": IMAGES,
    }
    records.save(records.Record(run.spec, values, run.code, run.data, PROVENANCE, 1.0))


def save_timing(run: runs.Run, factor: float, latency: Mapping[str, float] = LATENCY, **values: object) -> None:
    latencies = {
        name: {"median_ms": factor * ms, "p10_ms": 0.9 * factor * ms, "p90_ms": 1.2 * factor * ms}
        for name, ms in latency.items()
    }
    values = {"latencies": latencies, "aa_ratio": 1.01, "reasons": [], "noisy": False} | values
    records.save(records.Record(run.spec, values, run.code, run.data, PROVENANCE, 1.0))
