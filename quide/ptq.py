"""Post-training quantization (PTQ, §3.3): the pure quantizers, the scheme, and :func:`quantize`.

A quantized network here is *simulated*, as in the paper: values are rounded to the grid of the chosen width and kept in
float32 ("fake quantization"), so accuracy is that of the integer network while speed is not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F

from quide.models import quantizable_layers
from quide.observers import OBSERVERS, Statistics, weight_range

FULL_PRECISION = 32
HALF_PRECISION = 16
CALIBRATION_BATCH = 128


@dataclass(frozen=True)
class Scheme:
    """Every choice a PTQ recipe makes. The defaults are :data:`PAPER`.

    Attributes:
        weight_range: how a weight tensor's range is found: ``"minmax"``, ``"percentile"`` or ``"mse"``.
        weight_per_channel: one range an output channel instead of one a tensor.
        weight_levels: ``"restricted"`` for integers in [-(2^(b-1)-1), 2^(b-1)-1], ``"full"`` for [-2^(b-1), 2^(b-1)-1].
        activation_site: where activations are rounded: ``"output"`` of a layer, before its ReLU; ``"relu"``, after it;
            or ``"input"`` of a layer.
        activation_range: as ``weight_range``, over the calibration images.
        activation_symmetric: a symmetric grid for activations instead of an affine one.
        rounding: ``"half_even"`` (as torch rounds), ``"half_up"`` or ``"floor"``.
        quantize_logits: whether the last layer's output is rounded too (sites ``"output"`` and ``"relu"``).
        percentile: share of values, in percent, that ``"percentile"`` ranges keep (split between both tails).
        fold_batch_norm: fold batch norms into the convolutions before them first.
        sixteen_bit: ``"grid"`` simulates a 16-bit integer grid; ``"float16"`` casts the whole network when every layer
            is 16 bits wide (what the paper's 16-bit timings look like).
    """

    weight_range: str = "minmax"
    weight_per_channel: bool = False
    weight_levels: str = "restricted"
    activation_site: str = "output"
    activation_range: str = "minmax"
    activation_symmetric: bool = False
    rounding: str = "half_even"
    quantize_logits: bool = True
    percentile: float = 99.9
    fold_batch_norm: bool = True
    sixteen_bit: str = "grid"

    def __post_init__(self):
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile must lie in (50, 100], got {self.percentile}")


_ROUNDINGS = {
    "half_even": torch.Tensor.round_,
    # Not floor(x + 0.5): that sum is itself rounded, and the largest float below one half would come out as 1.
    "half_up": lambda values: values.mul_(2).floor_().div_(2).ceil_(),
    "floor": torch.Tensor.floor_,
}
_CHOICES = {
    "weight_range": OBSERVERS,
    "weight_levels": ("restricted", "full"),
    "activation_site": ("output", "relu", "input"),
    "activation_range": OBSERVERS,
    "rounding": tuple(_ROUNDINGS),
    "sixteen_bit": ("grid", "float16"),
}

PAPER = Scheme()
"""The paper's scheme as far as its text and numbers pin it; the page on EXP-1 tests the alternatives."""


@dataclass(frozen=True)
class Grid:
    """A uniform quantization grid: value = (integer - zero_point) * scale, integer in [low, high].

    ``scale`` is a float32 tensor, 0-d for a tensor-wide grid or shaped to broadcast against the values (one entry a
    channel); ``zero_point``, ``low`` and ``high`` are Python integers.
    """

    scale: torch.Tensor
    zero_point: int
    low: int
    high: int


def symmetric_grid(minimum: torch.Tensor, maximum: torch.Tensor, bits: int, restricted: bool = True) -> Grid:
    """Zero-centred signed grid that reaches the larger magnitude of the range.

    ``restricted`` leaves out the integer -2^(b-1), so that both signs reach equally far. At 1 bit it holds zero alone.
    """
    high = 2 ** (bits - 1) - 1
    low = -high if restricted else -(2 ** (bits - 1))
    reach = torch.maximum(minimum.abs(), maximum.abs()).double()
    return Grid(_usable(reach / max(high, 1)), 0, low, high)


def affine_grid(minimum: torch.Tensor, maximum: torch.Tensor, bits: int) -> Grid:
    """Unsigned tensor-wide grid over the range, widened to hold zero, with an integer zero point."""
    minimum, maximum = min(float(minimum), 0.0), max(float(maximum), 0.0)
    high = 2**bits - 1
    scale = _usable(torch.tensor((maximum - minimum) / high, dtype=torch.float64))
    zero_point = min(max(round(-minimum / float(scale)), 0), high)
    return Grid(scale, zero_point, 0, high)


def _usable(scale: torch.Tensor) -> torch.Tensor:
    """As float32; 1 for an all-zero range, never so small that its reciprocal overflows, never infinite."""
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    limits = torch.finfo(torch.float32)
    return scale.clamp(limits.tiny, limits.max).float()


def fake_quantize(values: torch.Tensor, grid: Grid, rounding: str = "half_even", inplace: bool = False) -> torch.Tensor:
    """Round float32 ``values`` to ``grid``; with ``half_even``, bit for bit what torch's fake_quantize functions give.

    Multiplies by the reciprocal of the scale, as torch does: dividing would round a few values the other way.
    ``inplace`` overwrites ``values``.

    Exact up to 24 bits, where float32 still holds every integer of the grid; wider grids are finer than float32 itself
    and return each value to within its own rounding. Values beyond 2^63 steps saturate and NaN stays NaN here, while
    torch's conversion to integers overflows.
    """
    scaled = values.mul_(1 / grid.scale) if inplace else values * (1 / grid.scale)
    rounded = _ROUNDINGS[rounding](scaled)
    clamped = rounded.clamp_(grid.low - grid.zero_point, grid.high - grid.zero_point)
    return clamped.mul_(grid.scale).add_(0.0)  # -0 to +0: torch goes through integers, which have no -0


class FakeQuantize(nn.Module):
    """A fixed activation quantizer in a network; ``relu`` cuts the grid at zero, which is exactly a ReLU beside it."""

    def __init__(self, grid: Grid, rounding: str, relu: bool = False, inplace: bool = False):
        super().__init__()
        self.register_buffer("scale", grid.scale, persistent=False)
        self.zero_point, self.low, self.high = grid.zero_point, grid.low, grid.high
        self.rounding, self.relu, self.inplace = rounding, relu, inplace

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        low = self.zero_point if self.relu else self.low
        grid = Grid(self.scale, self.zero_point, low, self.high)
        return fake_quantize(values, grid, self.rounding, self.inplace and not values.requires_grad)

    def extra_repr(self) -> str:
        levels = f"[{self.low}, {self.high}]"
        return f"scale={self.scale:.4g}, zero_point={self.zero_point}, levels={levels}, relu={self.relu}"


class HalfPrecision(nn.Module):
    """A network cast to float16 that takes and returns float32."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.half()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images.half()).float()


def quantize(
    model: nn.Module, bits: int | Sequence[int], calibration: torch.Tensor, scheme: Scheme = PAPER
) -> nn.Module:
    """Post-training quantize a network; the given model is left as it was.

    Args:
        model: any network of conv, linear and batch-norm modules that ``torch.fx`` can trace.
        bits: one width for all layers, or one for each of :func:`quide.models.quantizable_layers`, each in 1..32;
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
    traced = _trace(model, scheme.fold_batch_norm)
    sites = {node.name: node for node in _site_nodes(traced, layers, scheme).values()}
    statistics = _observe(traced, sites, calibration, scheme)
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
        if set(widths) == {HALF_PRECISION} and self.scheme.sixteen_bit == "float16":
            return HalfPrecision(model)
        nodes = _site_nodes(model, self.layers, self.scheme)
        for layer, width in zip(self.layers, widths, strict=True):
            if width == FULL_PRECISION:
                continue
            _quantize_weight(model.get_submodule(layer), width, self.scheme)
            if layer in nodes:
                self._insert(model, nodes[layer], layer, width)
        if commute:
            _commute(model)
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
        model.add_submodule(name, FakeQuantize(self.activation_grid(site.name, width), self.scheme.rounding))
        if self.scheme.activation_site == "input":
            # Only this layer sees the rounded values: another reader of the same tensor has a quantizer of its own.
            (reader,) = _calls(model, layer)
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
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, Integral) or not 1 <= width <= FULL_PRECISION:
            raise ValueError(f"bits must be whole numbers in 1..{FULL_PRECISION}, got {width!r}")
    return tuple(map(int, widths))


