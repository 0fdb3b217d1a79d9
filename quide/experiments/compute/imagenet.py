"""Computes what records of ImageNet hold; :mod:`quide.experiments.imagenet_runs` says what each measurement is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from quide import evaluate, intensity, metric, ptq, search
from quide.data import imagenet
from quide.evaluate import label, prefix_tree
from quide.experiments import paper
from quide.experiments.compute.images import scored
from quide.experiments.compute.mixed import configured, every, sizes
from quide.experiments.imagenet_runs import BATCH, CONDITION, SCHEMES, UNTIMED, ImageNetCase
from quide.experiments.mixed import CHOICES
from quide.search import Configuration
from quide.stats import pack_bits


def accuracy(case: ImageNetCase, bits: Sequence[int | Configuration]) -> dict:
    prepared, seen = case.prepared(), set(case.calibrated_on.files)
    hits = {label(width): _correct(prepared, width, case) for width in tqdm(bits, desc=case.model, unit="width")}
    shown = np.array([file in seen for file in case.tested.files])
    return scored(hits) | sizes(case.network) | {"images": len(case.tested), "calibrated_on": pack_bits(shown)}


def quantizers(case: ImageNetCase, bits: Sequence[int]) -> dict:
    hits = {"32": _correct(case.prepared(), ptq.FULL_PRECISION, case)}
    for name, scheme in tqdm(SCHEMES.items(), desc=case.model, unit="scheme"):
        for width in bits:
            hits[f"{name}, {width}"] = _correct(case.prepared(scheme), width, case)
    return scored(hits) | {"images": len(case.tested)}


def mixed(case: ImageNetCase, method: str, population: int, generations: int, choices: Sequence[int]) -> dict:
    prepared, layers = case.prepared(), ptq.stages(case.network)
    reference = _correct(prepared, ptq.FULL_PRECISION, case)
    if method == "exhaustive":
        tree = prefix_tree.PrefixTree(prepared, choices, list(layers.values()))
        configurations, hits = tree.configurations, every(tree, case.tested, BATCH, desc=case.model)
    else:
        found = _genetic(prepared, choices, population, generations, case, float(reference.double().mean()))
        configurations, hits = list(found), torch.stack(list(found.values()))
    passes = {"tree_passes": round(tree_passes(case.network), 1)}
    return configured(configurations, hits, reference) | sizes(case.network) | passes


def tree_passes(model: nn.Module, choices: Sequence[int] = CHOICES) -> float:
    """What trying every configuration of the six groups by a prefix tree costs an image, in plain forward passes.

    The part of the network that belongs to the k-th group is computed ``len(choices)**k`` times.
    """
    flops = intensity.arithmetic_intensity(model, torch.zeros(1, 3, imagenet.CROP, imagenet.CROP)).layers["flops"]
    counts = [flops[names].sum() for names in ptq.stages(model).values()]
    return float(sum(len(choices) ** (k + 1) * count for k, count in enumerate(counts)) / sum(counts))


def _genetic(
    prepared: ptq.Prepared, choices: Sequence[int], population: int, generations: int, case: ImageNetCase,
    reference: float,
) -> dict[Configuration, torch.Tensor]:  # fmt: skip
    """What the genetic search evaluates, and the uniform widths; fitness is I' at equal latency."""
    threshold = paper.threshold(CONDITION, reference)
    length = len(ptq.stages(case.network))
    hits = {(width,) * length: _correct(prepared, (width,) * length, case) for width in choices}

    def fitness(widths: Configuration) -> float:
        if widths not in hits:
            hits[widths] = _correct(prepared, widths, case)
        accuracy = float(hits[widths].double().mean())
        return metric.gated_index(metric.compression_ratio(widths), accuracy, UNTIMED, threshold)

    elite = population // 4
    search.genetic(fitness, length, choices, population, generations, elite=elite, seed=case.seed, progress=True)
    return hits


def _correct(prepared: ptq.Prepared, bits: int | Configuration, case: ImageNetCase) -> torch.Tensor:
    """Which images are right, bool ``(n,)``; a tuple of widths is one a group."""
    if not isinstance(bits, int):
        layers = ptq.stages(case.network)
        width_of = {layer: width for names, width in zip(layers.values(), bits, strict=True) for layer in names}
        bits = [width_of[layer] for layer in prepared.layers]
    return evaluate.correct(prepared.at(bits), case.tested, BATCH)
