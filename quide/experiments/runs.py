"""The measured runs of the image experiments: each is a spec, the code that computes it, and the record it leaves.

Accuracy belongs to (network, data, seed, scheme, widths), latency to (network, widths, device): they are separate
records, and a table joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from quide import _paths, evaluate, latency, ptq
from quide._check import whole
from quide.data import datasets, embedded
from quide.data.datasets import ImageSet
from quide.experiments import provenance, records
from quide.experiments.parameters import SEED_LIMIT
from quide.experiments.profiles import Profile, profile
from quide.experiments.provenance import code_digest
from quide.models import networks, train
from quide.stats import pack_bits

if TYPE_CHECKING:
    from quide.models import pretrained

CALIBRATION_SIZE = 512  # §3.3
EMBEDDED_SEED = 0  # the training seed of the checkpoint that travels with the checkout
SELECTIONS = ("best", "last")
RECIPES = {
    ("simplecnn", "mnist"): train.SIMPLECNN,
    ("simplecnn", "cifar10"): train.SIMPLECNN_AUGMENTED,
    ("simplecnn", "cifar100"): train.SIMPLECNN_AUGMENTED,
    ("resnet18", "cifar10"): train.RESNET18,
}
PUBLISHED = (("resnet20", "cifar10"),)  # trained by others: the seed draws the calibration images and nothing else
CONDITION = {(model, dataset): f"{dataset}-{model}" for model, dataset in RECIPES}  # as data/paper/ names them
BESIDE = {("resnet20", "cifar10"): "cifar10-resnet18"}  # networks that are not the paper's, and what they stand beside
SLOW_TO_TRAIN = ("resnet18",)  # the networks that there is a short schedule for
# Timed beside the paper's widths: 16 bits as an integer grid too, and 8 bits with the quantizers moved past pooling.
INTEGER_16, COMMUTED_8 = "16 (integer grid)", "8 (after pooling)"


@dataclass(frozen=True)
class Case:
    """One network on one data set at one profile and seed; what the seed decides is the profile's matter."""

    model: str
    dataset: str
    seed: int
    profile: str = "quick"

    def __post_init__(self):
        datasets.info(self.dataset)
        profile(self.profile)
        if (self.model, self.dataset) not in (possible := (*RECIPES, *PUBLISHED)):
            known = ", ".join(sorted(model for model, dataset in possible if dataset == self.dataset))
            raise ValueError(f"model must be one of {known} for {self.dataset}, got {self.model!r}")
        if self.size.epochs is not None and self.model not in SLOW_TO_TRAIN:
            raise ValueError(
                f"profile {self.profile} is for {', '.join(SLOW_TO_TRAIN)}, got model {self.model!r}; use profile paper"
            )
        whole("seed", self.seed, 0, SEED_LIMIT - 1)

    @property
    def size(self) -> Profile:
        """The profile."""
        return profile(self.profile)

    @property
    def published(self) -> bool:
        """Whether its weights are others', and the same for every seed."""
        return (self.model, self.dataset) in PUBLISHED

    @property
    def recipe(self) -> train.Recipe:
        """The paper's training recipe for this network and data set, shortened where the profile says so."""
        if self.published:
            raise ValueError(f"model {self.model} is not trained here: its weights on {self.dataset} are published")
        recipe = RECIPES[self.model, self.dataset]
        return recipe if self.size.epochs is None else recipe.shortened(self.size.epochs)

    @property
    def training_seed(self) -> int | None:
        """The seed its weights come from; None of published weights."""
        if self.published:
            return None
        return EMBEDDED_SEED if self.size.embedded else self.seed

    @property
    def weights_name(self) -> str:
        """Name, without ending, of the files that hold its weights: one for each network, data set, schedule, seed."""
        schedule = "" if self.size.epochs is None else f"-{self.profile}"
        return f"{self.model}-{self.dataset}{schedule}-seed{self.training_seed}"

    def spec(self, kind: str, details: dict) -> records.RunSpec:
        """The spec of a run of this case."""
        return records.RunSpec(kind, self.model, self.dataset, self.seed, self.profile, details)


@dataclass(frozen=True)
class Run:
    """One measurement: what it is, how to do it, and which code and data its numbers hang on."""

    spec: records.RunSpec
    compute: Callable[[], dict]
    code: str
    data: str

    def result(self, refresh: bool = False) -> records.Record:
        """The record, computed and saved if there is none; see :func:`quide.experiments.records.load_or_run`."""
        return records.load_or_run(self.spec, self.compute, self.code, self.data, refresh)

    def known(self) -> records.Record | None:
        """The record if there is one; nothing is computed. Warns when it is stale."""
        return self.result() if records.path_of(self.spec).exists() else None

    def stale(self) -> bool:
        """Whether there is a record and other code or data than today's made it."""
        record = records.load(self.spec)
        return record is not None and records.is_stale(record, self.code, self.data)


