"""The what-if page: what is known of each network, the choices behind a score, and what each choice makes of it.

Python scores the page as it opens; ``book/_static/what_if.js`` scores it again in the browser when a reader moves a
control. Both use the formulas of :mod:`quide.metric`, and a test holds them together.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pandas as pd

from quide import evaluate, latency, metric
from quide.evaluate import PAPER_BITS, label
from quide.experiments import paper, records, runs
from quide.experiments.mixed import FULL_PRECISION
from quide.experiments.recipes import SEARCHED
from quide.models.networks import SimpleCNN
from quide.search import Configuration
from quidebook import report
from quidebook.evidence import scores
from quidebook.report import UNKNOWN
from quidebook.shared import landscape
from quidebook.shared.landscape import Landscapes

Widths = int | Configuration  # of all layers, or one a layer
PROFILES = ("paper", "quick", "smoke")  # whose records are taken, the first that has any
WIDTH = metric.FULL_PRECISION_BITS
FIGURES = 4  # significant digits of latencies and scores
STEP = 0.01  # of the tolerance
START, MIXED, RESNET = "cifar10-simplecnn-measured", "cifar10-simplecnn-mixed", "cifar10-resnet18-paper"
PUBLISHED = "published"  # source of a network that others have trained
IMAGENET = "imagenet-resnet18-paper"
SUMMED = ", and below 32 bits summed over the layers as in EXP-3"


@dataclass(frozen=True)
class Option:
    """One position of a control: its words, a note on it, and for a unit, how many there are in a millisecond."""

    words: str
    note: str = ""
    factor: float = 1.0

    @property
    def text(self) -> str:
        """As shown beside the control."""
        return f"{self.words} ({self.note})" if self.note else self.words


UNITS = {
    "ms-batch": Option("ms per batch", "the paper's"),
    "ms-image": Option("ms per image", f"a batch has {latency.BATCH_SIZE}", 1 / latency.BATCH_SIZE),
    "s-batch": Option("s per batch", factor=1e-3),
    "us-batch": Option("µs per batch", factor=1e3),
}
COUNTS = {
    "nominal": Option("every layer alike", "nominal, the paper's"),
    "size": Option("every weight alike", "by size"),
}
KERNELS = {
    "measured": Option("measured", "here, quantization simulated"),
    "paper": Option("the paper's", "where its text states or implies them"),
    "ideal": Option("ideal", "time proportional to the bits of the weights"),
    "equal": Option("all equal", "rounding costs and saves no time"),
}


@dataclass(frozen=True)
class Choice:
    """Where the controls stand; ``tolerance`` None is the paper's for the network's task."""

    network: str
    kernel: str
    unit: str = "ms-batch"
    count: str = "nominal"
    tolerance: float | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """One network on one task, with accuracies from one source.

    Attributes:
        key: its name in the page's address.
        label: its name on the page.
        table: one row a configuration, from the most bits to the fewest, indexed by name such as ``8 bits``. Columns:
            ``bits`` (one width, or a tuple with one a layer), ``accuracy`` (fraction), ``accuracy_origin``, and a
            latency in ms for each of :data:`KERNELS`, with ``paper_origin``. NaN is unknown.
        full_precision: P_FP of Eq. 4; ``tolerance`` and ``num_classes`` likewise.
        num_weights: of each layer, for counting compression by size; None where it is not known.
        kernel: the latencies that belong with the accuracies.
        accuracy_source, latency_sources: where the numbers are from; the second has an entry a kernel that is known.
    """

    key: str
    label: str
    table: pd.DataFrame
    full_precision: float
    tolerance: float
    num_classes: int
    num_weights: tuple[int, ...] | None
    kernel: str
    accuracy_source: str
    latency_sources: Mapping[str, str]

    def start(self) -> Choice:
        """Everything as the paper has it, with the network's own latencies."""
        return Choice(self.key, self.kernel)

    def threshold(self, tolerance: float | None = None) -> float:
        """Eq. 4, with the paper's tolerance unless another is given."""
        delta = self.tolerance if tolerance is None else tolerance
        return metric.accuracy_threshold(self.full_precision, delta, self.num_classes)

    def compression(self, count: str) -> list[float]:
        """C of each configuration, NaN where it hangs on layer sizes that are not known."""
        return [_compression(bits, count, self.num_weights) for bits in self.table.bits]

    def scores(self, choice: Choice) -> pd.DataFrame:
        """Compression, accuracy, latency (in the choice's unit), index and gated_index by name; NaN is unknown."""
        frame = pd.DataFrame({"compression": self.compression(choice.count)}, index=self.table.index)
        frame["accuracy"] = self.table.accuracy
        frame["latency"] = self.table[choice.kernel] * UNITS[choice.unit].factor
        known = frame.notna().all(axis=1)
        parts = [frame.loc[known, column] for column in ("compression", "accuracy", "latency")]
        frame[["index", "gated_index"]] = math.nan
        if known.any():
            frame.loc[known, "index"] = metric.intelligence_index(*parts)
            frame.loc[known, "gated_index"] = metric.gated_index(*parts, self.threshold(choice.tolerance))
        return frame

    def best(self, choice: Choice, score: str = "gated_index") -> str | None:
        """Name of the configuration with the highest score, the knee if it is I'; None if no score is above 0.

        Of equal scores the configuration with more bits wins, as in :func:`quide.metric.knee`.
        """
        found = self.scores(choice)[score].dropna()
        return found.idxmax() if len(found) and found.max() > 0 else None


