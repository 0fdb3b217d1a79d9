"""Computes what records of real kernels hold; :mod:`quide.experiments.kernels` says what they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn

from quide import deploy, evaluate, intensity, latency, ptq
from quide.data.datasets import BATCH
from quide.experiments import inputs, kernels, provenance
from quide.experiments.compute.images import scored
from quide.experiments.imagenet_runs import ImageNetCase
from quide.experiments.kernels import SIMULATED, WIDTHS, LinearCase
from quide.experiments.runs import Case

ELEMENTS = 2**25  # of the arrays that bandwidth is measured with
WAIT_S = 120  # at most, for a quiet machine
SIDE, NARROW_SIDE = 1024, 512  # of the matrices; a CPU without kernels for narrow types takes seconds a product


def accuracy(case: Case | ImageNetCase) -> dict:
    model, test, calibration = inputs.given(case)
    batch = test.subset(torch.arange(min(BATCH, len(test)))).normalized()
    artefacts, absent = _artefacts(model, calibration, batch)
    predicted = {
        name: torch.cat([_padded(one, images, len(batch)) for images in test.batches(len(batch))])
        for name, one in artefacts.items()
    }
    simulated = predicted[SIMULATED]
    return scored({name: classes == test.labels for name, classes in predicted.items()}) | {
        "changed": {name: int((classes != simulated).sum()) for name, classes in predicted.items()},
        "size": {name: one.size for name, one in artefacts.items()},
        "absent": absent,
        "libraries": libraries(),
        "images": len(test),
    }


def _padded(artefact: deploy.Artefact, images: torch.Tensor, size: int) -> torch.Tensor:
    """Classes of a batch that may be smaller than what the artefact is compiled for."""
    missing = size - len(images)
    whole = images if not missing else torch.cat([images, images[:1].expand(missing, *images.shape[1:])])
    return artefact.run(artefact.laid_out(whole))[: len(images)].argmax(1)


def timing(case: Case | ImageNetCase, batch: int, threads: int) -> dict:
    size = case.size
    with using_threads(threads):
        model, test, calibration = inputs.given(case)
        images = test.subset(torch.arange(batch) % len(test)).normalized()
        artefacts, absent = _artefacts(model, calibration, images)
        passes = {name: partial(one.run, one.laid_out(images)) for name, one in artefacts.items()}
        timings = latency.measure_interleaved(passes, size.warmup, size.passes, progress=True, wait_s=size.wait_s)
    return timings.to_dict() | {"absent": absent, "libraries": libraries()}


def roofline(case: Case, batch: int, threads: int) -> dict:
    size = case.size
    with using_threads(threads), torch.no_grad():
        model = inputs.network(case).to(memory_format=torch.channels_last)
        images = inputs.test_images(case).subset(slice(0, batch)).normalized()
        passes, counted = _layers(model, images), intensity.arithmetic_intensity(model, images[:1], batch=batch)
        kernels = {"bandwidth": _moved(), **{f"peak {kind}": run for kind, (run, _) in _products().items()}}
        timings = latency.measure_interleaved(
            passes | kernels, min(size.warmup, 3), min(size.passes, 30), progress=True, wait_s=size.wait_s
        )
    seconds = {name: each.median_ms / 1000 for name, each in timings.latencies.items()}
    moved = counted.layers[["weight_bytes", "bias_bytes", "input_bytes", "output_bytes"]].sum(axis=1)
    return {
        "bandwidth": 12 * ELEMENTS / seconds["bandwidth"],
        "peak": {kind: work / seconds[f"peak {kind}"] for kind, (_, work) in _products().items()},
        "layers": [
            {"name": name, "flops": int(row.flops), "bytes": round(float(moved[name])), "ms": 1000 * seconds[name]}
            for name, row in counted.layers.iterrows()
        ],
        "noisy": timings.noisy,
        "reasons": list(timings.reasons),
    }


def linear(case: LinearCase, tokens: int, threads: int) -> dict:
    from quide.deploy import matmul  # which only this needs

    generator = np.random.default_rng(0)
    weight = generator.standard_normal((kernels.ROWS, kernels.COLUMNS), np.float32)
    given = torch.from_numpy(generator.standard_normal((tokens, kernels.ROWS), np.float32))
    with using_threads(threads):
        made = {name: matmul.linear(weight, int(name) if name.isdecimal() else None) for name in kernels.LINEARS[:-1]}
        passes = {name: partial(layer, given) for name, (layer, _) in made.items()}
        passes[kernels.LINEARS[-1]] = partial(nn.functional.linear, given, torch.from_numpy(weight.T.copy()))
        timings = latency.measure_interleaved(
            passes, kernels.LINEAR_WARMUP, kernels.LINEAR_PASSES, progress=True, wait_s=WAIT_S
        )
    return timings.to_dict() | {"size": {name: size for name, (_, size) in made.items()}, "libraries": libraries()}


def libraries() -> dict[str, str]:
    """Versions of what is installed of all that decides how fast the artefacts are."""
    names = {name for backend in WIDTHS for name in deploy.backend(backend).LIBRARIES}
    return {name: version for name in sorted(names) if (version := provenance.version(name))}


def _artefacts(
    model: nn.Module, calibration: torch.Tensor, batch: torch.Tensor
) -> tuple[dict[str, deploy.Artefact], dict[str, str]]:
    """By name; and why others cannot be had here, whose library or kernel is missing, or fails on the network."""
    prepared = ptq.prepare(model, calibration, ptq.PAPER)
    full, rounded = prepared.at(ptq.FULL_PRECISION), prepared.at(8, commute=False)
    simulated = deploy.backend("PyTorch").compiled("32 channels last", rounded, calibration, batch)
    made, absent = {SIMULATED: simulated}, {}
    for backend, widths in WIDTHS.items():
        for width in widths:
            name = f"{width}, {backend}"
            try:
                made[name] = deploy.backend(backend).compiled(width, full, calibration, batch)
            except Exception as error:  # whatever a compiler fails by is what the record says
                absent[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    return made, absent


def _layers(model: nn.Module, images: torch.Tensor) -> dict[str, partial]:
    """Each layer on the input it has in the network, by name."""
    seen: dict[str, torch.Tensor] = {}
    named = {name: part for name, part in model.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))}
    hooks = [
        part.register_forward_pre_hook(lambda _, given, name=name: seen.setdefault(name, given[0].clone()))
        for name, part in named.items()
    ]
    evaluate.predict(model, [images])
    for hook in hooks:
        hook.remove()
    return {name: partial(named[name], given) for name, given in seen.items()}


def _moved() -> partial:
    one, other, total = (torch.ones(ELEMENTS) for _ in range(3))
    return partial(torch.add, one, other, out=total)


def _products() -> dict[str, tuple[partial, int]]:
    """A product of large matrices of each type, and its operations."""
    narrow = torch.ones(NARROW_SIDE, NARROW_SIDE)
    products = {
        "float32": (torch.mm, torch.ones(SIDE, SIDE)),
        "bfloat16": (torch.mm, narrow.bfloat16()),
        "int8": (torch._int_mm, narrow.to(torch.int8)),
    }
    return {kind: (partial(product, one, one), 2 * len(one) ** 3) for kind, (product, one) in products.items()}


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Torch, and what reads its setting, on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
