"""The what-if page: what is known of each network, the choices behind a score, and what each choice makes of it.

Python scores the page as it opens; ``book/_static/what_if.js`` scores it again in the browser when a reader moves a
control. Both use the formulas of :mod:`quide.metric`, and a test holds them together. The page's HTML is in
``what_if.html``.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from decimal import ROUND_HALF_UP, Decimal
from itertools import groupby
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd

from quide import metric
from quide.experiments import paper, records, runs
from quide.experiments.mixed import FULL_PRECISION
from quide.experiments.recipes import SEARCHED
from quide.models import registry
from quide.ptq.width import PAPER_BITS, label
from quidebook import report, tables
from quidebook.evidence import conditions, scores
from quidebook.report import UNKNOWN
from quidebook.shared import landscape, simplecnn
from quidebook.shared.choices import (
    CONTROLS,
    KERNELS,
    PRINTED,
    SCORES,
    UNITS,
    Offered,
    Position,
    Widths,
    compression_of,
)
from quidebook.shared.landscape import Landscapes

PAGE = Path(__file__).with_suffix(".html")
PROFILES = ("paper", "quick", "smoke")  # whose records are taken, the first that has any
WIDTH = metric.FULL_PRECISION_BITS
STEP = 0.01  # of the tolerance
START, MIXED, RESNET = "cifar10-simplecnn-measured", "cifar10-simplecnn-mixed", "cifar10-resnet18-paper"
IMAGENET = "imagenet-resnet18-paper"
PUBLISHED = "published"  # source of a network that others have trained
SUMMED = ", and below 32 bits summed over the layers as in EXP-3"


Clock = tuple[str, bool]  # what latencies were measured by, as told under the table; whether it was noisy


def _clock(device: str, noisy: object, how: str = "") -> Clock:
    return f"Latencies: measured on {device}{' (noisy)' if noisy else ''}, quantization simulated{how}.", bool(noisy)


# --- what is known ---------------------------------------------------------------------------------------------------


def networks(profile: str = "quick") -> dict[str, Offered]:
    """Every network of which at least two accuracies and one latency are known, by key; measured ones first.

    Args:
        profile: whose records of mixed precision are taken where the paper profile has none.
    """
    mixed, measured = landscape.known(profile), _measured()
    candidates = [_measured_network(*case, *found) for case, found in measured.items()]
    if mixed is not None:
        candidates.append(_mixed_network(mixed))
    swept = {runs.CONDITION[case]: found for case, (_, found) in measured.items() if case in runs.CONDITION}
    for name in paper.conditions().index:
        candidates.append(_paper_network(name, swept.get(name), mixed if name == landscape.CONDITION else None))
    return {
        network.key: network
        for network in candidates
        if network.table.accuracy.notna().sum() > 1 and network.table[network.kernel].notna().any()
    }


def records_used(profile: str = "quick") -> list[records.Record]:
    """The records behind :func:`networks`."""
    mixed = landscape.known(profile)
    return [record for _, found in _measured().values() for record in found.records] + (mixed.used if mixed else [])


def left_out(known: Mapping[str, Offered]) -> dict[str, object]:
    """Which of the paper's conditions have no numbers of the paper to move."""
    labels = [facts.label for name, facts in paper.conditions().iterrows() if f"{name}-paper" not in known]
    return {"conditions": " and ".join(labels)}


def _measured() -> dict[tuple[str, str], tuple[str, scores.Measured]]:
    """By model and data set, the first profile with records of it and what they hold; the paper's networks first."""
    known = {}
    for case in runs.CONDITION | runs.BESIDE:
        held = ((profile, scores.measured(*case, profile)) for profile in PROFILES)
        if (first := next((each for each in held if each[1] is not None), None)) is not None:
            known[case] = first
    return known


def _measured_network(model: str, dataset: str, profile: str, found: scores.Measured) -> Offered:
    """Ours; a network of others is named, since it is not the paper's but stands beside it."""
    source, name = "measured", ""
    if (model, dataset) in runs.BESIDE:
        source, name = PUBLISHED, f"{registry.row(model, dataset).title} / {conditions.NAMES[dataset]}, published"
    summary = found.summary().set_index("bits")
    table = _table({bits: summary.accuracy[bits] for bits in PAPER_BITS}, "measured")
    table["measured"] = summary.latency_ms.loc[list(PAPER_BITS)].to_numpy()
    accuracies = _averaged(found.seeds, profile)
    full_precision, clock = float(summary.accuracy[WIDTH]), _clock(found.device, found.noisy)
    return _network(found.condition, source, _here(profile), table, full_precision, accuracies, clock, name=name)


