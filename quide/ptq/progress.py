"""What learning has done so far, in a file that an interrupted run goes on from: proven, and of one run alone."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from quide import _files, _paths
from quide._digest import digest


class Progress:
    """State of a run in a file; without one nothing is kept.

    Args:
        file: where; None to keep nothing.
        made_for: what decides the result, asked for where there is a file: settings, code, tensors.
    """

    def __init__(self, file: str | Path | None, made_for: Callable[[], object]):
        self.file = file and Path(file)
        self.made_for = digest(made_for()) if self.file else ""

    def read(self) -> dict[str, Any] | None:
        """What was kept of this run; None of another one, or where there is none.

        Raises:
            ValueError: the file is damaged.
        """
        if not (self.file and self.file.exists()):
            return None
        with _files.reading(self.file, "delete it to begin anew"):
            known = torch.load(io.BytesIO(_files.content(self.file)), weights_only=True)
            if known.pop("digest") != digest(known):
                raise ValueError("its digest is not that of its content")
            return known["state"] if known["made_for"] == self.made_for else None

    def write(self, state: dict[str, Any]) -> None:
        """Keep what there is; ``OSError`` names the file."""
        if self.file:
            whole = {"made_for": self.made_for, "state": state}
            packed = io.BytesIO()  # in memory first: of a full disk torch says neither that nor the file
            torch.save({**whole, "digest": digest(whole)}, packed)
            with _paths.written(self.file) as partial:
                partial.write_bytes(packed.getbuffer())
