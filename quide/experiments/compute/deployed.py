"""Computes what records of deployed networks hold; :mod:`quide.experiments.deployed` says what they are."""

from __future__ import annotations

from functools import partial
from importlib import metadata

from quide import evaluate, latency, ptq
from quide.data.datasets import BATCH
from quide.deploy import onnx
from quide.experiments import inputs
from quide.experiments.compute.images import scored
from quide.experiments.deployed import INTEGER, LIBRARIES, RUNTIME, SIMULATED, TORCH
from quide.experiments.runs import Case


def deployed(case: Case, progress: bool) -> dict:
    size = case.size
    onnx.require()
    calibration, test = inputs.calibration_images(case), inputs.test_images(case)
    prepared = ptq.prepare(inputs.network(case), calibration, ptq.PAPER)
    batch = test.subset(slice(0, size.timed_images)).normalized()
    exported = onnx.export(prepared.at(ptq.FULL_PRECISION), batch)
    models_of = {RUNTIME: exported, INTEGER: onnx.integers(exported, calibration)}
    networks = {
        TORCH: prepared.at(ptq.FULL_PRECISION),
        SIMULATED: prepared.at(8, commute=False),
        **{name: onnx.OnnxNetwork(model) for name, model in models_of.items()},
    }
    predicted = {name: evaluate.predict(network, test.batches(BATCH)) for name, network in networks.items()}
    hits = {name: predicted[name] == test.labels for name in models_of}
    # Each is given the memory layout that it is fastest with, so that none is timed converting it.
    laid_out = {name: batch.contiguous() if name in models_of else batch for name in networks}
    passes = {name: partial(network, laid_out[name]) for name, network in networks.items()}
    timings = latency.measure_interleaved(passes, size.warmup, size.passes, progress=progress, wait_s=size.wait_s)
    return scored(hits) | timings.to_dict() | {
        "agreement": float((predicted[INTEGER] == predicted[SIMULATED]).double().mean()),
        "bytes": {name: len(model) for name, model in models_of.items()},
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
    }  # fmt: skip
