"""Widths: of weights and activations alike, of each, one a layer; layers with a width of their own. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import total_ordering

from quide._check import wholes
from quide.ptq.scheme import FULL_PRECISION


@total_ordering
@dataclass(frozen=True, eq=False)
class Width:
    """Bits of a layer's weights and of its activations, each in 1..32; 32 leaves that side as it is.

    Stands wherever a whole number does, equals the one that both sides are, and is the wider the more bits its weights
    have. Compression is that of storage, and counts ``weights``.
    """

    weights: int = FULL_PRECISION
    activations: int = FULL_PRECISION

    def __post_init__(self):
        for side in ("weights", "activations"):
            object.__setattr__(self, side, _whole(getattr(self, side)))

    def __str__(self) -> str:
        return f"w{self.weights}a{self.activations}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Width):
            return self.weights == self.activations == other
        return (self.weights, self.activations) == (other.weights, other.activations)

    def __lt__(self, other: Bits) -> bool:
        theirs = (other.weights, other.activations) if isinstance(other, Width) else (other, other)
        return (self.weights, self.activations) < theirs

    def __hash__(self) -> int:
        return hash(self.weights if self.weights == self.activations else (self.weights, self.activations))


Bits = int | Width
PAPER_BITS = (32, 16, 8, 4, 2)


def label(bits: Bits | Sequence[Bits]) -> str:
    """How a configuration is written: ``"8"`` for a uniform width, ``"8-8-8-4"`` for one width a layer, ``"w4a8"``."""
    return "-".join(map(str, bits)) if isinstance(bits, Iterable) else str(bits)


def both(width: Bits) -> Width:
    """A width with its two sides told apart."""
    return width if isinstance(width, Width) else Width(width, width)


def checked(width: Bits, argument: str = "bits") -> Bits:
    """A width as it is, or a Python integer in 1..32."""
    return width if isinstance(width, Width) else _whole(width, argument)


def read(text: str) -> Bits:
    """A width as people type it: ``"8"``, or ``"W4A8"`` for its two sides."""
    if sides := re.fullmatch(r"w(\d+)a(\d+)", text.strip(), re.IGNORECASE):
        return Width(*map(int, sides.groups()))
    if not text.strip().isdecimal():
        raise ValueError(f"a width must be a whole number in 1..{FULL_PRECISION} or such as W4A8, got {text!r}")
    return _whole(int(text))


def layer_widths(bits: Bits | Sequence[Bits], layers: Sequence[str]) -> tuple[Bits, ...]:
    """One checked width for each layer."""
    if isinstance(bits, (str, Set, Mapping)):
        raise ValueError(f"bits must be a width or one a layer, in order, got {bits!r}; keep= takes widths by name")
    several = isinstance(bits, Iterable) and getattr(bits, "ndim", 1) > 0
    widths = tuple(bits) if several else (bits,) * len(layers)
    if len(widths) != len(layers):
        raise ValueError(f"bits names {len(widths)} layers, the model has {len(layers)}: {', '.join(layers)}")
    return tuple(map(checked, widths))


class Kept:
    """What ``keep`` asks for: widths by name or pattern (``"layer4.*"``); a name holds for all that is inside it.

    The first that fits a name counts. :meth:`check_used` refuses one that never did.
    """

    def __init__(self, keep: Mapping[str, Bits] | None):
        if keep is not None and not (isinstance(keep, Mapping) and all(isinstance(name, str) for name in keep)):
            raise ValueError(f"keep must map names of layers to widths, such as {{'fc': 32}}, got {keep!r}")
        self._widths = {pattern: checked(width, "keep") for pattern, width in (keep or {}).items()}
        self._used: set[str] = set()

    def width(self, name: str) -> Bits | None:
        """The width that is asked for a name; None when nothing is."""
        for pattern, width in self._widths.items():
            if _fits(name, pattern):
                self._used.add(pattern)
                return width
        return None

    def check_used(self, layers: Sequence[str]) -> None:
        """Refuse a pattern that fits nothing, or nothing but what one before it does."""
        if unused := [pattern for pattern in self._widths if pattern not in self._used]:
            if any(_fits(layer, unused[0]) for layer in layers):
                raise ValueError(
                    f"keep names {unused[0]!r} after what fits the same layers; put it first, which counts"
                )
            raise ValueError(f"keep names {unused[0]!r}, which fits no layer of the model: {', '.join(layers)}")


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _whole(width: int, argument: str = "bits") -> int:
    return wholes(argument, [width], 1, FULL_PRECISION)[0]
