"""The paper's timing protocol (§3.3, §4.1), and what it takes to trust a timing on a machine that others use too."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from quide._check import whole

BATCH_SIZE = 64
WARMUP = 100
PASSES = 1000
MOST_PASSES = 1_000_000  # a thousand times the paper's; each is kept in memory

BUSY_SHARE = 0.05  # of all cores, used by others: a tenth of a core on two cores, most of one on sixteen
SPREAD_LIMIT = 1.5  # p90/p10 of one configuration
AA_LIMIT = 0.05  # by how much the two medians of one configuration may differ
ORDER_SEED = 0

_CPU_FIELDS = 8  # user nice system idle iowait irq softirq steal; what follows in /proc/stat is contained in user
_CPU_IDLE = (3, 4)
_SHORTEST_SAMPLE = 0.2  # CPU seconds; the kernel counts in hundredths, so less is too coarse to tell anything


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass over ``passes`` timed ones, in milliseconds: the median, which is the T of Eq. 1, the
    10th and 90th percentile, the minimum; and how many passes went before, untimed."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    min_ms: float
    passes: int
    warmup: int

    @property
    def spread(self) -> float:
        """90th over 10th percentile: 1 is a perfectly steady machine."""
        return self.p90_ms / self.p10_ms

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Timings:
    """Latencies that were measured together, and how far they can be trusted.

    ``aa_ratio`` is the median of the second of two identical entries of the first configuration over that of the
    first: differences between configurations as small as its distance from 1 are noise. ``foreign_cpu_share`` is the
    share of all cores that other processes used meanwhile (0 to 1), None where the system does not tell or the run was
    too short. ``load_before`` and ``load_after`` are the one-minute load averages (own work included), None where the
    system has none. ``reasons`` says in words what makes the timings noisy; empty when nothing does.
    """

    latencies: dict[str, Latency]
    aa_ratio: float
    foreign_cpu_share: float | None
    load_before: float | None
    load_after: float | None
    reasons: tuple[str, ...]

    @property
    def noisy(self) -> bool:
        """Whether the machine was too busy or too unsteady for these timings to be trusted."""
        return bool(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, ``noisy`` among them."""
        return {**asdict(self), "reasons": list(self.reasons), "noisy": self.noisy}


class CpuSample(NamedTuple):
    """CPU seconds since boot, summed over all cores: there to be used, used by anyone, used by this process."""

    total: float
    busy: float
    own: float


