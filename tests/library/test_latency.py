"""Timing: the protocol is what the paper says, drift cancels, and a busy machine is noticed. Clocks are fake."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from quide import latency
from quide.latency import CpuSample, Latency


class Machine:
    """A fake machine: passes advance its clock, synchronize and clock calls are logged."""

    def __init__(self, slowdown=lambda now: 1.0):
        self.now = 0.0
        self.slowdown = slowdown
        self.log = []

    def clock(self):
        self.log.append("clock")
        return self.now

    def synchronize(self):
        self.log.append("sync")

    def work(self, name, seconds):
        def fn():
            self.log.append(name)
            self.now += seconds * self.slowdown(self.now)

        return fn

    @property
    def tools(self):
        return {"synchronize": self.synchronize, "clock": self.clock}


@pytest.fixture(autouse=True)
def cpu(monkeypatch):
    """CPU counters under the test's control: what ``cpu_sample`` returns, call by call; the last one stays."""
    samples = [None]
    monkeypatch.setattr(latency, "cpu_sample", lambda: samples.pop(0) if len(samples) > 1 else samples[0])
    return samples


# --- one configuration


def test_a_pass_is_timed_between_two_synchronizations():
    machine = Machine()
    timed = latency.measure_latency(machine.work("pass", 0.002), warmup=2, passes=3, **machine.tools)
    assert machine.log == ["pass"] * 2 + ["sync", "clock", "pass", "sync", "clock"] * 3
    assert (timed.warmup, timed.passes) == (2, 3)
    assert timed.median_ms == pytest.approx(2.0) and timed.spread == pytest.approx(1.0)


def test_the_protocol_is_the_papers_by_default():
    calls = []
    timed = latency.measure_latency(lambda: calls.append(torch.is_inference_mode_enabled()))
    assert (timed.warmup, timed.passes) == (100, 1000)
    assert calls == [True] * 1100 and not torch.is_inference_mode_enabled()


def test_quantiles_are_over_the_timed_passes_in_milliseconds():
    machine, costs = Machine(), iter([9.0, 9.0, *np.arange(1, 102) / 1e3])

    def fn():
        machine.now += next(costs)

    timed = latency.measure_latency(fn, warmup=2, passes=101, **machine.tools)
    assert timed.median_ms == pytest.approx(51) and timed.min_ms == pytest.approx(1)
    assert (timed.p10_ms, timed.p90_ms) == (pytest.approx(11), pytest.approx(91))
    assert timed.spread == pytest.approx(91 / 11)


def test_a_real_clock_agrees_with_timing_by_hand():
    by_hand = []

    def fn():
        started = time.perf_counter()
        time.sleep(0.002)
        by_hand.append(time.perf_counter() - started)

    timed = latency.measure_latency(fn, warmup=1, passes=25)
    expected = statistics.median(by_hand[1:]) * 1e3
    assert expected <= timed.median_ms < expected * 1.5


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator")
def test_the_accelerator_is_waited_for():
    matrix = torch.rand(4096, 4096, device=torch.accelerator.current_accelerator())
    launched = latency.measure_latency(lambda: matrix @ matrix, 5, 20, synchronize=lambda: None)
    torch.accelerator.synchronize()
    assert latency.measure_latency(lambda: matrix @ matrix, 5, 20).min_ms > launched.min_ms


def test_synchronize_defaults_to_the_accelerators(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: calls.append(1))
    latency.measure_latency(lambda: None, warmup=1, passes=4)
    assert len(calls) == 8
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    latency.measure_latency(lambda: None, warmup=1, passes=4)
    assert len(calls) == 8


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "10", None])
@pytest.mark.parametrize("argument", ["warmup", "passes"])
def test_counts_must_be_positive_integers(argument, bad):
    with pytest.raises(ValueError, match=f"{argument} must be a whole number .*1.*, got {bad!r}"):
        latency.measure_latency(lambda: None, **{argument: bad})
    with pytest.raises(ValueError, match=argument):
        latency.measure_interleaved({"a": lambda: None}, **{argument: bad})


