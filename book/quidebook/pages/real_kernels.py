"""The page of real kernels: each library where the records were made, the knee by its latency, a roofline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from textwrap import shorten

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import kendalltau, spearmanr

from quide import metric
from quide.experiments import campaign, kernels, paper, select, tiny
from quide.experiments.kernels import SIMULATED
from quide.experiments.records import Record
from quide.models import registry
from quide.stats import Hits
from quidebook import report
from quidebook.report import UNKNOWN, Absent, gathered, tabled

SLIDER = Path(__file__).with_suffix(".html")
COMMAND = "quide run real_kernels --profile paper"
NO_RECORD = Absent("real kernels", f"pip install 'quide[deploy]' && {COMMAND}")
OF_WIDTH = {"32": 32, "32 channels last": 32, "bfloat16": 16, "8": 8}
DATASETS = dict(kernels.MODELS)
Setting = tuple[str, int, int]  # network, batch, threads
SHOWN = ("resnet18", "resnet20", "simplecnn", "resnet50")  # the paper's first
MARKERS = {1: ("o", report.BLUE), 64: ("s", report.ORANGE)}


@dataclass(frozen=True)
class KernelRecords:
    """What the page is made from: by network; by network, batch and threads; likewise."""

    accuracy: Mapping[str, Record]
    latency: Mapping[tuple[str, int, int], Record]
    roofline: Mapping[tuple[str, int, int], Record]
    tiny: Record | None = None
    linear: Mapping[tuple[int, int], Record] = field(default_factory=dict)  # by tokens and threads

    @property
    def used(self) -> list[Record]:
        """All of them."""
        made = [*self.accuracy.values(), *self.latency.values(), *self.roofline.values()]
        return [*made, *([self.tiny] if self.tiny else []), *self.linear.values()]


def found() -> KernelRecords:
    """The records there are; of several the one with most passes, then the quiet one."""
    timed = {}
    for kind in ("kernel_latency", "roofline"):
        there = sorted(
            select.known_in_full(kind), key=lambda one: (one.spec.details["passes"], not one.values["noisy"])
        )
        of = [(one.spec.model, one.spec.details["batch"], one.spec.details["environment"]["threads"]) for one in there]
        timed[kind] = dict(zip(of, there, strict=True))
    scored = {one.spec.model: one for one in select.known_in_full("kernel_accuracy")}
    linear: dict[tuple[int, int], list[Record]] = {}
    for one in select.known(kernels.LINEAR):
        linear.setdefault((one.spec.details["tokens"], one.spec.details["environment"]["threads"]), []).append(one)
    quiet = {shape: select.quietest(there) for shape, there in sorted(linear.items())}
    of_tiny = select.quietest(select.known(tiny.KIND))
    return KernelRecords(scored, timed["kernel_latency"], timed["roofline"], of_tiny, quiet)


def run(seeds: Sequence[int], profile: str) -> None:
    """Every run of the page where there is no record, at profile ``paper``; what cannot be had is said to be absent."""
    if profile != "paper":
        return
    for line in campaign.attempt([*kernels.wanted(seeds[0]), tiny.files(tiny.TinyCase())]):
        report.say(line)


def _median(record: Record, name: str) -> float:
    return record.values["latencies"][name]["median_ms"]


def _width(name: str) -> int:
    return OF_WIDTH[name.rpartition(", ")[0]]


def _timed(record: Record) -> list[str]:
    return [name for name in kernels.NAMES if name in record.values["latencies"]]


def fastest(record: Record, bits: int) -> str | None:
    """The name of the fastest artefact of a width; None where no library here has a kernel for it."""
    names = [name for name in _timed(record) if _width(name) == bits]
    return min(names, key=lambda name: _median(record, name)) if names else None


def shown(settings: Iterable[Setting]) -> Setting | None:
    """The setting that the page shows first: the paper's network where there is one, on one thread, most images."""
    return max(settings, key=lambda setting: (-SHOWN.index(setting[0]), -setting[2], setting[1]), default=None)


def in_words(setting: Setting) -> str:
    """Such as "ResNet-20, 64 images, 1 thread"."""
    model, batch, threads = setting
    return f"{_title(model)}, {batch} image{'s' * (batch > 1)}, {threads} thread{'s' * (threads > 1)}"


