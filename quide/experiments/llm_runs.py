"""The measurements on language models: accuracy, size, latency a token.

:mod:`quide.experiments.compute.language` computes them.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quide import _paths
from quide.data import mmlu, stories
from quide.experiments import provenance, records
from quide.experiments.measured import Run, measured
from quide.experiments.runs import CROSS_SCHEMES, WIDTHS, weight_only  # noqa: F401 - the image network, the same way
from quide.llm import mmlu_harness

if TYPE_CHECKING:
    from quide.llm.checkpoints import Checkpoint
    from quide.llm.methods import LlmRecipe

PROFILE = "paper"  # no language model is embedded, so that there is no smaller profile
ACCURACY, NEXT_TOKEN, LATENCY, MEMORY, CROSS = (
    "llm_accuracy", "llm_next_token", "llm_latency", "llm_memory", "weight_only",
)  # fmt: skip
MMLU, STORIES = "mmlu", "stories"  # as records name their data
CALIBRATION_QUESTIONS = {"cpu": 4, "cuda": 128}  # of the validation split, for AWQ, which takes a minute each on a CPU
PROMPT = 128  # tokens: the length of a timed prefill, and what a timed decoding step comes after
PASSES = {"prefill": 20, "decode": 200}  # fewer than the paper's, since a pass takes a second
WARMUP = 5
WAIT_S = 120  # for a quiet machine
STEP = 0.001  # nats: what log-likelihoods are kept to
cross = weight_only


@dataclass(frozen=True)
class LanguageCase:
    """A language model; the seed decides which questions are drawn, and which are calibrated on."""

    checkpoint: Checkpoint
    seed: int = 0
    device: str = "cpu"

    def spec(self, kind: str, details: dict) -> records.RunSpec:
        """The spec of a run, whose key names the model's weights."""
        dataset, details = MMLU if kind == ACCURACY else STORIES, details | {"weights": self.checkpoint.digest}
        return records.RunSpec(kind, self.checkpoint.name, dataset, self.seed, PROFILE, details)

    def checksum(self, kind: str, *arguments: Any) -> str:
        """Of what is asked."""
        if kind != ACCURACY:
            return stories.SHA256
        _, shots, limit, _ = arguments
        return mmlu.digest(mmlu_harness.questions(shots), mmlu.draw(limit, self.seed))


def _deciding(model: str) -> tuple[str, ...]:
    return ("quide.llm.methods:load",)


def by_autoawq(case: LanguageCase) -> LanguageCase:
    """The same with the model as autoawq quantizes it, on the questions that AWQ is calibrated on elsewhere too."""
    from quide.experiments.compute import language
    from quide.llm import autoawq, checkpoints, methods

    texts = language.calibration(methods.LlmRecipe(methods.AWQ, autoawq.BITS), case)
    return replace(case, checkpoint=checkpoints.find(str(autoawq.make(case.checkpoint, texts, case.device))))


# --- accuracy --------------------------------------------------------------------------------------------------------


@measured(ACCURACY, "quide.experiments.compute.language:accuracy", _deciding)
def accuracy(case: LanguageCase, recipe: LlmRecipe, shots: int, limit: int | None, progress: bool = True) -> dict:
    """Answers to MMLU's test questions, by lm-evaluation-harness.

    Args:
        case: the model.
        recipe: how it is quantized.
        shots: examples shown before each question.
        limit: questions a subject, drawn with the case's seed; None for all.
        progress: show a bar.

    Values: ``accuracy`` (fraction), ``correct`` (packed bits), ``answers`` (the right letters, one a question),
    ``log_likelihoods`` (:func:`pack_log_likelihoods`), ``questions`` (their number), and what :func:`_facts` gives. The
    order is that of :func:`quide.data.mmlu.draw`. An interrupted run goes on at the question it stopped at.
    """
    return _details(case, recipe) | {"shots": shots, "limit": limit}


def answers_file(run: Run) -> Path:
    """Where an accuracy run keeps the answers that it has, until its record is written."""
    return _paths.cache() / "mmlu" / f"{run.spec.key}-{run.code}.jsonl"


