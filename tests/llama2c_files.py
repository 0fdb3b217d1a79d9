"""Small models in the file format of llama2.c, and what that program computes from them, in numpy."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from quide.llm import llama2c
from quide.llm.llama2c import Llama2cHeader

SHAPE = Llama2cHeader(dim=16, hidden=24, layers=2, heads=4, key_heads=2, vocabulary=300, positions=64)
PIECES = [" a", " b", "ab", " ab", "b ", "é"]  # after the special tokens, the bytes and the letters


def arrays(shape: Llama2cHeader = SHAPE, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights by their names in transformers, rows of queries and keys in the order of the file."""
    generator = np.random.default_rng(seed)
    found = {name: generator.normal(0, 0.3, size).astype("<f4") for name, size in shape.parts()}
    return {name: 1 + value if "norm" in name else value for name, value in found.items()}


def model_bytes(weights: dict[str, np.ndarray], shape: Llama2cHeader = SHAPE) -> bytes:
    """The file of a model."""
    header = (shape.dim, shape.hidden, shape.layers, shape.heads, shape.key_heads, shape.vocabulary, shape.positions)
    rotary = np.zeros(shape.positions * shape.head, "<f4")
    return struct.pack("<7i", *header) + b"".join(value.tobytes() for value in weights.values()) + rotary.tobytes()


def tokens() -> list[bytes]:
    """Special tokens, bytes, printable characters, and a few pieces."""
    special = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    letters = [bytes([byte]) for byte in range(32, 127)]
    return [*special, *letters, *(piece.encode() for piece in PIECES)]


def tokenizer_bytes() -> bytes:
    """The file of a tokenizer; the pieces' scores fall in their order."""
    content = struct.pack("<i", 8)
    for place, token in enumerate(tokens()):
        content += struct.pack("<fi", -float(place), len(token)) + token
    return content


def write(folder: Path, shape: Llama2cHeader | None = None) -> Path:
    """Both files, for as many tokens as the tokenizer has."""
    shape = shape or Llama2cHeader(16, 24, 2, 4, 2, len(tokens()), 64)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / llama2c.MODEL).write_bytes(model_bytes(arrays(shape), shape))
    (folder / llama2c.TOKENIZER).write_bytes(tokenizer_bytes())
    return folder


def logits(weights: dict[str, np.ndarray], found: list[int], shape: Llama2cHeader = SHAPE) -> np.ndarray:
    """What llama2.c computes, position after position: float64 ``(positions, vocabulary)``."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    x = w["embed_tokens"][found]
    count, head, repeat = len(found), shape.head, shape.heads // shape.key_heads
    for layer in range(shape.layers):
        part = {name.split(".", 2)[2]: value for name, value in w.items() if name.startswith(f"layers.{layer}.")}
        h = _norm(x, part["input_layernorm"])
        query = _rotated(h @ part["self_attn.q_proj"].T, head).reshape(count, shape.heads, head)
        key = _rotated(h @ part["self_attn.k_proj"].T, head).reshape(count, shape.key_heads, head)
        value = (h @ part["self_attn.v_proj"].T).reshape(count, shape.key_heads, head)
        out = np.zeros((count, shape.heads, head))
        for each in range(shape.heads):
            scores = query[:, each] @ key[:, each // repeat].T / np.sqrt(head)
            scores[np.triu_indices(count, 1)] = -np.inf
            share = np.exp(scores - scores.max(1, keepdims=True))
            out[:, each] = share / share.sum(1, keepdims=True) @ value[:, each // repeat]
        x = x + out.reshape(count, -1) @ part["self_attn.o_proj"].T
        h = _norm(x, part["post_attention_layernorm"])
        gate = h @ part["mlp.gate_proj"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ part["mlp.up_proj"].T)) @ part["mlp.down_proj"].T
    return _norm(x, w["norm"]) @ w["embed_tokens"].T


def _norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5) * weight


def _rotated(x: np.ndarray, head: int) -> np.ndarray:
    """Each pair of neighbouring numbers turned by its angle at that position."""
    x = x.copy()
    for position in range(len(x)):
        for place in range(0, x.shape[1], 2):
            angle = position / 10000 ** ((place % head) / head)
            a, b = x[position, place : place + 2]
            x[position, place] = a * np.cos(angle) - b * np.sin(angle)
            x[position, place + 1] = a * np.sin(angle) + b * np.cos(angle)
    return x
