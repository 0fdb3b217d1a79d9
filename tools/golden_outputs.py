"""What the code that decides records computes on small inputs, as digests; ``tools/restamp.py`` compares two versions.

``python tools/golden_outputs.py [KIND...]`` prints, as JSON, ``outputs``, a digest for every kind of record and network
there are records of, or for those of some kinds, and ``fresh``, the digests of code in the records that this version
holds for fresh. The digests of outputs hold for one machine and its libraries: two versions of the code are compared on
one.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import llama2c_files  # noqa: E402
import tiny_llm  # noqa: E402

from quide import _files, deploy, evaluate, intensity, latency, ptq, search
from quide.data import datasets, embedded, imagenet
from quide.deploy import matmul, onnx
from quide.evaluate import prefix_tree
from quide.experiments import llm_runs, records, staleness
from quide.experiments.aiq import METHODS
from quide.experiments.compute import aiq, kernels, ladder
from quide.experiments.ladder import RUNGS
from quide.experiments.runs import Case
from quide.llm import checkpoints, llama2c, methods
from quide.models import keras_resnet50, networks, train
from quide.ptq import lsq, rounding
from quide.search.aiq import AUTHORS

SCHEMES = [
    ptq.PAPER,
    *(replace(ptq.PAPER, activation_site=site) for site in ("relu", "input")),
    replace(ptq.PAPER, weight_per_channel=True, weight_range="mse", activation_range="mse"),
    replace(ptq.PAPER, weight_range="percentile", activation_range="percentile", activation_site="input"),
    replace(ptq.PAPER, rounding="half_up", weight_levels="full", quantize_logits=False),
    replace(ptq.PAPER, rounding="floor", activation_symmetric=True, activation_range="mse"),
    replace(ptq.PAPER, sixteen_bit="float16", fold_batch_norm=False),
]
WIDTHS = (32, 16, 8, 4, 2)
IMAGES = 16
TEXTS = ["Which of these is item 3 of a ?", "The item is the Answer : A and 7"]


def digest(*values: object) -> str:
    """SHA-256 over arrays, tensors, numbers and texts, bit for bit."""
    total = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            value = value.detach().float().cpu().contiguous().numpy()
        total.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return total.hexdigest()[:16]


def network(name: str) -> torch.nn.Module:
    """With random weights, and batch norms that have seen something."""
    model = networks.build(name, 10, 3, 32, seed=1)
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


def images(size: int = IMAGES) -> torch.Tensor:
    """Embedded CIFAR-10 images as the networks take them."""
    return embedded.load("cifar10", "calibration").normalized(slice(0, size))


@torch.inference_mode()
def quantized(model: torch.nn.Module, batch: torch.Tensor, commute: bool = True) -> list[torch.Tensor]:
    """Logits at every width under every scheme."""
    logits = []
    for scheme in SCHEMES:
        prepared = ptq.prepare(model, batch, scheme)
        layers = len(prepared.layers)
        mixed = tuple(width for width, _ in zip((8, 4, 16, 32, 2) * layers, range(layers), strict=False))
        logits += [prepared.at(width, commute=commute)(batch) for width in (*WIDTHS, mixed)]
    return logits


def timed() -> dict:
    """The timing protocol by a clock that tells how often it was asked."""
    ticks, passes = count(), {"a": lambda: None, "b": lambda: None}
    found = latency.measure_interleaved(
        passes, 3, 25, block=4, synchronize=lambda: None, clock=lambda: next(ticks) ** 1.1
    )
    return {"latencies": found.to_dict()["latencies"], "aa_ratio": found.aa_ratio}


def trained(name: str, dataset: str, recipe: train.TrainingRecipe, size: int) -> str:
    """Two epochs on a few embedded images."""
    facts, pool = datasets.info(dataset), embedded.load(dataset, "calibration")
    model = networks.build(name, facts.num_classes, facts.channels, facts.image_size, seed=1)
    fitted = train.fit(
        model, pool.subset(slice(0, size)), pool.subset(slice(0, 32)), recipe.shortened(2), 3, progress=False
    )
    return digest(*fitted.best.values(), *fitted.last.values(), fitted.history)


def tree(model: torch.nn.Module, batch: torch.Tensor, choices=(16, 8, 4, 2), groups=None) -> torch.Tensor:
    """Hits of every configuration, by the prefix tree."""
    found = prefix_tree.PrefixTree(ptq.prepare(model, batch), choices, groups)
    return found.correct(batch, torch.arange(len(batch)) % 10)


def in_integers(model: torch.nn.Module) -> torch.Tensor:
    """Logits of ONNX Runtime at 32 and at 8 bits."""
    batch = images()
    exported = onnx.export(ptq.prepare(model, batch).at(32), batch)
    return torch.stack([onnx.OnnxNetwork(each)(batch) for each in (exported, onnx.integers(exported, batch))])


def in_kernels(model: torch.nn.Module) -> str:
    """Logits of what needs no compiler, and what is counted of each layer."""
    batch = images()
    prepared = ptq.prepare(model, batch, ptq.PAPER)
    full, rounded = prepared.at(ptq.FULL_PRECISION), prepared.at(8, commute=False)
    made = [deploy.backend("PyTorch").compiled("32 channels last", rounded, batch, batch)]
    for name in ("PyTorch", "ONNX Runtime"):
        backend = deploy.backend(name)
        made += [backend.compiled(width, full, batch, batch) for width in backend.WIDTHS]
    counted = intensity.arithmetic_intensity(model, batch[:1], batch=IMAGES).layers
    logits = [one.run(one.laid_out(batch)) for one in made]
    return digest(*logits, counted.to_numpy(dtype=float), *kernels._layers(model, batch))


def laddered(model: torch.nn.Module) -> dict[str, str]:
    """Logits on each rung of the ladder, after few steps of what learns, and what is drawn to calibrate on."""
    pool = embedded.load("cifar10", "calibration").subset(slice(0, 2 * IMAGES))
    batch, layers, found = pool.normalized(), ptq.quantizable_layers(model), {}
    short = {"adaround": ptq.AdaRound(iterations=9, outputs=64), "brecq": ptq.Brecq(iterations=9, batch=4)}
    for rung in RUNGS.values():
        if rung.epochs:
            keep = {layers[0]: 8, layers[-1]: 8}
            rounded = lsq.qat(
                model, (batch, pool.labels), 4, rung.scheme, keep=keep, batch_norm=rung.batch_norm, batch_size=IMAGES
            )
        else:
            keep = {layers[0]: ptq.Width(4, 8)} if rung.keeps else {}
            techniques = [short.get(one, one) for one in rung.techniques]
            rounded = ptq.quantize(model, 4, batch, rung.scheme, techniques, keep=keep)
        found[f"ladder {rung.name}"] = digest(rounded(batch).detach())
    case = Case("simplecnn", "cifar10", 0)
    drawn = [next(iter(ladder.Augmented(pool, case)))[0], ladder._drawn(pool, 5, 3), ladder._strange("noise", pool, 3)]
    return found | {"calibration_draws": digest(found["ladder image at 8 bits"], *drawn)}


def resnet50(search_too: bool) -> str:
    """The published network's structure with random weights, on small images; decoding of a photograph's file."""
    torch.manual_seed(0)
    model = keras_resnet50.empty().eval()
    batch = torch.rand(2, 3, 64, 64)
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file := Path(folder, "image.jpg"))
        decoded = imagenet.decode(file)
    prepared = ptq.prepare(model, batch)
    with torch.inference_mode():
        logits = [prepared.at(width)(batch) for width in WIDTHS]
    found = [decoded, *logits, ptq.stages(model)]
    if search_too:
        best = search.genetic(lambda bits: 1 / (1 + sum(bits) % 17), 6, population=8, generations=4, elite=2, seed=5)
        found += [best.best, best.history, tree(model, batch, (8, 4), list(ptq.stages(model).values()))]
    return digest(*found)


def weight_only(model: torch.nn.Module) -> str:
    """Weights, and outputs, rounded without tracing."""
    layers, batch, found = ptq.quantizable_layers(model), images(), []
    seen = rounding.observe(model, layers, [batch])
    for granularity in ("tensor", "channel", 32):
        for outputs in (False, True):
            rounded = rounding.round_weights(model, layers, 4, granularity)
            if outputs:
                rounding.round_outputs(rounded, seen, 4)
            with torch.inference_mode():
                found.append(rounded(batch))
    return digest(*found)


def aiq_runs(projections: bool) -> str:
    """Hits with rounded weights, what is counted, and what searches find by a made-up accuracy."""
    torch.manual_seed(1)
    model, pool = networks.resnet20(projections=projections).eval(), embedded.load("cifar10", "test")
    counted = aiq.traffic(model)
    widths = [counted.uniform(32), counted.uniform(4), (*counted.uniform(8)[:9], *counted.uniform(4)[9:])]
    found = [aiq.tested(model, counted.layers, pool.subset(slice(0, 2 * IMAGES)), widths), counted]
    found += [aiq.random_like(widths[2], counted, 0), aiq.same_weights(model, model, counted.layers, widths[1])]
    score = AUTHORS.__call__
    for method in METHODS:
        result = aiq._searched(
            method,
            lambda bits: score(counted.intensity(bits), 0.99 - 0.01 / (2 + sum(bits) % 13), 0.99),
            counted,
            lambda bits: score(counted.intensity(bits), 1.0, 0.99),
        )
        found += [result.best, result.best_fitness]
    return digest(*found)


def language(folder: Path) -> str:
    """Logits of a tiny model by every method and width, and of one in the format of llama2.c."""
    _files.PUBLISHED.clear()  # the made-up model has the names of the published one
    models = [
        checkpoints.Checkpoint("tiny", tiny_llm.write(folder / "tiny"), "transformers", "0" * 64),
        checkpoints.Checkpoint("tiny2", llama2c_files.write(folder / "llama2c"), "llama2c", "0" * 64),
    ]
    found = []
    for checkpoint in models:
        recipes = [methods.LlmRecipe(method, bits) for method, widths in methods.WIDTHS.items() for bits in widths]
        recipes += [methods.LlmRecipe("rounding", 4, granularity=4), methods.LlmRecipe("rounding", 4, outputs=True)]
        for recipe in recipes:
            if checkpoint.form == "llama2c" and recipe.method not in ("none", "rounding"):
                continue
            loaded = methods.load(checkpoint, recipe, lambda: TEXTS)
            with torch.inference_mode():
                tokens = loaded.encode("a b A")
                found += [loaded.model(tokens).logits, tokens, loaded.stored_bytes, loaded.group or 0]
    values = -np.abs(np.random.default_rng(0).normal(0, 9, (8, 4)))
    return digest(*found, llm_runs.pack_log_likelihoods(values), llama2c.MODEL)


def of_images(batch: torch.Tensor, normalized: list) -> dict[str, str]:
    """Networks that classify images, at every width."""
    found = {}
    for name in ("simplecnn", "resnet18", "resnet20"):
        model = network(name)
        logits, uncommuted = quantized(model, batch), quantized(model, batch, commute=False)
        predicted = evaluate.predict(model, batch.split(4))
        found[f"accuracy/{name}"] = digest(*logits, *normalized, predicted)
        found[f"latency/{name}"] = digest(*logits, *uncommuted, timed())
        if name != "simplecnn":
            parts = ptq.stages(model)
            found[f"mixed_stages/{name}"] = digest(tree(model, batch, (8, 4), list(parts.values())), str(parts))
    hits = tree(network("simplecnn"), batch)
    found["mixed_accuracy/simplecnn"] = digest(hits, *normalized)
    found["mixed_latency/simplecnn"] = digest(hits, timed())
    return found


def of_kernels(batch: torch.Tensor, normalized: list) -> dict[str, str]:
    """Networks in real arithmetic."""
    found = {}
    for name in ("simplecnn", "resnet18", "resnet20"):
        model = network(name)
        computed = in_kernels(model)
        found |= {f"{kind}/{name}": digest(computed, timed()) for kind in ("kernel_latency", "roofline")}
        found[f"kernel_accuracy/{name}"] = digest(computed, *normalized)
        found[f"deployed/{name}"] = digest(in_integers(model), *quantized(model, batch), timed())
    return found


def of_linear(batch: torch.Tensor, normalized: list) -> dict[str, str]:
    """A linear layer of few bits."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((256, 96), np.float32)
    given = torch.from_numpy(generator.standard_normal((IMAGES, 256), np.float32))
    made = [matmul.linear(weight, bits) for bits in (None, *matmul.BITS)]
    return {"linear_latency/llama-3-8b": digest(*(layer(given) for layer, _ in made), timed())}


