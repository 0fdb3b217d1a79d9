"""The page on language models: numbers and verdicts follow the records, and without any it says what is missing."""

from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from quidebook import report
from quidebook.pages import llama3_mmlu as llama3
from quidebook.shared import language, table3
from quidebook.shared.language import PAPERS, LanguageRecords
from quidebook.verdicts import IN_PART, NOT_REPRODUCED, REPRODUCED, UNDECIDED

from quide import stats
from quide.experiments import llm_runs, paper, records, runs
from quide.experiments.llm_runs import CROSS_SCHEMES, WIDTHS
from quide.experiments.measured import KINDS
from quide.llm import checkpoints
from quide.llm.methods import LlmRecipe
from quide.stats import pack_bits

SMALL = "smollm2-135m-instruct.q4_1"
MADE = {
    "date": "2026-01-01T00:00:00+00:00", "git_commit": None, "cpu": "an abacus", "accelerator": None,
    "packages": {"torch": "2"},
}  # fmt: skip
PLAIN, FULL = LlmRecipe("none", 16), LlmRecipe("none", 32)
LIBRARIES = (
    PLAIN,
    LlmRecipe("bitsandbytes", 8),
    LlmRecipe("bitsandbytes", 4),
    *(LlmRecipe("awq", bits) for bits in (4, 3, 2)),
)
ANSWERS = {16: 0.666, 8: 0.66, 4: 0.64, 3: 0.5, 2: 0.3}  # of 2,000 questions
TOKENS = {32: 0.5, 16: 0.5, 8: 0.5, 4: 0.48, 3: 0.4, 2: 0.2}
CNN = {8: 0.99, 4: 0.7, 3: 0.5, 2: 0.2}  # shares of full precision


def hits(share: float, count: int) -> np.ndarray:
    """The same easy questions right at every width."""
    return np.random.default_rng(0).permutation(count) < round(share * count)


def record(kind: str, model: str, dataset: str, values: dict, **details) -> records.Record:
    spec = records.RunSpec(kind, model, dataset, 0, "paper", details)
    return records.Record(spec, values, KINDS[kind].digest("any"), "0" * 64, MADE, 1.0)


def scored(share: float, count: int, bits: int) -> dict:
    hit = hits(share, count)
    return {"accuracy": float(hit.mean()), "correct": pack_bits(hit), "stored_bytes": 100_000 * bits}


def answers(recipe: LlmRecipe, model: str = PAPERS, count: int = 2000, share: float | None = None) -> records.Record:
    values = scored(ANSWERS[recipe.bits] if share is None else share, count, recipe.bits) | {"questions": count}
    said = np.full((count, 4), -2.0)
    said[:7, 2], said[7:, 1] = -1.0, -1.0  # C to the first seven questions, B to the others
    values["log_likelihoods"] = llm_runs.pack_log_likelihoods(said)
    return record(llm_runs.ACCURACY, model, "mmlu", values, recipe=asdict(recipe), shots=5, limit=None)


def tokens(recipe: LlmRecipe, model: str = PAPERS, share: float | None = None) -> records.Record:
    values = scored(TOKENS[recipe.bits] if share is None else share, 3000, recipe.bits)
    values |= {"tokens": 3000, "nats_per_token": 1.9}
    return record(llm_runs.NEXT_TOKEN, model, "stories", values, recipe=asdict(recipe))


def timed(model: str = PAPERS, times: tuple[float, ...] = (40.0, 30.0, 10.0), reasons=()) -> records.Record:
    recipes = LIBRARIES[:3]
    latencies = {
        llm_runs.title(recipe): {"median_ms": ms, "p10_ms": 0.9 * ms, "p90_ms": 1.1 * ms}
        for recipe, ms in zip(recipes, times, strict=True)
    }
    stages = {stage: {"latencies": latencies, "aa_ratio": 1.01} for stage in ("prefill", "decode")}
    details = {"recipes": [asdict(recipe) for recipe in recipes], "prompt": 10}
    details["environment"] = {"device_name": "an abacus", "threads": 1}
    values = stages | {"reasons": list(reasons), "noisy": bool(reasons)}
    return record(llm_runs.LATENCY, model, "stories", values, **details)


def image_network(seed: int, shares: dict[int, float] = CNN) -> records.Record:
    accuracy = {"32": 0.8} | {f"{scheme}, {bits}": 0.8 * shares[bits] for scheme in CROSS_SCHEMES for bits in WIDTHS}
    run = llm_runs.cross(runs.Case("simplecnn", "cifar10", seed, "paper"))
    return records.Record(run.spec, {"accuracy": accuracy, "images": 100}, run.code, run.data, MADE, 1.0)