def answered(run: Run) -> records.Record:
    """The record of an accuracy run, computed if there is none; what it kept for an interruption is removed."""
    record = run.result()
    answers_file(run).unlink(missing_ok=True)
    return record


@measured(NEXT_TOKEN, "quide.experiments.compute.language:next_token", _deciding)
def next_token(case: LanguageCase, recipe: LlmRecipe) -> dict:
    """Which token comes next in stories that the model has never seen (:mod:`stories`), each story by itself.

    Values: ``accuracy`` (fraction of the tokens that the model holds for the likeliest), ``correct`` (packed bits),
    ``tokens`` (their number), ``nats_per_token`` (mean of minus log-likelihood), and what :func:`_facts` gives.
    """
    return _details(case, recipe)


def _details(case: LanguageCase, recipe: LlmRecipe) -> dict:
    from quide.llm import checkpoints, methods

    calibrated = recipe.method == methods.AWQ and case.checkpoint.form != checkpoints.AUTOAWQ
    questions = {"calibration_questions": CALIBRATION_QUESTIONS[case.device.partition(":")[0]]}
    return {"recipe": records.described(recipe)} | (questions if calibrated else {})


# --- latency ---------------------------------------------------------------------------------------------------------


@measured(LATENCY, "quide.experiments.compute.language:timing", _deciding)
def timing(case: LanguageCase, recipes: Sequence[LlmRecipe], progress: bool = True) -> dict:
    """Milliseconds of a prefill of :data:`PROMPT` tokens, and of one decoding step after it, all recipes interleaved.

    Only methods that compute from low-bit weights can be timed: the speed of the others does not come from their width.

    Values: for ``prefill`` and ``decode`` :meth:`quide.latency.Timings.to_dict`, by ``"<method>, <bits>"``; and
    ``noisy`` and ``reasons`` of both together.

    Raises:
        ValueError: a recipe's method computes from widened weights.
    """
    from quide.llm import methods

    if slow := [recipe.method for recipe in recipes if recipe.method not in methods.RUNS_LOW_BIT]:
        raise ValueError(f"recipes must be of {', '.join(methods.RUNS_LOW_BIT)} to be timed, got {slow[0]}")
    return {
        "recipes": [records.described(recipe) for recipe in recipes],
        "prompt": PROMPT,
        "passes": PASSES,
        "warmup": WARMUP,
        "environment": provenance.environment(case.device),
    }


@measured(MEMORY, "quide.experiments.compute.language:memory", _deciding)
def memory(case: LanguageCase, recipe: LlmRecipe) -> dict:
    """Memory of one method and width, by itself.

    Values: ``stored_bytes`` of the weights, and ``peak_bytes``: the most that a GPU held during a prefill of
    :data:`PROMPT` tokens, weights included; None on a CPU, where torch does not count.
    """
    return {"recipe": records.described(recipe), "prompt": PROMPT, "environment": provenance.environment(case.device)}


def title(recipe: LlmRecipe) -> str:
    """How records and tables name a recipe: ``"awq, 4"``."""
    return f"{recipe.method}, {recipe.bits}"


# --- log-likelihoods in a record -------------------------------------------------------------------------------------


def pack_log_likelihoods(values: np.ndarray) -> str:
    """Log-likelihoods ``(n, 4)`` to :data:`STEP` as base64 text of zlib-compressed unsigned 16-bit integers.

    Some nine bytes a question, 130 kB for all of MMLU's. What is below -65.535 nats is kept as that.
    """
    steps = np.clip(np.rint(-np.asarray(values) / STEP), 0, np.iinfo(np.uint16).max).astype("<u2")
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode()


def unpack_log_likelihoods(text: str) -> np.ndarray:
    """The float64 ``(n, 4)`` that :func:`pack_log_likelihoods` made ``text`` from, to :data:`STEP`."""
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), "<u2")
    return -STEP * steps.reshape(-1, len(mmlu.LETTERS))
