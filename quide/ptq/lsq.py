"""Quantization-aware training with learned step sizes: :func:`qat` (LSQ, Esser et al. 2020, arXiv 1902.08153)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from tqdm import tqdm

from quide import _denormals
from quide._check import one_of, whole
from quide._files import brief
from quide._random import seeded
from quide.ptq import check, fold, trial
from quide.ptq import graph as graphs
from quide.ptq.grid import HALVES, FakeQuantize, HalfPrecision
from quide.ptq.layers import is_quantizable
from quide.ptq.learned import LearnedQuantizer
from quide.ptq.prepared import META, Prepared, prepare, weight_grid
from quide.ptq.progress import Progress
from quide.ptq.scheme import BEST, Scheme
from quide.ptq.width import Bits, both

CALIBRATION = 512  # images that the first step sizes are read from
REESTIMATED = 50  # batches that statistics of batch norms are read from anew
BATCH_NORMS = ("folded", "left", "reestimated")
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class _Training:
    """How :func:`qat` trains; its arguments say what each is."""

    epochs: int
    learning_rate: float
    weight_decay: float
    batch_norm: str
    seed: int


@_denormals.flushed()
@torch.inference_mode(False)
def qat(
    model: nn.Module,
    train: Batches | tuple[torch.Tensor, torch.Tensor],
    bits: Bits | Sequence[Bits],
    scheme: Scheme = BEST,
    epochs: int = 1,
    *,
    keep: Mapping[str, Bits] | None = None,
    learning_rate: float = 0.003,
    weight_decay: float = 1e-4,
    batch_norm: str = "folded",
    batch_size: int = 128,
    seed: int = 0,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
    mixed_precision: bool = False,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> nn.Module:
    """Train a network as it will be rounded, its step sizes too, from the weights it has; the model is left as it was.
    All weights learn, those that are frozen in the model too.

    Stochastic gradient descent with momentum 0.9 and a cosine schedule. Weights start at LSQ's step,
    ``2 mean|v| / sqrt(Qp)``, as do activations that are never negative; others at the scheme's range. Weight decay is
    for weights alone.

    Args:
        model, bits, scheme, keep: as :func:`quide.quantize` takes them. Many keep the first and the last layer at 8
            bits: ``keep={"conv1": 8, "fc": 8}``.
        train: batches of normalized images and their labels, gone through once an epoch, such as a DataLoader; or all
            images and all labels, from which batches are drawn. The first images are the calibration set.
        epochs: times that all is seen.
        batch_norm: ``"folded"`` before training; ``"left"`` in the network; or ``"reestimated"``: trained as they are,
            then given statistics of the rounded network and folded into weights that have a scale a channel.
        batch_size: of batches that are drawn from tensors.
        seed: of their order, of dropout and of what a DataLoader shuffles.
        loss: of outputs and labels, a mean over the batch.
        mixed_precision: compute layers in bfloat16, which is faster where the processor multiplies it.
        checkpoint: a file that each epoch is kept in; a run that was interrupted goes on from it.
        progress: show how far it is.

    Returns:
        What :func:`quide.quantize` returns; ``meta["qat"]`` holds the mean loss of each epoch.

    Raises:
        ValueError: as :func:`quide.quantize`; nothing to train at 32 bits, no batches, or a loss that is not finite.
    """
    how = _Training(whole("epochs", epochs, 1), learning_rate, weight_decay, batch_norm, whole("seed", seed, 0))
    one_of("batch_norm", batch_norm, BATCH_NORMS)
    check.check_scheme(scheme)
    batch_size = whole("batch_size", batch_size, 1)
    batches = _Shuffled(*train, batch_size, seed) if _is_pair(train) else train
    with seeded(seed):  # of loaders that shuffle
        calibration = _first_images(batches)
    training_scheme = scheme if batch_norm == "folded" else replace(scheme, fold_batch_norm=False)
    prepared = prepare(model, calibration, training_scheme, keep=keep, fastest_layout=True)
    if any(value.dtype in HALVES for value in prepared.graph.parameters()):
        raise ValueError("model is in half precision; pass model.float(), and mixed_precision=True where it is faster")
    network = prepared.at(bits, commute=False)
    if isinstance(network, HalfPrecision) or not _let_learn(network, prepared, bits):
        raise ValueError(f"bits must round something that training can make up for, got {bits!r}")
    _start(network, calibration)
    losses = _fit(network, batches, how, loss, mixed_precision, checkpoint, progress)
    if batch_norm == "reestimated":
        with seeded(seed):
            _reestimate(network, batches)
    _settle(network, prepared.scheme)
    if batch_norm == "reestimated" and scheme.weight_per_channel and scheme.activation_site == "input":
        _fold(network, calibration)
        network.meta[META] = replace(network.meta[META], scheme=scheme)
    graphs.commute(network)
    network.meta[META] = replace(network.meta[META], commute=True)
    network.meta["qat"] = losses
    network.graph.lint()
    network.recompile()
    return network.eval().requires_grad_(False)


class _Shuffled:
    """Batches drawn from tensors, in another order each time they are gone through, the same for a seed."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, size: int, seed: int):
        if len(images) != len(labels) or not len(images):
            raise ValueError(f"train must hold as many images as labels, got {len(images)} and {len(labels)}")
        self.images, self.labels, self.size, self.seed, self.epoch = images, labels, size, seed, 0

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def set_epoch(self, epoch: int) -> None:
        """As distributed samplers have it: which order comes next."""
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed((self.seed << 16) + self.epoch)
        for chosen in torch.randperm(len(self.images), generator=generator).split(self.size):
            yield self.images[chosen], self.labels[chosen]