def rounded(model: str = PAPERS, shares: dict[int, float] = TOKENS) -> list[records.Record]:
    return [
        tokens(LlmRecipe("rounding", bits, granularity, outputs), model, shares[bits])
        for granularity, outputs in CROSS_SCHEMES.values()
        for bits in WIDTHS
    ]


@pytest.fixture
def known() -> LanguageRecords:
    return LanguageRecords(
        [answers(recipe) for recipe in LIBRARIES],
        [tokens(FULL), *(tokens(recipe) for recipe in LIBRARIES), *rounded()],
        [timed()],
        {seed: image_network(seed) for seed in (0, 42, 123)},
    )


NOTHING = LanguageRecords([], [], [], {})
TABLES = [
    language.table3_table, llama3.methods_table, llama3.latency_table, llama3.score_table, language.kept,
    language.claims_table,
]  # fmt: skip


@pytest.fixture
def spoken(monkeypatch) -> list[str]:
    """The sentences displayed so far."""
    sentences: list[str] = []
    monkeypatch.setattr(report, "say", sentences.append)
    return sentences


def test_what_a_model_is_worth_from_the_start(known):
    (told,) = llama3.predictions(known)
    assert told["accuracy"] == stats.wilson_interval(1500, 3000) and told["tokens"] == 3000
    (asked,) = llama3.answers(known)
    assert asked["accuracy"] == stats.wilson_interval(1332, 2000) and (asked["shots"], asked["chance"]) == (5, 0.25)
    assert (asked["letter"], asked["given"], asked["questions"]) == ("B", 1993, 2000)


@pytest.mark.parametrize(("share", "beside"), [(0.5, "above"), (0.27, "not distinguishable"), (0.193, "below")])
def test_below_guessing_is_not_the_same_as_near_it(share, beside):
    (asked,) = llama3.answers(LanguageRecords([answers(PLAIN, SMALL, 500, share)], [], [], {}))
    assert beside in asked["beside"]


def test_a_model_that_guesses_tells_nothing_on_mmlu(known):
    def shown(share: float) -> tuple[bool, bool]:
        asked = [answers(recipe, share=share) for recipe in LIBRARIES]
        records = LanguageRecords(asked, known.next_token, known.latency, {})
        return "MMLU P (%)" in llama3.methods_table(records), not llama3.score_table(records).empty

    assert shown(0.5) == (True, True) and shown(0.25) == shown(0.2) == (False, False)


# --- Table 3 ---------------------------------------------------------------------------------------------------------


def test_the_papers_cells_are_the_papers(known):
    table = language.table3_table(known).set_index("bits")
    assert table["paper P (%)"].tolist() == ["66.6", "–", "above 62.3 †", "at most 60 †", "35.0"]
    assert table["paper I"]["2"] == "70.0" and table["paper I'"][["4", "3"]].tolist() == ["2.58", "0.00"]
    readings = table3.decodings_table()["T at 2 bits (ms)"]
    assert readings[1:].tolist() == ["255", "15", "57", "28.1"]


def test_ours_is_the_most_accurate_method_of_a_width(known):
    better = answers(LlmRecipe("bitsandbytes", 4), share=0.65)
    known = LanguageRecords(
        [*known.accuracy[:2], better, *known.accuracy[3:]], known.next_token, known.latency, known.cross
    )
    table = language.table3_table(known).set_index("bits")
    assert table.loc["4", "ours P (%)"] == report.with_interval(stats.wilson_interval(1300, 2000), 100, 1)
    assert table.loc["4", "by"] == "bitsandbytes NF4"


def test_levels_are_compared_for_the_papers_model_alone(known):
    table = language.table3_table(known).set_index("bits")
    assert table.verdict[["16", "2"]].tolist() == [REPRODUCED, IN_PART]  # 35.0 stated, 30 ours
    other = LanguageRecords([answers(recipe, SMALL, 500, 0.27) for recipe in LIBRARIES], [], [], {})
    table = language.table3_table(other)
    assert set(table.verdict) == {UNDECIDED} and "ours P (%)" not in table


# --- methods, sizes, times -------------------------------------------------------------------------------------------


