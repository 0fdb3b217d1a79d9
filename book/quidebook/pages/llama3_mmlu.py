"""The page on language models (Table 3, §4.4): which runs it needs, its tables, its figures and its facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from quide import metric
from quide.data import mmlu
from quide.experiments import llm_runs, paper, runs
from quide.experiments.llm_runs import CROSS_SCHEMES, PROFILE
from quide.experiments.records import Record
from quide.llm import checkpoints
from quide.llm.recipe import AWQ, NONE, ROUNDING, RUNS_LOW_BIT, WIDTHS, LlmRecipe
from quide.stats import Interval
from quidebook import report
from quidebook.report import UNKNOWN, number, percent
from quidebook.shared import language, table3
from quidebook.shared.language import CNN, FULL, PAPERS, PLAIN, RERUN, LanguageRecords

GROUPS = list(CROSS_SCHEMES)[1]  # of the ways to round all networks alike, the one that tools for language models take
FULL_SIZE = (PAPERS, "llama-3-8b-random")  # models whose latency is that of the paper's
RUN = "papermill notebooks/llama3_mmlu.ipynb out.ipynb -p profile paper"
RERUN_RANDOM = f"{RUN} -p device cuda -p model random:llama-3-8b"
RERUN_SMALL = f"{RUN} -p device cpu -p model <folder>"
RANDOM_GPU_GB = 40  # three widths side by side: 16, 9 and 6 GB, and room to work


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
    """Every run of the page where there is no record; arguments as the notebook's parameters describe them.

    Language models are run at profile ``paper`` alone; one that cannot be run here is said to be absent, with all that
    it lacks. The smaller profiles take the image network's first seed alone.
    """
    from quide.llm import autoawq  # with torch

    for seed in seeds if profile == PROFILE else seeds[:1]:
        llm_runs.cross(runs.Case(*CNN, seed, profile)).result()
    if profile != PROFILE:
        return
    try:
        checkpoint = checkpoints.find(model, device)
    except FileNotFoundError as error:
        return report.say(f"{error}.")
    case = llm_runs.LanguageCase(checkpoint, seeds[0], device)
    _run_case(case, methods, bits, shots, limit)
    if checkpoints.AUTOAWQ in methods and autoawq.BITS in bits and checkpoint.form in ("transformers", "gguf"):
        if lacking := list(checkpoints.missing_autoawq()):
            return report.say(f"{model} is not quantized by autoawq here: {'; '.join(lacking)}.")
        _run_case(llm_runs.by_autoawq(case), methods, bits, shots, limit)


def _run_case(
    case: llm_runs.LanguageCase, methods: Sequence[str], bits: Sequence[int], shots: int, limit: int | None
) -> None:
    form = case.checkpoint.form
    plain = form == "llama2c"  # too small for the libraries' methods, its context too short for MMLU
    wanted = _wanted(form, [NONE] if plain else methods, bits)
    random = form == "random"  # says nothing true, but takes as long as a model that does
    for recipe in [] if random else tqdm(wanted, desc=case.checkpoint.name, unit="recipe"):
        llm_runs.next_token(case, recipe).result()
        if not plain and recipe.method != ROUNDING and recipe != FULL:
            llm_runs.answered(llm_runs.accuracy(case, recipe, shots, limit))
    timed = [recipe for recipe in wanted if recipe.method in RUNS_LOW_BIT and recipe != FULL]
    for recipe in [] if plain else timed:
        llm_runs.memory(case, recipe).result()
    if not plain and timed:
        llm_runs.timing(case, timed).result()


def _wanted(form: str, methods: Sequence[str], bits: Sequence[int]) -> list[LlmRecipe]:
    """What is run of a model; one that is quantized already has the recipe that it was made by, and no other."""
    from quide.llm import autoawq

    if form == checkpoints.AUTOAWQ:
        return [LlmRecipe(AWQ, autoawq.BITS)]
    if unknown := [method for method in methods if method not in (*WIDTHS, checkpoints.AUTOAWQ)]:
        raise ValueError(f"methods must be of {', '.join((*WIDTHS, checkpoints.AUTOAWQ))}, got {unknown[0]!r}")
    kinds = [(method,) for method in methods if method not in (ROUNDING, checkpoints.AUTOAWQ)]
    kinds += [(ROUNDING, *scheme) for scheme in CROSS_SCHEMES.values()]
    recipes = [LlmRecipe(name, width, *how) for name, *how in kinds for width in WIDTHS[name] if width in bits]
    return [FULL, *recipes]


# --- where the models start ------------------------------------------------------------------------------------------


def predictions(known: LanguageRecords) -> Iterator[dict[str, object]]:
    """Each model in full precision on the next token: title, accuracy (Interval), tokens."""
    for model in known.models:
        if record := language.one(known.next_token, model, FULL):
            accuracy = language.hits(record).interval()
            yield {"title": language.title(model), "accuracy": accuracy, "tokens": record.values["tokens"]}


def answers(known: LanguageRecords) -> Iterator[dict[str, object]]:
    """Each model at 16 bits on MMLU: title, accuracy (Interval), questions, shots, chance, where the accuracy lies
    beside it, the letter given most, to how many questions, and the least and most accurate of all its records."""
    for model in known.models:
        if record := language.one(known.accuracy, model, PLAIN):
            accuracy = language.hits(record).interval()
            said = llm_runs.unpack_log_likelihoods(record.values["log_likelihoods"]).argmax(1)
            counts = np.bincount(said, minlength=len(mmlu.LETTERS))
            all_of_it = [
                each.values["accuracy"] for each in known.accuracy if language.source(each.spec.model) == model
            ]
            yield {
                "title": language.title(model),
                "accuracy": accuracy,
                "questions": record.values["questions"],
                "shots": record.spec.details["shots"] or "no",
                "chance": language.chance(),
                "beside": language.beside_chance(accuracy),
                "letter": mmlu.LETTERS[counts.argmax()],
                "given": int(counts.max()),
                "least": min(all_of_it),
                "most": max(all_of_it),
            }


# --- what the methods keep, save and cost ----------------------------------------------------------------------------


@report.tabled
def methods_table(known: LanguageRecords) -> Iterator[dict[str, str]]:
    """One row a library's method and width: accuracy on the next token with its change, and how much smaller it is;
    accuracy on MMLU too where a model is better than guessing there."""
    for model in known.models:
        start = language.source(model)
        plain, full = (language.one(known.next_token, start, each) for each in (PLAIN, FULL))
        recipes = {language.recipe_of(each) for each in known.next_token if each.spec.model == model}
        order = {recipe: (list(WIDTHS).index(recipe.method), -recipe.bits) for recipe in recipes}
        for recipe in sorted((recipe for recipe in recipes if recipe.method != ROUNDING), key=order.get):
            told = language.one(known.next_token, model, recipe)
            row = _head(recipe, model) | {
                "next token P (%)": language.interval_cell(told),
                "change from 32 (pp)": _change_cell(told, full),
            }
            if language.beats_guessing(known, model):
                asked = language.one(known.accuracy, model, recipe)
                row["MMLU P (%)"] = language.interval_cell(asked)
                row["change from 16 (pp)"] = _change_cell(asked, language.one(known.accuracy, start, PLAIN))
            row["C = 32/b"] = number(metric.compression_ratio(recipe.bits), 2)
            row["smaller than 16 bits, in bytes"] = (
                number(plain.values["stored_bytes"] / told.values["stored_bytes"], 2) if plain else UNKNOWN
            )
            yield row


def _head(recipe: LlmRecipe, model: str) -> dict[str, str]:
    """The cells that say what a row is of."""
    method = language.method_name(recipe, model)
    return {"method": method, "bits": str(recipe.bits), "model": language.title(model)}


def _change_cell(record: Record | None, base: Record | None) -> str:
    if record is None or base is None or record.key == base.key:
        return UNKNOWN
    return report.with_interval(language.hits(record).change(language.hits(base)), 100, 1)


@report.tabled
def latency_table(known: LanguageRecords) -> Iterator[dict[str, str]]:
    """Prefill and decoding by method, and as a multiple of 16 bits; on a GPU the most memory that was held."""
    on_gpu = any(record.values["peak_bytes"] for record in known.memory)
    for record, recipe in _timed(known):
        row = _head(recipe, record.spec.model)
        for stage, tokens in (("prefill", record.spec.details["prompt"]), ("decode", 1)):
            latencies = record.values[stage]["latencies"]
            timed, base = latencies[llm_runs.title(recipe)], latencies[llm_runs.title(PLAIN)]
            spread = f"{timed['p10_ms'] / tokens:.2f} to {timed['p90_ms'] / tokens:.2f}"
            row[f"{stage} (ms per token)"] = f"{timed['median_ms'] / tokens:.2f} ({spread})"
            row[f"{stage}, of 16 bits"] = f"{timed['median_ms'] / base['median_ms']:.2f}"
        yield row | ({"peak on GPU (MB)": _peak(known, record, recipe)} if on_gpu else {})


def _timed(known: LanguageRecords) -> Iterator[tuple[Record, LlmRecipe]]:
    for record in known.latency:
        for recipe in record.spec.details["recipes"]:
            yield record, LlmRecipe(**recipe)


def _peak(known: LanguageRecords, timed: Record, recipe: LlmRecipe) -> str:
    """The most megabytes that a GPU held, on the machine that the recipe was timed on."""
    device = timed.spec.details["environment"]["device_name"]
    for record in known.memory:
        same = record.spec.model == timed.spec.model and language.recipe_of(record) == recipe
        if same and record.spec.details["environment"]["device_name"] == device:
            return UNKNOWN if record.values["peak_bytes"] is None else f"{record.values['peak_bytes'] / 1e6:,.0f}"
    return UNKNOWN


def timings(known: LanguageRecords) -> Iterator[dict[str, object]]:
    """Each timing: title, device, threads, prompt (tokens), prefill and decode (A/A ratios), noise (a sentence)."""
    for record in known.latency:
        environment = record.spec.details["environment"]
        yield {
            "title": language.title(record.spec.model),
            "device": report.plain(environment["device_name"]),
            "threads": environment["threads"],
            "prompt": record.spec.details["prompt"],
            **{stage: record.values[stage]["aa_ratio"] for stage in ("prefill", "decode")},
            "noise": report.noise(record.values["reasons"]),
        }


@report.tabled
def score_table(known: LanguageRecords) -> Iterator[dict[str, str]]:
    """I and I' of the methods that were timed, T of one decoding step; I' over the interval of the accuracy. A model
    that only guesses has no row: its scores would be 0, or noise."""
    for record, recipe in _timed(known):
        model = record.spec.model
        base, asked = (language.one(known.accuracy, model, each) for each in (PLAIN, recipe))
        if asked is None or not language.beats_guessing(known, model):
            continue
        latency = record.values["decode"]["latencies"][llm_runs.title(recipe)]["median_ms"]
        compression, accuracy = metric.compression_ratio(recipe.bits), language.hits(asked).interval()
        row = {"C": number(compression, 0), "P (%)": language.interval_cell(asked), "T (ms)": number(latency, 1)}
        for sign, floor in (("I", 0.0), ("I'", paper.threshold(table3.LLAMA, base.values["accuracy"]))):
            score = Interval(*(metric.gated_index(compression, end, latency, floor) for end in astuple(accuracy)))
            row[sign] = report.with_interval(score, digits=3)
        yield _head(recipe, model) | row


# --- like for like --------------------------------------------------------------------------------------


def cross_table(shares: pd.DataFrame) -> pd.DataFrame:
    """One row a network and scheme of :func:`quidebook.shared.language.kept`: the share that each width keeps."""
    return pd.DataFrame(
        {"rounded": scheme, "network": network}
        | {f"{each.bits} bits (%)": report.with_interval(each.share, 100, 1) for each in part.itertuples()}
        for (scheme, network), part in shares.groupby(["scheme", "network"], sort=False)
    ).fillna(UNKNOWN)


def figure_cross(shares: pd.DataFrame) -> tuple[Figure, str]:
    """Share of accuracy kept by width, of :func:`quidebook.shared.language.kept`: weights alone, and outputs too."""
    looks = (("o-", report.ORANGE), ("s-", report.BLUE), ("^-", report.GREEN))
    styles = dict(zip(shares["network"].unique(), looks, strict=False))
    figure, axes = report.panels(len(CROSS_SCHEMES), width=7.6, height=3.0, sharey=True)
    for axis, scheme in zip(axes, CROSS_SCHEMES, strict=True):
        for network, (style, colour) in styles.items():
            part = shares[(shares["network"] == network) & (shares["scheme"] == scheme)]
            places = report.positions(llm_runs.WIDTHS, part["bits"])
            report.error_bars(axis, places, map(report.scaled, part["share"]), fmt=style, color=colour, label=network)
        axis.axhline(100 * language.tolerated(), color=report.GREY, linestyle=":", linewidth=1)
        report.bit_axis(axis, llm_runs.WIDTHS)
        axis.set_title(scheme.replace(" per", "\nper").replace(" by", "\nby"), fontsize=9)
    axes[0].set(ylabel="accuracy kept (%)", ylim=(0, 105))
    if styles:
        axes[1].legend(fontsize=7, loc="lower left")  # where no line goes
    at_4 = shares[shares["bits"] == 4]
    words = [f"{each.scheme}, {each.network}: {percent(each.share.estimate, 0)}" for each in at_4.itertuples()]
    return figure, f"Plots of accuracy kept against bits. At 4 bits: {'; '.join(words)}."


def like_for_like(shares: pd.DataFrame) -> report.Facts:
    """What the paper asks Llama to keep, and its image network keeps at 4 bits; and, by scheme, who keeps as much."""
    if shares["network"].nunique() < 2:
        return report.Absent("networks to compare", RERUN_SMALL)
    stated = [paper.number(f"cifar10-simplecnn.accuracy.{bits}") for bits in (4, 32)]
    return {
        "asked": language.tolerated(),
        "image": stated[0] / stated[1],
        "keepers": " ".join(
            f"With {scheme}: {', '.join(names) or 'none'}." for scheme, names in language.keepers(shares).items()
        ),
    }


# --- what is absent --------------------------------------------------------------------------------------------------


def missing(known: LanguageRecords) -> Iterator[dict[str, object]]:
    """What has not been run, what it takes, and the command."""
    if not any(record.spec.model == PAPERS for record in known.accuracy):
        gpu = checkpoints.NEEDS_GB[checkpoints.PAPERS]
        takes = f"access to {checkpoints.PAPERS}, a GPU with {gpu} GB"
        yield {"what": "Llama-3-8B-Instruct on MMLU", "takes": takes, "command": RERUN}
    if not any(record.spec.model in FULL_SIZE for record in known.latency):
        takes = f"a GPU with {RANDOM_GPU_GB} GB, for three widths side by side"
        yield {"what": "the time per token of all its layers", "takes": takes, "command": RERUN_RANDOM}
    if not known.latency:
        yield {"what": "the time per token", "takes": "a machine that does nothing else", "command": RERUN_SMALL}


def answer(known: LanguageRecords) -> report.Facts:
    """Whether the paper's model was run, and the ``least`` and ``most`` of the share of accuracy that the networks
    keep at 4 bits with a scale for each group."""
    shares = language.kept(known)
    at_4 = shares[(shares["bits"] == 4) & (shares["scheme"] == GROUPS)]["share"]
    if at_4.empty:
        return report.Absent("language models", RERUN_SMALL)
    kept = [each.estimate for each in at_4]
    return {
        "run": "has" if PAPERS in known.models else "has not",
        "networks": len(kept),
        "least": min(kept),
        "most": max(kept),
    }
