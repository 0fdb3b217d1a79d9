"""The page on language models (Table 3, §4.4): which runs it needs, its tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from tqdm import tqdm

from quide import metric, stats
from quide.data import mmlu
from quide.experiments import llm_runs, paper, records, runs
from quide.experiments.llm_runs import ACCURACY, CROSS_SCHEMES, LATENCY, MEMORY, NEXT_TOKEN, PROFILE
from quide.experiments.records import Record
from quide.llm import autoawq, checkpoints
from quide.llm.methods import AWQ, BITSANDBYTES, NONE, ROUNDING, RUNS_LOW_BIT, WIDTHS, Recipe
from quide.ptq.rounding import PER_TENSOR
from quide.stats import Interval, unpack_bits
from quidebook import report
from quidebook.report import UNKNOWN, number, percent, with_origin
from quidebook.shared import table3
from quidebook.shared.table3 import DECODINGS, LLAMA

CNN, CNN_TITLE = ("simplecnn", "cifar10"), "SimpleCNN (CIFAR-10)"
PAPERS = "meta-llama-3-8b-instruct"  # as records name the paper's model
TITLES = {
    PAPERS: "Llama-3-8B-Instruct",
    "smollm2-135m-instruct.q4_1": "SmolLM2-135M-Instruct",
    "stories260k": "stories260K",
    "llama-3-8b-random": "Llama-3-8B, random weights",
    "llama-3-8b-4-layers-random": "Llama-3-8B cut to 4 layers, random weights",
}
FULL_SIZE = (PAPERS, "llama-3-8b-random")  # models whose latency is that of the paper's
METHODS = {NONE: "not quantized", BITSANDBYTES: "bitsandbytes", AWQ: "AWQ (llm-compressor)", ROUNDING: "rounding"}
KERNELS = {(BITSANDBYTES, 8): "bitsandbytes LLM.int8", (BITSANDBYTES, 4): "bitsandbytes NF4"}
AS_QUANTIZED = "AWQ (autoawq)"
RERUN = "quide run llama3_mmlu --profile paper --device cuda"
RERUN_RANDOM = (
    "papermill notebooks/llama3_mmlu.ipynb out.ipynb -p profile paper -p device cuda -p model random:llama-3-8b"
)
RANDOM_GPU_GB = 40  # three widths side by side: 16, 9 and 6 GB, and room to work
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
    memory: list[Record] = field(default_factory=list)

    @property
    def used(self) -> list[Record]:
        """All of them."""
        return [*self.accuracy, *self.next_token, *self.latency, *self.cross.values(), *self.memory]


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
        model: a folder, a name on the Hugging Face hub, or random weights, as :func:`find` takes them.
        methods: of :data:`quide.llm.methods.WIDTHS`, or ``"autoawq"``; plain rounding is always among them.
        bits: widths; each method is run at those that it has.
        shots: examples shown before each question of MMLU.
        limit: questions a subject; None for all.
        seeds: of the image network, the first alone at the smaller profiles; it also draws MMLU's questions.
        device: where the language model runs, ``"cpu"`` or ``"cuda"``.
        profile: ``"smoke"``, ``"quick"`` or ``"paper"``.
    """
    for seed in seeds if profile == PROFILE else seeds[:1]:
        llm_runs.cross(runs.Case(*CNN, seed, profile)).result()
    if profile != PROFILE:
        return
    try:
        checkpoint = checkpoints.find(model, device)
    except FileNotFoundError as error:
        return report.say(f"{error}.")
    case = llm_runs.Case(checkpoint, seeds[0], device)
    _run_case(case, methods, bits, shots, limit)
    if checkpoints.AUTOAWQ in methods and autoawq.BITS in bits and checkpoint.form in ("transformers", "gguf"):
        if lacking := list(checkpoints.missing_autoawq()):
            return report.say(f"{model} is not quantized by autoawq here: {'; '.join(lacking)}.")
        _run_case(llm_runs.by_autoawq(case), methods, bits, shots, limit)


