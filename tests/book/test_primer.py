"""The primer's figures say what the quantizers do; the network is one that computes in no time."""

from __future__ import annotations

import copy
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from quidebook.pages import primer
from torch import nn

from quide import evaluate, ptq
from quide.data.datasets import ImageSet
from quide.models.networks import SimpleCNN
from quide.ptq import ranges


@pytest.fixture(scope="module")
def shown() -> primer.Example:
    """A small SimpleCNN with random weights, and images whose labels are what it says."""
    torch.manual_seed(0)
    network = SimpleCNN(num_classes=4, in_channels=1, image_size=8).eval()
    pixels = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8)
    tested = ImageSet(pixels, torch.zeros(60, dtype=torch.int64), (0.5,), (0.25,))
    with torch.no_grad():
        tested = ImageSet(pixels, network(tested.normalized()).argmax(1), (0.5,), (0.25,))
    calibration = tested.normalized()
    return primer.Example("a network", network, calibration, tested, primer._outputs(network, calibration))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"\d+(?:\.\d+)?", text)]


# --- the parts -------------------------------------------------------------------------------------------------------


def test_the_example_is_the_embedded_network_at_the_profiles_size():
    shown = primer.example("mnist", "smoke")
    assert shown.name == "SimpleCNN on MNIST" and len(shown.tested) == 200
    layers = dict(zip(("conv1", "conv2", "fc1", "fc2"), (32 * 28 * 28, 64 * 14 * 14, 128, 10), strict=True))
    assert {name: len(values) for name, values in shown.activations.items()} == {
        name: primer.SHOWN * size for name, size in layers.items()
    }
    assert float(shown.activations["conv1"].min()) < 0, "before the ReLU, which works in place"


def test_signal_to_noise_is_in_decibels():
    values = torch.tensor([3.0, -4.0])
    assert primer.signal_to_noise(values, torch.tensor([3.0, -3.5])) == pytest.approx(20)
    assert primer.signal_to_noise(values, values) == math.inf


def test_clipping_errors_are_those_of_the_grid_parted_at_its_ends():
    values = torch.tensor([0.1, -0.4, 1.0])
    errors = primer.clipping_errors(values, 2, [1.0, 0.5])
    power = float((values**2).mean()) * 3
    assert errors.rounding[1.0] == pytest.approx((0.1**2 + 0.4**2) / power)  # the levels are -1, 0 and 1
    assert errors.clipping[1.0] == 0
    assert errors.rounding[0.5] == pytest.approx((0.1**2 + 0.1**2) / power)
    assert errors.clipping[0.5] == pytest.approx(0.5**2 / power)
    assert list(errors.total) == pytest.approx(list(errors.rounding + errors.clipping))


def test_observers_choose_what_the_library_chooses(shown):
    weight = shown.network.fc1.weight.detach()
    chosen = primer.observers(weight, 4)
    assert chosen["min-max"] == 1
    reach = ranges.weight_range(weight, "mse", 4, ptq.PAPER.percentile, per_channel=False)[1]
    assert chosen["least squares"] == pytest.approx(float(reach / weight.abs().max()))
    assert 0 < chosen["least squares"] < 1 and 0 < chosen["percentile"] < 1


def test_a_quantizer_behind_the_relu_is_never_worse(shown):
    found = primer.site_noise(shown.activations["conv1"], range(2, 9))
    assert list(found.index) == list(range(2, 9))
    assert (found.after > found.before).all()


def test_a_range_a_channel_helps_the_small_channels_most():
    weight = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.05]).view(
        2, 1, 1, 1
    )
    found = primer.channel_noise(weight, 4)
    assert found.largest[0] > found.largest[1] > 0
    assert found.channel[0] == pytest.approx(found.tensor[0])  # it sets the range of the tensor
    assert found.channel[1] > found.tensor[1] + 10


def test_a_bit_is_worth_six_decibels(shown):
    found = primer.noise_by_width(shown)
    assert list(found.columns[:2]) == ["conv1 weights", "conv1 outputs"] and found.shape == (11, 8)
    slopes = (found.loc[12] - found.loc[6]) / 6
    assert slopes.between(5.5, 6.5).all(), "the rule of thumb"


def test_folding_changes_weights_and_no_results(shown):
    before, after, difference = primer.folded(shown)
    assert torch.equal(before, shown.network.conv1.weight) and not torch.allclose(before, after)
    assert difference < 1e-5


