"""MMLU by lm-evaluation-harness: its task, its prompts, its scoring; an interrupted run goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from functools import cache, partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from quide import _files
from quide.data import mmlu
from quide.data.mmlu import LETTERS, Question


@cache
def tasks(shots: int) -> dict[str, Any]:
    """The harness's task of each subject, over the folder that ``QUIDE_MMLU`` names, else over the hub's data set.

    Args:
        shots: examples shown before each question, the first ones of the split dev.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of options that nobody chose
    here = Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default"
    manager = TaskManager(include_path=here, include_defaults=False)
    splits = {split: mmlu.load(split) for split in ("dev", "test")} if mmlu.folder() else None
    wanted = []
    for subject in mmlu.SUBJECTS:
        options: dict[str, Any] = {"task": f"mmlu_{subject}", "num_fewshot": shots}
        if splits:
            options["custom_dataset"] = partial(_dataset, subject, splits)
        wanted.append(options)
    # A group's entries are the known tasks with options of one's own; an entry by itself would be a new task.
    found = manager.load({"group": "mmlu_here", "task": wanted})["tasks"]
    return {subject: found[f"mmlu_{subject}"] for subject in mmlu.SUBJECTS}


def questions(shots: int) -> dict[str, list[Question]]:
    """The test questions by subject, as the tasks have them."""
    return {
        subject: [Question(row["question"], tuple(row["choices"]), row["answer"]) for row in task.dataset["test"]]
        for subject, task in tasks(shots).items()
    }


def log_likelihoods(
    model: Any, tokenizer: Any, drawn: Mapping[str, Sequence[int]], shots: int, file: Path, progress: bool = True
) -> np.ndarray:
    """Log-likelihood (nats) of the four answers of each drawn question, float64 ``(questions, 4)``, in their order.

    Each question's four numbers are added to ``file`` as they come, a line a question, and questions that are there
    already are not asked again. A line that was cut short is.

    Args:
        model, tokenizer: of transformers.
        drawn: by subject, places in its test questions.
        shots: as in :func:`tasks`.
        file: of this run alone.
        progress: show a bar.
    """
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1)
    known = _known(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    names = [(subject, place) for subject, places in drawn.items() for place in places]
    with open(file, "a", encoding="ascii") as lines:
        for subject, place in tqdm(names, desc="MMLU", unit="question", disable=not progress):
            if (name := f"{subject} {place}") in known:
                continue
            requests = _requests(tasks(shots)[subject], place)
            # The four answers are one token each, so that the harness has them from one pass.
            known[name] = [value for value, _ in harness.loglikelihood(requests, disable_tqdm=True)]
            lines.write(_line(name, known[name]))
            lines.flush()
            os.fsync(lines.fileno())
    return np.array([known[f"{subject} {place}"] for subject, place in names])


def _dataset(subject: str, splits: Mapping[str, Mapping[str, Sequence[Question]]], **_: Any) -> Any:
    """A subject's questions in the layout of the hub's data set."""
    from datasets import Dataset, DatasetDict

    return DatasetDict(
        {
            split: Dataset.from_list(
                [
                    {"question": one.question, "subject": subject, "choices": list(one.choices), "answer": one.answer}
                    for one in subjects[subject]
                ]
            )
            for split, subjects in splits.items()
        }
    )


def _requests(task: Any, place: int) -> list[Any]:
    with contextlib.redirect_stderr(io.StringIO()):  # a bar for one question
        task.build_all_requests(samples=[place])
    return task.instances


def _known(file: Path) -> dict[str, list[float]]:
    """What an interrupted run left; its last line is taken away where it was cut short, so that more can be added."""
    if not file.exists():
        return {}
    with _files.reading(file, "delete it to have its questions asked again"):
        *whole, cut = _files.content(file).split(b"\n")
    if cut:
        os.truncate(file, file.stat().st_size - len(cut))
    found = {}
    for number, line in enumerate(whole, 1):
        with _files.reading(f"{file}, line {number},", "delete that line to have the question asked again"):
            entry = json.loads(line)
            name, values = entry["question"], [float(value) for value in entry["log_likelihoods"]]
            same = f"{line.decode()}\n" == _line(name, values)
            if not same or len(values) != len(LETTERS) or not all(map(isfinite, values)):
                raise ValueError("it is not as it was written")
            found[name] = values
    return found


def _line(name: str, values: Sequence[float]) -> str:
    """A question's answers as the file has them, with a digest of both."""
    held = {"question": name, "log_likelihoods": list(values)}
    digest = hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16]
    return json.dumps(held | {"digest": digest}) + "\n"
