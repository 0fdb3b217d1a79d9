"""What the paper (arXiv 2605.10959) states, as data frames read from ``data/paper``.

The bodies of the paper's tables and figures are not in the text these data were taken from: a cell is known where the
prose quotes it (origin ``stated``) or where it follows from stated numbers (``derived``; the column ``how`` says by
which formula, and a test repeats the derivation). Every other cell is NaN with origin ``unknown``.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from quide import _files, _paths, metric

BITS = (32, 16, 8, 4, 2)
MEASURED = ("accuracy", "latency_ms", "index", "gated_index")


def conditions() -> pd.DataFrame:
    """The six experimental conditions, indexed by name such as ``cifar10-simplecnn``.

    Columns: label, model, dataset, num_classes, tolerance (delta), full_precision_accuracy (fraction), threshold_used
    (what the stated scores were most likely computed with), threshold_origin, threshold_how, threshold_equation_4 (what
    Eq. 4 gives), knee_bits (as stated in §5), experiment, section.
    """
    table = _read("conditions").set_index("condition")
    table["threshold_equation_4"] = metric.accuracy_threshold(
        table["full_precision_accuracy"], table["tolerance"], table["num_classes"]
    )
    return table


def experiment(condition: str) -> str:
    """The experiment whose page is about a condition, as commands and figures name it, such as ``"exp1"``."""
    return str(conditions().at[condition, "experiment"]).split(";")[0].replace("-", "").lower()


def threshold(condition: str, full_precision_accuracy: ArrayLike) -> Any:
    """Threshold of Eq. 4 with the paper's tolerance and number of classes, from an accuracy in [0, 1] measured here.

    Raises:
        KeyError: no such condition.
    """
    facts = conditions().loc[condition]
    return metric.accuracy_threshold(full_precision_accuracy, float(facts["tolerance"]), int(facts["num_classes"]))


def numbers() -> pd.DataFrame:
    """Every number, one a row, in the unit it is printed in, indexed by ``condition.quantity.configuration``.

    Columns:
        table: tables of the paper it belongs to, ``;`` between them; section likewise.
        condition, method (uniform, quide, haq, brecq), bits, topology (bit-width per layer, ``-`` between them).
        quantity: accuracy, latency_ms, index, gated_index, compression, threshold, ...
        relation: ``=``, ``~`` (about), ``<``, or ``in`` (only the interval from low to high is known).
        value, low, high, spread (standard deviation over seeds), unit (``%`` for accuracies, ``pp``, ms, bit, 1).
            Of a derived number, low and high are what the printed rounding of its sources allows.
        resolution: unit of the last printed digit, or of the last digit kept of a derived number.
        origin, how.
    """
    return _read("numbers", {"bits": "Int64"}).set_index("id")


def number(name: str) -> float:
    """One value by its index in :func:`numbers`, accuracies as a fraction: ``number("cifar10-resnet18.accuracy.8")``.

    Raises:
        KeyError: no such number, or only an interval is known.
    """
    table = numbers()
    if name not in table.index:
        raise KeyError(
            f"{name!r} is not in {_file('numbers')}; list the names with quide.experiments.paper.numbers().index"
        )
    value = _in_library_units(table.loc[[name]])["value"].iloc[0]
    if pd.isna(value):
        raise KeyError(
            f"{name!r} has no single value in the paper; see low and high in quide.experiments.paper.numbers()"
        )
    return float(value)


def table1(condition: str | None = None) -> pd.DataFrame:
    """Table 1, one row per condition and bit-width; of one condition if named.

    Columns: condition, bits, compression, accuracy and accuracy_std (fractions), latency_ms, index, gated_index,
    gated_index_std, and after them one ``..._origin`` each.
    """
    names = [name for name in conditions().index if name != "mmlu-llama3-8b"]
    if condition is not None and condition not in names:
        raise ValueError(f"condition must be one of {', '.join(names)}, got {condition!r} (Llama is in table3())")
    rows = [(name, bits) for name in names for bits in BITS if condition in (None, name)]
    table = pd.DataFrame(rows, columns=["condition", "bits"])
    table["compression"] = [metric.compression_ratio(bits) for bits in table["bits"]]
    table["compression_origin"] = "stated"  # by the definition in §3.1
    known = _in_library_units(numbers().query("method == 'uniform' and bits.notna()"))
    return _with_cells(table, known, ["condition", "bits"], MEASURED, with_std=("accuracy", "gated_index"))


def table2() -> pd.DataFrame:
    """Table 2, one row per network: condition, method, bits (uniform) or topology (mixed), then as :func:`table1`."""
    known = _in_library_units(numbers())
    known = known[known["table"].str.split(";").map(lambda tables: "2" in tables)]
    keys = ["condition", "method", "bits", "topology"]
    table = known[keys].drop_duplicates().reset_index(drop=True)
    table = _with_cells(table, known, keys, ("compression", *MEASURED))
    uniform = table["bits"].notna()
    table.loc[uniform, "compression"] = [metric.compression_ratio(bits) for bits in table.loc[uniform, "bits"]]
    table.loc[uniform, "compression_origin"] = "stated"  # by the definition in §3.1
    return table


def table3() -> pd.DataFrame:
    """Table 3 (Llama-3-8B-Instruct on MMLU), one row per stated bit-width, columns as :func:`table1`.

    Accuracy is a fraction here. The scores are as printed: which unit of accuracy and latency and which base of the
    compression they were computed with is not stated, and those of Table 1 do not give them.
    """
    known = _in_library_units(numbers().query("condition == 'mmlu-llama3-8b' and bits.notna()"))
    table = known[["condition", "bits"]].drop_duplicates().reset_index(drop=True)
    return _with_cells(table, known, ["condition", "bits"], ("compression", *MEASURED))


def rankings() -> pd.DataFrame:
    """Orders of the bit-widths (Table 4, §5): condition, metric, order, scope, origin, section, how.

    ``metric`` is the name of the score, ``order`` a tuple of bit-widths from best to worst. ``scope`` says what it
    covers: ``complete`` all widths of the condition, ``top`` the best ones with the others below, ``relative`` these
    widths among themselves.
    """
    table = _read("rankings", {"order": str})
    table["order"] = [tuple(int(bits) for bits in order.split("-")) for order in table["order"]]
    return table


def protocol() -> pd.DataFrame:
    """Settings of the experiments: scope, item, value (text), unit, section, origin (``unknown``: none is given)."""
    return _read("protocol", {"value": str})


def statements() -> pd.DataFrame:
    """What the text says of one matter in several places, in our words: topic, section, origin, says.

    Rows of one topic stand together. Origin ``derived`` marks what follows from stated numbers, ``external`` what
    another source says (named in the row; it has no section).
    """
    return _read("statements")


def aiq() -> pd.DataFrame:
    """Numbers of AIQ (arXiv 2512.14090), by name: quantity, value, unit, and source: its text, program or results."""
    return _read("aiq").set_index("id")


def published_ptq() -> pd.DataFrame:
    """What others report of better quantization on ImageNet: network, recipe, top-1 (%) by width, ``full`` that of
    full precision, source."""
    return _read("published_ptq")


def mlperf_tiny() -> pd.DataFrame:
    """MLPerf Tiny v1.2, image classification (ResNet-8 on CIFAR-10): organization, board, bits where the submission
    names them, inferences_per_s, accuracy (%), energy_uj (of an inference, where it was measured), source."""
    return _read("mlperf_tiny", {"bits": "Int64"})


def exhibits() -> pd.DataFrame:
    """The tables, figures and the algorithm: kind, section, what each shows, how much of it is known."""
    return _read("exhibits").set_index("exhibit")


def _with_cells(
    table: pd.DataFrame, known: pd.DataFrame, keys: list[str], quantities: tuple[str, ...],
    with_std: tuple[str, ...] = (),
) -> pd.DataFrame:  # fmt: skip
    """``table`` with a column and an origin column per quantity; cells without a single known value are unknown."""
    for quantity in quantities:
        cells = known[known["quantity"] == quantity]
        for column, source in ((quantity, "value"), (f"{quantity}_std", "spread")):
            if source == "spread" and quantity not in with_std:
                continue
            found = cells[cells[source].notna()][[*keys, source, "origin"]]
            found = found.rename(columns={source: column, "origin": f"{column}_origin"})
            table = table.merge(found, on=keys, how="left", validate="one_to_one")
            table[f"{column}_origin"] = table[f"{column}_origin"].fillna("unknown")
    origins = [column for column in table if column.endswith("_origin")]
    return table[[column for column in table if column not in origins] + origins]


def _in_library_units(table: pd.DataFrame) -> pd.DataFrame:
    """Percentages and percentage points as fractions, rounded so that 66.6 becomes 0.666 and not the float below it."""
    table = table.copy()
    percent = table["unit"].isin(["%", "pp"])
    for column in ("value", "spread"):
        table.loc[percent, column] = (table.loc[percent, column] / 100).round(12)
    return table


def _file(name: str) -> Path:
    return _paths.home() / "data" / "paper" / f"{name}.csv"


def _read(name: str, types: dict[str, str | type] | None = None) -> pd.DataFrame:
    file = _file(name)
    with _files.committed(file):
        content = _files.prove(f"paper/{file.name}", _files.content(file))
        return _parsed(content, tuple((types or {}).items())).copy()


@lru_cache(maxsize=32)
def _parsed(content: bytes, types: tuple[tuple[str, str | type], ...]) -> pd.DataFrame:
    """A page reads the same few files hundreds of times."""
    table = pd.read_csv(io.BytesIO(content), dtype={"table": str, "section": str} | dict(types))
    words = [column for column in table if not pd.api.types.is_numeric_dtype(table[column])]
    return table.fillna({column: "" for column in words})