def _run_case(case: llm_runs.Case, methods: Sequence[str], bits: Sequence[int], shots: int, limit: int | None) -> None:
    form = case.checkpoint.form
    plain = form == "llama2c"  # too small for the libraries' methods, its context too short for MMLU
    wanted = _wanted(form, [NONE] if plain else methods, bits)
    random = form == "random"  # says nothing true, but takes as long as a model that does
    for recipe in [] if random else tqdm(wanted, desc=case.checkpoint.name, unit="recipe"):
        llm_runs.next_token(case, recipe).result()
        if not plain and recipe.method != ROUNDING and recipe.bits != FULL_BITS:
            llm_runs.answered(llm_runs.accuracy(case, recipe, shots, limit))
    timed = [recipe for recipe in wanted if recipe.method in RUNS_LOW_BIT and recipe.bits != FULL_BITS]
    for recipe in [] if plain else timed:
        llm_runs.memory(case, recipe).result()
    if not plain and timed:
        llm_runs.timing(case, timed).result()


def _wanted(form: str, methods: Sequence[str], bits: Sequence[int]) -> list[Recipe]:
    """What is run of a model; one that is quantized already has the recipe that it was made by, and no other."""
    if form == checkpoints.AUTOAWQ:
        return [Recipe(AWQ, autoawq.BITS)]
    return [Recipe(NONE, FULL_BITS), *_recipes(methods, bits), *_rounded(bits)]


def _recipes(methods: Sequence[str], bits: Sequence[int]) -> Iterator[Recipe]:
    for method in methods:
        if method not in (*WIDTHS, checkpoints.AUTOAWQ):
            raise ValueError(f"methods must be of {', '.join((*WIDTHS, checkpoints.AUTOAWQ))}, got {method!r}")
        if method not in (ROUNDING, checkpoints.AUTOAWQ):
            yield from (Recipe(method, width) for width in WIDTHS[method] if width in bits)


def _rounded(bits: Sequence[int]) -> Iterator[Recipe]:
    """As the image network is rounded."""
    for granularity, outputs in CROSS_SCHEMES.values():
        yield from (Recipe(ROUNDING, width, granularity, outputs) for width in WIDTHS[ROUNDING] if width in bits)


def found(profile: str) -> Found:
    """What records hold; of the image network those of ``profile`` where the paper's profile has none.

    A record that other code made is taken with a :class:`quide.experiments.records.StaleRecordWarning`.
    """
    language = [list(_collected(kind)) for kind in (ACCURACY, NEXT_TOKEN, LATENCY)]
    for candidate in (PROFILE, profile):
        kept = records.collect(llm_runs.CROSS, candidate, *CNN)
        cross = {seed: llm_runs.cross(runs.Case(*CNN, seed, candidate)).known() for seed in _seeds(kept)}
        if cross := {seed: record for seed, record in cross.items() if record is not None}:
            break
    return Found(*language, cross, list(_collected(MEMORY)))


def _collected(kind: str) -> Iterator[Record]:
    today = llm_runs.code(kind)
    for record in records.collect(kind, PROFILE):
        records.warn_if_stale(record, today)
        yield record


def _seeds(kept: Sequence[Record]) -> list[int]:
    return sorted({record.spec.seed for record in kept})


# --- Table 3 ---------------------------------------------------------------------------------------------------------


def table3_table(known: Found) -> pd.DataFrame:
    """Table 3: the paper's cells, the latency that each reading of its units takes, ours, and a verdict."""
    stated = paper.table3().set_index("bits")
    model, rows = _main(known), []
    for bits in table3.BITS:
        row = {
            "bits": str(bits),
            "paper P (%)": _stated_accuracy(stated, bits),
            "paper I": _cell(stated, bits, "index", 1),
            "paper I'": _cell(stated, bits, "gated_index", 2),
            "T by the readings (ms)": _readings(bits),
        }
        best = _best(known, model, bits)
        row["ours P (%)"] = "no record" if best is None else report.with_interval(_interval(best), 100, 1)
        row["by"] = UNKNOWN if best is None else f"{_title(model)}, {_method(best)}"
        verdict, reason = _table3_verdict(stated, bits, best)
        rows.append(row | {"verdict": verdict, "reason": reason})
    return pd.DataFrame(rows)


def _stated_accuracy(stated: pd.DataFrame, bits: int) -> str:
    if bits not in stated.index:
        return UNKNOWN
    if not np.isnan(stated.accuracy[bits]):
        return with_origin(number(100 * stated.accuracy[bits], 1), stated.accuracy_origin[bits])
    bounds = paper.numbers().loc[f"{LLAMA}.accuracy.{bits}"]
    if np.isnan(bounds["low"]):
        return f"at most {bounds['high']:.0f} †"
    return f"above {max(bounds['low'], 100 * table3.least_accuracy_at_4()):.1f} †"


