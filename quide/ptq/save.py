"""A quantized network on disk: tensors, scales and zero points in safetensors, and how it was quantized beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as pack
from torch import fx, nn

from quide import _files, _paths
from quide._digest import digest
from quide.ptq.activations import clipped, kind
from quide.ptq.check import check_model
from quide.ptq.grid import FakeQuantize, HalfPrecision
from quide.ptq.layers import module_of, quantizable_layers
from quide.ptq.passes import set_parameter
from quide.ptq.prepared import META, Prepared, Quantization, prepare
from quide.ptq.scheme import Scheme
from quide.ptq.width import Bits, Width

FORMAT = "quide 2"
WEIGHT_SCALE = "weight_scale:"  # before the layer's name: a tensor that the network itself does not hold


def save(quantized: nn.Module, file: str | Path) -> Path:
    """Write a network that :func:`quide.quantize` made, whole or not at all.

    The file holds its tensors; for each activation quantizer ``scale`` and ``levels`` (zero point, lowest and highest
    integer); for each rounded weight its scale, with which it is integers again; and as metadata the widths by layer,
    the scheme, what the network computes, node by node, and a SHA-256 over all of it.

    Raises:
        ValueError: the network was not made by :func:`quide.quantize`.
        OSError: the file cannot be written.
    """
    how = getattr(quantized, "meta", {}).get(META)
    if not isinstance(how, Quantization):
        raise ValueError(f"quantized must be what quide.quantize returned, got {type(quantized).__name__}")
    tensors = quantized.state_dict() | {WEIGHT_SCALE + layer: scale for layer, scale in how.weight_scales.items()}
    metadata = {
        "format": FORMAT,
        "layers": how.layers,
        "bits": how.bits,
        "keep": how.keep,
        "fastest_layout": how.fastest_layout,
        "image": how.image,
        "scheme": how.scheme,
        "commute": how.commute,
        "nodes": _nodes(quantized),
        # The layout in memory decides which kernel runs, and so the last bits.
        "strides": {name: tensor.stride() for name, tensor in tensors.items() if tensor.ndim == 4},
    }
    file = _paths.given("file", file)
    # Each in memory of its own: layers may share what they read.
    copies = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    metadata["digest"] = _proof(copies, metadata)
    # One entry, since safetensors orders several in any way; in memory, since it hides the system's errors.
    packed = pack(copies, {"quide": _text(metadata)})
    with _paths.written(file) as partial:
        partial.write_bytes(packed)
    return file


def load(model: nn.Module, file: str | Path) -> nn.Module:
    """The quantized network that :func:`save` wrote, bit for bit, on the device of ``model``.

    Args:
        model: a network of the kind that was quantized; what its weights are does not matter, and it is left as it was.
        file: written by :func:`save`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file was not written by :func:`save` or has changed since, or the model is not such a network.
    """
    check_model(model)
    file = _paths.given("file", file)
    with _files.reading(file, "save the network again"):
        return _loaded(model, file, *_read(file))


def _loaded(model: nn.Module, file: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> nn.Module:
    scheme = Scheme(**metadata["scheme"])
    prepared = _prepared(model, file, metadata, scheme)
    if prepared.layers != metadata["layers"]:
        raise ValueError(_misfit(file, model, f"layers {', '.join(metadata['layers'])}", ", ".join(prepared.layers)))
    _give_biases(prepared, tensors)
    _give_limits(prepared, tensors)
    quantized = prepared.at([_width(width) for width in metadata["bits"]], metadata["commute"])
    for ours, theirs in zip(_nodes(quantized), metadata["nodes"], strict=False):
        if ours != theirs:
            raise ValueError(_misfit(file, model, theirs, ours))
    if len(_nodes(quantized)) != len(metadata["nodes"]):
        raise ValueError(_misfit(file, model, f"{len(metadata['nodes'])} steps", str(len(_nodes(quantized)))))
    device = next(model.parameters()).device
    for name, strides in metadata["strides"].items():
        held = tensors[name]
        tensors[name] = torch.empty_strided(held.shape, strides, dtype=held.dtype).copy_(held)
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    for layer in quantized.meta[META].weight_scales:
        quantized.meta[META].weight_scales[layer] = tensors.pop(WEIGHT_SCALE + layer)
    try:
        quantized.load_state_dict(tensors, assign=True)
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{file} does not fit the model ({' '.join(str(error).split())})") from error
    return quantized


def _give_biases(prepared: Prepared, tensors: dict[str, torch.Tensor]) -> None:
    """A technique may have given a bias to a layer that has none: a place for what the file has."""
    for name in quantizable_layers(prepared.graph):
        layer = prepared.graph.get_submodule(name)
        if layer.bias is None and {f"{name}.bias", f"model.{name}.bias"} & tensors.keys():  # model. of HalfPrecision
            set_parameter(layer, "bias", layer.weight.new_zeros(len(layer.weight)))


def _give_limits(prepared: Prepared, tensors: dict[str, torch.Tensor]) -> None:
    """A technique may have given limits to a ReLU6: a place for what the file has."""
    for node in prepared.graph.graph.nodes:
        limit = tensors.get(f"{node.name}_clipped.limit", tensors.get(f"model.{node.name}_clipped.limit"))
        if limit is not None and kind(prepared.graph, node) == "relu6":
            clipped(prepared.graph, node, limit)


def _read(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(_files.regular(file), "pt") as held:
        metadata = json.loads((held.metadata() or {}).get("quide", "{}"))
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{file} was not written by quide.save, or by an older one; save the network again")
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - not a dictionary
    if metadata.pop("digest", None) != _proof(tensors, metadata):
        raise ValueError("it has changed since it was written")
    return tensors, metadata


def _proof(tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> str:
    return digest([_text(metadata), dict(sorted(tensors.items()))])


def _text(metadata: dict[str, Any]) -> str:
    return json.dumps(metadata, default=asdict)  # a scheme, and widths of two sides


def _nodes(quantized: nn.Module) -> list[str]:
    """What the network computes, a line a node: so that a network which only has the same weights is told apart."""
    model = quantized.model if isinstance(quantized, HalfPrecision) else quantized
    nodes = model.graph.nodes
    given = {node: fx.node.map_arg((node.args, node.kwargs), lambda source: f"%{source.name}") for node in nodes}
    return [f"{node.name}: {_called(model, node)} of {given[node]}" for node in nodes]


def _called(model: fx.GraphModule, node: fx.Node) -> str:
    if (module := module_of(model, node)) is None:
        return getattr(node.target, "__name__", str(node.target))
    settings = module.relu if isinstance(module, FakeQuantize) else module.extra_repr()
    return f"{node.target}, {type(module).__name__}({settings})"


def _prepared(model: nn.Module, file: Path, metadata: dict[str, Any], scheme: Scheme) -> Prepared:
    """On images that say nothing: the ranges come from the file. They are not zeros, by which a network may divide."""
    first = next(model.parameters(), torch.zeros(()))
    images = torch.rand(2, *metadata["image"], generator=torch.Generator().manual_seed(0)).to(first)
    keep = {name: _width(width) for name, width in metadata["keep"].items()}
    try:
        return prepare(model, images, scheme, keep=keep, fastest_layout=metadata["fastest_layout"])
    except ValueError as error:
        raise ValueError(f"{file} does not fit the model ({error})") from error


def _width(width: int | dict[str, int]) -> Bits:
    return Width(**width) if isinstance(width, dict) else width


def _misfit(file: Path, model: nn.Module, wanted: str, found: str) -> str:
    return f"{file} does not fit model {type(model).__name__}: it holds {wanted!r}, the model has {found!r}"
