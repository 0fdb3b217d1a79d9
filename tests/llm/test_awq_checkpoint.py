"""Reading what autoawq has quantized: the weights are those that another library reads from the same files."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import tiny_llm
import torch

from quide.experiments import llm_runs
from quide.experiments.compute import language
from quide.llm import autoawq, checkpoints, methods
from quide.llm.methods import LlmRecipe

TEXTS = ["Which of these is item 3 of a ? The item is the Answer : A and 7 . " * 3] * 12
GROUP = 64


def skip_without_autoawq() -> None:
    """Not by importing it, which warns of its end."""
    if lacking := list(checkpoints.missing_autoawq()):
        pytest.skip(lacking[0])


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> checkpoints.Checkpoint:
    """A model, not quantized."""
    pytest.importorskip("transformers")
    # autoawq asks for layers with a multiple of 64 outputs
    folder = tiny_llm.write(tmp_path_factory.mktemp("source"), key_value_heads=4)
    return checkpoints.Checkpoint("tiny", folder, "transformers", "0" * 64)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    """The model as autoawq itself quantizes and saves it."""
    skip_without_autoawq()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIDE_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = autoawq.make(source, TEXTS)
        written = (made / "model.safetensors").stat().st_mtime_ns
        assert autoawq.make(source, TEXTS) == made  # which is not made again
        assert (made / "model.safetensors").stat().st_mtime_ns == written
    return made


@pytest.fixture
def changed(folder, tmp_path):
    """A copy of the quantized model with other settings."""

    def change(**settings) -> Path:
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
        config = json.loads((copy / "config.json").read_text())
        config["quantization_config"] |= settings
        (copy / "config.json").write_text(json.dumps(config))
        return copy

    return change


def read(folder: Path) -> methods.Loaded:
    return autoawq.load(folder, LlmRecipe("awq", 4))


def test_the_weights_are_those_that_compressed_tensors_reads(folder):
    from compressed_tensors.entrypoints.convert import AutoAWQConverter
    from safetensors.torch import load_file

    converter = AutoAWQConverter.from_pretrained(str(folder))
    packed, model = load_file(folder / "model.safetensors"), read(folder).model
    layers = methods.quantized_layers(model)
    assert len(layers) == 14  # seven a layer
    for name in layers:
        integers, scales, zeros = converter._convert_gemm_module(
            *(packed[f"{name}.{part}"] for part in ("qweight", "scales", "qzeros"))
        )
        steps = (integers.float() - zeros.repeat_interleave(GROUP, 1)) * scales.float().repeat_interleave(GROUP, 1)
        assert torch.equal(model.get_submodule(name).weight, steps), name


def test_its_answers_are_nearer_than_those_of_plain_rounding(source, folder):
    """On a CPU autoawq by itself leaves layers multiplied by scales that it only tried, which rounding beats."""
    ours = read(folder)
    plain, rounded = (
        methods.load(source, recipe, list) for recipe in (LlmRecipe("none", 32), LlmRecipe("rounding", 4, GROUP))
    )
    tokens = ours.encode(TEXTS[0])
    with torch.inference_mode():
        logits = [each.model(tokens).logits for each in (ours, rounded, plain)]
    near, far = ((each - logits[2]).square().mean() / logits[2].var() for each in logits[:2])
    assert 0 < near < far


def test_its_size_is_that_of_the_saved_tensors(folder):
    loaded = read(folder)
    inside = sum(loaded.model.get_submodule(name).weight.numel() for name in methods.quantized_layers(loaded.model))
    others = loaded.model.model.embed_tokens.weight.numel() + 5 * 64  # and the norms
    groups = inside // GROUP
    assert loaded.stored_bytes == inside // 2 + 2 * groups + groups // 2 + 2 * others
    assert loaded.group == GROUP


@pytest.mark.parametrize("recipe", [LlmRecipe("awq", 3), LlmRecipe("none", 16), LlmRecipe("rounding", 4)], ids=str)
def test_no_other_recipe_can_be_had_from_it(folder, recipe):
    with pytest.raises(ValueError, match="recipe must be awq at 4 bits"):
        autoawq.load(folder, recipe)


@pytest.mark.parametrize("settings", [{"version": "gemv"}, {"bits": 8}], ids=str)
def test_another_layout_is_refused_by_its_file(changed, settings):
    with pytest.raises(ValueError, match="config.json names layout .* use a checkpoint in that layout"):
        read(changed(**settings))


def test_without_autoawq_the_remedy_is_named(folder, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "awq"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'quide\[awq\]'.*compressed-tensors"):
        read(folder)


def test_too_little_text_is_refused_and_nothing_is_left(source, tmp_path, monkeypatch):
    skip_without_autoawq()
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="texts must come to 128 tokens at least, got 9"):
        autoawq.make(source, ["Which of these is item 3 of a ?"])
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"]


def test_a_case_is_quantized_on_the_questions_that_awq_is_calibrated_on(source, folder, monkeypatch):
    seen = []
    monkeypatch.setattr(language, "calibration", lambda recipe, case: TEXTS)
    monkeypatch.setattr(autoawq, "make", lambda *arguments: seen.append(arguments) or folder)
    made = llm_runs.by_autoawq(llm_runs.LanguageCase(source, seed=5))
    assert seen == [(source, TEXTS, "cpu")]
    assert (made.seed, made.checkpoint.name, made.checkpoint.form) == (5, "tiny-awq", "autoawq")
    assert language.loaded(made, LlmRecipe("awq", 4)).group == GROUP
    details = llm_runs.next_token(made, LlmRecipe("awq", 4)).spec.details
    assert "calibration_questions" not in details  # they are in the digest of the weights
    language.loaded.cache_clear()
