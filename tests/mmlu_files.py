"""A small MMLU in the published layout, for tests: three subjects in the place of 57."""

from __future__ import annotations

import csv
from pathlib import Path

from quide.data import mmlu

SUBJECTS = {"anatomy": (2, 4), "marketing": (1, 3), "virology": (1, 6)}


def question(subject: str, split: str, number: int) -> tuple[str, ...]:
    """One line of a file; the answers go round."""
    letters = mmlu.LETTERS
    text = f'Which of these is item {number} of {subject} ({split}), said "so"?'
    return (text, *(f"{subject} {letter}{number}" for letter in letters), letters[number % len(letters)])


def write(root: Path, monkeypatch) -> Path:
    """The files, in ``root``, which ``QUIDE_MMLU`` names from now on."""
    monkeypatch.setattr(mmlu, "SUBJECTS", SUBJECTS)
    monkeypatch.setenv("QUIDE_MMLU", str(root))
    for split in mmlu.SPLITS:
        (root / split).mkdir(parents=True)
        for subject in SUBJECTS:
            with open(file_of(root, split, subject), "w", newline="", encoding="utf-8") as lines:
                rows = [question(subject, split, number) for number in range(mmlu.count(subject, split))]
                csv.writer(lines).writerows(rows)
    return root


def file_of(root: Path, split: str, subject: str) -> Path:
    """A subject's file."""
    return root / split / f"{subject}_{split}.csv"