def _first_images(batches: Batches) -> torch.Tensor:
    if not hasattr(batches, "__len__"):
        raise ValueError("train must be tensors or batches with a length, such as a DataLoader: a generator ends once")
    found: list[torch.Tensor] = []
    for pair in batches:
        if not _is_pair(pair):
            raise ValueError("train must be all images and all labels, tensors, or batches of both; got something else")
        found.append(pair[0])
        if sum(map(len, found)) >= CALIBRATION:
            break
    if not found:
        raise ValueError("train holds no batches")
    return torch.cat(found)[:CALIBRATION]


def _is_pair(given: object) -> bool:
    return (
        isinstance(given, (tuple, list)) and len(given) == 2 and all(isinstance(part, torch.Tensor) for part in given)
    )


def _let_learn(network: fx.GraphModule, prepared: Prepared, bits: Bits | Sequence[Bits]) -> int:
    """Put quantizers that learn in the place of those that do not; how many."""
    how, widths = network.meta[META], prepared.widths(bits)
    for layer in how.weight_scales:
        one, exact = network.get_submodule(layer), prepared.graph.get_submodule(layer).weight
        one.weight = nn.Parameter(exact.detach().clone())
        grid = weight_grid(exact, both(widths[layer]).weights, prepared.scheme)
        parametrize.register_parametrization(one, "weight", LearnedQuantizer(grid, of_weights=True))
    for name in how.quantizers.values():
        network.set_submodule(name, LearnedQuantizer(network.get_submodule(name).grid(), of_weights=False))
    network.requires_grad_(True)
    return len(how.weight_scales) + len(how.quantizers)


@torch.no_grad()
def _start(network: fx.GraphModule, calibration: torch.Tensor) -> None:
    """First steps, those of activations in the order they run, each behind what is rounded already.

    Batch norms take the statistics of the batch, as they will in training: those of full precision do not fit what
    few bits leave of the weights, and steps that start far off hardly recover.
    """
    network.eval()
    with ExitStack() as hooks:
        for part in list(network.modules()):
            if isinstance(part, _BatchNorm):
                part.train()
            if parametrize.is_parametrized(part, "weight"):
                part.parametrizations.weight[0].start(part.parametrizations.weight.original)
            elif isinstance(part, LearnedQuantizer) and not part.of_weights and part.zero_point == 0:
                hook = part.register_forward_pre_hook(lambda quantizer, given: quantizer.start(given[0]))
                hooks.callback(hook.remove)
        network(calibration)


