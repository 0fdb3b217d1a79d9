"""The paper's networks: their size, their wiring, and that a seed alone decides their weights."""

from __future__ import annotations

import pytest
import torch
import torchvision
from batch_norms import randomize_batch_norm
from torch import nn
from torch.nn import functional as F

from quide import ptq
from quide.data.datasets import INFO
from quide.evaluate import predict
from quide.evaluate.prefix_tree import PrefixTree
from quide.models import networks
from quide.models.networks import SimpleCNN, build
from quide.ptq.layers import quantizable_layers

PARAMETERS = {  # weights and biases of conv1 + conv2 + fc1 + fc2, by hand from §3.3 with padding 1
    "mnist": 320 + 18_496 + 401_536 + 1_290,
    "cifar10": 896 + 18_496 + 524_416 + 1_290,
    "cifar100": 896 + 18_496 + 524_416 + 12_900,
}


def network(dataset: str, seed: int = 0, model: str = "simplecnn") -> nn.Module:
    facts = INFO[dataset]
    return build(model, facts.num_classes, facts.channels, facts.image_size, seed)


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


@pytest.mark.parametrize("model", networks.BUILDERS)
def test_the_seed_alone_decides_the_weights(model):
    torch.manual_seed(1)
    first = network("cifar10", 7, model).state_dict()
    torch.manual_seed(2)
    again, other = network("cifar10", 7, model).state_dict(), network("cifar10", 8, model).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = {name for name, weights in first.items() if weights.ndim > 1}
    assert len(drawn) == {"simplecnn": 4, "resnet18": 21, "resnet20": 20, "mobilenetv2": 53}[model]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_resnet20_is_the_network_of_the_reference():
    """Against He et al.'s §4.2 written out, with option A: every second pixel, and channels of zeros on both sides."""
    net, images = randomize_batch_norm(networks.resnet20(5, 2)).eval(), torch.randn(3, 2, 32, 32)

    def layer(block: nn.Module, number: int, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        conv, norm = getattr(block, f"conv{number}"), getattr(block, f"bn{number}")
        x = F.conv2d(x, conv.weight, None, stride, padding=1)
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    x = F.relu(layer(net, 1, images))
    for name, width in (("layer1", 16), ("layer2", 32), ("layer3", 64)):
        for block in net.get_submodule(name):
            halved = x.shape[1] != width
            shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, width // 4, width // 4)) if halved else x
            x = F.relu(layer(block, 2, F.relu(layer(block, 1, x, 2 if halved else 1))) + shortcut)
    assert x.shape == (3, 64, 8, 8)
    torch.testing.assert_close(net(images), net.linear(x.mean((2, 3))))


def test_resnet20_has_the_size_of_the_reference():
    assert (
        sum(weights.numel() for weights in networks.resnet20().parameters()) == 269_722
    )  # He et al. give 0.27 million
    assert len(ptq.quantizable_layers(networks.resnet20())) == 20


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


# --- ResNet-18 -------------------------------------------------------------------------------------------------------

STAGES = [  # torchvision's names of the layers, by hand
    ["conv1"],
    ["layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"],
    *(
        [f"layer{n}.0.conv1", f"layer{n}.0.conv2", f"layer{n}.0.downsample.0", f"layer{n}.1.conv1", f"layer{n}.1.conv2"]
        for n in (2, 3, 4)
    ),
    ["fc"],
]


def test_resnet18_has_the_size_of_the_cifar_one():
    net = network("cifar10", model="resnet18")
    plain = 4 * 64 * 64 * 9 + sum(9 * (c * c // 2 + 3 * c * c) + c * c // 2 for c in (128, 256, 512))
    norms = 2 * (64 + 4 * 64 + sum(5 * c for c in (128, 256, 512)))
    assert sum(parameter.numel() for parameter in net.parameters()) == 3 * 64 * 9 + plain + norms + 5_130 == 11_173_962


def test_resnet18_keeps_the_resolution_up_to_its_first_stage():
    net, sides = network("cifar10", model="resnet18").eval(), []
    for part in (net.layer1, net.layer2, net.layer3, net.layer4):
        part.register_forward_hook(lambda _, inputs, output: sides.append((inputs[0].shape[-1], output.shape[-1])))
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert sides == [(32, 32), (32, 16), (16, 8), (8, 4)]


def test_resnet18_is_torchvision_s_but_for_the_stem():
    """With the same weights and the stem's work done outside, both compute the same."""
    net, theirs = network("cifar10", model="resnet18").eval(), torchvision.models.resnet18(num_classes=10).eval()
    theirs.conv1 = theirs.bn1 = theirs.relu = theirs.maxpool = nn.Identity()
    theirs.load_state_dict(net.state_dict(), strict=False)
    images = torch.randn(2, 3, 32, 32)
    stem = F.relu(net.bn1(F.conv2d(images, net.conv1.weight, padding=1)))
    assert torch.equal(net(images), theirs(stem))


def test_resnet18_s_stem_starts_as_wide_as_its_other_convolutions():
    net = network("cifar10", model="resnet18")
    for conv in (net.conv1, net.layer2[0].conv1):
        fan_out = conv.out_channels * 9
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_resnet18_has_21_layers_in_six_parts():
    net = network("cifar10", model="resnet18")
    assert list(ptq.stages(net)) == ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert list(ptq.stages(net).values()) == STAGES
    assert quantizable_layers(net) == [layer for stage in STAGES for layer in stage]
    assert len(quantizable_layers(net)) == 21


def test_parts_without_parts_of_their_own_are_stages_of_one_layer():
    assert ptq.stages(network("mnist")) == {name: [name] for name in ("conv1", "conv2", "fc1", "fc2")}


def test_resnet18_s_quantized_values_are_those_of_its_docstring():
    """Each layer's output is rounded, once; the sums of the blocks are not."""
    net = network("cifar10", model="resnet18").eval()
    quantized = ptq.prepare(net, torch.randn(4, 3, 32, 32)).at(8, commute=False)
    rounded = [
        node.all_input_nodes[0]
        for node in quantized.graph.nodes
        if node.op == "call_module" and isinstance(quantized.get_submodule(node.target), ptq.FakeQuantize)
    ]
    assert sorted(node.target for node in rounded) == sorted(quantizable_layers(net))
    sums = [node for node in quantized.graph.nodes if "add" in node.name]
    assert len(sums) == 8 and all(len(node.users) == 1 for node in sums)


@pytest.mark.slow
def test_every_configuration_of_the_stages_is_scored_exactly():
    """The tree over the six stages gives each configuration the predictions that quantizing it on its own gives."""
    net = network("cifar10", model="resnet18").eval()
    generator = torch.Generator().manual_seed(0)
    for norm in (part for part in net.modules() if isinstance(part, nn.BatchNorm2d)):
        norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
        norm.running_var.uniform_(0.5, 1.5, generator=generator)
    images = torch.randn(40, 3, 16, 16, generator=generator)
    prepared, stages = ptq.prepare(net, images), list(ptq.stages(net).values())
    tree = PrefixTree(prepared, (8, 3), stages)
    assert len(tree.configurations) == 2 ** len(stages)
    predicted = tree.predict(images)
    assert len(predicted.unique(dim=0)) > 8  # configurations differ, or nothing would be tested
    for place in range(0, len(tree.configurations), 9):
        widths = [width for width, stage in zip(tree.configurations[place], stages, strict=True) for _ in stage]
        assert torch.equal(predicted[place], predict(prepared.at(widths), [images])), tree.configurations[place]


def test_quantizable_layers_are_all_conv_and_linear_ones_in_order():
    assert quantizable_layers(network("mnist")) == ["conv1", "conv2", "fc1", "fc2"]
    inner = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU())
    assert ptq.quantizable_layers(nn.Sequential(nn.Linear(2, 2), nn.Sequential(inner, nn.Linear(2, 2)))) == [
        "0",
        "1.0.0",
        "1.1",
    ]
    assert quantizable_layers(nn.ReLU()) == []
