"""Intervals for accuracies and seeds, and how sure the knee is."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from quide import metric
from quide._check import whole
from quide.ptq.width import Bits

_LENGTH = struct.Struct("<Q")
MOST_BYTES = 1 << 26  # of a packed bit set: a small text may unpack to any size
CHUNK = 2_000_000  # resampled images held at once: 16 MB of indices


@dataclass(frozen=True)
class Interval:
    """A point estimate and its two-sided confidence bounds; the bounds are NaN where the data give none."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Hits:
    """Which test images a network classifies correctly: bool ``(images,)``, in the order of the test set.

    Raises:
        ValueError: not bool, not flat, or empty.
    """

    correct: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "correct", _mask("correct", self.correct, 1))

    @classmethod
    def unpacked(cls, text: str) -> Hits:
        """What :func:`pack_bits` packed into a record's text."""
        return cls(unpack_bits(text))

    def packed(self) -> str:
        """Text for a record; :meth:`unpacked` undoes it."""
        return pack_bits(self.correct)

    def __len__(self) -> int:
        return len(self.correct)

    @property
    def accuracy(self) -> float:
        """Share of the images that are right (fraction)."""
        return float(self.correct.mean())

    def interval(self, level: float = 0.95) -> Interval:
        """Accuracy with Wilson's interval."""
        return wilson_interval(int(self.correct.sum()), len(self), level)

    def change(self, reference: Hits, level: float = 0.95) -> Interval:
        """Accuracy less the reference's on the same images, as :func:`paired_difference_interval`."""
        return paired_difference_interval(reference.correct, self.correct, level)

    def kept(self, reference: Hits, level: float = 0.95) -> Interval:
        """Accuracy as a share of the reference's; the interval is that of the paired change, from 0 up.

        All three are NaN where the reference is never right.
        """
        change, full = self.change(reference, level), reference.accuracy
        if full == 0:
            return Interval(np.nan, np.nan, np.nan)
        return Interval(*(max(1 + part / full, 0.0) for part in (change.estimate, change.low, change.high)))


@dataclass(frozen=True)
class KneeBootstrap:
    """What :func:`bootstrap_knee` returns.

    Attributes:
        bits: the bit-widths, in the caller's order.
        index: I' of the data as they are, mean over seeds, ``(bits,)``.
        replicates: the same of every bootstrap replicate, ``(repeats, bits)``.
        probability: share of replicates in which each bit-width is the knee; key ``None``: in which there is none.
    """

    bits: tuple[Bits, ...]
    index: np.ndarray
    replicates: np.ndarray
    probability: dict[Bits | None, float]

    def interval(self, bits: Bits, level: float = 0.95) -> Interval:
        """Percentile interval of I' at one bit-width."""
        if bits not in self.bits:
            raise ValueError(f"bits must be one of {self.bits}, got {bits!r}")
        column = self.bits.index(bits)
        low, high = np.quantile(self.replicates[:, column], _tails(level))
        return Interval(float(self.index[column]), float(low), float(high))


