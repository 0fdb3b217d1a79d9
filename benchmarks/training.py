"""Training with QuIDE, beside the usual DataLoader loop and beside bare forward and backward passes.

Every contestant trains the same network by the same recipe (crop, flip, Adam, batches of 128) on the same images, for a
fixed number of batches: a scaled epoch. QuIDE's includes what :func:`fit` does once a run (padding the
images, copying the weights, one test image); the DataLoader's workers are started beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks import denormals, harness
from benchmarks.harness import Goal, Result, Size
from quide import latency
from quide.data.datasets import ImageSet
from quide.models import networks, train

RECIPE = train.SIMPLECNN_AUGMENTED.shortened(1)
WORKERS = (0, 2)
DATALOADER_FACTOR, BARE_LIMIT = 3.0, 1.2
QUIDE, BARE = "QuIDE", "bare steps"

Batch = tuple[torch.Tensor, torch.Tensor]
Pass = Callable[[], float]


def run(size: Size, progress: bool = False) -> Result:
    """Measure it."""
    found, source = harness.images("train", size.training_batches * RECIPE.batch_size)
    batches = len(found) // RECIPE.batch_size
    found = found.subset(slice(0, batches * RECIPE.batch_size))
    inputs = {"images": len(found), "source": source, "batches": batches, "network": "SimpleCNN"}
    result = Result("training", size.name, inputs)
    passes: dict[str, Pass] = {QUIDE: _quide(found)}
    passes |= {f"DataLoader, {workers} workers": _usual(found, workers) for workers in WORKERS}
    passes[f"{BARE}, channels-last, fused Adam"] = _bare(found, batches, torch.channels_last, fused=True)
    passes[f"{BARE}, contiguous, default Adam"] = _bare(found, batches, torch.contiguous_format, fused=False)
    losses: dict[str, float | None] = {}
    timed = {name: _outside_inference_mode(name, one_pass, losses) for name, one_pass in passes.items()}
    timings = latency.measure_interleaved(
        timed, warmup=1, passes=size.rounds, block=1, progress=progress, wait_s=size.wait_s
    )
    result.add_timings("training", timings)
    rows = {
        name: {
            "contestant": name,
            **harness.quantiles(timings, name),
            "of_QuIDE": timings.latencies[name].median_ms / timings.latencies[QUIDE].median_ms,
            "first_loss": losses[name],
        }
        for name in passes
    }
    result.tables[f"{batches} batches of {RECIPE.batch_size}"] = list(rows.values())
    loader, bare = (
        min(row["of_QuIDE"] for name, row in rows.items() if name.startswith(start)) for start in ("DataLoader", BARE)
    )
    result.goals += [
        Goal("the faster DataLoader loop, of QuIDE", loader, "at least", DATALOADER_FACTOR),
        Goal("QuIDE, of the faster bare steps", 1 / bare, "at most", BARE_LIMIT),
    ]
    result.tables["A step late in training"] = denormals.compare(size, progress)
    return result


def _outside_inference_mode(name: str, one_pass: Pass, losses: dict[str, float | None]) -> Callable[[], None]:
    """A pass as the timing protocol can call it; its first mean loss is kept, to show that all do the same work.

    But not that of one batch learned by heart, which compares with nothing.
    """

    def call() -> None:
        with torch.inference_mode(False):
            loss = one_pass()
        losses.setdefault(name, None if name.startswith(BARE) else loss)

    return call


def _quide(found: ImageSet) -> Pass:
    model, probe = _model(torch.channels_last), found.subset(slice(0, 1))
    return lambda: train.fit(model, found, probe, RECIPE, seed=0, progress=False).history[0]["loss"]


def _usual(found: ImageSet, workers: int) -> Pass:
    """The loop of most tutorials: image by image through torchvision's transforms, default layout and optimizer."""
    steps = [
        transforms.RandomCrop(found.images.shape[-1], padding=train.PADDING),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(found.mean, found.std),
    ]
    loader = DataLoader(
        _Pictures(found, transforms.Compose(steps)), RECIPE.batch_size, shuffle=True, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    model = _model(torch.contiguous_format)
    return _loop(model, _adam(model, fused=None), loader)


def _bare(found: ImageSet, batches: int, layout: torch.memory_format, fused: bool) -> Pass:
    """Forward, backward and optimizer step on one batch, again and again."""
    chosen = slice(0, RECIPE.batch_size)
    inputs, labels = found.normalized(chosen).contiguous(memory_format=layout), found.labels[chosen]
    model = _model(layout)
    return _loop(model, _adam(model, fused or None), [(inputs, labels)] * batches)


def _loop(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Batch]) -> Pass:
    def one_pass() -> float:
        model.train()
        total, count = torch.zeros(()), 0
        for inputs, labels in batches:
            loss = F.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(labels)
            count += len(labels)
        return total.item() / count

    return one_pass


class _Pictures(Dataset):
    """Images one by one as :class:`torchvision.datasets.CIFAR10` gives them."""

    def __init__(self, found: ImageSet, transform: Callable):
        self.pixels, self.labels = found.images.permute(0, 2, 3, 1).numpy(), found.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def _model(layout: torch.memory_format) -> nn.Module:
    return networks.build("simplecnn", num_classes=10, in_channels=3, image_size=32, seed=0).to(memory_format=layout)


def _adam(model: nn.Module, fused: bool | None) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=RECIPE.learning_rate, weight_decay=RECIPE.weight_decay, fused=fused)
