"""What scores are made of (App. A): orders by them, their other forms, areas, correlations, and one without a unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import kendalltau

from quide import metric
from quide.experiments import mixed, paper
from quide.experiments.runs import SIXTEEN
from quide.latency import BATCH_SIZE
from quide.ptq.width import label
from quidebook.evidence import readings
from quidebook.evidence.readings import Reading
from quidebook.evidence.scores import Measured
from quidebook.report import NO_RECORD, UNKNOWN, tabled, with_origin
from quidebook.shared.landscape import Landscapes
from quidebook.verdicts import NOISY, UNDECIDED, order_verdict

SCORES = {
    "index": "I",
    "gated_index": "I'",
    "accuracy_compression_product": "ACP",
    "accuracy_per_log_latency": "ALS",
}
SOFTNESS = 0.05  # width of the soft gate, in accuracy: a tenth to nine tenths open over 0.22
AXES = ("C", "P", "1/T", "I")  # of the radar chart, in the order of the paper's Figure 7 caption
CELLS = ("C", "P", "T", "I", "I'")  # of the heat map


# --- orders of the widths (Table 4) ----------------------------------------------------------------------------------


def scores_of(reading: Reading) -> pd.DataFrame:
    """The four scores of Table 4, one column each, indexed by bit-width."""
    table = reading.table
    product = metric.accuracy_compression_product(table["compression"], table["accuracy"])
    speed = metric.accuracy_per_log_latency(table["accuracy"], table["latency_ms"])
    return pd.DataFrame(dict(zip(SCORES, (reading.index(), reading.gated_index(), product, speed), strict=True)))


@tabled
def rankings_table(found: Sequence[Measured]) -> Iterator[dict]:
    """Table 4: the order of the widths by each score in each condition, the paper's and ours, with a verdict; none on
    an order that a noisy clock decides."""
    ours = {each.condition: scores_of(readings.of_measured(each)) for each in found}
    noisy = {each.condition for each in found if each.noisy}
    for condition, facts in paper.conditions().iterrows():
        for score, sign in SCORES.items():
            stated = stated_order(condition, score)
            if stated is None and condition not in ours:
                continue
            row = {"condition": facts["label"], "score": sign, "paper": _shown(stated), "ours": NO_RECORD}
            verdict, reason = UNDECIDED, "no order in the text" if stated is None else "not measured here"
            if condition in ours:
                order = metric.rank(paper.BITS, ours[condition][score])
                row["ours"] = " > ".join(map(str, order))
                if stated is not None:
                    verdict, reason = order_verdict(stated["order"], order, stated["scope"])
                    if sign != "ACP":
                        verdict = NOISY if condition in noisy else verdict
                        reason += f"; 16 bits: {SIXTEEN['16']}"
            yield row | {"verdict": verdict, "reason": reason}


def stated_order(condition: str, score: str) -> pd.Series | None:
    """The longest order that the text gives or implies."""
    known = paper.rankings().query("condition == @condition and metric == @score")
    return None if known.empty else known.loc[known["order"].map(len).idxmax()]


def _shown(stated: pd.Series | None) -> str:
    if stated is None:
        return UNKNOWN
    note = {"complete": "", "top": " > others", "relative": " (of these)"}[stated["scope"]]
    return with_origin(" > ".join(map(str, stated["order"])) + note, stated["origin"])


# --- other functional forms ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Components:
    """What a score is made of; arrays of one entry a configuration.

    Attributes:
        names: of the configurations.
        compression, accuracy (fraction), latency_ms.
        threshold: accuracy at which the gate closes.
        reference_ms: latency at full precision; NaN where it is not known.
    """

    names: tuple[str, ...]
    compression: np.ndarray
    accuracy: np.ndarray
    latency_ms: np.ndarray
    threshold: float
    reference_ms: float

    @property
    def margin(self) -> np.ndarray:
        """Accuracy above the threshold, 0 below it."""
        return np.maximum(self.accuracy - self.threshold, 0)

    @property
    def gain(self) -> np.ndarray:
        """Compression times margin, before any penalty."""
        return self.compression * self.margin

    def penalty(self, unit_ms: float = 1.0) -> np.ndarray:
        """log2(T + 1) with T in units of so many milliseconds; NaN where the unit is."""
        return np.log2(self.latency_ms / unit_ms + 1)


def _share(values: np.ndarray) -> np.ndarray:
    return values / values.max()


PAPERS, RAW = "I' (the paper's)", "no gate (I)"
FORMS: Mapping[str, Callable[[Components], np.ndarray]] = {
    PAPERS: lambda x: x.gain / x.penalty(),
    "natural logarithm": lambda x: x.gain / np.log(x.latency_ms + 1),
    "T in ms per image": lambda x: x.gain / x.penalty(BATCH_SIZE),
    "T in s per batch": lambda x: x.gain / x.penalty(1000),
    "T relative to 32 bits (ours)": lambda x: x.gain / x.penalty(x.reference_ms),
    "no latency": lambda x: x.gain,
    "square root of T": lambda x: x.gain / np.sqrt(x.latency_ms),
    "T itself": lambda x: x.gain / x.latency_ms,
    RAW: lambda x: x.compression * x.accuracy / x.penalty(),
    "gate as a wall": lambda x: x.compression * x.accuracy * (x.margin > 0) / x.penalty(),
    "soft gate": lambda x: x.compression * x.accuracy * expit((x.accuracy - x.threshold) / SOFTNESS) / x.penalty(),
    "margin squared": lambda x: x.gain * x.margin / x.penalty(),
    "logarithm of C": lambda x: np.log2(x.compression + 1) * x.margin / x.penalty(),
    "weighted sum, equal weights": lambda x: (
        _share(x.compression) + _share(x.margin) + x.latency_ms.min() / x.latency_ms
    ),
}


def cases(found: Sequence[Measured], truth: Landscapes | None) -> dict[str, Components]:
    """What the forms are tried on: the paper's ResNet-18, the conditions with records, all mixed configurations."""
    known = {each.label: _components(each) for each in charted(found)}
    if truth is not None:
        land, full = truth.main, truth.timed.values["latencies"][mixed.FULL_PRECISION]["median_ms"]
        names = tuple(map(label, land.configurations))
        known[f"CIFAR-10, {len(names)} mixed"] = Components(
            names, land.compression, land.accuracy, land.latency_ms, land.threshold, full
        )
    return known


