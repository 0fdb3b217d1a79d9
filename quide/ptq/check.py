"""What cannot be quantized whole, refused by name and with the remedy before it gives a wrong number."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from operator import attrgetter

import torch
from torch import fx, nn

from quide._check import dense
from quide.ptq import fold
from quide.ptq.grid import FakeQuantize, HalfPrecision
from quide.ptq.layers import is_quantizable, module_of
from quide.ptq.scheme import FULL_PRECISION, Scheme
from quide.ptq.trial import Trial
from quide.ptq.width import Kept

AGREEMENT = 1e-3  # of the largest output: far above what folding in float32 does, far below what a fault does
_NORMS = (
    nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.PReLU, nn.LocalResponseNorm,
)  # fmt: skip
_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def check_model(model: nn.Module) -> None:
    """Refuse what is no network, is wrapped, or is quantized already."""
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {kind}")
    for name, part in model.named_modules():
        place, inside = f"model.{name}".rstrip("."), type(part).__name__
        if inside in _WRAPPERS:
            raise ValueError(f"{place} is wrapped in {inside}; pass what is inside, {place}.{_WRAPPERS[inside]}")
        if isinstance(part, torch.jit.ScriptModule):
            raise ValueError(f"{place} is a TorchScript program; pass the torch.nn.Module that it was made from")
        if isinstance(part, (FakeQuantize, HalfPrecision)) or type(part).__module__.startswith("torch.ao."):
            raise ValueError(
                f"model {kind} is quantized already ({name or kind} is a {type(part).__name__}); pass the original"
            )
    device, default = next((value.device for value in model.parameters()), None), torch.get_default_device()
    if device and default.type not in ("cpu", device.type):
        raise ValueError(f"model {kind} is on {device}, torch's default device is {default}; move one to the other")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"parameter {name} of model {kind} has no shape yet; run the model on an image first")
        if parameter.is_meta:
            raise ValueError(f"parameter {name} of model {kind} is on the meta device, without values; load them first")
    for name in {**model._modules, **model._parameters, **model._buffers}:
        if name in ("meta", "_graph") or hasattr(fx.GraphModule, name):
            raise ValueError(f"{name} of model {kind} has a name that torch.fx needs; pass torch.nn.Sequential(model)")


def check_scheme(scheme: object) -> None:
    """Refuse what is no scheme."""
    if not isinstance(scheme, Scheme):
        raise ValueError(f"scheme must be a quide.Scheme, such as quide.PAPER or quide.BEST, got {scheme!r}")


def check_calibration(model: nn.Module, calibration: torch.Tensor) -> None:
    """Refuse calibration images that say nothing, or that are not as the network's own weights."""
    if not isinstance(calibration, torch.Tensor) or calibration.ndim < 2 or len(calibration) == 0:
        raise ValueError("calibration must be a tensor of one or more images (n, ...), got an empty or different one")
    if not calibration.is_floating_point():
        raise ValueError(f"calibration holds {calibration.dtype} values; normalize the images to floating point first")
    dense("calibration", calibration)
    if not bool(torch.isfinite(calibration).all()):
        raise ValueError("calibration holds NaN or infinite values; check the normalization of the images")
    check_type(model, calibration, "calibration")


def check_type(model: nn.Module, images: torch.Tensor, name: str) -> None:
    """Refuse images of another floating-point type, or on another device, than the network's weights."""
    weight = next((value for value in model.parameters() if value.is_floating_point()), None)
    if weight is not None and images.dtype != weight.dtype:
        wanted = str(weight.dtype).removeprefix("torch.")
        raise ValueError(f"{name} holds {images.dtype} values, the model {weight.dtype}; use {name}.to(torch.{wanted})")
    if weight is not None and images.device != weight.device:
        raise ValueError(f"{name} is on {images.device}, the model on {weight.device}; move one to the other's device")


def takes_more_than_images(model: nn.Module) -> bool:
    """Whether ``forward`` has inputs besides the images; refuses one that has no default."""
    given = list(inspect.signature(model.forward).parameters.values())
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    taken = [parameter for parameter in given if parameter.kind not in several]
    needed = [parameter.name for parameter in taken if parameter.default is parameter.empty]
    if len(needed) > 1:
        raise ValueError(
            f"model {type(model).__name__} takes {len(needed)} inputs ({', '.join(needed)}); "
            "wrap it in a module whose forward takes the images alone"
        )
    return len(taken) > 1 or len(given) > len(taken)


def check_agreement(model: nn.Module, ours: object, theirs: object, again: object) -> None:
    """Refuse a network that, taken apart, is not what it was; ``theirs`` and ``again`` are two runs of the original,
    one after the other, the second None if they drew random numbers."""
    kind = type(model).__name__
    if not isinstance(theirs, torch.Tensor):
        raise ValueError(
            f"model {kind} returns a {type(theirs).__name__}, not one tensor; "
            "wrap it in a module whose forward returns the scores alone"
        )
    if not _alike(again, theirs):
        raise ValueError(
            f"model {kind} gives the same images other outputs each time; make dropout a module, or pass "
            "training=self.training to it, and take out what is random or kept between calls"
        )
    if not _alike(ours, theirs) and (fold.is_hooked(model) or "forward" in vars(model)):
        raise ValueError(
            f"model {kind} has hooks or a forward put on it, which torch.fx leaves out; pass torch.nn.Sequential(model)"
        )
    if not _alike(ours, theirs):
        raise ValueError(
            f"model {kind} is another function when torch.fx has traced it and batch norms are folded; take out of "
            "forward what depends on the data or is kept between calls, or use Scheme(fold_batch_norm=False)"
        )


