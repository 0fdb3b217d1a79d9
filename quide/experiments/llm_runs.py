"""The measured runs on language models, and on a small image network the same way: accuracy, size, latency a token."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quide import _paths, evaluate, latency, ptq
from quide.data import mmlu, stories
from quide.experiments import provenance, records, runs
from quide.experiments.provenance import code_digest
from quide.experiments.runs import Run
from quide.llm import autoawq, checkpoints, methods, mmlu_harness
from quide.llm.checkpoints import AUTOAWQ, Checkpoint
from quide.llm.methods import Loaded, Recipe
from quide.ptq import rounding
from quide.ptq.rounding import PER_TENSOR
from quide.stats import pack_bits

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
WIDTHS = (8, 4, 3, 2)
GROUP = 64
# What is rounded in the image network, by name: how fine its weights' scales are, and whether its outputs are too.
CROSS_SCHEMES = {
    "weights per tensor": (PER_TENSOR, False),
    f"weights by groups of {GROUP}": (GROUP, False),
    "weights and outputs per tensor": (PER_TENSOR, True),
}


@dataclass(frozen=True)
class Case:
    """A language model; the seed decides which questions are drawn, and which are calibrated on."""

    checkpoint: Checkpoint
    seed: int = 0
    device: str = "cpu"

    def loaded(self, recipe: Recipe) -> Loaded:
        """The model, quantized; kept until another is asked for."""
        return _loaded(self, recipe)

    def run(self, kind: str, dataset: str, details: dict, compute: Callable[[], dict], data: str) -> Run:
        """A run whose key hangs on the model's weights."""
        details = details | {"weights": self.checkpoint.digest}
        spec = records.RunSpec(kind, self.checkpoint.name, dataset, self.seed, PROFILE, details)
        return Run(spec, compute, code(kind), data)


def code(kind: str) -> str:
    """Digest of the code that the values of a kind of record on language models hang on."""
    deciding = {ACCURACY: "accuracy", NEXT_TOKEN: "next_token", LATENCY: "timing", MEMORY: "memory"}
    return code_digest("quide.llm.methods:load", f"quide.experiments.llm_runs:{deciding[kind]}")


def by_autoawq(case: Case) -> Case:
    """The same with the model as autoawq quantizes it, on the questions that AWQ is calibrated on elsewhere too."""
    folder = autoawq.make(case.checkpoint, _calibration(Recipe(methods.AWQ, autoawq.BITS), case), case.device)
    return replace(case, checkpoint=checkpoints.find(str(folder)))


@lru_cache(maxsize=1)
def _loaded(case: Case, recipe: Recipe) -> Loaded:
    if case.checkpoint.form == AUTOAWQ:
        return autoawq.load(case.checkpoint.folder, recipe, case.device)
    return methods.load(case.checkpoint, recipe, partial(_calibration, recipe, case), case.device)


def _calibration(recipe: Recipe, case: Case) -> Sequence[str]:
    """Stories for rounding; for AWQ questions that nobody scores."""
    if recipe.method == methods.ROUNDING:
        return stories.load().calibration
    asked = mmlu.load("val")
    everything = [one for questions in asked.values() for one in questions]
    count = CALIBRATION_QUESTIONS[torch.device(case.device).type]
    chosen = np.random.default_rng(case.seed).choice(len(everything), count, replace=False)
    return ["\n".join([everything[place].question, *everything[place].choices]) for place in chosen]


# --- accuracy --------------------------------------------------------------------------------------------------------


def accuracy(case: Case, recipe: Recipe, shots: int, limit: int | None, progress: bool = True) -> Run:
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
    drawn, asked = mmlu.draw(limit, case.seed), mmlu_harness.questions(shots)
    details = _details(case, recipe) | {"shots": shots, "limit": limit}

    def compute() -> dict:
        loaded = case.loaded(recipe)
        found = mmlu_harness.log_likelihoods(loaded.model, loaded.tokenizer, drawn, shots, answers_file(run), progress)
        right = np.array([asked[subject][place].answer for subject, places in drawn.items() for place in places])
        hits = found.argmax(1) == right
        return {
            "accuracy": int(hits.sum()) / len(hits),
            "correct": pack_bits(hits),
            "answers": "".join(mmlu.LETTERS[answer] for answer in right),
            "log_likelihoods": pack_log_likelihoods(found),
            "questions": len(hits),
        } | _facts(loaded)

    run = case.run(ACCURACY, MMLU, details, compute, mmlu.digest(asked, drawn))
    return run