def _mixed_network(found: Landscapes) -> Offered:
    """The uniform widths, the paper's topology, and the best of all configurations under each way to count C."""
    lands = list(found.landscapes.values())
    main, accuracy = found.main, np.mean([land.accuracy for land in lands], axis=0)
    full_precision = float(np.mean([land.reference.mean() for land in lands]))
    threshold = float(paper.threshold(landscape.CONDITION, full_precision))
    shown = {(bits,) * len(main.num_weights) for bits in PAPER_BITS if bits != WIDTH} | {SEARCHED}
    for counted in (main, main.size_weighted()):
        index = metric.gated_index(counted.compression, accuracy, main.latency_ms, threshold)
        shown.add(main.configurations[int(index.argmax())])
    known: dict[Widths, float] = {WIDTH: full_precision}
    for each in shown:
        known[each[0] if len(set(each)) == 1 else each] = float(accuracy[main.index_of(each)])
    table = _table(known, "measured")
    table["measured"] = _mixed_latencies(found, table.bits)
    note = f" It has {len(main.configurations)} configurations; the best by each way to count C are among those shown."
    accuracies = _averaged(found.landscapes, found.profile) + note
    words = f"mixed, {_here(found.profile)}"
    return _network(
        landscape.CONDITION, "mixed", words, table, full_precision, accuracies, _summed(found), main.num_weights
    )


def _paper_network(condition: str, swept: scores.Measured | None, mixed: Landscapes | None) -> Offered:
    """The paper's numbers; measured latencies beside them from the run that timed all its configurations, if any did:
    of mixed precision, or of the uniform widths (``swept``)."""
    known = _paper_cells(condition, "accuracy")
    table = _table({bits: value for bits, (value, _) in known.items()}, "unknown")
    table["accuracy_origin"] = [known[bits][1] for bits in table.bits]
    table["measured"], clock, sizes = math.nan, None, None
    if mixed is not None:
        table["measured"] = _mixed_latencies(mixed, table.bits)
        clock, sizes = _summed(mixed), mixed.main.num_weights
    elif swept is not None:
        table["measured"] = swept.summary().set_index("bits").latency_ms.reindex(table.bits).to_numpy()
        clock = _clock(swept.device, swept.noisy)
    full_precision = float(paper.conditions().loc[condition, "full_precision_accuracy"])
    source = "Accuracies: stated in the paper's text, or implied by it (†)."
    return _network(condition, "paper", "the paper's numbers", table, full_precision, source, clock, sizes)


def _network(
    condition: str,
    source: str,
    words: str,
    table: pd.DataFrame,
    full_precision: float,
    accuracies: str,
    clock: Clock | None,
    sizes: tuple[int, ...] | None = None,
    name: str = "",
) -> Offered:
    """Finish a table of accuracies and measured latencies (of the clock, if there is one) with the paper's latencies
    and scores and the two imagined kernels; ``words`` follow the ``name``, which is the condition's label unless given;
    ``sizes`` are the weights of each layer."""
    facts, of_paper = paper.conditions().loc[condition], source == "paper"
    kernel = "paper" if of_paper else "measured"
    _add_cells(table, "paper", condition, "latency_ms", source != PUBLISHED)  # which would be another network's
    for score in SCORES:
        _add_cells(table, score, condition, score, of_paper)
    sources = {"measured": clock[0]} if clock else {}
    if table.paper.notna().any():
        sources["paper"] = "Latencies: stated in the paper's text, or implied by it (†)."
    _imagine(table, kernel, sizes, sources)
    return Offered(
        f"{condition}-{source}", f"{name or facts.label}, {words}", table, round(full_precision, 15),
        float(facts.tolerance), int(facts.num_classes), sizes, kernel, f"{facts.knee_bits} bits" if of_paper else "",
        accuracies, sources, clock is not None and clock[1],
    )  # fmt: skip


