"""The methods that quantize a language model, each at the widths it has: those that the paper names, and rounding.

bitsandbytes has 8 and 4 bits, AWQ by llm-compressor 4, 3 and 2 (by autoawq 4 alone), and plain rounding, which is the
reference for all, any.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quide import _files
from quide.llm import llama2c, patches
from quide.llm.checkpoints import Checkpoint, check
from quide.llm.recipe import AWQ, BITSANDBYTES, NONE, ROUNDING, RUNS_LOW_BIT, WIDTHS, LlmRecipe  # noqa: F401
from quide.ptq import rounding

GROUPS = (128, 64, 32)  # weights that share a scale; the first that divides all rows, as AWQ's kernels ask
LIBRARIES = ("transformers", "bitsandbytes", "llmcompressor", "compressed-tensors", "lm-eval")


@dataclass(frozen=True)
class Loaded:
    """A model ready to run.

    Attributes:
        model: of transformers, in evaluation mode.
        tokenizer: transformers' own, or :class:`quide.llm.llama2c.Tokenizer`.
        stored_bytes: what its weights take when saved, scales, zero points and unquantized layers counted; tensors that
            share memory count once.
        group: weights that share a scale, where the method has groups.
    """

    model: Any
    tokenizer: Any
    stored_bytes: int
    group: int | None = None

    def encode(self, text: str) -> torch.Tensor:
        """Token numbers of a text, int64 ``(1, n)``, the model's start token first where it has one."""
        tokens = self.tokenizer.encode(text)
        start = getattr(self.tokenizer, "bos_token_id", None)
        if start is not None and tokens[0] != start:
            tokens = [start, *tokens]
        return torch.tensor([tokens], device=self.model.device)


def load(
    checkpoint: Checkpoint,
    recipe: LlmRecipe,
    calibration: Callable[[], Sequence[str]],
    device: str = "cpu",
) -> Loaded:
    """The model, quantized.

    Args:
        checkpoint: where its files are.
        recipe: the method and its width.
        calibration: gives texts that ranges and scales are read from; only asked by methods that need them.
        device: ``"cpu"`` or ``"cuda"``.
    """
    if recipe.method == NONE:
        model, tokenizer = _plain(checkpoint, torch.float32 if recipe.bits == 32 else torch.bfloat16)
        return Loaded(model.to(device), tokenizer, stored_bytes(model))
    if recipe.method == BITSANDBYTES:
        return _bitsandbytes(checkpoint, recipe.bits, device)
    if recipe.method == AWQ:
        return _awq(checkpoint, recipe.bits, calibration(), device)
    return _rounded(checkpoint, recipe, calibration, device)


def quantized_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers but the output layer, which shares its weights with the embeddings in small models."""
    head = model.get_output_embeddings()
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head]


def stored_bytes(model: nn.Module) -> int:
    """Bytes of all saved tensors, those in shared memory once."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values() if isinstance(tensor, torch.Tensor)}
    return sum(tensor.nbytes for tensor in tensors.values())


def versions() -> dict[str, str]:
    """Versions of the libraries that the methods and the scoring are from."""
    return {name: metadata.version(name) for name in LIBRARIES}


def _plain(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model that is not quantized, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if checkpoint.form == "llama2c":
        model, tokenizer = llama2c.load(checkpoint.folder)
        return model.to(dtype), tokenizer
    options = {"gguf_file": checkpoint.gguf.name} if checkpoint.form == "gguf" else {}
    check(checkpoint.folder)
    with _files.reading(checkpoint.folder, "put the model's own files there"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, **options)
        model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=dtype, **options)
    return _forgetting_gguf(model).eval(), tokenizer


def _forgetting_gguf(model: Any) -> Any:
    """The same weights in a model that does not take itself for a quantized one, and so can be saved."""
    if getattr(model, "hf_quantizer", None) is None:
        return model
    config = copy.deepcopy(model.config)
    del config.quantization_config
    plain = type(model)(config).to(model.dtype)
    plain.load_state_dict(model.state_dict())
    return plain


def _bitsandbytes(checkpoint: Checkpoint, bits: int, device: str) -> Loaded:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if bits == 8:
        options = BitsAndBytesConfig(load_in_8bit=True)
    else:
        options = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    with as_transformers(checkpoint, torch.bfloat16) as (folder, tokenizer):
        model = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=options, dtype=torch.bfloat16, device_map={"": device}
        )
    # Counted before the first pass, which on a CPU packs the weights of 4 bits into another layout.
    return Loaded(model.eval(), tokenizer, stored_bytes(model), None if bits == 8 else 64)


