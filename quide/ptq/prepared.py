"""Post-training quantization (PTQ, §3.3) of any network of conv, linear and batch-norm modules: :func:`quantize`.

A quantized network here is *simulated*, as in the paper: values are rounded to the grid of the chosen width and kept in
float32 ("fake quantization"), so accuracy is that of the integer network while speed is not.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from quide._check import evaluating
from quide._files import brief
from quide.ptq import activations, check, fold, moments, trial
from quide.ptq import graph as graphs
from quide.ptq.grid import HALVES, FakeQuantize, Grid, HalfPrecision, affine_grid, fake_quantize, symmetric_grid
from quide.ptq.layers import is_quantizable, quantizable_layers
from quide.ptq.ranges import Statistics, weight_range
from quide.ptq.scheme import FULL_PRECISION, HALF_PRECISION, PAPER, Scheme
from quide.ptq.width import Bits, Kept, both, layer_widths

if TYPE_CHECKING:
    from quide.ptq.passes import Technique

META = "quide"


def quantize(
    model: nn.Module,
    bits: Bits | Sequence[Bits],
    calibration: torch.Tensor,
    scheme: Scheme = PAPER,
    techniques: Sequence[str | Technique] = (),
    *,
    keep: Mapping[str, Bits] | None = None,
) -> nn.Module:
    """Post-training quantize a network; the given model is left as it was.

    Args:
        model: any network of conv, linear and batch-norm modules that ``torch.fx`` can trace. Inputs of ``forward``
            that have defaults are left at them.
        bits: one width for all layers, or one for each of :func:`quide.ptq.quantizable_layers` that runs in evaluation
            and that ``keep`` does not name. A width is a whole number in 1..32, or a :class:`quide.Width`; 32 leaves a
            layer and its activations untouched.
        calibration: normalized images ``(n, ...)`` that the activation ranges are read from (512 in §3.3).
        scheme: the recipe; :data:`quide.BEST` is the one that the techniques are recommended with.
        techniques: passes over the calibrated network, in order: any of ``"equalize"``, ``"absorb_bias"``,
            ``"correct_bias"``, ``"adaround"``, or configured ones such as ``quide.ptq.AdaRound(iterations=500)``.
        keep: widths of layers by name or pattern, such as ``{"fc": 32, "layer4.*": 8}``; the first that fits counts.
            32 also agrees to leave in float what cannot be quantized: an LSTM, an embedding, a parameter that
            ``forward`` multiplies by.

    Returns:
        A network in evaluation mode with the same input and output; print its ``code`` to see where values are rounded.
        On a CPU its 2-D convolutions are in channels-last layout, the faster one, unless all is left at 32 bits.

    Raises:
        ValueError: bits outside 1..32 or of the wrong number, a calibration set that is empty or not finite, a model
            with nothing to quantize, with weights that would stay in float, or that cannot be traced.
    """
    rounded = not isinstance(bits, Integral) or bits != FULL_PRECISION
    prepared = prepare(model, calibration, scheme, keep=keep, fastest_layout=rounded)
    if not techniques:
        return prepared.at(bits)
    from quide.ptq import passes  # which stand on this module

    return passes.quantized(prepared, bits, calibration, techniques)


def prepare(
    model: nn.Module,
    calibration: torch.Tensor,
    scheme: Scheme = PAPER,
    *,
    keep: Mapping[str, Bits] | None = None,
    fastest_layout: bool = False,
) -> Prepared:
    """Everything about :func:`quantize` that does not depend on the widths, done once for a whole sweep.

    ``fastest_layout`` brings 2-D convolutions on a CPU to channels-last; without it the layout is the model's own.
    """
    check.check_model(model)
    check.check_calibration(model, calibration)
    check.check_scheme(scheme)
    if is_quantizable(model):
        model = nn.Sequential(model)
    kept, kind = Kept(keep), type(model).__name__
    fast = fastest_layout and calibration.ndim == 4 and calibration.device.type == "cpu"
    try:
        taken = _taken_apart(model, kind, calibration, scheme, kept, fast)
    except ValueError:
        if not fast:
            raise
        taken = _taken_apart(model, kind, calibration, scheme, kept, False)  # it may depend on the layout
    traced, order, left, unfolded, cleaned, norms = taken
    registered = [layer for layer in quantizable_layers(traced) if graphs.calls(traced, layer)]
    layers, fixed = _free_and_fixed(model, traced, registered, kept)
    kept.check_used([*registered, *left])
    last = graphs.last_layers(traced, registered)
    logits = frozenset() if scheme.quantize_logits else last
    once = [layer for layer in registered if len(graphs.calls(traced, layer)) == 1]
    sites = {layer: node.name for layer, node in graphs.site_nodes(traced, once, scheme, logits).items()}
    statistics = observed(traced, sites, calibration, scheme, last, norms)
    held = tuple(f"{name}." for name in left)
    unused = [layer for layer in quantizable_layers(model) if layer not in registered and not layer.startswith(held)]
    return Prepared(
        traced, layers, scheme, statistics, sites, fixed, left, order, unfolded, cleaned, unused,
        dict(keep or {}), fastest_layout, tuple(calibration.shape[1:]), norms,
    )  # fmt: skip


def observed(
    traced: fx.GraphModule, sites: Mapping[str, str], calibration: torch.Tensor, scheme: Scheme,
    last: frozenset[str], norms: moments.Norms,
) -> dict[str, Statistics]:  # fmt: skip
    """What is known of the sites, by the name of the node: from the images, or from batch norms."""
    if scheme.activation_range == "batch_norm":
        return moments.statistics(traced, norms, sites, calibration)
    by_cross_entropy = scheme.logits_range == "cross_entropy" and scheme.activation_site != "input"
    logits = {site for layer, site in sites.items() if layer in last and by_cross_entropy}
    return graphs.observe(traced, sites.values(), calibration, scheme, logits)


@torch.random.fork_rng(devices=[])  # what a network draws is not taken from the caller
@torch.inference_mode(False)  # whatever the caller is in: tensors made in it do not count their changes
def _taken_apart(
    model: nn.Module, kind: str, calibration: torch.Tensor, scheme: Scheme, kept: Kept, fast: bool
) -> tuple[fx.GraphModule, graphs.Order, dict[str, int], list[str], int, moments.Norms]:
    """The model as a graph that computes the same: with batch norms folded, in the fastest layout."""
    traced = graphs.trace(model)
    left = check.check_modules(traced, kind, kept)
    tried = _tried(traced, kind, calibration)
    left |= check.check_functions(traced, kind, tried, kept)
    if graphs.own_images(traced, tried):
        tried = _tried(traced, kind, calibration)
    norms = fold.affine(traced)
    folded = fold.fold(traced, tried.ranks) if scheme.fold_batch_norm else []
    if fast:
        graphs.channels_last(traced)
    cleaned = _clean(traced)
    tried = _tried(traced, kind, calibration)
    order = graphs.thread_overwrites(traced, tried)
    check.check_agreement(model, _tried(traced, kind, calibration).outputs, *_outputs(model, calibration))
    named = [name for name, part in model.named_modules() if getattr(part, "running_var", None) is not None]
    unfolded = [name for name in named if name not in folded]
    in_layers = {layer: known for layer, (name, known) in norms.items() if name in folded}
    return traced, order, left, unfolded, cleaned, in_layers


def _tried(traced: fx.GraphModule, kind: str, calibration: torch.Tensor) -> trial.Trial:
    try:
        return trial.run(traced, calibration)
    except Exception as error:  # the model's own code
        shape = tuple(calibration[: trial.IMAGES].shape)
        raise ValueError(
            f"model {kind} does not take a batch of shape {shape} ({brief(error)}); give calibration "
            "images as the model takes them, and let it take batches of any size"
        ) from error


@torch.no_grad()
def _outputs(model: nn.Module, calibration: torch.Tensor) -> tuple[object, object]:
    """Of two runs, one after the other; None for the second if they drew random numbers."""
    model, before = evaluating(model), torch.get_rng_state()
    theirs, again = (model(calibration[: trial.IMAGES].detach().clone()) for _ in range(2))
    return theirs, again if torch.equal(before, torch.get_rng_state()) else None


@torch.no_grad()
def _clean(traced: fx.GraphModule) -> int:
    """Set denormal weights to zero, with which a CPU can be many times slower; how many there were."""
    cleaned = 0
    for value in [*traced.parameters(), *traced.buffers()]:
        if value.is_floating_point() and (whole := _WHOLE.get(value.element_size())):
            smallest = torch.tensor(torch.finfo(value.dtype).tiny, dtype=value.dtype).view(whole).item()
            pattern = value.view(whole) & torch.iinfo(whole).max  # as floats they may pass for zero
            denormal = (pattern > 0) & (pattern < smallest)
            if count := int(denormal.sum()):
                value[denormal] = 0
                cleaned += count
    return cleaned


_WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def _free_and_fixed(
    model: nn.Module, traced: fx.GraphModule, registered: Sequence[str], kept: Kept
) -> tuple[list[str], dict[str, Bits]]:
    """Layers that are to be given widths, in the order the model registers them, and the widths of the others."""
    kind, known = type(model).__name__, quantizable_layers(model)
    if not known:
        raise ValueError(f"model {kind} has no convolution or Linear layer to quantize")
    layers = [layer for layer in known if layer in registered]
    if not layers:
        raise ValueError(f"model {kind} calls none of its layers in evaluation: {', '.join(known)}")
    fixed = {layer: width for layer in layers if (width := kept.width(layer)) is not None}
    for layer in layers:
        if (times := len(graphs.calls(traced, layer))) != 1 and fixed.get(layer) != FULL_PRECISION:
            raise ValueError(
                f"layer {layer} is called {times} times in the model, a layer that is quantized once: give each call "
                f"a layer of its own, which may share the weight, or leave it in float with keep={{{layer!r}: 32}}"
            )
    return [layer for layer in layers if layer not in fixed], fixed


@dataclass(frozen=True)
class Quantization:
    """How a network was quantized: in :data:`META` of its ``meta``.

    ``image`` is the shape of one image, ``weight_scales`` and ``quantizers``, the name of the module that rounds its
    activations, are by layer; the rest is what :func:`prepare` and :meth:`Prepared.at` were asked for.
    """

    layers: tuple[str, ...]
    bits: tuple[Bits, ...]
    scheme: Scheme
    commute: bool
    keep: dict[str, Bits]
    fastest_layout: bool
    image: tuple[int, ...]
    weight_scales: dict[str, torch.Tensor] = field(default_factory=dict)
    quantizers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A traced network with its activation statistics, ready to be quantized at any widths.

    Attributes:
        layers: names of the layers that take part in ``bits``.
        statistics: by the name of the graph node whose output is quantized.
        sites: the name of that node, by layer.
        fixed: widths of the layers that ``keep`` names.
        left_float: what is not quantized, and its number of weights.
        order: what the program's order means besides its data.
        unfolded: names of batch norms that are still computed, or not run in evaluation.
        cleaned: number of denormal weights that were set to zero.
        unused: layers that do not run in evaluation.
        keep, fastest_layout, image: what :func:`prepare` was given, and the shape of an image.
        norms: beta and gamma of the batch norms that are folded, by the layer.
    """

    graph: fx.GraphModule
    layers: list[str]
    scheme: Scheme
    statistics: dict[str, Statistics]
    sites: dict[str, str]
    fixed: dict[str, Bits] = field(default_factory=dict)
    left_float: dict[str, int] = field(default_factory=dict)
    order: graphs.Order = graphs.Order({}, False)
    unfolded: list[str] = field(default_factory=list)
    cleaned: int = 0
    unused: list[str] = field(default_factory=list)
    keep: dict[str, Bits] = field(default_factory=dict)
    fastest_layout: bool = False
    image: tuple[int, ...] = ()
    norms: moments.Norms = field(default_factory=dict)

    def at(self, bits: Bits | Sequence[Bits], commute: bool = True) -> nn.Module:
        """The network at these widths; see :func:`quantize`.

        ``commute`` moves quantizers past max-pooling and merges them with the ReLU. A quantizer is monotone and maps
        zero to zero, so this changes no result; it does a quarter of the work after a 2x2 pooling.
        """
        bits = layer_widths(bits, self.layers)
        widths = self.widths(bits)
        model = copy.deepcopy(self.graph)
        model.meta[META] = how = Quantization(
            tuple(self.layers), bits, self.scheme, commute, self.keep, self.fastest_layout, self.image
        )  # fmt: skip
        if set(widths.values()) == {HALF_PRECISION} and self.scheme.sixteen_bit == "float16":
            return HalfPrecision(model)
        rounding, named = self.scheme.rounding, {node.name: node for node in model.graph.nodes}
        nodes = {layer: named[site] for layer, site in self.sites.items() if layer in widths}
        for layer, width in widths.items():
            if both(width).weights != FULL_PRECISION:
                one = model.get_submodule(layer)
                grid = weight_grid(one.weight.detach(), both(width).weights, self.scheme)
                how.weight_scales[layer] = grid.scale
                # A new parameter: another layer may share the old one, at another width.
                one.weight = nn.Parameter(fake_quantize(one.weight.detach(), grid, rounding), requires_grad=False)
            if both(width).activations != FULL_PRECISION and layer in nodes:
                self._insert(model, nodes[layer], layer, both(width).activations)
        if commute:
            graphs.commute(model)
        model.graph.lint()
        model.recompile()
        return model

    def full_precision(self) -> nn.Module:
        """The network with nothing rounded, whatever ``keep`` says."""
        return copy.deepcopy(self.graph)

    @property
    def unfused(self) -> dict[str, str]:
        """Activation functions that rounding is not moved behind though the scheme asks for it, by the layer before."""
        if self.scheme.activation_site not in ("relu", "fused"):
            return {}
        return activations.unknown(self.graph, list(self.sites))

    @property
    def layout(self) -> str:
        """``"channels_last"`` where all 2-D convolutions are in that layout, else ``"given"``."""
        weights = [part.weight for part in self.graph.modules() if isinstance(part, nn.Conv2d)]
        last = [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights]
        return "channels_last" if weights and all(last) else "given"

    def widths(self, bits: Bits | Sequence[Bits]) -> dict[str, Bits]:
        """The width of every layer, those that ``keep`` names last."""
        return dict(zip(self.layers, layer_widths(bits, self.layers), strict=True)) | self.fixed

    def compression(self, bits: Bits | Sequence[Bits], size_weighted: bool = False, side: str = "weights") -> float:
        """Compression against 32 bits: of storage, or of activations (``side="activations"``).

        What is left in float counts as layers of 32 bits, and with ``size_weighted`` by its number of weights.
        """
        widths = self.widths(bits)
        weights = {layer: self.graph.get_submodule(layer).weight.numel() for layer in widths}
        layers = [(getattr(both(width), side), weights[layer]) for layer, width in widths.items()]
        floats = [(FULL_PRECISION, size) for size in self.left_float.values()]
        each, sizes = zip(*layers, *floats, strict=True)
        counts = sizes if size_weighted else (1,) * len(sizes)
        return FULL_PRECISION * sum(counts) / sum(map(operator.mul, each, counts))

    def activation_grid(self, site: str, bits: int) -> Grid:
        """The grid of a site at a width."""
        minimum, maximum = self.statistics[site].range(
            self.scheme.activation_range, bits, self.scheme.percentile, self.scheme.activation_symmetric
        )
        if self.scheme.activation_symmetric:
            return symmetric_grid(torch.tensor(minimum), torch.tensor(maximum), bits)
        return affine_grid(minimum, maximum, bits)

    def _insert(self, model: fx.GraphModule, site: fx.Node, layer: str, width: int) -> None:
        name = _free_name(model, f"{layer}_quantizer")  # beside the layer, so that no two layers can share it
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


def _free_name(model: nn.Module, name: str) -> str:
    owner, _, last = name.rpartition(".")
    while hasattr(model.get_submodule(owner), last):
        last += "_"
    return f"{owner}.{last}" if owner else last


def quantized_weight(weight: torch.Tensor, bits: int, scheme: Scheme = PAPER) -> torch.Tensor:
    """The weight tensor ``(out, ...)`` rounded by the scheme; the same tensor at 32 bits."""
    if bits == FULL_PRECISION:
        return weight
    return fake_quantize(weight, weight_grid(weight, bits, scheme), scheme.rounding)


def weight_grid(weight: torch.Tensor, bits: int, scheme: Scheme = PAPER) -> Grid:
    """The grid of a weight tensor ``(out, ...)``."""
    weight = weight.float() if weight.dtype in HALVES else weight
    minimum, maximum = weight_range(weight, scheme.weight_range, bits, scheme.percentile, scheme.weight_per_channel)
    return symmetric_grid(minimum, maximum, bits, restricted=scheme.weight_levels == "restricted")
