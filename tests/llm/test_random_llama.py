"""Architectures with random weights: of the size they claim, the same each time, and written whole or not at all."""

from __future__ import annotations

import pytest
import torch

from quide.llm import checkpoints, methods, random_weights
from quide.llm.methods import LlmRecipe

NAME = "llama-tiny"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoints, "_missing_packages", lambda: [])


def test_llama_3_8b_has_as_many_weights_as_published():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {name: value for name, value in vars(random_weights.SHAPES["llama-3-8b"]).items() if name != "rope_theta"}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    assert sum(weight.numel() for weight in model.parameters()) == 8_030_261_248


def test_it_is_found_loaded_and_quantized_like_a_model_of_ones_own():
    found = checkpoints.find(f"random:{NAME}")
    assert (found.name, found.form) == ("llama-tiny-random", "random")
    plain = methods.load(found, LlmRecipe("none", 16), list)
    tokens = plain.encode("any text")
    assert tokens.shape == (1, len("any text"))
    with torch.inference_mode():
        logits = plain.model(tokens).logits
    assert logits.shape == (1, len("any text"), 512) and logits.isfinite().all() and logits.std() > 0
    rounded = methods.load(found, LlmRecipe("rounding", 4), lambda: ["any text"])
    assert rounded.stored_bytes < plain.stored_bytes


def test_bitsandbytes_quantizes_it():
    pytest.importorskip("bitsandbytes")
    found = checkpoints.find(f"random:{NAME}")
    sizes = [
        methods.load(found, LlmRecipe(*recipe), list).stored_bytes for recipe in (("none", 16), ("bitsandbytes", 4))
    ]
    assert sizes[1] < sizes[0]


def test_its_weights_are_the_same_on_every_machine_and_written_once(tmp_path, monkeypatch):
    folder = random_weights.write(NAME)
    weights = (folder / "model.safetensors").read_bytes()
    torch.manual_seed(5)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert random_weights.write(NAME) == folder and (folder / "model.safetensors").stat().st_mtime_ns == written
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path / "other"))
    assert (random_weights.write(NAME) / "model.safetensors").read_bytes() == weights
    assert torch.get_default_dtype() == torch.float32


def test_a_write_that_fails_leaves_nothing(monkeypatch):
    def fail():
        raise OSError("disk full")

    monkeypatch.setattr(random_weights, "_tokenizer", fail)
    with pytest.raises(OSError, match="disk full"):
        random_weights.write(NAME)
    monkeypatch.undo()
    networks = random_weights._paths.cache() / "networks"
    assert not networks.exists() or not list(networks.glob("llama-tiny*"))


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="must be of llama-3-8b, .*, got 'llama-4'"):
        checkpoints.find("random:llama-4")