def test_numpy_counts_are_integers():
    timed = latency.measure_latency(lambda: None, np.int64(1), np.int32(2))
    assert type(timed.passes) is int and timed.passes == 2


def test_what_cannot_be_timed_is_refused():
    with pytest.raises(TypeError, match="fn must be a callable"):
        latency.measure_latency(torch.zeros(1))
    with pytest.raises(ValueError, match="fn takes less time than the clock"):
        latency.measure_latency(lambda: None, 1, 3, clock=lambda: 0.0)
    with pytest.raises(ZeroDivisionError):
        latency.measure_latency(lambda: 1 / 0)
    assert not torch.is_inference_mode_enabled()


# --- several configurations


def interleaved(machine, costs, **settings):
    settings = {"warmup": 5, "passes": 200, **machine.tools, **settings}
    return latency.measure_interleaved({name: machine.work(name, cost) for name, cost in costs.items()}, **settings)


def test_every_configuration_gets_its_passes_and_the_first_is_timed_twice():
    machine = Machine()
    timings = interleaved(machine, {"fp32": 0.001, "int8": 0.003}, warmup=4, passes=25, block=10)
    assert list(timings.latencies) == ["fp32", "int8"]
    assert {(t.passes, t.warmup) for t in timings.latencies.values()} == {(25, 4)}
    passes = 4 + 25 + 3  # warm-up, timed, and one untimed before each of the blocks of 10, 10 and 5
    assert (machine.log.count("fp32"), machine.log.count("int8")) == (2 * passes, passes)
    assert [timed.median_ms for timed in timings.latencies.values()] == pytest.approx([1, 3])
    assert timings.aa_ratio == pytest.approx(1) and timings.reasons == () and not timings.noisy


def runs(log):
    """Names in the order in which blocks of one configuration follow each other."""
    names = [entry for entry in log if entry not in ("sync", "clock")]
    return [name for name, before in zip(names, [None, *names], strict=False) if name != before]


def test_configurations_take_turns_in_an_order_that_is_shuffled_but_repeatable():
    logs = []
    for _ in range(2):
        machine = Machine()
        interleaved(machine, {"a": 0.001, "b": 0.001, "c": 0.001}, passes=100, block=10)
        logs.append(machine.log)
    assert logs[0] == logs[1]
    turns = runs(logs[0])
    assert len(turns) > 25  # ten rounds of four entries, of which now and then two neighbours are the same
    assert {(a, b) for a, b in zip(turns, turns[1:], strict=False)} == {
        (a, b) for a in "abc" for b in "abc" if a != b
    }  # fmt: skip


def test_passes_run_in_inference_mode():
    modes = []
    latency.measure_interleaved({"a": lambda: modes.append(torch.is_inference_mode_enabled())}, 1, 2)
    assert set(modes) == {True} and not torch.is_inference_mode_enabled()


SLOWDOWNS = {
    "ever slower": lambda now: 1 + now,
    "throttled halfway": lambda now: 1.0 if now < 1 else 2.5,
    "one slow minute": lambda now: 4.0 if 0.45 < now < 1.8 else 1.0,
}


