"""Packages whose names are imported on first use, so that what needs no torch does not load it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any


def attributes(package: str, **homes: Sequence[str]) -> Callable[[str], Any]:
    """A package's ``__getattr__``: which of its modules each public name comes from (module=[names])."""
    module_of = {name: module for module, names in homes.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return __getattr__