def wilson_interval(correct: int, n: int, level: float = 0.95) -> Interval:
    """Accuracy ``correct / n`` with Wilson's score interval, which stays within [0, 1] and is sound near its ends.

    Args:
        correct: images classified correctly.
        n: images shown, at least 1.
        level: confidence in (0, 1).

    Raises:
        ValueError: ``correct`` is not in 0..n, ``n`` below 1, either not a whole number, or ``level`` out of range.
    """
    _tails(level)
    n = whole("n", n, 1)
    correct = whole("correct", correct, 0, n)
    bounds = stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    return Interval(correct / n, float(bounds.low), float(bounds.high))


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean over seeds with Student's t interval; a single value has NaN bounds.

    Args:
        values: flat, one finite number per seed.
        level: confidence in (0, 1).

    Raises:
        ValueError: no values, a value that is not finite, or ``level`` out of range.
    """
    sample = metric.finite_array("values", values)
    if sample.ndim != 1:
        raise ValueError(f"values must be flat, one per seed, got shape {sample.shape}")
    upper = _tails(level)[1]
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, np.nan, np.nan)
    half = stats.t.ppf(upper, sample.size - 1) * sample.std(ddof=1) / np.sqrt(sample.size)
    return Interval(mean, float(mean - half), float(mean + half))


def paired_difference_interval(correct_a: ArrayLike, correct_b: ArrayLike, level: float = 0.95) -> Interval:
    """Accuracy of b minus accuracy of a on the same images, with Agresti and Min's adjusted interval.

    Half an image is added to each cell of the 2 x 2 table of outcomes (Statistics in Medicine 24:729, 2005), so that
    two networks which never disagree still get an interval of positive width.

    Args:
        correct_a, correct_b: bool ``(images,)``, in the same order of images.
        level: confidence in (0, 1).

    Raises:
        ValueError: not bool, not flat, empty or of different length.
    """
    a, b = (_mask(name, value, 1) for name, value in (("correct_a", correct_a), ("correct_b", correct_b)))
    if a.shape != b.shape:
        raise ValueError(f"correct_b must cover the images of correct_a: got {b.size} and {a.size}")
    z = stats.norm.ppf(_tails(level)[1])
    gained, lost, n = (~a & b).sum() + 0.5, (a & ~b).sum() + 0.5, a.size + 2
    centre = (gained - lost) / n
    half = z * np.sqrt((gained + lost) / n - centre**2) / np.sqrt(n)
    return Interval(float(b.mean() - a.mean()), float(max(centre - half, -1)), float(min(centre + half, 1)))


def bootstrap_knee(
    correct: ArrayLike,
    latency_ms: ArrayLike,
    bits: Iterable[Bits],
    *,
    tolerance: float | None = None,
    num_classes: int | None = None,
    threshold: float | None = None,
    compression: ArrayLike | None = None,
    repeats: int = 2000,
    seed: int = 0,
) -> KneeBootstrap:
    """Probability that each bit-width is the knee of I', by resampling seeds and test images with replacement.

    A replicate draws as many seeds as there are, and one set of test images that all bit-widths and all seeds share:
    they were evaluated on one test set, so an easy draw is easy for all of them. Drawing images anew per seed would
    average that out and look too sure. I' is the mean over the drawn seeds, each with its own latency.

    The seed level is coarse: three seeds give ten distinct draws, and one seed leaves only the images to vary.

    Args:
        correct: bool ``(seeds, bits, images)``, which test images were right.
        latency_ms: ``(bits,)``, or ``(seeds, bits)`` where each seed was timed.
        bits: the bit-widths; the widest is the full-precision network.
        tolerance, num_classes: delta and K of Eq. 4, applied to each replicate's full-precision accuracy (mean over the
            drawn seeds, as the paper has one threshold per condition).
        threshold: a fixed threshold instead; 0 gives the raw index I.
        compression: ``(bits,)``; nominal ``32 / bits`` by default.
        repeats: bootstrap replicates.
        seed: of the random generator.

    Raises:
        ValueError: a shape or value that does not fit, or both or neither kind of threshold.
    """
    widths = tuple(metric.bit_widths(bits))
    hits = _mask("correct", correct, 3)
    seeds, _, images = hits.shape
    if len(set(widths)) != len(widths) or len(widths) != hits.shape[1]:
        raise ValueError(
            f"bits must be the {hits.shape[1]} distinct widths of correct (seeds, bits, images), got {widths}"
        )
    whole("repeats", repeats, 1)
    nominal = [metric.compression_ratio(b) for b in widths]
    compression = _row("compression", nominal if compression is None else compression, (len(widths),))
    latency_ms = _row("latency_ms", latency_ms, (len(widths),), (seeds, len(widths)))
    threshold_of = _threshold_rule(threshold, tolerance, num_classes)
    widest = widths.index(max(widths))

    def score(accuracy: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """I' ``(r, bits)`` of ``accuracy`` ``(r, seeds, bits)``, each seed counted ``drawn`` ``(r, seeds)`` times."""
        floor = threshold_of((drawn * accuracy[:, :, widest]).sum(1) / seeds)
        index = metric.gated_index(compression, accuracy, latency_ms, floor[:, None, None])
        return (drawn[:, :, None] * index).sum(1) / seeds

    generator = np.random.default_rng(seed)
    outcomes = hits.reshape(-1, images).T.astype(np.float64)
    replicates = []
    for start in range(0, repeats, step := max(1, CHUNK // images)):
        count = min(step, repeats - start)
        drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=count)
        accuracy = resample(generator, count, images) @ outcomes / images
        replicates.append(score(accuracy.reshape(count, *hits.shape[:2]), drawn))
    observed = score(hits.mean(2)[None], np.ones((1, seeds), dtype=int))[0]
    replicates = np.concatenate(replicates)
    return KneeBootstrap(widths, observed, replicates, _knee_shares(widths, replicates))


def _threshold_rule(
    threshold: float | None, tolerance: float | None, num_classes: int | None
) -> Callable[[np.ndarray], np.ndarray]:
    if threshold is not None and tolerance is None and num_classes is None:
        return lambda accuracy: np.full(accuracy.shape, threshold)
    if threshold is None and tolerance is not None and num_classes is not None:
        return lambda accuracy: metric.accuracy_threshold(accuracy, tolerance, num_classes)
    raise ValueError("threshold: pass either a fixed threshold, or both tolerance and num_classes")


def resample(generator: np.random.Generator, count: int, images: int) -> np.ndarray:
    """How often each image is drawn in ``count`` resamples of size ``images``: float64 ``(count, images)``."""
    drawn = generator.integers(0, images, size=(count, images))
    drawn += images * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)