def _compression(bits: Widths, count: str, num_weights: tuple[int, ...] | None) -> float:
    """C by one of :data:`COUNTS`; with one width for all layers both agree."""
    if count == "nominal" or isinstance(bits, int):
        return metric.compression_ratio(bits)
    return math.nan if num_weights is None else metric.compression_ratio(bits, num_weights)


# --- what is known ---------------------------------------------------------------------------------------------------


def networks(profile: str = "quick") -> dict[str, Network]:
    """Every network of which at least two accuracies and one latency are known, by key; measured ones first.

    Args:
        profile: whose records of mixed precision are taken where the paper profile has none.
    """
    mixed = landscape.known(profile)
    measured = {name: found for case, name in runs.CONDITION.items() if (found := _measured(*case)) is not None}
    candidates = [_measured_network(name, *found) for name, found in measured.items()]
    candidates += [
        _measured_network(name, *found, beside=runs.published_network(case[0]).title)
        for case, name in runs.BESIDE.items()
        if (found := _measured(*case)) is not None
    ]
    if mixed is not None:
        candidates.append(_mixed_network(mixed))
    for name in paper.conditions().index:
        swept = measured[name][1] if name in measured else None
        candidates.append(_paper_network(name, swept, mixed if name == landscape.CONDITION else None))
    return {network.key: network for network in candidates if _comparable(network)}


def records_used(profile: str = "quick") -> list[records.Record]:
    """The records behind :func:`networks`."""
    measured = [found for case in runs.CONDITION | runs.BESIDE if (found := _measured(*case)) is not None]
    mixed = landscape.known(profile)
    return [record for _, found in measured for record in found.records] + (mixed.used if mixed else [])


def _comparable(network: Network) -> bool:
    return network.table.accuracy.notna().sum() > 1 and network.table[network.kernel].notna().any()


def _measured(model: str, dataset: str) -> tuple[str, scores.Measured] | None:
    """The first profile with records of a network, and what they hold."""
    for profile in PROFILES:
        if (found := scores.measured(model, dataset, profile)) is not None:
            return profile, found
    return None


def _measured_network(condition: str, profile: str, found: scores.Measured, beside: str = "") -> Network:
    """Ours; ``beside`` names the network where it is not the paper's but stands beside it."""
    source, whose = (PUBLISHED, f"{beside} instead, as published, ") if beside else ("measured", "")
    summary = found.summary().set_index("bits")
    table = _table({bits: summary.accuracy[bits] for bits in PAPER_BITS}, "measured")
    table["measured"] = summary.latency_ms.loc[list(PAPER_BITS)].to_numpy()
    return _network(
        condition, source, f"{whose}measured here{_unless_paper(profile)}", table, float(summary.accuracy[WIDTH]),
        _averaged(found.seeds, profile), _timed(found.device, found.noisy),
    )  # fmt: skip


