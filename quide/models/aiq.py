"""The four ResNet-20 on CIFAR-10 that AIQ's authors published: in full precision, and rounded by them.

Their repository has no licence, so that nothing of it travels with this package: the files are the user's.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import nn

from quide import _files
from quide.data import sources
from quide.models.keras_resnet50 import digest
from quide.models.networks import resnet20
from quide.models.registry import AIQ_ADDRESS, AIQ_SHA256

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of their input, per channel on the 0..1 scale


def load(name: str = "cifar10_best") -> nn.Module:
    """One of :data:`quide.models.registry.AIQ_SHA256`, in evaluation mode and channels-last layout.

    Raises:
        FileNotFoundError: ``QUIDE_DATA`` names no folder that holds its file; the message gives the remedy.
        ValueError: the file does not hold the published weights.
    """
    wanted = f"resnet20_{name}.safetensors"
    if (file := sources.of_the_user(wanted)) is None:
        raise FileNotFoundError(
            f"{wanted} is not in QUIDE_DATA; take the .pth of that name from {AIQ_ADDRESS}, save its state_dict by "
            "safetensors.torch.save_file, and name its folder in QUIDE_DATA"
        )
    with _files.reading(file, "convert it again"):
        state = load_file(_files.regular(file))
    if digest({name: values.numpy() for name, values in state.items()}) != AIQ_SHA256[name]:
        raise ValueError(f"{file} does not hold the published weights; convert the .pth from {AIQ_ADDRESS} again")
    model = resnet20(projections=True)
    model.load_state_dict({name.replace(".shortcut.", ".downsample."): values for name, values in state.items()})
    return model.eval().to(memory_format=torch.channels_last)
