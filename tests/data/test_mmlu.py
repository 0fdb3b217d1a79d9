"""MMLU's files: read as published, refused by name when damaged, drawn from evenly."""

from __future__ import annotations

import os
from pathlib import Path

import mmlu_files
import pytest

from quide.data import mmlu

PUBLISHED = {"dev": 285, "val": 1531, "test": 14042}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return mmlu_files.write(tmp_path, monkeypatch)


def test_questions_are_read_as_they_stand(folder):
    found = mmlu.load("test")
    assert {subject: len(questions) for subject, questions in found.items()} == {
        subject: count for subject, (_, count) in mmlu_files.SUBJECTS.items()
    }
    text, *choices, letter = mmlu_files.question("virology", "test", 5)
    assert found["virology"][5] == mmlu.Question(text, tuple(choices), "ABCD".index(letter))


@pytest.mark.parametrize("split", mmlu.SPLITS)
def test_the_counts_are_those_of_the_published_set(split):
    assert sum(mmlu.count(subject, split) for subject in mmlu.SUBJECTS) == PUBLISHED[split]
    assert len(mmlu.SUBJECTS) == 57


@pytest.mark.skipif("QUIDE_MMLU" not in os.environ, reason="QUIDE_MMLU names no folder with the published files")
@pytest.mark.parametrize("split", mmlu.SPLITS)
def test_the_published_files_are_accepted(split):
    assert sum(map(len, mmlu.load(split).values())) == PUBLISHED[split]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: text.index("\n") + 1], "holds 1 questions where 6 were published"),
        (lambda text: text.replace(",C\r\n", ",E\r\n", 1), "line 3 has the answer 'E'"),
        (lambda text: text.replace(",C\r\n", "\r\n", 1), "line 3 has 5 fields where six belong"),
        (lambda text: text.replace("virology A1", " ", 1), "line 2 has an empty field"),
        (lambda text: text.replace('"Which', '"Which" x', 1), "cannot be read"),
        (lambda text: "\udcff" + text, "cannot be read"),
    ],
    ids=["short", "letter", "fields", "empty", "quote", "encoding"],
)
def test_damage_is_named(folder, damage, reason):
    file = mmlu_files.file_of(folder, "test", "virology")
    text = file.read_bytes().decode()
    file.write_bytes(damage(text).encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=reason) as refused:
        mmlu.load("test")
    assert str(file) in str(refused.value) and "put the original file there" in str(refused.value)


def test_a_missing_file_and_a_missing_folder_are_named(folder, monkeypatch):
    file = mmlu_files.file_of(folder, "val", "anatomy")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"{file} is missing; .*QUIDE_MMLU"):
        mmlu.load("val")
    monkeypatch.delenv("QUIDE_MMLU")
    with pytest.raises(FileNotFoundError, match="QUIDE_MMLU is not set"):
        mmlu.load("test")
    with pytest.raises(ValueError, match="split must be one of dev, val, test"):
        mmlu.load("train")


def test_a_draw_is_even_over_subjects_and_fixed_by_its_seed():
    drawn = mmlu.draw(10, seed=0)
    assert {len(set(places)) for places in drawn.values()} == {10}
    assert all(0 <= min(places) and max(places) < mmlu.count(subject, "test") for subject, places in drawn.items())
    assert drawn == mmlu.draw(10, seed=0) != mmlu.draw(10, seed=1)
    assert all(places == sorted(places) for places in drawn.values())


def test_all_questions_are_drawn_without_a_limit_or_beyond_what_there_is():
    everything = mmlu.draw(None, seed=3)
    assert everything["anatomy"] == list(range(135)) and sum(map(len, everything.values())) == PUBLISHED["test"]
    assert mmlu.draw(10_000, seed=3) == everything
    with pytest.raises(ValueError, match="limit must be at least 1"):
        mmlu.draw(0, seed=0)


def test_the_digest_changes_with_questions_and_draw(folder):
    questions, drawn = mmlu.load("test"), mmlu.draw(2, seed=0)
    digests = {mmlu.digest(questions, drawn), mmlu.digest(questions, mmlu.draw(3, seed=0))}
    other = {subject: list(asked) for subject, asked in questions.items()}
    place = drawn["anatomy"][0]
    old = other["anatomy"][place]
    other["anatomy"][place] = mmlu.Question(old.question, old.choices, (old.answer + 1) % 4)
    digests.add(mmlu.digest(other, drawn))
    assert len(digests) == 3
