"""The paper's training recipes (§3.3, §4.1): data in memory, augmented in batches, resumable to the same result."""

from __future__ import annotations

import copy
import io
import math
import operator
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from quide import _denormals, _files, _paths
from quide._digest import digest
from quide._random import seeded
from quide.data.datasets import ImageSet, normalize
from quide.evaluate import correct
from quide.models.registry import RESNET18, SIMPLECNN, SIMPLECNN_AUGMENTED, TrainingRecipe  # noqa: F401 - by this name too

SAVED = 5  # times the weights: best, last, and what optimizers keep of each
MOST_BYTES = 1 << 33
PADDING = 4  # pixels of zero padding before a random crop, the usual choice where the paper only says "random crop"


@dataclass
class Fit:
    """What a training run leaves: weights at the best and at the last epoch, and one history row an epoch.

    A history row holds ``epoch`` (from 1), ``loss`` (mean training cross-entropy), ``test_accuracy`` (fraction).
    "Best" is the first epoch with the highest *test* accuracy: the paper names no validation split, so its "peak
    validation accuracy" is read as selection on test, and the last epoch is kept beside it as the unselected figure.
    ``seconds`` is the training time, ``provenance`` that of the process which started the run, ``mixed_precision``
    whether its passes were computed in bfloat16.
    """

    best: dict[str, torch.Tensor]
    last: dict[str, torch.Tensor]
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    provenance: dict = field(default_factory=dict)
    mixed_precision: bool = False


@_denormals.flushed()
def fit(
    model: nn.Module,
    train: ImageSet,
    test: ImageSet,
    recipe: TrainingRecipe,
    seed: int,
    checkpoint: Path | None = None,
    every: int = 2,
    progress: bool = True,
    mixed_precision: bool = False,
    made_by: dict | None = None,
    code: str = "",
    same_code: Callable[[str, str], bool] = operator.eq,
) -> Fit:
    """Train ``model`` in place and return its :class:`Fit`.

    Every epoch draws its order and augmentation from a generator seeded by (seed, epoch), so a run that was killed and
    is called again with the same ``checkpoint`` file continues from the last multiple of ``every`` epochs and ends with
    the same weights as an uninterrupted one (on the same device, thread count and library versions).

    Args:
        model: network that maps normalized images to logits; already on the device of ``train``.
        train, test: image sets on one device.
        recipe: what to do.
        seed: controls order, augmentation and dropout (weights are the caller's).
        checkpoint: file to resume from and to save to; ``None`` saves nothing.
        every: epochs between saves.
        progress: show a bar with the time left.
        mixed_precision: compute the passes in bfloat16 where torch holds it for safe; weights, optimizer and evaluation
            stay in float32. The benchmarks show what it does to the accuracy. A resumed run goes on as it began.
        made_by: who starts the run, kept in the checkpoint and handed back as ``provenance``.
        code: digest of the code that trains; a checkpoint of other code is refused, unless ``same_code`` of both
            digests says that it computes the same.

    Raises:
        ValueError: the checkpoint is damaged, or of another run; or the training diverged.
        OSError: the checkpoint's folder cannot be written to; found out before the first epoch.
    """
    optimizer, schedule = _optimizer(model, recipe)
    fitted = Fit({}, {}, provenance=made_by or {}, mixed_precision=mixed_precision)
    if checkpoint is not None:
        identity = _identity(model, recipe, seed, (train, test), code)
        if checkpoint.exists():
            _restore(checkpoint, model, optimizer, schedule, fitted, identity, same_code)
        if len(fitted.history) < recipe.epochs:
            with _paths.writing(checkpoint.parent, "checkpoints", "QUIDE_CACHE"):
                _paths.try_to_write(checkpoint.parent, SAVED * sum(each.nbytes for each in model.state_dict().values()))
    pixels = source(train.images, recipe.augment)
    bar = tqdm(total=recipe.epochs, initial=len(fitted.history), unit="epoch", disable=not progress, mininterval=5)
    with bar:
        for epoch in range(len(fitted.history) + 1, recipe.epochs + 1):
            started = time.perf_counter()
            with seeded(seed, epoch):  # of dropout
                loss = _epoch(model, pixels, train, optimizer, recipe, fitted.mixed_precision, seed, epoch)
            schedule.step()
            try:
                accuracy = correct(model, test).float().mean().item()
            except ValueError as error:  # the scores are NaN
                raise _diverged(epoch, error, recipe) from error
            fitted.history.append({"epoch": epoch, "loss": loss, "test_accuracy": accuracy})
            if epoch == 1 or accuracy > fitted.history[fitted.best_epoch - 1]["test_accuracy"]:
                fitted.best_epoch, fitted.best = epoch, _weights(model)
            fitted.seconds += time.perf_counter() - started
            bar.set_postfix(loss=f"{loss:.3f}", test=f"{accuracy:.2%}", refresh=False)
            bar.update()
            if checkpoint is not None and (epoch % every == 0 or epoch == recipe.epochs):
                fitted.last = _weights(model)
                _save(checkpoint, optimizer, schedule, fitted, identity)
    fitted.last = _weights(model)
    return fitted


