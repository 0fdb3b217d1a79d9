"""Test images and labels: tensors, or batches of an iterable, checked and brought to where the network is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sized

import torch
from tqdm import tqdm

from quide._files import brief
from quide.data.datasets import BATCH, are_classes, check_images
from quide.ptq import check
from quide.ptq.prepared import Prepared

CALIBRATION_SIZE = 512  # images that are taken of an iterable (§3.3)

Images = torch.Tensor | Iterable[tuple[torch.Tensor, torch.Tensor]]
Score = Callable[[torch.Tensor, torch.Tensor], float]


def check_given(images: Images, labels: torch.Tensor | None, scored: bool = False) -> None:
    """Refuse tensors that cannot be scored, and what is neither a tensor nor batches of images and labels; ``scored``
    lets labels be of any type and shape, for a score of the user's."""
    if hasattr(images, "__array_interface__") and not isinstance(images, torch.Tensor):
        raise ValueError("images must be a floating-point tensor, got a numpy array; use torch.from_numpy(images)")
    if isinstance(images, torch.Tensor) or labels is not None:
        check_images(images, labels, scored)
        if not scored and not are_classes(labels):
            raise ValueError(f"labels must be whole numbers, the class of each image, got {labels.dtype}")
    elif not isinstance(images, Iterable):
        raise ValueError(f"images must be a tensor or batches of (images, labels), got {type(images).__name__}")


def check_outputs(outputs: torch.Tensor, labels: torch.Tensor, rows: int | None = None) -> int:
    """Number of classes of a network that returns one score a class, to which all labels belong.

    ``rows`` is the number of images that the outputs are of, that of the labels unless given.
    """
    classes = check_scores(outputs, len(labels) if rows is None else rows).shape[1]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        span = f"{int(labels.min())}..{int(labels.max())}"
        raise ValueError(f"labels lie in {span}, the network's {classes} classes are numbered 0..{classes - 1}")
    return classes


def check_scores(outputs: torch.Tensor, rows: int) -> torch.Tensor:
    """The outputs, of so many images, if there is a score a class for each."""
    if outputs.ndim != 2 or outputs.shape[1] < 2 or len(outputs) != rows:
        one = ", one output an image" if outputs.shape[1:] == (1,) else ""
        raise ValueError(
            f"the network must return one score a class, (n, classes), got {tuple(outputs.shape)}{one}; "
            "in Python, score= takes other outputs"
        )
    return numbers(outputs)


def numbers(outputs: torch.Tensor) -> torch.Tensor:
    """The outputs, unless one is NaN: the first of them would count as the highest."""
    if outputs.isnan().any():
        raise ValueError("the network's scores are NaN; look for NaN in its weights, or for a division by zero in it")
    return outputs


def calibration_images(calibration: torch.Tensor | Iterable, images: Images) -> torch.Tensor:
    """Calibration images as one tensor; the first 512 of an iterable of batches, with labels or without, which must
    not be what the test images still have to be drawn from."""
    if isinstance(calibration, torch.Tensor) or not isinstance(calibration, Iterable):
        return calibration
    if calibration is images and isinstance(images, Iterator):
        raise ValueError("images and calibration are one iterator, which gives each batch once; give one for each")
    taken, count = [], 0
    for batch in calibration:
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not isinstance(images, torch.Tensor) or images.ndim < 2:
            raise ValueError("calibration must be a tensor of one or more images (n, ...), or batches of them")
        taken.append(images)
        count += len(images)
        if count >= CALIBRATION_SIZE:
            break
    return torch.cat(taken)[:CALIBRATION_SIZE] if taken else torch.empty(0, 0)


def scored(score: Score, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """What a score of the user's makes of all outputs: a fraction, or refused."""
    try:
        found = score(outputs, labels.clone())  # which the next network is scored by
    except Exception as error:  # the user's own code
        shapes = f"outputs {tuple(outputs.shape)} and labels {tuple(labels.shape)}"
        raise ValueError(f"score fails ({brief(error)}); it is called with all {shapes}") from error
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"score must return a number in [0, 1] of all outputs and all labels, got {found!r}")
    return value


def gathered(images: Images, labels: torch.Tensor | None, prepared: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
    """All test images and labels in one tensor each, on the network's device."""
    check_given(images, labels)
    pairs = list(batches(images, labels, prepared))
    if not pairs:
        raise ValueError("images hold no batch; give one or more batches of (images, labels)")
    return tuple(torch.cat(parts) for parts in zip(*pairs, strict=True))


def batches(
    images: Images, labels: torch.Tensor | None, prepared: Prepared, progress: bool = False, scored: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of at most 128 images with their labels, on the network's device and in its layout.

    ``scored`` lets labels be of any kind, for a score of the user's.
    """
    device = next((value.device for value in prepared.graph.parameters()), None)
    last = prepared.layout == "channels_last"
    pairs = [(images, labels)] if isinstance(images, torch.Tensor) else images
    total = len(images) if isinstance(images, Sized) else None
    total = -(-total // BATCH) if isinstance(images, torch.Tensor) else total
    with tqdm(total=total, unit="batch", leave=False, disable=not progress) as bar:
        for pair in pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError("images must be a tensor or batches of (images, labels), got something else in them")
            if not isinstance(images, torch.Tensor):
                check_given(*pair, scored)
            for part, truth in zip(pair[0].split(BATCH), pair[1].split(BATCH), strict=True):
                part, truth = part.to(device), truth.to(device, truth.dtype if scored else torch.long)
                check.check_type(prepared.graph, part, "images")
                yield part.contiguous(memory_format=torch.channels_last) if last and part.ndim == 4 else part, truth
                bar.update(isinstance(images, torch.Tensor))
            bar.update(not isinstance(images, torch.Tensor))
