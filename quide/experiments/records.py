"""One small JSON file a run: what was asked for (:class:`RunSpec`), what came out and who made it (:class:`Record`)."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from quide import _check, _files, _paths
from quide.experiments import profiles, provenance, schema

SCHEMA = 1
LIMIT, ROOM = 1 << 26, 1 << 20  # bytes that a record has at most, and that must be free before one is computed
NOTES = "QUIDE_NOTES"  # variable that names a file to note in which folders were looked into

_NAME = re.compile(r"[a-z0-9_-]+")
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


class StaleRecordWarning(UserWarning):
    """A record was read that other code, or other data, than today's made."""


@dataclass(frozen=True, eq=False)
class RunSpec:
    """What decides a run's result, and so its record's name.

    Two specs are equal, and share a key, when their JSON says the same: the order of ``details``, tuples for lists,
    numpy for Python scalars and 8.0 for 8 make no difference.

    Args:
        kind: what was measured, ``"training"``, ``"accuracy"``, ``"latency"``, ...; characters ``a-z0-9_-``.
        model, dataset: their names, ``"simplecnn"``, ``"cifar10"``; characters ``a-z0-9_.-``.
        seed: a non-negative integer.
        profile: ``"smoke"``, ``"quick"``, ``"short"`` or ``"paper"``.
        details: every other JSON value that identifies the run (scheme, bits, recipe, backend, device). Copied and
            frozen: mappings become read-only, lists become tuples.
    """

    kind: str
    model: str
    dataset: str
    seed: int
    profile: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("kind", self.kind, _NAME)
        _check_name("model", self.model, _FILE_NAME)
        _check_name("dataset", self.dataset, _FILE_NAME)
        profiles.profile(self.profile)
        object.__setattr__(self, "seed", _check.whole("seed", self.seed, 0))
        object.__setattr__(self, "details", _frozen(_plain_mapping(self.details, "details")))

    @cached_property
    def canonical(self) -> str:
        """The one JSON text of this spec: sorted keys, no spaces."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False, default=dict)

    @cached_property
    def key(self) -> str:
        """First 16 hex digits of the SHA-256 of :attr:`canonical`."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:16]

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return json.loads(self.canonical)

    def __eq__(self, other: object) -> bool:
        return self.canonical == other.canonical if isinstance(other, RunSpec) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __reduce__(self):  # a read-only mapping cannot be pickled or copied, its plain form can
        values = self.to_dict()
        return RunSpec, tuple(values[one.name] for one in fields(self))


