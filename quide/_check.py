"""What arguments are checked for in more than one module."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable
from numbers import Integral
from typing import Any


def whole(argument: str, value: Any, low: float = -math.inf, high: float = math.inf) -> int:
    """``value`` as a Python integer; ``ValueError`` names the argument if it is not a whole number in ``low..high``."""
    if not _is_whole(value, low, high):
        raise ValueError(f"{argument} must be a whole number{_bounds(low, high)}, got {value!r}")
    return int(value)


def wholes(argument: str, values: Iterable[Any], low: float = -math.inf, high: float = math.inf) -> list[int]:
    """The same for each of ``values``."""
    values = list(values)
    for value in values:
        if not _is_whole(value, low, high):
            raise ValueError(f"{argument} must be whole numbers{_bounds(low, high)}, got {value!r}")
    return [int(value) for value in values]


def one_of(argument: str, value: Any, known: Collection[str]) -> Any:
    """``value``; ``ValueError`` names the argument and the known ones if it is none of them."""
    if value not in tuple(known):  # which asks no hash of it
        raise ValueError(f"{argument} must be one of {', '.join(known)}, got {value!r}")
    return value


def dense(argument: str, tensor: Any) -> None:
    """``ValueError`` names the argument if a tensor has no values in memory, one after the other."""
    if str(tensor.layout) != "torch.strided" or tensor.device.type == "meta":
        raise ValueError(f"{argument} must be a dense tensor with values, got {tensor.layout} on {tensor.device}")


def evaluating(model: Any) -> Any:
    """A copy of a network in evaluation mode; ``ValueError`` if it holds what cannot be copied."""
    try:
        return copy.deepcopy(model).eval()
    except Exception as error:  # whatever its parts raise
        raise ValueError(
            f"model {type(model).__name__} cannot be copied ({str(error).partition('.')[0]}); keep locks, files and "
            "computed tensors out of it, and make weight norm plain with torch.nn.utils.remove_weight_norm"
        ) from error


def _is_whole(value: Any, low: float, high: float) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and low <= value <= high


def _bounds(low: float, high: float) -> str:
    if high < math.inf:
        return f" in {low}..{high}"
    return f" of at least {low}" if low > -math.inf else ""