def _knee_shares(widths: tuple[Bits, ...], index: np.ndarray) -> dict[Bits | None, float]:
    """Share of rows won by each width, as :func:`quide.metric.knee` decides it: ties go to the wider one."""
    widest_first = sorted(range(len(widths)), key=widths.__getitem__, reverse=True)
    ordered = index[:, widest_first]
    winner = np.where(ordered.max(1) > 0, ordered.argmax(1), len(widths))
    share = np.bincount(winner, minlength=len(widths) + 1) / len(index)
    won = {widths[column]: float(share[place]) for place, column in enumerate(widest_first)}
    return {width: won[width] for width in widths} | {None: float(share[-1])}


def _mask(name: str, value: ArrayLike, dimensions: int) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != bool or array.ndim != dimensions or array.size == 0:
        raise ValueError(
            f"{name} must be a non-empty bool array of {dimensions} dimension(s), got {array.dtype} {array.shape}"
        )
    return array


def _row(name: str, value: ArrayLike, *shapes: tuple[int, ...]) -> np.ndarray:
    array = metric.finite_array(name, value)
    if array.shape not in shapes:
        raise ValueError(f"{name} must have shape {' or '.join(map(str, shapes))}, got {array.shape}")
    return array


def _tails(level: float) -> tuple[float, float]:
    """The two quantiles that enclose ``level``."""
    if not 0 < level < 1:
        raise ValueError(f"level must be a confidence between 0 and 1, such as 0.95, got {level!r}")
    return (1 - level) / 2, (1 + level) / 2


def pack_bits(bits: np.ndarray) -> str:
    """A bool vector as base64 text of its zlib-compressed length and bits; :func:`unpack_bits` undoes it."""
    bits = np.asarray(bits)
    if bits.dtype != np.bool_ or bits.ndim != 1:
        raise ValueError(f"bits must be a one-dimensional bool array, got {bits.dtype} of shape {bits.shape}")
    content = _LENGTH.pack(len(bits)) + np.packbits(bits).tobytes()
    return base64.b64encode(zlib.compress(content, 9)).decode()


def unpack_bits(text: str) -> np.ndarray:
    """The bool vector that :func:`pack_bits` made ``text`` from; ``ValueError`` for any other text."""
    if not isinstance(text, str):
        raise ValueError(f"text must be a bit set as pack_bits writes it, got {type(text).__name__}")
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(base64.b64decode(text, validate=True), MOST_BYTES)
        (length,) = _LENGTH.unpack_from(content)
    except (ValueError, zlib.error, struct.error) as error:  # base64 raises ValueErrors
        raise ValueError(f"text is not a bit set as pack_bits writes it ({error})") from error
    bits = np.unpackbits(np.frombuffer(content, np.uint8, offset=_LENGTH.size)).astype(bool)
    if not stream.eof or stream.unused_data or len(bits) != -(-length // 8) * 8 or bits[length:].any():
        raise ValueError(f"text is not a bit set as pack_bits writes it (it does not hold the {length} bits it claims)")
    return bits[:length]