def test_changes_are_paired_with_the_same_questions(known):
    table = llama3.methods_table(known).set_index(["method", "bits"])
    row = table.loc[("AWQ (llm-compressor)", "3")]
    change = stats.paired_difference_interval(hits(0.666, 2000), hits(0.5, 2000))
    assert row["change from 16 (pp)"] == report.with_interval(change, 100, 1)
    change = stats.paired_difference_interval(hits(0.5, 3000), hits(0.4, 3000))
    assert row["change from 32 (pp)"] == report.with_interval(change, 100, 1)
    assert table.loc[("not quantized", "16"), "change from 16 (pp)"] == report.UNKNOWN
    assert table.loc[("not quantized", "32"), "MMLU P (%)"] == report.UNKNOWN  # not asked at 32 bits


def test_compression_is_counted_by_the_formula_and_in_bytes(known):
    row = llama3.methods_table(known).set_index(["method", "bits"]).loc[("AWQ (llm-compressor)", "3")]
    assert row["C = 32/b"] == "10.67"
    assert row["smaller than 16 bits, in bytes"] == f"{1_600_000 / 300_000:.2f}"


def test_latency_is_a_tokens_and_relative_to_16_bits(known):
    row = llama3.latency_table(known).set_index("method").loc["bitsandbytes NF4"]
    assert row["prefill (ms per token)"] == "1.00 (0.90 to 1.10)" and row["decode (ms per token)"].startswith("10.00 ")
    assert row["prefill, of 16 bits"] == row["decode, of 16 bits"] == "0.25"


def test_scores_use_the_decoding_step_and_the_threshold_of_equation_4(known):
    row = llama3.score_table(known).set_index("method").loc["bitsandbytes NF4"]
    margin = 0.64 - (0.666 - 0.07)
    assert row["I'"].startswith(f"{8 * margin / np.log2(11):.3f} [")
    assert row["I"].startswith(f"{8 * 0.64 / np.log2(11):.3f} [")


def test_noise_is_said():
    busy, quiet = llama3.timings(LanguageRecords([], [], [timed(reasons=("someone was busy",)), timed()], {}))
    assert busy["noise"] == report.noise(["someone was busy"]) and not quiet["noise"]
    assert (quiet["prefill"], quiet["decode"], quiet["device"]) == (1.01, 1.01, "an abacus")


# --- like for like ---------------------------------------------------------------------------------------------------


def test_what_is_kept_is_a_share_of_full_precision(known):
    shown = {(each.network, each.scheme, each.bits): each.share for each in language.kept(known).itertuples()}
    assert len(shown) == 2 * len(CROSS_SCHEMES) * len(WIDTHS)
    scheme = next(iter(CROSS_SCHEMES))
    assert shown["Llama-3-8B-Instruct", scheme, 4].estimate == pytest.approx(0.48 / 0.5, abs=1e-3)
    assert shown[language.CNN_TITLE, scheme, 4].estimate == pytest.approx(0.7)
    change = stats.paired_difference_interval(hits(0.5, 3000), hits(0.48, 3000))
    assert shown["Llama-3-8B-Instruct", scheme, 4].low == pytest.approx(1 + change.low / 0.5)


CONTRASTS = [(0.48, 0.7, REPRODUCED), (0.30, 0.7, NOT_REPRODUCED), (0.48, 0.95, NOT_REPRODUCED)]


def contrast(found: LanguageRecords) -> str:
    """The verdict on language models against image networks."""
    claims = language.claims_table(found).set_index("claim").verdict
    return claims[[claim for claim in claims.index if claim.startswith("(implied)")][0]]


@pytest.mark.parametrize(("large", "image", "verdict"), CONTRASTS)
def test_the_verdict_on_4_bits_follows_both_networks(known, large, image, verdict):
    base = [each for each in known.next_token if language.recipe_of(each).method != "rounding"]
    cross = {0: image_network(0, CNN | {4: image})}
    found = LanguageRecords(known.accuracy, [*base, *rounded(shares=TOKENS | {4: large})], [], cross)
    assert contrast(found) == verdict
    facts = llama3.like_for_like(language.kept(found))
    assert facts["asked"] == pytest.approx(0.60 / 0.666) and facts["image"] == pytest.approx(0.5818 / 0.7984, abs=0.01)


@pytest.mark.parametrize(("language_share", "image", "_"), CONTRASTS)
def test_small_models_decide_nothing_on_large_ones(language_share, image, _):
    told = [tokens(FULL, SMALL), *rounded(SMALL, TOKENS | {4: language_share})]
    assert contrast(LanguageRecords([], told, [], {0: image_network(0, CNN | {4: image})})) == UNDECIDED


