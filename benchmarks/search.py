"""Mixed precision: every configuration by the prefix tree and one after the other, the genetic search with and without
its memory.

The yardstick is the plain FP32 pass over the same images, in whichever batch size and layout is fastest for it. "One
after the other" is what anyone would write: quantize, classify, next.
"""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

import torch
from tqdm.auto import tqdm

from benchmarks import harness, sweep
from benchmarks.harness import Goal, Result, Size
from quide import latency, ptq, search
from quide.data.datasets import BATCH
from quide.evaluate import label, predict
from quide.evaluate.prefix_tree import PrefixTree
from quide.search import Configuration, evolution
from quide.search.scoring import Scorer

CHOICES = (16, 8, 4, 2)
PASSES_LIMIT, FLAT_FACTOR = 12.0, 10.0
SHARE = 0.1  # of the images, for what would take many minutes on all
TREE, FLAT, FP32 = "prefix tree", "one after the other", "plain FP32 pass"


def run(size: Size, progress: bool = False) -> Result:
    """Measure it."""
    found, source = harness.images("test", size.images)
    inputs = {"images": len(found), "source": source, "network": "SimpleCNN", "choices": list(CHOICES)}
    result = Result("search", size.name, inputs)
    task = sweep.task(found, harness.network(), harness.calibration())
    plain = sweep.fastest_plain_pass(task, size)
    prepared = ptq.prepare(task.networks["channels-last"], task.calibration["channels-last"])
    tree = PrefixTree(prepared, CHOICES)
    images = task.images["channels-last"]
    timings = latency.measure_interleaved(
        {FP32: plain, TREE: lambda: _by_tree(tree, images)},
        warmup=1, passes=size.rounds, block=1, progress=progress, wait_s=size.wait_s,
    )  # fmt: skip
    result.add_timings("every configuration", timings)
    rows = [{"way": way, **harness.quantiles(timings, way)} for way in (FP32, TREE)]
    for row in rows:
        row["of_FP32"] = row["median_s"] / rows[0]["median_s"]
    few = found.subset(slice(0, max(round(SHARE * len(found)), 1)))
    compared = _one_after_the_other(prepared, tree, images[: len(few)], progress)
    result.tables[f"All {len(tree.configurations)} configurations, {len(found)} images"] = rows
    result.tables[f"The same, {len(few)} images"] = compared
    result.goals += [
        Goal("the prefix tree, of the FP32 pass", rows[1]["of_FP32"], "at most", PASSES_LIMIT),
        Goal("one after the other, of the prefix tree", compared[1]["of_the_tree"], "at least", FLAT_FACTOR),
    ]
    result.tables[f"Genetic search (Algorithm 1), {len(few)} images"] = _genetic(prepared, few, size)
    return result


def _by_tree(tree: PrefixTree, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([tree.predict(batch) for batch in images.split(BATCH)], dim=1)


def _one_after_the_other(
    prepared: ptq.Prepared, tree: PrefixTree, images: torch.Tensor, progress: bool
) -> list[dict[str, Any]]:
    """Both ways to all configurations, once: on all images the second would take many minutes."""
    with torch.inference_mode():
        started = time.perf_counter()
        answers = _by_tree(tree, images)
        tree_s = time.perf_counter() - started
        batches = images.split(BATCH)
        started = time.perf_counter()
        flat = [predict(prepared.at(bits), batches) for bits in tqdm(tree.configurations, disable=not progress)]
        flat_s = time.perf_counter() - started
    same = torch.equal(torch.stack(flat), answers)
    return [
        {"way": way, "seconds": seconds, "of_the_tree": seconds / tree_s, "same_predictions": equal}
        for way, seconds, equal in ((TREE, tree_s, None), (FLAT, flat_s, same))
    ]


def _genetic(prepared: ptq.Prepared, images, size: Size) -> list[dict[str, Any]]:
    """The search with and without its memory: evaluations and seconds."""
    batches = list(images.batches(BATCH))

    def fitness(bits: Configuration) -> float:
        return (predict(prepared.at(bits), batches) == images.labels).double().mean().item()

    settings = {} if size.name == "full" else {"population": 4, "generations": 2, "elite": 1}
    rows = []
    for name, scorer in (("with its memory", Scorer), ("without", _Forgetful)):
        with mock.patch.object(evolution, "Scorer", scorer):
            started = time.perf_counter()
            result = search.genetic(fitness, len(prepared.layers), CHOICES, **settings)
            seconds = time.perf_counter() - started
        evaluations = result.calls if scorer is _Forgetful else result.evaluations
        rows.append({"search": name, "evaluations": evaluations, "seconds": seconds, "best": label(result.best)})
    for row in rows:
        row["of_the_first"] = row["seconds"] / rows[0]["seconds"]
    return rows


class _Forgetful(Scorer):
    """Evaluates whatever it is asked for, as Algorithm 1 reads literally."""

    def __call__(self, configurations: list[Configuration]) -> list:
        self.calls += len(configurations)
        values = [self.check(each, self.fitness(each)) for each in configurations]
        self.values.update(zip(configurations, values, strict=True))
        return values
