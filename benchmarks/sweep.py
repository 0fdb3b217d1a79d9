"""One bit-width of the sweep, beside the plain FP32 pass and beside the same evaluation through other libraries.

Everything classifies the same images, normalized and in memory beforehand, at its own best batch size and memory
layout. QuIDE's time includes quantizing the weights and rebuilding the network for the width; the peers are timed with
networks that are ready. What is done once a sweep (calibration, export) is listed as set-up.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

import torch
from torch import nn

from benchmarks import harness, peers
from benchmarks.harness import Goal, Result, Size
from quide import latency, ptq
from quide.data.datasets import ImageSet

BITS = (8, 4)
FULL_PRECISION_LIMIT = 1.3  # times the plain pass
LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
FP32, QUIDE, IN_PLACE = "FP32", "QuIDE", "QuIDE, not commuted"

Evaluation = Callable[[], torch.Tensor]
Builder = Callable[[nn.Module, torch.Tensor, int], Callable[[], peers.Network]]


@dataclass(frozen=True)
class Setting:
    """How a contestant is run."""

    layout: str
    batch: int


@dataclass(frozen=True)
class Task:
    """What is to be classified, in both layouts."""

    networks: dict[str, nn.Module]
    calibration: dict[str, torch.Tensor]
    images: dict[str, torch.Tensor]
    labels: torch.Tensor

    def first(self, count: int) -> Task:
        """The same with the first images alone."""
        images = {layout: images[:count] for layout, images in self.images.items()}
        return Task(self.networks, self.calibration, images, self.labels[:count])


def _quide(commute: bool) -> Builder:
    def build(network: nn.Module, calibration: torch.Tensor, bits: int) -> Callable[[], peers.Network]:
        prepared = ptq.prepare(network, calibration)
        return lambda: prepared.at(bits, commute)

    return build


def _ready(peer: Callable[[nn.Module, torch.Tensor, int], peers.Network]) -> Builder:
    def build(network: nn.Module, calibration: torch.Tensor, bits: int) -> Callable[[], peers.Network]:
        ready = peer(network, calibration, bits)
        return lambda: ready

    return build


def _quide_compiled(network: nn.Module, calibration: torch.Tensor, bits: int) -> peers.Network:
    return torch.compile(ptq.quantize(network, bits, calibration))


_full_precision = _ready(lambda network, calibration, bits: network)
PEERS: dict[str, Builder] = {"FX": _ready(peers.fx), "PT2E": _ready(peers.pt2e), "brevitas": _ready(peers.brevitas)}
EAGER: dict[str, Builder] = {FP32: _full_precision, QUIDE: _quide(True), IN_PLACE: _quide(False), **PEERS}
COMPILED: dict[str, tuple[str, Builder]] = {  # the eager contestant whose setting it takes over
    "QuIDE, compiled": (QUIDE, _ready(_quide_compiled)),
    "PT2E, compiled": ("PT2E", _ready(peers.pt2e_compiled)),
}


def run(size: Size, compiled: bool = False, progress: bool = False) -> Result:
    """Measure it; ``compiled`` adds what ``torch.compile`` makes of QuIDE's and PT2E's networks (minutes more)."""
    found, source = harness.images("test", size.images)
    result = Result("sweep", size.name, {"images": len(found), "source": source, "network": "SimpleCNN"})
    given = task(found, harness.network(), harness.calibration())
    return measure(given, EAGER, size, result, progress, COMPILED if compiled else {})


def measure(
    task: Task,
    contestants: Mapping[str, Builder],
    size: Size,
    result: Result,
    progress: bool,
    compiled: Mapping[str, tuple[str, Builder]] = MappingProxyType({}),
) -> Result:
    """Fill ``result`` with the contestants' times, each at the setting where it is fastest, and their ratios."""
    settings = _tune(task.first(size.tuning_images), contestants, size, result, progress)
    entries = [(name, contestants[name], setting) for name, setting in settings.items()]
    entries += [(name, builder, settings[like]) for name, (like, builder) in compiled.items() if like in settings]
    rows, evaluations = _build(entries, task)
    timings = latency.measure_interleaved(
        evaluations, warmup=1, passes=size.rounds, block=1, progress=progress, wait_s=size.wait_s
    )
    result.add_timings("evaluation", timings)
    for label, row in rows.items():
        row |= harness.quantiles(timings, label)
    _compare(rows, result)
    return result


