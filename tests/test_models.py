"""The paper's network: its size, its wiring, and that a seed alone decides its weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from quide import models
from quide.datasets import INFO
from quide.models import SimpleCNN, build, quantizable_layers

PARAMETERS = {  # weights and biases of conv1 + conv2 + fc1 + fc2, by hand from §3.3 with padding 1
    "mnist": 320 + 18_496 + 401_536 + 1_290,
    "cifar10": 896 + 18_496 + 524_416 + 1_290,
    "cifar100": 896 + 18_496 + 524_416 + 12_900,
}


def network(dataset: str, seed: int = 0) -> nn.Module:
    facts = INFO[dataset]
    return build("simplecnn", facts.num_classes, facts.channels, facts.image_size, seed)


@pytest.mark.parametrize(("dataset", "total"), [("mnist", 421_642), ("cifar10", 545_098), ("cifar100", 556_708)])
def test_parameter_counts(dataset, total):
    count = sum(parameter.numel() for parameter in network(dataset).parameters())
    assert count == total == PARAMETERS[dataset]


@pytest.mark.parametrize("dataset", PARAMETERS)
def test_output_shape(dataset):
    facts = INFO[dataset]
    images = torch.zeros(3, facts.channels, facts.image_size, facts.image_size)
    assert network(dataset)(images).shape == (3, facts.num_classes)


def test_forward_is_the_network_of_the_paper():
    net, images = SimpleCNN(5, 2, 8), torch.randn(3, 2, 8, 8)
    expected = images
    for conv in (net.conv1, net.conv2):
        expected = F.max_pool2d(F.relu(F.conv2d(expected, conv.weight, conv.bias, padding=1)), 2)
    expected = net.fc2(F.relu(net.fc1(expected.flatten(1))))
    assert torch.equal(net(images), expected)


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    first = network("mnist", 7).state_dict()
    torch.manual_seed(2)
    again, other = network("mnist", 7).state_dict(), network("mnist", 8).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_building_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    network("mnist", 7)
    assert torch.equal(torch.get_rng_state(), state)


def test_networks_are_channels_last():
    assert network("cifar10").conv2.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("image_size", [0, -4, 2, 30, 33])
def test_refuses_an_image_size_that_two_poolings_do_not_divide(image_size):
    with pytest.raises(ValueError, match=rf"^image_size must be a positive multiple of 4 .*, got {image_size}$"):
        SimpleCNN(image_size=image_size)


def test_refuses_an_unknown_model_and_lists_the_known():
    with pytest.raises(ValueError, match="^model must be one of .*simplecnn.*, got 'vgg'$"):
        build("vgg", 10, 3, 32, 0)


def test_quantizable_layers_are_all_conv_and_linear_ones_in_order():
    assert quantizable_layers(network("mnist")) == ["conv1", "conv2", "fc1", "fc2"]
    inner = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU())
    assert models.quantizable_layers(nn.Sequential(nn.Linear(2, 2), nn.Sequential(inner, nn.Linear(2, 2)))) == [
        "0",
        "1.0.0",
        "1.1",
    ]
    assert quantizable_layers(nn.ReLU()) == []
