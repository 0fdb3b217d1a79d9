"""Table 3 (Llama-3-8B on MMLU, §4.4): what each way to read its units implies for latencies and for the knee."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from quide import metric
from quide.experiments import paper

LLAMA = "mmlu-llama3-8b"
# What Llama-3-8B reads for a token: 32 layers (queries and outputs, keys and values of 8 heads, feed-forward part)
# and the output matrix; dimensions from Grattafiori et al. (2024), Table 3, and the published configuration.
LLAMA_WEIGHTS = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336) + 4096 * 128256
# Memory of the RTX 3090, the paper's device (§3.3): 384 pins at 19.5 Gbit/s each, from NVIDIA's white paper (2020).
RTX_3090_BYTES_PER_S = 384 * 19.5e9 / 8
BITS = (16, 8, 4, 3, 2)
ABOVE_4 = (16, 8)  # the widths that 4 bits must beat
# How latency could depend on the width, as a multiple of that at 2 bits.
EQUAL, BY_SIZE = "T equal", "T proportional to bits"
GROWTHS = {EQUAL: dict.fromkeys((16, 8, 4), 1.0), BY_SIZE: {16: 8.0, 8: 4.0, 4: 2.0}}


@dataclass(frozen=True)
class Decoding:
    """A way to read Table 3: accuracy as a percentage or a fraction, compression over 32 or 16 bits, ms or s."""

    percentage: bool
    base: int
    seconds: bool

    @property
    def name(self) -> str:
        """As printed."""
        unit = "percentage" if self.percentage else "fraction"
        like = " (as in Table 1)" if self == DECODINGS[0] else ""
        return f"P as a {unit}, C = {self.base}/b, T in {'s' if self.seconds else 'ms'}{like}"

    @property
    def latency_ms(self) -> float:
        """Latency at 2 bits that the stated accuracy and I need."""
        return self.latency_for(2, paper.number(f"{LLAMA}.accuracy.2"), paper.number(f"{LLAMA}.index.2"))

    def latency_losing(self, bits: int) -> float:
        """Latency (ms) above which ``bits``, at full accuracy, score below the stated I' of 4 bits."""
        return self.latency_for(bits, full_precision() - threshold(), _stated_at_4())

    @property
    def bytes_per_second(self) -> float:
        """Traffic of reading every 2-bit weight once per token."""
        return LLAMA_WEIGHTS * 2 / 8 / (self.latency_ms / 1000)

    @property
    def possible(self) -> bool:
        """Whether the paper's GPU can read the weights that fast."""
        return self.bytes_per_second <= RTX_3090_BYTES_PER_S

    def latency_for(self, bits: int, accuracy: float, score: float) -> float:
        """Latency in ms at which ``bits`` with this accuracy, or margin above the threshold, have the score."""
        scaled = accuracy * (100 if self.percentage else 1)
        latency = 2 ** (self.base / bits * scaled / score) - 1
        return latency * (1000 if self.seconds else 1)


DECODINGS = (
    Decoding(False, 32, False),  # as the caption of Table 1 has it
    Decoding(True, 32, False),
    Decoding(True, 16, False),
    Decoding(False, 32, True),
    Decoding(False, 16, True),
)


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
    ratio = _stated_at_4() / paper.number(f"{LLAMA}.index.2")
    return threshold() / (1 - ratio)


def latency_at_4(decoding: Decoding) -> tuple[float, float]:
    """Shortest and longest latency (ms) at 4 bits that its stated I' allows, between the accuracies it can have."""
    ends = (least_accuracy_at_4(), full_precision())
    return tuple(decoding.latency_for(4, accuracy - threshold(), _stated_at_4()) for accuracy in ends)


def _stated_at_4() -> float:
    return paper.number(f"{LLAMA}.gated_index.4")


def scores(decoding: Decoding, growth: str) -> Mapping[int, float]:
    """I' at 16, 8 and 4 bits: 16 and 8 as accurate as stated for 16, 4 as stated, latency growing so from 2 bits."""
    found = {
        bits: score(decoding, bits, full_precision(), GROWTHS[growth][bits] * decoding.latency_ms) for bits in ABOVE_4
    }
    return found | {4: _stated_at_4()}


def knee(decoding: Decoding, growth: str) -> int | None:
    """The width with the highest of :func:`scores`."""
    found = scores(decoding, growth)
    return metric.knee(list(found), list(found.values()))


def decodings_table() -> pd.DataFrame:
    """One row per reading: the latencies it takes in ms, and the knee under two ways in which latency could grow."""
    return pd.DataFrame(
        {
            "reading": each.name + ("" if each.possible else ": impossible"),
            "T at 2 bits (ms)": rounded(each.latency_ms),
            "at 4": " to ".join(map(rounded, latency_at_4(each))),
            "4 beat 8 if T at 8 >": rounded(each.latency_losing(8)),
            "4 beat 16 if T at 16 >": rounded(each.latency_losing(16)),
        }
        | {f"knee, {growth}": f"{knee(each, growth)} bits" for growth in GROWTHS}
        for each in DECODINGS
    )


def knees() -> dict[str, object]:
    """What the readings say of the knee, were 8 bits as accurate as 16: latencies equal, or in proportion to the bits.

    ``equal_knee`` is a width; of the ``possible`` readings ``by_size_4`` have the knee
    at 4 bits; ``least_factor`` and ``most_factor`` bound T at 8 over T at 2 bits from which 4 bits lead.
    """
    possible = [each for each in DECODINGS if each.possible]
    factors = [each.latency_losing(8) / each.latency_ms for each in possible]
    return {
        "equal_knee": " or ".join(sorted({str(knee(each, EQUAL)) for each in DECODINGS})),
        "by_size_4": sum(knee(each, BY_SIZE) == 4 for each in possible),
        "possible": len(possible),
        "least_factor": min(factors),
        "most_factor": max(factors),
    }


def units() -> dict[str, object]:
    """Why the units cannot be those of Table 1: accuracies are fractions, rates TB/s, latencies ms per token."""
    caption, *others = DECODINGS
    return {
        "accuracy_2": paper.number(f"{LLAMA}.accuracy.2"),
        "index_2": paper.number(f"{LLAMA}.index.2"),
        "gated_4": paper.number(f"{LLAMA}.gated_index.4"),
        "caption_ms": caption.latency_ms,
        "caption_rate": caption.bytes_per_second / 1e12,
        "device_rate": RTX_3090_BYTES_PER_S / 1e12,
        "device_gb": RTX_3090_BYTES_PER_S / 1e9,
        "others": len(others),
        "possible": sum(each.possible for each in others),
        "others_ms": ", ".join(f"{each.latency_ms:.0f}" for each in others),
        "least_accuracy_4": least_accuracy_at_4(),
        "billions": LLAMA_WEIGHTS / 1e9,
        "round_ms": DECODINGS[2].latency_ms,
    }


def rounded(value: float) -> str:
    """To three digits, with commas in the thousands."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"
