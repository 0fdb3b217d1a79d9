"""A small made-up ImageNet folder, and a Keras ResNet of few blocks as TensorFlow.js publishes it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from quide.data import imagenet
from quide.models import keras_resnet50

CLASSES = ("n01440764", "n01443537", "n02084071")
BLOCKS = (1, 2, 1, 1)
WIDTHS = (64, 128, 256, 512)


def pixels(number: int, height: int, width: int) -> np.ndarray:
    """A smooth picture, as photographs are, so that scaling it is well defined: uint8 ``(height, width, 3)``."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / (9 + number + channel) + columns / (7 + channel)) for channel in range(3)]
    return (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def write_tree(root: Path, monkeypatch, per_class: int, splits: tuple[str, ...] = ("val",)) -> Path:
    """A folder with a few classes, taken for all of ImageNet's from now on, and named in QUIDE_IMAGENET."""
    for split in splits:
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(per_class):
                picture = Image.fromarray(pixels(10 * label + number, 256 + 8 * number, 300))
                picture.save(root / split / name / f"{name}_{number}.JPEG", "JPEG", quality=90)
    names = "".join(f"{name} " for name in CLASSES)
    monkeypatch.setattr(imagenet, "WNIDS_SHA256", hashlib.sha256(names.encode()).hexdigest())
    monkeypatch.setenv("QUIDE_IMAGENET", str(root))
    return root


def keras_layers() -> list[dict]:
    """Layers of a ResNet v1 with few blocks, as in ``model.json``, without what does not decide its numbers."""
    layers = [
        {"name": "input_1", "class_name": "InputLayer", "config": {}},
        _conv("conv1", 7, 3, 64, 2), _batch_norm("bn_conv1"),
        {"name": "activation", "class_name": "Activation", "config": {"activation": "relu"}},
    ]  # fmt: skip
    for stage, (count, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), start=2):
        for block in range(count):
            name = f"{stage}{'abcdef'[block]}"
            stride = 2 if block == 0 and stage > 2 else 1
            given = (64 if stage == 2 else 2 * width) if block == 0 else 4 * width
            layers += [
                _conv(f"res{name}_branch2a", 1, given, width, stride), _batch_norm(f"bn{name}_branch2a"),
                _conv(f"res{name}_branch2b", 3, width, width, 1), _batch_norm(f"bn{name}_branch2b"),
                _conv(f"res{name}_branch2c", 1, width, 4 * width, 1), _batch_norm(f"bn{name}_branch2c"),
            ]  # fmt: skip
            if block == 0:
                layers += [_conv(f"res{name}_branch1", 1, given, 4 * width, stride), _batch_norm(f"bn{name}_branch1")]
    return [*layers, {"name": "fc1000", "class_name": "Dense", "config": {"units": len(CLASSES), "given": 2048}}]


def keras_arrays(layers: list[dict], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights for them, of a size that keeps activations small."""
    random, arrays, filters = np.random.default_rng(seed), {}, {}
    for layer in layers:
        name, kind, config = layer["name"], layer["class_name"], layer["config"]
        if kind == "Conv2D":
            shape = (*config["kernel_size"], config["given"], config["filters"])
            filters[name.replace("res", "bn").replace("conv1", "bn_conv1")] = config["filters"]
            arrays[f"{name}/kernel"] = random.normal(0, np.prod(shape[:3]) ** -0.5, shape)
            arrays[f"{name}/bias"] = random.normal(0, 0.3, shape[-1:])
        elif kind == "BatchNormalization":
            size = filters[name]
            arrays[f"{name}/gamma"] = random.uniform(0.5, 1.5, size)
            arrays[f"{name}/beta"] = random.normal(0, 0.1, size)
            arrays[f"{name}/moving_mean"] = random.normal(0, 0.3, size)
            arrays[f"{name}/moving_variance"] = random.uniform(0.0, 1.0, size)  # small ones show the epsilon
        elif kind == "Dense":
            arrays[f"{name}/kernel"] = random.normal(0, 0.05, (config["given"], config["units"]))
            arrays[f"{name}/bias"] = random.normal(0, 0.3, config["units"])
    return {name: array.astype("<f4") for name, array in arrays.items()}


def keras_package(layers: list[dict], arrays: dict[str, np.ndarray], shards: int = 3) -> dict[str, bytes]:
    """The files that TensorFlow.js makes of them: name -> bytes. A shard may end within an array."""
    content = b"".join(array.tobytes() for array in arrays.values())
    names = [f"group1-shard{number}of{shards}.bin" for number in range(1, shards + 1)]
    cuts = np.linspace(0, len(content), shards + 1).astype(int)
    weights = [{"name": name, "shape": list(array.shape), "dtype": "float32"} for name, array in arrays.items()]
    model = {
        "format": "layers-model",
        "modelTopology": {"model_config": {"class_name": "Model", "config": {"layers": layers}}},
        "weightsManifest": [{"paths": names, "weights": weights}],
    }
    files = {name: content[start:end] for name, start, end in zip(names, cuts, cuts[1:], strict=False)}
    return {"model.json": json.dumps(model).encode()} | files


def shrink(monkeypatch) -> None:
    """Let :mod:`quide.models.keras_resnet50` expect the small network."""
    monkeypatch.setattr(keras_resnet50, "BLOCKS", BLOCKS)
    monkeypatch.setattr(keras_resnet50, "CLASSES", len(CLASSES))


def _conv(name: str, size: int, given: int, filters: int, stride: int) -> dict:
    padding = "same" if size == 3 else "valid"
    config = {"kernel_size": [size, size], "strides": [stride, stride], "filters": filters, "padding": padding}
    return {"name": name, "class_name": "Conv2D", "config": config | {"given": given}}


def _batch_norm(name: str) -> dict:
    return {"name": name, "class_name": "BatchNormalization", "config": {"epsilon": 1e-3}}