def quantized_weight(weight: torch.Tensor, bits: int, scheme: Scheme = PAPER) -> torch.Tensor:
    """The weight tensor ``(out, ...)`` rounded by the scheme; the same tensor at 32 bits."""
    if bits == FULL_PRECISION:
        return weight
    minimum, maximum = weight_range(weight, scheme.weight_range, bits, scheme.percentile, scheme.weight_per_channel)
    grid = symmetric_grid(minimum, maximum, bits, restricted=scheme.weight_levels == "restricted")
    return fake_quantize(weight, grid, scheme.rounding)


def _quantize_weight(layer: nn.Module, bits: int, scheme: Scheme) -> None:
    # A new parameter: another layer may share the old one, at another width.
    layer.weight = nn.Parameter(quantized_weight(layer.weight.detach(), bits, scheme), requires_grad=False)


def _trace(model: nn.Module, fold_batch_norm: bool) -> fx.GraphModule:
    model = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        if fold_batch_norm and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
            model = fuse(model, inplace=True)
        return model if isinstance(model, fx.GraphModule) else fx.symbolic_trace(model)
    except Exception as error:  # tracing runs the model's own code, which can fail in any way
        raise ValueError(
            f"model {type(model).__name__} cannot be traced by torch.fx ({error}); "
            "move data-dependent control flow out of forward, or pass the traceable part"
        ) from error


