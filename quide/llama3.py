"""The page on language models (Table 3, §4.4): which runs it needs, its tables, figures and sentences."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from quide import llm, llm_runs, metric, paper, records, report, rounding, runs, stats, table3
from quide.audit import DECODINGS, LLAMA
from quide.llm_methods import AWQ, BITSANDBYTES, NONE, ROUNDING, RUNS_LOW_BIT, WIDTHS, Recipe
from quide.llm_runs import ACCURACY, CROSS_SCHEMES, GROUP, LATENCY, NEXT_TOKEN, PROFILE
from quide.records import Record
from quide.report import UNKNOWN, number, percent, with_origin
from quide.stats import Interval

CNN, CNN_TITLE = ("simplecnn", "cifar10"), "SimpleCNN (CIFAR-10)"
PAPERS = "meta-llama-3-8b-instruct"  # as records name the paper's model
TITLES = {
    PAPERS: "Llama-3-8B-Instruct",
    "smollm2-135m-instruct.q4_1": "SmolLM2-135M-Instruct",
    "stories260k": "stories260K",
}
METHODS = {NONE: "not quantized", BITSANDBYTES: "bitsandbytes", AWQ: "AWQ (llm-compressor)", ROUNDING: "rounding"}
KERNELS = {(BITSANDBYTES, 8): "bitsandbytes LLM.int8", (BITSANDBYTES, 4): "bitsandbytes NF4"}
RERUN = "quide run llama3_mmlu --profile paper --device cuda"
RERUN_SMALL = "papermill notebooks/llama3_mmlu.ipynb out.ipynb -p profile paper -p device cpu -p model <folder>"
FULL_BITS = 32
CLAIM = ["claim", "verdict", "evidence"]


@dataclass(frozen=True)
class Found:
    """Records of the page: of language models by kind, of the image network by seed, at the best profile there is."""

    accuracy: list[Record]
    next_token: list[Record]
    latency: list[Record]
    cross: dict[int, Record]

    @property
    def used(self) -> list[Record]:
        """All of them."""
        return [*self.accuracy, *self.next_token, *self.latency, *self.cross.values()]


# --- what is run -----------------------------------------------------------------------------------------------------


def run(
    model: str,
    methods: Sequence[str],
    bits: Sequence[int],
    shots: int,
    limit: int | None,
    seeds: Sequence[int],
    device: str,
    profile: str,
) -> None:
    """Every run of the page where there is no record. Language models are run at profile ``paper`` alone; one that
    cannot be run here is said to be absent, with all that it lacks.

    Args:
        model: a folder, or a name on the Hugging Face hub.
        methods: of :data:`quide.llm_methods.WIDTHS`; plain rounding is always among them.
        bits: widths; each method is run at those that it has.
        shots: examples shown before each question of MMLU.
        limit: questions a subject; None for all.
        seeds: of the image network; the first one also draws MMLU's questions.
        device: where the language model runs, ``"cpu"`` or ``"cuda"``.
        profile: ``"smoke"``, ``"quick"`` or ``"paper"``.
    """
    for seed in seeds:
        llm_runs.cross(runs.Case(*CNN, seed, profile)).result()
    if profile != PROFILE:
        return
    try:
        checkpoint = llm.find(model, device)
    except FileNotFoundError as error:
        return report.say(f"{error}.")
    case = llm_runs.Case(checkpoint, seeds[0], device)
    plain = checkpoint.form == "llama2c"  # too small for the libraries' methods, its context too short for MMLU
    wanted = [Recipe(NONE, FULL_BITS), *_recipes([NONE] if plain else methods, bits), *_rounded(bits)]
    for recipe in tqdm(wanted, desc=checkpoint.name, unit="recipe"):
        llm_runs.next_token(case, recipe).result()
        if not plain and recipe.method != ROUNDING and recipe.bits != FULL_BITS:
            llm_runs.answered(llm_runs.accuracy(case, recipe, shots, limit))
    timed = [recipe for recipe in wanted if recipe.method in RUNS_LOW_BIT and recipe.bits != FULL_BITS]
    if not plain and timed:
        llm_runs.timing(case, timed).result()


def _recipes(methods: Sequence[str], bits: Sequence[int]) -> Iterator[Recipe]:
    for method in methods:
        if method not in WIDTHS:
            raise ValueError(f"methods must be of {', '.join(WIDTHS)}, got {method!r}")
        if method != ROUNDING:
            yield from (Recipe(method, width) for width in WIDTHS[method] if width in bits)


def _rounded(bits: Sequence[int]) -> Iterator[Recipe]:
    """As the image network is rounded."""
    for granularity, outputs in CROSS_SCHEMES.values():
        yield from (Recipe(ROUNDING, width, granularity, outputs) for width in WIDTHS[ROUNDING] if width in bits)


def found(profile: str) -> Found:
    """What records hold; of the image network those of ``profile`` where the paper's profile has none.

    A record that other code made is taken with a :class:`quide.records.StaleRecordWarning`.
    """
    language = [list(_collected(kind)) for kind in (ACCURACY, NEXT_TOKEN, LATENCY)]
    for candidate in (PROFILE, profile):
        kept = records.collect(llm_runs.CROSS, candidate, *CNN)
        cross = {seed: llm_runs.cross(runs.Case(*CNN, seed, candidate)).known() for seed in _seeds(kept)}
        if cross := {seed: record for seed, record in cross.items() if record is not None}:
            break
    return Found(*language, cross)


def _collected(kind: str) -> Iterator[Record]:
    today = llm_runs.code(kind)
    for record in records.collect(kind, PROFILE):
        if records.is_stale(record, today):
            warnings.warn(
                f"record {records.path_of(record.spec)} is stale (made by other code than today's); delete it to have "
                "it made again",
                records.StaleRecordWarning,
                stacklevel=3,
            )
        yield record


def _seeds(kept: Sequence[Record]) -> list[int]:
    return sorted({record.spec.seed for record in kept})