def _epoch(
    model: nn.Module, pixels: torch.Tensor, train: ImageSet, optimizer: torch.optim.Optimizer, recipe: TrainingRecipe,
    mixed_precision: bool, seed: int, epoch: int,
) -> float:  # fmt: skip
    """One pass over the training set; returns the mean loss."""
    model.train()
    total = torch.zeros((), device=pixels.device)
    for inputs, labels in batches(pixels, train, recipe.batch_size, recipe.augment, seed, epoch):
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=mixed_precision):
            loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(labels)
    mean = total.item() / len(train)
    if not math.isfinite(mean):
        raise _diverged(epoch, f"loss {mean}", recipe)
    return mean


def source(images: torch.Tensor, augment: bool) -> torch.Tensor:
    """What :func:`batches` takes pixels from: uint8 ``(n, h, w, c)``, padded with zeros where they are augmented."""
    edge = PADDING if augment else 0
    return F.pad(images.permute(0, 2, 3, 1), (0, 0, edge, edge, edge, edge)).contiguous()


def batches(
    source: torch.Tensor, images: ImageSet, size: int, augment: bool, seed: int, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Network input and labels of an epoch, in the order and with the augmentation that seed and epoch draw."""
    generator = torch.Generator().manual_seed((seed << 16) + epoch)
    for chosen in torch.randperm(len(images), generator=generator).split(size):
        shifts = _draw_augmentation(len(chosen), generator) if augment else None
        chosen = chosen.to(source.device)
        pixels = source[chosen] if shifts is None else _crop_and_flip(source, chosen, *shifts)
        yield normalize(pixels.permute(0, 3, 1, 2), images.mean, images.std), images.labels[chosen]


def _diverged(epoch: int, reason: object, recipe: TrainingRecipe) -> ValueError:
    return ValueError(f"training diverged in epoch {epoch} ({reason}); lower learning_rate={recipe.learning_rate}")


def _draw_augmentation(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Top and left corner (0..2p) and mirror flag of each crop."""
    top, left = torch.randint(0, 2 * PADDING + 1, (2, count), generator=generator)
    return top, left, torch.rand(count, generator=generator) < 0.5


def _crop_and_flip(
    padded: torch.Tensor, chosen: torch.Tensor, top: torch.Tensor, left: torch.Tensor, flip: torch.Tensor
) -> torch.Tensor:
    """Random crop and horizontal flip of a whole batch in one gather from :func:`source`: ``(b, h, w, c)``."""
    side = padded.shape[1] - 2 * PADDING
    steps = torch.arange(side)
    rows = (top[:, None] + steps).to(padded.device)
    columns = (left[:, None] + torch.where(flip[:, None], side - 1 - steps, steps)).to(padded.device)
    return padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]


