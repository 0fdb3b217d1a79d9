"""Where things are: the checkout (committed records, embedded data) and the user's cache (downloads, checkpoints).

And how they are written: whole or not at all, by one process at a time.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
BLOCK = 1 << 20
PARTIAL = ".partial"  # ending of what is still being written
ABANDONED_AFTER = 3600  # seconds after which nobody writes to such a file any more, on whichever machine it began
_OURS = re.compile(r"\.[0-9a-f]{8}-\d+\.[0-9a-f]{32}\.partial$")  # how :func:`atomic` names files
VARIABLES = ("QUIDE_HOME", "QUIDE_CACHE", "QUIDE_RESULTS", "QUIDE_DATA", "QUIDE_IMAGENET", "QUIDE_MMLU")  # of folders


def home() -> Path:
    """The folder that holds ``data/``: ``$QUIDE_HOME``, else the checkout of this package, else the working folder."""
    if (given := named("QUIDE_HOME")) is not None:
        return given
    checkout = PACKAGE.parent
    return checkout if (checkout / "data" / "paper").is_dir() else Path.cwd()


def cache() -> Path:
    """The folder for verified downloads and training checkpoints: ``$QUIDE_CACHE``, else ``~/.cache/quide``."""
    return named("QUIDE_CACHE") or _expanded("~/.cache/quide", "QUIDE_CACHE")


def embedded() -> Path:
    """The few megabytes of real data and checkpoints that travel with the checkout."""
    return home() / "data" / "embedded"


def results() -> Path:
    """The folder of measurement records: ``$QUIDE_RESULTS``, else ``data/results`` of :func:`home`."""
    return named("QUIDE_RESULTS") or home() / "data" / "results"


def named(variable: str) -> Path | None:
    """The folder that an environment variable names, absolute; None where it is not set."""
    return _expanded(given, variable) if (given := os.environ.get(variable)) else None


def settle() -> None:
    """Make the variables' folders absolute for processes in other working folders; ``ValueError``: one can be none."""
    for variable in VARIABLES:
        if (folder := named(variable)) is not None:
            try:
                os.stat(f"{folder}{os.sep}.")
            except OSError as error:
                reason = f"{error.strerror}: {str(folder)[:200]}"
                if not isinstance(error, FileNotFoundError):  # that one is yet to be made
                    raise ValueError(f"{variable} names no folder ({reason}); name one, or leave it unset") from error
            os.environ[variable] = str(folder)


def _expanded(folder: str, variable: str) -> Path:
    try:
        return Path(folder).expanduser().absolute()
    except RuntimeError as error:  # there is no such home
        raise ValueError(f"there is no home folder for {folder}; name a folder in {variable}") from error


def given(argument: str, file: object) -> Path:
    """``file`` as a path; ``ValueError`` names the argument if it is none."""
    if not isinstance(file, (str, os.PathLike)):
        raise ValueError(f"{argument} must be the path of a file, got {file!r}")
    return Path(file)


@contextlib.contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """A name beside ``file`` to write to; what is there at the end takes the name of ``file``, whole and on the disk.

    The folder is made. After an error ``file`` is as it was, and nothing is left beside it; what a killed writer left
    in the folder is removed.

    Raises:
        OSError: the system's, where the folder cannot be written to.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.stem}.{_owner()}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        yield partial
        _synced(partial)
        os.replace(partial, file)
        _synced(file.parent)
    finally:
        partial.unlink(missing_ok=True)
    remove_abandoned(file.parent)


@contextlib.contextmanager
def written(file: Path) -> Iterator[Path]:
    """The same for a file that the user named: ``OSError`` names it, and says what to do."""
    try:
        with atomic(file) as partial:
            yield partial
    except OSError as error:
        raise OSError(f"cannot write {file} ({error.strerror or error}); free space, or name another file") from error


def try_to_write(folder: Path, size: int) -> None:
    """Write so many bytes into a folder and remove them, so that a full disk is found before the work; ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(-(-size // BLOCK)):
            file.write(bytes(BLOCK))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def writing(folder: Path, what: str, variable: str) -> Iterator[None]:
    """The system's refusal to write, in one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not the system's
            raise
        raise OSError(
            f"cannot write {what} into {folder} ({error.strerror or error}); "
            f"free space or allow writing there, or name another folder in {variable}"
        ) from error


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


def _owner() -> str:
    """This process: the machine and its number there."""
    return f"{zlib.crc32(platform.node().encode()):08x}-{os.getpid()}"


def _abandoned(partial: Path) -> bool:
    """Whether no process writes to such a file: this machine's that began it is dead, or nobody did for an hour."""
    machine, _, process = partial.name.split(".")[-3].partition("-")
    if machine == _owner().partition("-")[0] and process.isdecimal() and not _lives(int(process)):
        return True
    return partial.stat().st_mtime < time.time() - ABANDONED_AFTER


def _lives(process: int) -> bool:
    if os.name == "nt":  # where signal 0 ends a process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True


def remove_abandoned(folder: Path) -> None:
    """Remove what killed writers left in a folder; others name files so too, and theirs stay."""
    for partial in (each for each in folder.glob(f".*{PARTIAL}") if _OURS.search(each.name)):
        with contextlib.suppress(OSError, IndexError):  # another may be removing it too; tidying is worth no failure
            if _abandoned(partial):
                partial.unlink()