def _imagine(table: pd.DataFrame, kernel: str, sizes: tuple[int, ...] | None, sources: dict[str, str]) -> None:
    """Add latencies that no machine has: proportional to the bits of all weights, and equal. Both start from the widest
    configuration with a known latency; a mixed one has a number of bits only if the layers' sizes are known."""
    table["ideal"] = table["equal"] = math.nan
    known = table[table[kernel].notna()]
    if known.empty:
        return
    name, reference = known.index[0], known.iloc[0]
    start = f"{_figures(reference[kernel], PRINTED if kernel == 'paper' else 2)} ms, the latency of {name}"
    table["equal"] = reference[kernel]
    sources["equal"] = f"Latencies: all {start}."
    compression = pd.Series([compression_of(bits, "size", sizes) for bits in table.bits], table.index)
    if not math.isnan(compression[name]):
        table["ideal"] = reference[kernel] * compression[name] / compression
        sources["ideal"] = f"Latencies: in proportion to the bits of the weights, from {start}."


def _table(accuracy: Mapping[Widths, float], origin: str) -> pd.DataFrame:
    """Configurations from the most bits to the fewest, with their accuracies."""
    order = sorted(accuracy, key=lambda bits: (-np.mean(bits), np.ndim(bits)))
    names = [f"{bits} bits" if isinstance(bits, int) else label(bits) for bits in order]
    shares = [round(accuracy[bits], 15) for bits in order]  # or a mean of tenths lies above a tenth
    columns = {"bits": pd.Series(order, names, dtype=object), "accuracy": shares, "accuracy_origin": origin}
    return pd.DataFrame(columns, index=names)


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


def _add_cells(table: pd.DataFrame, column: str, condition: str, quantity: str, wanted: bool) -> None:
    """Add a column of the paper's cells and their origins; all unknown if not ``wanted``."""
    cells = _paper_cells(condition, quantity) if wanted else {}
    found = [cells.get(bits, (math.nan, "unknown")) for bits in table.bits]
    table[column], table[f"{column}_origin"] = [value for value, _ in found], [origin for _, origin in found]


def _mixed_latencies(found: Landscapes, configurations: Sequence[Widths]) -> list[float]:
    """Latencies in ms as EXP-3 counts them: a sum over the layers; at 32 bits, of which there is none, the median."""
    main = found.main

    def of(bits: Widths) -> float:
        if bits == WIDTH:
            return found.timed.values["latencies"][FULL_PRECISION]["median_ms"]
        return float(main.latency_ms[main.index_of((bits,) * len(main.num_weights) if isinstance(bits, int) else bits)])

    return [of(bits) for bits in configurations]


def _summed(found: Landscapes) -> Clock:
    return _clock(found.device, found.timed.values["reasons"], SUMMED)


def _here(profile: str) -> str:
    return "measured" + (f" ({profile} profile)" if profile != "paper" else "")


def _averaged(seeds: Sequence[int], profile: str) -> str:
    return f"Accuracies: mean over seeds {', '.join(map(str, seeds))}, {profile} profile."


# --- the page --------------------------------------------------------------------------------------------------------


def markup(known: Mapping[str, Offered]) -> str:
    """HTML of the page's working part, with everything that its script needs to know: the controls, the chart and the
    table; without JavaScript the table alone, and what is missing.

    Raises:
        ValueError: there is no network to show.
    """
    if not known:
        raise ValueError("known is empty: there are no records and no numbers of the paper; restore data/paper")
    start = known.get(START, next(iter(known.values())))
    return Template(PAGE.read_text()).substitute(
        data=_json(known, start.start()),
        step=STEP,
        table=tables.table_markup(table(start, start.start()), f"Scores of {start.label}"),
        source=html.escape(_sources(start, start.kernel)),
    )


def table(network: Offered, setting: Position) -> pd.DataFrame:
    """The page's table, one row a configuration, with the highest I and the knee marked."""
    found = network.scores(setting)
    cells, digits = network.table, network.figures(setting.kernel)
    latencies = [_figures(value, digits) for value in found.latency]
    latency_origin = cells.paper_origin if setting.kernel == "paper" else [""] * len(cells)
    scores = {heading: _marked(network, setting, score) for score, (heading, _) in reversed(SCORES.items())}
    columns = {
        "C": [report.number(value, 2) for value in found.compression],
        "P": list(map(report.with_origin, map(report.percent, found.accuracy), cells.accuracy_origin)),
        f"T ({UNITS[setting.unit].words})": list(map(report.with_origin, latencies, latency_origin)),
    }
    return pd.DataFrame({"configuration": list(found.index)} | scores | columns)


