"""Keep the best epoch of a finished training with the checkout: ``publish_checkpoint.py MODEL DATASET SEED [PROFILE]``.

The profile is paper if none is named. Weights of short trainings are kept as float16, which halves the file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import manifest
import torch
from safetensors.torch import save_file

from quide import _paths
from quide.experiments import inputs, runs


def publish(case: runs.Case) -> Path:
    """Write the best epoch, and return its file."""
    file, best = inputs.published_checkpoint(case), inputs.fit(case, "cpu", progress=True).best
    kept = {name: weights.contiguous() for name, weights in best.items()}
    if case.schedule is not None:
        kept = {name: weights.half() if weights.dtype == torch.float32 else weights for name, weights in kept.items()}
    with _paths.atomic(file) as partial:
        save_file(kept, partial)
        partial.chmod(0o644)
    manifest.write()  # the file is read only where its SHA-256 is listed
    return file


if __name__ == "__main__":
    model, dataset, seed, *profile = sys.argv[1:]
    print(publish(runs.Case(model, dataset, int(seed), *(profile or ["paper"]))))