def _title(model: str) -> str:
    return registry.row(model, DATASETS[model]).title


@tabled
def kernel_table(known: KernelRecords, setting: Setting | None) -> Iterable[dict]:
    """Each artefact: its speed against the same library's FP32 and the fastest FP32 there is, accuracy, size."""
    if (record := known.latency.get(setting)) is None:
        return
    best, score = fastest(record, 32), known.accuracy.get(setting[0])
    for name in (SIMULATED, *_timed(record)):
        library = name.rpartition(", ")[2]
        own = [each for each in _timed(record) if each.endswith(f", {library}") and _width(each) == 32]
        same = min((_median(record, each) for each in own), default=np.nan)
        values = score.values if score and name in score.values["accuracy"] else None
        yield {
            "kernel": name,
            "ms": report.number(_median(record, name), 2),
            "times its library's 32": report.number(same / _median(record, name), 2),
            "times the fastest 32": report.number(_median(record, best) / _median(record, name), 2),
            "top-1": report.percent(values["accuracy"][name]) if values else UNKNOWN,
            "kB": f"{values['size'][name] / 1000:,.0f}" if values else UNKNOWN,
        }


def answer(known: KernelRecords) -> Mapping[str, object] | Absent:
    """:func:`best_facts` of the setting that is shown first."""
    setting, facts = shown(known.latency), {each["setting"]: each for each in best_facts(known)}
    if setting is None or in_words(setting) not in facts:
        return NO_RECORD
    quiet = [each for each in facts.values() if not each["noise"]] or [*facts.values()]
    most = max(quiet, key=lambda each: each["libraries"])
    where = {"most": most["libraries"], "most_setting": most["setting"]}
    return facts[in_words(setting)] | where


def machines(known: KernelRecords) -> str:
    """The CPU that each network was timed on, in words."""
    cpus = {(record.provenance["cpu"], model) for (model, _, _), record in known.latency.items()}
    named = {cpu: sorted((_title(model) for one, model in cpus if one == cpu), reverse=True) for cpu, _ in cpus}
    return "; ".join(f"{' and '.join(models)} on {report.plain(cpu)}" for cpu, models in sorted(named.items()))


@tabled
def speed_table(known: KernelRecords) -> Iterable[dict]:
    """In every setting: how many times as fast as the fastest FP32 the best and the worst 8 bits are, and others."""
    for facts in best_facts(known):
        yield {
            "setting": facts["setting"],
            "best 8-bit kernel": f"{facts['times']:.2f} ({facts['best'].rpartition(', ')[2]})",
            "worst 8-bit kernel": f"{facts['least']:.2f} ({facts['worst'].rpartition(', ')[2]})",
            "bfloat16": report.number(facts["half"], 2),
            "simulated 8 bits": report.number(facts["simulated"], 2),
            "timing": "noisy" if facts["noise"] else "quiet",
        }


@tabled
def changed_table(known: KernelRecords) -> Iterable[dict]:
    """Accuracy of the 8-bit artefacts against 32 bits, and how many images change class against the simulation."""
    for model, record in known.accuracy.items():
        values, hits = record.values, {name: Hits.unpacked(text) for name, text in record.values["correct"].items()}
        for name in (name for name in kernels.NAMES if name in hits and _width(name) == 8):
            yield {
                "8 bits by": name.rpartition(", ")[2],
                "network": _title(model),
                "change of top-1 (pp)": report.with_interval(hits[name].change(hits["32, PyTorch"]), 100),
                "in another class than simulated": f"{values['changed'][name]:,} of {values['images']:,}",
            }


@tabled
def width_table(known: KernelRecords) -> Iterable[dict]:
    """Which width has a kernel where the records were made, and why others have none."""
    for bits in paper.BITS:
        having = {name for one in known.latency.values() for name in _timed(one) if _width(name) == bits}
        reasons = {
            shorten(f"{name}: {why}", 80, placeholder=" ...")
            for one in known.latency.values()
            for name, why in one.values["absent"].items()
            if _width(name) == bits
        }
        none = "none for convolutions on a CPU: no latency is made up" if bits < 8 else UNKNOWN
        yield {
            "bits": str(bits),
            "kernels": "; ".join(sorted(having)) or none,
            "missing here": "; ".join(sorted(reasons)) or UNKNOWN,
        }


