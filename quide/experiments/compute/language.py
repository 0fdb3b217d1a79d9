"""Computes what records of language models hold; :mod:`quide.experiments.llm_runs` says what each measurement is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from quide import latency
from quide.data import mmlu, stories
from quide.evaluate.inputs import numbers
from quide.experiments import llm_runs
from quide.experiments.llm_runs import PROMPT, LanguageCase, pack_log_likelihoods, title
from quide.llm import autoawq, methods, mmlu_harness
from quide.llm.checkpoints import AUTOAWQ
from quide.llm.methods import LlmRecipe, Loaded
from quide.stats import pack_bits


def accuracy(case: LanguageCase, recipe: LlmRecipe, shots: int, limit: int | None, progress: bool) -> dict:
    drawn, asked = mmlu.draw(limit, case.seed), mmlu_harness.questions(shots)
    kept = llm_runs.answers_file(llm_runs.accuracy(case, recipe, shots, limit))
    model = loaded(case, recipe)
    found = mmlu_harness.log_likelihoods(model.model, model.tokenizer, drawn, shots, kept, progress)
    right = np.array([asked[subject][place].answer for subject, places in drawn.items() for place in places])
    hits = found.argmax(1) == right
    return {
        "accuracy": int(hits.sum()) / len(hits),
        "correct": pack_bits(hits),
        "answers": "".join(mmlu.LETTERS[answer] for answer in right),
        "log_likelihoods": pack_log_likelihoods(found),
        "questions": len(hits),
    } | facts(model)


def next_token(case: LanguageCase, recipe: LlmRecipe) -> dict:
    model, hits, nats = loaded(case, recipe), [], 0.0
    for text in stories.load().scored:
        tokens = model.encode(text)
        with torch.inference_mode():
            logits = model.model(tokens).logits[0, :-1].float()
        wanted = tokens[0, 1:]
        hits.append((numbers(logits).argmax(1) == wanted).cpu())
        nats += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
    hit = torch.cat(hits)
    return {
        "accuracy": int(hit.sum()) / len(hit),
        "correct": pack_bits(hit.numpy()),
        "tokens": len(hit),
        "nats_per_token": nats / len(hit),
    } | facts(model)


def timing(case: LanguageCase, recipes: Sequence[LlmRecipe], progress: bool) -> dict:
    models = {title(recipe): methods.load(case.checkpoint, recipe, list, case.device) for recipe in recipes}
    timings = {}
    for stage, make in (("prefill", _prefill), ("decode", _decode)):
        passes = {name: make(each) for name, each in models.items()}
        with torch.inference_mode():
            timings[stage] = latency.measure_interleaved(
                passes, llm_runs.WARMUP, llm_runs.PASSES[stage], progress=progress, wait_s=llm_runs.WAIT_S
            ).to_dict()
    reasons = [f"{stage}: {reason}" for stage, each in timings.items() for reason in each["reasons"]]
    return timings | {"noisy": bool(reasons), "reasons": reasons, "libraries": methods.versions()}


def memory(case: LanguageCase, recipe: LlmRecipe) -> dict:
    model, peak = loaded(case, recipe), None
    if torch.device(case.device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(case.device)
        with torch.inference_mode():
            _prefill(model)()
        peak = torch.cuda.max_memory_allocated(case.device)
    return {"stored_bytes": model.stored_bytes, "peak_bytes": peak, "libraries": methods.versions()}


def facts(loaded: Loaded) -> dict:
    """Size of the model as saved, weights that share a scale, versions of the libraries."""
    return {"stored_bytes": loaded.stored_bytes, "group": loaded.group, "libraries": methods.versions()}


@lru_cache(maxsize=1)
def loaded(case: LanguageCase, recipe: LlmRecipe) -> Loaded:
    """The model, quantized; kept until another is asked for."""
    if case.checkpoint.form == AUTOAWQ:
        return autoawq.load(case.checkpoint.folder, recipe, case.device)
    return methods.load(case.checkpoint, recipe, partial(calibration, recipe, case), case.device)


def calibration(recipe: LlmRecipe, case: LanguageCase) -> Sequence[str]:
    """Stories for rounding; for AWQ questions that nobody scores."""
    if recipe.method == methods.ROUNDING:
        return stories.load().calibration
    asked = mmlu.load("val")
    everything = [one for questions in asked.values() for one in questions]
    count = llm_runs.CALIBRATION_QUESTIONS[torch.device(case.device).type]
    chosen = np.random.default_rng(case.seed).choice(len(everything), count, replace=False)
    return ["\n".join([everything[place].question, *everything[place].choices]) for place in chosen]


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