@pytest.mark.parametrize("slowdown", SLOWDOWNS.values(), ids=SLOWDOWNS)
def test_drift_cancels_between_configurations(slowdown):
    costs = {"a": 0.001, "b": 0.0012, "c": 0.002}
    machine = Machine(slowdown)
    timings = interleaved(machine, costs, passes=400)
    one_by_one = Machine(slowdown)
    alone = {
        name: latency.measure_latency(one_by_one.work(name, cost), 5, 400, **one_by_one.tools)
        for name, cost in costs.items()
    }

    def error(latencies):
        return max(
            abs(latencies[name].median_ms / latencies["a"].median_ms / (cost / costs["a"]) - 1)
            for name, cost in costs.items()
        )

    assert error(timings.latencies) < 0.05 < 0.3 < error(alone)
    assert timings.aa_ratio == pytest.approx(1, abs=0.05)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="fns must hold at least one"):
        latency.measure_interleaved({})
    with pytest.raises(TypeError, match="fns must be a mapping"):
        latency.measure_interleaved([print])
    with pytest.raises(TypeError, match=r"fns\['b'\] must be a callable"):
        latency.measure_interleaved({"a": print, "b": 3})
    with pytest.raises(TypeError, match="strings for names, got 8"):
        latency.measure_interleaved({8: print})
    with pytest.raises(ValueError, match="block"):
        latency.measure_interleaved({"a": print}, block=0)
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match="wait_s"):
            latency.measure_interleaved({"a": print}, wait_s=bad)
    with pytest.raises(ValueError, match="b takes less time than the clock"):
        machine = Machine()
        interleaved(machine, {"a": 0.001, "b": 0.0})


def test_progress_is_shown_when_asked_for(capfd):
    interleaved(Machine(), {"a": 0.001})
    assert capfd.readouterr().err == ""
    interleaved(Machine(), {"a": 0.001}, progress=True)
    assert "timing" in capfd.readouterr().err


def test_json_form():
    timings = interleaved(Machine(), {"a": 0.001, "b": 0.002})
    content = timings.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["noisy"] is False and content["reasons"] == []
    assert Latency(**content["latencies"]["b"]) == timings.latencies["b"]
    assert timings.latencies["b"].to_dict() == content["latencies"]["b"]


# --- a busy machine


def sample(seconds, foreign, own):
    """Counters of two cores ``seconds`` after the start, others and this process having used so much CPU time."""
    return CpuSample(total=2 * seconds, busy=foreign + own, own=own)


def test_the_share_of_others():
    start = sample(0, 0, 0)
    assert latency.foreign_share(start, sample(10, foreign=5, own=9)) == pytest.approx(0.25)
    assert latency.foreign_share(start, sample(10, foreign=0, own=20)) == 0
    assert latency.foreign_share(start, sample(10, foreign=-0.1, own=20)) == 0  # the counters are coarse
    assert latency.foreign_share(start, sample(0.05, foreign=0.1, own=0)) is None
    assert latency.foreign_share(None, start) is None and latency.foreign_share(start, None) is None


@pytest.mark.parametrize("foreign, noisy", [(0.5, False), (2.0, True)])
def test_work_of_others_during_the_run_is_reported(cpu, foreign, noisy):
    cpu[:] = [sample(0, 0, 0), sample(10, foreign, own=9)]
    timings = interleaved(Machine(), {"a": 0.001})
    assert timings.foreign_cpu_share == pytest.approx(foreign / 20)
    assert timings.noisy is noisy
    assert [("other processes used 10%" in reason) for reason in timings.reasons] == [True] * noisy


def test_a_wide_spread_is_reported_with_the_configuration():
    machine = Machine()
    cost = iter(np.tile([0.001] * 7 + [0.002] * 3, 1000))

    def jumpy():
        machine.now += next(cost)

    fns = {"steady": machine.work("steady", 0.001), "jumpy": jumpy}
    timings = latency.measure_interleaved(fns, 5, 200, **machine.tools)
    [reason] = timings.reasons
    assert timings.noisy and "jumpy" in reason and "2.00-fold" in reason


def test_an_a_a_pair_that_differs_is_reported():
    machine = Machine()
    entries = latency._schedule(2, 200, 10, progress=False)
    cost = iter([0.001] * 10 + [0.001 * (1.2 if entry else 1) for entry, count in entries for _ in range(count + 1)])

    def fn():
        machine.now += next(cost)

    timings = latency.measure_interleaved({"a": fn}, 5, 200, **machine.tools)
    assert timings.aa_ratio == pytest.approx(1.2)
    [reason] = timings.reasons
    assert "A/A ratio 1.200" in reason


