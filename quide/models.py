"""The networks of the paper, and which of their layers are quantized."""

from __future__ import annotations

import torch
from torch import nn


class SimpleCNN(nn.Sequential):
    """The four-layer network of §3.3: conv 32, conv 64 (3x3, ReLU, 2x2 max-pool each), linear 128, linear classes.

    The paper does not state the padding; 1 is used, so that a 32x32 input reaches the first linear layer as 64x8x8.

    Args:
        num_classes: outputs of the last layer.
        in_channels: 1 for MNIST, 3 for CIFAR.
        image_size: side of the square input in pixels, a multiple of 4.

    Shapes:
        input ``(n, in_channels, image_size, image_size)``, output ``(n, num_classes)`` logits.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, image_size: int = 32):
        if image_size < 4 or image_size % 4:
            raise ValueError(f"image_size must be a positive multiple of 4 (two 2x2 poolings), got {image_size}")
        side = image_size // 4
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.relu2 = nn.ReLU(inplace=True)
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(64 * side * side, 128)
        self.relu3 = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(128, num_classes)


def build(name: str, num_classes: int, in_channels: int, image_size: int, seed: int) -> nn.Module:
    """A freshly initialised network in channels-last layout; ``seed`` alone decides its weights."""
    if name not in _BUILDERS:
        raise ValueError(f"model must be one of {', '.join(sorted(_BUILDERS))}, got {name!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _BUILDERS[name](num_classes, in_channels, image_size)
    return model.to(memory_format=torch.channels_last)


_BUILDERS = {"simplecnn": SimpleCNN}


def quantizable_layers(model: nn.Module) -> list[str]:
    """Names of the conv and linear layers, in the order the model registers them (§3.3: all of them are quantized)."""
    return [name for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
