"""Statements of the paper that can be recomputed from other statements of it: whether they are consistent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from quide import metric
from quide.experiments import paper
from quide.experiments.recipes import SEARCHED
from quide.ptq.width import label
from quidebook import report
from quidebook.evidence import readings

C10, C100, R18 = "cifar10-simplecnn", "cifar100-simplecnn", "cifar10-resnet18"
SIGNS = {"index": "I", "gated_index": "I'"}
CONSISTENT, CUT_OFF, INCONSISTENT = "= consistent", "≈ but for rounding", "≠ not consistent"
CLASSES = {CONSISTENT: "verdict-supports", CUT_OFF: "verdict-part", INCONSISTENT: "verdict-not"}


def table() -> pd.DataFrame:
    """One row a statement: what it is of, whether it is consistent, as stated, as recomputed."""
    rows = [*_score_checks(), *_ratio_checks(), *_drop_checks(), *_property_checks(), *_order_checks()]
    return pd.DataFrame(rows, columns=["statement", "stated", "recomputed", "verdict"])[
        ["statement", "verdict", "stated", "recomputed"]
    ]


def counts(checks: pd.DataFrame) -> dict[str, int]:
    """How many of them agree."""
    return {"agree": int((checks["verdict"] == CONSISTENT).sum()), "all": len(checks)}


def _score_checks() -> list[tuple]:
    rows = []
    threshold = paper.conditions().at[R18, "threshold_used"]
    for bits in (8, 4):
        accuracy, latency_ms = (_printed(f"{R18}.{quantity}.{bits}") for quantity in ("accuracy", "latency_ms"))
        for (quantity, sign), floor in zip(SIGNS.items(), (0.0, threshold), strict=True):
            found = [metric.gated_index(32 / bits, p, t, floor) for p, t in product(accuracy, latency_ms)]
            stated = _printed(f"{R18}.{quantity}.{bits}")
            rows.append(_check(f"ResNet-18 on CIFAR-10, {bits} bits: {sign} follows from P and T", stated, found, 3))
    threshold, fastest = known(f"{C100}.threshold.4"), known(f"{C10}.latency_ms.32")
    return [
        *rows,
        _check("CIFAR-100: threshold, from I and I' at 4 bits", _printed(f"{C100}.threshold.stated"), threshold, 4),
        _check("CIFAR-10: least latency (ms), from I' at 32 bits", _printed(f"{C10}.latency_ms.min"), fastest),
    ]


def _ratio_checks() -> list[tuple]:
    rows = []
    for name, condition, *ends in (("CIFAR-10", C10, "min", "max"), ("ResNet-18", R18, "16", "8")):
        fast, slow = (_printed(f"{condition}.latency_ms.{end}") for end in ends)
        penalties = [metric.latency_penalty(high) / metric.latency_penalty(low) for low, high in product(fast, slow)]
        stated = _printed(f"{condition}.latency_penalty_ratio.range")
        rows.append(_check(f"{name}: slowest over fastest width, in log2(T + 1)", stated, penalties))
    stated = _printed(f"{C10}.compression.{label(SEARCHED)}")
    compression = [metric.compression_ratio(SEARCHED)]
    return [*rows, _check(f"compression of {label(SEARCHED)}, layers counted alike", stated, compression)]


def _drop_checks() -> list[tuple]:
    rows = []
    for condition in (C10, C100, R18):
        drop = 100 * (paper.number(f"{condition}.accuracy.32") - paper.number(f"{condition}.accuracy.4"))
        stated = 100 * paper.number(f"{condition}.accuracy_drop.4")
        agrees = round(drop) == round(stated)
        shown = f"{drop:.2f}" if agrees else f"{drop:.2f}, cut off instead of rounded"
        statement = f"{readings.label(condition)}: drop from 32 to 4 bits (pp)"
        rows.append((statement, f"{stated:.0f}", shown, CONSISTENT if agrees else CUT_OFF))
    return rows


def _property_checks() -> list[tuple]:
    """The properties of the logarithm that §3.2 claims."""
    tables = [(each.table, each.index()) for each in readings.of_paper()]
    natural = [table["compression"] * table["accuracy"] / np.log1p(table["latency_ms"]) for table, _ in tables]
    same = all(
        metric.rank(table.index, index) == metric.rank(table.index, other)
        for (table, index), other in zip(tables, natural, strict=True)
    )
    a, b = np.meshgrid(np.logspace(-3, 4, 50), np.logspace(-3, 4, 50))
    less = metric.latency_penalty(a + b) < metric.latency_penalty(a) + metric.latency_penalty(b)
    pairs = f"{less.mean():.0%} of {a.size} pairs"
    return [
        ("the base of the logarithm changes no order", "none", "none" if same else "some", _verdict(same)),
        ("two latencies together cost less than one by one", "always", pairs, _verdict(bool(less.all()))),
    ]


def _order_checks() -> list[tuple]:
    """Stated orders, of the widths with numbers, that hold at one end at least of what is known in between."""
    rows, known = [], readings.of_paper()
    for _, row in paper.rankings().query("origin == 'stated' and metric in ('index', 'gated_index')").iterrows():
        orders = []
        for each in known:
            if each.condition == row["condition"]:
                scores = each.index() if row["metric"] == "index" else each.gated_index()
                scores = scores[scores.index.isin(row["order"])]
                orders.append(metric.rank(scores.index, scores))
        if not orders or len(orders[0]) < 2:
            continue
        stated = [bits for bits in row["order"] if bits in orders[0]]
        shown = stated if stated in orders else orders[0]
        statement = f"{readings.label(row['condition'])}: order by {SIGNS[row['metric']]}"
        rows.append((statement, _order(row["order"]), _order(shown), _verdict(shown == stated)))
    return rows


# --- the text against itself -----------------------------------------------------------------------------------------


def statements_table(numbers_say: Mapping[str, str]) -> pd.DataFrame:
    """Places where the text says two things of one matter; ``numbers_say`` has, by topic, a template of
    :func:`statement_facts`."""
    facts = statement_facts()
    return pd.DataFrame(
        {
            "matter": topic,
            "the text": "; ".join(f"{row['says']} ({_place(row)})" for _, row in part.iterrows()),
            "what the numbers say": report.worded(numbers_say.get(topic, report.UNKNOWN), facts),
        }
        for topic, part in paper.statements().groupby("topic", sort=False)
    )


def statement_facts() -> dict[str, object]:
    """What the paper's numbers say to statements that differ."""
    example = tuple(int(bits) for bits in setting("genetic search", "example of an optimum").split("-"))
    mixed, full = (paper.number(f"{C10}.gated_index.{name}") for name in (label(SEARCHED), 32))
    conditions = paper.conditions()
    llama, c100 = conditions.loc["mmlu-llama3-8b"], conditions.loc[C100]
    return {
        "compression": paper.number(f"{C10}.compression.{label(SEARCHED)}"),
        "alternatives": ", ".join(
            f"{label(widths)} gives {metric.compression_ratio(widths):.2f}"
            for widths in (SEARCHED, (8, 8, 8, 2), example)
        ),
        "mixed": mixed,
        "full": full,
        "times": mixed / full,
        "searched_ms": paper.number(f"{C10}.latency_ms.{label(SEARCHED)}"),
        "answers": llama["num_classes"],
        "chance": 1 / llama["num_classes"],
        "mnist_knee": conditions.at["mnist-simplecnn", "knee_bits"],
        "c100_threshold": c100["threshold_used"],
        "c100_times": c100["threshold_used"] * c100["num_classes"],
    }


