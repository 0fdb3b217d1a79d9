"""No committed record is stale, and what changes makes one so."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace

import pytest

from quide import _paths
from quide.experiments import imagenet_runs, llm_runs, provenance, records, staleness
from quide.experiments.measured import KINDS


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


def test_another_network_in_the_registry_makes_no_record_stale(tmp_path, monkeypatch, request):
    held = {(record.spec.kind, record.spec.model) for record in committed()}
    before = {each: KINDS[each[0]].digest(each[1]) for each in held}
    package = tmp_path / "quide"
    shutil.copytree(_paths.PACKAGE, package, ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    registry = package / "models" / "registry.py"
    another = 'ROWS = (\n    Row("vgg", "cifar10", "VGG", "cifar10-resnet18", "simplecnn", aside=True),'
    text = registry.read_text()
    assert text.count("ROWS = (") == 1
    registry.write_text(text.replace("ROWS = (", another))
    monkeypatch.setattr(_paths, "PACKAGE", package)
    for cache in (provenance._module, provenance.code_digest):
        cache.cache_clear()
        request.addfinalizer(cache.cache_clear)
    assert before == {each: KINDS[each[0]].digest(each[1]) for each in held}


def test_a_kind_that_nothing_makes_is_refused():
    record = committed()[0]
    with pytest.raises(KeyError):
        staleness.stale(replace(record, spec=replace(record.spec, kind="unheard-of")))