def test_who_keeps_what_is_asked_is_told_by_scheme(known):
    scheme = "weights by groups of 64"
    cross = image_network(0, CNN | {4: 0.95})
    cross.values["accuracy"][f"{scheme}, 4"] = 0.4
    found = LanguageRecords(known.accuracy, known.next_token, [], {0: cross})
    both = [language.CNN_TITLE, "Llama-3-8B-Instruct"]
    assert language.keepers(language.kept(found)) == {name: both[name == scheme :] for name in CROSS_SCHEMES}
    assert contrast(found) == IN_PART


# --- verdicts, figures, absence --------------------------------------------------------------------------------------


def test_claims_on_the_papers_model_follow_its_threshold(known):
    claims = language.claims_table(known).set_index("claim").verdict
    assert claims["4 bits lose little on MMLU"] == REPRODUCED
    assert claims["3 bits fall below the threshold"] == REPRODUCED
    wrong = [answers(LlmRecipe("awq", 4), share=0.5), answers(LlmRecipe("awq", 3), share=0.66)]
    weak = LanguageRecords([answers(PLAIN), *wrong], [], [], {})
    claims = language.claims_table(weak).set_index("claim").verdict
    assert claims["4 bits lose little on MMLU"] == claims["3 bits fall below the threshold"] == NOT_REPRODUCED


def test_the_figure_says_what_it_shows(known):
    figure, alt = llama3.figure_cross(language.kept(known))
    assert len(figure.axes) == len(CROSS_SCHEMES) and f"weights per tensor, {language.CNN_TITLE}: 70 %" in alt


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_tables_without_records_are_frames(table):
    assert isinstance(table(NOTHING), pd.DataFrame)


def test_without_records_the_page_says_what_is_missing():
    assert not [*llama3.predictions(NOTHING), *llama3.answers(NOTHING), *llama3.timings(NOTHING)]
    shares = language.kept(NOTHING)
    assert "papermill notebooks/llama3_mmlu.ipynb" in llama3.like_for_like(shares).command
    assert llama3.cross_table(shares).empty
    drawn, alt = llama3.figure_cross(shares)
    assert drawn.axes and alt
    absent = list(llama3.missing(NOTHING))
    assert checkpoints.PAPERS in absent[0]["takes"] and "quide run llama3_mmlu" in absent[0]["command"]
    assert len(absent) == 3 and "random:llama-3-8b" in absent[1]["command"] and "papermill" in absent[2]["command"]
    of_another_size = LanguageRecords([answers(PLAIN)], [], [timed(SMALL)], {})
    assert len(list(llama3.missing(of_another_size))) == 1, "another size tells nothing"


def test_nothing_is_missing_once_the_papers_model_was_run_and_timed(known):
    assert not list(llama3.missing(known))


def test_memory_stands_beside_the_latency_of_the_same_machine(known):
    def taken(peak: int | None, **environment) -> records.Record:
        values = {"stored_bytes": 16_060_000_000, "peak_bytes": peak}
        return record(llm_runs.MEMORY, PAPERS, "stories", values, recipe=asdict(PLAIN), environment=environment)

    def cell(memory: list[records.Record]) -> str | None:
        table = llama3.latency_table(LanguageRecords([], [], known.latency, {}, memory))
        return table.iloc[0].get("peak on GPU (MB)")

    assert cell([taken(17_000_000_000, device_name="an abacus")]) == "17,000"
    assert cell([taken(1, device_name="another")]) == report.UNKNOWN
    assert cell([taken(None, device_name="an abacus")]) is cell([]) is None, "no column without a GPU"


@pytest.fixture
def asked(monkeypatch) -> list[tuple]:
    """Runs that were asked for, of which none is computed: their kind, the model, and what else it was given."""
    seen: list[tuple] = []

    def note(kind: str):
        def run(case, *arguments, **_):
            seen.append((kind, getattr(getattr(case, "checkpoint", None), "name", None), *arguments))
            return SimpleNamespace(result=lambda: None)

        return run

    for kind in ("cross", "next_token", "accuracy", "memory", "timing"):
        monkeypatch.setattr(llm_runs, kind, note(kind))
    monkeypatch.setattr(llm_runs, "answered", lambda run: None)
    return seen