def _cell(stated: pd.DataFrame, bits: int, quantity: str, digits: int) -> str:
    if bits not in stated.index:
        return UNKNOWN
    return with_origin(number(stated[quantity][bits], digits), stated[f"{quantity}_origin"][bits])


def _readings(bits: int) -> str:
    """The latency at a width by the possible readings of the units; where it only has a bound, that."""
    readings = DECODINGS[1:]
    if bits == 2:
        return ", ".join(table3.rounded(each.latency_ms) for each in readings)
    if bits == 4:
        return "; ".join(" to ".join(map(table3.rounded, table3.latency_at_4(each))) for each in readings)
    if bits == 8:
        return "above " + ", ".join(table3.rounded(each.latency_at_8_ms) for each in readings)
    if bits == 16:
        return "above " + ", ".join(table3.rounded(table3.latency_at_16(each)) for each in readings)
    return UNKNOWN


def _table3_verdict(stated: pd.DataFrame, bits: int, best: Record | None) -> tuple[str, str]:
    """Levels are compared for the paper's own model alone; chance is too near for others to tell."""
    if best is None:
        return report.UNDECIDED, f"not run; {RERUN}"
    interval = _interval(best)
    if best.spec.model != PAPERS:
        above = "above" if interval.low > _chance() else "not clearly above"
        return report.UNDECIDED, f"another model, {above} guessing ({percent(_chance(), 0)})"
    if bits not in stated.index:
        return report.UNDECIDED, "not stated"
    return report.accuracy_verdict(stated.accuracy[bits], interval.estimate, interval.low, interval.high)


# --- what the methods cost and save ----------------------------------------------------------------------------------


def methods_table(known: Found) -> pd.DataFrame:
    """One row a library's method and width: accuracy on MMLU and on the next token, each with its change."""
    rows = []
    for model in _models(known):
        for recipe in _library_recipes(known, model):
            asked, told = (_one(each, model, recipe) for each in (known.accuracy, known.next_token))
            rows.append(
                {
                    "method": _method_name(recipe, model),
                    "model": _title(model),
                    "bits": str(recipe.bits),
                    "MMLU P (%)": _with_interval(asked),
                    "change from 16 (pp)": _with_change(asked, _one(known.accuracy, _source(model), Recipe(NONE, 16))),
                    "next token P (%)": _with_interval(told),
                    "change from 32 (pp)": _with_change(told, _one(known.next_token, _source(model), _FULL)),
                    "nats a token": UNKNOWN if told is None else number(told.values["nats_per_token"], 3),
                }
            )
    return pd.DataFrame(rows)


def size_table(known: Found) -> pd.DataFrame:
    """Compression as the paper counts it, over 16 bits, and in bytes as saved."""
    rows = []
    for model in _models(known):
        base = _one(known.next_token, _source(model), Recipe(NONE, 16))
        for record in sorted(known.next_token, key=lambda record: _place(_recipe(record))):
            recipe = _recipe(record)
            plain = recipe.method == ROUNDING and recipe.granularity == PER_TENSOR  # as small as no tool makes it
            if record.spec.model != model or plain or base is None:
                continue
            size = record.values["stored_bytes"]
            rows.append(
                {
                    "method": _method_name(recipe, model),
                    "model": _title(model),
                    "bits": str(recipe.bits),
                    "C = 32/b": number(metric.compression_ratio(recipe.bits), 2),
                    "C = 16/b": number(16 / recipe.bits, 2),
                    "C over 16 bits, in bytes": number(base.values["stored_bytes"] / size, 2),
                    "size (MB)": number(size / 1e6, 2),
                }
            )
    return pd.DataFrame(rows)