def answers_file(run: Run) -> Path:
    """Where an accuracy run keeps the answers that it has, until its record is written."""
    return _paths.cache() / "mmlu" / f"{run.spec.key}-{run.code}.jsonl"


def answered(run: Run) -> records.Record:
    """The record of an accuracy run, computed if there is none; what it kept for an interruption is removed."""
    record = run.result()
    answers_file(run).unlink(missing_ok=True)
    return record


def next_token(case: Case, recipe: Recipe) -> Run:
    """Which token comes next in stories that the model has never seen (:mod:`stories`), each story by itself.

    Values: ``accuracy`` (fraction of the tokens that the model holds for the likeliest), ``correct`` (packed bits),
    ``tokens`` (their number), ``nats_per_token`` (mean of minus log-likelihood), and what :func:`_facts` gives.
    """

    def compute() -> dict:
        loaded, hits, nats = case.loaded(recipe), [], 0.0
        for text in stories.load().scored:
            tokens = loaded.encode(text)
            with torch.inference_mode():
                logits = loaded.model(tokens).logits[0, :-1].float()
            wanted = tokens[0, 1:]
            hits.append((logits.argmax(1) == wanted).cpu())
            nats += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
        hit = torch.cat(hits)
        return {
            "accuracy": int(hit.sum()) / len(hit),
            "correct": pack_bits(hit.numpy()),
            "tokens": len(hit),
            "nats_per_token": nats / len(hit),
        } | _facts(loaded)

    return case.run(NEXT_TOKEN, STORIES, _details(case, recipe), compute, stories.SHA256)


def _details(case: Case, recipe: Recipe) -> dict:
    calibrated = recipe.method == methods.AWQ and case.checkpoint.form != AUTOAWQ
    questions = {"calibration_questions": CALIBRATION_QUESTIONS[torch.device(case.device).type]}
    return {"recipe": records.described(recipe)} | (questions if calibrated else {})


def _facts(loaded: Loaded) -> dict:
    """Size of the model as saved, weights that share a scale, versions of the libraries."""
    return {"stored_bytes": loaded.stored_bytes, "group": loaded.group, "libraries": methods.versions()}


# --- latency ---------------------------------------------------------------------------------------------------------


def timing(case: Case, recipes: Sequence[Recipe], progress: bool = True) -> Run:
    """Milliseconds of a prefill of :data:`PROMPT` tokens, and of one decoding step after it, all recipes interleaved.

    Only methods that compute from low-bit weights can be timed: the speed of the others does not come from their width.

    Values: for ``prefill`` and ``decode`` :meth:`quide.latency.Timings.to_dict`, by ``"<method>, <bits>"``; and
    ``noisy`` and ``reasons`` of both together.

    Raises:
        ValueError: a recipe's method computes from widened weights.
    """
    if slow := [recipe.method for recipe in recipes if recipe.method not in methods.RUNS_LOW_BIT]:
        raise ValueError(f"recipes must be of {', '.join(methods.RUNS_LOW_BIT)} to be timed, got {slow[0]}")
    details = {
        "recipes": [records.described(recipe) for recipe in recipes],
        "prompt": PROMPT,
        "passes": PASSES,
        "warmup": WARMUP,
    }
    details["environment"] = provenance.environment(case.device)

    def compute() -> dict:
        loaded = {title(recipe): methods.load(case.checkpoint, recipe, list, case.device) for recipe in recipes}
        timings = {}
        for stage, make in (("prefill", _prefill), ("decode", _decode)):
            passes = {name: make(each) for name, each in loaded.items()}
            with torch.inference_mode():
                timings[stage] = latency.measure_interleaved(
                    passes, WARMUP, PASSES[stage], progress=progress, wait_s=WAIT_S
                ).to_dict()
        reasons = [f"{stage}: {reason}" for stage, each in timings.items() for reason in each["reasons"]]
        return timings | {"noisy": bool(reasons), "reasons": reasons, "libraries": methods.versions()}

    return case.run(LATENCY, STORIES, details, compute, stories.SHA256)


