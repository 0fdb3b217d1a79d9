"""Which of the records there are a table or a sentence is made from; nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from quide.experiments import records, staleness
from quide.experiments.records import Record


def best(
    kind: str,
    worth: Callable[[Record], Any],
    *,
    profiles: Iterable[str] = ("paper",),
    model: str | None = None,
    dataset: str | None = None,
    where: Callable[[Record], bool] = lambda record: True,
) -> Record | None:
    """The record of highest worth at the first of the profiles that has any; None without records.

    Args:
        kind, model, dataset: what to look for, see :func:`quide.experiments.records.collect`.
        worth: what records are compared by, such as their number of images; the first of equals is taken.
        profiles: in order of preference.
        where: which records are taken into account.

    A record that other code made is taken with a :class:`quide.experiments.records.StaleRecordWarning`.
    """
    for profile in profiles:
        if there := [record for record in records.collect(kind, profile, model, dataset) if where(record)]:
            return _said(max(there, key=worth))
    return None


def known(
    kind: str,
    profile: str = "paper",
    model: str | None = None,
    dataset: str | None = None,
    where: Callable[[Record], bool] = lambda record: True,
) -> list[Record]:
    """All records that match, in the order of :func:`quide.experiments.records.collect`; warns as :func:`best`."""
    return [_said(record) for record in records.collect(kind, profile, model, dataset) if where(record)]


def known_in_full(kind: str) -> list[Record]:
    """:func:`known` at the profiles of all test images: the paper's, then the short one of slow networks."""
    return [*known(kind, "paper"), *known(kind, "short")]


def unrest(values: Mapping[str, Any]) -> tuple[bool, float, float]:
    """What timings are compared by, the quietest first: whether they are noisy, how far the A/A ratio is from 1, and
    the widest spread (p90 over p10) of a configuration.

    ``values`` are those of a record: :meth:`quide.latency.Timings.to_dict`.
    """
    spread = max(timed["p90_ms"] / timed["p10_ms"] for timed in values["latencies"].values())
    return values["noisy"], abs(values["aa_ratio"] - 1), spread


def quietest(timings: Iterable[Record]) -> Record | None:
    """The least disturbed of several timings of one case, by :func:`unrest`; None of none."""
    return min(timings, key=lambda record: unrest(record.values), default=None)


def _said(record: Record) -> Record:
    records.warn_if_stale(record, staleness.code(record.spec))
    return record
