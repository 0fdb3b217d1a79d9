"""MMLU from a folder of the user's: the files as they were published, checked, counted and drawn from."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quide import _files, _paths
from quide._check import one_of

LETTERS = "ABCD"
NOT_TEXT = [chr(code) for code in range(32) if chr(code) not in "\t\n\r"]
DEV = 5  # questions a subject in the split that examples are shown from
REMEDY = (
    "name the folder that holds dev/, val/ and test/ with <subject>_<split>.csv in QUIDE_MMLU, "
    "or leave it unset to have the questions from the Hugging Face hub"
)
# Questions of each subject in the splits val and test.
SUBJECTS = {
    "abstract_algebra": (11, 100), "anatomy": (14, 135), "astronomy": (16, 152), "business_ethics": (11, 100),
    "clinical_knowledge": (29, 265), "college_biology": (16, 144), "college_chemistry": (8, 100),
    "college_computer_science": (11, 100), "college_mathematics": (11, 100), "college_medicine": (22, 173),
    "college_physics": (11, 102), "computer_security": (11, 100), "conceptual_physics": (26, 235),
    "econometrics": (12, 114), "electrical_engineering": (16, 145), "elementary_mathematics": (41, 378),
    "formal_logic": (14, 126), "global_facts": (10, 100), "high_school_biology": (32, 310),
    "high_school_chemistry": (22, 203), "high_school_computer_science": (9, 100),
    "high_school_european_history": (18, 165), "high_school_geography": (22, 198),
    "high_school_government_and_politics": (21, 193), "high_school_macroeconomics": (43, 390),
    "high_school_mathematics": (29, 270), "high_school_microeconomics": (26, 238), "high_school_physics": (17, 151),
    "high_school_psychology": (60, 545), "high_school_statistics": (23, 216), "high_school_us_history": (22, 204),
    "high_school_world_history": (26, 237), "human_aging": (23, 223), "human_sexuality": (12, 131),
    "international_law": (13, 121), "jurisprudence": (11, 108), "logical_fallacies": (18, 163),
    "machine_learning": (11, 112), "management": (11, 103), "marketing": (25, 234), "medical_genetics": (11, 100),
    "miscellaneous": (86, 783), "moral_disputes": (38, 346), "moral_scenarios": (100, 895), "nutrition": (33, 306),
    "philosophy": (34, 311), "prehistory": (35, 324), "professional_accounting": (31, 282),
    "professional_law": (170, 1534), "professional_medicine": (31, 272), "professional_psychology": (69, 612),
    "public_relations": (12, 110), "security_studies": (27, 245), "sociology": (22, 201),
    "us_foreign_policy": (11, 100), "virology": (18, 166), "world_religions": (19, 171),
}  # fmt: skip
SPLITS = ("dev", "val", "test")


@dataclass(frozen=True)
class Question:
    """A question with four answers, of which ``answer`` (0 to 3) is right."""

    question: str
    choices: tuple[str, ...]
    answer: int


Questions = Mapping[str, Sequence[Question]]


def folder() -> Path | None:
    """The folder named by ``QUIDE_MMLU``; None when the variable is not set."""
    return _paths.named("QUIDE_MMLU")


def load(split: str) -> dict[str, list[Question]]:
    """The questions of a split by subject, in the order of their files.

    Args:
        split: ``"dev"`` (examples to show), ``"val"`` or ``"test"``.

    Raises:
        FileNotFoundError: ``QUIDE_MMLU`` is not set, or a subject's file is not there; the message names it.
        ValueError: unknown split, or a file that is not as published: its number of questions, a line that has not six
            fields, an empty field, an answer that is not A to D. The message names file and line.
    """
    one_of("split", split, SPLITS)
    root = folder()
    if root is None:
        raise FileNotFoundError(f"QUIDE_MMLU is not set; {REMEDY}")
    questions = {}
    for subject in SUBJECTS:
        file, wanted = root / split / f"{subject}_{split}.csv", count(subject, split)
        questions[subject] = found = _read(file)
        if len(found) != wanted:
            raise ValueError(
                f"{file} holds {len(found)} questions where {wanted} were published; put the original file there"
            )
    return questions


def count(subject: str, split: str) -> int:
    """How many questions were published."""
    return DEV if split == "dev" else SUBJECTS[subject][SPLITS.index(split) - 1]


def draw(limit: int | None, seed: int) -> dict[str, list[int]]:
    """Which test questions of each subject are asked: so many of each, drawn uniformly with the seed, in their order.

    Args:
        limit: questions a subject; None for all. A subject with fewer gives all it has.
        seed: a non-negative integer; of no consequence where all are asked.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 question a subject, or None for all, got {limit}")
    generator, drawn = np.random.default_rng(seed), {}
    for subject in SUBJECTS:
        total = count(subject, "test")
        size = total if limit is None else min(limit, total)
        drawn[subject] = sorted(generator.choice(total, size, replace=False).tolist())
    return drawn


def digest(questions: Questions, drawn: Mapping[str, Sequence[int]]) -> str:
    """SHA-256 over the drawn questions: subject, text, choices and answer of each, in order."""
    total = hashlib.sha256()
    for subject, places in drawn.items():
        for place in places:
            one = questions[subject][place]
            total.update("\0".join([subject, one.question, *one.choices, LETTERS[one.answer], ""]).encode())
    return total.hexdigest()


def _read(file: Path) -> list[Question]:
    with _files.reading(file, f"put the original file there, or {REMEDY}"):
        reader = csv.reader(io.StringIO(_files.content(file).decode(), newline=""), strict=True)
        return [_question(fields, f"{file}, line {reader.line_num}") for fields in reader]


def _question(fields: list[str], where: str) -> Question:
    """One line: question, four answers, and the letter of the right one; there is no line of headings."""
    if len(fields) != 2 + len(LETTERS):
        raise ValueError(f"{where} has {len(fields)} fields where six belong; put the original file there")
    if not all(field.strip() for field in fields):
        raise ValueError(f"{where} has an empty field; put the original file there")
    if any(letter in field for field in fields for letter in NOT_TEXT):
        raise ValueError(f"{where} holds bytes that are no text; put the original file there")
    question, *choices, letter = fields
    if letter not in tuple(LETTERS):
        raise ValueError(f"{where} has the answer {letter!r}, which is not one of A to D; put the original file there")
    return Question(question, tuple(choices), LETTERS.index(letter))
