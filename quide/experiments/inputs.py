"""What goes into a measurement: networks, trained here or by others, and images. Pinned by checksums, not by code."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from quide import _files, _paths
from quide.data import datasets, embedded
from quide.data.datasets import ImageSet
from quide.data.imagenet import ImageFiles
from quide.experiments import imagenet_runs, profiles, provenance, records
from quide.experiments.imagenet_runs import ImageNetCase
from quide.experiments.measured import KINDS
from quide.experiments.runs import CALIBRATION_SIZE, EMBEDDED_SEED, Case
from quide.models import networks, train


def network(case: Case, selection: str = "best") -> nn.Module:
    """The case's full-precision network in evaluation mode: as others published it, a checkpoint that travels with the
    checkout (the best epoch of the seeds that were trained for it), or one trained here, which may take an hour."""
    if case.published:
        if selection != "best":
            raise ValueError(f"selection must be 'best' of a published network, got {selection!r}")
        from quide.models import pretrained  # here: torchvision's networks take longer to import than all of quide

        return pretrained.load(case.model)
    file = published_checkpoint(case)
    if selection == "best" and (case.size.embedded or file.exists()):
        return with_weights(case, _read_weights(case, file))
    if case.size.embedded:
        raise ValueError(f"selection must be 'best' at profile {case.profile}: only that checkpoint is embedded")
    fitted = fit(case, "cpu", progress=True)
    return with_weights(case, getattr(fitted, selection))


@cache
def test_images(case: Case) -> ImageSet:
    """The images accuracy is measured on."""
    source = embedded if case.size.embedded else datasets
    return _as_taken(case, source.load(case.dataset, "test")).subset(slice(0, case.size.test_images))


def calibration_images(case: Case, size: int = CALIBRATION_SIZE) -> torch.Tensor:
    """Normalized training images ``(size, c, h, w)`` drawn uniformly with the case's seed, un-augmented (§3.3)."""
    if case.size.embedded:
        pool = embedded.load(case.dataset, "calibration")
    else:
        pool = datasets.load(case.dataset, "train")
    return _as_taken(case, pool).normalized(datasets.calibration_indices(len(pool), size, case.seed))


def training_images(case: Case) -> ImageSet:
    """All images that a network of the case is trained on."""
    return _as_taken(case, datasets.load(case.dataset, "train"))


def given(case: Case | ImageNetCase) -> tuple[nn.Module, ImageSet | ImageFiles, torch.Tensor]:
    """Network, test images, and calibration images as the network takes them; of ImageNet, few."""
    if isinstance(case, ImageNetCase):
        pool = case.calibrated_on
        return case.network, case.tested, pool.subset(range(min(imagenet_runs.FEW, len(pool)))).normalized()
    return network(case), test_images(case), calibration_images(case)


def published_case(model: str, dataset: str) -> Case:
    """That of a network that others published, whose seed decides nothing here."""
    return Case(model, dataset, EMBEDDED_SEED, "paper")


def _as_taken(case: Case, images: ImageSet) -> ImageSet:
    """The images as the case's network takes them: a published one has a normalization of its own."""
    if not case.published:
        return images
    facts = case.row
    return replace(images, mean=facts.mean, std=facts.std)


def checkpoint_file(case: Case) -> Path:
    """Where a training run keeps its state."""
    return _paths.cache() / "checkpoints" / f"{case.weights_name}.pt"


def published_checkpoint(case: Case) -> Path:
    """Where the checkout keeps the best epoch of a training seed, if it does."""
    small = not case.row.aside and not case.row.slow  # as a package may be that carries them
    embedded_here = case.training_seed == EMBEDDED_SEED and small
    folder = _paths.embedded() if embedded_here else _paths.home() / "data" / "checkpoints"
    return folder / f"{case.weights_name}.safetensors"


def fit(case: Case, device: str, progress: bool) -> train.Fit:
    """The case's network trained by its recipe, on from the checkpoint of an interrupted run."""
    sets = (datasets.load(case.dataset, split).to(device) for split in ("train", "test"))
    return train.fit(
        _drawn(case).to(device), *sets, case.recipe, case.training_seed, checkpoint_file(case),
        every=1,  # writing takes a second at most, an epoch of a large network on a CPU half an hour
        progress=progress,
        made_by=provenance.collect(),
        code=KINDS["training"].digest(case.model),
        same_code=records.same_code,
        mixed_precision=_in_bfloat16(case, device),
    )  # fmt: skip


def _in_bfloat16(case: Case, device: str) -> bool:
    """Whether passes are trained in bfloat16: on a GPU; on a CPU the slow networks alone, where it is made for that."""
    return torch.device(device).type == "cuda" or (case.row.slow and bool(profiles.bfloat16_unit()))


def with_weights(case: Case, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The case's network with given weights, in evaluation mode."""
    model = _drawn(case)
    model.load_state_dict(weights)
    return model.eval()


def _drawn(case: Case) -> nn.Module:
    """The case's network before it is trained."""
    facts = datasets.info(case.dataset)
    return networks.build(case.model, facts.num_classes, facts.channels, facts.image_size, case.training_seed)


def _read_weights(case: Case, file: Path) -> dict[str, torch.Tensor]:
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is missing: no checkpoint of {case.model} on {case.dataset} is embedded; use profile paper"
        )
    with _files.committed(file):
        return safetensors.torch.load(_files.prove(f"{file.parent.name}/{file.name}", _files.content(file)))