def _mixed_network(found: Landscapes) -> Network:
    """The uniform widths, the paper's topology, and the best of all configurations under each way to count C."""
    lands = list(found.landscapes.values())
    main, accuracy = found.main, np.mean([land.accuracy for land in lands], axis=0)
    full_precision = float(np.mean([land.reference.mean() for land in lands]))
    facts = paper.conditions().loc[landscape.CONDITION]
    threshold = metric.accuracy_threshold(full_precision, float(facts.tolerance), int(facts.num_classes))
    shown = {(bits,) * len(main.num_weights) for bits in PAPER_BITS if bits != WIDTH} | {SEARCHED}
    for counted in (main, main.size_weighted()):
        index = metric.gated_index(counted.compression, accuracy, main.latency_ms, threshold)
        shown.add(main.configurations[int(index.argmax())])
    known = {WIDTH: full_precision} | {_shortened(each): float(accuracy[main.index_of(each)]) for each in shown}
    table = _table(known, "measured")
    table["measured"] = _mixed_latencies(found, table.bits)
    note = f" It has {len(main.configurations)} configurations; the best by each way to count C are among those shown."
    return _network(
        landscape.CONDITION, "mixed", f"mixed precision, measured here{_unless_paper(found.profile)}", table,
        full_precision,
        _averaged(found.landscapes, found.profile) + note, _timed(found.device, found.timed.values["reasons"], SUMMED),
    )  # fmt: skip


def _paper_network(condition: str, swept: scores.Measured | None, mixed: Landscapes | None) -> Network:
    """The paper's numbers; measured latencies beside them from the run that timed all its configurations, if any did.

    Args:
        condition: its name.
        swept: measurements of the uniform widths.
        mixed: measurements of mixed precision.
    """
    known = _paper_cells(condition, "accuracy")
    table = _table({bits: value for bits, (value, _) in known.items()}, "unknown")
    table["accuracy_origin"] = [known[bits][1] for bits in table.bits]
    table["measured"], timed = math.nan, None
    if mixed is not None:
        table["measured"] = _mixed_latencies(mixed, table.bits)
        timed = _timed(mixed.device, mixed.timed.values["reasons"], SUMMED)
    elif swept is not None:
        table["measured"] = swept.summary().set_index("bits").latency_ms.reindex(table.bits).to_numpy()
        timed = _timed(swept.device, swept.noisy)
    full_precision = float(paper.conditions().loc[condition, "full_precision_accuracy"])
    source = "Accuracies: stated in the paper's text, or implied by it (†)."
    return _network(condition, "paper", "the paper's numbers", table, full_precision, source, timed)


def _network(
    condition: str,
    source: str,
    words: str,
    table: pd.DataFrame,
    full_precision: float,
    accuracy_source: str,
    timed: str | None,
) -> Network:
    """Finish a table with the paper's latencies and the two imagined kernels.

    Args:
        condition, source: make the key.
        words: what to say of the accuracies after the condition's label.
        table: with measured latencies.
        full_precision, accuracy_source: as in :class:`Network`.
        timed: where the measured latencies are from; None where there are none.
    """
    facts, sizes = paper.conditions().loc[condition], _num_weights(condition)
    kernel = "paper" if source == "paper" else "measured"
    stated = {} if source == PUBLISHED else _paper_cells(condition, "latency_ms")  # which are another network's
    table["paper"] = [stated.get(bits, (math.nan, ""))[0] for bits in table.bits]
    table["paper_origin"] = [stated.get(bits, (math.nan, "unknown"))[1] for bits in table.bits]
    sources = {"measured": timed} if timed else {}
    if table.paper.notna().any():
        sources["paper"] = "Latencies: stated in the paper's text, or implied by it (†)."
    _imagine(table, kernel, sizes, sources)
    return Network(
        f"{condition}-{source}", f"{facts.label}, {words}", table, full_precision, float(facts.tolerance),
        int(facts.num_classes), sizes, kernel, accuracy_source, sources,
    )  # fmt: skip


