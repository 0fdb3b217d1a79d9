"""Whether today's code and data would make a record again, for every kind of record there is."""

from __future__ import annotations

from quide.experiments import (  # noqa: F401 - they fill KINDS
    aiq,
    deployed,
    imagenet_runs,
    kernels,
    ladder,
    llm_runs,
    mixed,
    runs,
    throughput,
    tiny,
)  # fmt: skip
from quide.experiments.measured import KINDS
from quide.experiments.records import Record, RunSpec, is_stale


def stale(record: Record) -> bool:
    """Whether code or data have changed since the record was made.

    Raises:
        KeyError: a kind of record that no run of the library makes.
    """
    data = KINDS[record.spec.kind].data
    return is_stale(record, code(record.spec), None if data is None else data(record.spec))


def code(spec: RunSpec) -> str:
    """Digest of today's code that makes the record of a spec; errors as :func:`stale`."""
    return KINDS[spec.kind].digest(spec.model)