def _calls(model: fx.GraphModule, layer: str) -> list[fx.Node]:
    return [node for node in model.graph.nodes if node.op == "call_module" and node.target == layer]


def _site_nodes(model: fx.GraphModule, layers: Sequence[str], scheme: Scheme) -> dict[str, fx.Node]:
    """The node whose output is rounded for each layer; a layer that is never called, or called twice, is refused."""
    sites = {}
    for layer in layers:
        calls = _calls(model, layer)
        if len(calls) != 1:
            raise ValueError(f"layer {layer} is called {len(calls)} times in the model; each layer must be called once")
        node = calls[0]
        if scheme.activation_site == "input":
            sites[layer] = node.all_input_nodes[0]
            continue
        if not scheme.quantize_logits and any(user.op == "output" for user in node.users):
            continue
        follower = next(iter(node.users), None)
        if scheme.activation_site == "relu" and len(node.users) == 1 and _is_relu(model, follower):
            node = follower
        sites[layer] = node
    return sites


@torch.inference_mode()
def _observe(
    model: fx.GraphModule, sites: dict[str, fx.Node], calibration: torch.Tensor, scheme: Scheme
) -> dict[str, Statistics]:
    """Ranges of the sites over the calibration images; a second pass fills histograms if the range rule needs them."""
    statistics = {name: Statistics() for name in sites}
    passes = ["extremes"] if scheme.activation_range == "minmax" else ["extremes", "histogram"]
    for step in passes:
        for images in calibration.split(CALIBRATION_BATCH):
            _Watcher(model, statistics, step).run(images)
    return statistics


class _Watcher(fx.Interpreter):
    """Runs a traced network and shows the watched nodes' outputs to their statistics."""

    def __init__(self, model: fx.GraphModule, statistics: dict[str, Statistics], step: str):
        super().__init__(model)
        self.statistics, self.step = statistics, step

    def run_node(self, node: fx.Node):
        value = super().run_node(node)
        if node.name in self.statistics:
            getattr(self.statistics[node.name], f"see_{self.step}")(value)
        return value


def _is_relu(model: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(model.get_submodule(node.target), nn.ReLU)
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in (F.relu, torch.relu, torch.relu_)


def _is_max_pool(model: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        pool = model.get_submodule(node.target)
        return isinstance(pool, nn.MaxPool2d) and not pool.return_indices
    return node.op == "call_function" and node.target in (F.max_pool2d, torch.max_pool2d)


def _commute(model: fx.GraphModule) -> None:
    """Merge quantizers with the ReLU beside them, move them past max-pooling, and let them overwrite their input."""
    for node in list(model.graph.nodes):
        if node.op == "call_module" and isinstance(model.get_submodule(node.target), FakeQuantize):
            _merge_relu(model, node)
            _move_past_max_pool(model, node)
            # A tensor read by nobody else may be overwritten, unless it is the caller's own or a view of it.
            source = node.args[0]
            made_here = source.op == "call_module" and isinstance(
                model.get_submodule(source.target), (nn.Conv2d, nn.Linear, nn.MaxPool2d)
            )
            model.get_submodule(node.target).inplace = made_here and len(source.users) == 1


def _merge_relu(model: fx.GraphModule, node: fx.Node) -> None:
    quantizer = model.get_submodule(node.target)
    before, after = node.args[0], next(iter(node.users), None)
    if len(node.users) == 1 and _is_relu(model, after):
        after.replace_all_uses_with(node)
        model.graph.erase_node(after)
        quantizer.relu = True
    # An in-place ReLU also changes what other readers of its input see, so it stays when there are any.
    elif _is_relu(model, before) and len(before.users) == len(before.all_input_nodes[0].users) == 1:
        node.replace_input_with(before, before.all_input_nodes[0])
        model.graph.erase_node(before)
        quantizer.relu = True


def _move_past_max_pool(model: fx.GraphModule, node: fx.Node) -> None:
    pool = next(iter(node.users), None)
    if len(node.users) == 1 and _is_max_pool(model, pool):
        pool.replace_input_with(node, node.args[0])
        pool.replace_all_uses_with(node)
        node.replace_input_with(node.args[0], pool)
        pool.append(node)