def _imagine(table: pd.DataFrame, kernel: str, sizes: tuple[int, ...] | None, sources: dict[str, str]) -> None:
    """Add latencies that no machine has: proportional to the bits of all weights, and equal. Both start from the widest
    configuration with a known latency; a mixed one has a number of bits only if the layers' sizes are known."""
    table["ideal"] = table["equal"] = math.nan
    known = table[table[kernel].notna()]
    if known.empty:
        return
    name, reference = known.index[0], known.iloc[0]
    start = f"{_figures(reference[kernel])} ms, the latency of {name}"
    table["equal"] = reference[kernel]
    sources["equal"] = f"Latencies: all {start}."
    compression = pd.Series([_compression(bits, "size", sizes) for bits in table.bits], table.index)
    if not math.isnan(compression[name]):
        table["ideal"] = reference[kernel] * compression[name] / compression
        sources["ideal"] = f"Latencies: in proportion to the bits of the weights, from {start}."


def _table(accuracy: Mapping[Widths, float], origin: str) -> pd.DataFrame:
    """Configurations from the most bits to the fewest, with their accuracies."""
    order = sorted(accuracy, key=lambda bits: (-np.mean(bits), np.ndim(bits)))
    names = [f"{bits} bits" if isinstance(bits, int) else label(bits) for bits in order]
    columns = {"accuracy": [accuracy[bits] for bits in order], "accuracy_origin": origin}
    return pd.DataFrame({"bits": pd.Series(order, names, dtype=object), **columns}, index=names)


def _paper_cells(condition: str, quantity: str) -> dict[Widths, tuple[float, str]]:
    """The paper's cells of Tables 1 and 2: widths to value and origin, unknown ones included."""
    cells = {}
    if condition in set(paper.table1().condition):
        for _, row in paper.table1(condition).iterrows():
            cells[int(row.bits)] = float(row[quantity]), row[f"{quantity}_origin"]
    for _, row in paper.table2().query("condition == @condition and topology != ''").iterrows():
        bits = tuple(int(width) for width in row.topology.split("-"))
        cells[bits] = float(row[quantity]), row[f"{quantity}_origin"]
    return cells


def _mixed_latencies(found: Landscapes, configurations: Sequence[Widths]) -> list[float]:
    """Latencies in ms as EXP-3 counts them: a sum over the layers; at 32 bits, of which there is none, the median."""
    main = found.main

    def of(bits: Widths) -> float:
        if bits == WIDTH:
            return found.timed.values["latencies"][FULL_PRECISION]["median_ms"]
        return float(main.latency_ms[main.index_of((bits,) * len(main.num_weights) if isinstance(bits, int) else bits)])

    return [of(bits) for bits in configurations]


def _num_weights(condition: str) -> tuple[int, ...] | None:
    """Weights a layer of the one network that has both mixed precision and known layers. (The paper gives the widths of
    its ImageNet network for six parts, and not which layers they hold.)"""
    return tuple(evaluate.num_weights(SimpleCNN())) if condition == landscape.CONDITION else None


def _shortened(configuration: Configuration) -> Widths:
    return configuration[0] if len(set(configuration)) == 1 else configuration


def _unless_paper(profile: str) -> str:
    return "" if profile == "paper" else f" ({profile} profile)"


def _averaged(seeds: Sequence[int], profile: str) -> str:
    return f"Accuracies: mean over seeds {', '.join(map(str, seeds))}, {profile} profile."


def _timed(device: str, reasons: Sequence[str], how: str = "") -> str:
    return f"Latencies: measured on {device}{' (noisy)' if reasons else ''}, quantization simulated{how}."


# --- the page --------------------------------------------------------------------------------------------------------


def show(known: Mapping[str, Network]) -> None:
    """Display the controls, the chart and the table; without JavaScript the table alone, and what is missing."""
    report.show_markup(markup(known))


def say_left_out(known: Mapping[str, Network]) -> None:
    """Which of the paper's conditions have no numbers of the paper to move."""
    labels = [facts.label for name, facts in paper.conditions().iterrows() if f"{name}-paper" not in known]
    report.say(
        f"The paper's text gives no latency that could be used for {' and '.join(labels)}: they are not offered."
    )