def training(case: Case, device: str = "cpu", progress: bool = True) -> Run:
    """Training the case's network by its recipe, on a GPU in mixed precision; resumes from the checkpoint of an
    interrupted run.

    Values: ``history`` (:class:`quide.models.train.Fit`), ``best_epoch``,
    ``best_accuracy``, ``last_accuracy`` (fractions of the test set), and the packed bit sets ``correct_best`` and
    ``correct_last``.
    """

    def compute() -> dict:
        fitted = _fit(case, device, progress)
        test = datasets.load(case.dataset, "test")
        # The run may have been resumed, or finished earlier: what the checkpoint knows of its making goes along.
        values = {
            "history": fitted.history,
            "best_epoch": fitted.best_epoch,
            "training": {
                "seconds": round(fitted.seconds, 3),
                "provenance": fitted.provenance,
                "mixed_precision": fitted.mixed_precision,
            },
        }
        for selection in SELECTIONS:
            hits = evaluate.correct(_with_weights(case, getattr(fitted, selection)), test)
            values[f"{selection}_accuracy"] = int(hits.sum()) / len(hits)
            values[f"correct_{selection}"] = pack_bits(hits.numpy())
        return values

    code = code_digest("quide.models.train:fit", builder(case.model))
    data = f"{_checksum(case.dataset, 'train')} {_checksum(case.dataset, 'test')}"
    return Run(case.spec("training", {"recipe": records.described(case.recipe)}), compute, code, data)


def accuracy(
    case: Case,
    bits: Sequence[int | Sequence[int]] = evaluate.PAPER_BITS,
    scheme: ptq.Scheme = ptq.PAPER,
    selection: str = "best",
    calibration_size: int = CALIBRATION_SIZE,
) -> Run:
    """Accuracy of the case's network at several widths under one scheme.

    Args:
        case: which network and data.
        bits: configurations, each one width for all layers or one width a layer.
        scheme: the PTQ recipe.
        selection: weights of the ``"best"`` or the ``"last"`` epoch.
        calibration_size: images the activation ranges are read from, drawn with the case's seed.

    Values: by configuration label (:func:`quide.evaluate.label`), ``accuracy`` (fraction) and ``correct`` (packed bit
    set over the test images, in their order); and ``images``, their number.
    """
    if selection not in SELECTIONS:
        raise ValueError(f"selection must be one of {', '.join(SELECTIONS)}, got {selection!r}")
    details = {
        "scheme": records.described(scheme),
        "bits": [width if isinstance(width, int) else list(width) for width in bits],
        "selection": selection,
        "calibration_size": calibration_size,
        "training_seed": case.training_seed,
        "test_images": case.size.test_images,
    }

    def compute() -> dict:
        calibration = calibration_images(case, calibration_size)
        prepared = ptq.prepare(network(case, selection), calibration, scheme)
        test = test_images(case)
        hits = {evaluate.label(width): evaluate.correct(prepared.at(width), test) for width in bits}
        return {
            "accuracy": {name: int(hit.sum()) / len(hit) for name, hit in hits.items()},
            "correct": {name: pack_bits(hit.numpy()) for name, hit in hits.items()},
            "images": len(test),
        }

    return Run(case.spec("accuracy", details), compute, code_digest(*ptq_code(case.model)), test_checksum(case))


def timing(case: Case, device: str = "cpu", progress: bool = True) -> Run:
    """Latency of the case's network at the paper's widths, by its protocol, simulated quantization on this machine.

    16 bits is a float16 cast (the scheme's ``sixteen_bit="float16"``); 8, 4 and 2 round after every layer, as a
    simulating framework does. Two more configurations show what simulation itself costs: 16 bits on an integer grid,
    and 8 bits with the quantizers moved past pooling and merged with the ReLUs, which returns the same numbers.

    Values: :meth:`quide.latency.Timings.to_dict`. The machine is in the spec, so that another machine measures anew.
    """
    details = {
        "backend": "simulated",
        "scheme": records.described(ptq.PAPER),
        "warmup": case.size.warmup,
        "passes": case.size.passes,
    }
    details |= {"environment": provenance.environment(device), "training_seed": case.training_seed}

    def compute() -> dict:
        batch = test_images(case).subset(slice(0, case.size.timed_images)).normalized().to(device)
        prepared = ptq.prepare(network(case), calibration_images(case), ptq.PAPER)
        networks = {evaluate.label(width): prepared.at(width, commute=False) for width in evaluate.PAPER_BITS}
        networks["16"] = ptq.HalfPrecision(prepared.at(ptq.FULL_PRECISION))
        networks[INTEGER_16] = prepared.at(16, commute=False)
        networks[COMMUTED_8] = prepared.at(8)
        passes = {name: partial(model.to(device), batch) for name, model in networks.items()}
        size = case.size
        return latency.measure_interleaved(
            passes, size.warmup, size.passes, progress=progress, wait_s=size.wait_s
        ).to_dict()

    code = code_digest("quide.latency:measure_interleaved", "quide.ptq.prepared:prepare", builder(case.model))
    return Run(case.spec("latency", details), compute, code, test_checksum(case))


