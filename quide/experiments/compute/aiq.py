"""Computes what records of AIQ hold; :mod:`quide.experiments.aiq` says what each measurement is."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cache

import torch
from torch import nn

from quide import evaluate, intensity, ptq
from quide import search as searches
from quide.data import datasets
from quide.data.datasets import BATCH, ImageSet
from quide.experiments import inputs
from quide.experiments.aiq import CHOICES, GROUPS, OBJECTIVES, PUBLISHED, RANDOM, THEIRS, AiqCase, Traffic
from quide.experiments.compute.images import scored
from quide.models import aiq as published
from quide.models import registry
from quide.ptq import rounding
from quide.search import Configuration
from quide.search import aiq as searching
from quide.stats import pack_bits

PART = 2000  # images whose activations are kept
KEPT_BYTES = 3 * 2**29  # of activations, those of the configurations evaluated last


class SharedStarts:
    """A network with the weights of some layers rounded; configurations that begin alike share what is computed there.

    Args:
        model: whose children are run one after the other, each on what the one before gave; left as it is.
        layers: names of those that have a width, in the order they run.
        images: to classify.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], images: ImageSet):
        self.model, self.layers, self.labels = copy.deepcopy(model), layers, images.labels
        self.batches = tuple(images.batches(BATCH))
        self.weights = {name: model.get_submodule(name).weight.detach() for name in layers}
        self.stages, self.ends = _stages(self.model, layers)
        self.kept: OrderedDict[Configuration, tuple[torch.Tensor, ...]] = OrderedDict()
        self.rounded: dict[tuple[str, int], nn.Parameter] = {}

    @torch.inference_mode()
    def correct(self, widths: Configuration) -> torch.Tensor:
        """Which of the images are classified as labelled: bool ``(n,)``."""
        start = max((place for place, end in enumerate(self.ends) if widths[:end] in self.kept), default=-1)
        state = self.batches if start < 0 else self.kept[widths[: self.ends[start]]]
        for end in self.ends[: start + 1]:
            if widths[:end] in self.kept:
                self.kept.move_to_end(widths[:end])
        for place in range(start + 1, len(self.stages)):
            for layer in range(self.ends[place - 1] if place else 0, self.ends[place]):
                self._round(self.layers[layer], widths[layer])
            state = tuple(self.stages[place](batch) for batch in state)
            self._keep(widths[: self.ends[place]], state)
        return torch.cat(state).argmax(1) == self.labels

    def _round(self, name: str, bits: int) -> None:
        if (name, bits) not in self.rounded:
            weight = rounding.round_weight(self.weights[name], bits, "channel")
            self.rounded[name, bits] = nn.Parameter(weight, requires_grad=False)
        self.model.get_submodule(name).weight = self.rounded[name, bits]

    def _keep(self, start: Configuration, state: tuple[torch.Tensor, ...]) -> None:
        self.kept[start] = state
        while sum(batch.nbytes for state in self.kept.values() for batch in state) > KEPT_BYTES:
            self.kept.popitem(last=False)


def _stages(model: nn.Module, layers: Sequence[str]) -> tuple[list[nn.Sequential], list[int]]:
    """The network in parts that each begin with layers, and how many layers have run at the end of each."""
    stages, ends = [], []
    for name, part in _units(model):
        inside = sum(layer == name or layer.startswith(f"{name}.") for layer in layers)
        if inside or not stages:
            stages.append([])
            ends.append((ends[-1] if ends else 0) + inside)
        stages[-1].append(part)
    return [nn.Sequential(*parts) for parts in stages], ends