def latency_table(known: Found) -> pd.DataFrame:
    """Prefill and decoding by method, and as a multiple of 16 bits."""
    rows = []
    for record in known.latency:
        prompt = record.spec.details["prompt"]
        stages = {stage: record.values[stage]["latencies"] for stage in ("prefill", "decode")}
        for recipe in (Recipe(**each) for each in record.spec.details["recipes"]):
            model = record.spec.model
            row = {"method": _method_name(recipe, model), "model": _title(model), "bits": str(recipe.bits)}
            for stage, tokens in (("prefill", prompt), ("decode", 1)):
                timed = stages[stage][llm_runs.title(recipe)]
                base = stages[stage][llm_runs.title(Recipe(NONE, 16))]["median_ms"]
                spread = f"{timed['p10_ms'] / tokens:.2f} to {timed['p90_ms'] / tokens:.2f}"
                row[f"{stage} (ms a token)"] = f"{timed['median_ms'] / tokens:.2f} ({spread})"
                row[f"{stage}, of 16 bits"] = f"{timed['median_ms'] / base:.2f}"
            rows.append(row | _memory(known, record, recipe))
    return pd.DataFrame(rows)


def _memory(known: Found, timed: Record, recipe: Recipe) -> dict[str, str]:
    """Cells on the memory that a timed recipe takes on the machine that it was timed on."""
    device = timed.spec.details["environment"]["device_name"]
    for record in known.memory:
        same = record.spec.model == timed.spec.model and _recipe(record) == recipe
        if same and record.spec.details["environment"]["device_name"] == device:
            peak = record.values["peak_bytes"]
            taken = UNKNOWN if peak is None else f"{peak / 1e6:,.0f}"
            return {"weights (MB)": f"{record.values['stored_bytes'] / 1e6:,.0f}", "peak on GPU (MB)": taken}
    return {"weights (MB)": UNKNOWN, "peak on GPU (MB)": UNKNOWN}


def say_latency(known: Found) -> None:
    """Where it was timed, and whether to trust it."""
    for record in known.latency:
        environment = record.spec.details["environment"]
        reasons = record.values["reasons"]
        trust = f"The timings are noisy: {'; '.join(reasons)}." if reasons else "Nothing made the timings noisy."
        ratios = ", ".join(f"{record.values[stage]['aa_ratio']:.3f} ({stage})" for stage in ("prefill", "decode"))
        report.say(
            f"{_title(record.spec.model)} on {environment['device_name']}, threads: {environment['threads']}, "
            f"a prompt of {record.spec.details['prompt']} tokens. The same configuration timed twice: {ratios}. {trust}"
        )


def score_table(known: Found) -> pd.DataFrame:
    """I and I' of the methods that were timed, T of one decoding step; I' over the interval of the accuracy."""
    rows = []
    for record in known.latency:
        model = record.spec.model
        base = _one(known.accuracy, model, Recipe(NONE, 16))
        for recipe in (Recipe(**each) for each in record.spec.details["recipes"]):
            asked = _one(known.accuracy, model, recipe)
            if asked is None or base is None:
                continue
            latency = record.values["decode"]["latencies"][llm_runs.title(recipe)]["median_ms"]
            compression, accuracy = metric.compression_ratio(recipe.bits), _interval(asked)
            index = [metric.intelligence_index(compression, each, latency) for each in _ends(accuracy)]
            gated = [metric.gated_index(compression, each, latency, _threshold(base)) for each in _ends(accuracy)]
            rows.append(
                {
                    "method": _method_name(recipe, model),
                    "model": _title(model),
                    "bits": str(recipe.bits),
                    "C": number(compression, 0),
                    "P (%)": _with_interval(asked),
                    "T (ms)": number(latency, 1),
                    "I": "{:.3f} [{:.3f}, {:.3f}]".format(*index),
                    "I'": "{:.3f} [{:.3f}, {:.3f}]".format(*gated),
                }
            )
    return pd.DataFrame(rows)


# --- like for like ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """What a network keeps of its accuracy when rounded, and the bounds of that; fractions of full precision."""

    network: str
    scheme: str
    bits: int
    share: Interval


def kept(known: Found) -> list[Kept]:
    """Every network, scheme and width of the cross; bounds are the least and most of the seeds, or 95 % over tokens."""
    found = []
    for scheme, (granularity, outputs) in CROSS_SCHEMES.items():
        for bits in llm_runs.WIDTHS:
            if known.cross:
                found.append(Kept(CNN_TITLE, scheme, bits, _kept_over_seeds(known, f"{scheme}, {bits}")))
            for model in _models(known):
                told = _one(known.next_token, model, Recipe(ROUNDING, bits, granularity, outputs))
                base = _one(known.next_token, model, _FULL)
                if told is not None and base is not None:
                    found.append(Kept(_title(model), scheme, bits, _kept_over_tokens(told, base)))
    return found