def check_modules(model: fx.GraphModule, kind: str, kept: Kept) -> dict[str, int]:
    """Refuse every module whose weights would be left in float without a word; those that ``keep`` names are returned,
    with their number of weights."""
    left = {}
    for node in model.graph.nodes:
        part = module_of(model, node)
        if is_quantizable(part):
            _check_layer(node.target, part, kind)
        elif part is not None and not isinstance(part, _NORMS) and any(True for _ in part.parameters()):
            _check_kept(node.target, f"a {type(part).__name__}", kind, kept)
            left[node.target] = sum(value.numel() for value in part.parameters() if value.ndim > 1)
    return left


def check_functions(model: fx.GraphModule, kind: str, trial: Trial, kept: Kept) -> dict[str, int]:
    """As :func:`check_modules`, of parameters and buffers that ``forward`` itself multiplies by; parameters of two or
    more dimensions that it does not (a table of positions) are returned too."""
    left: dict[str, int] = {}
    constant: dict[fx.Node, list[str]] = {}
    for node in model.graph.nodes:
        _note_constant(model, node, constant)
        if node.op not in ("call_function", "call_method"):
            continue
        names = [name for source in node.all_input_nodes for name in constant.get(source, [])]
        if node.name in trial.products:
            spoken = getattr(node.target, "__name__", str(node.target))
            for name in names:
                _check_kept(name, f"used by {spoken} outside of a module", kind, kept)
        left |= {name: size for name in names if (size := _size(model, name))}
    for name, sources in trial.overwritten.items():
        if any(source in constant for source in sources):
            raise ValueError(f"model {kind} changes a parameter or buffer of its own ({name}); take it out of forward")
    return left


def _check_layer(name: str, layer: nn.Module, kind: str) -> None:
    if "weight" not in layer._parameters:
        raise ValueError(
            f"layer {name} of model {kind} computes its weight anew each time (weight norm, pruning, ...); "
            "make it a plain parameter first, e.g. with torch.nn.utils.parametrize.remove_parametrizations"
        )
    if fold.plain_kind(layer) is None:
        raise ValueError(
            f"layer {name} of model {kind} is a {type(layer).__name__} with a forward of its own, which cannot be "
            "quantized here; let a module hold a plain Conv2d or Linear and do the rest around it"
        )


def _check_kept(name: str, what: str, kind: str, kept: Kept) -> None:
    if kept.width(name) != FULL_PRECISION:
        role = "weight" if what.startswith("used") else "layer"
        raise ValueError(
            f"{role} {name} of model {kind} is {what}, which cannot be quantized here and would stay in float; "
            f"make it Conv2d or Linear modules, or agree to that with keep={{{name!r}: 32}}"
        )


def _note_constant(model: fx.GraphModule, node: fx.Node, constant: dict[fx.Node, list[str]]) -> None:
    """Which parameters and buffers a value is made of that does not depend on the images."""
    if node.op == "get_attr":
        constant[node] = [str(node.target)] if isinstance(attrgetter(node.target)(model), torch.Tensor) else []
    elif node.op in ("call_function", "call_method") and node.all_input_nodes:
        if all(source in constant for source in node.all_input_nodes):
            constant[node] = [name for source in node.all_input_nodes for name in constant[source]]


def _size(model: nn.Module, name: str) -> int:
    """Weights of a parameter that has two or more dimensions to speak of; 0 for others and for buffers."""
    value = attrgetter(name)(model)
    matrix = isinstance(value, nn.Parameter) and sum(size > 1 for size in value.shape) > 1
    return value.numel() if matrix else 0


def _alike(ours: object, theirs: torch.Tensor) -> bool:
    if not isinstance(ours, torch.Tensor) or ours.shape != theirs.shape:
        return False
    if not theirs.is_floating_point() or not bool(torch.isfinite(theirs).all()):
        return True  # what is not finite is refused, by its own name, where ranges are read
    coarse = AGREEMENT if theirs.dtype in (torch.float32, torch.float64) else 0.1
    limit = coarse * float(theirs.abs().max())
    return float((ours - theirs).abs().max()) <= limit


def names_in_doubt(model: nn.Module, layers: Sequence[str]) -> str:
    """For the message of a failed trace: the first module that could not have been quantized anyway."""
    for name, part in model.named_modules():
        own = any(value.ndim > 1 for value in part._parameters.values() if value is not None)
        if name not in layers and type(part).__module__.startswith("torch.nn") and own and not isinstance(part, _NORMS):
            return f"; layer {name} is a {type(part).__name__}, which cannot be quantized here"
    return ""