def charted(found: Sequence[Measured]) -> list[Reading]:
    """What the appendix's figures are drawn for: the paper's network with most numbers, and ours."""
    return [readings.resnet18(), *map(readings.of_measured, found)]


def _components(reading: Reading) -> Components:
    table = reading.table
    columns = (table[column].to_numpy() for column in ("compression", "accuracy", "latency_ms"))
    full = float(table["latency_ms"].get(metric.FULL_PRECISION_BITS, np.nan))
    return Components(tuple(map(str, table.index)), *columns, reading.threshold, full)


@tabled
def forms(tried: Mapping[str, Components]) -> Iterator[dict]:
    """Every form on every case: one row each, with Kendall's tau-b to I' and the configuration it puts first.

    Columns: case, form, tau, first; NaN and empty where a form needs a latency that is not known.
    """
    for case, components in tried.items():
        reference = FORMS[PAPERS](components)
        for form, score in FORMS.items():
            values = score(components)
            known = not np.isnan(values).any()
            tau = kendalltau(reference, values).statistic if known else np.nan
            first = components.names[int(values.argmax())] if known else ""
            yield {"case": case, "form": form, "tau": tau, "first": first}


# --- Figures 6 to 8 --------------------------------------------------------------------------------------------------


def even_accuracy(reading: Reading, compression: float | np.ndarray) -> np.ndarray:
    """The accuracy at which a network of ``compression`` has the I' of 8 bits at the latency of 8 bits."""
    eight = reading.table.loc[8]
    return reading.threshold + (eight["accuracy"] - reading.threshold) * eight["compression"] / compression


def radar(reading: Reading) -> pd.DataFrame:
    """Shares of the best width along :data:`AXES`, indexed by bit-width."""
    table = reading.table
    columns = (table["compression"], table["accuracy"], 1 / table["latency_ms"], reading.index())
    return pd.DataFrame({axis: _share(column) for axis, column in zip(AXES, columns, strict=True)})


def areas(reading: Reading) -> pd.DataFrame:
    """Area of each width's polygon under the three ways to arrange the axes; one column an arrangement."""
    shares = radar(reading)
    found = {}
    for other in combinations(AXES[1:], 2):  # the two neighbours of the first axis decide the arrangement
        opposite = next(axis for axis in AXES[1:] if axis not in other)
        circle = [AXES[0], other[0], opposite, other[1]]
        neighbours = zip(circle, [*circle[1:], circle[0]], strict=True)
        found["-".join(circle)] = sum(shares[a] * shares[b] for a, b in neighbours) / 2  # sin of a right angle is 1
    return pd.DataFrame(found)


def areas_and_index(found: Sequence[Measured]) -> dict[str, object]:
    """In how many ``cases``, a network and an arrangement of the axes each, the area goes with I (``agreeing``), and
    the least and greatest Kendall's tau, ``low`` and ``high``."""
    shown = charted(found)
    tau = [kendalltau(area, each.index()).statistic for each in shown for _, area in areas(each).items()]
    return {"agreeing": sum(value > 0 for value in tau), "cases": len(tau), "low": min(tau), "high": max(tau)}


def correlations(tried: Mapping[str, Components]) -> dict[str, tuple[pd.DataFrame, int]]:
    """Spearman's rank correlations of :data:`CELLS` and the number of configurations, by case."""
    matrices = {}
    for name, x in tried.items():
        columns = (x.compression, x.accuracy, x.latency_ms, FORMS[RAW](x), FORMS[PAPERS](x))
        frame = pd.DataFrame(dict(zip(CELLS, columns, strict=True)))
        matrices[name] = frame.corr(method="spearman").round(2) + 0.0, len(frame)  # + 0.0 makes a plain 0 of -0.0
    return matrices


# --- a variant without a unit ----------------------------------------------------------------------------------------


def relative_index(reading: Reading) -> pd.Series:
    """Our unit-free variant of I': latency counted in units of the latency at full precision.

    ``C * max(P - threshold, 0) / log2(T / T_32 + 1)``, which is 1 at 32 bits when nothing is lost and the threshold is
    0. It is I' with the full-precision latency as the time constant.

    Raises:
        ValueError: the reading has no latency at 32 bits.
    """
    if metric.FULL_PRECISION_BITS not in reading.table.index:
        raise ValueError(f"reading must hold a latency at 32 bits, got bits {list(reading.table.index)}")
    return reading.gated_index(None, float(reading.table["latency_ms"][metric.FULL_PRECISION_BITS]))


def in_relative_units(found: Measured) -> Measured:
    """The same with every seed's latencies as multiples of its own at 32 bits."""
    table = found.table.copy()
    full = table[table["bits"] == metric.FULL_PRECISION_BITS].set_index("seed")["latency_ms"]
    table["latency_ms"] /= table["seed"].map(full)
    return replace(found, table=table)
