"""A network of the user's, its weights and images, read from files, from a function, or from a package of networks."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from quide import _files
from quide._files import brief
from quide.data.datasets import are_classes
from quide.ptq.check import check_model

ARRAYS = ("images", "labels", "calibration")
_STORING = f"it must hold {', '.join(ARRAYS[:-1])} and {ARRAYS[-1]}"
_SAVING = "save the weights alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


@dataclass(frozen=True)
class Data:
    """``images`` float32 ``(n, ...)`` as the network takes them, ``labels`` int64 ``(n,)``, and ``calibration`` images
    from the training data, of the same shape."""

    images: torch.Tensor
    labels: torch.Tensor
    calibration: torch.Tensor

    def to(self, device: str | torch.device) -> Data:
        """The same on another device."""
        return Data(*(getattr(self, name).to(device) for name in ARRAYS))


Score = Callable[[torch.Tensor, torch.Tensor], float]


def read_network(name: str, weights: str | Path | None = None) -> nn.Module:
    """The network that a function of the user's builds, in evaluation mode.

    Importing the function runs the user's own code; reading the weights runs none.

    Args:
        name: ``package.module:function``, looked for in the working folder too, or ``folder/file.py:function``; or
            ``torchvision:NAME`` or ``timm:NAME``, a classification network of that package, with random weights.
        weights: a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file that holds nothing but weights. Without it the
            function has to return a network that is trained.

    Raises:
        ValueError: there is no such function, it fails or returns something else, or the weights are not the network's.
        ModuleNotFoundError: the named package of networks is not installed.
    """
    package, _, wanted = name.partition(":")
    naming = _naming("without arguments")
    build = partial(_ZOOS[package], wanted) if package in _ZOOS else _function("model", name, "without arguments")
    try:
        model = build()
    except (Exception, SystemExit) as error:  # the user's own code, which can fail in any way
        if package in _ZOOS and isinstance(error, ModuleNotFoundError) and error.name == package:
            raise ModuleNotFoundError(f"{package} is missing; install it with: pip install {package}") from error
        raise ValueError(f"model {name} cannot be built ({brief(error)}); {naming}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name} returned {type(model).__name__}, not a torch.nn.Module; {naming}")
    if weights is not None:
        _fill(model, Path(weights))
    check_model(model)
    return model.float().eval()


def read_score(name: str) -> Score:
    """A function of the user's that makes a fraction of all outputs and all labels; errors as for a network."""
    found = _function("score", name, "of outputs and labels")
    if not callable(found):
        raise ValueError(f"score {name} is a {type(found).__name__}, not a function of outputs and labels")
    return found


def _naming(kind: str) -> str:
    return f"name a function {kind}, as package.module:function or folder/file.py:function"


def _function(argument: str, name: str, kind: str) -> Callable:
    naming = _naming(kind)
    source, _, function = name.rpartition(":")
    if not source or not function.isidentifier():
        raise ValueError(f"{argument} must be a function, got {name!r}; {naming}")
    try:
        return getattr(_module(source), function)
    except (Exception, SystemExit) as error:  # the user's own code, which can fail in any way
        done = "built" if argument == "model" else "read"
        raise ValueError(f"{argument} {name} cannot be {done} ({brief(error)}); {naming}") from error


def _of_torchvision(name: str) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, 3) or known[:3]
        raise ValueError(f"torchvision has no classification network of that name; it has {', '.join(near)}, ...")
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of how random weights are drawn
        return models.get_model(name, weights=None)


def _of_timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False)


_ZOOS = {"torchvision": _of_torchvision, "timm": _of_timm}


def read_data(path: str | Path, scored: bool = False) -> Data:
    """Test images, labels and calibration images of those names: a ``.npz`` or ``.safetensors`` file, or a folder of
    three ``.npy`` files. ``scored`` takes labels of any kind, for a score of the user's.

    Raises:
        FileNotFoundError: it, or one of the three, does not exist.
        ValueError: it does not parse, or an array is missing, of the wrong type or shape.
    """
    arrays = _arrays(Path(path))
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise ValueError(f"{path} has no array {missing[0]!r}; {_STORING}")
    tensors = {name: _tensor(path, name, arrays[name]) for name in ARRAYS}
    for name in ("images", "calibration"):
        if not tensors[name].is_floating_point():
            raise ValueError(
                f"{name} of {path} are {tensors[name].dtype}; store them as the network takes them, normalized float32"
            )
        tensors[name] = tensors[name].float()
    images, labels, calibration = tensors.values()
    if not scored and not (are_classes(labels) and labels.ndim == 1):
        raise ValueError(f"labels of {path} must be whole numbers (n,), the class of each image")
    if images.shape[1:] != calibration.shape[1:]:
        shapes = f"{tuple(images.shape)} and {tuple(calibration.shape)}"
        raise ValueError(f"images and calibration of {path} differ in shape: {shapes}; both are what the network takes")
    return Data(images, labels if scored else labels.long(), calibration)


def _module(source: str) -> ModuleType:
    """The module of that name or file, with its folder on the search path as ``python`` itself would have it."""
    file = Path(source)
    if file.suffix != ".py":
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(source)
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(file.stem, _files.regular(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(file.stem, module)  # for what looks itself up there, such as dataclasses
    spec.loader.exec_module(module)
    return module


def _fill(model: nn.Module, file: Path) -> None:
    weights, own = _weights(file), dict([*model.named_parameters(), *model.named_buffers()])
    try:
        for name in sorted(weights.keys() & own.keys()):
            if weights[name].is_floating_point() != own[name].is_floating_point():  # torch would cast it
                raise ValueError(f"{name} is {weights[name].dtype} where {own[name].dtype} belongs")
        model.load_state_dict(weights)
    except Exception as error:  # torch raises what it comes upon
        raise ValueError(f"{file} does not fit the network {type(model).__name__} ({brief(error)})") from error


def _weights(file: Path) -> Mapping[str, torch.Tensor]:
    if file.suffix not in (".safetensors", ".pt", ".pth"):
        raise ValueError(f"weights must be a .safetensors, .pt or .pth file, got {file}")
    with _files.reading(file, _SAVING):
        held = load_file(_files.regular(file)) if file.suffix == ".safetensors" else _unpickled(_files.regular(file))
        held = held["state_dict"] if isinstance(held, Mapping) and "state_dict" in held else held
        if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in dict(held).items()):
            raise ValueError("it holds more than tensors by their names")
        if odd := [name for name, value in held.items() if value.layout != torch.strided or value.isnan().any()]:
            raise ValueError(f"{odd[0]} is sparse, or holds NaN")
        return held


def _unpickled(file: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file} holds more than weights, and to load it would run code from it; {_SAVING}") from error


def _arrays(path: Path) -> Mapping[str, Any]:
    if path.suffix not in (".npz", ".safetensors") and path.exists() and not path.is_dir():
        raise ValueError(f"data must be a .npz or .safetensors file or a folder of .npy files, got {path}; {_STORING}")
    with _files.reading(path, _STORING):
        if path.is_dir():
            return {name: _array(path / f"{name}.npy") for name in ARRAYS}
        if _files.regular(path).suffix == ".safetensors":
            return load_file(path)
        with zipfile.ZipFile(path) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > _files.memory():
                raise ValueError(f"it unpacks to {size:,} bytes, more than there is memory")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in ARRAYS if name in archive}


def _array(file: Path) -> np.ndarray:
    return np.load(_files.regular(file, _files.memory()), allow_pickle=False)


def _tensor(path: Path, name: str, array: Any) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array
    with _files.reading(f"{name} of {path}", f"they are not numbers; {_STORING}"):
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