def ptq_code(model: str) -> tuple[str, ...]:
    """The code that the accuracy of a quantized network hangs on, for :func:`code_digest`."""
    data = "quide.data.datasets:normalize", "quide.data.datasets:calibration_indices"
    return "quide.ptq.prepared:prepare", builder(model), *data, "quide.evaluate:predict"


def builder(model: str) -> str:
    """The code that builds a network, likewise."""
    return f"quide.models.networks:{networks.BUILDERS[model].__name__}"


def network(case: Case, selection: str = "best") -> nn.Module:
    """The case's full-precision network in evaluation mode: as others published it, a checkpoint that travels with the
    checkout (the best epoch of the seeds that were trained for it), or one trained here, which may take an hour."""
    if case.published:
        if selection != "best":
            raise ValueError(f"selection must be 'best' of a published network, got {selection!r}")
        return _pretrained().load(case.model)
    file = published_checkpoint(case)
    if selection == "best" and (case.size.embedded or file.exists()):
        return _with_weights(case, _read_weights(case, file))
    if case.size.embedded:
        raise ValueError(f"selection must be 'best' at profile {case.profile}: only that checkpoint is embedded")
    fitted = _fit(case, "cpu", progress=True)
    return _with_weights(case, getattr(fitted, selection))


@cache
def test_images(case: Case) -> ImageSet:
    """The images accuracy is measured on."""
    if case.size.embedded:
        images = embedded.load(case.dataset, "test")
    else:
        images = datasets.load(case.dataset, "test")
    return _as_taken(case, images).subset(slice(0, case.size.test_images))


def calibration_images(case: Case, size: int = CALIBRATION_SIZE) -> torch.Tensor:
    """Normalized training images ``(size, c, h, w)`` drawn uniformly with the case's seed, un-augmented (§3.3)."""
    if case.size.embedded:
        pool = embedded.load(case.dataset, "calibration")
    else:
        pool = datasets.load(case.dataset, "train")
    return _as_taken(case, pool).normalized(datasets.calibration_indices(len(pool), size, case.seed))


def _as_taken(case: Case, images: ImageSet) -> ImageSet:
    """The images as the case's network takes them: a published one has a normalization of its own."""
    if not case.published:
        return images
    facts = published_network(case.model)
    return replace(images, mean=facts.mean, std=facts.std)


def published_network(model: str) -> pretrained.Network:
    """Facts about one of :data:`PUBLISHED`."""
    return _pretrained().network(model)


def _pretrained() -> ModuleType:
    from quide.models import (
        pretrained,  # here, because torchvision's networks take longer to import than all of quide
    )

    return pretrained


def checkpoint_file(case: Case) -> Path:
    """Where a training run keeps its state."""
    return _paths.cache() / "checkpoints" / f"{case.weights_name}.pt"


def published_checkpoint(case: Case) -> Path:
    """Where the checkout keeps the best epoch of a training seed, if it does."""
    folder = _paths.embedded() if case.training_seed == EMBEDDED_SEED else _paths.home() / "data" / "checkpoints"
    return folder / f"{case.weights_name}.safetensors"


def publish_checkpoint(case: Case) -> Path:
    """Write the best epoch of a finished training run to :func:`published_checkpoint`."""
    file = published_checkpoint(case)
    best = _fit(case, "cpu", progress=True).best
    with _paths.atomic(file) as partial:
        save_file({name: weights.contiguous() for name, weights in best.items()}, partial)
        partial.chmod(0o644)
    return file


def _fit(case: Case, device: str, progress: bool) -> train.Fit:
    facts = datasets.info(case.dataset)
    model = networks.build(case.model, facts.num_classes, facts.channels, facts.image_size, case.training_seed).to(
        device
    )
    sets = (datasets.load(case.dataset, split).to(device) for split in ("train", "test"))
    return train.fit(
        model, *sets, case.recipe, case.training_seed, checkpoint_file(case),
        every=1,  # writing takes a second at most, an epoch of a large network on a CPU half an hour
        progress=progress,
        made_by=provenance.collect(),
        mixed_precision=torch.device(device).type == "cuda",  # a CPU mostly gets slower by it
    )  # fmt: skip


def _with_weights(case: Case, weights: dict[str, torch.Tensor]) -> nn.Module:
    facts = datasets.info(case.dataset)
    model = networks.build(case.model, facts.num_classes, facts.channels, facts.image_size, case.training_seed)
    model.load_state_dict(weights)
    return model.eval()


def _read_weights(case: Case, file: Path) -> dict[str, torch.Tensor]:
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is missing: no checkpoint of {case.model} on {case.dataset} is embedded; use profile paper"
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} does not parse ({error}); restore it with: git checkout {file}") from error


def _checksum(dataset: str, split: str) -> str:
    return datasets.info(dataset).sha256[split] or "unpinned"


def test_checksum(case: Case) -> str:
    """SHA-256 of the images accuracy is measured on; and of the weights, where they are not made here."""
    if case.size.embedded:
        images = embedded.PARTS[case.dataset]["test"].sha256
    else:
        images = _checksum(case.dataset, "test")
    return f"{images} {published_network(case.model).sha256}" if case.published else images
