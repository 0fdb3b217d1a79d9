"""Computes what records of image networks hold; :mod:`quide.experiments.runs` says what each measurement is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch

from quide import evaluate, latency, ptq
from quide.data import datasets
from quide.experiments import inputs
from quide.experiments.runs import BFLOAT_16, COMMUTED_8, CROSS_SCHEMES, INTEGER_16, SELECTIONS, WIDTHS, Case
from quide.ptq import rounding
from quide.stats import pack_bits


def training(case: Case, device: str, progress: bool) -> dict:
    fitted = inputs.fit(case, device, progress)
    test = datasets.load(case.dataset, "test")
    # The run may have been resumed, or finished earlier: what the checkpoint knows of its making goes along.
    values = {
        "history": fitted.history,
        "best_epoch": fitted.best_epoch,
        "training": {
            "seconds": round(fitted.seconds, 3),
            "provenance": fitted.provenance,
            "mixed_precision": fitted.mixed_precision,
        },
    }
    for selection in SELECTIONS:
        hits = evaluate.correct(inputs.with_weights(case, getattr(fitted, selection)), test)
        values[f"{selection}_accuracy"] = int(hits.sum()) / len(hits)
        values[f"correct_{selection}"] = pack_bits(hits.numpy())
    return values


def accuracy(
    case: Case, bits: Sequence[int | Sequence[int]], scheme: ptq.Scheme, selection: str, calibration_size: int
) -> dict:
    calibration = inputs.calibration_images(case, calibration_size)
    prepared = ptq.prepare(inputs.network(case, selection), calibration, scheme)
    test = inputs.test_images(case)
    hits = {evaluate.label(width): evaluate.correct(prepared.at(width), test) for width in bits}
    return scored(hits) | {"images": len(test)}


def timing(case: Case, device: str, progress: bool) -> dict:
    batch = inputs.test_images(case).subset(slice(0, case.size.timed_images)).normalized().to(device)
    prepared = ptq.prepare(inputs.network(case), inputs.calibration_images(case), ptq.PAPER)
    networks = {evaluate.label(width): prepared.at(width, commute=False) for width in evaluate.PAPER_BITS}
    networks["16"] = ptq.HalfPrecision(prepared.at(ptq.FULL_PRECISION))
    networks[BFLOAT_16] = ptq.HalfPrecision(prepared.at(ptq.FULL_PRECISION), torch.bfloat16)
    networks[INTEGER_16] = prepared.at(16, commute=False)
    networks[COMMUTED_8] = prepared.at(8)
    passes = {name: partial(model.to(device), batch) for name, model in networks.items()}
    size = case.size
    return latency.measure_interleaved(
        passes, size.warmup, size.passes, progress=progress, wait_s=size.wait_s
    ).to_dict()


def weight_only(case: Case, progress: bool) -> dict:
    network, test = inputs.network(case), inputs.test_images(case)
    layers = ptq.quantizable_layers(network)
    seen = rounding.observe(network, layers, [inputs.calibration_images(case)])
    hits = {"32": evaluate.correct(network, test)}
    sizes = {"32": sum(4 * network.get_submodule(name).weight.numel() for name in layers)}
    for name, (granularity, outputs) in CROSS_SCHEMES.items():
        for bits in WIDTHS:
            rounded = rounding.round_weights(network, layers, bits, granularity)
            if outputs:
                rounding.round_outputs(rounded, seen, bits)
            hits[f"{name}, {bits}"] = evaluate.correct(rounded, test)
            weights = [network.get_submodule(layer).weight for layer in layers]
            stored = sum(rounding.stored_bits(weight, bits, granularity) for weight in weights)
            sizes[f"{name}, {bits}"] = -(-stored // 8)
    return scored(hits) | {"stored_bytes": sizes, "images": len(test)}


def scored(hits: Mapping[str, torch.Tensor | np.ndarray]) -> dict:
    """Accuracy (fraction) and packed hits by name, from which images are right, bool ``(n,)``."""
    return {
        "accuracy": {name: int(hit.sum()) / len(hit) for name, hit in hits.items()},
        "correct": {name: pack_bits(np.asarray(hit)) for name, hit in hits.items()},
    }
