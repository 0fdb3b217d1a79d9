"""Files of llama2.c: read as that program reads them, computed as it computes, refused when they are something else."""

from __future__ import annotations

import struct
from pathlib import Path

import llama2c_files
import numpy as np
import pytest
import torch

from quide import _files
from quide.llm import llama2c


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(_files, "PUBLISHED", {})
    return llama2c_files.write(tmp_path)


def test_the_model_computes_what_llama2c_computes():
    transformers = pytest.importorskip("transformers")
    weights, shape = llama2c_files.arrays(), llama2c_files.SHAPE
    _, tensors = llama2c.read_model(llama2c_files.model_bytes(weights))
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.dim, intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads,
        max_position_embeddings=shape.positions, rms_norm_eps=1e-5, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    model.load_state_dict(tensors)
    found = [1, 40, 7, 299, 7, 120, 3]
    with torch.inference_mode():
        ours = model(torch.tensor([found])).logits[0].numpy()
    assert np.abs(ours - llama2c_files.logits(weights, found)).max() < 1e-4


def test_both_files_make_a_model_that_takes_the_tokens(folder):
    pytest.importorskip("transformers")
    model, tokenizer = llama2c.load(folder)
    found = tokenizer.encode("ab b")
    with torch.inference_mode():
        assert model(torch.tensor([found])).logits.shape == (1, len(found), len(llama2c_files.tokens()))


def test_only_rows_of_queries_and_keys_are_reordered():
    weights = llama2c_files.arrays()
    _, tensors = llama2c.read_model(llama2c_files.model_bytes(weights))
    for name, value in weights.items():
        same = np.array_equal(tensors[f"model.{name}.weight"].numpy(), value)
        assert same != name.endswith(("q_proj", "k_proj")), name
    query = tensors["model.layers.0.self_attn.q_proj.weight"].numpy()
    assert np.array_equal(query[:4], weights["layers.0.self_attn.q_proj"][[0, 2, 1, 3]])


def test_the_pair_with_the_highest_score_is_joined_first():
    tokenizer = llama2c.read_tokenizer(llama2c_files.tokenizer_bytes(), len(llama2c_files.tokens()))
    for text, pieces in (("xb a", [b" ", b"x", b"b", b" a"]), ("ab b", [b" ab", b" b"])):  # not "b ", which comes first
        assert [llama2c_files.tokens()[token] for token in tokenizer.encode(text)] == [b"\n<s>\n", *pieces]


def test_what_no_token_spells_is_given_in_bytes():
    tokenizer = llama2c.read_tokenizer(llama2c_files.tokenizer_bytes(), len(llama2c_files.tokens()))
    found = [llama2c_files.tokens()[token] for token in tokenizer.encode("éü")]
    assert found == [b"\n<s>\n", b" ", "é".encode(), b"<0xC3>", b"<0xBC>"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:20], "shorter than a header"),
        (lambda content: content[:-4], "bytes where its header asks for"),
        (lambda content: content + b"\0" * 4, "bytes where its header asks for"),
        (lambda content: struct.pack("<i", 17) + content[4:], "header is not that of a model"),
        (lambda content: content[:20] + struct.pack("<i", -300) + content[24:], "header is not that of a model"),
        (lambda content: content[:28] + struct.pack("<f", float("nan")) + content[32:], "NaN or infinite"),
    ],
    ids=["header", "short", "long", "odd", "unshared", "nan"],
)
def test_a_damaged_model_is_named(folder, damage, reason):
    pytest.importorskip("transformers")
    file = folder / llama2c.MODEL
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=f"{llama2c.MODEL} cannot be read .*{reason}"):
        llama2c.load(folder)


def test_another_file_under_the_published_name_is_refused(tmp_path):
    pytest.importorskip("transformers")
    llama2c_files.write(tmp_path)
    with pytest.raises(ValueError, match=f"{llama2c.MODEL} cannot be read .its SHA-256 is not that of the file"):
        llama2c.load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-1], "it ends after 359 of 360 tokens"),
        (lambda content: content + b"x", "1 bytes after its 360 tokens"),
    ],
    ids=["short", "long"],
)
def test_a_damaged_tokenizer_is_refused(damage, reason):
    content = damage(llama2c_files.tokenizer_bytes())
    with pytest.raises(ValueError, match=reason):
        llama2c.read_tokenizer(content, 360)


def test_a_missing_file_is_named_with_the_remedy(folder):
    pytest.importorskip("transformers")
    (folder / llama2c.TOKENIZER).unlink()
    with pytest.raises(FileNotFoundError, match="tok512.bin is missing; put stories260K.bin and tok512.bin"):
        llama2c.load(folder)