def cross_table(known: Found) -> pd.DataFrame:
    """One row a network and scheme: the share of its accuracy that each width keeps."""
    everything = kept(known)
    rows = []
    for scheme in CROSS_SCHEMES:
        for network in dict.fromkeys(each.network for each in everything):
            cells = {each.bits: each.share for each in everything if (each.network, each.scheme) == (network, scheme)}
            row = {"rounded": scheme, "network": network}
            row |= {f"{bits} bits (%)": report.with_interval(share, 100, 1) for bits, share in cells.items()}
            rows.append(row)
    return pd.DataFrame(rows).fillna(UNKNOWN)


def tolerated() -> float:
    """The share of its accuracy that the paper asks Llama to keep: its threshold over its full precision (§4.4)."""
    return table3.threshold() / table3.full_precision()


def say_cross(known: Found) -> None:
    """Whether "language models tolerate 4 bits, image networks do not" holds when both are treated alike."""
    at_4 = [each for each in kept(known) if each.bits == 4]
    if len({each.network for each in at_4}) < 2:
        return report.say(f"There is no record yet to compare. To make them: `{RERUN_SMALL}`")
    stated = [paper.number(f"cifar10-simplecnn.accuracy.{bits}") for bits in (4, 32)]
    words = []
    for scheme in CROSS_SCHEMES:
        shares = [f"{each.network} {percent(each.share.estimate, 1)}" for each in at_4 if each.scheme == scheme]
        words.append(f"{scheme}: {', '.join(shares)}")
    keep = [f"with {scheme} by {_keepers(at_4, scheme)}" for scheme in CROSS_SCHEMES]
    holds = [scheme for scheme in CROSS_SCHEMES if _only_language(at_4, scheme)]
    verdict = (
        "survives" if len(holds) == len(CROSS_SCHEMES)
        else f"survives for {' and '.join(holds)} alone" if holds
        else "does not survive"
    )  # fmt: skip
    report.say(
        f"The paper asks Llama to keep {percent(tolerated(), 1)} of its accuracy, and keeps "
        f"{percent(stated[0] / stated[1], 1)} of SimpleCNN's on CIFAR-10 at 4 bits. Treated alike, 4 bits keep, with "
        f"{'; with '.join(words)}. The share asked of Llama is kept {'; '.join(keep)}. So the statement that language "
        f"models tolerate 4 bits and image networks do not **{verdict}** on these networks."
    )


def _keepers(at_4: Sequence[Kept], scheme: str) -> str:
    """Which networks keep what is asked, in words."""
    there = [each for each in at_4 if each.scheme == scheme]
    keep = [each.network for each in there if each.share.estimate >= tolerated()]
    return "all" if len(keep) == len(there) else " and ".join(keep) + " alone" if keep else "none"


def _only_language(at_4: Sequence[Kept], scheme: str) -> bool:
    """Whether all language models, and not the image network, keep what is asked."""
    ok = {each.network: each.share.estimate >= tolerated() for each in at_4 if each.scheme == scheme}
    return not ok.get(CNN_TITLE, True) and all(good for network, good in ok.items() if network != CNN_TITLE)


def figure_cross(known: Found) -> tuple:
    """Share of accuracy kept by width: weights alone, and weights and outputs."""
    everything = kept(known)
    networks = list(dict.fromkeys(each.network for each in everything))
    styles = dict(zip(networks, (("o-", report.ORANGE), ("s-", report.BLUE), ("^-", report.GREEN)), strict=False))
    figure, axes = report.panels(len(CROSS_SCHEMES), width=7.6, height=3.0, sharey=True)
    for axis, scheme in zip(axes, CROSS_SCHEMES, strict=True):
        for network, (style, colour) in styles.items():
            shares = [each for each in everything if (each.network, each.scheme) == (network, scheme)]
            middle = np.array([100 * each.share.estimate for each in shares])
            ends = np.array([[100 * each.share.low for each in shares], [100 * each.share.high for each in shares]])
            places = report.positions(llm_runs.WIDTHS, [each.bits for each in shares])
            axis.errorbar(places, middle, yerr=np.abs(ends - middle), fmt=style, color=colour, capsize=3, label=network)
        axis.axhline(100 * tolerated(), color=report.GREY, linestyle=":", linewidth=1)
        report.bit_axis(axis, llm_runs.WIDTHS)
        axis.set_title(scheme.replace(" per", "\nper").replace(" by", "\nby"), fontsize=9)
    axes[0].set(ylabel="accuracy kept (%)", ylim=(0, 105))
    if networks:
        axes[1].legend(fontsize=7, loc="lower left")  # where no line goes
    words = [
        f"{each.scheme}, {each.network}: {percent(each.share.estimate, 0)}" for each in everything if each.bits == 4
    ]
    caption = (
        "What networks keep of their accuracy, all rounded by the same code: accuracy on test images for SimpleCNN, on "
        "the next token of unseen stories for the language models. Dotted: the share that the paper asks of Llama."
    )
    return figure, "fig-llm-cross", caption, f"Plots of accuracy kept against bits. At 4 bits: {'; '.join(words)}."


