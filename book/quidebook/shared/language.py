"""Records of language models, and what they say of Table 3 and of the paper's claims on it (§4.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from quide.experiments import llm_runs, paper, select
from quide.experiments.llm_runs import ACCURACY, CROSS, CROSS_SCHEMES, LATENCY, MEMORY, NEXT_TOKEN, PROFILE
from quide.experiments.records import Record
from quide.llm import checkpoints
from quide.llm.recipe import AWQ, BITSANDBYTES, NONE, ROUNDING, LlmRecipe
from quide.stats import Hits, Interval
from quidebook import report
from quidebook.report import UNKNOWN, number, with_origin
from quidebook.shared import table3
from quidebook.shared.table3 import DECODINGS, LLAMA
from quidebook.verdicts import IN_PART, NOT_REPRODUCED, REPRODUCED, UNDECIDED, accuracy_verdict, cells

CNN, CNN_TITLE = ("simplecnn", "cifar10"), "SimpleCNN (CIFAR-10)"
PAPERS = "meta-llama-3-8b-instruct"  # as records name the paper's model
TITLES = {
    PAPERS: "Llama-3-8B-Instruct",
    "smollm2-135m-instruct.q4_1": "SmolLM2-135M-Instruct",
    "stories260k": "stories260K",
    "llama-3-8b-random": "Llama-3-8B, random weights",
    "llama-3-8b-4-layers-random": "Llama-3-8B cut to 4 layers, random weights",
}
METHODS = {NONE: "not quantized", BITSANDBYTES: "bitsandbytes", AWQ: "AWQ (llm-compressor)", ROUNDING: "rounding"}
KERNELS = {(BITSANDBYTES, 8): "bitsandbytes LLM.int8", (BITSANDBYTES, 4): "bitsandbytes NF4"}
AS_QUANTIZED = "AWQ (autoawq)"
FULL, PLAIN = LlmRecipe(NONE, 32), LlmRecipe(NONE, 16)
RERUN = "quide run llama3_mmlu --profile paper --device cuda"
NOT_RUN = UNDECIDED, "the paper's model has not been run"


@dataclass(frozen=True)
class LanguageRecords:
    """Records of language models by kind, of the image network by seed, at the best profile there is."""

    accuracy: list[Record]
    next_token: list[Record]
    latency: list[Record]
    cross: dict[int, Record]
    memory: list[Record] = field(default_factory=list)

    @property
    def used(self) -> list[Record]:
        """All of them."""
        return [*self.accuracy, *self.next_token, *self.latency, *self.cross.values(), *self.memory]

    @property
    def models(self) -> list[str]:
        """Names of the models that were scored, in the order of :data:`TITLES`, the unknown ones last."""
        names = {record.spec.model for record in [*self.accuracy, *self.next_token]}
        order = {name: place for place, name in enumerate(TITLES)}
        return sorted(names, key=lambda name: (order.get(source(name), len(TITLES)), name))

    @property
    def main(self) -> str | None:
        """The first model with answers to MMLU, or else any: the paper's where it has been run."""
        answered = {record.spec.model for record in self.accuracy}
        return next(iter([*(name for name in self.models if name in answered), *self.models]), None)

    def best(self, bits: int) -> Record | None:
        """The most accurate of the main model's MMLU records at a width."""
        there = [each for each in self.accuracy if each.spec.model == self.main and recipe_of(each).bits == bits]
        return max(there, key=lambda record: record.values["accuracy"], default=None)


def found(profile: str) -> LanguageRecords:
    """What records hold; of the image network those of ``profile`` where the paper's profile has none.

    A record that other code made is taken with a :class:`quide.experiments.records.StaleRecordWarning`.
    """
    language = [select.known(kind) for kind in (ACCURACY, NEXT_TOKEN, LATENCY)]
    cross = select.known(CROSS, PROFILE, *CNN) or select.known(CROSS, profile, *CNN)
    seeds = {record.spec.seed: record for record in sorted(cross, key=lambda record: record.spec.seed)}
    return LanguageRecords(*language, seeds, select.known(MEMORY))


# --- one record ------------------------------------------------------------------------------------------------------


def one(kept_records: Sequence[Record], model: str | None, recipe: LlmRecipe) -> Record | None:
    """The record of a model and recipe, on most data if there are several."""
    there = [record for record in kept_records if record.spec.model == model and recipe_of(record) == recipe]
    return max(there, key=lambda record: record.values.get("questions", 0), default=None)


