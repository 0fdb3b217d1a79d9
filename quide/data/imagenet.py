"""ImageNet-1K from a folder of yours: the files stay where they are and are decoded as they are needed."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from quide import _files, _paths
from quide.data.datasets import normalize

MOST_PIXELS = 80_000_000  # the largest of ImageNet has 61 million
RESIZE, CROP = 256, 224  # pixels: the short side, then the central square
ENDINGS = {".jpeg", ".jpg", ".png"}
WNID = re.compile(r"n\d{8}")
CLASSES = 1000
# Of the sorted names of the class folders, a space after each: another thousand classes would be numbered wrongly.
WNIDS_SHA256 = "ce8493614d20b4ea7a4ffac0434a1469a862d048e3b80897fcd5a43cf53f77df"
REMEDY = "name the folder that holds val/<class>/*.JPEG in QUIDE_IMAGENET"


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Labelled images in files, with the methods of :class:`quide.data.datasets.ImageSet` that scoring a network needs.

    ``files`` are the paths, ``labels`` int64 ``(n,)``; ``mean`` and ``std`` (per channel R, G, B, on the 0..1 scale)
    turn pixels into network input.
    """

    files: tuple[Path, ...]
    labels: torch.Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.files)

    def normalized(self) -> torch.Tensor:
        """Float32 network input ``(n, 3, 224, 224)``, channels-last, of all the images at once."""
        pixels = torch.empty(len(self), 3, CROP, CROP, dtype=torch.uint8)
        for place, file in enumerate(self.files):
            pixels[place] = torch.from_numpy(decode(file)).permute(2, 0, 1)
        return normalize(pixels, self.mean, self.std)

    def batches(self, size: int) -> Iterator[torch.Tensor]:
        """Network input in batches of ``size``, decoded one batch at a time so that memory stays flat."""
        places = range(len(self))
        return (self.subset(places[start : start + size]).normalized() for start in places[::size])

    def subset(self, indices: Sequence[int] | torch.Tensor) -> ImageFiles:
        """The chosen images and labels, in the order given."""
        chosen = [int(index) for index in indices]
        return ImageFiles(tuple(self.files[index] for index in chosen), self.labels[chosen], self.mean, self.std)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the images: class folder, name and contents of each file, in order."""
        total = hashlib.sha256()
        for file in self.files:
            total.update(f"{file.parent.name}/{file.name}\0".encode())
            with _files.reading(file, "put the original file there"):
                total.update(hashlib.sha256(_files.content(file)).digest())
        return total.hexdigest()


def folder() -> Path | None:
    """The folder named by ``QUIDE_IMAGENET``; None when the variable is not set."""
    return _paths.named("QUIDE_IMAGENET")


def has(split: str) -> bool:
    """Whether there is a folder for a split, ``"val"`` or ``"train"``; :func:`load` checks what is in it."""
    root = folder()
    return root is not None and (root / split).is_dir()


def load(split: str, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageFiles:
    """The images of a split, in the layout of torchvision's ``ImageNet`` and ``ImageFolder``: a folder for each class.

    The folders' names, sorted, give the numbers of the classes. Any number of images a class will do, but no class may
    be absent. The order is by class, then by file name. Nothing is decoded.

    Args:
        split: ``"val"`` or ``"train"``.
        mean, std: of the network that is to see the images, as in :class:`ImageFiles`.

    Raises:
        FileNotFoundError: ``QUIDE_IMAGENET`` is not set, or has no such split.
        ValueError: the class folders are not those of ImageNet-1K, or one is empty.
    """
    if not has(split):
        where = "QUIDE_IMAGENET is not set" if folder() is None else f"{folder()} has no folder {split}"
        raise FileNotFoundError(f"{where}; {REMEDY}")
    place = folder() / split
    names = sorted(entry.name for entry in os.scandir(place) if WNID.fullmatch(entry.name))
    if hashlib.sha256("".join(f"{name} " for name in names).encode()).hexdigest() != WNIDS_SHA256:
        raise ValueError(
            f"{place} does not hold the {CLASSES:,} class folders of ImageNet-1K (it has {len(names):,} named like "
            f"n01440764), so that classes could not be numbered; {REMEDY}"
        )
    files, labels = [], []
    for label, name in enumerate(names):
        found = sorted(file for file in (place / name).iterdir() if file.suffix.lower() in ENDINGS)
        if not found:
            raise ValueError(f"{place / name} holds no image ({', '.join(sorted(ENDINGS))}); put its images back")
        files += found
        labels += [label] * len(found)
    return ImageFiles(tuple(files), torch.tensor(labels), mean, std)


def _opened(file: Path) -> Image.Image:
    """Of the formats that ImageNet holds alone: what reads others may start programs."""
    return Image.open(_files.regular(file), formats=("JPEG", "PNG"))


def decode(file: Path) -> np.ndarray:
    """The central 224 x 224 pixels after scaling the short side to 256: uint8 ``(224, 224, 3)``, R, G, B.

    The same pixels as torchvision's ``Resize(256)`` and ``CenterCrop(224)`` give.

    Raises:
        ValueError: the file does not decode; the message names it.
    """
    with _files.reading(file, "put the original file there"), _opened(file) as opened:
        short = min(opened.size)
        size = tuple(RESIZE if side == short else int(RESIZE * side / short) for side in opened.size)
        if max(math.prod(opened.size), math.prod(size)) > MOST_PIXELS:  # known before anything is decoded
            raise ValueError(f"no photograph has {opened.size[0]} x {opened.size[1]} pixels")
        image = opened.convert("RGB")
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - CROP) / 2) for side in size)
    return np.array(image.crop((left, top, left + CROP, top + CROP)))
