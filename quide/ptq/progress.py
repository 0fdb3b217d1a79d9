"""What learning has done so far, in a file that an interrupted run goes on from: proven, and of one run alone."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from quide import _files, _paths
from quide._digest import digest
from quide.ptq.prepared import META, Prepared

if TYPE_CHECKING:
    from quide.ptq.passes import Technique


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
        """Keep what there is."""
        if self.file:
            whole = {"made_for": self.made_for, "state": state}
            with _paths.atomic(self.file) as partial:
                torch.save({**whole, "digest": digest(whole)}, partial)


def parts_of(technique: Technique, quantized: fx.GraphModule, prepared: Prepared, calibration: torch.Tensor) -> list:
    """What decides the result of a technique: the text of its file, its settings, the networks and the images."""
    code = Path(sys.modules[type(technique).__module__].__file__).read_text()
    settings = [replace(technique, checkpoint=None, progress=False), prepared.scheme, quantized.meta[META].bits]
    return [code, settings, [[one.code, one.state_dict()] for one in (prepared.graph, quantized)], calibration]
