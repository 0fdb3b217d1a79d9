"""A language model of a few thousand random weights in a folder, for tests; needs the extra ``llm``."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = ["<unk>", "<s>", *"ABCD", *"Which of these is item Answer : . ? The the a and".split()]


def write(folder: Path, seed: int = 0, key_value_heads: int = 2) -> Path:
    """Model and tokenizer in transformers' layout. Its answers are far from equal, and differ between questions."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [*WORDS, *map(str, range(10))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", pad_token="<unk>")
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=key_value_heads, max_position_embeddings=512, tie_word_embeddings=True,
        initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
