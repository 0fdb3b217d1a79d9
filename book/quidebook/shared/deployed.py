"""Real 8-bit arithmetic beside simulated, as pages show it: what of a latency is quantization, and what its mimicry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quide import metric
from quide.experiments import deployed, records, select
from quide.experiments.deployed import CONFIGURATIONS, INTEGER, RUNTIME, SIMULATED, TORCH
from quide.stats import Hits
from quidebook import report
from quidebook.evidence.conditions import Condition
from quidebook.report import UNKNOWN, number, tabled
from quidebook.shared import table1


def measured(found: Sequence[Condition]) -> dict[str, records.Record]:
    """The record of each condition's network, by the network's name; of several the quietest of most passes."""
    known = {}
    for condition in found:
        profiles = ["paper" if condition.measured is None else condition.profile]
        case = {"model": condition.model, "dataset": condition.dataset, "profiles": profiles}
        known[condition.network] = select.best(deployed.KIND, _worth, **case)
    return {network: record for network, record in known.items() if record is not None}


def _worth(record: records.Record) -> tuple:
    noisy, *unrest = select.unrest(record.values)
    return record.spec.details["passes"], not noisy, *(-sign for sign in unrest)


@tabled
def table(found: Sequence[Condition]) -> Iterator[dict]:
    """Latency of each configuration, over 32 bits in PyTorch and in the same library; accuracy and size of those of
    ONNX Runtime."""
    for network, record in measured(found).items():
        values = record.values
        for name in CONFIGURATIONS:
            middle, low, high = table1.ratio(record, name, TORCH)
            same = RUNTIME if name in (RUNTIME, INTEGER) else TORCH
            hits, size = values["correct"].get(name), values["bytes"].get(name)
            yield {
                "network": network,
                "bits, library": name,
                "median (ms)": number(values["latencies"][name]["median_ms"], 2),
                "of 32 bits, PyTorch": f"{middle:.2f} ({low:.2f} to {high:.2f})",
                "of 32 bits, same library": number(table1.ratio(record, name, same)[0], 2),
                "P (%)": report.with_interval(Hits.unpacked(hits).interval(), 100) if hits else UNKNOWN,
                "MB": f"{size / 1e6:.1f}" if size else UNKNOWN,
            }


def facts(found: Sequence[Condition]) -> list[dict[str, object]]:
    """What is slower and what is faster, of each network that was measured.

    Keys: network; latency of 8 bits over that of 32 in the same library, ``simulated`` and ``integers``; ``change`` of
    the accuracy (pp); I of 8 bits over that of 32, both
    at the accuracy of 32, ``gain_simulated`` and ``gain_integers``; ``noise`` in words.
    """
    return [
        {
            "network": network,
            "simulated": table1.ratio(record, SIMULATED, TORCH)[0],
            "integers": table1.ratio(record, INTEGER, RUNTIME)[0],
            "change": 100 * (record.values["accuracy"][INTEGER] - record.values["accuracy"][RUNTIME]),
            "gain_simulated": _gain(record, SIMULATED, TORCH),
            "gain_integers": _gain(record, INTEGER, RUNTIME),
            "noise": report.noise(record.values["reasons"]),
        }
        for network, record in measured(found).items()
    ]


def faster_than_simulated(found: Sequence[Condition]) -> bool:
    """Whether every network measured is slower at 8 bits than at 32 when simulated, and faster in integers."""
    known = facts(found)
    return bool(known) and all(one["integers"] < 1 < one["simulated"] for one in known)


def _gain(record: records.Record, narrow: str, wide: str) -> float:
    narrow_ms, wide_ms = (record.values["latencies"][name]["median_ms"] for name in (narrow, wide))
    eight = metric.intelligence_index(metric.compression_ratio(8), 1.0, narrow_ms)
    return eight / metric.intelligence_index(1.0, 1.0, wide_ms)