def _place(row: pd.Series) -> str:
    if not row["section"]:
        return row["origin"]
    sections = row["section"].split(";")
    return ", ".join(f"§{section}" if section[0].isdigit() else f"App. {section}" for section in sections)


def known(name: str) -> list[float]:
    """Between which values a derived number lies."""
    return paper.numbers().loc[name, ["low", "high"]].tolist()


def _printed(name: str) -> tuple[float, float]:
    """Between which values a printed number was rounded, accuracies as fractions."""
    row = paper.numbers().loc[name]
    scale = 100 if row["unit"] in ("%", "pp") else 1
    return (row["value"] - row["resolution"] / 2) / scale, (row["value"] + row["resolution"] / 2) / scale


def _check(statement: str, stated: Sequence[float], found: Sequence[float], digits: int = 2) -> tuple:
    """Whether a printed number and what its sources allow have a value in common."""
    low, high = min(found), max(found)
    shown = f"{low:.{digits + 1}f} to {high:.{digits + 1}f}" if high > low else f"{low:.{digits + 1}f}"
    overlap = low <= stated[1] + 1e-12 and stated[0] - 1e-12 <= high
    return statement, f"{np.mean(stated):.{digits}f}", shown, _verdict(overlap)


def _verdict(holds: bool) -> str:
    return CONSISTENT if holds else INCONSISTENT


def _order(bits: Sequence[int]) -> str:
    return " > ".join(map(str, bits))


def setting(scope: str, item: str) -> str:
    """A setting of :func:`quide.experiments.paper.protocol`."""
    return str(paper.protocol().set_index(["scope", "item"]).at[(scope, item), "value"])
