"""Accuracy of networks over image sets, and the bit-width sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import nn

from quide import _denormals, latency, metric
from quide._check import whole
from quide.data.datasets import BATCH, ImageSet
from quide.evaluate import inputs, knees
from quide.evaluate.inputs import Images, Score
from quide.evaluate.prefix_tree import exhaustive  # noqa: F401 - one of this module's public names
from quide.ptq.layers import quantizable_layers
from quide.ptq.prepared import META, Prepared, prepare
from quide.ptq.scheme import FULL_PRECISION, PAPER, Scheme
from quide.ptq.width import PAPER_BITS, Bits, checked, label, layer_widths
from quide.stats import pack_bits

FULL = f"{FULL_PRECISION} bits"  # the network itself, whatever its configurations are called


@torch.inference_mode()
def predict(model: nn.Module, batches: torch.Tensor | Iterable[torch.Tensor]) -> torch.Tensor:
    """Predicted classes, int64 ``(n,)``, of batches of network input, or of all of it as one tensor.

    They are left as they were, and the model in the mode, of training or evaluation, that each of its parts was in.

    Raises:
        ValueError: the network does not return a score a class, or one is NaN, so that there is no highest one.
    """
    training = [part for part in model.modules() if part.training]
    batches = batches.split(BATCH) if isinstance(batches, torch.Tensor) else batches
    copied = META not in getattr(model, "meta", {})  # which overwrites nothing, see quide.ptq.prepare
    try:
        model.eval()
        scores = ((model(images.clone() if copied else images), len(images)) for images in batches)
        return torch.cat([inputs.check_scores(*each).argmax(1) for each in scores])
    finally:
        for part in training:
            part.training = True


def correct(model: nn.Module, images: ImageSet, batch: int = BATCH) -> torch.Tensor:
    """Which images the model classifies correctly: bool ``(n,)``."""
    return predict(model, images.batches(batch)) == images.labels


@_denormals.flushed()
def sweep(
    model: nn.Module,
    images: Images,
    labels: torch.Tensor | None,
    calibration: torch.Tensor | Iterable,
    bits: Sequence[Bits | Sequence[Bits]] = PAPER_BITS,
    *,
    scheme: Scheme = PAPER,
    tolerance: float = 0.05,
    num_classes: int | None = None,
    size_weighted: bool = False,
    keep: Mapping[str, Bits] | None = None,
    score: Score | None = None,
    batch_size: int = latency.BATCH_SIZE,
    warmup: int = latency.WARMUP,
    passes: int = latency.PASSES,
    progress: bool = False,
) -> pd.DataFrame:
    """Score a network at several bit-widths: compression, accuracy, latency, I and I' (Eq. 1 to 4).

    Denormal numbers are rounded to zero meanwhile, and 2-D convolutions on a CPU run in channels-last layout; model
    and images are left as they were.

    Args:
        model, keep: as :func:`quide.quantize` takes them.
        images, labels: normalized test images ``(n, ...)`` and their classes ``(n,)``; or batches of both, such as a
            DataLoader, and None. Batches are gone through once, and brought to the network's device.
        calibration: normalized images for the activation ranges; take them from training data. Of batches, with labels
            or without, the first 512 images are taken.
        bits: widths to score; an entry is one width for all layers, or one width a layer.
        scheme: the PTQ recipe.
        tolerance: accuracy (fraction) you are prepared to lose, the delta of Eq. 4.
        num_classes: K of Eq. 4; by default the number of outputs of the network.
        size_weighted: count compression by the number of weights instead of by layer.
        score: what is counted instead of accuracy: of all outputs and all labels, on the CPU, a fraction in [0, 1].
            The threshold then has no floor, unless ``num_classes`` gives one.
        batch_size: images that are timed together, the first ones of the set.
        warmup, passes: of the timing protocol (§3.3).
        progress: show how far it is.

    Returns:
        One row a width, in the order given: ``bits``, ``compression`` (of weights), ``accuracy`` (fraction),
        ``latency_ms`` (a batch, simulated quantization), ``index``, ``gated_index``. ``attrs`` holds

        - ``threshold``, and ``knee``: the width with the highest I', None when every I' is zero or full precision is
          not clearly better than guessing; ``reservations``, in words, are what speaks against it;
        - ``timings``, whose ``noisy`` says whether to trust the latencies, and ``batch_size``, of what was timed;
        - ``correct``: by label, which images were right (:func:`quide.stats.unpack_bits`); not with ``score``;
        - ``activation_compression``, by label; ``left_float``, weights that are not quantized, by name; ``unfolded``,
          batch norms that are not folded; ``unfused``, activation functions that rounding is not moved behind;
          ``unused``, layers that do not run in evaluation;
        - ``layout`` and ``denormal_weights``, the number of weights that were set to zero.

    Raises:
        ValueError: as :func:`quide.quantize`; images and labels of different number, or none; labels that are not
            classes of the network, or a network without a score a class.
    """
    inputs.check_given(images, labels, score is not None)
    whole("batch_size", batch_size, 1)
    taken = inputs.calibration_images(calibration, images)
    prepared = prepare(model, taken, scheme, keep=keep, fastest_layout=True)
    bits = _configurations(bits, prepared.layers)
    networks = {FULL: prepared.full_precision()} | {label(width): prepared.at(width) for width in bits}
    scored = _score(prepared, networks, images, labels, score, batch_size, progress)
    classes = num_classes if num_classes is not None else scored.classes
    threshold = (
        metric.accuracy_threshold(scored.accuracy[FULL], tolerance, classes)
        if classes is not None
        else max(scored.accuracy[FULL] - tolerance, 0.0)
    )
    timings = latency.measure_interleaved(
        {label(width): partial(prepared.at(width, commute=False), scored.first) for width in bits},
        warmup, passes, progress=progress,
    )  # fmt: skip
    table = pd.DataFrame(
        {
            "bits": pd.Series(bits, dtype=None if all(isinstance(width, int) for width in bits) else object),
            "compression": [prepared.compression(width, size_weighted) for width in bits],
            "accuracy": [scored.accuracy[label(width)] for width in bits],
            "latency_ms": [timings.latencies[label(width)].median_ms for width in bits],
        }
    )
    table["index"] = metric.intelligence_index(table.compression, table.accuracy, table.latency_ms)
    table["gated_index"] = metric.gated_index(table.compression, table.accuracy, table.latency_ms, threshold)
    knee, reservations = knees.recommended(table, threshold, scored.hits.get(FULL), scored.labels, classes, timings)
    table.attrs = {
        "threshold": threshold,
        "knee": knee,
        "reservations": reservations,
        "timings": timings,
        "batch_size": len(scored.first),
        "correct": {label(width): pack_bits(scored.hits[label(width)]) for width in bits if scored.hits},
        "activation_compression": {label(width): prepared.compression(width, side="activations") for width in bits},
        "left_float": prepared.left_float,
        "unfolded": prepared.unfolded,
        "unfused": prepared.unfused,
        "unused": prepared.unused,
        "layout": prepared.layout,
        "denormal_weights": prepared.cleaned,
    }
    return table


@dataclass
class _Scored:
    """Accuracy of each network by its label, the hits that it is the share of, and what was seen on the way."""

    accuracy: dict[str, float]
    hits: dict[str, np.ndarray]
    labels: np.ndarray | None
    classes: int | None
    first: torch.Tensor


@torch.inference_mode()
def _score(
    prepared: Prepared, networks: dict[str, nn.Module], images: Images, labels: torch.Tensor | None,
    score: Score | None, batch_size: int, progress: bool,
) -> _Scored:  # fmt: skip
    """All networks on each batch in turn, so that an iterable is gone through once."""
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in networks}
    truths, first, classes = [], None, None
    for batch, truth in inputs.batches(images, labels, prepared, progress, scored=score is not None):
        if first is None or len(first) < batch_size:
            first = batch if first is None else torch.cat([first, batch])
        for name, network in networks.items():
            outputs = network(batch)
            if score is None:
                classes = inputs.check_outputs(outputs, truth)
            kept[name].append(outputs.cpu() if score else (outputs.argmax(1) == truth).cpu())
        truths.append(truth.cpu())
    if first is None:
        raise ValueError("images and labels must be of the same number, at least one; got none")
    found = {name: torch.cat(parts) for name, parts in kept.items()}
    truth = torch.cat(truths)
    if score is not None:
        accuracy = {name: inputs.scored(score, outputs, truth) for name, outputs in found.items()}
        return _Scored(accuracy, {}, None, None, first[:batch_size])
    hits = {name: right.numpy() for name, right in found.items()}
    accuracy = {name: int(right.sum()) / len(right) for name, right in hits.items()}
    return _Scored(accuracy, hits, truth.numpy(), classes, first[:batch_size])


def num_weights(model: nn.Module) -> list[int]:
    """Weights (biases not counted) of each quantizable layer."""
    return [model.get_submodule(layer).weight.numel() for layer in quantizable_layers(model)]


def _configurations(bits: Iterable[Bits | Sequence[Bits]], layers: Sequence[str]) -> list[Bits | tuple[Bits, ...]]:
    """Checked before anything is computed: a wrong last width must not cost the time of the ones before it."""
    entries = list(bits) if isinstance(bits, Iterable) and not isinstance(bits, str) else []
    if not entries:
        raise ValueError(f"bits must list one or more configurations, such as (32, 8), got {bits!r}")
    return [layer_widths(entry, layers) if isinstance(entry, Iterable) else checked(entry) for entry in entries]