def markup(known: Mapping[str, Network]) -> str:
    """HTML of the page's working part, with everything that its script needs to know.

    Raises:
        ValueError: there is no network to show.
    """
    if not known:
        raise ValueError("known is empty: there are no records and no numbers of the paper; restore data/paper")
    start = known.get(START, next(iter(known.values())))
    return "\n".join(
        [
            '<div class="what-if" id="what-if">',
            f'<script type="application/json" class="what-if-data">{_json(known, start.start())}</script>',
            '<p class="what-if-missing">The controls and the chart need JavaScript, which is off here or did not load. '
            "The table shows the score as the page opens; with JavaScript it follows the controls.</p>",
            _controls(known, start),
            '<div class="what-if-result" hidden>',
            '<p class="what-if-sentence" role="status" aria-live="polite"></p>',
            '<div class="what-if-chart" role="img"></div>',
            "</div>",
            report.table_markup(table(start, start.start()), f"Scores of {start.label}"),
            f'<p class="what-if-source">{html.escape(_sources(start, start.kernel))}</p>',
            "</div>",
        ]
    )


def table(network: Network, choice: Choice) -> pd.DataFrame:
    """The page's table, one row a configuration, with the highest I and the knee marked."""
    found = network.scores(choice)
    first = {score: network.best(choice, score) for score in ("index", "gated_index")}
    rows = []
    for name, row in found.iterrows():
        origins = network.table.loc[name]
        latency_origin = origins.paper_origin if choice.kernel == "paper" else ""
        rows.append(
            {
                "configuration": name,
                "C": report.number(row.compression, 2),
                "P": report.with_origin(report.percent(row.accuracy), origins.accuracy_origin),
                f"T ({UNITS[choice.unit].words})": report.with_origin(_figures(row.latency), latency_origin),
                "I": _figures(row["index"]) + (" ▲ highest" if name == first["index"] else ""),
                "I′": _figures(row.gated_index) + (" ★ knee" if name == first["gated_index"] else ""),
            }
        )
    return pd.DataFrame(rows)


