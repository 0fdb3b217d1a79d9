"""Computes what records of ImageNet hold; :mod:`quide.experiments.imagenet_runs` says what each measurement is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from quide import evaluate, metric, ptq, search
from quide.data import imagenet
from quide.evaluate import label, prefix_tree
from quide.experiments import paper
from quide.experiments.compute.images import scored
from quide.experiments.imagenet_runs import BATCH, CONDITION, SCHEMES, UNTIMED, ImageNetCase
from quide.experiments.mixed import CHOICES
from quide.search import Configuration
from quide.stats import pack_bits


def accuracy(case: ImageNetCase, bits: Sequence[int | Configuration]) -> dict:
    prepared, seen = case.prepared(), set(case.calibrated_on.files)
    hits = {label(width): _correct(prepared, width, case) for width in tqdm(bits, desc=case.model, unit="width")}
    shown = np.array([file in seen for file in case.tested.files])
    return scored(hits) | _sizes(case) | {"images": len(case.tested), "calibrated_on": pack_bits(shown)}


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
    prepared: ptq.Prepared, layers: list[list[str]], choices: Sequence[int], case: ImageNetCase
) -> dict[Configuration, np.ndarray]:
    tree, images = prefix_tree.PrefixTree(prepared, choices, layers), case.tested
    batches = zip(images.batches(BATCH), images.labels.split(BATCH), strict=True)
    total = -(-len(images) // BATCH)
    hits = torch.cat([tree.correct(*batch) for batch in tqdm(batches, total=total, desc=case.model)], dim=1)
    return dict(zip(tree.configurations, hits.numpy(), strict=True))


def _genetic(
    prepared: ptq.Prepared,
    choices: Sequence[int],
    population: int,
    generations: int,
    case: ImageNetCase,
    reference: float,
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


def _correct(prepared: ptq.Prepared, bits: int | Configuration, case: ImageNetCase) -> np.ndarray:
    """Which images are right, bool ``(n,)``; a tuple of widths is one a group."""
    if not isinstance(bits, int):
        layers = ptq.stages(case.network)
        width_of = {layer: width for names, width in zip(layers.values(), bits, strict=True) for layer in names}
        bits = [width_of[layer] for layer in prepared.layers]
    return evaluate.correct(prepared.at(bits), case.tested, BATCH).numpy()


def _sizes(case: ImageNetCase) -> dict:
    layers = ptq.stages(case.network)
    weights = [sum(case.network.get_submodule(name).weight.numel() for name in names) for names in layers.values()]
    return {"groups": list(layers), "num_weights": weights}