def _marked(network: Offered, setting: Position, score: str = "gated_index") -> list[str]:
    """A score of each configuration; the first has a mark, and what the paper states stands where one is missing."""
    found, stated = network.scores(setting)[score], network.stated(setting, score)
    first, sign = network.best(setting, score), "▲" if score == "index" else "★"
    mark = f" {sign} {SCORES[score][1] if network.whole(setting) else 'highest'}"
    origins = network.table[f"{score}_origin"].replace({"derived": "implied"})
    digits = min(network.figures(setting.kernel) + 1, PRINTED)  # accuracy has its share in it
    return [
        _figures(value, digits) + mark * (name == first)
        if math.isnan(stated[name])
        else f"{_figures(stated[name], PRINTED)} {origins[name]}"
        for name, value in found.items()
    ]


def _json(known: Mapping[str, Offered], start: Position) -> str:
    """What the script works from. ``<`` is escaped, so that no text can end the script element."""
    content = {
        "networks": {key: _as_data(network) for key, network in known.items()},
        "start": asdict(start),
    }
    for control, options in CONTROLS.items():
        content[f"{control}s"] = {key: asdict(option) | {"text": option.text} for key, option in options.items()}
    return json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _as_data(network: Offered) -> dict:
    """Its attributes, the table as a list of rows; null is unknown."""
    rows = network.table.reset_index(names="name").astype(object)
    return {field.name: getattr(network, field.name) for field in fields(network)} | {
        "table": rows.where(rows.notna(), None).to_dict("records"),
        "latency_sources": {kernel: _sources(network, kernel) for kernel in network.latency_sources},
        "figures": {kernel: network.figures(kernel) for kernel in KERNELS},
    }


def _sources(network: Offered, kernel: str) -> str:
    return f"{network.accuracy_source} {network.latency_sources[kernel]}"


def _figures(value: float, significant: int) -> str:
    """So many significant digits, without an exponent; halves are rounded up, as the browser does."""
    if math.isnan(value) or value == 0:
        return UNKNOWN if math.isnan(value) else "0"
    digits = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    return str(Decimal(float(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


# --- exercises -------------------------------------------------------------------------------------------------------


def compared(network: Offered | None, control: str) -> pd.DataFrame:
    """One row a configuration, a column for each position of a control, all else as at the start: I', the first
    marked."""
    if network is None:
        return pd.DataFrame()
    return pd.DataFrame(
        {"configuration": network.table.index}
        | {
            option.text: _marked(network, replace(network.start(), **{control: key}))
            for key, option in CONTROLS[control].items()
            if control != "kernel" or key in network.latency_sources
        }
    )


def positions(network: Offered | None, **moved: Mapping[str, object]) -> report.Facts:
    """By name of a position what the page shows there, all else as at the start: the ``tolerance``, the ``first`` by
    I', and by configuration C, P, T, I and I′. Beside them ``last_layer``, the share of the weights that it holds."""
    if network is None:
        return report.Absent("what this exercise needs", simplecnn.RERUN)
    weights = network.num_weights or (math.nan,)
    found: dict[str, object] = {"last_layer": weights[-1] / sum(weights)}
    for name, controls in moved.items():
        setting = replace(network.start(), **controls)
        shown = network.scores(setting).rename(
            columns=dict(compression="C", accuracy="P", latency="T", gated_index="I")
        )
        tolerance = network.tolerance if setting.tolerance is None else setting.tolerance
        found[name] = {"first": network.best(setting), "tolerance": tolerance} | shown.to_dict()
    return found


def by_tolerance(network: Offered | None) -> pd.DataFrame:
    """One row a stretch of the tolerance, in the slider's steps: its ends and the knee on it."""
    if network is None:
        return pd.DataFrame()
    tolerances = [round(step * STEP, 2) for step in range(round(1 / STEP) + 1)]
    knees = [network.best(replace(network.start(), tolerance=each)) or "nowhere" for each in tolerances]
    parts = [list(part) for _, part in groupby(zip(tolerances, knees, strict=True), lambda pair: pair[1])]
    rows = [(f"{part[0][0]:.2f}", f"{part[-1][0]:.2f}", part[0][1]) for part in parts]
    return pd.DataFrame(rows, columns=["δ from", "to", "knee at"])