def _fit(
    network: fx.GraphModule, batches: Batches, how: _Training, loss: Callable, mixed_precision: bool,
    checkpoint: str | Path | None, progress: bool,
) -> list[float]:  # fmt: skip
    """Train in place; the mean loss of each epoch."""
    optimizer = _optimizer(network, how)
    data = [batches.images, batches.labels, batches.size] if isinstance(batches, _Shuffled) else len(batches)
    named = str(getattr(loss, "__qualname__", loss if isinstance(loss, nn.Module) else type(loss)))
    settings = [how, network.meta[META].bits, network.state_dict(), data, named, mixed_precision]
    kept = Progress(checkpoint, lambda: [Path(__file__).read_text(), *settings])
    losses: list[float] = []
    if (known := kept.read()) is not None:
        network.load_state_dict(known["network"])
        optimizer.load_state_dict(known["optimizer"])
        losses = known["losses"]
    total = how.epochs * len(batches)
    with tqdm(total=total, initial=len(losses) * len(batches), desc="QAT", unit="batch", disable=not progress) as bar:
        for epoch in range(len(losses), how.epochs):
            if hasattr(batches, "set_epoch"):
                batches.set_epoch(epoch)
            with seeded(how.seed, epoch + 1):  # of dropout too
                losses.append(_epoch(network, batches, optimizer, how, epoch, loss, mixed_precision, bar))
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
            kept.write(state)
    return losses


def _epoch(
    network: fx.GraphModule, batches: Batches, optimizer: torch.optim.Optimizer, how: _Training, epoch: int,
    loss: Callable, mixed_precision: bool, bar: tqdm,
) -> float:  # fmt: skip
    """Go through the batches once; the mean loss."""
    network.train()
    seen, summed = 0, 0.0
    for step, (images, labels) in enumerate(batches):
        done = (epoch + step / len(batches)) / how.epochs
        for group in optimizer.param_groups:
            group["lr"] = how.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        try:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=mixed_precision):
                value = loss(network(images), labels)
        except (IndexError, RuntimeError) as error:  # as torch's losses refuse labels that are no classes
            shapes = f"images {tuple(images.shape)} and labels {tuple(labels.shape)}"
            raise ValueError(f"the loss of {shapes}, {labels.dtype}, fails ({brief(error)})") from error
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        seen, summed = seen + len(images), summed + float(value.detach()) * len(images)
        bar.update()
    if not math.isfinite(summed):
        raise ValueError(f"training diverged in epoch {epoch + 1}; lower learning_rate={how.learning_rate}")
    return summed / seen


def _optimizer(network: fx.GraphModule, how: _Training) -> torch.optim.Optimizer:
    weights = [parameter for name, parameter in network.named_parameters() if _decays(network, name)]
    others = [parameter for name, parameter in network.named_parameters() if not _decays(network, name)]
    groups = [{"params": weights, "weight_decay": how.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD([group for group in groups if group["params"]], lr=how.learning_rate, momentum=0.9)


def _decays(network: fx.GraphModule, name: str) -> bool:
    owner, _, last = name.rpartition(".")
    return last == "original" or (last == "weight" and is_quantizable(network.get_submodule(owner)))


@torch.no_grad()
def _reestimate(network: fx.GraphModule, batches: Batches) -> None:
    """Give batch norms the statistics of the rounded network, a plain mean over batches."""
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for number, (images, _) in enumerate(batches):
        if number == REESTIMATED:
            break
        network(images)
    network.eval()


@torch.no_grad()
def _settle(network: fx.GraphModule, scheme: Scheme) -> None:
    """Quantizers that learned become quantizers at what they learned."""
    how = network.meta[META]
    for layer in how.weight_scales:
        one = network.get_submodule(layer)
        how.weight_scales[layer] = one.parametrizations.weight[0].grid().scale
        parametrize.remove_parametrizations(one, "weight")
        one.weight = nn.Parameter(one.weight.detach().clone(), requires_grad=False)
    for name in how.quantizers.values():
        network.set_submodule(name, FakeQuantize(network.get_submodule(name).grid(), scheme.rounding))


def _fold(network: fx.GraphModule, images: torch.Tensor) -> None:
    """Batch norms into the layers before them, whose scales, one a channel, take up what each is multiplied by."""
    scales, factors = network.meta[META].weight_scales, {}
    for layer, (name, (_, gamma)) in fold.affine(network).items():
        norm = network.get_submodule(name)
        factors[name] = layer, (gamma / (norm.running_var + norm.eps).sqrt()).abs()
    network.recompile()
    for name in fold.fold(network, trial.run(network, images[: trial.IMAGES]).ranks):
        layer, factor = factors[name]
        if layer in scales:  # not one that keep leaves at 32 bits
            scales[layer] = scales[layer] * factor.reshape(scales[layer].shape)
