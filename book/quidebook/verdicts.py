"""Verdicts: whether what we measured agrees with what the paper states, by rules that hold in the whole book."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import kendalltau

REPRODUCED, IN_PART, NOT_REPRODUCED, UNDECIDED = "✓ reproduced", "◐ in part", "✗ not reproduced", "○ not comparable"
SUPPORTS = "◑ supports, on another network"  # that of a network which stands in for the paper's; it never gets the tick
ABSENT = "○ cannot be run here"
NOISY = "○ no verdict: timings noisy"
NONE = {UNDECIDED, NOISY}  # which decide nothing
CLASSES = {
    REPRODUCED: "verdict-reproduced",
    SUPPORTS: "verdict-supports",
    IN_PART: "verdict-part",
    NOT_REPRODUCED: "verdict-not",
    UNDECIDED: "verdict-open",
    ABSENT: "verdict-open",
    NOISY: "verdict-open",
}
CLOSE, NEAR = 0.01, 0.05  # accuracy differences (fractions) up to which a number counts as reproduced, or in part


def cells(verdict: tuple[str, str]) -> dict[str, str]:
    """The two cells of a verdict and its reason."""
    return dict(zip(("verdict", "reason"), verdict, strict=True))


def held(holds: bool | None) -> str:
    """The verdict on what holds or does not; None decides nothing."""
    return UNDECIDED if holds is None else REPRODUCED if holds else NOT_REPRODUCED


def not_run(command: str) -> tuple[str, str]:
    """Verdict and reason where there is no record: the command that makes it."""
    return UNDECIDED, f"not run; {command}"


def accuracy_verdict(stated: float, mean: float, low: float, high: float) -> tuple[str, str]:
    """Verdict and reason for an accuracy: stated value against our mean and its 95 % interval over seeds (fractions).

    Reproduced: within 1 pp of our mean, and the whole interval within 5 pp of it, so that noise can take agreement away
    but not lend it. In part: within 5 pp of our mean.
    """
    if np.isnan(stated):
        return UNDECIDED, "not stated in the paper's text"
    difference = mean - stated
    inside = not np.isnan(low) and low <= stated <= high
    where = (
        "inside our interval" if inside else "outside our interval" if not np.isnan(low) else "one seed, no interval"
    )
    reason = f"ours {100 * difference:+.2f} pp, {where}"
    steady = np.isnan(low) or (low >= stated - NEAR and high <= stated + NEAR)
    if abs(difference) <= CLOSE and steady:
        return REPRODUCED, reason
    return (IN_PART if abs(difference) <= NEAR else NOT_REPRODUCED), reason


def on_another_network(verdict: str, reason: str) -> tuple[str, str]:
    """Verdict and reason where the network is not the paper's: what agrees supports the claim, what does not leaves it
    open, since it is of the paper's network."""
    return (SUPPORTS, reason) if verdict == REPRODUCED else (UNDECIDED, f"{reason}; another network than the paper's")


def knee_verdict(stated: int, probability: Mapping[int | None, float]) -> tuple[str, str]:
    """Verdict and reason for a knee: the stated width against the bootstrap probabilities of each being the knee."""
    ours = max(probability, key=probability.get)
    reason = f"ours {ours}-bit, Pr(knee = {stated}-bit) = {probability.get(stated, 0.0):.2f}"
    if ours != stated:
        return NOT_REPRODUCED, reason
    return (REPRODUCED if probability[stated] >= 0.95 else IN_PART), reason


def order_verdict(stated: Sequence[int], ours: Sequence[int], scope: str = "complete") -> tuple[str, str]:
    """Verdict and reason for an order of the widths, best first; ``scope`` as in the paper's rankings.

    In part: the same width first, among those that the paper orders.
    """
    shared = [bits for bits in ours if bits in stated]
    if list(stated) == (list(ours)[: len(stated)] if scope == "top" else shared):
        return REPRODUCED, "same order" if scope == "complete" else f"same order, as far as known ({scope})"
    agreement = ""
    if len(stated) > 2:
        tau = kendalltau(range(len(stated)), [shared.index(bits) for bits in stated]).statistic
        agreement = f", Kendall's tau {tau:.2f}"
    first = (ours if scope == "top" else shared)[0]
    if stated[0] == first:
        return IN_PART, f"same first place{agreement}"
    return NOT_REPRODUCED, f"other first place{agreement}"