@pytest.fixture
def asleep(monkeypatch):
    """``time`` in which sleeping takes no time; holds the seconds slept."""
    slept = []
    monkeypatch.setattr(latency.time, "sleep", slept.append)
    monkeypatch.setattr(latency.time, "monotonic", lambda: sum(slept))
    return slept


def busy_until(quiet_at):
    """Counter pairs of one-second looks at a machine whose other work ends after so many of them."""
    pairs = [[sample(0, 0, 0), sample(1, foreign=1.5 if look < quiet_at else 0.02, own=0)] for look in range(20)]
    return [one for pair in pairs for one in pair]


def test_waiting_ends_when_the_machine_is_quiet(cpu, asleep, capfd):
    cpu[:] = busy_until(3)
    assert latency.wait_for_quiet(10)
    assert sum(asleep) == 4
    assert "others use 75% of the CPU" in capfd.readouterr().err


def test_waiting_is_bounded(cpu, asleep, capfd):
    cpu[:] = busy_until(100)
    assert not latency.wait_for_quiet(5, progress=False)
    assert sum(asleep) == 5
    assert capfd.readouterr().err == ""
    cpu[:] = busy_until(100)
    assert latency.wait_for_quiet(5, threshold=0.8)


def test_nothing_to_wait_for_where_the_system_does_not_tell(asleep):
    assert latency.wait_for_quiet(60)
    assert sum(asleep) == 1


def test_a_machine_that_never_gets_quiet_is_timed_and_marked(cpu, asleep):
    cpu[:] = [*busy_until(100)[:6], None]
    timings = interleaved(Machine(), {"a": 0.001}, wait_s=3)
    assert timings.reasons == ("the machine did not become quiet in 3 s",)
    cpu[:] = [*busy_until(1)[:4], None]
    assert not interleaved(Machine(), {"a": 0.001}, wait_s=3).noisy


@pytest.mark.parametrize("settings, named", [
    ({"seconds": -1}, "seconds"), ({"seconds": float("nan")}, "seconds"), ({"seconds": 1, "window": 0}, "window"),
    ({"seconds": 1, "threshold": 0}, "threshold"), ({"seconds": 1, "threshold": 5}, "threshold"),
])  # fmt: skip
def test_bad_waits_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        latency.wait_for_quiet(**settings)


# --- the real counters


@pytest.fixture
def counters(monkeypatch):
    monkeypatch.undo()
    first = latency.cpu_sample()
    if first is None or first.total == 0:
        pytest.skip("the system has no CPU counters")
    return first


def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_own_work_is_told_from_others(counters):
    spin(0.3)
    mine = latency.cpu_sample()
    assert mine.own - counters.own >= 0.3
    assert mine.total - counters.total + 1e-6 >= mine.busy - counters.busy >= 0.2


def test_a_busy_neighbour_is_seen(counters):
    endless = "print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", endless], stdout=subprocess.PIPE) as neighbour:
        try:
            neighbour.stdout.readline()
            before = latency.cpu_sample()
            time.sleep(1.5)
            share = latency.foreign_share(before, latency.cpu_sample())
        finally:
            neighbour.kill()
    assert share > 0.3 / os.cpu_count()


def test_counters_that_are_not_there_or_make_no_sense(tmp_path, monkeypatch):
    monkeypatch.undo()
    stat = tmp_path / "stat"
    assert latency.cpu_sample(stat) is None
    for content in ("", "cpu 1 2 3\n", "cpu a b c d e f g h\n", "intr 1 2 3 4 5 6 7 8\n"):
        stat.write_text(content)
        assert latency.cpu_sample(stat) is None
    tick = 1 / os.sysconf("SC_CLK_TCK")
    stat.write_text("cpu  100 20 30 1000 50 6 7 8 90 10\ncpu0 1 2 3\n")  # the last two are contained in the first
    found = latency.cpu_sample(stat)
    assert found.total == pytest.approx(1221 * tick) and found.busy == pytest.approx(171 * tick)


def test_results_are_frozen():
    timed = Latency(1.0, 0.9, 1.2, 0.8, 10, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        timed.median_ms = 0.5
