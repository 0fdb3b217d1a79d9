"""The Intelligence Index of arXiv 2605.10959, its accuracy-gated variant, and the scores it is compared with.

The scores take scalars, arrays or pandas Series and broadcast them: scalars give a float, arrays an array, a Series a
Series with the same index. Arithmetic is float64. Accuracy is a fraction in [0, 1], latency is in milliseconds per
batch (64 images in the paper), compression is relative to 32-bit storage. Every function raises ``ValueError`` naming
the argument when one is empty, not a finite number, out of range or of the wrong shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from quide import _check
from quide.ptq.width import Bits, Width

FULL_PRECISION_BITS = 32


def intelligence_index(compression: ArrayLike, accuracy: ArrayLike, latency_ms: ArrayLike) -> Any:
    """Intelligence Index ``I = C * P / log2(T + 1)`` (Eq. 2).

    Args:
        compression: C > 0; 1 means 32-bit.
        accuracy: P, a fraction in [0, 1].
        latency_ms: T > 0 in milliseconds. §3.2 fixes the time constant at 1 ms; another unit can change the ranking.
    """
    return _evaluate(
        lambda c, p, t: c * p / _log2_plus_one(t), compression=compression, accuracy=accuracy, latency_ms=latency_ms
    )


def gated_index(compression: ArrayLike, accuracy: ArrayLike, latency_ms: ArrayLike, threshold: ArrayLike) -> Any:
    """Accuracy-gated index ``I' = C * max(P - threshold, 0) / log2(T + 1)`` (Eq. 3).

    Args:
        compression, accuracy, latency_ms: as for :func:`intelligence_index`.
        threshold: accuracy in [0, 1] at or below which a network scores 0; see :func:`accuracy_threshold`.
    """
    return _evaluate(
        lambda c, p, t, floor: c * np.maximum(p - floor, 0.0) / _log2_plus_one(t),
        compression=compression,
        accuracy=accuracy,
        latency_ms=latency_ms,
        threshold=threshold,
    )


def accuracy_threshold(full_precision_accuracy: ArrayLike, tolerance: ArrayLike, num_classes: ArrayLike) -> Any:
    """Accuracy below which a network counts as useless: ``max(1 / K, P_FP - delta)`` (Eq. 4).

    Args:
        full_precision_accuracy: P_FP, a fraction in [0, 1].
        tolerance: delta, the accepted loss of accuracy, a fraction in [0, 1] (0.3 is 30 percentage points).
        num_classes: K, an integer of at least 2; 1 / K is the accuracy of guessing.
    """
    return _evaluate(
        lambda p, delta, k: np.maximum(1 / k, p - delta),
        full_precision_accuracy=full_precision_accuracy,
        tolerance=tolerance,
        num_classes=num_classes,
    )


def accuracy_compression_product(compression: ArrayLike, accuracy: ArrayLike) -> Any:
    """Accuracy-compression product ``ACP = C * P``, which ignores latency (Eq. 1, §3.4)."""
    return _evaluate(lambda c, p: c * p, compression=compression, accuracy=accuracy)


def accuracy_per_log_latency(accuracy: ArrayLike, latency_ms: ArrayLike) -> Any:
    """Accuracy per log-latency ``ALS = P / log2(T + 1)``, which ignores compression (§3.4)."""
    return _evaluate(lambda p, t: p / _log2_plus_one(t), accuracy=accuracy, latency_ms=latency_ms)


def latency_penalty(latency_ms: ArrayLike) -> Any:
    """Denominator of the index, ``log2(T + 1)`` with T in milliseconds (§3.2)."""
    return _evaluate(_log2_plus_one, latency_ms=latency_ms)


def compression_ratio(bits: Bits | Iterable[Bits], num_weights: int | Iterable[int] | None = None) -> float:
    """Compression relative to 32-bit storage: nominal, as the paper counts it, or by the true number of bits.

    Args:
        bits: width of all layers, or one width per layer: integers in 1..32, or :class:`quide.Width`, of which the
            weights count. A sequence is one network, not several.
        num_weights: weights per layer (biases stay in float and are left out). Without it every layer counts the same,
            ``32 / mean(bits)`` (§3.1, Algorithm 1); with it each layer counts by its size.
    """
    widths = [width.weights if isinstance(width, Width) else width for width in bit_widths(bits)]
    if num_weights is None:
        sizes = [1] * len(widths)
    else:
        sizes = _wholes("num_weights", num_weights, 1)
        if np.ndim(bits) == 0:
            widths = widths * len(sizes)
        if len(sizes) != len(widths):
            raise ValueError(f"num_weights must have one entry per layer: got {len(sizes)} for {len(widths)} in bits")
    return FULL_PRECISION_BITS * sum(sizes) / sum(b * n for b, n in zip(widths, sizes, strict=True))


def rank(bits: Iterable[Bits], scores: Iterable[float]) -> list[Bits]:
    """Bit-widths from the highest score to the lowest; equal scores put the wider one, the safer choice, first.

    Args:
        bits: distinct widths, as :func:`compression_ratio` takes them.
        scores: one finite score per bit-width, in the same order.
    """
    return [width for _, width in sorted(_scored(bits, scores), reverse=True)]


def knee(bits: Iterable[Bits], scores: Iterable[float]) -> Bits | None:
    """Bit-width with the highest score, or None if no score is above 0; the paper's *Pareto knee* when the score is I'.

    Arguments and ties are those of :func:`rank`.
    """
    score, width = max(_scored(bits, scores))
    return width if score > 0 else None


def _log2_plus_one(latency: np.ndarray) -> np.ndarray:
    """Through log1p: ``log2(T + 1)`` itself is 0 for a latency below the rounding of 1, and the index infinite."""
    return np.log1p(latency) / np.log(2.0)


def _evaluate(formula: Callable[..., np.ndarray], **arguments: ArrayLike) -> Any:
    """``formula`` of the checked arguments as float64 arrays, in the kind that the caller passed."""
    arrays = [_checked(name, value) for name, value in arguments.items()]
    try:
        np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(arguments, arrays, strict=True))
        raise ValueError(f"shapes do not broadcast: {shapes}; pass one value per configuration, or a scalar") from None
    result = formula(*arrays)
    if result.ndim == 0:
        return float(result)
    series = {name: value for name, value in arguments.items() if _is_series(value)}
    if not series:
        return result
    first, index = next((name, value.index) for name, value in series.items())
    for name, value in series.items():
        if not index.equals(value.index):
            raise ValueError(f"{name} has another index than {first}; put both in one DataFrame first")
    if result.shape != (len(index),):
        raise ValueError(
            f"{first} is a Series of {len(index)} values, the result is {result.shape}; pass {first}.to_numpy()"
        )
    return type(series[first])(result, index=index)


def _is_series(value: Any) -> bool:
    """A pandas Series, told by what it can do, so that the metric needs no pandas."""
    return hasattr(value, "to_numpy") and hasattr(value, "index") and getattr(value, "ndim", None) == 1


def _checked(name: str, value: ArrayLike) -> np.ndarray:
    """``value`` as a float64 array within the range that the argument ``name`` has."""
    array = finite_array(name, value)
    if name in ("compression", "latency_ms"):
        if array.min() <= 0:
            unit = " milliseconds" if name == "latency_ms" else ", 1 for 32-bit"
            raise ValueError(f"{name} must be above 0{unit}, got {array.min():g}")
    elif name == "num_classes":
        if array.min() < 2 or (array % 1).any():
            raise ValueError(f"num_classes must be an integer of at least 2, got {value!r}")
    elif array.min() < 0 or array.max() > 1:
        worst = array.max() if array.max() > 1 else array.min()
        hint = "; it looks like a percentage, divide it by 100" if 1 < worst <= 100 else ""
        raise ValueError(f"{name} must be a fraction in [0, 1], got {worst:g}{hint}")
    return array


def finite_array(name: str, value: ArrayLike) -> np.ndarray:
    """``value`` as float64; ``ValueError`` names the argument if it is empty, not numeric, or not finite."""
    try:
        array = np.asarray(value)
        # Text would be parsed and a mask read as 0 and 1 without a word; both are mistakes here.
        array = array.astype(np.float64) if array.dtype.kind in "iufO" else None
    except (TypeError, ValueError, RuntimeError):
        array = None
    if array is None:
        raise ValueError(f"{name} must be a number or an array of numbers, got {type(value).__name__} {value!r}")
    if array.size == 0:
        raise ValueError(f"{name} is empty; pass at least one value")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity; drop or re-measure those entries")
    return array


def bit_widths(bits: Bits | Iterable[Bits]) -> list[Bits]:
    """``bits`` as a list; ``ValueError`` if empty or one is neither an integer in 1..32 nor a :class:`quide.Width`."""
    return _wholes("bits", bits, 1, FULL_PRECISION_BITS)


def _wholes(name: str, values: Bits | Iterable[Bits], low: int, high: float = math.inf) -> list[Bits]:
    """``values`` as Python integers, which do not overflow and divide with a single rounding; 8.0 counts as 8.

    Where ``high`` bounds widths, a :class:`quide.Width` is one.
    """
    if np.ndim(values) > 1:
        raise ValueError(f"{name} must be one number or a flat sequence, got shape {np.shape(values)}")
    entries = [values] if np.ndim(values) == 0 else list(values)
    if not entries:
        raise ValueError(f"{name} is empty; pass at least one value")
    whole = [int(entry) if isinstance(entry, (float, np.floating)) and entry % 1 == 0 else entry for entry in entries]
    pair = Width if high < math.inf else ()
    return [entry if isinstance(entry, pair) else _check.wholes(name, [entry], low, high)[0] for entry in whole]


def _scored(bits: Iterable[Bits], scores: Iterable[float]) -> list[tuple[float, Bits]]:
    """(score, bit-width) pairs: as tuples they sort by score, then by width."""
    widths, values = bit_widths(bits), finite_array("scores", scores)
    if values.shape != (len(widths),):
        raise ValueError(f"scores must hold one score per entry of bits: got shape {values.shape} for {len(widths)}")
    if len(set(widths)) != len(widths):
        raise ValueError(f"bits must be distinct, got {widths}; average over seeds first")
    return list(zip(values.tolist(), widths, strict=True))