def test_weights_alone_are_rounded_and_the_network_stays(shown):
    weight = shown.network.conv1.weight.detach().clone()
    found = primer.accuracies(shown)
    narrow = copy.deepcopy(shown.network)
    for layer in ptq.quantizable_layers(narrow):
        part = narrow.get_submodule(layer).weight
        part.data = ptq.quantized_weight(part.detach(), 2)
    assert found[2][1].estimate == pytest.approx(float(evaluate.correct(narrow, shown.tested).float().mean()))
    assert torch.equal(shown.network.conv1.weight, weight)
    facts = primer.answer(shown, found)
    assert (facts["full"], facts["at_4"], facts["weights_4"]) == (1.0, *(each.estimate for each in found[4]))


def test_the_table_starts_with_full_precision_and_ends_worse(shown):
    table = primer.weight_only_table(primer.accuracies(shown))
    assert list(table.bits) == ["32", "8", "4", "3", "2"]
    for column in ("weights and activations", "weights alone"):
        accuracy = [numbers(cell)[0] for cell in table[column]]
        assert accuracy[0] == 100 > accuracy[-1]


# --- figures and sentences -------------------------------------------------------------------------------------------

FIGURES = {
    "grid": lambda shown, bits: primer.figure_grid(bits),
    "clipping": primer.figure_clipping,
    "zero": primer.figure_zero_point,
    "sites": primer.figure_sites,
    "channels": primer.figure_channels,
    "bits": lambda shown, bits: primer.figure_bits(shown, primer.noise_by_width(shown)),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_figures_are_described_with_numbers(shown, name, bits):
    figure, alt = FIGURES[name](shown, bits)
    assert numbers(alt) and "nan" not in alt and "inf" not in alt
    assert all(axis.get_xlabel() or axis is not figure.axes[-1] for axis in figure.axes)


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_the_grid_is_described_as_it_is(bits):
    figure, alt = primer.figure_grid(bits)
    step = float(ptq.symmetric_grid(torch.tensor(-1.0), torch.tensor(1.0), bits).scale)
    assert step / 2 == pytest.approx(1 / (2**bits - 2)), "as the caption says"
    assert f"a staircase of {2**bits - 1} steps" in alt
    stored = figure.axes[0].lines[1].get_ydata()
    assert len(np.unique(np.asarray(stored))) == 2**bits - 1


def test_lost_levels_are_counted(shown):
    values = shown.activations["conv1"]
    grid = ptq.affine_grid(values.min(), values.max(), 4)
    _, alt = primer.figure_sites(shown, 4)
    assert f"with 16 levels, {grid.zero_point} of them below zero" in alt
    _, alt = primer.figure_zero_point(shown, 4)
    assert "symmetric, zero point 0: 8 of 15 levels of use" in alt and "affine, zero point 0: 16 of 16" in alt


def test_facts_are_what_was_computed(shown):
    gain = primer.site_noise(shown.activations["conv1"], [4]).iloc[0]
    found = primer.site_gain(shown, 4)
    assert found["gain"] == pytest.approx(gain.after - gain.before)
    assert found["worth"] == pytest.approx(found["gain"] / 6.02, abs=0.001)
    table = primer.range_table(shown, 4)
    assert table["layer"].tolist() == list(ptq.quantizable_layers(shown.network))
    per_tensor, per_channel, per_group = (
        table[name].str.removesuffix(" dB").astype(float) for name in table.columns[1:]
    )
    assert (per_channel >= per_tensor).all() and (per_group >= per_channel).all()
    noise = primer.noise_by_width(shown)
    slopes = primer.slopes(noise)
    assert 5.5 < slopes["least"] <= slopes["most"] < 6.5
    assert slopes["noise_8"] < slopes["noise_4"] < slopes["noise_2"]
    assert -20 * math.log10(slopes["noise_8"]) == pytest.approx(noise.loc[8].median())
    folding = primer.folding(shown, 4)
    assert 0 <= folding["differ"] < 1e-5 and folding["after"] < folding["channel"]


def test_batch_norm_is_folded_by_the_library():
    """What :func:`primer.folded` relies on: at 32 bits only the folding is left of the quantization."""
    torch.manual_seed(0)
    both = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)).eval()
    merged = ptq.prepare(both, torch.randn(4, 1, 6, 6)).at(32)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in merged.modules())
