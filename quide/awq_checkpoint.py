"""Models that autoawq has quantized: read by its own unpacking, for as long as that archived package still works.

The weights are widened once, so that the model runs on any device; it has the accuracy and the size of the checkpoint,
and nothing is known from it about latency. To quantize by AWQ, llm-compressor is the maintained way
(:mod:`quide.llm_methods`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from quide import llm
from quide.llm_methods import AWQ, Loaded, Recipe

BITS = 4  # autoawq has no other
LAYOUT = "gemm"  # the order of the packed integers that nearly all checkpoints have
WHOLE_ROW = -1  # as a group: all weights of a row share a scale
PACKED = ("qweight", "qzeros", "scales")


def load(folder: Path, recipe: Recipe, device: str = "cpu") -> Loaded:
    """The model as autoawq left it.

    Args:
        folder: its files, in transformers' layout.
        recipe: AWQ at 4 bits; a quantized model cannot be had at another width.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: another recipe, or a layout of the packed integers other than autoawq's ``"gemm"``.
        ImportError: autoawq is absent, or no longer works beside the transformers that is installed.
    """
    if recipe != Recipe(AWQ, BITS):
        raise ValueError(f"recipe must be {AWQ} at {BITS} bits, which {folder} was quantized to, got {recipe}")
    settings = llm.quantization(folder)
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
    unpacked = _unpacking()
    wide = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in PACKED}
    for name in tensors:
        layer, _, part = name.rpartition(".")
        if part == PACKED[0]:
            qweight, qzeros, scales = (tensors[f"{layer}.{each}"] for each in PACKED)
            rows = qweight.shape[0] if group == WHOLE_ROW else group
            wide[f"{layer}.weight"] = unpacked(qweight, qzeros, scales.float(), BITS, rows).T.contiguous()
    return wide


def _unpacking() -> Callable[..., torch.Tensor]:
    """autoawq's own function: packed integers ``(in, out / 8)`` with zero points and scales, to ``(in, out)``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its farewell, and what newer torch and transformers say of its code
        try:
            from awq.utils.packing_utils import dequantize_gemm
        except ImportError as error:
            raise ImportError(
                f"autoawq cannot be imported ({error}); {llm.AWQ_EXTRA}. It is archived: where it does not work "
                "beside a newer transformers, convert the checkpoint with compressed-tensors, or quantize anew with "
                "llm-compressor"
            ) from error
    return dequantize_gemm


def _model(folder: Path, tensors: dict[str, torch.Tensor], device: str):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    plain = type(AutoModelForCausalLM.from_config(config))
    return plain.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype).eval().to(device)


def _tokenizer(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
