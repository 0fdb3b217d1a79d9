"""Computes what :mod:`quide.experiments.throughput` describes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from quide import deploy, latency, ptq
from quide.data import datasets
from quide.data.datasets import BATCH
from quide.deploy import fbgemm, onnx, openvino
from quide.experiments import inputs
from quide.experiments import throughput as what
from quide.experiments.aiq import AUTHORS, CHOICES, SELECTED_ON
from quide.experiments.compute.aiq import SharedStarts, traffic
from quide.experiments.compute.images import scored
from quide.experiments.compute.kernels import WAIT_S, libraries, using_threads
from quide.experiments.runs import Case
from quide.search import aiq as searching


def accuracy(case: Case) -> dict:
    test = inputs.test_images(case)
    made = dict(_artefacts(case, test.subset(slice(0, BATCH)).normalized()))
    hits = {
        name: torch.cat([one.run(one.laid_out(images)).argmax(1) for images in test.batches(BATCH)]) == test.labels
        for name, one in made.items()
    }
    return scored(hits) | {"layers": narrowed(case), "images": len(test)}


def timing(case: Case, batch: int, threads: int) -> dict:
    with using_threads(threads):
        images = inputs.test_images(case).subset(slice(0, batch)).normalized()
        made = dict(_artefacts(case, inputs.test_images(case).subset(slice(0, BATCH)).normalized()))
        passes = {name: partial(one.run, one.laid_out(images)) for name, one in made.items()}
        timings = latency.measure_interleaved(passes, what.WARMUP, what.PASSES[batch], progress=True, wait_s=WAIT_S)
    return timings.to_dict() | {"libraries": libraries()}


@cache
def narrowed(case: Case) -> dict[str, list[str]]:
    """The layers that AIQ's greedy search picks, on training images and in its authors' units; random ones; all."""
    model = inputs.network(case)
    counted, pool = traffic(model), inputs.training_images(case)
    drawn = datasets.calibration_indices(len(pool), SELECTED_ON, case.seed)
    shared = SharedStarts(in_order(model), counted.layers, pool.subset(drawn))
    objective = replace(AUTHORS, floor=what.FLOOR)
    full = float(shared.correct(counted.uniform(32)).double().mean())
    found = searching.narrowing(
        lambda widths: objective(counted.intensity(widths), float(shared.correct(widths).double().mean()), full),
        len(counted.layers), CHOICES[1:], steps=what.LAYERS, progress=True,
        bound=lambda widths: objective(counted.intensity(widths), 1.0, 1.0),
    )  # fmt: skip
    picked = [name for name, bits in zip(counted.layers, found.best, strict=True) if bits != 32]
    rng = np.random.default_rng(case.seed)
    random = {name: rng.choice(len(counted.layers), len(picked), replace=False) for name in what.DRAWN}
    return {
        what.SEARCHED: picked,
        **{name: [counted.layers[place] for place in sorted(places)] for name, places in random.items()},
        what.ALL: list(counted.layers),
    }


def in_order(model: nn.Module) -> nn.Sequential:
    """MobileNetV2 as children that are run one after the other, under the names that its layers have."""
    pool, flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    parts = {"features": model.features, "pool": pool, "flatten": flat, "classifier": model.classifier}
    network = nn.Sequential()
    for name, part in parts.items():
        network.add_module(name, part)
    return network.eval()


def _artefacts(case: Case, batch: torch.Tensor) -> Iterator[tuple[str, deploy.Artefact]]:
    model, calibration = inputs.network(case), inputs.calibration_images(case)
    folded = ptq.prepare(model, calibration, ptq.PAPER).at(ptq.FULL_PRECISION)
    eager = deploy.backend("PyTorch")
    yield f"{what.FULL}, PyTorch", eager.compiled("32", model, calibration, batch)
    yield f"{what.FOLDED}, PyTorch", eager.compiled("32 channels last", folded, calibration, batch)
    exported = onnx.export(folded, batch)
    for name, chosen in {what.FULL: (), **narrowed(case)}.items():
        packed = exported
        if chosen:
            yield f"{name}, PyTorch", fbgemm.integers(model, chosen, calibration)
            packed = onnx.integers(exported, calibration, None if name == what.ALL else chosen)
        yield f"{name}, ONNX Runtime", deploy.Artefact(onnx.OnnxNetwork(packed), len(packed))
        yield f"{name}, OpenVINO", openvino.network(packed)
