"""Tests of choosing records, on records of a folder of their own."""

from dataclasses import replace

import pytest

from quide.experiments import records, runs, select, staleness


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))


def made(seed: int, images: int, profile: str = "paper") -> records.Record:
    spec = runs.accuracy(runs.Case("simplecnn", "mnist", seed, profile)).spec
    values = {"accuracy": {}, "correct": {}, "images": images}
    record = records.Record(spec, values, staleness.code(spec), "data", {}, 1.0)
    records.save(record)
    return record


def most_images(record: records.Record) -> int:
    return record.values["images"]


def test_the_best_is_that_of_highest_worth_at_the_first_profile_that_has_any():
    made(0, 5, "quick"), made(1, 2)
    best = made(2, 3)
    made(3, 3)
    assert select.best("accuracy", most_images, profiles=("paper", "quick")).key == best.key
    assert select.best("accuracy", most_images, profiles=("smoke", "quick")).values["images"] == 5
    assert select.best("accuracy", most_images, where=lambda record: record.spec.seed == 1).values["images"] == 2


def test_without_records_there_is_no_best():
    made(0, 5)
    assert select.best("accuracy", most_images, dataset="cifar10") is None
    assert select.best("latency", most_images) is None
    assert select.known("accuracy", model="resnet18") == []


def test_what_other_code_made_is_taken_with_a_warning():
    records.save(replace(made(0, 5), code="of old"))
    with pytest.warns(records.StaleRecordWarning, match="of old"):
        assert select.best("accuracy", most_images).values["images"] == 5
    with pytest.warns(records.StaleRecordWarning, match="of old"):
        assert len(select.known("accuracy")) == 1
