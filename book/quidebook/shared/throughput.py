"""AIQ's second claim beside what was timed here: MobileNetV2 with some of its layers in 8 bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quide.experiments import select, throughput
from quide.experiments.records import Record
from quide.experiments.throughput import ALL, BATCHES, DRAWN, FOLDED, FULL, LIBRARIES, SEARCHED
from quidebook import report
from quidebook.report import Absent, tabled
from quidebook.verdicts import ABSENT, NOISY, held, on_another_network

THEIRS = LIBRARIES[0]  # whose kernels AIQ's authors deploy with


@dataclass(frozen=True)
class Deployed:
    """What the networks score, and their latency by batch."""

    accuracy: Record
    latency: Mapping[int, Record]

    @property
    def used(self) -> list[Record]:
        """All records."""
        return [self.accuracy, *self.latency.values()]

    def times(self, which: str, batch: int, library: str = THEIRS, base: str = THEIRS) -> float:
        """How many times as fast a network is as that of full precision by the base library."""
        ms = self.latency[batch].values["latencies"]
        return ms[f"{FULL}, {base}"]["median_ms"] / ms[f"{which}, {library}"]["median_ms"]


def found() -> Deployed | None:
    """The quietest records of all parts; None where one is missing."""
    scored, timed = select.known(throughput.ACCURACY), select.known(throughput.KIND)
    of = {batch: select.quietest(one for one in timed if one.spec.details["batch"] == batch) for batch in BATCHES}
    return Deployed(scored[0], of) if scored and all(of.values()) else None


@tabled
def deployed_table(known: Deployed | None) -> Iterable[dict]:
    """Each network by batch: how many times as fast as the same library's full precision, and accuracy by PyTorch."""
    if known is None:
        return
    values = known.accuracy.values
    count = len(values["layers"][SEARCHED])
    named = {
        "none, batch norms folded, channels last": [FOLDED],
        f"AIQ's {count} layers": [SEARCHED],
        f"{count} random layers, {len(DRAWN)} draws": DRAWN,
        "all layers": [ALL],
    }
    for title, networks in named.items():
        top = [values["accuracy"][f"{which}, {THEIRS}"] for which in networks]
        for batch in BATCHES:
            row = {"in 8 bits": title, "batch": str(batch)}
            for library in LIBRARIES:
                there = f"{networks[0]}, {library}" in values["accuracy"]
                speed = [known.times(which, batch, library, library) for which in networks if there]
                row[library] = _range(speed, 2)
            yield row | {"top-1 (%), PyTorch": _range([100 * each for each in top], 2)}


def _range(values: list[float], digits: int) -> str:
    ends = [report.number(each, digits) for each in (min(values), max(values))] if values else [report.UNKNOWN]
    return " to ".join(dict.fromkeys(ends))


def deployed_facts(known: Deployed | None, command: str) -> Mapping[str, object] | Absent:
    """Facts, at the largest batch and against PyTorch's network as trained: times as fast are the ``searched`` one,
    the random ones from ``least`` to ``most``, ``all`` layers, and, in full precision, ``folded`` and ONNX Runtime's
    (``onnx``)."""
    if known is None:
        return Absent("MobileNetV2 in 8-bit kernels", command)
    batch = max(BATCHES)
    random = sorted(known.times(each, batch) for each in DRAWN)
    noise = report.noise(known.latency[batch].values["reasons"])
    return {
        "searched": known.times(SEARCHED, batch), "least": random[0], "most": random[-1],
        "all": known.times(ALL, batch), "folded": known.times(FOLDED, batch),
        "onnx": known.times(FULL, batch, "ONNX Runtime"), "batch": batch, "noise": noise,
    }  # fmt: skip


def deployed_verdict(known: Deployed | None, stated: float, command: str) -> tuple[str, str]:
    """Verdict and reason on the stated speed-up: ours is another MobileNetV2, half as wide."""
    facts = deployed_facts(known, command)
    if isinstance(facts, Absent):
        return ABSENT, f"not run; {command}"
    if facts["noise"]:
        return NOISY, "see the timings above"
    reason = "{searched:.2f} times at half the width; {folded:.2f} in full precision, batch norms folded, channels last"
    return on_another_network(held(facts["searched"] >= stated), reason.format(**facts))
