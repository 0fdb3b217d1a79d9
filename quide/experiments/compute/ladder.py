"""Computes what records of the ladder hold; :mod:`quide.experiments.ladder` says what they are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import fx, nn
from tqdm import tqdm

from quide import evaluate, ptq
from quide.data import datasets
from quide.data.datasets import ImageSet, normalize
from quide.experiments import inputs
from quide.experiments.compute.images import scored
from quide.experiments.ladder import CALIBRATION_SIZE, DRAWS, EDGE_BITS, RUNGS, SIZES, STRANGE, STRANGE_IMAGES, Rung
from quide.experiments.runs import Case
from quide.models import train
from quide.ptq import lsq
from quide.ptq.width import Width, label, read

BATCH_SIZE = 128
LEARNED = ("adaround", "brecq")  # where techniques that learn to round leave how it went


def ladder(case: Case, rung: str) -> dict:
    chosen, test = RUNGS[rung], inputs.test_images(case)
    model, calibration = inputs.network(case), inputs.calibration_images(case, CALIBRATION_SIZE)
    hits = {"32": evaluate.correct(ptq.prepare(model, calibration, chosen.scheme).full_precision(), test)}
    seconds, checks = {}, {}
    for width in chosen.widths:
        started = time.perf_counter()
        rounded = _rounded(case, chosen, model, calibration, width)
        seconds[label(width)] = round(time.perf_counter() - started, 2)
        checks[label(width)] = _checks(rounded)
        hits[label(width)] = evaluate.correct(rounded, test)
    return scored(hits) | {
        "seconds": seconds,
        "checks": checks,
        "threads": torch.get_num_threads(),
        "images": len(test),
    }


def calibration_draws(case: Case, rung: str, bits: str) -> dict:
    model, pool, test = inputs.network(case), inputs.training_images(case), inputs.test_images(case)
    chosen, width = RUNGS[rung], read(bits)
    sets = {
        f"{size}, {draw}": partial(_drawn, pool, size, case.seed * 1000 + draw)
        for size in SIZES for draw in range(DRAWS)
    } | {
        f"{name}, {draw}": partial(_strange, name, pool, case.seed * 1000 + draw)
        for name in STRANGE for draw in range(DRAWS)
    }  # fmt: skip
    hits = {
        name: evaluate.correct(_rounded(case, chosen, model, images(), width), test)
        for name, images in tqdm(sets.items(), "calibration sets")
    }
    return scored(hits) | {"images": len(test)}


def _drawn(pool: ImageSet, size: int, seed: int) -> torch.Tensor:
    return pool.normalized(datasets.calibration_indices(len(pool), size, seed))


def _strange(name: str, pool: ImageSet, seed: int) -> torch.Tensor:
    """Images that look like none of the pool."""
    channels, *size = pool.images.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    if name == "noise":
        return torch.randn(STRANGE_IMAGES, channels, *size, generator=generator)
    digits = datasets.load("mnist", "train").images
    digits = digits[torch.randint(len(digits), (STRANGE_IMAGES,), generator=generator)]
    missing = size[0] - digits.shape[-1]
    padded = torch.nn.functional.pad(digits, [missing // 2, missing - missing // 2] * 2)
    return normalize(padded.expand(-1, channels, -1, -1), pool.mean, pool.std)


def _rounded(case: Case, rung: Rung, model: nn.Module, calibration: torch.Tensor, width: Width) -> nn.Module:
    layers = ptq.quantizable_layers(model)
    keep = {layers[0]: Width(width.weights, max(width.activations, EDGE_BITS))} if rung.keeps else {}
    if rung.keeps == "edges":
        keep = {layers[0]: EDGE_BITS, layers[-1]: EDGE_BITS}
    if not rung.epochs:
        return ptq.quantize(model, width, calibration, rung.scheme, rung.techniques, keep=keep)
    return lsq.qat(
        model, Augmented(inputs.training_images(case), case), width, rung.scheme, dict(rung.epochs)[label(width)],
        keep=keep, batch_norm=rung.batch_norm, progress=True,
    )  # fmt: skip


class Augmented:
    """Batches of normalized training images, augmented as the network was trained, in the order of seed and epoch."""

    def __init__(self, images: ImageSet, case: Case):
        self.images, self.seed, self.epoch = images, case.seed, 0
        self.crops = case.dataset != "mnist"
        self.source = train.source(images.images, self.crops)

    def __len__(self) -> int:
        return -(-len(self.images) // BATCH_SIZE)

    def set_epoch(self, epoch: int) -> None:
        """Which order and augmentation come next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return train.batches(self.source, self.images, BATCH_SIZE, self.crops, self.seed, self.epoch)


def _checks(rounded: fx.GraphModule) -> dict:
    """How what learned to round went; nothing of other rungs."""
    report = next((rounded.meta[name] for name in LEARNED if name in rounded.meta), {})
    return report and {
        "closed": min(one.closed for one in report.values()),
        "nearest": sum(one.nearest for one in report.values()),
        "hard": sum(one.hard for one in report.values()),
    }
