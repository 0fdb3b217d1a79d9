"""Training in mixed precision beside training in float32: the accuracy they reach, seed by seed, and what each takes.

Both train the same network by the same recipe on the same images, from the same weights in the same order; only the
arithmetic of the passes differs. The yardstick is how far apart seeds are in float32.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import harness
from benchmarks.harness import Goal, Result, Size
from quide import stats
from quide.models import networks, train

EPOCHS = 4
RECIPE = train.SIMPLECNN_AUGMENTED.shortened(EPOCHS)
LIMIT = 1.0
FLOAT32, MIXED = "float32", "mixed"


def run(size: Size, progress: bool = False) -> Result:
    """Measure it, on a GPU where torch sees one: there a run of the paper's profile trains in mixed precision."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found, source = harness.images("train", 2 * size.training_batches * RECIPE.batch_size)
    test, _ = harness.images("test", size.images)
    inputs = {"images": len(found), "source": source, "epochs": EPOCHS, "test images": len(test), "device": device}
    result = Result("precision", size.name, inputs | {"network": "SimpleCNN"})
    found, test = found.to(device), test.to(device)
    reached: dict[str, list[float]] = {FLOAT32: [], MIXED: []}
    seconds: dict[str, list[float]] = {FLOAT32: [], MIXED: []}
    for seed in tqdm(range(size.seeds), desc="precision", unit="seed", disable=not progress):
        for name in reached:
            model = networks.build("simplecnn", num_classes=10, in_channels=3, image_size=32, seed=seed).to(device)
            started = time.perf_counter()
            fitted = train.fit(model, found, test, RECIPE, seed, progress=False, mixed_precision=name == MIXED)
            seconds[name].append(time.perf_counter() - started)
            reached[name].append(fitted.history[-1]["test_accuracy"])
    plain, mixed = (np.array(reached[name]) for name in (FLOAT32, MIXED))
    result.tables["Test accuracy after the last epoch"] = [
        {"seed": seed, FLOAT32: a, MIXED: b, "change": b - a}
        for seed, (a, b) in enumerate(zip(plain, mixed, strict=True))
    ]
    change, apart = stats.mean_interval(mixed - plain), float(plain.std(ddof=1))
    result.tables["Over the seeds"] = [
        {
            "mean change": change.estimate,
            "95 % from": change.low,
            "to": change.high,
            "standard deviation between seeds": apart,
            "time, of float32": float(np.median(seconds[MIXED]) / np.median(seconds[FLOAT32])),
        }
    ]
    ratio = abs(change.estimate) / apart if apart else math.inf
    result.goals.append(
        Goal("mean change of accuracy, of the standard deviation between seeds", ratio, "at most", LIMIT)
    )
    return result
