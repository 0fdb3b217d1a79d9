"""Networks that others have trained and published: fetched, proven by checksum, made into modules to quantize."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from quide import _paths
from quide.data import sources
from quide.data.imagenet import CLASSES
from quide.data.published import Unavailable
from quide.models import keras_resnet50, registry
from quide.models.networks import resnet20

AKAMASTER = (  # a copy of https://github.com/akamaster/pytorch_resnet_cifar10 that does not change
    "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/66514ca38d5679354766dee91e912d8766bdd227/"
    "pretrained_models/resnet20-12fca82f.th"
)


@dataclass(frozen=True)
class PublishedNetwork:
    """A published network.

    Attributes:
        title: as printed.
        dataset: what it was trained on.
        source: where its weights come from, in words.
        sha256: of the file at ``address`` or, where there is none, of the arrays.
        mean, std: of its input, per channel R, G, B on the 0..1 scale.
        address: of the one file that holds its weights, where it is published so.
    """

    title: str
    dataset: str
    source: str
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    address: str | None = None


def _of(model: str, dataset: str, address: str | None = None) -> PublishedNetwork:
    row = registry.row(model, dataset)
    return PublishedNetwork(row.title, dataset, row.source, row.sha256, row.mean, row.std, address)


NETWORKS = {
    "resnet18": _of("resnet18", "imagenet", "https://download.pytorch.org/models/resnet18-f37072fd.pth"),
    "resnet50": _of("resnet50", "imagenet"),
    "resnet20": _of("resnet20", "cifar10", AKAMASTER),
}


def network(name: str) -> PublishedNetwork:
    """Facts about a network; ``ValueError`` names the known ones."""
    if name not in NETWORKS:
        raise ValueError(f"model must be one of {', '.join(NETWORKS)}, got {name!r}")
    return NETWORKS[name]


def trained_on(dataset: str) -> list[str]:
    """Names of the networks for a data set."""
    return [name for name, facts in NETWORKS.items() if facts.dataset == dataset]


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
    facts = network(name)
    model = EMPTY[name]()
    model.load_state_dict(WEIGHTS[name](facts, progress))
    return model.eval().to(memory_format=torch.channels_last)


def _empty_resnet18() -> nn.Module:
    from torchvision.models import resnet18  # here, because it takes longer to import than all of quide

    return resnet18(num_classes=CLASSES)


def _akamaster_weights(facts: PublishedNetwork, progress: bool) -> dict[str, torch.Tensor]:
    state = _state(facts, progress)["state_dict"]
    return {name.removeprefix("module."): weights for name, weights in state.items()}  # it was trained on several GPUs


def _keras_weights(facts: PublishedNetwork, progress: bool) -> dict[str, torch.Tensor]:
    return keras_resnet50.weights(_folder() / "resnet50-keras.safetensors", facts.sha256, progress)


def _state(facts: PublishedNetwork, progress: bool) -> dict:
    """What the published file of a network holds: from the cache, a folder of the user's, or its address."""
    file = _published_file(facts, progress)
    with open(file, "rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != facts.sha256:
            raise ValueError(f"{file} is not the published file; delete it to have it fetched again")
    return torch.load(file, map_location="cpu", weights_only=True)


def _published_file(facts: PublishedNetwork, progress: bool) -> Path:
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
WEIGHTS: dict[str, Callable[[PublishedNetwork, bool], dict[str, torch.Tensor]]] = {
    "resnet18": _state, "resnet50": _keras_weights, "resnet20": _akamaster_weights,
}  # fmt: skip
