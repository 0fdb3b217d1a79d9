"""Small made-up data sets in the forms the real ones are published in."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from quide.data import datasets

SIZES = {"train": 20, "test": 8}
IDX_STEMS = {"train": "train", "test": "t10k"}


def splits(name: str, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random images and labels of the data set's shape and classes, few of them."""
    facts, random = datasets.INFO[name], np.random.default_rng(seed)
    shape = (facts.image_size, facts.image_size, facts.channels)
    return {
        split: (
            random.integers(0, 256, (n, *shape), dtype=np.uint8),
            random.integers(0, facts.num_classes, n, dtype=np.uint8),
        )
        for split, n in SIZES.items()
    }


def facts(name: str, arrays: dict[str, tuple[np.ndarray, np.ndarray]]) -> datasets.DatasetInfo:
    """The data set's facts with these arrays for its splits, pinned where the real ones are."""
    real = datasets.INFO[name]
    pinned = {split: datasets.digest(*arrays[split]) if real.sha256[split] else None for split in real.sizes}
    return replace(real, sizes={split: len(arrays[split][1]) for split in real.sizes}, sha256=pinned)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def mnist(arrays) -> dict[str, bytes]:
    """File name -> bytes, as unpacked from the original archives."""
    files = {}
    for split, (images, labels) in arrays.items():
        files[f"{IDX_STEMS[split]}-images-idx3-ubyte"] = idx(images[..., 0])
        files[f"{IDX_STEMS[split]}-labels-idx1-ubyte"] = idx(labels)
    return files


def compressed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()}


def cifar_python(arrays, label: str = "labels") -> dict[str, bytes]:
    return {
        file: pickle.dumps({"data": _planes(images), label: labels.tolist()})
        for file, images, labels in _batches(arrays, label)
    }


def cifar_binary(arrays, coarse: bool = False) -> dict[str, bytes]:
    return {
        f"{file}.bin": b"".join(
            bytes([7, label] if coarse else [label]) + plane.tobytes()
            for label, plane in zip(labels, _planes(images), strict=True)
        )
        for file, images, labels in _batches(arrays, "fine_labels" if coarse else "labels")
    }


def cifar_png(arrays) -> dict[str, bytes]:
    files = {f"{file}.png": png(images.reshape(len(images), -1, 3)) for file, images, _ in _batches(arrays, "labels")}
    labels = {f"{split}_lables.json": json.dumps(numbers.tolist()).encode() for split, (_, numbers) in arrays.items()}
    return files | labels


def png(pixels: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def write(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def archive(files: dict[str, bytes], file: Path, inside: str) -> Path:
    """A compressed tar archive with the files in the folder ``inside``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def publish_pickles(monkeypatch, name: str, files: dict[str, bytes]) -> None:
    """Have torchvision vouch for these files."""
    from torchvision import datasets as published

    class_ = {"cifar10": published.CIFAR10, "cifar100": published.CIFAR100}[name]
    listed = [[file, md5(data)] for file, data in files.items() if file != class_.meta["filename"]]
    monkeypatch.setattr(class_, "train_list", [entry for entry in listed if "test" not in entry[0]])
    monkeypatch.setattr(class_, "test_list", [entry for entry in listed if "test" in entry[0]])


def _batches(arrays, label: str):
    """(file, images, labels) as CIFAR-10 (five training batches) or, for ``fine_labels``, CIFAR-100 divides them."""
    if label == "fine_labels":
        yield from ((split, *arrays[split]) for split in arrays)
        return
    images, labels = arrays["train"]
    parts = zip(np.array_split(images, 5), np.array_split(labels, 5), strict=True)
    yield from ((f"data_batch_{number}", *part) for number, part in enumerate(parts, 1))
    yield "test_batch", *arrays["test"]


def _planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3 * 32 * 32)