def test_of_random_weights_latency_and_memory_alone_are_measured(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(
        checkpoints, "find", lambda *_: checkpoints.Checkpoint("tiny-random", tmp_path, "random", "0" * 64)
    )
    llama3.run("random:tiny", ["none", "bitsandbytes", "awq"], [16, 8, 4, 3], 0, None, [0], "cpu", "paper")
    timed_recipes = [PLAIN, LlmRecipe("bitsandbytes", 8), LlmRecipe("bitsandbytes", 4)]
    wanted = [
        *(("memory", "tiny-random", recipe) for recipe in timed_recipes),
        ("timing", "tiny-random", timed_recipes),
    ]
    assert asked[1:] == wanted and asked[0][0] == "cross"


def test_autoawq_quantizes_the_model_where_it_is_asked_for(asked, spoken, tmp_path, monkeypatch):
    source, made = (
        checkpoints.Checkpoint(*each, "0" * 64)
        for each in (("tiny", tmp_path, "gguf"), ("tiny-awq", tmp_path, "autoawq"))
    )
    monkeypatch.setattr(checkpoints, "find", lambda *_: source)
    monkeypatch.setattr(llm_runs, "by_autoawq", lambda case: llm_runs.LanguageCase(made, case.seed))
    monkeypatch.setattr(checkpoints, "missing_autoawq", lambda: [])
    llama3.run("tiny", ["autoawq"], [16, 4], 5, None, [0], "cpu", "paper")
    awq = LlmRecipe("awq", 4)
    assert [each for each in asked if each[1] == "tiny-awq"] == [
        ("next_token", "tiny-awq", awq),
        ("accuracy", "tiny-awq", awq, 5, None),
    ]
    assert {each[2].method for each in asked if each[1] == "tiny"} == {"none", "rounding"}
    asked.clear()
    llama3.run("tiny", ["autoawq"], [16, 8], 5, None, [0], "cpu", "paper")  # it has no 8 bits
    monkeypatch.setattr(checkpoints, "missing_autoawq", lambda: ["no autoawq"])
    llama3.run("tiny", ["autoawq"], [4], 5, None, [0], "cpu", "paper")
    assert not [each for each in asked if each[1] == "tiny-awq"]
    assert spoken == ["tiny is not quantized by autoawq here: no autoawq."]


def test_what_autoawq_made_stands_beside_the_model_it_was_made_from(known):
    recipe, model = LlmRecipe("awq", 4), f"{PAPERS}-awq"
    known = LanguageRecords(
        [*known.accuracy, answers(recipe, model, share=0.6)], [*known.next_token, tokens(recipe, model, 0.45)], [], {}
    )
    table = llama3.methods_table(known)
    (row,) = table[table["method"] == language.AS_QUANTIZED].to_dict("records")
    assert row["model"] == "Llama-3-8B-Instruct" and row["MMLU P (%)"].startswith("60.0 [")
    assert row["change from 16 (pp)"].startswith("-6.6 [") and row["change from 32 (pp)"].startswith("-5.0 [")


def test_a_model_that_cannot_be_run_is_said_to_be_absent(spoken, tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    monkeypatch.setattr(checkpoints, "missing", lambda model, device: ["no token", "no GPU"])
    llama3.run(checkpoints.PAPERS, ["none"], [16], 5, None, [], "cuda", "paper")
    assert spoken == [f"{checkpoints.PAPERS} cannot be run here: no token; no GPU."]


def test_smaller_profiles_run_the_image_network_alone(spoken, tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    monkeypatch.setattr(checkpoints, "find", lambda *_: pytest.fail("a language model was looked for"))
    llama3.run(checkpoints.PAPERS, ["none"], [16], 5, None, [0], "cuda", "smoke")
    found = language.found("smoke")
    assert list(found.cross) == [0] and not spoken and found.used == [found.cross[0]]


def test_records_of_every_model_are_found_and_stale_ones_warned_of(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    for each in (answers(PLAIN), tokens(FULL, SMALL), image_network(0)):
        records.save(each)
    found = language.found("smoke")
    assert [len(found.accuracy), len(found.next_token), len(found.cross)] == [1, 1, 1]
    records.save(replace(tokens(FULL), code="0" * 16))
    with pytest.warns(records.StaleRecordWarning, match="stale"):
        language.found("smoke")


@pytest.mark.filterwarnings("error::quide.experiments.records.StaleRecordWarning")
def test_the_records_of_the_checkout_are_todays(checkout, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
    found = language.found("paper")
    assert found.accuracy and found.next_token and len(found.cross) == 3
    assert max(records.path_of(record.spec).stat().st_size for record in found.used) < 200_000


def test_the_papers_own_share_is_what_it_asks_of_llama():
    assert language.tolerated() == pytest.approx(0.60 / paper.number("mmlu-llama3-8b.accuracy.16"))
