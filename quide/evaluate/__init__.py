"""Accuracy of networks over image sets, and the bit-width sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from numbers import Integral

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from quide import latency, metric
from quide.data.datasets import BATCH, ImageSet, check_images
from quide.evaluate.prefix_tree import exhaustive  # noqa: F401 - one of this module's public names
from quide.ptq.layers import quantizable_layers
from quide.ptq.prepared import Prepared, layer_widths, prepare
from quide.ptq.scheme import FULL_PRECISION, PAPER, Scheme
from quide.stats import pack_bits

PAPER_BITS = (32, 16, 8, 4, 2)


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Predicted classes, int64 ``(n,)``, of batches of network input."""
    model.eval()
    return torch.cat([model(images).argmax(1) for images in batches])


def correct(model: nn.Module, images: ImageSet, batch: int = BATCH) -> torch.Tensor:
    """Which images the model classifies correctly: bool ``(n,)``."""
    return predict(model, images.batches(batch)) == images.labels


def sweep(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    calibration: torch.Tensor,
    bits: Sequence[int | Sequence[int]] = PAPER_BITS,
    *,
    scheme: Scheme = PAPER,
    tolerance: float = 0.05,
    num_classes: int | None = None,
    size_weighted: bool = False,
    warmup: int = latency.WARMUP,
    passes: int = latency.PASSES,
    progress: bool = False,
) -> pd.DataFrame:
    """Score a network at several bit-widths: compression, accuracy, latency, I and I' (Eq. 1 to 4).

    Args:
        model: as :func:`quide.quantize` takes it.
        images, labels: normalized test images ``(n, ...)`` and their classes ``(n,)``.
        calibration: normalized images for the activation ranges; take them from training data.
        bits: widths to score; an entry is one width for all layers, or one width a layer.
        scheme: the PTQ recipe.
        tolerance: accuracy (fraction) you are prepared to lose, the delta of Eq. 4.
        num_classes: K of Eq. 4; by default the number of outputs of the network.
        size_weighted: count compression by the number of weights instead of by layer.
        warmup, passes: of the timing protocol (§3.3), on batches of the first 64 images.
        progress: show how far it is.

    Returns:
        One row a width, in the order given: ``bits``, ``compression``, ``accuracy`` (fraction), ``latency_ms`` (a batch
        of 64, simulated quantization), ``index``, ``gated_index``. ``attrs`` holds the ``threshold``, the ``knee``
        (None when every I' is zero), the ``timings``, whose ``noisy`` says whether to trust the latencies, and
        ``correct``: by label, which images were right (:func:`quide.stats.unpack_bits`), for intervals.

    Raises:
        ValueError: as :func:`quide.quantize`; images and labels of different number, or none.
    """
    check_images(images, labels)
    prepared = prepare(model, calibration, scheme)
    bits = _configurations(bits, prepared.layers)
    reference = predict(prepared.at(FULL_PRECISION), _batches(images, FULL_PRECISION, progress))
    classes = _num_outputs(prepared, images) if num_classes is None else num_classes
    threshold = metric.accuracy_threshold(_share(reference == labels), tolerance, classes)
    classified = [
        reference if width == FULL_PRECISION else predict(prepared.at(width), _batches(images, width, progress))
        for width in bits
    ]
    hits = [predicted == labels for predicted in classified]
    batch = images[: latency.BATCH_SIZE]
    timings = latency.measure_interleaved(
        {label(width): partial(prepared.at(width, commute=False), batch) for width in bits},
        warmup, passes, progress=progress,
    )  # fmt: skip
    sizes = num_weights(model) if size_weighted else None
    table = pd.DataFrame(
        {
            "bits": bits,
            "compression": [metric.compression_ratio(width, sizes) for width in bits],
            "accuracy": [_share(hit) for hit in hits],
            "latency_ms": [timings.latencies[label(width)].median_ms for width in bits],
        }
    )
    table["index"] = metric.intelligence_index(table.compression, table.accuracy, table.latency_ms)
    table["gated_index"] = metric.gated_index(table.compression, table.accuracy, table.latency_ms, threshold)
    best = table.gated_index.argmax()
    table.attrs = {
        "threshold": threshold,
        "knee": table.bits[best] if table.gated_index[best] > 0 else None,
        "timings": timings,
        "correct": {label(width): pack_bits(hit.cpu().numpy()) for width, hit in zip(bits, hits, strict=True)},
    }
    return table


def label(bits: int | Sequence[int]) -> str:
    """How a configuration is written: ``"8"`` for a uniform width, ``"8-8-8-4"`` for one width a layer."""
    return str(bits) if isinstance(bits, Integral) else "-".join(map(str, bits))


def num_weights(model: nn.Module) -> list[int]:
    """Weights (biases not counted) of each quantizable layer."""
    return [model.get_submodule(layer).weight.numel() for layer in quantizable_layers(model)]


def _batches(images: torch.Tensor, bits: int | Sequence[int], progress: bool) -> Iterable[torch.Tensor]:
    return tqdm(images.split(BATCH), desc=f"{label(bits)} bits", unit="batch", leave=False, disable=not progress)


def _share(hits: torch.Tensor) -> float:
    return int(hits.sum()) / len(hits)


def _num_outputs(prepared: Prepared, images: torch.Tensor) -> int:
    with torch.inference_mode():
        return prepared.at(FULL_PRECISION)(images[:1]).shape[1]


def _configurations(bits: Iterable[int | Sequence[int]], layers: Sequence[str]) -> list[int | tuple[int, ...]]:
    """Checked before anything is computed: a wrong last width must not cost the time of the ones before it."""
    entries = [] if isinstance(bits, Integral) else list(bits)
    if not entries:
        raise ValueError(f"bits must list one or more configurations, such as (32, 8), got {bits!r}")
    checked = [layer_widths(entry, layers) for entry in entries]
    return [
        widths[0] if isinstance(entry, Integral) else widths for entry, widths in zip(entries, checked, strict=True)
    ]
