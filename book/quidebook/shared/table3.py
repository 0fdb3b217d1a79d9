"""Table 3 (Llama-3-8B on MMLU, §4.4): what each way to read its units implies for latencies and for the knee."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from quide import metric
from quide.experiments import paper
from quidebook import report
from quidebook.pages.paper_audit import DECODINGS, LLAMA, RTX_3090_BYTES_PER_S, Decoding
from quidebook.report import percent

BITS = (16, 8, 4, 3, 2)
ABOVE_4 = (16, 8)  # the widths that 4 bits must beat
# How latency could hang on the width, as a multiple of that at 2 bits.
EQUAL, BY_SIZE = "T the same at all widths", "T in proportion to the bits"
GROWTHS = {EQUAL: dict.fromkeys((16, 8, 4), 1.0), BY_SIZE: {16: 8.0, 8: 4.0, 4: 2.0}}


def full_precision() -> float:
    """The stated accuracy at 16 bits, a fraction."""
    return paper.number(f"{LLAMA}.accuracy.16")


def threshold() -> float:
    """The stated threshold, a fraction."""
    return float(paper.conditions().at[LLAMA, "threshold_used"])


def score(decoding: Decoding, bits: int, accuracy: float, latency_ms: float) -> float:
    """I' in the units of a decoding."""
    latency = latency_ms / 1000 if decoding.seconds else latency_ms
    fraction = metric.gated_index(decoding.base / bits, accuracy, latency, threshold())
    return 100 * fraction if decoding.percentage else fraction


def least_accuracy_at_4() -> float:
    """What I < 70 at 4 bits leaves for the accuracy there, whatever the units: the stated order of I (§4.4)."""
    ratio = paper.number(f"{LLAMA}.gated_index.4") / paper.number(f"{LLAMA}.index.2")
    return threshold() / (1 - ratio)


def latency_at_4(decoding: Decoding) -> tuple[float, float]:
    """Shortest and longest latency (ms) at 4 bits that its stated I' allows, between the accuracies it can have."""
    stated = paper.number(f"{LLAMA}.gated_index.4")
    ends = (least_accuracy_at_4(), full_precision())
    return tuple(decoding.latency_for(4, accuracy - threshold(), stated) for accuracy in ends)


def latency_at_16(decoding: Decoding) -> float:
    """Latency (ms) above which 16 bits, at full accuracy, score below the stated I' of 4 bits."""
    return decoding.latency_for(16, full_precision() - threshold(), paper.number(f"{LLAMA}.gated_index.4"))


def accuracy_at_4(decoding: Decoding, growth: str) -> float:
    """The accuracy at 4 bits that the stated I' takes, if latency grows so from the one implied at 2 bits."""
    one = score(decoding, 4, threshold() + 0.01, GROWTHS[growth][4] * decoding.latency_ms)  # of one percentage point
    return threshold() + 0.01 * paper.number(f"{LLAMA}.gated_index.4") / one


def scores(decoding: Decoding, growth: str) -> Mapping[int, float]:
    """I' at 16, 8 and 4 bits: 16 and 8 as accurate as stated for 16, 4 as stated, latency growing so from 2 bits."""
    found = {
        bits: score(decoding, bits, full_precision(), GROWTHS[growth][bits] * decoding.latency_ms) for bits in ABOVE_4
    }
    return found | {4: paper.number(f"{LLAMA}.gated_index.4")}


def knee(decoding: Decoding, growth: str) -> int | None:
    """The width with the highest of :func:`scores`."""
    found = scores(decoding, growth)
    return metric.knee(list(found), list(found.values()))


def decodings_table() -> pd.DataFrame:
    """One row a reading: the latencies it takes, and the knee under two ways in which latency could grow."""
    rows = []
    for each in DECODINGS:
        shortest, longest = latency_at_4(each)
        at_16 = latency_at_16(each)
        row = {
            "reading": each.name + (" (as in Table 1)" if each is DECODINGS[0] else ""),
            "T at 2 bits": _ms(each.latency_ms),
            "T at 4 bits": f"{_ms(shortest)} to {_ms(longest)}",
            "4 lead 8 if T at 8 is above": _ms(each.latency_at_8_ms),
            "4 lead 16 if T at 16 is above": _ms(at_16),
            "these over T at 2": f"{each.latency_at_8_ms / each.latency_ms:.1f} and {at_16 / each.latency_ms:.1f}",
        }
        for growth in GROWTHS:
            row[f"knee, {growth}"] = f"{knee(each, growth)} bits"
        row["possible on an RTX 3090"] = "yes" if each.bytes_per_second <= RTX_3090_BYTES_PER_S else "no"
        rows.append(row)
    return pd.DataFrame(rows)


def say_decodings() -> None:
    """What the readings have in common."""
    possible = [each for each in DECODINGS if each.bytes_per_second <= RTX_3090_BYTES_PER_S]
    knees = {growth: {knee(each, growth) for each in DECODINGS} for growth in GROWTHS}
    factors = [each.latency_at_8_ms / each.latency_ms for each in possible]
    at_4 = sum(knee(each, BY_SIZE) == 4 for each in possible)
    report.say(
        "Suppose that 8 bits are as accurate as 16. If the latency were the same at all widths, the knee would be at "
        f"{_widths(knees[EQUAL])} bits in every reading, and 4 bits would be right on "
        f"{percent(accuracy_at_4(possible[0], EQUAL), 1)} of the questions. If latency fell in proportion to the bits, "
        f"the knee would be at 4 bits in {at_4} of the {len(possible)} possible readings. So the paper's knee asks "
        f"that 8 bits take at least {min(factors):.1f} to {max(factors):.1f} times as long as 2 bits, depending on the "
        "reading. For a model whose weights are read once a token that is plausible; no latency that would show it is "
        "stated."
    )


def rounded(value: float) -> str:
    """To three digits, with commas in the thousands."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def _widths(knees: set[int | None]) -> str:
    return " or ".join(map(str, sorted(knees, key=str)))


def _ms(value: float) -> str:
    return f"{rounded(value)} ms"
