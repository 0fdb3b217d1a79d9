"""Methods of quantizing a language model: the widths they have, what they leave alone, and what the result takes."""

from __future__ import annotations

import pytest
import tiny_llm
import torch

from quide.llm import methods
from quide.llm.methods import WIDTHS, LlmRecipe
from quide.ptq import rounding

TEXTS = ["Which of these is item 3 of a ?", "The item is the Answer : A and 7"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("transformers")
    from quide.llm import checkpoints

    folder = tiny_llm.write(tmp_path_factory.mktemp("model"))
    return checkpoints.Checkpoint("tiny", folder, "transformers", "0" * 64)


def load(checkpoint, *recipe, **options):
    return methods.load(checkpoint, LlmRecipe(*recipe, **options), lambda: TEXTS)


def logits(loaded) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(loaded.encode(TEXTS[0])).logits.float()


# --- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("gptq", 4), "method must be one of none, bitsandbytes, awq, rounding, got 'gptq'"),
        (("bitsandbytes", 3), "bits must be one of 8, 4 for bitsandbytes, got 3"),
        (("awq", 8), "bits must be one of 4, 3, 2 for awq, got 8"),
        (("awq", 4, "channel"), "granularity and outputs are for rounding"),
        (("none", 16, "tensor", True), "granularity and outputs are for rounding"),
    ],
)
def test_a_recipe_that_no_tool_has_is_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        LlmRecipe(*arguments)


def test_the_papers_tools_have_neither_3_nor_2_bits():
    assert not {3, 2} & set(WIDTHS["bitsandbytes"])


# --- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "dtype", "size"), [(32, torch.float32, 4), (16, torch.bfloat16, 2)])
def test_the_plain_model_is_as_large_as_its_weights(checkpoint, bits, dtype, size):
    loaded = load(checkpoint, "none", bits)
    assert loaded.model.dtype == dtype
    assert loaded.stored_bytes == size * sum(weight.numel() for weight in loaded.model.parameters())  # shared ones once


def test_a_text_begins_with_the_start_token_once(checkpoint):
    loaded = load(checkpoint, "none", 32)
    start = loaded.tokenizer.bos_token_id
    assert loaded.encode(TEXTS[0])[0].tolist().count(start) == 1 and loaded.encode(TEXTS[0])[0, 0] == start


def test_embeddings_and_output_layer_are_left_alone(checkpoint):
    plain, rounded = load(checkpoint, "none", 32).model, load(checkpoint, "rounding", 2).model
    layers = methods.quantized_layers(plain)
    assert len(layers) == 14 and not any("head" in name or "embed" in name for name in layers)  # seven a layer
    for name, weight in plain.named_parameters():
        changed = not torch.equal(weight, rounded.get_parameter(name))
        assert changed == (name.removesuffix(".weight") in layers), name


@pytest.mark.parametrize("granularity", ["tensor", "channel", 32])
def test_rounding_is_that_of_the_image_networks(checkpoint, granularity):
    plain, rounded = load(checkpoint, "none", 32).model, load(checkpoint, "rounding", 4, granularity=granularity)
    name = "model.layers.1.mlp.down_proj"
    wanted = rounding.round_weight(plain.get_submodule(name).weight.detach(), 4, granularity)
    assert torch.equal(rounded.model.get_submodule(name).weight, wanted)


def test_rounded_outputs_take_few_values(checkpoint):
    loaded = load(checkpoint, "rounding", 2, outputs=True)
    seen = []
    loaded.model.get_submodule("model.layers.0.mlp.up_proj").register_forward_hook(
        lambda layer, arguments, output: seen.append(output)
    )
    assert not torch.equal(logits(loaded), logits(load(checkpoint, "rounding", 2)))
    assert len(seen[0].unique()) <= 4


def test_the_size_of_a_rounded_model_counts_scales_and_what_is_not_rounded(checkpoint):
    plain = load(checkpoint, "none", 32).model
    weights = [plain.get_submodule(name).weight for name in methods.quantized_layers(plain)]
    inside = sum(weight.numel() for weight in weights)
    others = sum(weight.numel() for weight in plain.parameters()) - inside
    rows = sum(len(weight) for weight in weights)
    loaded = load(checkpoint, "rounding", 4, granularity="channel")
    assert loaded.stored_bytes == inside // 2 + 2 * rows + 2 * others


# --- the libraries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
def test_bitsandbytes_stores_fewer_bytes_and_computes_nearly_the_same(checkpoint, bits):
    pytest.importorskip("bitsandbytes")
    plain, loaded = load(checkpoint, "none", 16), load(checkpoint, "bitsandbytes", bits)
    assert loaded.stored_bytes < plain.stored_bytes
    error = (logits(loaded) - logits(plain)).square().mean() / logits(plain).var()
    assert 0 < error < (0.01 if bits == 8 else 0.3)


@pytest.mark.parametrize("bits", [4, 2])
def test_awq_stores_fewer_bytes_the_fewer_bits(checkpoint, bits):
    pytest.importorskip("llmcompressor")
    plain, loaded = load(checkpoint, "none", 16), load(checkpoint, "awq", bits)
    layers = [plain.model.get_submodule(name).weight for name in methods.quantized_layers(plain.model)]
    inside = sum(weight.numel() for weight in layers)
    others = plain.stored_bytes - 2 * inside
    assert loaded.group == 64
    assert bits * inside / 8 < loaded.stored_bytes - others < (bits + 1) * inside / 8  # scales and zero points on top
    assert not torch.equal(logits(loaded), logits(plain))
