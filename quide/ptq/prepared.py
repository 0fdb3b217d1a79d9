"""Post-training quantization (PTQ, §3.3) of any network of conv, linear and batch-norm modules: :func:`quantize`.

A quantized network here is *simulated*, as in the paper: values are rounded to the grid of the chosen width and kept in
float32 ("fake quantization"), so accuracy is that of the integer network while speed is not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from quide._check import wholes
from quide.ptq import graph as graphs
from quide.ptq.grid import FakeQuantize, Grid, HalfPrecision, affine_grid, fake_quantize, symmetric_grid
from quide.ptq.layers import quantizable_layers
from quide.ptq.ranges import Statistics, weight_range
from quide.ptq.scheme import FULL_PRECISION, HALF_PRECISION, PAPER, Scheme

META = "quide"


def quantize(
    model: nn.Module, bits: int | Sequence[int], calibration: torch.Tensor, scheme: Scheme = PAPER
) -> nn.Module:
    """Post-training quantize a network; the given model is left as it was.

    Args:
        model: any network of conv, linear and batch-norm modules that ``torch.fx`` can trace.
        bits: one width for all layers, or one for each of :func:`quide.ptq.quantizable_layers`, each in 1..32;
            32 leaves a layer and its activations untouched.
        calibration: normalized images ``(n, ...)`` that the activation ranges are read from (512 in §3.3).
        scheme: the recipe.

    Returns:
        A network in evaluation mode with the same input and output; print its ``code`` to see where values are rounded.

    Raises:
        ValueError: bits outside 1..32 or of the wrong number, a calibration set that is empty or not finite, a model
            with nothing to quantize or that cannot be traced.
    """
    return prepare(model, calibration, scheme).at(bits)


def prepare(model: nn.Module, calibration: torch.Tensor, scheme: Scheme = PAPER) -> Prepared:
    """Everything about :func:`quantize` that does not depend on the widths, done once for a whole sweep."""
    layers = quantizable_layers(model)
    _check_layers(model, layers)
    if not isinstance(calibration, torch.Tensor) or calibration.ndim < 2 or len(calibration) == 0:
        raise ValueError("calibration must be a tensor of one or more images (n, ...), got an empty or different one")
    if not calibration.is_floating_point():
        raise ValueError(f"calibration holds {calibration.dtype} values; normalize the images to floating point first")
    if not bool(torch.isfinite(calibration).all()):
        raise ValueError("calibration holds NaN or infinite values; check the normalization of the images")
    traced = graphs.trace(model, scheme.fold_batch_norm)
    sites = {node.name: node for node in graphs.site_nodes(traced, layers, scheme).values()}
    statistics = graphs.observe(traced, sites, calibration, scheme)
    return Prepared(traced, layers, scheme, statistics)


def _check_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Refuse what would be left in float without a word."""
    kind = type(model).__name__
    for name, part in model.named_modules():
        if isinstance(part, nn.modules.conv._ConvNd) and name not in layers:
            raise ValueError(f"layer {name} of model {kind} is a {type(part).__name__}, which cannot be quantized here")
    if not layers:
        raise ValueError(f"model {kind} has no convolution or Linear layer to quantize")
    for layer in layers:
        if "weight" not in model.get_submodule(layer)._parameters:
            raise ValueError(
                f"layer {layer} of model {kind} computes its weight anew each time (weight norm, pruning, ...); "
                "make it a plain parameter first, e.g. with torch.nn.utils.parametrize.remove_parametrizations"
            )