def _json(known: Mapping[str, Network], start: Choice) -> str:
    """What the script works from. ``<`` is escaped, so that no text can end the script element."""
    content = {
        "networks": {key: _as_data(network) for key, network in known.items()},
        "units": {key: {"words": unit.words, "factor": unit.factor} for key, unit in UNITS.items()},
        "counts": {key: {"words": count.words} for key, count in COUNTS.items()},
        "kernels": {key: {"words": kernel.words} for key, kernel in KERNELS.items()},
        "presets": {key: asdict(preset.choice) for key, preset in presets(known).items()},
        "start": asdict(start),
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _as_data(network: Network) -> dict:
    rows = [
        {
            "name": name,
            "bits": row.bits,
            "accuracy": _known(row.accuracy),
            "implied": row.accuracy_origin == "derived",
            "latency": {kernel: _known(row[kernel]) for kernel in KERNELS},
            "latencyImplied": row.paper_origin == "derived",
        }
        for name, row in network.table.iterrows()
    ]
    return {
        "label": network.label,
        "rows": rows,
        "fullPrecision": network.full_precision,
        "tolerance": network.tolerance,
        "numClasses": network.num_classes,
        "numWeights": network.num_weights,
        "kernel": network.kernel,
        "sources": {kernel: _sources(network, kernel) for kernel in network.latency_sources},
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _sources(network: Network, kernel: str) -> str:
    return f"{network.accuracy_source} {network.latency_sources[kernel]}"


def _figures(value: float) -> str:
    """Four significant digits, without an exponent; halves are rounded up, as the browser does."""
    if math.isnan(value) or value == 0:
        return UNKNOWN if math.isnan(value) else "0"
    digits = max(0, FIGURES - 1 - math.floor(math.log10(abs(value))))
    return str(Decimal(float(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def _controls(known: Mapping[str, Network], start: Network) -> str:
    """The form, which the script shows: presets, network, tolerance, unit, count and kernel."""
    options = "".join(_option(key, network.label, key == start.key) for key, network in known.items())
    return "\n".join(
        [
            '<form class="what-if-controls" aria-label="What if" autocomplete="off" hidden>',
            '<fieldset class="what-if-presets"><legend>Presets</legend>',
            *(_preset(key, preset) for key, preset in presets(known).items()),
            '<button type="button" data-reset>Reset</button></fieldset>',
            '<div class="what-if-field"><label for="what-if-network">Network, task, accuracies</label>'
            f'<select id="what-if-network" name="network">{options}</select></div>',
            '<div class="what-if-field"><label for="what-if-tolerance">Tolerance δ</label>'
            '<output for="what-if-tolerance"></output>'
            f'<input id="what-if-tolerance" type="range" name="tolerance" min="0" max="1" step="{STEP}" '
            f'value="{start.tolerance}"></div>',
            _radios("unit", "Unit of T", UNITS, "ms-batch"),
            _radios("count", "Compression C counts", COUNTS, "nominal"),
            _radios("kernel", "Latencies", KERNELS, start.kernel),
            "</form>",
        ]
    )


def _option(key: str, text: str, selected: bool) -> str:
    return f'<option value="{key}"{" selected" if selected else ""}>{html.escape(text)}</option>'


def _preset(key: str, preset: Preset) -> str:
    return (
        f'<div><button type="button" data-preset="{key}" aria-describedby="what-if-preset-{key}">'
        f'{html.escape(preset.words)}</button><p id="what-if-preset-{key}">{html.escape(preset.text)}</p></div>'
    )


def _radios(name: str, legend: str, options: Mapping[str, Option], chosen: str) -> str:
    inputs = "".join(
        f'<label><input type="radio" name="{name}" value="{key}"{" checked" if key == chosen else ""}> '
        f"{html.escape(option.text)}</label>"
        for key, option in options.items()
    )
    return f"<fieldset><legend>{legend}</legend>{inputs}</fieldset>"


# --- presets and exercises -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preset:
    """A button: its words, what pressing it shows, and where it puts the controls."""

    words: str
    text: str
    choice: Choice


def presets(known: Mapping[str, Network]) -> dict[str, Preset]:
    """The presets whose network is known."""
    found = {}
    if (network := known.get(RESNET)) is not None:
        stated = network.start()
        found["paper"] = Preset(
            "As the paper",
            f"{network.label}: its δ, its unit, its way to count C. I is highest at {network.best(stated, 'index')}, "
            f"the knee is at {network.best(stated)}.",
            stated,
        )
        for unit, words, same in (
            ("s-batch", "Seconds instead of milliseconds", "The same measurements, written in seconds"),
            ("ms-image", "Per image instead of per batch", "The same measurements, the batch's time shared out"),
        ):
            moved = replace(stated, unit=unit)
            found[unit] = Preset(words, f"{same}: the knee {_moves(network, stated, moved)}.", moved)
    if (network := known.get(MIXED)) is not None:
        by_layer, by_size = network.start(), replace(network.start(), count="size")
        name = label(SEARCHED)
        counted = [network.scores(choice).compression[name] for choice in (by_layer, by_size)]
        found["size"] = Preset(
            "Count bits, not layers",
            f"{network.label}: {name} falls from {counted[0]:.2f} to {counted[1]:.2f} times smaller than 32 bits, and "
            f"the knee {_moves(network, by_layer, by_size)}.",
            by_size,
        )
    return found


def say_solution(known: Mapping[str, Network], exercise: str) -> None:
    """Display the solution of an exercise, one of :data:`SOLUTIONS`, behind a button.

    Raises:
        ValueError: there is no such exercise.
    """
    if exercise not in SOLUTIONS:
        raise ValueError(f"exercise must be one of {', '.join(SOLUTIONS)}, got {exercise!r}")
    key, solve = SOLUTIONS[exercise]
    text = solve(known[key]) if key in known else "The records that this exercise needs are not in this copy."
    report.say(f":::{{admonition}} Solution\n:class: dropdown\n\n{text}\n:::")


def knees(network: Network, choice: Choice) -> pd.Series:
    """Name of the knee (None if there is none) by tolerance, in the slider's steps."""
    tolerances = [round(step * STEP, 2) for step in range(round(1 / STEP) + 1)]
    found = [network.best(replace(choice, tolerance=tolerance)) for tolerance in tolerances]
    return pd.Series(found, index=tolerances, dtype=object)


def _solve_unit(network: Network) -> str:
    lines = []
    for key, unit in UNITS.items():
        scored = network.scores(replace(network.start(), unit=key)).gated_index.dropna()
        best = " and ".join(f"{_figures(scored[name])} at {name}" for name in scored.nlargest(2).index)
        lines.append(f"- {unit.words}: knee at {scored.idxmax()} ($I'$ = {best})")
    return "\n".join(
        [
            *lines,
            "",
            "The 1 in $\\log_2(T + 1)$ is one unit of time. Where all latencies are many units long, the logarithm "
            "nearly levels them and compression decides. Where they are a small part of a unit, the penalty is nearly "
            "in proportion to $T$, and the shortest latency gains most.",
        ]
    )


def _solve_tolerance(network: Network) -> str:
    found = knees(network, network.start())
    runs = found.fillna("nowhere").groupby(found.ne(found.shift()).cumsum())
    parts = [f"{part.iloc[0]} for δ {_span(part.index)}" for _, part in runs]
    other = paper.conditions().loc["cifar10-resnet18", "tolerance"]
    return (
        f"The knee is at {'; '.join(parts)}. The paper sets δ to {network.tolerance:.2f} for this network, and to "
        f"{other:.2f} for ResNet-18 on the same images: with that, the knee here is {found[round(other, 2)]}. A knee "
        "means little without its δ."
    )


def _solve_count(network: Network) -> str:
    nominal, size = network.start(), replace(network.start(), count="size")
    lines = []
    for choice in (nominal, size):
        scored = network.scores(choice)
        pair = [
            f"{name} has C = {scored.compression[name]:.2f} and $I'$ = {_figures(scored.gated_index[name])}"
            for name in ("8 bits", label(SEARCHED))
        ]
        lines.append(f"- {COUNTS[choice.count].text}: {', '.join(pair)}; the knee is at {network.best(choice)}")
    weights = np.array(network.num_weights)
    share = report.percent(weights[-1] / weights.sum(), 1)
    why = f"The last layer holds {share} of the weights: halving its bits saves next to nothing of the memory."
    return "\n".join([*lines, "", why])


def _solve_equal(network: Network) -> str:
    equal = replace(network.start(), kernel="equal")
    scored = network.scores(equal)
    (mixed,) = [name for name, bits in network.table.bits.items() if not isinstance(bits, int)]
    return (
        f"{network.best(equal)}: {mixed} and 8 bits have the accuracies {report.percent(scored.accuracy[mixed])} and "
        f"{report.percent(scored.accuracy['8 bits'])}, and C is {scored.compression[mixed]:.2f} and "
        f"{scored.compression['8 bits']:.2f}, so that $I'$ is {_figures(scored.gated_index[mixed])} and "
        f"{_figures(scored.gated_index['8 bits'])}. The paper's text gives no latency for 8 bits; if rounding one part "
        "to 16 bits instead made the network fast enough, the order would turn round."
    )


def _solve_ideal(network: Network) -> str:
    measured, ideal = network.start(), replace(network.start(), kernel="ideal")
    lines = []
    for choice in (measured, ideal):
        scored = network.scores(choice)
        times = ", ".join(f"{_figures(scored.latency[name])} ms at {name}" for name in ("32 bits", "16 bits", "8 bits"))
        order = " > ".join(scored.gated_index[scored.gated_index > 0].sort_values(ascending=False).index)
        lines.append(f"- {KERNELS[choice.kernel].text}: {times}; by $I'$ {order}")
    return "\n".join(
        [
            *lines,
            "",
            "Simulated rounding adds work, so that fewer bits take more time; in an ideal kernel they take less. The "
            "index is the same formula over two different machines.",
        ]
    )


SOLUTIONS = {
    "unit": (RESNET, _solve_unit),
    "tolerance": (START, _solve_tolerance),
    "count": (MIXED, _solve_count),
    "equal": (IMAGENET, _solve_equal),
    "ideal": (START, _solve_ideal),
}


def _span(values: pd.Index) -> str:
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return f"= {low}" if low == high else f"from {low} to {high}"


def _moves(network: Network, before: Choice, after: Choice) -> str:
    first, second = network.best(before), network.best(after)
    return f"stays at {first}" if first == second else f"moves from {first} to {second}"
