"""Computes what records of mixed precision hold; :mod:`quide.experiments.mixed` says what each measurement is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from tqdm import tqdm

from quide import evaluate, latency, ptq
from quide.data import datasets
from quide.data.datasets import ImageSet
from quide.evaluate import label, prefix_tree
from quide.experiments import inputs
from quide.experiments.mixed import CHOICES, FULL_PRECISION, passes_of
from quide.experiments.runs import Case
from quide.search import Configuration
from quide.stats import pack_bits

STAGED = 100  # images at once, so that progress is seen


def accuracy(case: Case, scheme: ptq.Scheme, progress: bool) -> dict:
    network, test = inputs.network(case), inputs.test_images(case)
    prepared = ptq.prepare(network, inputs.calibration_images(case), scheme)
    tree = prefix_tree.PrefixTree(prepared, CHOICES)
    hits = every(tree, test, datasets.BATCH, disable=not progress)
    reference = evaluate.correct(prepared.at(ptq.FULL_PRECISION), test)
    return configured(tree.configurations, hits, reference) | {"num_weights": evaluate.num_weights(network)}


def by_stages(case: Case, images: int, choices: Sequence[int]) -> dict:
    network, test = inputs.network(case), inputs.test_images(case).subset(slice(0, images))
    prepared = ptq.prepare(network, inputs.calibration_images(case), ptq.PAPER)
    tree = prefix_tree.PrefixTree(prepared, choices, list(ptq.stages(network).values()))
    hits = every(tree, test, STAGED, desc=case.model)
    reference = evaluate.correct(prepared.at(ptq.FULL_PRECISION), test)
    return configured(tree.configurations, hits, reference) | sizes(network)


def every(tree: prefix_tree.PrefixTree, images: ImageSet, batch: int, **bar) -> torch.Tensor:
    """Which images each configuration classifies correctly, bool ``(configurations, n)``; ``bar`` as tqdm takes it."""
    batches = zip(images.batches(batch), images.labels.split(batch), strict=True)
    shown = tqdm(batches, total=-(-len(images) // batch), **bar)
    return torch.cat([tree.correct(*each) for each in shown], dim=1)


def configured(configurations: Sequence[Configuration], hits: torch.Tensor, reference: torch.Tensor) -> dict:
    """What records hold of configurations and of the network itself, from which images are right, bool ``(..., n)``."""
    return {
        "configurations": [label(widths) for widths in configurations],
        "accuracy": [count / len(reference) for count in hits.sum(1).tolist()],
        "correct": pack_bits(hits.T.flatten().numpy()),
        "full_precision_accuracy": int(reference.sum()) / len(reference),
        "full_precision_correct": pack_bits(reference.numpy()),
        "images": len(reference),
    }


def sizes(network: nn.Module) -> dict:
    """The parts of a residual network by name, and the number of weights of each."""
    parts = ptq.stages(network)
    weights = [sum(network.get_submodule(name).weight.numel() for name in names) for names in parts.values()]
    return {"groups": list(parts), "num_weights": weights}


def timing(case: Case, device: str, progress: bool) -> dict:
    warmup, passes = passes_of(case)
    batch = inputs.test_images(case).subset(slice(0, case.size.timed_images)).normalized().to(device)
    prepared = ptq.prepare(inputs.network(case), inputs.calibration_images(case), ptq.PAPER)
    widths = prefix_tree.PrefixTree(prepared, CHOICES).configurations
    passed = {FULL_PRECISION: partial(prepared.at(ptq.FULL_PRECISION).to(device), batch)}
    passed |= {label(each): partial(prepared.at(each, commute=False).to(device), batch) for each in widths}
    timings = latency.measure_interleaved(passed, warmup, passes, block=5, progress=progress, wait_s=case.size.wait_s)
    return timings.to_dict()
