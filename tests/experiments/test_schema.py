"""What is sealed but cannot be: values of every kind of committed record, changed field by field and sealed anew."""

from __future__ import annotations

import copy
import json

import pytest

from quide import _files, _paths
from quide.experiments import records, schema, staleness  # noqa: F401 - which imports all kinds
from quide.experiments.measured import KINDS
from quide.stats import pack_bits, unpack_bits
from tools import manifest

WRONG = (None, True, "1", 2.5, -1, [], {})


def one_of(kind):
    """A committed record of the kind, the smallest."""
    files = sorted((_paths.home() / "data" / "results").glob(f"*/{kind}/*.json"), key=lambda file: file.stat().st_size)
    if not files:
        pytest.skip(f"no committed record of {kind}")
    return json.loads(files[0].read_bytes())


def test_every_kind_has_a_schema():
    assert not KINDS.keys() - schema.REQUIRED.keys()


def test_every_committed_record_is_as_its_schema_says():
    assert records.collect(), "none was read"


@pytest.mark.parametrize("kind", schema.REQUIRED)
def test_what_a_kind_needs_may_not_be_absent(kind):
    values = one_of(kind)["values"]
    schema.check(kind, values)
    for name in schema.REQUIRED[kind].split():
        with pytest.raises(ValueError, match=name):
            schema.check(kind, {other: value for other, value in values.items() if other != name})


def _places(value, path=()):
    """Where the known fields of some values stand."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        if name in schema.FIELDS:
            yield (*path, name)
        yield from _places(inner, (*path, name))


@pytest.mark.parametrize("kind", schema.REQUIRED)
def test_a_field_of_another_type_or_range_is_named(kind):
    values = one_of(kind)["values"]
    for path in _places(values):
        for wrong in WRONG[:3] if path[-1] in schema.OPTIONAL else WRONG[1:5]:
            if schema.FIELDS[path[-1]](wrong) or wrong is None:
                continue
            changed = copy.deepcopy(values)
            inner = changed
            for name in path[:-1]:
                inner = inner[name]
            inner[path[-1]] = wrong
            with pytest.raises(ValueError, match=path[-1]):
                schema.check(kind, changed)


def test_an_accuracy_is_the_share_of_its_bits():
    values = one_of("accuracy")["values"]
    name = next(iter(values["accuracy"]))
    changed = values | {"accuracy": values["accuracy"] | {name: 0.5}}
    with pytest.raises(ValueError, match="share of its bits"):
        schema.check("accuracy", changed)
    bits = unpack_bits(values["correct"][name])
    short = values | {"correct": values["correct"] | {name: pack_bits(bits[:-1])}}
    with pytest.raises(ValueError, match="bits"):
        schema.check("accuracy", short)
    with pytest.raises(ValueError, match="other names"):
        schema.check("accuracy", values | {"correct": {"other": values["correct"][name]}})


def test_all_committed_data_are_pinned_or_sealed():
    """``python tools/manifest.py`` brings the list up to date."""
    assert _files.MANIFEST.read_text(encoding="ascii") == manifest.listed()
