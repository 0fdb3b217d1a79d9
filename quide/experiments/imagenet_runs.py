"""The measured runs on ImageNet (Tables 1 and 2): accuracy by width, other quantizers, mixed precision by stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from quide import evaluate, metric, ptq, search
from quide.data import datasets, imagenet
from quide.data.imagenet import ImageFiles
from quide.evaluate import PAPER_BITS, label, prefix_tree
from quide.experiments import paper, records
from quide.experiments.mixed import CHOICES
from quide.experiments.provenance import code_digest
from quide.experiments.runs import CALIBRATION_SIZE, Run
from quide.models import pretrained
from quide.search import Configuration
from quide.stats import pack_bits

DATASET, PROFILE = "imagenet", "paper"  # nothing of ImageNet is embedded, so that there is no smaller profile
CONDITION = "imagenet-resnet18"
ACCURACY, QUANTIZERS, MIXED = "imagenet_accuracy", "imagenet_quantizers", "imagenet_mixed"  # kinds of records
SEARCHED = (8, 8, 8, 8, 8, 16)  # the topology of the paper's Table 2
BATCH = 32  # images of 224 x 224 pixels at once: their activations take some hundred MB
LOW_BITS = (8, 4)  # where the paper sees no loss, and where it sees all lost
UNTIMED = 1.0  # ms: log2(1 + 1) = 1, so that the index is C (P - threshold), which ranks as I' does at equal latency
LEAST_SQUARES = replace(ptq.PAPER, weight_range="mse", activation_range="mse")
SCHEMES = {
    "paper": ptq.PAPER,
    "weights per channel": replace(ptq.PAPER, weight_per_channel=True),
    "least-squares ranges": LEAST_SQUARES,
    "both": replace(LEAST_SQUARES, weight_per_channel=True),
}


@dataclass(frozen=True)
class Case:
    """A published network on the images of ``QUIDE_IMAGENET``; the seed decides the calibration images.

    Args:
        model: a network of ImageNet, by its name in :data:`quide.models.pretrained.NETWORKS`.
        seed: a non-negative integer.
        images: score so many of the validation images, evenly spaced over the classes; None for all.
    """

    model: str
    seed: int = 0
    images: int | None = None

    def __post_init__(self):
        if self.model not in (known := pretrained.trained_on(DATASET)):
            raise ValueError(f"model must be one of {', '.join(known)}, got {self.model!r}")
        if self.images is not None and self.images < 1:
            raise ValueError(f"images must be at least 1, or None for all, got {self.images}")

    @cached_property
    def network(self) -> nn.Module:
        """In full precision."""
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
        pool = self._load("train") if imagenet.has("train") else self.validation
        size = min(CALIBRATION_SIZE, len(pool))
        return pool.subset(datasets.calibration_indices(len(pool), size, self.seed))

    def prepared(self, scheme: ptq.Scheme = ptq.PAPER) -> ptq.Prepared:
        """Network and activation statistics, by a scheme that differs from the paper's in its ranges alone."""
        observed = _observed(self.model, self.seed, self.calibrated_on.sha256, scheme.activation_range)
        return replace(observed, scheme=scheme)

    def run(self, kind: str, details: dict, compute: Callable[[], dict]) -> Run:
        """A run whose key, and whose record's checksum, hang on the very images that go in."""
        used = {
            "images": len(self.tested),
            "images_sha256": self.tested.sha256,
            "calibration": len(self.calibrated_on),
            "calibration_split": "train" if imagenet.has("train") else "val",
            "calibration_sha256": self.calibrated_on.sha256,
            "weights": pretrained.network(self.model).source,
        }
        spec = records.RunSpec(kind, self.model, DATASET, self.seed, PROFILE, used | details)
        weights = pretrained.network(self.model).sha256
        return Run(spec, compute, code(kind), f"{self.tested.sha256} {self.calibrated_on.sha256} {weights}")

    def _load(self, split: str) -> ImageFiles:
        facts = pretrained.network(self.model)
        return imagenet.load(split, facts.mean, facts.std)


@lru_cache(maxsize=2)
def _observed(model: str, seed: int, calibration_sha256: str, activation_range: str) -> ptq.Prepared:
    """One calibration for all runs that read the same from the same images."""
    case = Case(model, seed)
    scheme = replace(ptq.PAPER, activation_range=activation_range)
    return ptq.prepare(case.network, case.calibrated_on.normalized(), scheme)


def code(kind: str) -> str:
    """Digest of the code that the values of a kind of record hang on."""
    names = [
        "quide.ptq.prepared:prepare", "quide.data.datasets:normalize", "quide.data.datasets:calibration_indices",
        "quide.evaluate:predict",
        "quide.data.imagenet:decode", "quide.models.pretrained:from_keras", "quide.ptq.layers:stages",
    ]  # fmt: skip
    return code_digest(
        *names, *(["quide.evaluate.prefix_tree:PrefixTree", "quide.search.evolution:genetic"] if kind == MIXED else [])
    )


def accuracy(case: Case, bits: Sequence[int | Configuration] = (*PAPER_BITS, SEARCHED)) -> Run:
    """Accuracy at several widths by :data:`quide.ptq.PAPER`; a tuple holds one width for each of the six groups.

    Values: ``accuracy`` (fractions) and ``correct`` (packed bits) by label, ``images``, ``calibrated_on`` (packed bits:
    which of the images were calibrated on too), ``groups`` (names) and ``num_weights`` of each.
    """
    details = {"scheme": records.described(ptq.PAPER), "bits": [w if isinstance(w, int) else list(w) for w in bits]}

    def compute() -> dict:
        prepared, seen = case.prepared(), set(case.calibrated_on.files)
        hits = {label(width): _correct(prepared, width, case) for width in tqdm(bits, desc=case.model, unit="width")}
        shown = np.array([file in seen for file in case.tested.files])
        return _scored(hits) | _sizes(case) | {"images": len(case.tested), "calibrated_on": pack_bits(shown)}

    return case.run(ACCURACY, details, compute)