def of_ladder(batch: torch.Tensor, normalized: list) -> dict[str, str]:
    """Networks on each rung."""
    names = ("simplecnn", "resnet18", "resnet20", "mobilenetv2")
    made = {name: laddered(network(name)) for name in names}
    return {f"{kind}/{name}": digest(one, *normalized) for name in names for kind, one in made[name].items()}


def of_training(batch: torch.Tensor, normalized: list) -> dict[str, str]:
    """Networks that are trained."""
    simple = (
        trained("simplecnn", "mnist", train.SIMPLECNN, 256),
        trained("simplecnn", "cifar10", train.SIMPLECNN_AUGMENTED, 256),
    )
    large = trained("resnet18", "cifar10", train.RESNET18, 48)
    return {"training/simplecnn": digest(*simple), "training/resnet18": large}


def of_imagenet(batch: torch.Tensor, normalized: list) -> dict[str, str]:
    """The network of ImageNet."""
    without = resnet50(search_too=False)
    return {
        "imagenet_accuracy/resnet50": without,
        "imagenet_quantizers/resnet50": without,
        "imagenet_mixed/resnet50": resnet50(search_too=True),
    }


def of_aiq(batch: torch.Tensor, normalized: list) -> dict[str, str]:
    """AIQ's networks and searches."""
    made = {"aiq-resnet20": aiq_runs(True), "resnet20": aiq_runs(False)}
    kinds = ("aiq_networks", "aiq_layers", "aiq_search")
    return {f"{kind}/{name}": rounded for name, rounded in made.items() for kind in kinds}


