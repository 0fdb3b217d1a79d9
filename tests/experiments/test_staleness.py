"""No committed record is stale, and what changes makes one so."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from quide import _paths
from quide.experiments import imagenet_runs, llm_runs, records, staleness


def committed() -> list[records.Record]:
    files = (file for profile in ("short", "paper") for file in (_paths.results() / profile).glob("*/*.json"))
    return [records.read(file) for file in files]


def test_no_committed_record_is_stale(monkeypatch):
    monkeypatch.delenv("QUIDE_RESULTS", raising=False)
    known = committed()
    found = Counter(f"{r.spec.kind} of {r.spec.model} on {r.spec.dataset}" for r in known if staleness.stale(r))
    assert known and not found, "restore the code they were made by, or make them again"


@pytest.mark.parametrize("kind", ["accuracy", "weight_only", imagenet_runs.ACCURACY, llm_runs.NEXT_TOKEN])
def test_a_record_of_other_code_is_stale(kind, monkeypatch):
    monkeypatch.delenv("QUIDE_RESULTS", raising=False)
    record = next(record for record in committed() if record.spec.kind == kind)
    assert staleness.stale(replace(record, code="0" * 16))
    assert staleness.stale(replace(record, data="0" * 16)) == (kind != llm_runs.NEXT_TOKEN)


def test_a_kind_that_nothing_makes_is_refused():
    record = committed()[0]
    with pytest.raises(KeyError):
        staleness.stale(replace(record, spec=replace(record.spec, kind="unheard-of")))
