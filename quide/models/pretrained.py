"""Networks that others have trained and published: fetched, proven by checksum, made into modules to quantize."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from quide import _files, _paths
from quide._check import one_of
from quide.data import sources
from quide.data.imagenet import CLASSES
from quide.data.published import Unavailable
from quide.models import keras_resnet50
from quide.models.networks import resnet20
from quide.models.registry import ROWS, Row

NETWORKS = {row.model: row for row in ROWS if row.published}


def load(name: str, progress: bool = True) -> nn.Module:
    """A network with its published weights, in evaluation mode and channels-last layout; fetched when first asked for.

    Args:
        name: ``"resnet18"`` (torchvision's, the paper's) or ``"resnet50"`` (Keras's), both of ImageNet; or
            ``"resnet20"`` (of CIFAR-10).
        progress: print a line a step.

    Raises:
        ValueError: unknown name, or what is in the cache is not what was published.
        FileNotFoundError: no source has the weights; the message gives the reason and the remedy.
    """
    facts = NETWORKS[one_of("model", name, NETWORKS)]
    model = EMPTY[name]()
    model.load_state_dict(WEIGHTS[name](facts, progress))
    return model.eval().to(memory_format=torch.channels_last)


def _empty_resnet18() -> nn.Module:
    from torchvision.models import resnet18  # here, because it takes longer to import than all of quide

    return resnet18(num_classes=CLASSES)


def _akamaster_weights(facts: Row, progress: bool) -> dict[str, torch.Tensor]:
    state = _state(facts, progress)["state_dict"]
    return {name.removeprefix("module."): weights for name, weights in state.items()}  # it was trained on several GPUs


def _keras_weights(facts: Row, progress: bool) -> dict[str, torch.Tensor]:
    return keras_resnet50.weights(_folder() / "resnet50-keras.safetensors", facts.sha256, progress)


def _state(facts: Row, progress: bool) -> dict:
    """What the published file of a network holds: from the cache, a folder of the user's, or its address."""
    file = _published_file(facts, progress)
    with _files.reading(file, "delete it to have it fetched again"), open(_files.regular(file), "rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != facts.sha256:
            raise ValueError(f"{file} is not the published file; delete it to have it fetched again")
    return torch.load(file, map_location="cpu", weights_only=True)


def _published_file(facts: Row, progress: bool) -> Path:
    file = _folder() / facts.address.rpartition("/")[2]
    if file.exists():
        return file
    if (found := sources.of_the_user(file.name)) is not None:
        return found
    with sources.writing(_folder()), _paths.atomic(file) as partial:
        try:
            with sources.downloading(progress):
                torch.hub.download_url_to_file(facts.address, str(partial), facts.sha256, progress)
        except Unavailable as error:
            raise FileNotFoundError(
                f"{facts.title}'s weights cannot be had from {facts.address} ({error}); put that file into "
                f"{_folder()}, or into a folder and name it in QUIDE_DATA"
            ) from error
    return file


def _folder() -> Path:
    return _paths.cache() / "networks"


EMPTY: dict[str, Callable[[], nn.Module]] = {
    "resnet18": _empty_resnet18, "resnet50": keras_resnet50.empty, "resnet20": resnet20,
}  # fmt: skip
WEIGHTS: dict[str, Callable[[Row, bool], dict[str, torch.Tensor]]] = {
    "resnet18": _state, "resnet50": _keras_weights, "resnet20": _akamaster_weights,
}  # fmt: skip