def _optimizer(model: nn.Module, recipe: TrainingRecipe):
    parameters = list(model.parameters())
    if recipe.optimizer == "adam":
        chosen = torch.optim.Adam(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    elif recipe.optimizer == "sgd":
        chosen = torch.optim.SGD(
            parameters, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
    else:
        raise ValueError(f"optimizer must be 'adam' or 'sgd', got {recipe.optimizer!r}")
    length = recipe.epochs if recipe.cosine else None
    return chosen, torch.optim.lr_scheduler.LambdaLR(
        chosen, lambda epoch: 1.0 if length is None else 0.5 * (1 + math.cos(math.pi * epoch / length))
    )


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _identity(model: nn.Module, recipe: TrainingRecipe, seed: int, sets: tuple[ImageSet, ...], code: str) -> dict:
    """What decides the weights: all of it must be the same for a run to go on from where another ended."""
    network = {name: (str(value.dtype), list(value.shape)) for name, value in model.state_dict().items()}
    data = [digest([each.images, each.labels, each.mean, each.std]) for each in sets]
    return {"recipe": asdict(recipe), "seed": seed, "data": data, "network": digest(network), "code": code}


def _save(file: Path, optimizer, schedule, fitted: Fit, identity: dict) -> None:
    state = {
        "identity": identity,
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "fit": asdict(fitted),
    }
    packed = io.BytesIO()  # torch turns the system's errors into its own, which do not say that a disk is full
    torch.save({**state, "digest": digest(state)}, packed)
    with _paths.writing(file.parent, "checkpoints", "QUIDE_CACHE"), _paths.atomic(file) as partial:
        partial.write_bytes(packed.getbuffer())


def _restore(
    file: Path, model: nn.Module, optimizer, schedule, fitted: Fit, identity: dict, same_code: Callable
) -> None:
    """Continue from a checkpoint; nothing is touched before all of it is known to fit."""
    with _files.reading(f"checkpoint {file}", "delete it to train from the start"):
        saved = torch.load(io.BytesIO(_files.content(file, MOST_BYTES)), weights_only=True, map_location="cpu")
        if saved.pop("digest") != digest(saved):
            raise ValueError("its digest is not that of its content")
        found = dict(saved["identity"])
    if same_code(str(found.get("code")), identity["code"]):
        found["code"] = identity["code"]
    if found != identity:
        differing = ", ".join(sorted(name for name in identity if found.get(name) != identity[name]))
        raise ValueError(
            f"checkpoint {file} belongs to another run (other {differing}); delete it or name another file"
        )
    with _files.reading(f"checkpoint {file}", "it does not fit; delete it to train from the start"):
        _check_checkpoint(saved, model, optimizer)
    model.load_state_dict(saved["fit"]["last"])
    optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
    schedule.load_state_dict(saved["schedule"])
    for name, value in saved["fit"].items():
        setattr(fitted, name, value)


def _check_checkpoint(saved: dict, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Refuse what an epoch of this run cannot have left.

    Fused optimizers write into their state without looking at its size, so state of another size is written past.
    """
    fit = saved["fit"]
    history, epochs = fit["history"], len(fit["history"])
    if unknown := fit.keys() - {each.name for each in fields(Fit)}:
        raise ValueError(f"it says {', '.join(sorted(unknown))} of the fit")
    if [row["epoch"] for row in history] != list(range(1, epochs + 1)) or not 1 <= fit["best_epoch"] <= epochs:
        raise ValueError("its epochs are not numbered from 1, or the best is none of them")
    if not all(math.isfinite(row["loss"]) and 0 <= row["test_accuracy"] <= 1 for row in history):
        raise ValueError("its history holds no losses and accuracies")
    if saved["schedule"]["last_epoch"] != epochs:
        raise ValueError("its learning rate is of another epoch")
    for weights in (fit["best"], fit["last"]):
        _check_alike(weights, model.state_dict())
    kept, (group,), (own,) = saved["optimizer"], saved["optimizer"]["param_groups"], optimizer.param_groups
    count = len(own["params"])
    changed = [name for name in own.keys() & group.keys() - {"params", "lr"} if own[name] != group[name]]
    if changed or group["params"] != list(range(count)) or not 0 <= float(group["lr"]) <= own["initial_lr"]:
        raise ValueError("its optimizer is another")
    one = torch.zeros(())  # the count of steps
    for number, parts in kept["state"].items():
        like = own["params"][number]
        adam = {"step": one, "exp_avg": like, "exp_avg_sq": like}
        _check_alike(parts, adam if "betas" in own else {"momentum_buffer": like})


def _check_alike(tensors: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    if tensors.keys() != wanted.keys():
        raise ValueError(f"{', '.join(map(str, sorted(tensors.keys() ^ wanted.keys())))} is missing or too much")
    for name, tensor in tensors.items():
        shape, dtype = wanted[name].shape, wanted[name].dtype
        if tensor.shape != shape or tensor.dtype != dtype or tensor.layout != torch.strided:
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {tuple(shape)}")