@tabled
def knee_table(known: KernelRecords, only: Setting | None = None) -> Iterable[dict]:
    """I' of each width with T simulated, with the fastest kernel's T, and with T left out; the best of each. In every
    setting, or one alone."""
    for (model, batch, threads), record in sorted(known.latency.items()):
        if (score := known.accuracy.get(model)) is None or only not in (None, (model, batch, threads)):
            continue
        floor = paper.threshold(registry.row(model, DATASETS[model]).condition, score.values["accuracy"]["32, PyTorch"])
        real = {bits: name for bits in (32, 16, 8) if (name := fastest(record, bits))}
        simulated = {32: "32 channels last, PyTorch", 8: SIMULATED}
        for kind, names in (("simulated", simulated), ("in the fastest kernel", real), ("left out", real)):
            index = {}
            for bits, name in names.items():
                ms = 1.0 if kind == "left out" else _median(record, name)
                accuracy = score.values["accuracy"].get(name, np.nan)
                index[bits] = float(metric.gated_index(metric.compression_ratio(bits), accuracy, ms, floor))
            yield {
                "setting": in_words((model, batch, threads)),
                "T": kind,
                "knee": str(metric.knee(list(index), list(index.values())) or UNKNOWN),
            } | {f"I' at {bits}": report.number(index.get(bits, np.nan)) for bits in (32, 16, 8)}


@gathered
def best_facts(known: KernelRecords) -> Iterator[dict[str, object]]:
    """For each timing: how many times as fast as the fastest FP32 the fastest 8-bit kernel is, and bfloat16, and the
    slowest 8-bit kernel; how many times the slowest library's best FP32 takes; noise."""
    for setting, record in sorted(known.latency.items()):
        base = _median(record, fastest(record, 32))
        eight = [name for name in _timed(record) if _width(name) == 8]
        if not eight:
            continue
        speed = {name: base / _median(record, name) for name in eight}
        best, half = max(speed, key=speed.get), fastest(record, 16)
        wide: dict[str, float] = {}
        for name in (name for name in _timed(record) if _width(name) == 32):
            library = name.rpartition(", ")[2]
            wide[library] = min(wide.get(library, np.inf), _median(record, name))
        yield {
            "setting": in_words(setting),
            "best": best, "library": best.rpartition(", ")[2], "times": speed[best],
            "worst": min(speed, key=speed.get), "least": min(speed.values()),
            "half": base / _median(record, half) if half else np.nan,
            "simulated": base / _median(record, SIMULATED),
            "libraries": max(wide.values()) / base,
            "noise": report.noise(record.values["reasons"]),
        }  # fmt: skip


# --- linear layers of language models --------------------------------------------------------------------------------


def _fastest_linear(record: Record) -> float:
    """Milliseconds of the faster library's float32."""
    return min(_median(record, name) for name in kernels.LINEARS if name.startswith("32"))


@tabled
def linear_table(known: KernelRecords) -> Iterable[dict]:
    """The layer at each width, by tokens and threads, against the fastest float32."""
    for (tokens, threads), record in known.linear.items():
        base = _fastest_linear(record)
        yield {
            "tokens": str(tokens),
            "threads": str(threads),
            "float32 (ms)": report.number(base, 1),
        } | {f"{bits} bits": f"{base / _median(record, bits):.2f} times" for bits in kernels.LINEARS[1:-1]}


def linear_facts(known: KernelRecords) -> Mapping[str, object] | Absent:
    """Facts: on one thread how many times as fast as float32 4 bits are for one token, and for the most."""
    alone = {tokens: record for (tokens, threads), record in known.linear.items() if threads == 1}
    if not alone:
        return NO_RECORD
    few, many = (_fastest_linear(alone[tokens]) / _median(alone[tokens], "4") for tokens in (min(alone), max(alone)))
    size, cpus = alone[min(alone)].values["size"], {record.provenance["cpu"] for record in known.linear.values()}
    return {
        "few": few, "many": many, "tokens": max(alone), "smaller": size[kernels.LINEARS[0]] / size["4"],
        "rows": f"{kernels.ROWS:,}", "columns": f"{kernels.COLUMNS:,}",
        "cpu": report.plain(" and ".join(sorted(cpus))),
        "noise": report.noise([reason for record in known.linear.values() for reason in record.values["reasons"]]),
    }  # fmt: skip


