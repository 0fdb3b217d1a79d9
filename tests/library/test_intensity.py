"""Arithmetic intensity: by hand for each kind of layer, and to the unit what AIQ's authors publish."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import quide

EIGHT = {
    "conv1",
    "layer1.0.conv1",
    "layer1.1.conv1",
    "layer1.1.conv2",
    "layer1.2.conv1",
    "layer1.2.conv2",
    "layer2.0.conv1",
    "linear",
}  # fmt: skip - of the network their greedy search ends with; its other layers have 4 bits


class Block(nn.Module):
    """A residual block whose skip is a 1x1 convolution where the resolution changes (option B)."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        skip = [] if stride == 1 else [nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)]
        self.shortcut = nn.Sequential(*skip)

    def forward(self, x):
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(out + self.shortcut(x))


@pytest.fixture(scope="module")
def resnet20() -> nn.Module:
    net = nn.Sequential()
    net.conv1, net.bn1, net.relu = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    net.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
    net.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
    net.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
    net.pool, net.flatten, net.linear = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    return net


IMAGE = torch.zeros(1, 3, 32, 32)


def greedy(net: nn.Module) -> dict[str, int]:
    layers = [name for name in quide.ptq.quantizable_layers(net) if "shortcut" not in name]
    return {name: 8 if name in EIGHT else 4 for name in layers}


@pytest.mark.parametrize(("bits", "moved", "intensity"), [
    (32, 2_734_608, 29.84938535980294), (8, 1_929_570, 42.302879916250774), (4, 1_795_397, 45.464244398314136),
    ("greedy", 1_804_032, 45.24662977153399),
])  # fmt: skip
def test_the_published_networks_to_the_unit(resnet20, bits, moved, intensity):
    widths = greedy(resnet20) if bits == "greedy" else bits
    found = quide.arithmetic_intensity(resnet20, IMAGE, widths, as_published=True)
    assert (found.flops, found.bytes) == (81_626_368, moved)
    assert found.intensity == pytest.approx(intensity, rel=1e-12)
    if bits == "greedy":  # one width a layer, without the skips, says the same as names
        again = quide.arithmetic_intensity(resnet20, IMAGE, list(widths.values()), as_published=True)
        assert again.bytes == moved


def test_what_4_bits_gain_shrinks_with_the_batch(resnet20):
    def gain(batch: int) -> float:
        full, four = (quide.arithmetic_intensity(resnet20, IMAGE, b, batch=batch, as_published=True) for b in (32, 4))
        return four.intensity / full.intensity - 1

    assert [round(100 * gain(batch), 1) for batch in (1, 8, 32, 64, 128)] == [52.3, 7.0, 1.8, 0.9, 0.4]


def test_activations_at_8_bits_too_are_a_quarter_of_all_bytes(resnet20):
    full, eight = (quide.arithmetic_intensity(resnet20, IMAGE, b, b) for b in (32, 8))
    biases = 4 * 10
    assert eight.bytes - biases == (full.bytes - biases) / 4 and eight.flops == full.flops


@pytest.mark.parametrize(("layer", "shape", "flops", "weights", "given", "made"), [
    (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10), 2 * 8 * 100 * 27, 216, 300, 800),
    (nn.Conv2d(4, 8, 3, stride=2, bias=False), (4, 9, 9), 2 * 8 * 16 * 36, 288, 324, 128),
    (nn.Conv2d(6, 4, 3, groups=2), (6, 5, 5), 2 * 4 * 9 * 27, 108, 150, 36),
    (nn.Conv2d(6, 6, 3, groups=6, padding=1, dilation=1), (6, 5, 5), 2 * 6 * 25 * 9, 54, 150, 150),
    (nn.Conv1d(2, 3, 4), (2, 10), 2 * 3 * 7 * 8, 24, 20, 21),
    (nn.ConvTranspose2d(4, 2, 2, stride=2), (4, 3, 3), 2 * 36 * 8, 32, 36, 72),
    (nn.Linear(12, 5), (12,), 2 * 60, 60, 12, 5),
    (nn.Linear(12, 5), (7, 12), 2 * 7 * 60, 60, 84, 35),
])  # fmt: skip
def test_by_hand(layer, shape, flops, weights, given, made):
    found = quide.arithmetic_intensity(
        nn.Sequential(layer), torch.zeros(2, *shape), weight_bits=4, activation_bits=8, batch=3
    )
    (row,) = found.layers.to_dict("records")
    assert row["flops"] == found.flops == 3 * flops
    assert (row["weight_bytes"], row["input_bytes"], row["output_bytes"]) == (weights / 2, 3 * given, 3 * made)
    assert row["bias_bytes"] == (0 if layer.bias is None else 4 * layer.bias.numel())
    assert found.uncounted_flops == 0


def test_groups_are_ignored_as_published():
    net = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6))
    ours, theirs = (quide.arithmetic_intensity(net, torch.zeros(1, 6, 5, 5), as_published=way) for way in (False, True))
    assert theirs.flops == 6 * ours.flops and theirs.bytes == ours.bytes


def test_a_layer_called_twice_counts_twice_and_the_model_is_left_as_it_was():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    net = Twice().train()
    found = quide.arithmetic_intensity(net, torch.zeros(1, 4))
    assert found.flops == 2 * 2 * 16 and found.bytes == 2 * 4 * (16 + 4 + 4 + 4) and len(found.layers) == 1
    assert net.training and not net.layer._forward_hooks


def test_work_outside_of_the_layers_is_said():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x) @ torch.ones(4, 2)

    with pytest.warns(UserWarning, match="16 of 48 operations outside"):
        found = quide.arithmetic_intensity(Functional(), torch.zeros(1, 4))
    assert found.uncounted_flops == 16 and found.flops == 32


@pytest.mark.parametrize(("arguments", "reason"), [
    ({"weight_bits": 0}, "weight_bits must be whole numbers in 1..32, got 0"),
    ({"weight_bits": "8"}, "weight_bits must be whole numbers"), ({"activation_bits": True}, "activation_bits must be"),
    ({"weight_bits": [8, 8]}, "weight_bits names 2 layers, the model has 1: 0"),
    ({"weight_bits": {"fc": 8}}, "weight_bits names fc, which is not one of 0"), ({"batch": 0}, "batch must be"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        quide.arithmetic_intensity(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2), **arguments)


def test_a_network_without_layers_is_refused():
    with pytest.raises(ValueError, match="no convolution or linear layer"):
        quide.arithmetic_intensity(nn.Sequential(nn.ReLU()), torch.zeros(1, 2))
