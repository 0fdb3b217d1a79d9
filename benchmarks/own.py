"""A network as its owner passes it, in PyTorch's default layout, beside the same in channels-last.

The library picks the layout itself, so neither should be slower. Answers are the same too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import quide
from benchmarks import harness
from benchmarks.harness import Goal, Result, Size
from quide import evaluate, latency

LIMIT = 1.1  # times channels-last
SHARE = 0.1  # of the images for every configuration, which takes many passes
TIMED = {"warmup": 1, "passes": 3}  # of the sweep's own timing, which is not the subject
LAYOUTS = {"channels-last": torch.channels_last, "default": torch.contiguous_format}


def run(size: Size, progress: bool = False) -> Result:
    """Measure it."""
    found, source = harness.images("test", size.images)
    few = max(round(SHARE * len(found)), 1)
    inputs = {"images": len(found), "images of exhaustive": few, "source": source, "network": "SimpleCNN"}
    result = Result("own", size.name, inputs)
    sweeps, trees = {}, {}
    for layout, form in LAYOUTS.items():
        model = harness.network().to(memory_format=form)
        images, calibration = found.normalized(), harness.calibration()
        images, calibration = (each.contiguous(memory_format=form) for each in (images, calibration))
        sweeps[layout] = partial(quide.sweep, model, images, found.labels, calibration, (32, 8), **TIMED)
        trees[layout] = partial(evaluate.exhaustive, model, images[:few], found.labels[:few], calibration)
    for what, calls in (("quide.sweep", sweeps), ("quide.evaluate.exhaustive", trees)):
        _compare(what, calls, result, size, progress)
    return result


def _compare(what: str, calls: dict[str, Callable[[], Any]], result: Result, size: Size, progress: bool) -> None:
    """Time a function in both layouts, in turn."""
    timings = latency.measure_interleaved(
        calls, warmup=1, passes=3 * size.rounds, block=1, progress=progress, wait_s=size.wait_s
    )
    result.add_timings(what, timings)
    rows = [{"layout": layout, **harness.quantiles(timings, layout)} for layout in calls]
    for row in rows:
        row["of_channels_last"] = row["median_s"] / rows[0]["median_s"]
    answers = [_accuracies(call()) for call in calls.values()]
    rows[1]["same_accuracies"] = answers[0] == answers[1]
    result.tables[what] = rows
    ratio = rows[1]["of_channels_last"]
    result.goals.append(Goal(f"{what}, default layout, of channels-last", ratio, "at most", LIMIT))


def _accuracies(found: Any) -> list[float]:
    return list(found.values()) if isinstance(found, dict) else list(found["accuracy"])
