"""Runs on language models leave records that hold what the models said, small enough to be committed."""

from __future__ import annotations

import json
from pathlib import Path

import mmlu_files
import numpy as np
import pytest
import tiny_llm
import torch

from quide import evaluate, ptq
from quide.data import mmlu, stories
from quide.experiments import inputs, llm_runs, records, runs
from quide.experiments.compute import language
from quide.experiments.llm_runs import CROSS_SCHEMES, pack_log_likelihoods, unpack_log_likelihoods
from quide.llm import mmlu_harness
from quide.llm.methods import LlmRecipe
from quide.stats import pack_bits, unpack_bits

PLAIN = LlmRecipe("none", 32)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    for package in ("transformers", "lm_eval"):
        pytest.importorskip(package)
    return tiny_llm.write(tmp_path_factory.mktemp("model"))


@pytest.fixture
def case(folder, tmp_path, monkeypatch) -> llm_runs.LanguageCase:
    from quide.llm import checkpoints

    mmlu_harness.tasks.cache_clear()
    mmlu_files.write(tmp_path / "mmlu", monkeypatch)
    yield llm_runs.LanguageCase(checkpoints.Checkpoint("tiny", folder, "transformers", "0" * 64), seed=0)
    mmlu_harness.tasks.cache_clear()
    language.loaded.cache_clear()


# --- log-likelihoods -------------------------------------------------------------------------------------------------


def test_log_likelihoods_are_kept_to_a_thousandth():
    values = -np.random.default_rng(0).exponential(3, (50, 4))
    assert np.abs(unpack_log_likelihoods(pack_log_likelihoods(values)) - values).max() <= 0.0005 + 1e-9


def test_what_is_less_likely_than_can_be_kept_is_kept_as_the_least_likely():
    assert unpack_log_likelihoods(pack_log_likelihoods(np.array([[0.0, -65.5, -66.0, -1e9]]))).tolist() == [
        [0.0, -65.5, pytest.approx(-65.535), pytest.approx(-65.535)]
    ]


def test_all_of_mmlu_fits_a_small_record():
    count = sum(mmlu.count(subject, "test") for subject in mmlu.SUBJECTS)
    values = -np.random.default_rng(0).exponential(3, (count, 4))
    kept = len(pack_log_likelihoods(values)) + len(pack_bits(values[:, 0] > -3)) + count
    assert kept < 180_000


# --- the runs --------------------------------------------------------------------------------------------------------


def test_an_accuracy_record_holds_what_the_harness_said(case, tmp_path):
    record = llm_runs.answered(llm_runs.accuracy(case, PLAIN, shots=1, limit=2, progress=False))
    drawn = mmlu.draw(2, 0)
    loaded = language.loaded(case, PLAIN)
    said = mmlu_harness.log_likelihoods(loaded.model, loaded.tokenizer, drawn, 1, tmp_path / "again", progress=False)
    assert np.abs(unpack_log_likelihoods(record.values["log_likelihoods"]) - said).max() <= 0.0005 + 1e-6
    right = [mmlu.load("test")[subject][place].answer for subject, places in drawn.items() for place in places]
    hits = said.argmax(1) == right
    assert unpack_bits(record.values["correct"]).tolist() == hits.tolist()
    assert record.values["accuracy"] == hits.mean() and record.values["questions"] == len(right) == 6
    assert record.values["answers"] == "".join("ABCD"[answer] for answer in right)
    assert record.values["stored_bytes"] == loaded.stored_bytes
    assert record.data == mmlu.digest(mmlu.load("test"), drawn)