def figure_methods(known: Found) -> tuple:
    """Accuracy of the libraries' methods by width, on MMLU and on the next token."""
    figure, axes = report.panels(2, width=7.4, height=3.2)
    styles = {NONE: ("D", report.GREY), BITSANDBYTES: ("s", report.BLUE), AWQ: ("o", report.ORANGE)}
    words = []
    for axis, name, kept_records in (
        (axes[0], "MMLU", known.accuracy),
        (axes[1], "next token of unseen stories", known.next_token),
    ):
        for method, (style, colour) in styles.items():
            shown = [
                record for record in kept_records
                if _recipe(record).method == method and record.spec.model == _main(known) and _recipe(record).bits <= 16
            ]  # fmt: skip
            bounds = [_interval(record) for record in shown]
            places = report.positions(table3.BITS, [_recipe(record).bits for record in shown])
            middle = np.array([100 * bound.estimate for bound in bounds])
            ends = np.array([[100 * bound.low for bound in bounds], [100 * bound.high for bound in bounds]])
            axis.errorbar(places, middle, yerr=np.abs(ends - middle), fmt=style, color=colour, capsize=3,
                          label=METHODS[method])  # fmt: skip
            words += [
                f"{name}, {_method(record)}, {_recipe(record).bits} bits: {percent(record.values['accuracy'], 1)}"
                for record in shown
            ]
        report.bit_axis(axis, table3.BITS)
        axis.set(title=name, xlim=(-0.5, len(table3.BITS) - 0.5))
        axis.set_ylim(bottom=0)
    axes[0].axhline(100 * _chance(), color=report.GREY, linestyle=":", linewidth=1)
    axes[0].set_ylabel("accuracy (%)")
    axes[1].legend(fontsize=8)
    caption = (
        f"{_title(_main(known))}: accuracy by width and method on MMLU (dotted: guessing) and on the next token, with "
        "95 % intervals."
    )
    return figure, "fig-llm-methods", caption, f"Plots by bit-width. {'; '.join(words)}."


# --- what reproduces, and what is absent -----------------------------------------------------------------------------


def say_checkpoint(known: Found) -> None:
    """What "full precision" means for the models that there are records of."""
    for model in _models(known):
        base = _one(known.next_token, model, _FULL)
        asked = _one(known.accuracy, model, Recipe(NONE, 16))
        if base is None:
            continue
        text = (
            f"**{_title(model)}**: right on {_with_interval(base)} % of {base.values['tokens']:,} next tokens of the "
            "stories in full precision"
        )
        if asked is not None:
            shots, (letter, count) = asked.spec.details["shots"] or "no", _favourite(asked)
            text += (
                f", and on {_with_interval(asked)} % of {asked.values['questions']:,} MMLU questions with {shots} "
                f"examples shown, where guessing is right on {percent(_chance(), 0)}. It answers {letter} to "
                f"{count:,} of them"
            )
        report.say(f"{text}.")


def _favourite(record: Record) -> tuple[str, int]:
    """The letter that a model gives most often, and to how many questions."""
    given = llm_runs.unpack_log_likelihoods(record.values["log_likelihoods"]).argmax(1)
    counts = np.bincount(given, minlength=len(mmlu.LETTERS))
    return mmlu.LETTERS[counts.argmax()], int(counts.max())


