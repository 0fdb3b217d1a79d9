"""Models quantized by autoawq, one of the tools for AWQ: made and read, as long as that archived package works.

Frozen: that package is archived, so this file is kept as it is, for the checkpoints that there are, and gains nothing.

The weights are widened once, so that the model runs on any device; it has the accuracy and the size of the checkpoint,
and nothing is known from it about latency. The maintained way to AWQ is llm-compressor (:mod:`quide.llm.methods`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file

from quide import _paths
from quide.llm import checkpoints, methods, patches
from quide.llm.methods import AWQ, LlmRecipe, Loaded

BITS = 4  # autoawq has no other
LAYOUT = "gemm"  # the order of the packed integers that nearly all checkpoints have
WHOLE_ROW = -1  # as a group: all weights of a row share a scale
BLOCK = 128  # tokens that autoawq calibrates on at a time
PACKED = ("qweight", "qzeros", "scales")


def make(checkpoint: checkpoints.Checkpoint, texts: Sequence[str], device: str = "cpu") -> Path:
    """The folder, in the cache, of what autoawq makes of a model at 4 bits with zero points; made if it is not there.

    Args:
        checkpoint: a model that is not quantized.
        texts: calibrated on, one after the other, cut into blocks of :data:`BLOCK` tokens.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: the texts are shorter than one block.
        ImportError: as :func:`load`.
    """
    made_from = json.dumps([checkpoint.digest, list(texts), metadata.version("autoawq"), BLOCK, device])
    key = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    folder = _paths.cache() / "networks" / f"autoawq-{key}" / f"{checkpoint.name}{checkpoints.QUANTIZED}"
    return _paths.made_once(folder, lambda target: _quantize(checkpoint, texts, device, target))


def _quantize(checkpoint: checkpoints.Checkpoint, texts: Sequence[str], device: str, target: Path) -> None:
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.float16
    with _autoawq() as autoawq, methods.as_transformers(checkpoint, dtype) as (source, tokenizer):
        tokens = tokenizer("\n".join(texts))["input_ids"]
        blocks = [tokens[start : start + BLOCK] for start in range(0, len(tokens) - BLOCK + 1, BLOCK)]
        if not blocks:
            raise ValueError(f"texts must come to {BLOCK} tokens at least, got {len(tokens)}")
        model = autoawq.AutoAWQForCausalLM.from_pretrained(str(source), device_map=device, safetensors=True)
        settings = {
            "zero_point": True, "q_group_size": methods.group_of(model.model), "w_bit": BITS, "version": LAYOUT,
        }  # fmt: skip
        with patches.copying(device):
            model.quantize(
                tokenizer, quant_config=settings, calib_data=blocks,
                max_calib_samples=len(blocks), max_calib_seq_len=BLOCK,
            )  # fmt: skip
        model.model.to(torch.float16)  # what is not quantized, as such checkpoints have it
        model.save_quantized(str(target))
        tokenizer.save_pretrained(target)


def load(folder: Path, recipe: LlmRecipe, device: str = "cpu") -> Loaded:
    """The model as autoawq left it.

    Args:
        folder: its files, in transformers' layout.
        recipe: AWQ at 4 bits; a quantized model cannot be had at another width.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: another recipe, or a layout of the packed integers other than autoawq's ``"gemm"``.
        ImportError: autoawq is absent, or no longer works beside the transformers that is installed.
    """
    if recipe != LlmRecipe(AWQ, BITS):
        raise ValueError(f"recipe must be {AWQ} at {BITS} bits, which {folder} was quantized to, got {recipe}")
    settings = checkpoints.quantization(folder)
    if (layout := settings.get("version", LAYOUT).lower()) != LAYOUT or settings.get("bits", BITS) != BITS:
        raise ValueError(
            f"{folder / 'config.json'} names layout {layout!r} with {settings.get('bits', BITS)} bits, and only "
            f"{LAYOUT!r} with {BITS} can be read; use a checkpoint in that layout"
        )
    tensors = _tensors(folder)
    size = sum(tensor.nbytes for tensor in tensors.values())
    group = settings.get("group_size", 128)
    model = _model(folder, _widened(tensors, group), device)
    return Loaded(model, _tokenizer(folder), size, None if group == WHOLE_ROW else group)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All that is saved, from one file or several."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def _widened(tensors: dict[str, torch.Tensor], group: int) -> dict[str, torch.Tensor]:
    """The tensors of the plain model: a layer's ``weight`` from its integers, zero points and scales."""
    wide = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in PACKED}
    with _autoawq():
        from awq.utils.packing_utils import dequantize_gemm
    for name in tensors:
        layer, _, part = name.rpartition(".")
        if part == PACKED[0]:
            qweight, qzeros, scales = (tensors[f"{layer}.{each}"] for each in PACKED)
            rows = qweight.shape[0] if group == WHOLE_ROW else group
            wide[f"{layer}.weight"] = dequantize_gemm(qweight, qzeros, scales.float(), BITS, rows).T.contiguous()
    return wide


@contextlib.contextmanager
def _autoawq() -> Iterator[ModuleType]:
    """The package, without what it says of its own end and what newer libraries say of its code."""
    with warnings.catch_warnings(record=True):  # ignoring would not do: it sets its own filter
        try:
            import awq
        except ImportError as error:
            raise ImportError(
                f"autoawq cannot be imported ({error}); {checkpoints.AWQ_EXTRA}. It is archived: where it does not "
                "work beside a newer transformers, convert the checkpoint with compressed-tensors, or quantize anew "
                "with llm-compressor"
            ) from error
        yield awq


def _model(folder: Path, tensors: dict[str, torch.Tensor], device: str):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    with torch.device("meta"):  # only its class is asked for, so that no weights need be drawn
        plain = type(AutoModelForCausalLM.from_config(config))
    return plain.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype).eval().to(device)


def _tokenizer(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
