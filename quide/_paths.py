"""Where things are: the checkout (committed records, embedded data) and the user's cache (downloads, checkpoints)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


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


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder; if it is not there, ``make`` first fills one beside it, which takes its name when it is whole."""
    if folder.exists():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        make(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
