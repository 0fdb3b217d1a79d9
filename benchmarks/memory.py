"""Peak memory of a sweep, and how time and memory grow with the number of images; run as a module, it measures one run.

Each run is a process of its own, since a process never gives back its peak. Two ways to sweep: ``sweep`` is
:func:`quide.sweep`, whose images are normalized float32 tensors that the caller holds; ``streamed`` keeps the images as
uint8 and normalizes batch by batch, as the experiments do, for the accuracies alone.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

from tqdm.auto import tqdm

import quide
from benchmarks import harness
from benchmarks.harness import Result, Size
from quide import evaluate, ptq

SHARES = (0.1, 0.2, 0.5, 1.0)
WAYS = ("sweep", "streamed")
MEBIBYTE = 2**20
STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def run(size: Size, progress: bool = False) -> Result:
    """Measure it: rounds over all sizes and ways in turn, each in a fresh process."""
    _status("VmRSS")  # where it cannot be measured, say so at once
    available, source = harness.images("test", size.images)
    counts = [round(share * len(available)) for share in SHARES]
    inputs = {"images": len(available), "source": source, "network": "SimpleCNN", "bits": list(evaluate.PAPER_BITS)}
    result = Result("memory", size.name, inputs)
    found: dict[tuple[str, int], list[dict]] = {(way, count): [] for way in WAYS for count in counts}
    for way, count in tqdm(list(found) * size.rounds, desc="memory", unit="run", disable=not progress):
        found[way, count].append(harness.child("benchmarks.memory", way, str(count)))
    result.tables["Sweeps of different size"] = [_row(way, count, runs) for (way, count), runs in found.items()]
    return result


def measure(way: str, count: int) -> dict[str, float]:
    """One sweep over ``count`` images: seconds, and bytes resident before it, and at its peak."""
    network, calibration = harness.network(), harness.calibration()
    images, _ = harness.images("test", count)
    given = images.normalized() if way == "sweep" else None
    gc.collect()
    before = _status("VmRSS")
    PEAK_RESET.write_text("5")  # the kernel's record of the highest memory begins anew
    started = time.perf_counter()
    if given is not None:
        # One pass of the timing protocol: its thousand take the same time for any number of images.
        quide.sweep(network, given, images.labels, calibration, warmup=1, passes=1)
    else:
        prepared = ptq.prepare(network, calibration)
        for bits in evaluate.PAPER_BITS:
            evaluate.correct(prepared.at(bits), images)
    return {"seconds": time.perf_counter() - started, "before": before, "peak": _status("VmHWM")}


def _row(way: str, count: int, runs: list[dict]) -> dict:
    seconds = harness.spread([run["seconds"] for run in runs])
    return {
        "way": way,
        "images": count,
        **seconds,
        "ms_per_image": 1e3 * seconds["median_s"] / count,
        "peak_MiB": max(run["peak"] for run in runs) / MEBIBYTE,
        "added_MiB": max(run["peak"] - run["before"] for run in runs) / MEBIBYTE,
    }


def _status(field: str) -> int:
    """A size in bytes from the kernel's account of this process.

    Not ``getrusage``: its peak counts what the parent held when it started this process.
    """
    try:
        lines = STATUS.read_text().splitlines()
    except FileNotFoundError as error:
        raise OSError(
            f"memory is measured through {STATUS}, which this system does not have; "
            "name the other benchmarks: python -m benchmarks sweep training"
        ) from error
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