def _awq(checkpoint: Checkpoint, bits: int, texts: Sequence[str], device: str) -> Loaded:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if device == "cpu" else torch.bfloat16  # of what is computed; on a CPU the faster one
    with as_transformers(checkpoint, dtype) as (folder, tokenizer):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
        layers, group = quantized_layers(model), group_of(model)
        size = _stored(model, layers, lambda weight: _awq_bits(weight, bits, group))
        weights = QuantizationArgs(num_bits=bits, strategy="group", group_size=group, symmetric=False)
        scheme = QuantizationScheme(targets=["Linear"], weights=weights)
        recipe = [AWQModifier(), QuantizationModifier(config_groups={"group_0": scheme}, ignore=["lm_head"])]
        tokens = [tokenizer(text)["input_ids"] for text in texts]
        samples = Dataset.from_list([{"input_ids": each, "attention_mask": [1] * len(each)} for each in tokens])
        with patches.unpinned():
            oneshot(
                model=model, processor=tokenizer, dataset=samples, recipe=recipe,
                num_calibration_samples=len(samples), max_seq_length=max(map(len, tokens)),
            )  # fmt: skip
    return Loaded(_widened(model, layers), tokenizer, size, group)


def _widened(model: Any, layers: Sequence[str]) -> Any:
    """The quantized model with its weights rounded once and for all, instead of anew in each pass."""
    from compressed_tensors.quantization import disable_quantization
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize

    for layer in map(model.get_submodule, layers):
        arguments = layer.quantization_scheme.weights
        layer.weight.data = fake_quantize(layer.weight, layer.weight_scale, layer.weight_zero_point, arguments).detach()
    return model.apply(disable_quantization).eval()


def _awq_bits(weight: torch.Tensor, bits: int, group: int) -> int:
    """Integers, a 16-bit scale a group, and a zero point as wide as the integers."""
    return rounding.stored_bits(weight, bits, group) + bits * (weight.numel() // group)


def _rounded(
    checkpoint: Checkpoint, recipe: LlmRecipe, calibration: Callable[[], Sequence[str]], device: str
) -> Loaded:
    """In float32: the rounded weights are what is asked about, not what bfloat16 makes of them."""
    plain, tokenizer = _plain(checkpoint, torch.float32)
    layers = quantized_layers(plain)
    size = _stored(plain, layers, lambda weight: rounding.stored_bits(weight, recipe.bits, recipe.granularity))
    plain = Loaded(plain.to(device), tokenizer, size)
    model = rounding.round_weights(plain.model, layers, recipe.bits, recipe.granularity)
    if recipe.outputs:
        # Of the model that is not quantized, as for the image networks.
        seen = rounding.observe(plain.model, layers, map(plain.encode, calibration()))
        rounding.round_outputs(model, seen, recipe.bits)
    return Loaded(model, tokenizer, size)


def _stored(model: nn.Module, layers: Sequence[str], bits: Callable[[torch.Tensor], int]) -> int:
    """Bytes of a model whose named layers take so many bits each, and everything else 16 a number."""
    weights = [model.get_submodule(name).weight for name in layers]
    numbers = stored_bytes(model) // weights[0].element_size()
    others = numbers - sum(weight.numel() for weight in weights)
    return sum(map(bits, weights)) // 8 + 2 * others


@contextlib.contextmanager
def as_transformers(checkpoint: Checkpoint, dtype: torch.dtype) -> Iterator[tuple[Path, Any]]:
    """A folder with the model as transformers saves it, from whichever form it has, and the tokenizer."""
    model, tokenizer = _plain(checkpoint, dtype)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        del model
        yield Path(folder), tokenizer


def group_of(model: nn.Module) -> int:
    """How many weights share a scale: the first of :data:`GROUPS` that divides the rows of all quantized layers.

    Raises:
        ValueError: none does.
    """
    columns = [model.get_submodule(name).in_features for name in quantized_layers(model)]
    for group in GROUPS:
        if all(count % group == 0 for count in columns):
            return group
    raise ValueError(f"no group of {', '.join(map(str, GROUPS))} weights divides the rows of the model's layers")
