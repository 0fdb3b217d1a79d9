"""What flushing denormals does for a step of training late in a run; run as a module, it measures one mode.

Adam's weight decay drives the weights of units that no image activates below the smallest normal number of float32,
where a CPU's arithmetic can be many times slower. Training here flushes denormals to zero, so the checkpoint that
travels with the checkout holds none: its decayed weights got stuck just above. In either mode those go on decaying
alone first, by the recipe's own optimizer; then steps are timed. Flushing is a property of a thread, which the
threads it starts inherit, so each mode runs in a process of its own and is set before anything else.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from benchmarks import harness
from benchmarks.harness import Size
from quide.models import train

DECAYED = 1e-10  # a weight this small has had no gradient but its own decay for a long time
TIMED_STEPS = 10
RECIPE = train.SIMPLECNN_AUGMENTED


def compare(size: Size, progress: bool = False) -> list[dict]:
    """Table rows: seconds of a step with denormals kept and flushed, alternating over ``size.rounds`` rounds."""
    measured: dict[str, list[dict]] = {"kept": [], "flushed": []}
    for mode in tqdm(list(measured) * size.rounds, desc="denormals", unit="run", disable=not progress):
        measured[mode].append(harness.child("benchmarks.denormals", mode, str(size.decay_steps)))
    rows = [
        {"denormals": mode, **runs[0], **harness.spread([run["seconds"] for run in runs])}
        for mode, runs in measured.items()
    ]
    flushed = rows[-1]
    for row in rows:
        del row["seconds"]
        row["of_flushed"] = row["median_s"] / flushed["median_s"]
    return rows


def measure(decay_steps: int) -> dict[str, float]:
    """Median seconds of a step, and how many weights are decayed and denormal when the steps begin."""
    model = harness.network().train()
    found, _ = harness.images("train", RECIPE.batch_size)
    inputs, labels = found.normalized(), found.labels
    optimizer = _adam(list(model.parameters()))
    decayed = [weights.detach().abs() < DECAYED for weights in model.parameters()]
    _step(model, optimizer, inputs, labels)  # gives the optimizer its state
    _decay(model, optimizer, decayed, decay_steps)
    counts = {
        "weights": sum(mask.numel() for mask in decayed),
        "decayed": sum(int(mask.sum()) for mask in decayed),
        "denormal": sum(_denormal(weights) for weights in model.parameters()),
    }
    seconds = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        _step(model, optimizer, inputs, labels)
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), **counts}


def _adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=RECIPE.learning_rate, weight_decay=RECIPE.weight_decay, fused=True)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    loss = F.cross_entropy(model(inputs), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _decay(model: nn.Module, optimizer: torch.optim.Optimizer, decayed: list[torch.Tensor], steps: int) -> None:
    """Let the ``decayed`` weights, one mask a parameter, go on decaying alone, and put them and their moments back."""
    parameters = list(model.parameters())
    alone = [nn.Parameter(weights[mask]) for weights, mask in zip(parameters, decayed, strict=True)]
    decaying = _adam(alone)
    for weights in alone:
        weights.grad = torch.zeros_like(weights)
    for _ in range(steps):
        decaying.step()
    for weights, mask, found in zip(parameters, decayed, alone, strict=True):
        weights[mask] = found
        for moment in ("exp_avg", "exp_avg_sq"):
            optimizer.state[weights][moment][mask] = decaying.state[found][moment]


def _denormal(values: torch.Tensor) -> int:
    """How many values are: told by their bits, since arithmetic and comparisons may flush them."""
    bits = values.detach().contiguous().view(torch.int32)
    exponent, fraction = bits & 0x7F800000, bits & 0x007FFFFF
    return int(((exponent == 0) & (fraction != 0)).sum())


if __name__ == "__main__":
    torch.set_flush_denormal(sys.argv[1] == "flushed")
    print(json.dumps(measure(int(sys.argv[2]))))
