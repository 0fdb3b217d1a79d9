"""The measurements on ImageNet (Tables 1 and 2): accuracy by width, other quantizers, mixed precision by stages.

:mod:`quide.experiments.compute.imagenet` computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from quide import ptq
from quide._check import one_of
from quide.experiments import paper, profiles, records
from quide.experiments.measured import measured
from quide.experiments.mixed import CHOICES
from quide.experiments.profiles import Profile
from quide.experiments.runs import CALIBRATION_SIZE
from quide.models import registry
from quide.search import Configuration

if TYPE_CHECKING:
    from torch import nn

    from quide.data.imagenet import ImageFiles

DATASET, PROFILE = "imagenet", "paper"  # nothing of ImageNet is embedded, so that there is no smaller profile
CONDITION = "imagenet-resnet18"
MODELS = [row.model for row in registry.ROWS if row.dataset == DATASET]
ACCURACY, QUANTIZERS, MIXED = "imagenet_accuracy", "imagenet_quantizers", "imagenet_mixed"  # kinds of records
SEARCHED = (8, 8, 8, 8, 8, 16)  # the topology of the paper's Table 2
BATCH = 32  # images of 224 x 224 pixels at once: their activations take some hundred MB
LOW_BITS = (8, 4)  # where the paper sees no loss, and where it sees all lost
FEW, WARMUP, PASSES = 64, 2, 20  # images to calibrate real kernels on, and timed passes of them: each takes seconds
UNTIMED = 1.0  # ms: log2(1 + 1) = 1, so that the index is C (P - threshold), which ranks as I' does at equal latency
LEAST_SQUARES = replace(ptq.PAPER, weight_range="mse", activation_range="mse")
SCHEMES = {
    "paper": ptq.PAPER,
    "weights per channel": replace(ptq.PAPER, weight_per_channel=True),
    "least-squares ranges": LEAST_SQUARES,
    "both": replace(LEAST_SQUARES, weight_per_channel=True),
}


@dataclass(frozen=True)
class ImageNetCase:
    """A published network on the images of ``QUIDE_IMAGENET``; the seed decides the calibration images.

    Args:
        model: a network of ImageNet, by its name in :data:`MODELS`.
        seed: a non-negative integer.
        images: score so many of the validation images, evenly spaced over the classes; None for all.
    """

    model: str
    seed: int = 0
    images: int | None = None

    def __post_init__(self):
        one_of("model", self.model, MODELS)
        if self.images is not None and self.images < 1:
            raise ValueError(f"images must be at least 1, or None for all, got {self.images}")

    @property
    def size(self) -> Profile:
        """How often it is timed."""
        return replace(profiles.profile(PROFILE), warmup=WARMUP, passes=PASSES)

    @cached_property
    def network(self) -> nn.Module:
        """In full precision."""
        from quide.models import pretrained

        return pretrained.load(self.model)

    @cached_property
    def validation(self) -> ImageFiles:
        """All the validation images there are."""
        return self._load("val")

    @cached_property
    def tested(self) -> ImageFiles:
        """The images that accuracy is measured on."""
        everything = self.validation
        if self.images is None:
            return everything
        if self.images > len(everything):
            raise ValueError(f"images must be at most the {len(everything):,} there are, got {self.images:,}")
        return everything.subset(np.arange(self.images) * len(everything) // self.images)

    @cached_property
    def calibrated_on(self) -> ImageFiles:
        """512 images drawn uniformly with the seed (§3.3): training images, else some of the validation images."""
        from quide.data import datasets, imagenet

        pool = self._load("train") if imagenet.has("train") else self.validation
        size = min(CALIBRATION_SIZE, len(pool))
        return pool.subset(datasets.calibration_indices(len(pool), size, self.seed))

    def prepared(self, scheme: ptq.Scheme = ptq.PAPER) -> ptq.Prepared:
        """Network and activation statistics, by a scheme that differs from the paper's in its ranges alone."""
        observed = _observed(self.model, self.seed, self.calibrated_on.sha256, scheme.activation_range)
        return replace(observed, scheme=scheme)

    def spec(self, kind: str, details: dict) -> records.RunSpec:
        """The spec of a run, whose key names the very images that go in."""
        from quide.data import imagenet

        used = {
            "images": len(self.tested),
            "images_sha256": self.tested.sha256,
            "calibration": len(self.calibrated_on),
            "calibration_split": "train" if imagenet.has("train") else "val",
            "calibration_sha256": self.calibrated_on.sha256,
            "weights": registry.row(self.model, DATASET).source,
        }
        return records.RunSpec(kind, self.model, DATASET, self.seed, PROFILE, used | details)

    def _load(self, split: str) -> ImageFiles:
        from quide.data import imagenet

        facts = registry.row(self.model, DATASET)
        return imagenet.load(split, facts.mean, facts.std)