def recipe_of(record: Record) -> LlmRecipe:
    """How the record's model was quantized."""
    return LlmRecipe(**record.spec.details["recipe"])


def hits(record: Record) -> Hits:
    """Which questions, or tokens, it has right."""
    return Hits.unpacked(record.values["correct"])


def source(model: str) -> str:
    """The model that one was quantized from, whose name it bears with an ending, as models on the hub do."""
    return model.removesuffix(checkpoints.QUANTIZED)


def title(model: str | None) -> str:
    """A model as printed; a dash for none."""
    return UNKNOWN if model is None else TITLES.get(source(model), model)


def method_name(recipe: LlmRecipe, model: str) -> str:
    """A recipe as printed, with the tool."""
    if recipe.method == AWQ and model.endswith(checkpoints.QUANTIZED):
        return AS_QUANTIZED
    if recipe.method != ROUNDING:
        return KERNELS.get((recipe.method, recipe.bits), METHODS.get(recipe.method, recipe.method))
    scheme = next(name for name, parts in CROSS_SCHEMES.items() if parts == (recipe.granularity, recipe.outputs))
    return f"{METHODS[ROUNDING]}, {scheme}"


def interval_cell(record: Record | None) -> str:
    """Its accuracy in percent, as a cell."""
    return UNKNOWN if record is None else report.with_interval(hits(record).interval(), 100, 1)


def chance() -> float:
    """Accuracy of guessing on MMLU."""
    return 1 / int(paper.conditions().at[LLAMA, "num_classes"])


def beside_chance(interval: Interval) -> str:
    """Whether guessing can be excluded, and on which side."""
    side = "clearly above" if interval.low > chance() else "clearly below" if interval.high < chance() else ""
    return side or "not distinguishable from"


def beats_guessing(known: LanguageRecords, model: str) -> bool:
    """Whether a model at 16 bits is clearly better than guessing on MMLU; if not, no width tells anything."""
    record = one(known.accuracy, source(model), PLAIN)
    return record is not None and hits(record).interval().low > chance()


# --- Table 3 ---------------------------------------------------------------------------------------------------------


def table3_table(known: LanguageRecords) -> pd.DataFrame:
    """Table 3: the paper's cells, and ours of its own model beside them with a verdict; others decide no level."""
    stated, rows = paper.table3().set_index("bits"), []
    for bits in table3.BITS:
        ours = known.best(bits) if known.main == PAPERS else None
        row = {
            "bits": str(bits),
            "paper P (%)": _stated_accuracy(stated, bits),
            "paper I": _stated(stated, bits, "index", 1),
            "paper I'": _stated(stated, bits, "gated_index", 2),
        } | cells(_table3_verdict(stated, bits, ours))
        if ours is not None:
            row |= {"ours P (%)": interval_cell(ours), "by": method_name(recipe_of(ours), PAPERS)}
        rows.append(row)
    return pd.DataFrame(rows).fillna(UNKNOWN)


def _stated_accuracy(stated: pd.DataFrame, bits: int) -> str:
    if bits not in stated.index or not np.isnan(stated.accuracy[bits]):
        return _stated(stated, bits, "accuracy", 1, 100)
    bounds = paper.numbers().loc[f"{LLAMA}.accuracy.{bits}"]
    if np.isnan(bounds["low"]):
        return f"at most {bounds['high']:.0f} †"
    return f"above {max(bounds['low'], 100 * table3.least_accuracy_at_4()):.1f} †"


def _stated(stated: pd.DataFrame, bits: int, quantity: str, digits: int, scale: float = 1) -> str:
    if bits not in stated.index:
        return UNKNOWN
    return with_origin(number(scale * stated[quantity][bits], digits), stated[f"{quantity}_origin"][bits])


def _table3_verdict(stated: pd.DataFrame, bits: int, ours: Record | None) -> tuple[str, str]:
    if ours is None:
        return NOT_RUN
    if bits not in stated.index:
        return UNDECIDED, "not stated"
    interval = hits(ours).interval()
    return accuracy_verdict(stated.accuracy[bits], interval.estimate, interval.low, interval.high)


# --- like for like ---------------------------------------------------------------------------------------------------