def memory(case: Case, recipe: Recipe) -> Run:
    """Memory of one method and width, by itself.

    Values: ``stored_bytes`` of the weights, and ``peak_bytes``: the most that a GPU held during a prefill of
    :data:`PROMPT` tokens, weights included; None on a CPU, where torch does not count.
    """
    details = {
        "recipe": records.described(recipe),
        "prompt": PROMPT,
        "environment": provenance.environment(case.device),
    }

    def compute() -> dict:
        loaded, peak = case.loaded(recipe), None
        if torch.device(case.device).type == "cuda":
            torch.cuda.reset_peak_memory_stats(case.device)
            with torch.inference_mode():
                _prefill(loaded)()
            peak = torch.cuda.max_memory_allocated(case.device)
        return {"stored_bytes": loaded.stored_bytes, "peak_bytes": peak, "libraries": methods.versions()}

    return case.run(MEMORY, STORIES, details, compute, stories.SHA256)


def title(recipe: Recipe) -> str:
    """How records and tables name a recipe: ``"awq, 4"``."""
    return f"{recipe.method}, {recipe.bits}"


def _prompt(loaded: Loaded) -> torch.Tensor:
    tokens = loaded.encode(" ".join(stories.load().scored))
    return tokens[:, :PROMPT]


def _prefill(loaded: Loaded) -> Callable[[], Any]:
    return partial(loaded.model, _prompt(loaded), use_cache=True)


def _decode(loaded: Loaded) -> Callable[[], Any]:
    """One step, after which the cache is cut back to what it was, so that all steps are alike."""
    tokens = _prompt(loaded)
    with torch.inference_mode():
        past = loaded.model(tokens, use_cache=True).past_key_values

    def step() -> Any:
        output = loaded.model(tokens[:, -1:], past_key_values=past, use_cache=True)
        past.crop(PROMPT)
        return output

    return step


# --- the image network, the same way ---------------------------------------------------------------------------------


def cross(case: runs.Case, progress: bool = True) -> Run:
    """An image network with its weights alone rounded, or its outputs too, at the widths that language models have.

    Values: by ``"<scheme>, <bits>"`` (:data:`CROSS_SCHEMES`) and at ``"32"``, ``accuracy`` and ``correct`` as
    :func:`quide.experiments.runs.accuracy`, and ``stored_bytes`` of its weights; ``images``.
    """
    details = {
        "schemes": {name: list(scheme) for name, scheme in CROSS_SCHEMES.items()},
        "bits": list(WIDTHS),
        "calibration_size": runs.CALIBRATION_SIZE,
        "training_seed": case.training_seed,
        "test_images": case.size.test_images,
    }

    def compute() -> dict:
        network, test = runs.network(case), runs.test_images(case)
        layers = ptq.quantizable_layers(network)
        seen = rounding.observe(network, layers, [runs.calibration_images(case)])
        hits = {"32": evaluate.correct(network, test)}
        sizes = {"32": sum(4 * network.get_submodule(name).weight.numel() for name in layers)}
        for name, (granularity, outputs) in CROSS_SCHEMES.items():
            for bits in WIDTHS:
                rounded = rounding.round_weights(network, layers, bits, granularity)
                if outputs:
                    rounding.round_outputs(rounded, seen, bits)
                hits[f"{name}, {bits}"] = evaluate.correct(rounded, test)
                weights = [network.get_submodule(layer).weight for layer in layers]
                stored = sum(rounding.stored_bits(weight, bits, granularity) for weight in weights)
                sizes[f"{name}, {bits}"] = -(-stored // 8)
        return {
            "accuracy": {name: int(hit.sum()) / len(hit) for name, hit in hits.items()},
            "correct": {name: pack_bits(hit.numpy()) for name, hit in hits.items()},
            "stored_bytes": sizes,
            "images": len(test),
        }

    return Run(case.spec(CROSS, details), compute, cross_code(case), runs.test_checksum(case))


def cross_code(case: runs.Case) -> str:
    """Digest of the code that the values of :func:`cross` hang on."""
    return code_digest("quide.experiments.llm_runs:cross", *runs.ptq_code(case.model))


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
