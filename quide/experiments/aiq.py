"""AIQ on ResNet-20 and CIFAR-10: its authors' four networks, searches by its objective, each layer alone.

Weights alone are rounded, each output channel with a scale of its own, as its authors do; activations stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from quide._check import one_of, whole
from quide.data import facts
from quide.experiments.measured import Run, measured
from quide.experiments.parameters import SEED_LIMIT
from quide.experiments.records import Record, RunSpec
from quide.models import registry
from quide.search import Configuration
from quide.search.aiq import AUTHORS, PRINTED, AiqObjective

THEIRS, OURS = "aiq-resnet20", "resnet20"  # of AIQ's authors, with projections on its skips; the published one, without
PUBLISHED = ("32", "8", "4", "greedy")  # their networks, in the order of registry.AIQ_SHA256
OBJECTIVES = {"authors": AUTHORS, "printed": PRINTED}
METHODS = ("greedy", "coordinate descent", "revisiting", "exhaustive")
CHOICES, SELECTED_ON, RANDOM = (32, 8, 4), 2000, 5
# Layers that share a width where every configuration is tried, by the beginning of their names.
GROUPS = ("conv1", "layer1", "layer2", "layer3", "linear")


@dataclass(frozen=True)
class AiqCase:
    """A ResNet-20, and the seed that draws the training images a search selects by."""

    model: str
    seed: int = 0

    def __post_init__(self):
        if self.model not in (THEIRS, OURS):
            raise ValueError(f"model must be {THEIRS} or {OURS}, got {self.model!r}")
        whole("seed", self.seed, 0, SEED_LIMIT - 1)

    def spec(self, kind: str, details: dict) -> RunSpec:
        """The spec of a run of this case."""
        return RunSpec(kind, self.model, "cifar10", self.seed, "paper", details)


def code(model: str) -> tuple[str, ...]:
    """What makes a network and its input, for digests."""
    network = "quide.models.aiq:load" if model == THEIRS else "quide.models.networks:resnet20"
    return network, "quide.data.datasets:normalize", "quide.data.datasets:calibration_indices"


def checksum(spec: RunSpec) -> str:
    """SHA-256 of the images and of the weights."""
    pinned = facts.info("cifar10").sha256
    weights = registry.AIQ_SHA256 if spec.model == THEIRS else {"": registry.row(OURS, "cifar10").sha256}
    return " ".join((pinned["train"], pinned["test"], *weights.values()))


@measured("aiq_networks", "quide.experiments.compute.aiq:networks", code, checksum)
def networks(case: AiqCase) -> dict:
    """A network in full precision and at uniform widths; of its authors', all four that they published too.

    Values: ``accuracy`` (fraction) and ``correct`` (packed) on the test images, by ``"32"``, ``"8"``, ``"4"``, and of
    the authors' FP32 network ``"greedy"`` (at the widths their search found), ``"random 1"``, ... (whose weights take
    as many bytes) and, of their files, ``"theirs 32"``, ...; ``widths``, one a layer, of each but the last;
    ``same_weights``, by width, the share of the rounded weights in their files that rounding here gives bit for bit;
    ``images``; and what :func:`traffic` needs.
    """
    return {"choices": list(CHOICES)}


@measured("aiq_layers", "quide.experiments.compute.aiq:layers", code, checksum)
def layers(case: AiqCase, bits: int = 4) -> dict:
    """Each layer alone at a width, the others in full precision; ``accuracy`` and ``correct`` on the test images by
    layer, and ``"32"``; ``images``; and what :func:`traffic` needs."""
    return {"bits": bits}


@measured("aiq_search", "quide.experiments.compute.aiq:search", code, checksum)
def search(
    case: AiqCase,
    method: str = "greedy",
    objective: str = "authors",
    images: int = SELECTED_ON,
    split: str = "train",
) -> dict:
    """A search by AIQ's objective, whose accuracy is that on some images; what it finds is then tested once on others.

    Args:
        case: network, and seed of the draw of the images selected by.
        method: one of :data:`METHODS`; the exhaustive one gives each of :data:`GROUPS` one width, and tests all.
        objective: one of :data:`OBJECTIVES`.
        images: how many images it selects by.
        split: whose they are: ``"train"``, which the network has seen; or ``"test"``, the others are left to report on.

    Values: ``found`` (one width a layer) and its ``fitness``; ``evaluated``: widths, right ones of the selection
    images, and fitness of every configuration, in order; on the images that were not selected by ``accuracy`` and
    ``correct`` of ``"32"``, ``"found"`` and, of the greedy search, ``"random 1"``, ... whose weights take as many
    bytes, with their widths in ``random``; of the exhaustive one ``tested`` (right ones of these images, in the order
    of ``evaluated``); ``images``, how many, and ``tested_on``, which of the test images (packed); and what
    :func:`traffic` needs.
    """
    one_of("method", method, METHODS)
    one_of("objective", objective, OBJECTIVES)
    if split not in facts.info("cifar10").sizes:
        raise ValueError(f"split must be train or test, got {split!r}")
    whole("images", images, 1)
    details = {"method": method, "objective": asdict(OBJECTIVES[objective]), "choices": list(CHOICES)}
    if method == "exhaustive":
        details["groups"] = list(GROUPS)
    return details | {"selection_images": images, "selection_split": split}


def runs(seed: int = 0) -> list[Run]:
    """All that the page shows, the quick ones first."""
    theirs, ours = AiqCase(THEIRS, seed), AiqCase(OURS, seed)
    found = [one(case) for case in (theirs, ours) for one in (networks, layers)]
    found += [
        search(case, method, split=split)
        for method in ("coordinate descent", "greedy")
        for split in ("train", "test")
        for case in (theirs, ours)
    ]
    return [*found, search(theirs, "coordinate descent", "printed"), *(search(theirs, each) for each in METHODS[:1:-1])]


@dataclass(frozen=True)
class Traffic:
    """Operations and bytes of a network for one image, as AIQ counts them: what depends on the widths, and what not.

    Attributes:
        layers: names of those that have a width.
        num_weights: of each.
        flops: of all layers.
        fixed_bytes: of activations, biases and layers that have no width; the first for each image.
        activation_bytes: the part of them that grows with the batch.
    """

    layers: Sequence[str]
    num_weights: Sequence[int]
    flops: int
    fixed_bytes: float
    activation_bytes: float

    def bytes(self, widths: Configuration, batch: int = 1) -> float:
        """Moved for a batch."""
        weights = sum(count * width for count, width in zip(self.num_weights, widths, strict=True)) / 8
        return weights + self.fixed_bytes + (batch - 1) * self.activation_bytes

    def intensity(self, widths: Configuration, batch: int = 1) -> float:
        """Operations for each byte."""
        return batch * self.flops / self.bytes(widths, batch)

    def uniform(self, bits: int) -> Configuration:
        """One width for all."""
        return (bits,) * len(self.layers)


def traffic(record: Record) -> Traffic:
    """The network of a record."""
    return Traffic(**record.values["traffic"])


def objective_of(record: Record) -> AiqObjective:
    """What a search was guided by."""
    return AiqObjective(**record.spec.details["objective"])