def quantizers(case: Case, bits: Sequence[int] = LOW_BITS) -> Run:
    """Accuracy by quantizers that the paper's text does not describe, beside the paper's, on the same images.

    Values: ``accuracy`` and ``correct`` by ``"<scheme>, <bits>"``, and at ``"32"``; ``images``.
    """
    details = {"schemes": {name: records.described(scheme) for name, scheme in SCHEMES.items()}, "bits": list(bits)}

    def compute() -> dict:
        hits = {"32": _correct(case.prepared(), ptq.FULL_PRECISION, case)}
        for name, scheme in tqdm(SCHEMES.items(), desc=case.model, unit="scheme"):
            for width in bits:
                hits[f"{name}, {width}"] = _correct(case.prepared(scheme), width, case)
        return _scored(hits) | {"images": len(case.tested)}

    return case.run(QUANTIZERS, details, compute)


def mixed(
    case: Case, method: str = "genetic", population: int = 8, generations: int = 4, choices: Sequence[int] = CHOICES
) -> Run:
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
    details = {"scheme": records.described(ptq.PAPER), "choices": list(choices), "method": method, **budget}

    def compute() -> dict:
        prepared, layers = case.prepared(), ptq.stages(case.network)
        reference = _correct(prepared, ptq.FULL_PRECISION, case)
        if method == "exhaustive":
            hits = _tree(prepared, list(layers.values()), choices, case)
        else:
            hits = _genetic(prepared, choices, population, generations, case, float(reference.mean()))
        return _sizes(case) | {
            "configurations": [label(widths) for widths in hits],
            "accuracy": [int(hit.sum()) / len(hit) for hit in hits.values()],
            "correct": pack_bits(np.stack(list(hits.values()), axis=1).ravel()),
            "full_precision_accuracy": int(reference.sum()) / len(reference),
            "full_precision_correct": pack_bits(reference),
            "images": len(case.tested),
            "tree_passes": round(tree_passes(case.network), 1),
        }

    return case.run(MIXED, details, compute)


def tree_passes(model: nn.Module, choices: Sequence[int] = CHOICES) -> float:
    """What trying every configuration of the six groups by a prefix tree costs an image, in plain forward passes.

    The part of the network that belongs to the k-th group is computed ``len(choices)**k`` times.
    """
    work: dict[str, int] = {}
    layers = ptq.stages(model)
    hooks = []
    for name, members in layers.items():
        for layer in map(model.get_submodule, members):
            hooks.append(layer.register_forward_hook(_counter(work, name)))
    with torch.inference_mode():
        model(torch.zeros(1, 3, imagenet.CROP, imagenet.CROP))
    for hook in hooks:
        hook.remove()
    counts = [work[name] for name in layers]
    return sum(len(choices) ** (k + 1) * count for k, count in enumerate(counts)) / sum(counts)


def _counter(work: dict[str, int], name: str) -> Callable:
    def count(layer: nn.Module, _, output: torch.Tensor) -> None:  # multiplications: each weight once a pixel
        work[name] = work.get(name, 0) + layer.weight.numel() * output.numel() // output.shape[1]

    return count


def _tree(
    prepared: ptq.Prepared, layers: list[list[str]], choices: Sequence[int], case: Case
) -> dict[Configuration, np.ndarray]:
    tree, images = prefix_tree.PrefixTree(prepared, choices, layers), case.tested
    batches = zip(images.batches(BATCH), images.labels.split(BATCH), strict=True)
    total = -(-len(images) // BATCH)
    hits = torch.cat([tree.correct(*batch) for batch in tqdm(batches, total=total, desc=case.model)], dim=1)
    return dict(zip(tree.configurations, hits.numpy(), strict=True))


def _genetic(
    prepared: ptq.Prepared, choices: Sequence[int], population: int, generations: int, case: Case, reference: float
) -> dict[Configuration, np.ndarray]:
    """What the genetic search evaluates, and the uniform widths; fitness is I' at equal latency."""
    threshold = paper.threshold(CONDITION, reference)
    length = len(ptq.stages(case.network))
    hits = {(width,) * length: _correct(prepared, (width,) * length, case) for width in choices}

    def fitness(widths: Configuration) -> float:
        if widths not in hits:
            hits[widths] = _correct(prepared, widths, case)
        return metric.gated_index(metric.compression_ratio(widths), float(hits[widths].mean()), UNTIMED, threshold)

    elite = population // 4
    search.genetic(fitness, length, choices, population, generations, elite=elite, seed=case.seed, progress=True)
    return hits


def _correct(prepared: ptq.Prepared, bits: int | Configuration, case: Case) -> np.ndarray:
    """Which images are right, bool ``(n,)``; a tuple of widths is one a group."""
    if not isinstance(bits, int):
        layers = ptq.stages(case.network)
        width_of = {layer: width for names, width in zip(layers.values(), bits, strict=True) for layer in names}
        bits = [width_of[layer] for layer in prepared.layers]
    return evaluate.correct(prepared.at(bits), case.tested, BATCH).numpy()


def _scored(hits: dict[str, np.ndarray]) -> dict:
    return {
        "accuracy": {name: int(hit.sum()) / len(hit) for name, hit in hits.items()},
        "correct": {name: pack_bits(hit) for name, hit in hits.items()},
    }


def _sizes(case: Case) -> dict:
    layers = ptq.stages(case.network)
    weights = [sum(case.network.get_submodule(name).weight.numel() for name in names) for names in layers.values()]
    return {"groups": list(layers), "num_weights": weights}
