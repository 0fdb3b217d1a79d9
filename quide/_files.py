"""Files that anybody may have written: regular ones, of a bounded size, proven where a SHA-256 is known.

Whatever goes wrong in reading or parsing one is said in one line, with the file and what to do (:func:`reading`).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import stat
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from quide import _paths

LIMIT = 1 << 30  # bytes of a file that is read whole
UNPACKED = 1 << 29  # and of what a compressed file unpacks to: the largest archive of a data set is a third of that
MANIFEST = _paths.PACKAGE / "data.sha256"  # of the checkout's data, written by tools/manifest.py
TEXTS = (".csv", ".json", ".txt")  # whose line ends git may have changed
PUBLISHED = {  # SHA-256 of files that are read under the name they were published by, wherever they lie
    "stories260K.bin": "b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
    "tok512.bin": "037cb335abb25d1fa9e8ecae30ed2a3a8ace9302862ebcdc05d51a6bbb10c312",
    "pretrainedResnet.tflite": "b5c0046d6e0328b4956afd6baa29555a29b1f1c65bdd45aaed75b7cd484d9f79",
    "pretrainedResnet_quant.tflite": "3c002613d1b2475eb51dd78dfb85a546c8ae658dee71cf6ade43b022fe205415",
}


@contextlib.contextmanager
def reading(file: object, remedy: str) -> Iterator[None]:
    """Makes of any error one line that names the file and what to do.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: everything else, whichever type a parser raises.
    """
    try:
        yield
    except Exception as error:
        systems = getattr(error, "errno", None) is not None
        if type(error) in (ValueError, FileNotFoundError) and str(file) in str(error) and not systems:
            raise  # it says so already
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{file} is missing; {remedy}") from error
        raise ValueError(f"{file} cannot be read ({brief(error)}); {remedy}") from error


def committed(file: Path) -> contextlib.AbstractContextManager[None]:
    """The same of a file that belongs to the checkout."""
    return reading(file, f"restore it with: git checkout -- {file}, or set QUIDE_HOME to the checkout that has it")


def brief(error: BaseException) -> str:
    """An error in one short line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if not text or isinstance(error, (LookupError, ImportError, SystemExit, RecursionError)):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return textwrap.shorten(text, 200, placeholder=" …")


def regular(file: Path, limit: float = float("inf")) -> Path:
    """The file, if it is one, and not a pipe or a device, which may never end; ``ValueError`` if not."""
    facts = os.stat(file)
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("it is not a regular file")
    if facts.st_size > limit:
        raise ValueError(f"it has {facts.st_size:,} bytes, and at most {limit:,} are read")
    return Path(file)


def content(file: Path, limit: int = LIMIT) -> bytes:
    """The bytes of a regular file; ``ValueError`` if another one was published under its name."""
    found = regular(file, limit).read_bytes()
    if (name := Path(file).name) in PUBLISHED and digest(name, found) != PUBLISHED[name]:
        raise ValueError("its SHA-256 is not that of the file that was published under this name")
    return found


def memory() -> int:
    """Bytes of memory that the machine has; as many as one likes where it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 62


def unpacked(packed: bytes, limit: int = UNPACKED) -> bytes:
    """What gzip packed; ``ValueError`` if it is more than ``limit`` bytes, before they are all in memory."""
    found = bytearray()
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
        while part := stream.read(1 << 20):
            found += part
            if len(found) > limit:
                raise ValueError(f"it unpacks to more than {limit:,} bytes")
    return bytes(found)


def digest(name: str, found: bytes) -> str:
    """SHA-256 of a file's bytes, of a text with line feeds alone."""
    return hashlib.sha256(found.replace(b"\r\n", b"\n") if name.endswith(TEXTS) else found).hexdigest()


def prove(name: str, found: bytes) -> bytes:
    """The bytes, if they are those of the file of that name below ``data/``; ``ValueError`` if not."""
    if digest(name, found) != _manifest().get(name):
        raise ValueError(f"its SHA-256 is not the one that {MANIFEST.name} has for it")
    return found


@cache
def _manifest() -> dict[str, str]:
    with committed(MANIFEST):
        lines = content(MANIFEST).decode("ascii").split("\n")
        return {name.strip(): value for value, _, name in (line.partition("  ") for line in lines) if name}
