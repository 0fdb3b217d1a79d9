"""Write ``quide/data.sha256``: the SHA-256 of the files below ``data/`` that cannot prove themselves.

Records that were made since carry a digest of their own; ``--check`` only says whether the file is up to date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from quide import _files, _paths

ROOMS = ("checkpoints", "embedded", "paper", "results/paper", "results/short")
ENDINGS = (".csv", ".json", ".npy", ".safetensors", ".txt", ".webp")


def listed() -> str:
    """What the file is to hold."""
    data = _paths.home() / "data"
    files = [file for room in ROOMS for file in (data / room).rglob("*") if file.suffix in ENDINGS]
    named = {file.relative_to(data).as_posix(): file for file in (*files, data / "codes.json")}
    return "".join(
        f"{_files.digest(name, named[name].read_bytes())}  {name}\n" for name in sorted(named) if _open(named[name])
    )


def _open(file: Path) -> bool:
    """Whether a file carries no digest of its own."""
    return file.suffix != ".json" or "digest" not in json.loads(file.read_bytes())


def write() -> None:
    """Write it."""
    with _paths.atomic(_files.MANIFEST) as partial:
        partial.write_text(listed(), encoding="ascii", newline="\n")
        partial.chmod(0o644)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        write()
    elif _files.MANIFEST.read_text(encoding="ascii") != listed():
        sys.exit(f"{_files.MANIFEST} is not up to date; run: python tools/manifest.py")