def task(found: ImageSet, network: nn.Module, calibration: torch.Tensor) -> Task:
    """A network and these images, in both layouts."""
    normalized = found.normalized()
    return Task(
        {name: copy.deepcopy(network).to(memory_format=layout) for name, layout in LAYOUTS.items()},
        {name: calibration.contiguous(memory_format=layout) for name, layout in LAYOUTS.items()},
        {name: normalized.contiguous(memory_format=layout) for name, layout in LAYOUTS.items()},
        found.labels,
    )


def _tune(
    task: Task, contestants: Mapping[str, Builder], size: Size, result: Result, progress: bool
) -> dict[str, Setting]:
    """The setting at which each contestant is fastest; one whose library is not here is noted and left out."""
    options = {f"{layout}, {batch}": Setting(layout, batch) for layout, batch in product(LAYOUTS, size.batch_sizes)}
    settings, tried = {}, {}
    for name, builder in contestants.items():
        try:
            ready = {layout: _start(builder, task, layout, BITS[0]) for layout in LAYOUTS}
        except ImportError as error:
            result.notes.append(f"{name} was not measured: {error}")
            continue
        evaluations = {label: _evaluation(ready[option.layout], task, option) for label, option in options.items()}
        timings = latency.measure_interleaved(
            evaluations, warmup=1, passes=size.tuning_rounds, block=1, progress=progress
        )
        tried[name] = {label: timings.latencies[label].median_ms for label in options}
        settings[name] = options[min(tried[name], key=tried[name].get)]
    result.details["tuning"] = {"images": len(task.labels), "median_ms": tried}
    return settings


def fastest_plain_pass(found: Task, size: Size) -> Evaluation:
    """The FP32 pass over all images at the batch size and layout that suit it best."""
    apart = Result("tuning", size.name, {})
    best = _tune(found.first(size.tuning_images), {FP32: _full_precision}, size, apart, progress=False)[FP32]
    return _evaluation(lambda: found.networks[best.layout], found, best)


def _build(entries: list[tuple[str, Builder, Setting]], task: Task) -> tuple[dict[str, dict], dict[str, Evaluation]]:
    """A table row and an evaluation to time, for each contestant and width; FP32 once."""
    rows, evaluations, reference = {}, {}, {}
    for name, builder, setting in entries:
        for bits in (ptq.FULL_PRECISION,) if name == FP32 else BITS:
            label = f"{name} {bits}"
            started = time.perf_counter()
            ready = _start(builder, task, setting.layout, bits)
            set_up = time.perf_counter() - started
            evaluations[label] = _evaluation(ready, task, setting)
            with torch.inference_mode():
                predicted = evaluations[label]()
            if name == QUIDE:
                reference[bits] = predicted
            rows[label] = {
                "contestant": name,
                "bits": bits,
                "layout": setting.layout,
                "batch": setting.batch,
                "accuracy": _share(predicted, task.labels),
                "same_as_QuIDE": _share(predicted, reference[bits]) if bits in reference else None,
                "set-up_s": set_up,
            }
    return rows, evaluations


def _compare(rows: dict[str, dict], result: Result) -> None:
    """Ratios to the FP32 pass, and the goals."""
    plain = rows[f"{FP32} {ptq.FULL_PRECISION}"]["median_s"]
    for row in rows.values():
        row["of_FP32"] = row["median_s"] / plain
    result.tables["One width over all images"] = list(rows.values())
    for bits in BITS:
        ours = rows[f"{QUIDE} {bits}"]
        what = f"QuIDE at {bits} bits, of the FP32 pass"
        result.goals.append(Goal(what, ours["of_FP32"], "at most", FULL_PRECISION_LIMIT))
        for row in rows.values():
            if row["bits"] == bits and not row["contestant"].startswith(QUIDE):
                what = f"{row['contestant']} at {bits} bits, of QuIDE"
                result.goals.append(Goal(what, row["median_s"] / ours["median_s"], "at least", 1.0))


def _start(builder: Builder, task: Task, layout: str, bits: int) -> Callable[[], peers.Network]:
    return builder(task.networks[layout], task.calibration[layout], bits)


def _evaluation(ready: Callable[[], peers.Network], task: Task, setting: Setting) -> Evaluation:
    """As :func:`quide.evaluate.predict`, for networks that have no ``eval()`` as well."""
    batches = task.images[setting.layout].split(setting.batch)

    def predict() -> torch.Tensor:
        network = ready()
        return torch.cat([network(images).argmax(1) for images in batches])

    return predict


def _share(predicted: torch.Tensor, wanted: torch.Tensor) -> float:
    return (predicted == wanted).double().mean().item()
