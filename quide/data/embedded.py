"""The real images that travel with the checkout, so that everything runs without a network.

Each part is one lossless WebP picture, a grid of images that any viewer shows, and a file of labels. The SHA-256 in
:data:`PARTS` is over the decoded arrays, as in :mod:`quide.data.datasets`, so the encoder's version does not matter.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from quide import _files, _paths
from quide._check import one_of
from quide.data import datasets
from quide.data.datasets import DatasetInfo, ImageSet
from quide.data.facts import PARTS, Part

POOL_SEED = 0  # of the one draw that fixed which training images the calibration pools hold


def load(name: str, part: str) -> ImageSet:
    """One embedded part, checked against its SHA-256.

    Args:
        name: ``"mnist"`` or ``"cifar10"``.
        part: ``"test"``, the first images of the test split in its order (of MNIST, all 10,000), or ``"calibration"``,
            1,024 training images drawn once and for all, from which a run's seed draws its own.

    Raises:
        ValueError: unknown name or part, or a file whose contents are not the pinned ones.
        FileNotFoundError: a file is missing; the message names it and the remedy.
    """
    spec, facts = _part(name, part), datasets.info(name)
    picture, numbers = files(name, part)
    with _files.committed(picture):
        images = _read_picture(picture, spec, facts)
    with _files.committed(numbers):
        labels = np.load(io.BytesIO(_files.content(numbers)), allow_pickle=False)
    with _files.reading(f"{picture} with {numbers.name}", f"restore it with: git checkout -- {picture.parent}"):
        datasets.check(facts, spec.count, images, labels, spec.sha256)
    return datasets.image_set(images, labels, facts)


def files(name: str, part: str) -> tuple[Path, Path]:
    """The picture and the labels of a part."""
    _part(name, part)
    return _paths.embedded() / f"{name}-{part}.webp", _paths.embedded() / f"{name}-{part}-labels.npy"


def select(name: str, part: str) -> ImageSet:
    """The images of a part, taken from the full split in the cache."""
    spec = _part(name, part)
    full = datasets.load(name, spec.split)
    if spec.drawn:
        return full.subset(datasets.calibration_indices(len(full), spec.count, POOL_SEED))
    return full.subset(slice(spec.count))


def _part(name: str, part: str) -> Part:
    if datasets.info(name).name not in PARTS:
        raise ValueError(f"{name} has no embedded images, only {', '.join(PARTS)} have; run: quide data fetch {name}")
    return PARTS[name][one_of("part", part, PARTS[name])]


def _read_picture(file: Path, spec: Part, facts: DatasetInfo) -> np.ndarray:
    """The images ``(n, h, w, c)`` of a picture; a grey one decodes to three equal channels, of which one is kept."""
    side, rows = facts.image_size, spec.count // spec.columns
    with Image.open(io.BytesIO(_files.content(file)), formats=("WEBP",)) as picture:
        if picture.size != (spec.columns * side, rows * side):
            raise ValueError(f"its size is {picture.size}")
        grid = np.asarray(picture.convert("RGB"))[..., : facts.channels]
    images = grid.reshape(rows, side, spec.columns, side, facts.channels).swapaxes(1, 2)
    return images.reshape(spec.count, side, side, facts.channels)
