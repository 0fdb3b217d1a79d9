"""Image data sets as uint8 tensors in memory, each split pinned by one SHA-256 over its decoded arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from quide import _paths
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
    """SHA-256 of decoded arrays: images uint8 ``(n, h, w, c)``, then labels as uint8."""
    total = hashlib.sha256(np.ascontiguousarray(images))
    total.update(np.ascontiguousarray(labels.astype(np.uint8)))
    return total.hexdigest()


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
    if split not in facts.sizes:
        raise ValueError(f"split must be one of {', '.join(facts.sizes)}, got {split!r}")
    file = split_file(name, split)
    if not file.exists():
        raise FileNotFoundError(f"{name} {split} images are not in {file.parent}; run: quide data fetch {name}")
    try:
        arrays = load_file(file)
        images, labels = arrays["images"], arrays["labels"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{file} does not parse ({error}); delete it and run: quide data fetch {name}") from error
    if facts.sha256[split] not in (None, digest(images, labels)):
        raise ValueError(
            f"{file} is not the published {name} {split} split; delete it and run: quide data fetch {name}"
        )
    return image_set(images, labels, facts)


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


def check_images(images: torch.Tensor, labels: torch.Tensor) -> None:
    """Refuse what cannot be scored: no images, another number of labels, values that are not normalized numbers."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        kind = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"images must be a floating-point tensor of normalized images, got {kind}")
    if not isinstance(labels, torch.Tensor) or labels.ndim != 1:
        raise ValueError("labels must be a tensor (n,) with the class number of each image")
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(
            f"images and labels must be of the same number, at least one; got {len(images)} and {len(labels)}"
        )
    if not all(bool(torch.isfinite(part).all()) for part in images.split(BATCH)):  # in parts: memory must not grow
        raise ValueError("images hold NaN or infinite values; check their normalization")