def of_language(batch: torch.Tensor, normalized: list) -> dict[str, str]:
    """Language models, and weights that are rounded alone."""
    with tempfile.TemporaryDirectory() as folder:
        spoken = language(Path(folder))
    kinds = ("llm_accuracy", "llm_next_token", "llm_memory", "llm_latency")
    found = {f"{kind}/*": digest(spoken, timed()) for kind in kinds}
    return found | {"weight_only/simplecnn": digest(weight_only(network("simplecnn")), *normalized)}


MADE = {  # by the beginnings of the kinds that each makes
    of_images: ("accuracy", "latency", "mixed_"),
    of_kernels: ("kernel_", "roofline", "deployed"),
    of_linear: ("linear_",),
    of_ladder: ("ladder", "calibration_draws"),
    of_training: ("training",),
    of_imagenet: ("imagenet_",),
    of_aiq: ("aiq_",),
    of_language: ("llm_", "weight_only"),
}


def outputs(kinds: list[str]) -> dict[str, str]:
    """By kind of record and network; of all kinds where none is named."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    batch, found = images(), {}
    normalized = [datasets.calibration_indices(100, 20, 3), images(5)]
    for make, beginnings in MADE.items():
        if not kinds or any(kind.startswith(beginnings) for kind in kinds):
            found |= make(batch, normalized)
    return found


if __name__ == "__main__":
    fresh = {record.code for record in records.collect() if not staleness.stale(record)}
    print(json.dumps({"fresh": sorted(fresh), "outputs": outputs(sys.argv[1:])}, indent=1))
