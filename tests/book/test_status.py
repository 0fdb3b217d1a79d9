"""The page on status: what it counts, what it calls missing, and whose numbers stand in the paper's columns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from quidebook.pages import status
from quidebook.report import UNKNOWN
from quidebook.verdicts import REPRODUCED, SUPPORTS

from quide.experiments import paper, runs


@pytest.fixture
def kept(checkout, monkeypatch) -> list:
    monkeypatch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
    return status.kept()


def test_records_are_counted_by_profile_and_by_what_made_them(kept):
    some = kept[:3]
    changed = [replace(some[0], provenance=dict(some[0].provenance) | {"git_commit": "abc-dirty"}), *some[1:]]
    before, after = status.counts(some), status.counts(changed)
    assert before["paper"] + before["short"] == 3
    assert after["dirty"] == before["dirty"] + ("dirty" not in some[0].provenance["git_commit"])


def test_a_network_beside_the_papers_has_no_numbers_of_the_paper_and_no_tick(kept):
    rows = status.at_a_glance()
    assert len(rows) == len(paper.conditions()) + len(runs.BESIDE)
    beside = rows[rows["network / task"].str.contains("beside")]
    assert set(beside[["paper: I", "paper: I′"]].to_numpy().ravel()) == {UNKNOWN}
    assert set(beside["verdict"]) == {SUPPORTS} and "calibration draws" in beside["measured: I′"].iloc[0]
    assert (rows["verdict"] == REPRODUCED).sum() == 2


def test_a_condition_is_missing_until_its_own_network_has_a_record(kept):
    missing = status.missing_table(kept).set_index("network / task")["to measure it"]
    assert "ResNet-18 / ImageNet-1K" in missing.index, "there are records of another network"
    assert "SimpleCNN / MNIST" not in missing.index
    assert "--datasets cifar100" in missing["SimpleCNN / CIFAR-100"]
    assert len(status.missing_table([])) == len(paper.conditions())


def test_every_kept_record_is_in_one_row(kept):
    table = status.kept_table(kept)
    assert table["records"].sum() == len(kept)
    assert status.kept_table([]).empty
