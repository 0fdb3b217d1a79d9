"""ResNet-20 with weights at 4 bits and activations at 8, by this project's rungs and by other libraries' techniques.

All start from the same folded network and the same calibration images, round what each layer reads and have a scale per
channel of the weights. Accuracy is over the same test images; CPU seconds are what quantizing took, each once.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks import peers
from benchmarks.harness import Goal, Result, Size
from quide import ptq
from quide.data.datasets import ImageSet
from quide.experiments import inputs, runs
from quide.experiments.ladder import CALIBRATION_SIZE, RUNGS
from quide.stats import Hits

WIDTH = ptq.Width(4, 8)
OURS = ("image at 8 bits", "bias correction", "AdaRound")
BATCH = 128


def _rung(name: str, network: nn.Module, calibration: torch.Tensor) -> nn.Module:
    rung = RUNGS[name]
    return ptq.quantize(network, WIDTH, calibration, rung.scheme, rung.techniques)


Builder = Callable[[nn.Module, torch.Tensor], peers.Network]
CONTESTANTS: dict[str, Builder] = {f"QuIDE, {name}": partial(_rung, name) for name in OURS} | {
    "PT2E, min-max": partial(peers.pt2e_inputs, observer="MinMaxObserver"),
    "PT2E, histogram": partial(peers.pt2e_inputs, observer="HistogramObserver"),
    "brevitas, least squares": peers.brevitas_inputs,
    "brevitas, equalization and bias correction": partial(peers.brevitas_inputs, equalize=True, correct=True),
    "brevitas, GPTQ and bias correction": partial(peers.brevitas_inputs, gptq=True, correct=True),
}


def run(size: Size, progress: bool = False) -> Result:
    """Measure it; a library that is not here is noted and left out, and so is a network without its weights."""
    case = runs.Case("resnet20", "cifar10", seed=0, profile="paper")
    result = Result("ladder", size.name, {"network": "ResNet-20, published weights", "width": "W4A8"})
    try:
        model, test = inputs.network(case), inputs.test_images(case)
    except FileNotFoundError as error:
        result.notes.append(f"Not measured: {error}")
        return result
    found = test.subset(slice(0, size.images))
    calibration = inputs.calibration_images(case, CALIBRATION_SIZE)
    folded = ptq.prepare(model, calibration).full_precision()
    result.inputs |= {"images": len(found), "calibration images": len(calibration), "threads": torch.get_num_threads()}
    return measure(folded, calibration, found, CONTESTANTS, result)


def measure(
    folded: nn.Module, calibration: torch.Tensor, found: ImageSet, contestants: dict[str, Builder], result: Result
) -> Result:
    """Fill ``result`` with a row a contestant, and how each peer's accuracy compares with the best of ours."""
    full, rows = _right(folded, found), []
    for name, builder in contestants.items():
        started = time.process_time()
        try:
            network = builder(copy.deepcopy(folded), calibration)
        except ImportError as error:
            result.notes.append(f"{name} was not measured: {error}")
            continue
        seconds = time.process_time() - started
        right = _right(network, found)
        change = right.change(full)
        rows.append(
            {
                "contestant": name,
                "accuracy": right.accuracy,
                "from_FP32_(pp)": 100 * change.estimate,
                "low": 100 * change.low,
                "high": 100 * change.high,
                "CPU_s": seconds,
            }
        )
    result.tables["ResNet-20 at W4A8"] = rows
    ours = max((row for row in rows if row["contestant"].startswith("QuIDE")), key=lambda row: row["accuracy"])
    for row in rows:
        if not row["contestant"].startswith("QuIDE"):
            what = f"accuracy of {ours['contestant']}, of {row['contestant']}"
            result.goals.append(Goal(what, ours["accuracy"] / row["accuracy"], "at least", 1.0))
    return result


def _right(network: peers.Network, found: ImageSet) -> Hits:
    with torch.inference_mode():
        classes = torch.cat([network(images).argmax(1) for images in found.batches(BATCH)])
    return Hits((classes == found.labels).numpy())