def _units(model: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    for name, part in model.named_children():
        if isinstance(part, nn.Sequential):
            yield from ((f"{name}.{inner}", block) for inner, block in part.named_children())
        else:
            yield name, part


def network(case: AiqCase) -> nn.Module:
    """In full precision."""
    return published.load() if case.model == THEIRS else inputs.network(inputs.published_case(case.model, "cifar10"))


@cache
def images(case: AiqCase, split: str) -> ImageSet:
    """All of a split, as the case's network takes them."""
    if case.model == THEIRS:
        return replace(datasets.load("cifar10", split), mean=published.MEAN, std=published.STD)
    ours = inputs.published_case(case.model, "cifar10")
    return inputs.test_images(ours) if split == "test" else inputs.training_images(ours)


def traffic(model: nn.Module) -> Traffic:
    """Counted as AIQ's authors do, for one image of CIFAR-10."""
    counted = intensity.arithmetic_intensity(model, torch.zeros(1, 3, 32, 32), as_published=True)
    layers = [name for name in ptq.quantizable_layers(model) if not intensity.SHORTCUT.search(name)]
    weights = counted.layers.loc[layers, "weight_bytes"]
    moved = counted.layers[["input_bytes", "output_bytes"]].to_numpy().sum()
    return Traffic(
        layers, [int(each) // 4 for each in weights], counted.flops, float(counted.bytes - weights.sum()), float(moved)
    )


def tested(model: nn.Module, layers: Sequence[str], test: ImageSet, widths: Sequence[Configuration]) -> torch.Tensor:
    """Which test images each configuration classifies correctly, bool ``(configurations, n)``."""
    parts = []
    for start in range(0, len(test), PART):
        shared = SharedStarts(model, layers, test.subset(slice(start, start + PART)))
        parts.append(torch.stack([shared.correct(each) for each in widths]))
    return torch.cat(parts, 1)


def networks(case: AiqCase) -> dict:
    model, test = network(case), images(case, "test")
    counted, same, random = traffic(model), {}, {}
    widths = {str(bits): counted.uniform(bits) for bits in CHOICES}
    if case.model == THEIRS:
        theirs = {name: published.load(file) for name, file in zip(PUBLISHED, registry.AIQ_SHA256, strict=True)}
        same = {name: same_weights(model, theirs[name], counted.layers, widths[name]) for name in ("8", "4")}
        widths["greedy"] = widths_of(model, theirs["greedy"], counted.layers)
        random = random_like(widths["greedy"], counted, case.seed)
    hits = dict(zip(widths | random, tested(model, counted.layers, test, [*(widths | random).values()]), strict=True))
    if case.model == THEIRS:
        hits |= {f"theirs {name}": evaluate.correct(each, test) for name, each in theirs.items()}
    return scored(hits) | {
        "same_weights": same,
        "widths": {name: list(each) for name, each in (widths | random).items()},
        "images": len(test),
        "traffic": asdict(counted),
    }


def widths_of(full: nn.Module, rounded: nn.Module, layers: Sequence[str]) -> Configuration:
    """The width at which rounding the weights of each layer gives those of the other network."""
    return tuple(next(bits for bits in CHOICES if same_weights(full, rounded, [name], (bits,)) == 1) for name in layers)


def same_weights(full: nn.Module, rounded: nn.Module, layers: Sequence[str], widths: Sequence[int]) -> float:
    """Share of the weights of a rounded network that rounding those of the other gives, bit for bit."""
    same = [
        rounding.round_weight(full.get_submodule(name).weight.detach(), bits, "channel")
        == rounded.get_submodule(name).weight
        for name, bits in zip(layers, widths, strict=True)
    ]
    return float(torch.cat([each.flatten() for each in same]).double().mean())


def random_like(widths: Configuration, counted: Traffic, seed: int) -> dict[str, Configuration]:
    """Random configurations whose weights take as many bytes, by name."""
    drawn = searching.random_of_equal_bytes(widths, counted.num_weights, count=RANDOM, seed=seed)
    return {f"random {place}": each for place, each in enumerate(drawn, 1)}


def layers(case: AiqCase, bits: int) -> dict:
    model, test = network(case), images(case, "test")
    counted = traffic(model)
    full = counted.uniform(32)
    alone = [(*full[:place], bits, *full[place + 1 :]) for place in range(len(full))]
    hits = dict(zip(("32", *counted.layers), tested(model, counted.layers, test, [full, *alone]), strict=True))
    return scored(hits) | {"images": len(test), "traffic": asdict(counted)}


def search(case: AiqCase, method: str, objective: str, selected_on: int, split: str) -> dict:
    model, pool, test = network(case), images(case, split), images(case, "test")
    counted, score = traffic(model), OBJECTIVES[objective]
    drawn = datasets.calibration_indices(len(pool), selected_on, case.seed)
    fresh = torch.ones(len(test), dtype=torch.bool)
    if split == "test":
        fresh[drawn] = False
    shared = SharedStarts(model, counted.layers, pool.subset(drawn))
    full = counted.uniform(32)
    seen = {full: int(shared.correct(full).sum())}

    def fitness(widths: Configuration) -> float:
        if widths not in seen:
            seen[widths] = int(shared.correct(widths).sum())
        return score(counted.intensity(widths), seen[widths] / selected_on, seen[full] / selected_on)

    found = _searched(method, fitness, counted, lambda widths: score(counted.intensity(widths), 1.0, 1.0))
    shared.kept.clear()
    random = random_like(found.best, counted, case.seed) if method == "greedy" else {}
    names = {"32": full, "found": found.best} | random
    values = {
        "found": list(found.best),
        "fitness": found.best_fitness,
        "evaluated": [[list(widths), right, fitness(widths)] for widths, right in seen.items()],
        "random": {name: list(widths) for name, widths in random.items()},
        "images": int(fresh.sum()),
        "tested_on": pack_bits(fresh.numpy()),
        "traffic": asdict(counted),
    }
    everything = list(seen) if method == "exhaustive" else list(names.values())
    hits = tested(model, counted.layers, test.subset(fresh), everything)
    values |= scored({name: hits[everything.index(widths)] for name, widths in names.items()})
    return values | ({"tested": hits.sum(1).tolist()} if method == "exhaustive" else {})


def _searched(method: str, fitness, counted: Traffic, bound) -> searches.SearchResult:
    size = len(counted.layers)
    if method == "coordinate descent":
        return searching.coordinate_descent(fitness, size, CHOICES, bound=bound)
    if method == "exhaustive":
        found = searches.exhaustive(lambda widths: fitness(spread(widths, counted.layers)), len(GROUPS), CHOICES)
        return replace(found, best=spread(found.best, counted.layers))
    return searching.narrowing(fitness, size, CHOICES[1:], revisit=method == "revisiting", bound=bound)


def spread(widths: Configuration, layers: Sequence[str]) -> Configuration:
    """One width a group, given to each of its layers."""
    of = dict(zip(GROUPS, widths, strict=True))
    return tuple(of[name.partition(".")[0]] for name in layers)
