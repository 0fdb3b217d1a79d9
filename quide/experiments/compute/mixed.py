"""Computes what records of mixed precision hold; :mod:`quide.experiments.mixed` says what each measurement is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from tqdm import tqdm

from quide import evaluate, latency, ptq
from quide.data import datasets
from quide.evaluate import label, prefix_tree
from quide.experiments import inputs
from quide.experiments.mixed import CHOICES, FULL_PRECISION, passes_of
from quide.experiments.runs import Case
from quide.stats import pack_bits

STAGED = 100  # images at once, so that progress is seen


def accuracy(case: Case, scheme: ptq.Scheme, progress: bool) -> dict:
    network, test = inputs.network(case), inputs.test_images(case)
    prepared = ptq.prepare(network, inputs.calibration_images(case), scheme)
    tree = prefix_tree.PrefixTree(prepared, CHOICES)
    batches = zip(test.batches(datasets.BATCH), test.labels.split(datasets.BATCH), strict=True)
    total = -(-len(test) // datasets.BATCH)
    hits = torch.cat([tree.correct(*batch) for batch in tqdm(batches, total=total, disable=not progress)], dim=1)
    reference = evaluate.correct(prepared.at(ptq.FULL_PRECISION), test)
    return {
        "configurations": [label(widths) for widths in tree.configurations],
        "accuracy": [count / len(test) for count in hits.sum(1).tolist()],
        "correct": pack_bits(hits.T.flatten().numpy()),
        "full_precision_accuracy": int(reference.sum()) / len(test),
        "full_precision_correct": pack_bits(reference.numpy()),
        "images": len(test),
        "num_weights": evaluate.num_weights(network),
    }


def by_stages(case: Case, images: int, choices: Sequence[int]) -> dict:
    network, test = inputs.network(case), inputs.test_images(case).subset(slice(0, images))
    prepared, parts = ptq.prepare(network, inputs.calibration_images(case), ptq.PAPER), ptq.stages(network)
    tree = prefix_tree.PrefixTree(prepared, choices, list(parts.values()))
    batches = zip(test.batches(STAGED), test.labels.split(STAGED), strict=True)
    hits = torch.cat([tree.correct(*batch) for batch in tqdm(batches, desc=case.model, total=-(-images // STAGED))], 1)
    reference = evaluate.correct(prepared.at(ptq.FULL_PRECISION), test)
    return {
        "configurations": [label(widths) for widths in tree.configurations],
        "accuracy": [count / len(test) for count in hits.sum(1).tolist()],
        "correct": pack_bits(hits.T.flatten().numpy()),
        "full_precision_accuracy": int(reference.sum()) / len(test),
        "full_precision_correct": pack_bits(reference.numpy()),
        "images": len(test),
        "groups": list(parts),
        "num_weights": [sum(network.get_submodule(name).weight.numel() for name in names) for names in parts.values()],
    }


def timing(case: Case, device: str, progress: bool) -> dict:
    warmup, passes = passes_of(case)
    batch = inputs.test_images(case).subset(slice(0, case.size.timed_images)).normalized().to(device)
    prepared = ptq.prepare(inputs.network(case), inputs.calibration_images(case), ptq.PAPER)
    widths = prefix_tree.PrefixTree(prepared, CHOICES).configurations
    passed = {FULL_PRECISION: partial(prepared.at(ptq.FULL_PRECISION).to(device), batch)}
    passed |= {label(each): partial(prepared.at(each, commute=False).to(device), batch) for each in widths}
    timings = latency.measure_interleaved(passed, warmup, passes, block=5, progress=progress, wait_s=case.size.wait_s)
    return timings.to_dict()
