"""MMLU by the harness: its prompts, the model's own log-likelihoods, and no question asked twice."""

from __future__ import annotations

import json
from pathlib import Path

import mmlu_files
import numpy as np
import pytest
import tiny_llm
import torch

pytest.importorskip("lm_eval")
pytest.importorskip("transformers")

from quide.data import mmlu
from quide.llm import checkpoints, methods, mmlu_harness  # noqa: E402 - after it is known that they can be used
from quide.llm.methods import LlmRecipe, Loaded  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    mmlu_harness.tasks.cache_clear()
    yield mmlu_files.write(tmp_path / "mmlu", monkeypatch)
    mmlu_harness.tasks.cache_clear()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Loaded:
    found = checkpoints.find(str(tiny_llm.write(tmp_path_factory.mktemp("model"))))
    return methods.load(found, LlmRecipe("none", 32), list)


def asked(model: Loaded, file: Path, shots: int = 0, limit: int | None = None) -> np.ndarray:
    drawn = mmlu.draw(limit, seed=0)
    return mmlu_harness.log_likelihoods(model.model, model.tokenizer, drawn, shots, file, progress=False)


def prompt(subject: str, place: int, split: str = "test", solved: bool = False) -> str:
    text, *choices, letter = mmlu_files.question(subject, split, place)
    lines = [text, *(f"{name}. {choice}" for name, choice in zip("ABCD", choices, strict=True))]
    return "\n".join([*lines, f"Answer: {letter}\n\n" if solved else "Answer:"])


def test_the_prompt_is_the_harnesss_with_examples_of_the_same_subject():
    head = "The following are multiple choice questions (with answers) about virology.\n\n"
    requests = mmlu_harness._requests(mmlu_harness.tasks(0)["virology"], 3)
    assert [each.args for each in requests] == [(head + prompt("virology", 3), f" {letter}") for letter in "ABCD"]
    with_two = mmlu_harness._requests(mmlu_harness.tasks(2)["virology"], 3)[0].args[0]
    examples = [prompt("virology", number, "dev", solved=True) for number in range(2)]
    assert with_two == head + "".join(examples) + prompt("virology", 3)


def test_log_likelihoods_are_the_models_own(model, tmp_path):
    found = asked(model, tmp_path / "answers.jsonl")
    names = [(subject, place) for subject, places in mmlu.draw(None, 0).items() for place in places]
    assert found.shape == (len(names), 4)
    for row, (subject, place) in zip(found, names, strict=True):
        context = mmlu_harness._requests(mmlu_harness.tasks(0)[subject], place)[0].args[0]
        tokens = torch.tensor([model.tokenizer(context)["input_ids"]])
        letters = [model.tokenizer(letter)["input_ids"][-1] for letter in "ABCD"]
        with torch.inference_mode():
            wanted = torch.log_softmax(model.model(tokens).logits[0, -1], 0)[letters]
        assert row == pytest.approx(wanted.numpy(), abs=1e-4)


def test_questions_are_those_of_the_files():
    assert mmlu_harness.questions(0) == mmlu.load("test")


def test_an_interrupted_run_goes_on_at_the_next_question(model, tmp_path, monkeypatch):
    file, whole = tmp_path / "answers.jsonl", asked(model, tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:5]) + lines[5][:20])  # killed in the middle of a line
    calls = []
    real = mmlu_harness._requests
    monkeypatch.setattr(mmlu_harness, "_requests", lambda task, place: calls.append(place) or real(task, place))
    assert np.array_equal(asked(model, file), whole)
    assert len(calls) == len(whole) - 5
    assert [json.loads(line)["question"] for line in file.read_text().splitlines()] == [
        json.loads(line)["question"] for line in lines
    ]


def test_what_was_answered_is_not_asked_again(model, tmp_path, monkeypatch):
    file = tmp_path / "answers.jsonl"
    first = asked(model, file)
    monkeypatch.setattr(mmlu_harness, "_requests", lambda *_: pytest.fail("asked again"))
    assert np.array_equal(asked(model, file), first)


def test_a_kill_leaves_every_question_answered_so_far(model, tmp_path, monkeypatch):
    file, real, asked_for = tmp_path / "answers.jsonl", mmlu_harness._requests, []

    def dies(task, place):
        if len(asked_for) == 3:
            raise KeyboardInterrupt
        asked_for.append(place)
        return real(task, place)

    monkeypatch.setattr(mmlu_harness, "_requests", dies)
    with pytest.raises(KeyboardInterrupt):
        asked(model, file)
    assert len(mmlu_harness._known(file)) == 3
