"""Image data sets as uint8 tensors in memory, each split pinned by one SHA-256 over its decoded arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from quide import _files, _paths
from quide._check import dense, one_of
from quide.data.facts import INFO, DatasetInfo, info  # noqa: F401 - public names of this module

BATCH = 128  # images classified at once: enough to keep two cores busy, few enough for activations to stay in cache


@dataclass(frozen=True)
class ImageSet:
    """Labelled images in memory.

    ``images`` is uint8 ``(n, channels, height, width)`` stored channels-last, ``labels`` int64 ``(n,)``; ``mean`` and
    ``std`` (per channel, on the 0..1 scale) turn pixels into network input.
    """

    images: torch.Tensor
    labels: torch.Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def normalized(self, indices: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Float32 network input, channels-last, of the chosen images."""
        return normalize(self.images[indices], self.mean, self.std)

    def batches(self, size: int) -> Iterator[torch.Tensor]:
        """Network input in batches of ``size``, normalized one batch at a time so that memory stays flat."""
        return (self.normalized(slice(start, start + size)) for start in range(0, len(self), size))

    def subset(self, indices: torch.Tensor | slice) -> ImageSet:
        """The chosen images and labels, in the order given."""
        return ImageSet(self.images[indices], self.labels[indices], self.mean, self.std)

    def to(self, device: str | torch.device) -> ImageSet:
        """The same set on another device."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.mean, self.std)


def normalize(images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """``(images / 255 - mean) / std`` as float32 in channels-last layout; ``images`` is uint8 ``(n, c, h, w)``."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device).view(-1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device).view(-1, 1, 1)
    return images.to(torch.float32, memory_format=torch.channels_last).mul_(scale).add_(shift)


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 of decoded arrays: images uint8 ``(n, h, w, c)``, then labels as uint8. It proves bytes, not arrays."""
    total = hashlib.sha256(np.ascontiguousarray(images))
    total.update(np.ascontiguousarray(labels.astype(np.uint8)))
    return total.hexdigest()


def check(facts: DatasetInfo, count: int, images: np.ndarray, labels: np.ndarray, sha256: str | None) -> None:
    """``ValueError`` unless they are so many images of a data set, labelled with its classes, and of this digest."""
    shape = (count, facts.image_size, facts.image_size, facts.channels)
    if images.shape != shape or images.dtype != np.uint8 or labels.shape != shape[:1] or labels.dtype != np.uint8:
        raise ValueError(
            f"images {images.dtype} {images.shape} and labels {labels.dtype} {labels.shape} where {count} labelled "
            f"images of shape {shape[1:]} in uint8 belong"
        )
    if labels.max() >= facts.num_classes:
        raise ValueError(f"a label is {labels.max()} where there are {facts.num_classes} classes")
    if sha256 not in (None, digest(images, labels)):
        raise ValueError(f"its arrays do not have SHA-256 {sha256}")


def split_file(name: str, split: str) -> Path:
    """Where the verified arrays of a split are kept in the cache."""
    return _paths.cache() / "datasets" / f"{name}-{split}.safetensors"


def load(name: str, split: str) -> ImageSet:
    """A full split (``"train"`` or ``"test"``) from the cache, checked against its SHA-256.

    Raises:
        FileNotFoundError: it has not been fetched; the message carries the command.
        ValueError: unknown name or split, or the file's contents are not the pinned ones.
    """
    facts = info(name)
    one_of("split", split, facts.sizes)
    file = split_file(name, split)
    if not file.exists():
        raise FileNotFoundError(f"{name} {split} images are not in {file.parent}; run: quide data fetch {name}")
    with _files.reading(file, f"delete it and run: quide data fetch {name}"):
        return image_set(*read(file, facts, split)[:2], facts)


def read(file: Path, facts: DatasetInfo, split: str) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Images and labels of a split, proven, and what was noted when they were fetched; ``ValueError`` if they are not.

    A split that no SHA-256 is pinned for is proven by the one that its fetching noted, once its files were verified.
    """
    with safe_open(_files.regular(file), "numpy") as held:
        noted = held.metadata() or {}
        images, labels = held.get_tensor("images"), held.get_tensor("labels")
    sha256 = facts.sha256[split] or noted.get("sha256")
    if sha256 is None:
        raise ValueError("nothing is known of where its arrays came from")
    check(facts, facts.sizes[split], images, labels, sha256)
    return images, labels, noted


def image_set(images: np.ndarray, labels: np.ndarray, facts: DatasetInfo) -> ImageSet:
    """Wrap decoded arrays (images uint8 ``(n, h, w, c)``) without copying them."""
    return ImageSet(
        torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels.astype(np.int64)), facts.mean, facts.std
    )


def calibration_indices(count: int, size: int, seed: int) -> torch.Tensor:
    """``size`` distinct indices below ``count``, drawn uniformly with the run's seed (§3.3: 512 training images)."""
    if not 0 < size <= count:
        raise ValueError(f"size must be between 1 and the {count} images there are, got {size}")
    return torch.from_numpy(np.random.default_rng(seed).choice(count, size, replace=False))


def are_classes(labels: torch.Tensor) -> bool:
    """Whether labels are whole numbers, as classes are numbered."""
    return not (labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool)


def check_images(images: torch.Tensor, labels: torch.Tensor, any_labels: bool = False) -> None:
    """Refuse what cannot be scored: no images, another number of labels, values that are not normalized numbers;
    ``any_labels`` may have more dimensions than one."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        kind = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"images must be a floating-point tensor of normalized images, got {kind}")
    if not isinstance(labels, torch.Tensor) or labels.ndim < 1 or (labels.ndim > 1 and not any_labels):
        raise ValueError("labels must be a tensor (n,) with the class number of each image")
    dense("images", images)
    dense("labels", labels)
    if images.ndim < 1 or len(images) == 0 or len(images) != len(labels):
        got = f"{len(images)} and {len(labels)}" if images.ndim else "a single number"
        raise ValueError(f"images and labels must be of the same number, at least one; got {got}")
    if not all(bool(torch.isfinite(part).all()) for part in images.split(BATCH)):  # in parts: memory must not grow
        raise ValueError("images hold NaN or infinite values; check their normalization")
