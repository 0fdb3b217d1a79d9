"""The book's own Sphinx extensions, which stand in no package: imported by their files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1] / "book" / "_ext"


def extension(name: str) -> ModuleType:
    """The module ``book/_ext/<name>.py``, made anew."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