def kept(known: LanguageRecords) -> pd.DataFrame:
    """What networks keep of their accuracy when they are rounded alike: one row a scheme, width and network.

    Columns: scheme, bits, network, share (an Interval, fractions of full precision). Its bounds are the least and the
    most of the image network's seeds, and 95 % over the tokens of a language model.
    """
    rows = []
    for scheme, (granularity, outputs) in CROSS_SCHEMES.items():
        for bits in llm_runs.WIDTHS:
            if known.cross:
                rows.append((scheme, bits, CNN_TITLE, _kept_over_seeds(known, f"{scheme}, {bits}")))
            for model in known.models:
                told = one(known.next_token, model, LlmRecipe(ROUNDING, bits, granularity, outputs))
                base = one(known.next_token, model, FULL)
                if told is not None and base is not None:
                    rows.append((scheme, bits, title(model), hits(told).kept(hits(base))))
    return pd.DataFrame(rows, columns=["scheme", "bits", "network", "share"])


def _kept_over_seeds(known: LanguageRecords, name: str) -> Interval:
    accuracies = [record.values["accuracy"] for record in known.cross.values()]
    shares = [each[name] / each[str(FULL.bits)] for each in accuracies]
    return Interval(float(np.mean(shares)), min(shares), max(shares))


def tolerated() -> float:
    """The share of its accuracy that the paper asks Llama to keep: its threshold over its full precision (§4.4)."""
    return table3.threshold() / table3.full_precision()


def keepers(shares: pd.DataFrame) -> dict[str, list[str]]:
    """By scheme of :func:`kept`, the networks that keep as much as :func:`tolerated` at 4 bits."""
    at = shares[shares["bits"] == 4]
    return {
        scheme: [each.network for each in part.itertuples() if each.share.estimate >= tolerated()]
        for scheme, part in at.groupby("scheme", sort=False)
    }


# --- claims ----------------------------------------------------------------------------------------------------------


def claims_table(known: LanguageRecords) -> pd.DataFrame:
    """The claims about language models, each with a verdict."""
    rows = [_knee_claim(), *_model_claims(known), *_cross_claim(known)]
    return pd.DataFrame(rows, columns=["claim", "verdict", "evidence"])


def _knee_claim() -> tuple[str, str, str]:
    knees = [table3.knee(each, growth) for each in DECODINGS[1:] for growth in table3.GROWTHS]
    led = sum(width == 4 for width in knees)
    return (
        "4 bits have the highest I', from the paper's own numbers",
        IN_PART if 0 < led < len(knees) else REPRODUCED if led else NOT_REPRODUCED,
        f"in {led} of {len(knees)} combinations of a reading of the units and a growth of latency with the width",
    )


def _model_claims(known: LanguageRecords) -> Iterator[tuple[str, str, str]]:
    """Each from records of the paper's own model alone."""
    base = one(known.accuracy, known.main, PLAIN)
    for claim, bits in (
        ("4 bits lose little on MMLU", 4),
        ("3 bits fall below the threshold", 3),
        ("2 bits fall to little above chance", 2),
    ):
        best = known.best(bits)
        if base is None or best is None or known.main != PAPERS:
            yield claim, *NOT_RUN
        else:
            verdict = _holds(bits, hits(best).interval())
            yield claim, verdict, f"{interval_cell(best)} % after {interval_cell(base)} %"


def _holds(bits: int, ours: Interval) -> str:
    """Above the stated threshold at 4 bits, not above it at 3 and 2; none where the interval holds the threshold."""
    above, below = ours.low > table3.threshold(), ours.high <= table3.threshold()
    if not above and not below:
        return UNDECIDED
    return REPRODUCED if above == (bits == 4) else NOT_REPRODUCED


def _cross_claim(known: LanguageRecords) -> Iterator[tuple[str, str, str]]:
    """The paper speaks of large language models; without one, what small ones do decides nothing."""
    shares = kept(known)
    networks = shares["network"].unique()
    if len(networks) < 2:
        return
    keep = keepers(shares)
    contrast = [scheme for scheme, names in keep.items() if set(names) == set(networks) - {CNN_TITLE}]
    verdict = UNDECIDED
    if title(PAPERS) in networks:
        some = IN_PART if contrast else NOT_REPRODUCED
        verdict = REPRODUCED if len(contrast) == len(keep) else some
    yield (
        "(implied) large language models tolerate 4 bits, image networks do not, treated alike",
        verdict,
        f"so for {len(contrast)} of {len(keep)} ways to round, in {len(networks) - 1} language models"
        + ("" if title(PAPERS) in networks else ", all of them small"),
    )