@lru_cache(maxsize=2)
def _observed(model: str, seed: int, calibration_sha256: str, activation_range: str) -> ptq.Prepared:
    """One calibration for all runs that read the same from the same images."""
    case = ImageNetCase(model, seed)
    scheme = replace(ptq.PAPER, activation_range=activation_range)
    return ptq.prepare(case.network, case.calibrated_on.normalized(), scheme)


def deciding(model: str) -> tuple[str, ...]:
    """The code that makes a network and its input, for digests."""
    return (
        "quide.ptq.prepared:prepare", "quide.data.datasets:normalize", "quide.data.datasets:calibration_indices",
        "quide.data.imagenet:decode", "quide.models.keras_resnet50:from_keras",
    )  # fmt: skip


def checksum(spec: records.RunSpec) -> str:
    """SHA-256 of the images and of the weights."""
    weights = registry.row(spec.model, DATASET).sha256
    return f"{spec.details['images_sha256']} {spec.details['calibration_sha256']} {weights}"


@measured(ACCURACY, "quide.experiments.compute.imagenet:accuracy", deciding, checksum)
def accuracy(case: ImageNetCase, bits: Sequence[int | Configuration] = (*paper.BITS, SEARCHED)) -> dict:
    """Accuracy at several widths by :data:`quide.ptq.PAPER`; a tuple holds one width for each of the six groups.

    Values: ``accuracy`` (fractions) and ``correct`` (packed bits) by label, ``images``, ``calibrated_on`` (packed bits:
    which of the images were calibrated on too), ``groups`` (names) and ``num_weights`` of each.
    """
    return {"scheme": records.described(ptq.PAPER), "bits": [w if isinstance(w, int) else list(w) for w in bits]}


@measured(QUANTIZERS, "quide.experiments.compute.imagenet:quantizers", deciding, checksum)
def quantizers(case: ImageNetCase, bits: Sequence[int] = LOW_BITS) -> dict:
    """Accuracy by quantizers that the paper's text does not describe, beside the paper's, on the same images.

    Values: ``accuracy`` and ``correct`` by ``"<scheme>, <bits>"``, and at ``"32"``; ``images``.
    """
    return {"schemes": {name: records.described(scheme) for name, scheme in SCHEMES.items()}, "bits": list(bits)}


@measured(MIXED, "quide.experiments.compute.imagenet:mixed", deciding, checksum)
def mixed(
    case: ImageNetCase,
    method: str = "genetic",
    population: int = 8,
    generations: int = 4,
    choices: Sequence[int] = CHOICES,
) -> dict:
    """Accuracy of mixed-precision configurations of the six groups, for the highest I' at equal latency.

    Args:
        case: usually of few images: even the genetic search classifies each of them dozens of times.
        method: ``"genetic"``: those that Algorithm 1 asks for within a small budget, and the uniform ones;
            ``"exhaustive"``: all, by a prefix tree, which costs :func:`tree_passes` forward passes an image.
        population, generations: the budget of the genetic search; a quarter of the population is kept, as in §3.3.
        choices: widths that a group can have.

    Values: ``configurations`` (labels), their ``accuracy`` and ``correct`` (packed bits, image after image), the same
    of the network itself in ``full_precision_accuracy`` and ``full_precision_correct``, ``images``, ``groups`` and
    ``num_weights`` as :func:`accuracy`, ``tree_passes``.
    """
    if method not in ("genetic", "exhaustive"):
        raise ValueError(f"method must be genetic or exhaustive, got {method!r}")
    budget = {"population": population, "generations": generations} if method == "genetic" else {}
    return {"scheme": records.described(ptq.PAPER), "choices": list(choices), "method": method, **budget}
