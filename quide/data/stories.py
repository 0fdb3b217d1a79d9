"""Sixteen short children's stories, written for this book so that no published model can have seen them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from quide import _files, _paths

SHA256 = "e9f183f57008c4c155a6ea8d1bbe97ada03598b56d9b5e2bd2e725e6b4497e44"  # of the file
CALIBRATION = 4  # stories that ranges are read from; the others are scored


@dataclass(frozen=True)
class Stories:
    """The text: one string a story."""

    calibration: tuple[str, ...]
    scored: tuple[str, ...]


def load() -> Stories:
    """The stories, checked against their SHA-256.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is not the one that :data:`SHA256` pins.
    """
    file = _paths.embedded() / "stories.txt"
    with _files.committed(file):
        content = _files.content(file).replace(b"\r\n", b"\n")
        if hashlib.sha256(content).hexdigest() != SHA256:
            raise ValueError("it does not hold the published stories")
    stories = tuple(content.decode().strip().split("\n\n"))
    return Stories(stories[:CALIBRATION], stories[CALIBRATION:])
