"""Write the embedded images anew from the full verified splits in the cache (ten seconds or so): data/embedded.

Run as ``python tools/make_embedded.py``, after ``quide data fetch mnist cifar10``.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from quide import _paths
from quide.data import datasets, embedded


def build() -> list[Path]:
    """Write every part; returns the files.

    Raises:
        FileNotFoundError: a full split has not been fetched.
        ValueError: the chosen images are not those that :data:`quide.data.embedded.PARTS` pins; nothing of that part is
            written.
    """
    written = []
    for name, parts in embedded.PARTS.items():
        for part, spec in parts.items():
            chosen = embedded.select(name, part)
            images, labels = chosen.images.permute(0, 2, 3, 1).numpy(), chosen.labels.numpy().astype(np.uint8)
            if (found := datasets.digest(images, labels)) != spec.sha256:
                raise ValueError(f"PARTS pins other {name} {part} images than those chosen, whose SHA-256 is {found}")
            encoded = webp(images, spec.columns), _npy(labels)
            for file, data in zip(embedded.files(name, part), encoded, strict=True):
                with _paths.atomic(file) as partial:
                    partial.write_bytes(data)
                written.append(file)
    return written


def webp(images: np.ndarray, columns: int) -> bytes:
    """A lossless picture of ``(n, h, w, c)`` images, ``columns`` of them to a row."""
    count, height, width, channels = images.shape
    rows = images.reshape(count // columns, columns, height, width, channels).swapaxes(1, 2)
    grid = rows.reshape(count // columns * height, columns * width, channels)
    encoded = io.BytesIO()
    # quality 100 would take a hundred times as long for half a per cent
    Image.fromarray(grid.squeeze()).save(encoded, "WEBP", lossless=True, exact=True, quality=99, method=6)
    return encoded.getvalue()


def _npy(labels: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    np.save(encoded, labels)
    return encoded.getvalue()


if __name__ == "__main__":
    for file in build():
        print(f"Written: {file}")
