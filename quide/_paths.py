"""Where things are: the checkout (committed records, embedded data) and the user's cache (downloads, checkpoints).

And how they are written: whole or not at all, by one process at a time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PARTIAL = ".partial"  # ending of what is still being written
ABANDONED_AFTER = 3600  # seconds after which nobody writes to such a file any more


def home() -> Path:
    """The folder that holds ``data/``: ``$QUIDE_HOME``, else the checkout of this package, else the working folder."""
    if named := os.environ.get("QUIDE_HOME"):
        return Path(named)
    checkout = PACKAGE.parent
    return checkout if (checkout / "data" / "paper").is_dir() else Path.cwd()


def cache() -> Path:
    """The folder for verified downloads and training checkpoints: ``$QUIDE_CACHE``, else ``~/.cache/quide``."""
    return Path(os.environ.get("QUIDE_CACHE") or Path.home() / ".cache" / "quide")


def embedded() -> Path:
    """The few megabytes of real data and checkpoints that travel with the checkout."""
    return home() / "data" / "embedded"


def results() -> Path:
    """The folder of measurement records: ``$QUIDE_RESULTS``, else ``data/results`` of :func:`home`."""
    return Path(os.environ.get("QUIDE_RESULTS") or home() / "data" / "results")


@contextlib.contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """A name beside ``file`` to write to; what is there at the end takes the name of ``file``, whole and on the disk.

    The folder is made. After an error ``file`` is as it was, and nothing is left beside it; what a killed writer left
    in the folder over an hour ago is removed.

    Raises:
        OSError: the system's, where the folder cannot be written to.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.stem}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        yield partial
        _synced(partial)
        os.replace(partial, file)
        _synced(file.parent)
    finally:
        partial.unlink(missing_ok=True)
    _remove_abandoned(file.parent)


@contextlib.contextmanager
def alone(folder: Path, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """One process at a time makes in ``folder`` what is called so; the lock ends with its process, however that ends.

    ``waiting`` is called where another process holds it.
    """
    from filelock import FileLock, Timeout  # here, because the core does without it

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder; if it is not there, ``make`` first fills one beside it, which takes its name when it is whole.

    Of several processes one makes it, and the others wait for it.
    """
    if folder.exists():
        return folder
    with alone(folder.parent, folder.name):
        if folder.exists():  # another process made it meanwhile
            return folder
        partial = folder.with_name(f"{folder.name}{PARTIAL}")
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        try:
            make(partial)
            for part in (*partial.rglob("*"), partial):
                _synced(part)
            partial.rename(folder)
            _synced(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _synced(path: Path) -> None:
    """Wait until the disk has the file, or the names in the folder."""
    if path.is_dir() and os.name == "nt":  # which cannot open a folder
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    oldest = time.time() - ABANDONED_AFTER
    for partial in folder.glob(f".*{PARTIAL}"):
        with contextlib.suppress(OSError):  # another writer may be removing it too; tidying is not worth a failure
            if partial.stat().st_mtime < oldest:
                partial.unlink()
