"""Llama architectures with random weights: how long a token takes, and in how much memory, does not hang on the values.

So the latency and memory of a model can be measured without its licence; nothing else about it can.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from quide import _paths
from quide._random import seeded

SEED = 0


@dataclass(frozen=True)
class LlamaShape:
    """Sizes by the names of transformers' ``LlamaConfig``."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int = 8192
    rope_theta: float = 500_000.0
    tie_word_embeddings: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of the sizes and of the seed: two of the same have the same weights."""
        return hashlib.sha256(json.dumps([asdict(self), SEED]).encode()).hexdigest()


SHAPES = {
    # As the paper's model was published (Llama 3 8B).
    "llama-3-8b": LlamaShape(128_256, 4096, 14_336, 32, 32, 8),
    # The same with fewer layers, for machines with less memory: each layer adds the same time.
    "llama-3-8b-4-layers": LlamaShape(128_256, 4096, 14_336, 4, 32, 8),
    # To try things with.
    "llama-tiny": LlamaShape(512, 64, 128, 2, 4, 4, max_position_embeddings=512),
}


def write(name: str) -> Path:
    """The folder of that architecture in the cache, written if it is not there: 16-bit weights, a tokenizer of bytes.

    Raises:
        ValueError: an unknown name.
        OSError: not enough disk, or a file that cannot be written; what was written is removed.
    """
    if name not in SHAPES:
        raise ValueError(f"random weights must be of {', '.join(SHAPES)}, got {name!r}")
    folder = _paths.cache() / "networks" / f"{name}-{SHAPES[name].digest[:8]}"
    return _paths.made_once(folder, lambda target: _save(SHAPES[name], target))


def _save(shape: LlamaShape, target: Path) -> None:
    _model(shape).save_pretrained(target)
    _tokenizer().save_pretrained(target)


def _model(shape: LlamaShape) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = asdict(shape)
    rope = {"rope_type": "default", "rope_theta": sizes.pop("rope_theta")}
    config = LlamaConfig(**sizes, rope_parameters=rope, dtype=torch.bfloat16)
    with seeded(SEED):
        # Drawn in 16 bits: 8 billion weights in 32 would take twice the memory meanwhile.
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def _tokenizer() -> Any:
    """One token a byte, and no more: the number of tokens is what matters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