def test_answers_are_kept_until_the_record_is_written(case, monkeypatch):
    run = llm_runs.accuracy(case, PLAIN, shots=0, limit=1, progress=False)
    monkeypatch.setattr(records, "save", lambda record: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        llm_runs.answered(run)
    assert len(llm_runs.answers_file(run).read_text().splitlines()) == 3
    monkeypatch.undo()


def test_nothing_is_left_behind_once_there_is_a_record(case):
    run = llm_runs.accuracy(case, PLAIN, shots=0, limit=1, progress=False)
    assert llm_runs.answered(run).key == llm_runs.answered(run).key
    assert not llm_runs.answers_file(run).exists()


@pytest.mark.parametrize(
    "other", [{"shots": 1}, {"limit": 2}, {"recipe": LlmRecipe("rounding", 8)}], ids=lambda other: min(other)
)
def test_everything_that_decides_the_answers_is_in_the_key(case, other):
    arguments = {"recipe": PLAIN, "shots": 0, "limit": 1}
    keys = {llm_runs.accuracy(case, **each).spec.key for each in (arguments, arguments | other)}
    assert len(keys) == 2


def test_next_tokens_are_counted_over_the_scored_stories(case):
    record = llm_runs.next_token(case, PLAIN).result()
    loaded, hits, nats = language.loaded(case, PLAIN), [], []
    for text in stories.load().scored:
        tokens = loaded.encode(text)
        with torch.inference_mode():
            scores = torch.log_softmax(loaded.model(tokens).logits[0, :-1], 1)
        hits += (scores.argmax(1) == tokens[0, 1:]).tolist()
        nats += (-scores.gather(1, tokens[0, 1:, None])).flatten().tolist()
    assert unpack_bits(record.values["correct"]).tolist() == hits
    assert record.values["tokens"] == len(hits) and record.values["accuracy"] == np.mean(hits)
    assert record.values["nats_per_token"] == pytest.approx(np.mean(nats), rel=1e-4)


def test_latency_is_timed_for_both_stages_at_the_same_length_of_cache(case, monkeypatch):
    monkeypatch.setattr(llm_runs, "PASSES", {"prefill": 2, "decode": 3})
    monkeypatch.setattr(llm_runs, "WARMUP", 1)
    monkeypatch.setattr(llm_runs, "WAIT_S", 0)
    recipes = [LlmRecipe("none", 16), LlmRecipe("none", 32)]
    values = llm_runs.timing(case, recipes, progress=False).result().values
    assert set(values["prefill"]["latencies"]) == set(values["decode"]["latencies"]) == {"none, 16", "none, 32"}
    assert values["decode"]["latencies"]["none, 32"]["passes"] == 3
    step = language._decode(language.loaded(case, PLAIN))
    with torch.inference_mode():
        first = step().logits
        assert torch.equal(step().logits, first)  # the cache is cut back, so that every step is the same


def test_memory_is_that_of_the_weights_where_torch_does_not_count(case):
    values = llm_runs.memory(case, PLAIN).result().values
    assert values["stored_bytes"] == language.loaded(case, PLAIN).stored_bytes and values["peak_bytes"] is None


def test_a_method_that_computes_from_widened_weights_is_not_timed(case):
    with pytest.raises(ValueError, match="recipes must be of none, bitsandbytes to be timed, got awq"):
        llm_runs.timing(case, [LlmRecipe("none", 16), LlmRecipe("awq", 4)])


def test_awq_is_calibrated_on_questions_that_are_not_scored(case, monkeypatch):
    monkeypatch.setattr(llm_runs, "CALIBRATION_QUESTIONS", {"cpu": 3})
    texts = language.calibration(LlmRecipe("awq", 4), case)
    scored = {one.question for questions in mmlu.load("test").values() for one in questions}
    assert len(texts) == 3 and not any(text.splitlines()[0] in scored for text in texts)
    assert language.calibration(LlmRecipe("rounding", 4), case) == stories.load().calibration


# --- the image network -----------------------------------------------------------------------------------------------


def test_the_image_network_with_outputs_rounded_is_the_papers(monkeypatch):
    case = runs.Case("simplecnn", "cifar10", 0, "smoke")
    record = llm_runs.cross(case).result()
    network, test = inputs.network(case), inputs.test_images(case)
    for bits in (8, 4):
        wanted = evaluate.correct(ptq.quantize(network, bits, inputs.calibration_images(case)), test)
        ours = unpack_bits(record.values["correct"][f"weights and outputs per tensor, {bits}"])
        assert ours.tolist() == wanted.tolist()
    assert len(record.values["accuracy"]) == 1 + len(CROSS_SCHEMES) * len(llm_runs.WIDTHS)
    weights = sum(evaluate.num_weights(network))
    assert record.values["stored_bytes"]["32"] == 4 * weights
    assert record.values["stored_bytes"]["weights per tensor, 4"] == weights // 2 + 2 * 4  # four scales
    assert len(json.dumps(record.values)) < 50_000
