"""One bit-width of the sweep of ResNet-18, beside its plain FP32 pass.

Its weights are drawn, not trained: what an image costs does not hang on them. The columns on accuracy say nothing here.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks import harness, sweep
from benchmarks.harness import Result, Size
from quide.models import networks

TUNING = {"tuning_images": 256, "batch_sizes": (32, 64, 128)}
CONTESTANTS = {name: sweep.EAGER[name] for name in (sweep.FP32, sweep.QUIDE)}


def run(size: Size, progress: bool = False) -> Result:
    """Measure it on the first images of the test split; twice the images take twice the time."""
    found, source = harness.images("test", size.deep_images)
    network = networks.build("resnet18", num_classes=10, in_channels=3, image_size=32, seed=0).eval()
    inputs = {"images": len(found), "source": source, "network": "ResNet-18 with random weights"}
    result = Result("resnet18", size.name, inputs)
    task = sweep.task(found, network, harness.calibration()[: size.deep_images])
    return sweep.measure(task, CONTESTANTS, replace(size, **TUNING), result, progress)
