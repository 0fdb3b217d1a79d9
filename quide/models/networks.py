"""The networks of the paper, and which of their layers are quantized."""

from __future__ import annotations

import torch
from torch import nn

from quide._check import one_of
from quide._random import seeded
from quide.models import registry


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


def resnet18(num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """ResNet-18 for small images (§4.1): torchvision's, with a 3x3 stem of stride 1 and without the first max-pooling.

    How :data:`quide.PAPER` quantizes it: each batch norm is folded into its convolution, and the output of each of the
    21 layers is rounded (the 17 convolutions of the main path, the 3 of the skips, the linear layer), before it is
    added or goes through a ReLU. The sum of a block is not rounded again, so the next block reads values between the
    grid points. The paper does not say what becomes of the sum.

    Args:
        num_classes: outputs of the last layer.
        in_channels: 3 for CIFAR.
        image_size: side of the square input in pixels; any will do, as the last pooling averages what is left.

    Shapes:
        as :class:`SimpleCNN`.
    """
    from torchvision import models as published  # here, because it takes longer to import than all of quide

    network = published.resnet18(num_classes=num_classes)
    network.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as all its convolutions
    network.maxpool = nn.Identity()
    return network


def resnet20(num_classes: int = 10, in_channels: int = 3, image_size: int = 32, projections: bool = False) -> nn.Module:
    """ResNet-20, the network for CIFAR-10 of He et al. (2016, §4.2): a 3x3 stem, three stages of three blocks with 16,
    32 and 64 channels, one linear layer; 20 layers to quantize.

    Its skips hold no convolution: where a stage halves the resolution, every second pixel is passed on, with channels
    of zeros added on both sides (their option A). How :data:`quide.PAPER` quantizes the rest is said at
    :func:`resnet18`.

    Args:
        num_classes: outputs of the last layer.
        in_channels: 3 for CIFAR.
        image_size: as in :func:`resnet18`.
        projections: 1x1 convolutions on the two skips instead (their option B), ``downsample.0`` of their blocks.

    Shapes:
        as :class:`SimpleCNN`.
    """
    from torchvision.models.resnet import BasicBlock, conv1x1  # here, as above

    def stage(before: int, width: int) -> nn.Sequential:
        if before == width:
            first = BasicBlock(width, width)
        elif projections:
            skip = nn.Sequential(conv1x1(before, width, 2), nn.BatchNorm2d(width))
            first = BasicBlock(before, width, 2, skip)
        else:
            added = (width - before) // 2
            pixels, channels = nn.AvgPool2d(1, stride=2), nn.ConstantPad3d((0, 0, 0, 0, added, added), 0.0)
            first = BasicBlock(before, width, 2, nn.Sequential(pixels, channels))
        return nn.Sequential(first, BasicBlock(width, width), BasicBlock(width, width))

    network = nn.Sequential()
    network.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
    network.bn1 = nn.BatchNorm2d(16)
    network.relu = nn.ReLU(inplace=True)
    network.layer1, network.layer2, network.layer3 = stage(16, 16), stage(16, 32), stage(32, 64)
    network.pool, network.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    network.linear = nn.Linear(64, num_classes)
    return network


def mobilenetv2(num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018) at half its width, for small images: the stem and the first two stages keep the
    resolution, which makes three halvings instead of five; 53 layers to quantize, 17 of them depthwise.

    Args:
        num_classes: outputs of the last layer.
        in_channels: 3 for CIFAR.
        image_size: as in :func:`resnet18`.

    Shapes:
        as :class:`SimpleCNN`.
    """
    from torchvision.models import MobileNetV2  # here, as above

    # Expansion, channels, blocks and first stride of each stage, as published but for the strides of the first.
    stages = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
    network = MobileNetV2(num_classes, width_mult=0.5, inverted_residual_setting=stages)
    stem = nn.Conv2d(in_channels, network.features[0][0].out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")  # as all its convolutions
    network.features[0][0] = stem
    return network


def build(name: str, num_classes: int, in_channels: int, image_size: int, seed: int) -> nn.Module:
    """A freshly initialised network in channels-last layout; ``seed`` alone decides its weights."""
    one_of("model", name, sorted(BUILDERS))
    with seeded(seed):
        model = BUILDERS[name](num_classes, in_channels, image_size)
    return model.to(memory_format=torch.channels_last)


BUILDERS = {model: globals()[builder] for model, builder in registry.BUILDERS.items()}
