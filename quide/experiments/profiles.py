"""How much of an experiment is run: seconds, minutes, a short training, or the paper's full protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quide import latency
from quide._check import one_of

# Of a network whose full schedule needs a GPU, by what multiplies bfloat16: two to six hours on two cores.
SHORT_EPOCHS = {"amx_bf16": 30, "avx512_bf16": 20, "": 12}


@dataclass(frozen=True)
class Profile:
    """One size of every experiment.

    Attributes:
        name: how it is chosen, and the folder its records are kept in; records of different profiles are never mixed.
        embedded: whether it uses the embedded images and the embedded seed-0 checkpoint, so that a seed decides the
            calibration draw alone; otherwise the full data, and a seed decides the training too.
        test_images: at most so many test images; None for all there are.
        warmup, passes: of the timing protocol.
        wait_s: seconds to wait at most for a quiet machine before timing.
        epochs: train for so many epochs instead of the paper's; None for the paper's.
        searches: seeds that a randomized search is tried with.
        timed_images: images in the batch that is timed; the paper's number, but where nothing hangs on the result.
    """

    name: str
    embedded: bool
    test_images: int | None
    warmup: int
    passes: int
    wait_s: float
    epochs: int | None = None
    searches: int = 100
    timed_images: int = latency.BATCH_SIZE


def bfloat16_unit() -> str:
    """What this CPU multiplies bfloat16 with, so that training on it is faster in mixed precision: ``"amx_bf16"``,
    ``"avx512_bf16"``, or nothing."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ""
    return next((unit for unit in SHORT_EPOCHS if unit in flags), "")


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", embedded=True, test_images=200, warmup=2, passes=10, wait_s=0, searches=5, timed_images=8),
        Profile("quick", embedded=True, test_images=None, warmup=10, passes=50, wait_s=5),
        # For a network whose full schedule needs a GPU: on two cores an epoch of ResNet-18 takes 4 to 40 minutes.
        Profile(
            "short", embedded=False, test_images=None, warmup=10, passes=50, wait_s=120,
            epochs=SHORT_EPOCHS[bfloat16_unit()],
        ),
        Profile("paper", embedded=False, test_images=None, warmup=latency.WARMUP, passes=latency.PASSES, wait_s=120),
    )
}  # fmt: skip


def profile(name: str) -> Profile:
    """The profile of that name; ``ValueError`` names the known ones."""
    return PROFILES[one_of("profile", name, PROFILES)]
