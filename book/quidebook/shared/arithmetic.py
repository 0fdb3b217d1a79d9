"""Real 8-bit arithmetic beside simulated, as pages show it: what of a latency is quantization, and what its mimicry."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from quide import metric, stats
from quide.experiments import deployed, records, runs
from quide.experiments.deployed import CONFIGURATIONS, INTEGER, RUNTIME, SIMULATED, TORCH
from quide.stats import unpack_bits
from quidebook import report
from quidebook.report import number, percent
from quidebook.shared import table1
from quidebook.shared.table1 import Condition


def measured(found: Sequence[Condition]) -> dict[str, records.Record]:
    """The record of each condition's network, by the network's name; of several the one with most passes."""
    known = {}
    for condition in found:
        profile = "paper" if condition.measured is None else condition.profile
        collected = records.collect(deployed.KIND, profile, condition.model, condition.dataset)
        if collected:
            best = max(collected, key=lambda record: record.spec.details["passes"])
            records.warn_if_stale(best, deployed.run(runs.Case(best.spec.model, best.spec.dataset, 0, profile)).code)
            known[condition.network] = best
    return known


def ratio(record: records.Record, name: str, over: str) -> float:
    """Median latency of a configuration over that of another."""
    return table1.ratio(record, name, over)[0]


def table(found: Sequence[Condition]) -> pd.DataFrame:
    """Latency of each configuration, over 32 bits in PyTorch and in the same library; accuracy and size of those of
    ONNX Runtime."""
    rows = []
    for network, record in measured(found).items():
        values = record.values
        for name in CONFIGURATIONS:
            median = values["latencies"][name]["median_ms"]
            row = {"network": network, "bits, library": name, "median (ms)": number(median, 2)}
            middle, low, high = table1.ratio(record, name, TORCH)
            row["of 32 bits, PyTorch"] = f"{middle:.2f} ({low:.2f} to {high:.2f})"
            same = RUNTIME if name in (RUNTIME, INTEGER) else TORCH
            row["of 32 bits, same library"] = f"{ratio(record, name, same):.2f}"
            row["P (%)"] = _accuracy(values, name)
            row["MB"] = f"{values['bytes'][name] / 1e6:.1f}" if name in values["bytes"] else report.UNKNOWN
            rows.append(row)
    return pd.DataFrame(rows)


def _accuracy(values: dict, name: str) -> str:
    if name not in values["correct"]:
        return report.UNKNOWN
    hits = unpack_bits(values["correct"][name])
    return report.with_interval(stats.wilson_interval(int(hits.sum()), len(hits)), 100)


def show(found: Sequence[Condition], command: str) -> None:
    """:func:`figure`, or where nothing was measured the command that measures it."""
    if measured(found):
        report.show(*figure(found))
    else:
        report.say(f"There is no record of it here. To make one: `pip install 'quide[deploy]'`, `{command}`")


def figure(found: Sequence[Condition]) -> tuple:
    """Latency of 8 bits, simulated and in integers, over 32 bits."""
    drawn, (axis,) = report.panels(width=7, height=2.6)
    known = measured(found)
    ratios = {
        network: [table1.ratio(record, name, TORCH) for name in CONFIGURATIONS] for network, record in known.items()
    }
    table1.draw_ratios(axis, ratios, CONFIGURATIONS, "32 bits in PyTorch")
    words = [
        f"{network}, " + "; ".join(f"{name}: {one[0]:.2f}" for name, one in zip(CONFIGURATIONS, values, strict=True))
        for network, values in ratios.items()
    ]
    environment = next(iter(known.values())).spec.details["environment"]
    caption = (
        "Real 8-bit arithmetic beside simulated: latency relative to 32 bits in PyTorch (dashed), median and 10th to "
        f"90th percentile ({environment['device_name']}, {environment['threads']} threads)."
    )
    alt = f"Dot plot, latency over that of 32 bits in PyTorch. {'. '.join(words)}."
    return drawn, f"fig-{found[0].page}-arithmetic", caption, alt


def say(found: Sequence[Condition]) -> None:
    """What is slower, what is faster, and what that does to the index."""
    known = measured(found)
    for network, record in known.items():
        values = record.values
        change = 100 * (values["accuracy"][INTEGER] - values["accuracy"][RUNTIME])
        noisy = f" The timings are noisy: {'; '.join(values['reasons'])}." if values["noisy"] else ""
        report.say(
            f"**{network}.** Simulated, 8 bits take {ratio(record, SIMULATED, TORCH):.2f} times as long as 32 bits in "
            f"the same library; in integers {ratio(record, INTEGER, RUNTIME):.2f} times. The answers are nearly the "
            f"same: accuracy changes by {change:+.2f} pp, and {percent(values['agreement'], 1)} of the images are put "
            f"into the same class by both. By $I$, 8 bits are {_gain(record, SIMULATED, TORCH):.2f} times as good as "
            f"32 bits when simulated, and {_gain(record, INTEGER, RUNTIME):.2f} times in integers.{noisy}"
        )
    if known and all(
        ratio(record, INTEGER, RUNTIME) < 1 < ratio(record, SIMULATED, TORCH) for record in known.values()
    ):
        report.say(
            "So on this machine a latency that rises with quantization is one of its simulation, and none of quantized "
            "networks. An index that is fed simulated latencies does not give a width the credit that it would have "
            "where it is deployed."
        )


def _gain(record: records.Record, narrow: str, wide: str) -> float:
    """I of 8 bits over that of 32, both at the accuracy of 32."""
    scores = [
        metric.intelligence_index(compression, 1.0, record.values["latencies"][name]["median_ms"])
        for compression, name in ((metric.compression_ratio(8), narrow), (1.0, wide))
    ]
    return scores[0] / scores[1]


def claims(found: Sequence[Condition]) -> list[tuple[str, str, str]]:
    """What the paper does not ask, with evidence: whether 8 bits are slower than 32 where nothing is simulated."""
    return [
        (
            f"(not asked) {network}: slower at 8 bits in real 8-bit arithmetic too",
            report.UNDECIDED,
            f"{ratio(record, INTEGER, RUNTIME):.2f} times full precision in the same library, simulated "
            f"{ratio(record, SIMULATED, TORCH):.2f}",
        )
        for network, record in measured(found).items()
    ]
