"""Kinds of measurement: what a record of each is named by, what computes it, which code and data it depends on.

A measurement is a function that returns the details of its key, marked with :func:`measured`. What computes its values
stands in a module of :mod:`quide.experiments.compute`, under the same arguments, and is imported when it is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from importlib import import_module
from typing import Any

from quide.experiments import provenance, records
from quide.experiments.records import Record, RunSpec


@dataclass(frozen=True)
class Kind:
    """A kind of record.

    Attributes:
        computed_by: what returns their values, ``"module:function"``.
        code: further functions that decide the values for a model: what makes it and its input, reached by a name.
        data: checksum of what goes in; None where that is seldom on the machine that asks.
    """

    computed_by: str
    code: Callable[[str], Sequence[str]]
    data: Callable[[RunSpec], str] | None

    def digest(self, model: str) -> str:
        """Of today's code that makes its records of a model."""
        return provenance.code_digest(self.computed_by, *self.code(model))


KINDS: dict[str, Kind] = {}  # filled by the modules of measurements, all of which quide.experiments.staleness imports


@dataclass(frozen=True)
class Run:
    """One measurement: what it is, how to do it, and the checksum of what goes in.

    ``others`` are specs of the same on a network trained for other numbers of epochs, in order of preference.
    """

    spec: RunSpec
    compute: Callable[[], dict]
    checksum: Callable[[], str]
    others: tuple[RunSpec, ...] = ()

    @property
    def code(self) -> str:
        """Digest of today's code."""
        return KINDS[self.spec.kind].digest(self.spec.model)

    @property
    def data(self) -> str:
        """Checksum of today's data."""
        return self.checksum()

    def result(self, refresh: bool = False) -> Record:
        """The record, computed and saved if there is none; see :func:`quide.experiments.records.load_or_run`."""
        return records.load_or_run(self.spec, self.compute, self.code, self.data, refresh)

    def known(self) -> Record | None:
        """The record if there is one, or that of the longest other training; nothing is computed. Warns when stale."""
        for spec in (self.spec, *self.others):
            if (record := records.load(spec)) is not None:
                records.warn_if_stale(record, self.code, self.data)
                return record
        return None


def measured(
    name: str,
    computed_by: str,
    code: Callable[[str], Sequence[str]],
    data: Callable[[RunSpec], str] | None = None,
) -> Callable[[Callable[..., dict]], Callable[..., Run]]:
    """Marks a function that returns a key's details, and makes of it one that returns the :class:`Run`.

    Its first argument is a case, which has ``spec(kind, details)``; a case with ``others()`` has stand-ins for what is
    only shown, and one with ``checksum(*arguments)`` checks what goes in, where ``data`` cannot say it from the spec.
    """
    KINDS[name] = Kind(computed_by, code, data)

    def decorate(describe: Callable[..., dict]) -> Callable[..., Run]:
        signature = inspect.signature(describe)

        @wraps(describe)
        def run(*given: Any, **options: Any) -> Run:
            bound = signature.bind(*given, **options)
            bound.apply_defaults()
            case, *arguments = bound.arguments.values()
            spec = case.spec(name, describe(case, *arguments))
            checksum = partial(case.checksum, name, *arguments) if data is None else partial(data, spec)
            others = case.others() if hasattr(case, "others") else ()
            return Run(
                spec, partial(_computed, computed_by, case, *arguments), checksum,
                tuple(other.spec(name, describe(other, *arguments)) for other in others),
            )  # fmt: skip

        return run

    return decorate


def _computed(computed_by: str, *arguments: Any) -> dict:
    module, _, function = computed_by.partition(":")
    return getattr(import_module(module), function)(*arguments)