def summary_table(known: Found) -> pd.DataFrame:
    """The claims about language models, each with a verdict."""
    rows = [*_reading_claims(), *_model_claims(known), *_cross_claims(known)]
    return pd.DataFrame(rows, columns=CLAIM)


def _reading_claims() -> list[tuple[str, str, str]]:
    knees = [table3.knee(each, growth) for each in DECODINGS[1:] for growth in table3.GROWTHS]
    led = sum(width == 4 for width in knees)
    return [
        (
            "4 bits have the highest I', from the paper's own numbers",
            report.IN_PART if 0 < led < len(knees) else report.REPRODUCED if led else report.NOT_REPRODUCED,
            f"in {led} of {len(knees)} combinations of a reading of the units and a growth of latency with the width",
        ),
        (
            "bitsandbytes and AWQ give the widths from 16 bits to 2",
            report.IN_PART,
            f"bitsandbytes has {' and '.join(map(str, WIDTHS[BITSANDBYTES]))} bits, autoawq 4: 3 and 2 bits come from "
            "another tool, which the text does not name",
        ),
    ]


def _model_claims(known: Found) -> Iterator[tuple[str, str, str]]:
    """Each where a record of a model that is clearly better than chance could tell."""
    model = _main(known)
    base = None if model is None else _one(known.accuracy, model, Recipe(NONE, 16))
    for claim, bits in (("4 bits lose little on MMLU", 4), ("3 bits fall below the threshold", 3),
                        ("2 bits fall to little above chance", 2)):  # fmt: skip
        best = None if model is None else _best(known, model, bits)
        if base is None or best is None:
            yield claim, report.UNDECIDED, f"not run; {RERUN}"
        elif model != PAPERS:
            evidence = f"{_title(model)}: {_with_interval(best)} % after {_with_interval(base)} %"
            yield (
                claim,
                report.UNDECIDED,
                f"{evidence}; another model, near chance ({percent(_chance(), 0)}) from the start",
            )
        else:
            yield claim, _holds(bits, _interval(best)), f"{_with_interval(best)} % after {_with_interval(base)} %"


def _holds(bits: int, ours: Interval) -> str:
    """Above the stated threshold at 4 bits, not above it at 3 and 2."""
    above, below = ours.low > table3.threshold(), ours.high <= table3.threshold()
    if not above and not below:
        return report.IN_PART
    return report.REPRODUCED if above == (bits == 4) else report.NOT_REPRODUCED


def _cross_claims(known: Found) -> Iterator[tuple[str, str, str]]:
    at_4 = [each for each in kept(known) if each.bits == 4]
    if len({each.network for each in at_4}) < 2:
        return
    holds = [scheme for scheme in CROSS_SCHEMES if _only_language(at_4, scheme)]
    verdict = (
        report.NOT_REPRODUCED if not holds else report.IN_PART if len(holds) < len(CROSS_SCHEMES) else report.REPRODUCED
    )
    yield (
        "(implied) language models tolerate 4 bits, image networks do not, treated alike",
        verdict,
        f"so for {len(holds)} of {len(CROSS_SCHEMES)} ways to round" + (f" ({', '.join(holds)})" if holds else ""),
    )


def absent_table(known: Found) -> pd.DataFrame:
    """What has not been run, and what it takes."""
    rows = []
    if not any(record.spec.model == PAPERS for record in known.accuracy):
        needs = checkpoints.NEEDS[checkpoints.PAPERS]
        rows.append(
            {
                "absent": "Llama-3-8B-Instruct on MMLU",
                "it takes": f"{checkpoints.EXTRA}, an access token for {checkpoints.PAPERS}, "
                f"a GPU with {needs.gpu_gb} GB",
                "command": RERUN,
            }
        )
    if not any(record.spec.model in FULL_SIZE for record in known.latency):
        rows.append(
            {
                "absent": "the time a token takes, and the memory, with all layers of Llama-3-8B",
                "it takes": f"{checkpoints.EXTRA}, a GPU with {RANDOM_GPU_GB} GB; its weights are random, so no token",
                "command": RERUN_RANDOM,
            }
        )
    if not known.latency:
        takes = f"{checkpoints.EXTRA}, a machine that does nothing else"
        rows.append({"absent": "the time a token takes", "it takes": takes, "command": RERUN_SMALL})
    return pd.DataFrame(rows)