@dataclass(frozen=True)
class Quantization:
    """How a network was quantized: in :data:`META` of its ``meta``.

    ``weight_scales`` and ``quantizers``, the name of the module that rounds its activations, are by layer.
    """

    layers: tuple[str, ...]
    bits: tuple
    scheme: Scheme
    commute: bool
    weight_scales: dict[str, torch.Tensor] = field(default_factory=dict)
    quantizers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A traced network with its activation statistics, ready to be quantized at any widths.

    ``statistics`` is keyed by the name of the graph node whose output is quantized.
    """

    graph: fx.GraphModule
    layers: list[str]
    scheme: Scheme
    statistics: dict[str, Statistics]

    def at(self, bits: int | Sequence[int], commute: bool = True) -> nn.Module:
        """The network at these widths; see :func:`quantize`.

        ``commute`` moves quantizers past max-pooling and merges them with the ReLU. A quantizer is monotone and maps
        zero to zero, so this changes no result; it does a quarter of the work after a 2x2 pooling.
        """
        widths = layer_widths(bits, self.layers)
        model = copy.deepcopy(self.graph)
        model.meta[META] = Quantization(tuple(self.layers), widths, self.scheme, commute)
        if set(widths) == {HALF_PRECISION} and self.scheme.sixteen_bit == "float16":
            return HalfPrecision(model)
        nodes = graphs.site_nodes(model, self.layers, self.scheme)
        for layer, width in zip(self.layers, widths, strict=True):
            if width == FULL_PRECISION:
                continue
            model.meta[META].weight_scales[layer] = _quantize_weight(model.get_submodule(layer), width, self.scheme)
            if layer in nodes:
                self._insert(model, nodes[layer], layer, width)
        if commute:
            graphs.commute(model)
        model.graph.lint()
        model.recompile()
        return model

    def activation_grid(self, site: str, bits: int) -> Grid:
        """The grid of a site at a width."""
        minimum, maximum = self.statistics[site].range(
            self.scheme.activation_range, bits, self.scheme.percentile, self.scheme.activation_symmetric
        )
        if self.scheme.activation_symmetric:
            return symmetric_grid(torch.tensor(minimum), torch.tensor(maximum), bits)
        return affine_grid(minimum, maximum, bits)

    def _insert(self, model: fx.GraphModule, site: fx.Node, layer: str, width: int) -> None:
        name = f"{layer}_quantizer"  # beside the layer, so that no two layers' quantizers can share a name
        model.meta[META].quantizers[layer] = name
        model.add_submodule(name, FakeQuantize(self.activation_grid(site.name, width), self.scheme.rounding))
        if self.scheme.activation_site == "input":
            # Only this layer sees the rounded values: another reader of the same tensor has a quantizer of its own.
            (reader,) = graphs.calls(model, layer)
            with model.graph.inserting_before(reader):
                reader.replace_input_with(site, model.graph.call_module(name, (site,)))
            return
        with model.graph.inserting_after(site):
            quantizer = model.graph.call_module(name, (site,))
        site.replace_all_uses_with(quantizer, delete_user_cb=lambda user: user is not quantizer)


def layer_widths(bits: int | Sequence[int], layers: Sequence[str]) -> tuple[int, ...]:
    """One checked width for each layer."""
    widths = tuple(bits) if isinstance(bits, Iterable) else (bits,) * len(layers)
    if len(widths) != len(layers):
        raise ValueError(f"bits names {len(widths)} layers, the model has {len(layers)}: {', '.join(layers)}")
    return tuple(wholes("bits", widths, 1, FULL_PRECISION))


def quantized_weight(weight: torch.Tensor, bits: int, scheme: Scheme = PAPER) -> torch.Tensor:
    """The weight tensor ``(out, ...)`` rounded by the scheme; the same tensor at 32 bits."""
    if bits == FULL_PRECISION:
        return weight
    return fake_quantize(weight, weight_grid(weight, bits, scheme), scheme.rounding)


def weight_grid(weight: torch.Tensor, bits: int, scheme: Scheme = PAPER) -> Grid:
    """The grid of a weight tensor ``(out, ...)``."""
    minimum, maximum = weight_range(weight, scheme.weight_range, bits, scheme.percentile, scheme.weight_per_channel)
    return symmetric_grid(minimum, maximum, bits, restricted=scheme.weight_levels == "restricted")


def _quantize_weight(layer: nn.Module, bits: int, scheme: Scheme) -> torch.Tensor:
    """The scale that the weight was rounded with."""
    weight = layer.weight.detach()
    grid = weight_grid(weight, bits, scheme)
    # A new parameter: another layer may share the old one, at another width.
    layer.weight = nn.Parameter(fake_quantize(weight, grid, scheme.rounding), requires_grad=False)
    return grid.scale
