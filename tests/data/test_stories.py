"""The stories are those that were published with the book, and each fits the smallest model's context."""

from __future__ import annotations

import shutil

import pytest

from quide import _paths
from quide.data import stories


def test_some_are_calibrated_on_and_the_others_scored():
    found = stories.load()
    assert (len(found.calibration), len(found.scored)) == (4, 12)
    assert not set(found.calibration) & set(found.scored)
    assert all(story.endswith((".", '"')) and "\n" not in story for story in (*found.calibration, *found.scored))


def test_a_changed_or_missing_file_is_refused_with_the_remedy(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "embedded"
    folder.mkdir(parents=True)
    shutil.copy(_paths.embedded() / "stories.txt", folder)
    monkeypatch.setenv("QUIDE_HOME", str(tmp_path))
    file = folder / "stories.txt"
    file.write_text(file.read_text().replace("Nora", "Dora", 1))
    with pytest.raises(ValueError, match="stories.txt cannot be read .*published stories.*restore it with: git"):
        stories.load()
    file.unlink()
    with pytest.raises(FileNotFoundError, match="stories.txt is missing; restore it with: git"):
        stories.load()