# --- MLPerf Tiny -----------------------------------------------------------------------------------------------------


@tabled
def tiny_table(known: KernelRecords) -> Iterable[dict]:
    """The benchmark's two files, run here: top-1, latency of an image, size, and I."""
    if known.tiny is None:
        return
    values = known.tiny.values
    for bits in tiny.FILES:
        accuracy, ms = values["accuracy"][bits], _median(known.tiny, bits)
        index = metric.intelligence_index(metric.compression_ratio(int(bits)), accuracy, ms)
        yield {
            "bits": bits,
            "top-1 (%)": report.with_interval(Hits.unpacked(values["correct"][bits]).interval(), 100),
            "ms per image": report.number(ms, 3),
            "kB": f"{values['size'][bits] / 1000:,.0f}",
            "I": report.number(index, 2),
        }


def boards() -> pd.DataFrame:
    """What is published of the boards whose energy was measured, by I with T: ms an inference, mJ, and I by each. All
    at 8 bits, since where all are compressed alike compression moves no rank."""
    table = paper.mlperf_tiny().dropna(subset="energy_uj")
    table["ms"], table["mJ"] = 1000 / table.inferences_per_s, table.energy_uj / 1000
    for name, cost in (("I_T", table.ms), ("I_E", table.mJ)):
        table[name] = metric.intelligence_index(metric.compression_ratio(8), table.accuracy / 100, cost)
    return table.sort_values("I_T", ascending=False)


def board_table() -> pd.DataFrame:
    """:func:`boards`, as printed."""
    ranks = boards()[["I_T", "I_E"]].rank(ascending=False).astype(int)
    rows = [
        {
            "board": f"{row.board} ({row.organization})",
            "top-1 (%)": report.number(row.accuracy, 1),
            "ms, rank by I": f"{row.ms:.1f}, {ranks.I_T[row.Index]}",
            "mJ, rank by I": f"{row.mJ:.2f}, {ranks.I_E[row.Index]}",
        }
        for row in boards().itertuples()
    ]
    return pd.DataFrame(rows)


def board_facts() -> Mapping[str, object]:
    """How far the two orders of the boards agree (Kendall's tau), on how many; and on how many boards that one
    submitter ran at 32 and 8 bits how many times as fast 8 bits are, from least to most."""
    scored, table = boards(), paper.mlperf_tiny()
    wide, narrow = (table[table.bits == bits].set_index("board").inferences_per_s for bits in (32, 8))
    times = (narrow / wide).dropna()
    return {
        "boards": len(scored), "tau": float(kendalltau(scored.I_T, scored.I_E).statistic),
        "pairs": len(times), "least": times.min(), "slowest": times.idxmin(), "most": times.max(),
    }  # fmt: skip


# --- roofline --------------------------------------------------------------------------------------------------------


def _of_layers(record: Record) -> Iterator[np.ndarray]:
    """Operations, bytes and milliseconds of each layer."""
    return (np.array([layer[key] for layer in record.values["layers"]]) for key in ("flops", "bytes", "ms"))


def peak(record: Record) -> float:
    """Operations a second in float32: of torch's product of matrices, or of the fastest layer, which on some CPUs has
    the better kernel."""
    flops, _, taken = _of_layers(record)
    return max(record.values["peak"]["float32"], 1000 * float((flops / taken).max()))


def predicted(record: Record) -> np.ndarray:
    """Milliseconds of each layer by the roofline: the longer of its bytes and its operations at this CPU's peaks."""
    flops, moved, _ = _of_layers(record)
    return 1000 * np.maximum(flops / peak(record), moved / record.values["bandwidth"])


