"""Parameters of experiments as people and papermill give them: ``7``, ``"7"``, ``"[7]"``, ``"0 42"`` or a list."""

from __future__ import annotations

import re
from typing import Any

from quide.data import facts

SEED_LIMIT = 2**31
_BETWEEN = re.compile(r"[\s,\[\]()'\"]+")
_WHOLE = ("seeds", "bits", "shots", "limit", "images", "few", "fewer", "fewest")
_SEVERAL = ("seeds", "datasets", "models", "methods", "bits")


def read(**given: Any) -> tuple:
    """The values, in their order: lists of distinct whole numbers or names, one whole number, or as given.

    Args:
        given: by name; what ``seeds``, ``datasets``, ``models``, ``methods`` and ``bits`` hold becomes a list. A number
            that may be left out may be None.

    Raises:
        ValueError: not a whole number, a seed outside ``0..2**31 - 1``, one that is given twice, none at all.
    """
    return tuple(_read(name, value) for name, value in given.items())


def check_device(device: str) -> None:
    """``ValueError`` if nothing can be computed on a device of that name on this machine."""
    if device == "cpu":
        return
    import torch  # which a page that only shows records does not need

    try:
        torch.zeros(1, device=str(device)).item()  # not every device that makes tensors has numbers in them
    except Exception as error:  # whichever the backend raises
        raise ValueError(f"device {device!r} cannot be used on this machine; try cpu") from error


def _read(name: str, value: Any) -> Any:
    if name not in _SEVERAL:
        value = None if value == "None" else value
        return value if name not in _WHOLE or value is None else _whole(name, value)
    words = _words(value)
    found = [_whole(name, word) if name in _WHOLE else str(word) for word in words]
    if name == "datasets":
        found = [facts.info(word).name for word in found]
    if not found:
        raise ValueError(f"{name} must hold one at least, got {value!r}")
    if len(set(found)) < len(found):
        raise ValueError(f"{name} must differ from one another, got {', '.join(map(str, found))}")
    return found


def _words(value: Any) -> list:
    if isinstance(value, str):
        return [word for word in _BETWEEN.split(value) if word]
    return [word for part in value for word in _words(part)] if isinstance(value, (list, tuple)) else [value]


def _whole(name: str, value: Any) -> int:
    low, high = (0, SEED_LIMIT - 1) if name == "seeds" else (1, None)
    try:
        number = int(value) if not isinstance(value, bool) and float(value) == int(value) else None
    except (TypeError, ValueError):
        number = None
    if number is None or number < low or (high is not None and number > high):
        allowed = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise ValueError(f"{name} must be whole numbers {allowed}, such as 7 or 7,42, got {value!r}")
    return number