def measure_latency(
    fn: Callable[[], Any],
    warmup: int = WARMUP,
    passes: int = PASSES,
    *,
    synchronize: Callable[[], Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time ``fn`` as the paper does (§3.3): warm up, then take the median over passes that end synchronized.

    To compare configurations use :func:`measure_interleaved`, which keeps the machine's drift out of the comparison.

    Args:
        fn: zero-argument callable that runs one forward pass (the paper: a batch of 64); called in
            ``torch.inference_mode()``.
        warmup: untimed passes before.
        passes: timed passes.
        synchronize: waits until the device is idle, called before and after each pass; by default that of the
            accelerator torch sees, if any.
        clock: seconds, monotonic.

    Raises:
        ValueError: ``warmup`` or ``passes`` is not a positive integer, or ``fn`` is too quick for ``clock`` to tell.
        TypeError: ``fn`` is not callable.
    """
    warmup, passes = whole("warmup", warmup, 1, MOST_PASSES), whole("passes", passes, 1, MOST_PASSES)
    import torch  # in functions, so that what only reads timings does not wait for it

    _check_callable("fn", fn)
    synchronize = synchronize or _synchronizer()
    with torch.inference_mode():
        _run(fn, warmup)
        seconds = _timed(fn, passes, synchronize, clock)
    return _latency("fn", seconds, warmup)


def measure_interleaved(
    fns: Mapping[str, Callable[[], Any]],
    warmup: int = WARMUP,
    passes: int = PASSES,
    block: int = 10,
    progress: bool = False,
    wait_s: float = 0.0,
    *,
    synchronize: Callable[[], Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Time the configurations of one table in turn, so that a slow minute hits all of them alike.

    All are warmed up first. Then each gets ``block`` timed passes a round, in an order shuffled anew each round with a
    fixed seed; one untimed pass precedes each block, so that no configuration pays for the cache another one filled.
    The first configuration takes part twice: the ratio of its two medians shows what the machine's noise alone does.

    Args:
        fns: name of each configuration -> zero-argument callable that runs one forward pass.
        warmup, passes: for each configuration, as in :func:`measure_latency`.
        block: consecutive passes of one configuration.
        progress: show a bar with the time left.
        wait_s: seconds to wait at most for a quiet machine before starting (:func:`wait_for_quiet`).
        synchronize, clock: as in :func:`measure_latency`.

    Raises:
        ValueError: ``fns`` is empty, a count is not a positive integer, ``wait_s`` is negative, or a configuration
            takes less time than ``clock`` resolves.
        TypeError: ``fns`` is not a mapping of names to callables.
    """
    warmup, passes = whole("warmup", warmup, 1, MOST_PASSES), whole("passes", passes, 1, MOST_PASSES)
    block = whole("block", block, 1)
    _check_configurations(fns)
    if not wait_s >= 0:
        raise ValueError(f"wait_s must be at least 0 seconds, got {wait_s}")
    synchronize = synchronize or _synchronizer()
    load_before = _load_average()
    gave_up = wait_s > 0 and not wait_for_quiet(wait_s, progress=progress)
    names = list(fns)
    entries = [fns[name] for name in names] + [fns[names[0]]]  # the A/A pair: first and last entry
    import torch

    cpu_before = cpu_sample()
    seconds: list[list[float]] = [[] for _ in entries]
    with torch.inference_mode():
        for fn in entries:
            _run(fn, warmup)
        for entry, count in _schedule(len(entries), passes, block, progress):
            _run(entries[entry], 1)
            seconds[entry].extend(_timed(entries[entry], count, synchronize, clock))
    share, load_after = foreign_share(cpu_before, cpu_sample()), _load_average()
    *latencies, twin = [_latency(name, taken, warmup) for name, taken in zip([*names, names[0]], seconds, strict=True)]
    timed = dict(zip(names, latencies, strict=True))
    aa_ratio = twin.median_ms / latencies[0].median_ms
    reasons = _reasons(timed, aa_ratio, share, wait_s if gave_up else None)
    return Timings(timed, aa_ratio, share, load_before, load_after, reasons)


def wait_for_quiet(seconds: float, threshold: float = BUSY_SHARE, window: float = 1.0, progress: bool = True) -> bool:
    """Wait until other processes use less than ``threshold`` of all cores; whether that came about in time.

    Looks at stretches of ``window`` seconds, at least one, and gives up after ``seconds``. True at once where the
    system does not tell who uses the CPU.

    Raises:
        ValueError: ``seconds`` is negative, ``window`` is not positive, or ``threshold`` is outside (0, 1].
    """
    if not seconds >= 0:
        raise ValueError(f"seconds must be at least 0, got {seconds}")
    if not window > 0:
        raise ValueError(f"window must be more than 0 seconds, got {window}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a share of the CPU in (0, 1], got {threshold}")
    end = time.monotonic() + seconds
    with tqdm(desc="waiting for a quiet machine", unit="look", disable=not progress, leave=False) as bar:
        while True:
            before = cpu_sample()
            time.sleep(window)
            share = foreign_share(before, cpu_sample())
            if share is None or share < threshold:
                return True
            if time.monotonic() >= end:
                return False
            bar.set_postfix_str(f"others use {share:.0%} of the CPU, {end - time.monotonic():.0f} s left")
            bar.update()


def cpu_sample(stat: Path = Path("/proc/stat")) -> CpuSample | None:
    """CPU time used so far, from the kernel's counters; None on a system without them."""
    try:
        with stat.open() as lines:
            label, *ticks = lines.readline().split()
        counts = [int(tick) for tick in ticks[:_CPU_FIELDS]]
    except (OSError, ValueError):
        return None
    if label != "cpu" or len(counts) < _CPU_FIELDS:
        return None
    second = os.sysconf("SC_CLK_TCK")
    idle = sum(counts[field] for field in _CPU_IDLE)
    return CpuSample(sum(counts) / second, (sum(counts) - idle) / second, time.process_time())


def foreign_share(before: CpuSample | None, after: CpuSample | None) -> float | None:
    """Share (0 to 1) of all cores that processes other than this one used between two samples.

    None when a sample is, or when they lie too close together. Time stolen by a virtual machine's host counts as used.
    """
    if before is None or after is None or after.total - before.total < _SHORTEST_SAMPLE:
        return None
    foreign = (after.busy - before.busy) - (after.own - before.own)
    return min(max(foreign / (after.total - before.total), 0.0), 1.0)


def _timed(
    fn: Callable[[], Any], passes: int, synchronize: Callable[[], Any], clock: Callable[[], float]
) -> list[float]:
    """Seconds of each of ``passes`` calls, each between two synchronizations."""
    seconds = []
    for _ in range(passes):
        synchronize()
        started = clock()
        fn()
        synchronize()
        seconds.append(clock() - started)
    return seconds


def _run(fn: Callable[[], Any], passes: int) -> None:
    for _ in range(passes):
        fn()


def _schedule(entries: int, passes: int, block: int, progress: bool) -> Iterator[tuple[int, int]]:
    """Pairs (entry, passes) whose blocks give every entry ``passes`` in all, each round in an order of its own."""
    shuffle = random.Random(ORDER_SEED).shuffle
    rounds = range(0, passes, block)
    for done in tqdm(rounds, desc="timing", unit="round", disable=not progress, mininterval=1):
        order = list(range(entries))
        shuffle(order)
        yield from ((entry, min(block, passes - done)) for entry in order)


def _latency(name: str, seconds: list[float], warmup: int) -> Latency:
    milliseconds = np.asarray(seconds) * 1e3
    p10, median, p90 = np.percentile(milliseconds, (10, 50, 90)).tolist()
    if p10 <= 0:
        raise ValueError(f"{name} takes less time than the clock resolves; let one call do more work")
    return Latency(median, p10, p90, milliseconds.min().item(), len(seconds), warmup)


def _reasons(
    latencies: Mapping[str, Latency], aa_ratio: float, share: float | None, waited: float | None
) -> tuple[str, ...]:
    """In words, each sign that the machine was not quiet."""
    reasons = []
    if waited is not None:
        reasons.append(f"the machine did not become quiet in {waited:g} s")
    if share is not None and share >= BUSY_SHARE:
        reasons.append(f"other processes used {share:.0%} of the CPU (limit {BUSY_SHARE:.0%})")
    widest = max(latencies, key=lambda name: latencies[name].spread)
    if (spread := latencies[widest].spread) > SPREAD_LIMIT:
        reasons.append(f"the passes of {widest} spread {spread:.2f}-fold from p10 to p90 (limit {SPREAD_LIMIT})")
    if abs(aa_ratio - 1) > AA_LIMIT:
        reasons.append(f"the same configuration timed twice differs, A/A ratio {aa_ratio:.3f} (limit 1 ± {AA_LIMIT})")
    return tuple(reasons)


def _synchronizer() -> Callable[[], Any]:
    """Waits for the accelerator torch sees; does nothing without one."""
    import torch

    return torch.accelerator.synchronize if torch.accelerator.is_available() else lambda: None


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        return None


def _check_configurations(fns: Mapping[str, Callable[[], Any]]) -> None:
    if not isinstance(fns, Mapping):
        raise TypeError(f"fns must be a mapping of names to callables, got {type(fns).__name__}")
    if not fns:
        raise ValueError("fns must hold at least one configuration to time, got none")
    for name, fn in fns.items():
        if not isinstance(name, str):
            raise TypeError(f"fns must have strings for names, got {name!r}")
        _check_callable(f"fns[{name!r}]", fn)


def _check_callable(argument: str, fn: Any) -> None:
    if not callable(fn):
        raise TypeError(f"{argument} must be a callable without arguments that runs one pass, got {type(fn).__name__}")