@gathered
def roofline_facts(known: KernelRecords) -> Iterator[dict[str, object]]:
    """Of each measurement: bandwidth (GB/s), peak (GFLOP/s), the ridge, layers left of it, and the rank correlation of
    predicted with measured time, of the intensity with the speed reached, and how many times longer layers take."""
    for (model, batch, threads), record in sorted(known.roofline.items()):
        values, expected = record.values, predicted(record)
        flops, moved, taken = _of_layers(record)
        ridge = peak(record) / values["bandwidth"]
        yield {
            "network": model, "batch": batch, "threads": threads, "setting": in_words((model, batch, threads)),
            "layers": len(taken),
            "bandwidth": values["bandwidth"] / 1e9, "peak": peak(record) / 1e9,
            "int8": values["peak"].get("int8", np.nan) / 1e9, "half": values["peak"].get("bfloat16", np.nan) / 1e9,
            "ridge": ridge, "memory_bound": int((flops / moved < ridge).sum()),
            "rho": float(spearmanr(expected, taken).statistic),
            "rho_intensity": float(spearmanr(flops / moved, flops / taken).statistic),
            "longer": float(np.median(taken / expected)),
            "noise": report.noise(values["reasons"]),
        }  # fmt: skip


def first(facts: Sequence[Mapping[str, object]]) -> Mapping[str, object] | Absent:
    """Those of the setting that is shown first."""
    by = {(one["network"], one["batch"], one["threads"]): one for one in facts}
    return by[shown(by)] if by else NO_RECORD


def figure_roofline(known: KernelRecords) -> tuple[Figure, str]:
    """A figure and what is seen: every layer's speed against its intensity, below the roof; a panel a ResNet."""
    one_thread = {(name, batch): one for (name, batch, count), one in sorted(known.roofline.items()) if count == 1}
    networks = [name for name in SHOWN if name.startswith("resnet") and any(name == each for each, _ in one_thread)]
    figure, axes = report.panels(len(networks), height=3.4)
    words = []
    for axis, network in zip(axes, networks, strict=True):
        longer = []
        for (name, batch), record in one_thread.items():
            if name == network:
                longer.append(_draw_roof(axis, batch, record))
                words.append(f"{_title(name)}, {_roof_in_words(batch, record)}")
        axis.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s reached")
        axis.set_title(f"{_title(network)}: median layer up to\n{max(longer):.1f} times the roof's time")
        axis.legend()
    return figure, "; ".join(words) + "."


def _draw_roof(axis: Axes, batch: int, record: Record) -> float:
    """Layers of a measurement under its roof; how many times longer than that allows the median one takes."""
    marker, colour = MARKERS.get(batch, ("^", report.GREEN))
    flops, moved, taken = _of_layers(record)
    axis.plot(flops / moved, flops / taken / 1e6, marker, color=colour, fillstyle="none", label=f"batch {batch}")
    x = np.geomspace(min(flops / moved) / 2, max(flops / moved) * 2, 50)
    axis.plot(x, np.minimum(peak(record), record.values["bandwidth"] * x) / 1e9, color=report.GREY)
    return float(np.median(taken / predicted(record)))


def _roof_in_words(batch: int, record: Record) -> str:
    bandwidth, layers = record.values["bandwidth"] / 1e9, len(record.values["layers"])
    return f"batch {batch}: {layers} layers under a roof of {peak(record) / 1e9:.0f} GFLOP/s and {bandwidth:.1f} GB/s"


def slider(known: KernelRecords) -> str:
    """HTML: the share of layers that bytes limit, by batch, moved by a slider; it needs no server."""
    if (setting := shown(each for each in known.roofline if each[1] == 1)) is None:
        return ""
    record = known.roofline[setting]
    rows = [
        [layer["flops"], weight, layer["bytes"] - weight]
        for layer, weight in zip(record.values["layers"], kernel_weights(known, setting[0]), strict=True)
    ]
    return Template(SLIDER.read_text()).substitute(rows=rows, ridge=peak(record) / record.values["bandwidth"])


def kernel_weights(known: KernelRecords, model: str) -> list[float]:
    """Bytes of each layer that a batch does not multiply, from the traffic at two batches."""
    by = {batch: one for (name, batch, _), one in sorted(known.roofline.items(), reverse=True) if name == model}
    (small, few), (large, many) = ((batch, by[batch].values["layers"]) for batch in (min(by), max(by)))
    if small == large:
        return [0.0 for _ in few]
    return [
        one["bytes"] - small * (other["bytes"] - one["bytes"]) / (large - small)
        for one, other in zip(few, many, strict=True)
    ]