# --- helpers ---------------------------------------------------------------------------------------------------------

_FULL = Recipe(NONE, FULL_BITS)


def _recipe(record: Record) -> Recipe:
    return Recipe(**record.spec.details["recipe"])


def _one(kept_records: Sequence[Record], model: str, recipe: Recipe) -> Record | None:
    """The record of a model and recipe, on most data if there are several."""
    there = [record for record in kept_records if record.spec.model == model and _recipe(record) == recipe]
    return max(there, key=lambda record: record.values.get("questions", 0), default=None)


def _models(known: Found) -> list[str]:
    """Names of the models with records, in the order of :data:`TITLES`, the unknown ones last."""
    names = {record.spec.model for record in [*known.accuracy, *known.next_token]}
    order = {name: place for place, name in enumerate(TITLES)}
    return sorted(names, key=lambda name: (order.get(_source(name), len(TITLES)), name))


def _main(known: Found) -> str | None:
    """The first model with answers to MMLU, or else any: the paper's where it has been run."""
    names = _models(known)
    return next((name for name in names if any(r.spec.model == name for r in known.accuracy)), next(iter(names), None))


def _best(known: Found, model: str | None, bits: int) -> Record | None:
    """The most accurate of a model's MMLU records at a width."""
    there = [r for r in known.accuracy if r.spec.model == model and _recipe(r).bits == bits]
    return max(there, key=lambda record: record.values["accuracy"], default=None)


def _library_recipes(known: Found, model: str) -> list[Recipe]:
    recipes = [_recipe(r) for r in [*known.accuracy, *known.next_token] if r.spec.model == model]
    shown = dict.fromkeys(recipe for recipe in recipes if recipe.method != ROUNDING)
    return sorted(shown, key=_place)


def _place(recipe: Recipe) -> tuple:
    """Where tables have it: by method, then from wide to narrow."""
    return list(WIDTHS).index(recipe.method), str(recipe.granularity), -recipe.bits


def _title(model: str | None) -> str:
    return UNKNOWN if model is None else TITLES.get(_source(model), model)


def _source(model: str) -> str:
    """The model that one was quantized from, whose name it bears with an ending, as models on the hub do."""
    return model.removesuffix(checkpoints.QUANTIZED)


def _method(record: Record) -> str:
    return _method_name(_recipe(record), record.spec.model)


def _method_name(recipe: Recipe, model: str) -> str:
    if recipe.method == AWQ and model.endswith(checkpoints.QUANTIZED):
        return AS_QUANTIZED
    if recipe.method != ROUNDING:
        return KERNELS.get((recipe.method, recipe.bits), METHODS[recipe.method])
    scheme = next(name for name, parts in CROSS_SCHEMES.items() if parts == (recipe.granularity, recipe.outputs))
    return f"{METHODS[ROUNDING]}, {scheme}"


def _interval(record: Record) -> Interval:
    hits = unpack_bits(record.values["correct"])
    return stats.wilson_interval(int(hits.sum()), len(hits))


def _with_interval(record: Record | None) -> str:
    return UNKNOWN if record is None else report.with_interval(_interval(record), 100, 1)


def _with_change(record: Record | None, base: Record | None) -> str:
    if record is None or base is None or record.key == base.key:
        return UNKNOWN
    return report.with_interval(_change(record, base), 100, 1)


def _change(record: Record, base: Record) -> Interval:
    return stats.paired_difference_interval(*(unpack_bits(r.values["correct"]) for r in (base, record)))


def _kept_over_tokens(record: Record, base: Record) -> Interval:
    change, full = _change(record, base), base.values["accuracy"]
    return Interval(*(1 + part / full for part in (change.estimate, change.low, change.high)))


def _kept_over_seeds(known: Found, name: str) -> Interval:
    accuracies = [record.values["accuracy"] for record in known.cross.values()]
    shares = [each[name] / each[str(FULL_BITS)] for each in accuracies]
    return Interval(float(np.mean(shares)), min(shares), max(shares))


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _threshold(base: Record) -> float:
    facts = paper.conditions().loc[LLAMA]
    return metric.accuracy_threshold(base.values["accuracy"], float(facts["tolerance"]), int(facts["num_classes"]))


def _chance() -> float:
    return 1 / int(paper.conditions().at[LLAMA, "num_classes"])
