"""Models in the file format of llama2.c, such as stories260K: read, checked, and made into transformers' Llama."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quide import _files

MODEL, TOKENIZER = "stories260K.bin", "tok512.bin"
HEADER, ENTRY = struct.Struct("<7i"), struct.Struct("<fi")
MOST, MOST_LAYERS, MOST_BYTES = 1 << 20, 1 << 10, 1 << 34  # entries of a size in the header; layers; bytes of a file
BOS, BYTES = 1, 3  # token that starts a text; token of the byte 0
REMEDY = f"put {MODEL} and {TOKENIZER} (published with the program llama2.c) into one folder and name that folder"


@dataclass(frozen=True)
class Llama2cHeader:
    """The header of a model file, in its order: sizes in numbers, heads and layers in counts."""

    dim: int
    hidden: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    positions: int

    @property
    def head(self) -> int:
        """Numbers a head."""
        return self.dim // self.heads

    def parts(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each tensor of the file, in its order; those with one entry a layer come first in layers.

        The rotary tables at the end are left out: they follow from the header.
        """
        keys = self.head * self.key_heads
        layers = [
            ("input_layernorm", (self.dim,)), ("self_attn.q_proj", (self.dim, self.dim)),
            ("self_attn.k_proj", (keys, self.dim)), ("self_attn.v_proj", (keys, self.dim)),
            ("self_attn.o_proj", (self.dim, self.dim)), ("post_attention_layernorm", (self.dim,)),
            ("mlp.gate_proj", (self.hidden, self.dim)), ("mlp.down_proj", (self.dim, self.hidden)),
            ("mlp.up_proj", (self.hidden, self.dim)),
        ]  # fmt: skip
        ends = ("embed_tokens", (self.vocabulary, self.dim)), ("norm", (self.dim,))
        inner = [(f"layers.{layer}.{name}", shape) for name, shape in layers for layer in range(self.layers)]
        return [ends[0], *inner, ends[1]]


@dataclass(frozen=True)
class Tokenizer:
    """Byte-pair encoding: the text of each token, and its score; the pair with the highest score is joined first."""

    tokens: tuple[bytes, ...]
    scores: tuple[float, ...]

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, the start token first; a space is put before it, as in training."""
        known = {token: place for place, token in enumerate(self.tokens)}
        found: list[int] = []
        for character in f" {text}":
            content = character.encode()
            found += [known[content]] if content in known else [BYTES + byte for byte in content]
        while True:
            joined = [known.get(self.tokens[a] + self.tokens[b]) for a, b in zip(found, found[1:], strict=False)]
            places = [place for place, token in enumerate(joined) if token is not None]
            if not places:
                return [BOS, *found]
            best = max(places, key=lambda place: self.scores[joined[place]])
            found[best : best + 2] = [joined[best]]


def read_model(content: bytes) -> tuple[Llama2cHeader, dict[str, torch.Tensor]]:
    """Header, and the float32 tensors by their names in transformers.

    Rows of queries and keys are reordered: the file has the two numbers that are rotated together side by side,
    transformers has them half a head apart.

    Raises:
        ValueError: the bytes are not such a file.
    """
    shape = _header(content)
    arrays = np.frombuffer(content, "<f4", offset=HEADER.size)
    tensors, start = {}, 0
    for name, size in shape.parts():
        count = int(np.prod(size))
        tensor = torch.from_numpy(arrays[start : start + count].copy()).reshape(size)
        if name.endswith(("q_proj", "k_proj")):
            tensor = tensor.reshape(-1, shape.head // 2, 2, shape.dim).transpose(1, 2).reshape(size)
        tensors[f"model.{name}.weight"] = tensor
        start += count
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ValueError("a weight is NaN or infinite")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    return shape, tensors


def read_tokenizer(content: bytes, vocabulary: int) -> Tokenizer:
    """The tokenizer beside a model of so many tokens; ``ValueError`` if the bytes are not such a file."""
    tokens, scores, start = [], [], 4
    try:
        for _ in range(vocabulary):
            score, length = ENTRY.unpack_from(content, start)
            start += ENTRY.size
            tokens.append(struct.unpack_from(f"{length}s", content, start)[0])
            scores.append(score)
            start += length
    except struct.error as error:
        raise ValueError(f"it ends after {len(tokens)} of {vocabulary} tokens") from error
    if not all(map(math.isfinite, scores)):
        raise ValueError("a score is NaN or infinite")
    if start != len(content):
        raise ValueError(f"it has {len(content) - start} bytes after its {vocabulary} tokens")
    return Tokenizer(tuple(tokens), tuple(scores))


def load(folder: Path) -> tuple[Any, Tokenizer]:
    """transformers' ``LlamaForCausalLM`` in float32, and the tokenizer.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not what its name says; the message names it.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    shape, tensors = _parsed(folder / MODEL, read_model)
    tokenizer = _parsed(folder / TOKENIZER, lambda content: read_tokenizer(content, shape.vocabulary))
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.dim, intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads,
        max_position_embeddings=shape.positions, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=BOS, eos_token_id=BOS + 1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.load_state_dict(tensors)
    return model.eval(), tokenizer


def _header(content: bytes) -> Llama2cHeader:
    if len(content) < HEADER.size:
        raise ValueError("it is shorter than a header")
    shape = Llama2cHeader(*HEADER.unpack_from(content))
    if not 1 <= min(sizes := HEADER.unpack_from(content)) <= max(sizes) < MOST or shape.layers > MOST_LAYERS:
        raise ValueError("its header is not that of a model that runs on one machine")
    if shape.dim % (2 * shape.heads) or shape.heads % shape.key_heads:
        raise ValueError("its header is not that of a model with shared embeddings")
    rotary = shape.positions * shape.head  # cosines and sines of half a head
    wanted = HEADER.size + 4 * (sum(int(np.prod(size)) for _, size in shape.parts()) + rotary)
    if len(content) != wanted:
        raise ValueError(f"it has {len(content):,} bytes where its header asks for {wanted:,}")
    return shape


def _parsed(file: Path, read: Callable[[bytes], Any]) -> Any:
    with _files.reading(file, REMEDY):
        return read(_files.content(file, MOST_BYTES))
