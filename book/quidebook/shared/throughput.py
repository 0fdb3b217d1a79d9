"""AIQ's second claim beside what was timed here: MobileNetV2 with some of its layers in 8 bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from quide.experiments.records import Record
from quide.experiments.throughput import ALL, BATCHES, DRAWN, FOLDED, FULL, LIBRARIES, SEARCHED
from quidebook import report
from quidebook.report import Absent, tabled
from quidebook.verdicts import ABSENT, NOISY, held, on_another_network

THEIRS = LIBRARIES[0]  # whose kernels AIQ's authors deploy with


def times(record: Record, which: str, batch: int, library: str = THEIRS, base: str = THEIRS) -> float:
    """How many times as fast a network is as that of full precision by the base library."""
    ms = record.values["latencies"]
    return ms[f"{FULL}, {base}, {batch}"]["median_ms"] / ms[f"{which}, {library}, {batch}"]["median_ms"]


@tabled
def deployed_table(record: Record | None) -> Iterable[dict]:
    """Each network by batch: how many times as fast as the same library's full precision, and accuracy by PyTorch."""
    if record is None:
        return
    count = len(record.values["layers"][SEARCHED])
    named = {
        "none, batch norms folded, channels last": [FOLDED],
        f"AIQ's {count} layers": [SEARCHED],
        f"{count} random layers, {len(DRAWN)} draws": DRAWN,
        "all layers": [ALL],
    }
    for title, networks in named.items():
        top = [record.values["accuracy"][f"{which}, {THEIRS}"] for which in networks]
        for batch in BATCHES:
            row = {"in 8 bits": title, "batch": str(batch)}
            for library in LIBRARIES:
                there = f"{networks[0]}, {library}" in record.values["accuracy"]
                speed = [times(record, which, batch, library, library) for which in networks if there]
                row[library] = _range(speed, 2)
            yield row | {"top-1 (%), PyTorch": _range([100 * each for each in top], 2)}


def _range(values: list[float], digits: int) -> str:
    ends = sorted({report.number(each, digits) for each in (min(values), max(values))}) if values else []
    return " to ".join(ends) or report.UNKNOWN


def deployed_facts(record: Record | None, command: str) -> Mapping[str, object] | Absent:
    """Facts, at the largest batch and against PyTorch's network as trained: times as fast are the ``searched`` one,
    the random ones from ``least`` to ``most``, ``all`` layers, and, in full precision, ``folded`` and ONNX Runtime's
    (``onnx``); ``rest``: the searched one against the folded; ``alone``: the searched one, one image."""
    if record is None:
        return Absent("MobileNetV2 in 8-bit kernels", command)
    batch = max(BATCHES)
    random = sorted(times(record, each, batch) for each in DRAWN)
    searched, folded = times(record, SEARCHED, batch), times(record, FOLDED, batch)
    return {
        "searched": searched, "least": random[0], "most": random[-1], "all": times(record, ALL, batch),
        "folded": folded, "rest": searched / folded, "onnx": times(record, FULL, batch, "ONNX Runtime"),
        "alone": times(record, SEARCHED, min(BATCHES)), "batch": batch, "cpu": report.plain(record.provenance["cpu"]),
        "threads": record.spec.details["environment"]["threads"],
        "noise": report.noise(record.values["reasons"]),
    }  # fmt: skip


def deployed_verdict(record: Record | None, stated: float, command: str) -> tuple[str, str]:
    """Verdict and reason on the stated speed-up: ours is another MobileNetV2, half as wide."""
    facts = deployed_facts(record, command)
    if isinstance(facts, Absent):
        return ABSENT, f"not run; {command}"
    if facts["noise"]:
        return NOISY, facts["noise"]
    reason = "{searched:.2f} times at half the width; {folded:.2f} in full precision, batch norms folded, channels last"
    return on_another_network(held(facts["searched"] >= stated), reason.format(**facts))
