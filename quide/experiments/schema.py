"""What the values of records may be: a field's name says it, in whichever kind of record and however deep it stands.

A new kind needs a row in :data:`REQUIRED`, a new field one in :data:`FIELDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from quide.stats import unpack_bits

# What a record of a kind has in any case.
REQUIRED = {
    "training": "history best_epoch best_accuracy last_accuracy",
    "accuracy": "accuracy correct images",
    "latency": "latencies noisy reasons",
    "deployed": "accuracy correct latencies noisy reasons",
    "mixed_accuracy": "accuracy configurations correct full_precision_accuracy full_precision_correct images",
    "mixed_stages": "accuracy configurations correct full_precision_accuracy full_precision_correct images groups",
    "mixed_latency": "latencies noisy reasons",
    "weight_only": "accuracy images",
    "imagenet_accuracy": "accuracy correct images",
    "imagenet_mixed": "accuracy configurations correct full_precision_accuracy full_precision_correct images",
    "imagenet_quantizers": "accuracy correct images",
    "aiq_networks": "accuracy correct images",
    "aiq_layers": "accuracy correct images",
    "aiq_search": "found fitness accuracy correct images",
    "ladder": "accuracy correct seconds checks threads images",
    "calibration_draws": "accuracy correct images",
    "kernel_accuracy": "accuracy correct changed size absent images",
    "kernel_latency": "latencies absent noisy reasons",
    "litert": "accuracy correct images size latencies noisy reasons",
    "linear_latency": "latencies size noisy reasons",
    "throughput_accuracy": "accuracy correct layers images",
    "throughput": "latencies noisy reasons",
    "roofline": "bandwidth peak layers noisy reasons",
    "llm_accuracy": "accuracy correct questions",
    "llm_latency": "prefill decode noisy reasons",
    "llm_memory": "stored_bytes",
    "llm_next_token": "accuracy correct nats_per_token tokens",
}
# An accuracy, the packed bits that it is the mean of, and how many images, questions or tokens it is of.
SHARES = (
    ("accuracy", "correct", ("images", "questions", "tokens")),
    ("full_precision_accuracy", "full_precision_correct", ("images",)),
    ("best_accuracy", "correct_best", ()),
    ("last_accuracy", "correct_last", ()),
)
OPTIONAL = {"group", "peak_bytes", "foreign_cpu_share", "load_before", "load_after", "aa_ratio"}  # may be None


def _number(low: float, high: float = math.inf, kind: type = Real) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high


_ALLOWED = (
    (_number(0, 1), "accuracy full_precision_accuracy best_accuracy last_accuracy test_accuracy agreement"),
    (_number(5e-324), "median_ms min_ms p10_ms p90_ms aa_ratio"),
    (_number(1, kind=Integral), "images questions tokens passes num_weights best_epoch epoch"),
    (_number(0, kind=Integral), "warmup bytes stored_bytes peak_bytes"),
    (_number(0), "foreign_cpu_share load_before load_after seconds nats_per_token"),
    (_number(-math.inf), "loss"),
    (lambda value: isinstance(value, bool), "noisy mixed_precision"),
    (lambda value: isinstance(value, str), "reasons groups configurations answers libraries correct log_likelihoods"),
)
FIELDS: dict[str, Callable[[Any], bool]] = {name: allowed for allowed, names in _ALLOWED for name in names.split()}


def check(kind: str, values: Mapping[str, Any]) -> None:
    """``ValueError`` names the first field that cannot be of such a record."""
    if kind not in REQUIRED:
        return
    if missing := [name for name in REQUIRED[kind].split() if name not in values]:
        raise ValueError(f"values lacks {', '.join(missing)}")
    _check_fields(values, "values")
    for share, bits, counts in SHARES:
        if share in values and bits in values:
            count = next((values[name] for name in counts if name in values), None)
            _check_share(values[share], values[bits], count, f"values.{share}")


def _check_fields(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            allowed = FIELDS.get(name)
            if allowed and not (inner is None and name in OPTIONAL):
                if wrong := [leaf for leaf in _leaves(inner) if not allowed(leaf)]:
                    raise ValueError(f"{where}.{name} holds {str(wrong[0])[:40]!r}")
            _check_fields(inner, f"{where}.{name}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _check_fields(inner, f"{where}[{place}]")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (Mapping, list)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(inner)
    else:
        yield value


def _check_share(accuracy: Any, bits: Any, count: int | None, where: str) -> None:
    """Bits of one accuracy, of accuracies by the same names, or of a list, an image's bits beside one another."""
    if isinstance(bits, Mapping) and isinstance(accuracy, Mapping):
        if bits.keys() != accuracy.keys():
            raise ValueError(f"{where} has other names than its bits")
        for name in bits:
            _check_share(accuracy[name], bits[name], count, f"{where}.{name}")
        return
    hits, shares = unpack_bits(bits), accuracy if isinstance(accuracy, list) else [accuracy]
    if not shares or isinstance(accuracy, Mapping) or not len(hits) or len(hits) != len(shares) * (count or len(hits)):
        raise ValueError(f"{where} has {len(hits)} bits")
    if not np.allclose(hits.reshape(-1, len(shares)).mean(0), shares, rtol=0, atol=1e-9):
        raise ValueError(f"{where} is not the share of its bits")
