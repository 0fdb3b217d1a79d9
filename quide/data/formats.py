"""The file formats MNIST and CIFAR are published in: bytes of one file to uint8 arrays.

Every reader returns ``(images, labels)``: images ``(n, height, width, channels)``, labels ``(n,)``, ``None`` for what
that file does not hold; and raises ``ValueError`` saying what is wrong with the bytes.
"""

from __future__ import annotations

import io
import json
import math
import pickle

import numpy as np
from PIL import Image, UnidentifiedImageError

Arrays = tuple[np.ndarray | None, np.ndarray | None]

CIFAR_SIDE = 32
CIFAR_BYTES = 3 * CIFAR_SIDE**2  # one image: a plane of red, one of green, one of blue


def idx(data: bytes) -> Arrays:
    """An IDX file of unsigned bytes, MNIST's format: images where it has three dimensions, labels where it has one."""
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or data[3] not in (1, 3):
        raise ValueError("is not an IDX file of images or labels in unsigned bytes")
    header = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, header, 4))
    if len(data) != header + math.prod(shape):
        raise ValueError(f"has {len(data)} bytes where its header announces {header + math.prod(shape)}")
    array = np.frombuffer(data, np.uint8, offset=header).reshape(shape)
    return (array[..., None], None) if array.ndim == 3 else (None, array)


def cifar_pickle(data: bytes, label: str = "labels") -> Arrays:
    """A batch of CIFAR's Python version; ``label`` is ``"labels"`` or, in CIFAR-100, ``"fine_labels"``.

    It unpickles, which can run code: give it only bytes whose published checksum has been verified.
    """
    batch = pickle.loads(data, encoding="latin1")
    return _from_planes(np.asarray(batch["data"], np.uint8)), np.asarray(batch[label], np.uint8)


def cifar_binary(data: bytes, label_bytes: int = 1) -> Arrays:
    """A batch of CIFAR's binary version; the class is the last of ``label_bytes`` (CIFAR-100 has two)."""
    if not data or len(data) % (label_bytes + CIFAR_BYTES):
        raise ValueError(f"has {len(data)} bytes, which is not a number of {label_bytes + CIFAR_BYTES}-byte records")
    records = np.frombuffer(data, np.uint8).reshape(-1, label_bytes + CIFAR_BYTES)
    return _from_planes(records[:, label_bytes:]), records[:, label_bytes - 1]


def png_rows(data: bytes) -> Arrays:
    """A PNG each of whose rows is one CIFAR image, pixel after pixel; no labels."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            rows = np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"is not a readable PNG file ({error})") from error
    if rows.shape[1] != CIFAR_SIDE**2:
        raise ValueError(f"is {rows.shape[1]} pixels wide where a row of one image has {CIFAR_SIDE**2}")
    return rows.reshape(-1, CIFAR_SIDE, CIFAR_SIDE, 3), None


def json_labels(data: bytes) -> Arrays:
    """A JSON list of class numbers; no images."""
    try:
        return None, np.array(json.loads(data), dtype=np.uint8)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"is not a JSON list of class numbers ({error})") from error


def _from_planes(flat: np.ndarray) -> np.ndarray:
    """``(n, 3072)`` colour planes to ``(n, 32, 32, 3)``."""
    return flat.reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1)
