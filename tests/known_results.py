"""Made-up measurements for the pages that examine the paper: a condition and a landscape, as if from records."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from quidebook.evidence.scores import Measured
from quidebook.shared.landscape import Landscapes

from quide import evaluate, metric
from quide.experiments import mixed, records
from quide.experiments.mixed import CHOICES, Landscape
from quide.ptq.width import PAPER_BITS

IMAGES = 500
ACCURACY = {32: 0.80, 16: 0.80, 8: 0.798, 4: 0.60, 2: 0.10}
LATENCY = {32: 8.0, 16: 40.0, 8: 11.0, 4: 11.2, 2: 11.44}
LAYER_SIZES = (864, 18432, 524288, 1280)


def condition(name: str = "cifar10-simplecnn", threshold: float = 0.505) -> Measured:
    """Two seeds; the second is 0.01 more accurate and 10 % slower throughout."""
    rows, correct = [], []
    for seed, lift, slower in ((0, 0.0, 1.0), (42, 0.01, 1.1)):
        for bits in PAPER_BITS:
            rows.append((seed, bits, 32 / bits, ACCURACY[bits] + lift, slower * LATENCY[bits]))
        hits = [np.arange(IMAGES) < round(IMAGES * (ACCURACY[bits] + lift)) for bits in PAPER_BITS]
        correct.append(hits)
    table = pd.DataFrame(rows, columns=["seed", "bits", "compression", "accuracy", "latency_ms"])
    table["index"] = metric.intelligence_index(table.compression, table.accuracy, table.latency_ms)
    table["gated_index"] = metric.gated_index(table.compression, table.accuracy, table.latency_ms, threshold)
    return Measured(name, table, np.array(correct), threshold, "an abacus", (), (1.0, 1.0), [])


def landscape() -> Landscapes:
    """Every configuration of four layers; accuracy grows with the widths."""
    configurations = list(itertools.product(CHOICES, repeat=4))
    generator = np.random.default_rng(0)
    chance = np.array([0.1 + 0.7 * np.prod([1 - 2.0 ** -(b - 1) for b in each]) for each in configurations])
    correct = generator.random((600, len(configurations))) < chance
    latency = 10 + generator.normal(0, 0.05, len(configurations))
    compression = np.array([metric.compression_ratio(widths) for widths in configurations])
    reference = generator.random(600) < 0.8
    land = Landscape(configurations, correct, reference, latency, latency, compression, LAYER_SIZES, 0.3, 10)
    names = [mixed.FULL_PRECISION, *map(evaluate.label, configurations)]
    latencies = {name: {"median_ms": value} for name, value in zip(names, [8.0, *latency], strict=True)}
    environment = {"device_name": "an abacus", "threads": 1}
    spec = records.RunSpec("mixed_latency", "simplecnn", "cifar10", 0, "paper", {"environment": environment})
    values = {"latencies": latencies, "aa_ratio": 1.01, "noisy": False, "reasons": []}
    timed = records.Record(spec, values, "0" * 16, "none", {}, 1.0)
    return Landscapes("paper", {0: land, 42: land.on(np.arange(300))}, timed, [timed])