@dataclass(frozen=True)
class Record:
    """The result of one run.

    Args:
        spec: what was run.
        values: the results, finite JSON values; a NaN or infinity is refused by the name of its key.
        code: digest of the code that decides the values (:func:`quide.experiments.provenance.code_digest`).
        data: checksum of the data that went in.
        provenance: who made it (:func:`quide.experiments.provenance.collect`).
        seconds: wall time of the computation.
        schema: version of the file layout.
    """

    spec: RunSpec
    values: dict[str, Any]
    code: str
    data: str
    provenance: dict[str, Any]
    seconds: float
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if not isinstance(self.spec, RunSpec):
            raise ValueError(f"spec must be a RunSpec, got {type(self.spec).__name__}")
        if type(self.schema) is not int or self.schema != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}, the one this version of quide reads, got {self.schema!r}")
        for name in ("code", "data"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name} must be a checksum string, got {getattr(self, name)!r}")
        seconds = _plain(self.seconds, "seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds < 0:
            raise ValueError(f"seconds must be a number of at least 0, got {self.seconds!r}")
        object.__setattr__(self, "values", _plain_mapping(self.values, "values"))
        object.__setattr__(self, "provenance", _plain_mapping(self.provenance, "provenance"))

    @property
    def key(self) -> str:
        """The key of the spec."""
        return self.spec.key

    def to_dict(self) -> dict:
        """What the file holds."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        held = {**values, "key": self.key, "spec": self.spec.to_dict()}
        return {**held, "digest": _digest(held)}


def described(choices: Any) -> dict[str, Any]:
    """The fields of a dataclass as a spec holds them: one that came later only where it is not at its default.

    Such a field is marked by :data:`quide.ptq.scheme.LATER`, so that it leaves the names of older records alone.
    """
    values = asdict(choices)
    late = {one.name: one.default for one in fields(choices) if one.metadata.get("later")}
    return {name: value for name, value in values.items() if name not in late or value != late[name]}


def path_of(spec: RunSpec) -> Path:
    """The file that holds, or would hold, the record of ``spec``."""
    return _paths.results() / _place(spec)


def load(spec: RunSpec) -> Record | None:
    """The record of ``spec``, or None when there is none; errors as :func:`read`."""
    file = path_of(spec)
    _note(f"{spec.profile}/{spec.kind}")
    return read(file) if file.exists() else None


def read(file: Path) -> Record:
    """The record in ``file``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not parse, is not what was written, breaks the schema, or is not where its content says it
            belongs; the message names the file and what to do.
    """
    file = _paths.given("file", file)
    with _files.reading(f"record {file}", "delete it to have it computed again, or restore it with git"):
        found = _files.content(file, LIMIT)
        held = json.loads(found, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
        if not isinstance(held, dict) or "digest" not in held:  # one of those that were made before there was a digest
            _files.prove("/".join(("results", *file.absolute().parts[-3:])), found)
        elif held.pop("digest") != _digest(held):
            raise ValueError("its digest is not that of its content")
        record = _from_dict(held)
        schema.check(record.spec.kind, record.values)
        if file.absolute().parts[-3:] != _place(record.spec).parts:
            raise ValueError(f"its content belongs in {_place(record.spec)}")
    return record


def save(record: Record) -> Path:
    """Write ``record`` and return its file, which at every moment holds a whole record or does not exist.

    The last of several writers wins. Partial files whose writers died are removed from the folder.

    Raises:
        OSError: the folder cannot be written to; the message names it and the remedy.
    """
    file = path_of(record.spec)
    text = json.dumps(record.to_dict(), sort_keys=True, indent=1, allow_nan=False)
    with _writing(file.parent), _paths.atomic(file) as partial:
        partial.write_text(f"{text}\n", encoding="ascii", newline="\n")
    return file


def load_or_run(
    spec: RunSpec, compute: Callable[[], Mapping[str, Any]], code: str, data: str, refresh: bool = False
) -> Record:
    """The record of ``spec``: read when it exists, otherwise computed, timed and saved.

    A record made by other code or from other data is returned with a :class:`StaleRecordWarning`: it is neither passed
    off as today's nor computed again unasked.

    Args:
        spec: what to run.
        compute: zero-argument function that returns the values.
        code: digest of today's code (:func:`quide.experiments.provenance.code_digest`).
        data: checksum of today's data.
        refresh: compute again and overwrite, whatever is on disk.

    Raises:
        OSError: the folder of records cannot be written to; found out before computing.
    """
    known = None if refresh else load(spec)
    if known is not None:
        warn_if_stale(known, code, data, "delete it or pass refresh=True to compute it again")
        return known
    folder = path_of(spec).parent
    with _writing(folder):  # hours of work must not end at a folder that cannot be written to
        _paths.try_to_write(folder, ROOM)
    provenance.git_commit()  # remembered from here on: the commit that runs, not one made while it runs
    started = time.perf_counter()
    values = compute()
    seconds = round(time.perf_counter() - started, 3)
    record = Record(spec, values, code, data, provenance.collect(), seconds)
    save(record)
    return record


def is_stale(record: Record, code: str, data: str | None = None) -> bool:
    """Whether the record was made by code other than ``code``, or (if given) from data other than ``data``."""
    return bool(_staleness(record, code, data))


def warn_if_stale(
    record: Record, code: str, data: str | None = None, remedy: str = "delete it to have it made again"
) -> None:
    """Give a :class:`StaleRecordWarning` with the reason and a remedy where :func:`is_stale` holds."""
    if reason := _staleness(record, code, data):
        message = f"record {path_of(record.spec)} is stale ({reason}); {remedy}"
        warnings.warn(message, StaleRecordWarning, stacklevel=3)


def collect(
    kind: str | None = None, profile: str | None = None, model: str | None = None, dataset: str | None = None
) -> list[Record]:
    """All records that match, ordered by kind, profile, model, dataset, seed and details.

    Raises:
        ValueError: a file among them does not parse (:func:`read`), or a name is not one that a record can have.
    """
    if kind is not None:
        _check_name("kind", kind, _NAME)
    if profile is not None:
        profiles.profile(profile)
    for argument, name in (("model", model), ("dataset", dataset)):
        if not isinstance(name, (str, type(None))):
            raise ValueError(f"{argument} must be a name, got {name!r}")
    folders = f"{profile or '*'}/{kind or '*'}"
    _note(folders)
    asked = "-".join("*" if name is None else glob.escape(name) for name in (model, dataset))
    names = "*" if model is dataset is None else f"{asked}-s*"  # hundreds of files: only what is asked for is parsed
    found = [read(file) for file in _paths.results().glob(f"{folders}/{names}.json")]
    wanted = [r for r in found if model in (None, r.spec.model) and dataset in (None, r.spec.dataset)]
    return sorted(wanted, key=_order)


def _place(spec: RunSpec) -> Path:
    return Path(spec.profile, spec.kind, f"{spec.model}-{spec.dataset}-s{spec.seed}-{spec.key}.json")


def _note(folders: str) -> None:
    """Tell the build of the book which folders a page was made from."""
    if file := os.environ.get(NOTES):
        with open(file, "a", encoding="ascii") as stream:
            stream.write(f"{folders}\n")


def _order(record: Record) -> tuple:
    spec = record.spec
    return spec.kind, spec.profile, spec.model, spec.dataset, spec.seed, spec.canonical


def same_code(made_by: str, today: str) -> bool:
    """Whether the digest of a record is today's, or of code proven to give what today's gives (``data/codes.json``)."""
    return made_by == today or today in _equivalent_codes().get(made_by, ())


@cache
def _equivalent_codes() -> dict[str, list[str]]:
    """Digests in records to later ones, as ``tools/restamp.py`` wrote them after it compared what the codes compute."""
    file = _paths.home() / "data" / "codes.json"
    with _files.committed(file):
        return json.loads(_files.prove(file.name, _files.content(file, LIMIT))) if file.exists() else {}


def _staleness(record: Record, code: str, data: str | None) -> str:
    """Why the record is stale; empty when it is not."""
    reasons = []
    if not same_code(record.code, code):
        reasons.append(f"made by code {record.code}, today's is {code}")
    if data is not None and record.data != data:
        reasons.append(f"made from data {record.data}, today's is {data}")
    return "; ".join(reasons)


def _writing(folder: Path) -> contextlib.AbstractContextManager[None]:
    return _paths.writing(folder, "records", "QUIDE_RESULTS")


def _digest(held: dict) -> str:
    """SHA-256 of everything else that a record's file holds."""
    return hashlib.sha256(json.dumps(held, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _from_dict(content: Any) -> Record:
    """A record from parsed JSON; ValueError says what is wrong with it."""
    names = {one.name for one in fields(Record)}
    _check_keys(content, names | {"key"}, "the file")
    _check_keys(content["spec"], {one.name for one in fields(RunSpec)}, "spec")
    spec = RunSpec(**content["spec"])
    if content["key"] != spec.key:
        raise ValueError(f"key is {content['key']!r}, but the key of its spec is {spec.key!r}")
    return Record(**{name: content[name] for name in names - {"spec"}}, spec=spec)


def _check_keys(content: Any, names: set[str], where: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds {type(content).__name__}, not an object")
    if missing := names - content.keys():
        raise ValueError(f"{where} lacks {', '.join(sorted(missing))}")
    if unknown := content.keys() - names:
        raise ValueError(f"{where} has unknown {', '.join(sorted(unknown))}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a finite number")


def _check_name(argument: str, value: Any, pattern: re.Pattern[str]) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{argument} must be a name matching {pattern.pattern}, got {value!r}")


def _plain_mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping of names to JSON values, got {type(value).__name__}")
    return _plain(value, where)


def _plain(value: Any, where: str) -> Any:
    """A deep copy of a JSON value made of plain Python types; ValueError names the key of anything else."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"{where} has the key {name!r}; JSON keys are strings, write str({name!r})")
        return {name: _plain(inner, f"{where}.{name}") for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}; records hold finite numbers only, leave it out or write None")
        return float(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise ValueError(f"{where} is a {type(value).__name__}, which is not a JSON value; convert it first")


def _frozen(value: Any) -> Any:
    """A read-only copy of a plain JSON value in which whole floats are integers, so that equal numbers look equal."""
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(inner) for name, inner in sorted(value.items())})
    if isinstance(value, list):
        return tuple(_frozen(inner) for inner in value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
