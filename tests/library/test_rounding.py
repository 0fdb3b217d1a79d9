"""Rounding without tracing gives what the tracing quantizer gives, and counts every bit that it stores."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quide import ptq
from quide.models import networks
from quide.ptq import rounding


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return networks.build("simplecnn", 10, 3, 32, seed=0).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_weights_and_outputs_together_are_the_papers_scheme(network, images, bits):
    layers = ptq.quantizable_layers(network)
    seen = rounding.observe(network, layers, [images])
    ours = rounding.round_outputs(rounding.round_weights(network, layers, bits), seen, bits)
    with torch.inference_mode():
        assert torch.equal(ours(images), ptq.quantize(network, bits, images)(images))


def test_weights_alone_leave_the_rest_alone(network, images):
    rounded = rounding.round_weights(network, ["conv2"], 4)
    assert torch.equal(rounded.conv2.weight, ptq.quantized_weight(network.conv2.weight, 4))
    assert torch.equal(rounded.fc1.weight, network.fc1.weight) and torch.equal(rounded.conv2.bias, network.conv2.bias)
    assert not torch.equal(rounded.conv2.weight, network.conv2.weight)  # and the given network is as it was


def test_a_group_is_rounded_by_itself():
    weight = torch.tensor([[0.1, -0.3, 7.0, 3.0, 0.5]])
    rounded = rounding.round_weight(weight, 2, granularity=2)
    assert rounded.flatten().tolist() == pytest.approx([0.0, -0.3, 7.0, 0.0, 0.5])


@pytest.mark.parametrize("granularity", ["tensor", "channel", 7])
def test_finer_scales_err_less(network, granularity):
    weight = network.fc1.weight.detach()
    coarse, fine = (rounding.round_weight(weight, 3, each) for each in ("tensor", granularity))
    assert (fine - weight).square().mean() <= (coarse - weight).square().mean()


def test_the_type_of_a_weight_is_kept():
    assert rounding.round_weight(torch.randn(4, 4, dtype=torch.bfloat16), 4, "channel").dtype == torch.bfloat16


@pytest.mark.parametrize(("granularity", "scales"), [("tensor", 1), ("channel", 6), (4, 18), (9, 6), (100, 6)])
def test_integers_and_scales_are_counted(granularity, scales):
    assert rounding.stored_bits(torch.zeros(6, 3, 3), 4, granularity) == 4 * 54 + 16 * scales


@pytest.mark.parametrize("granularity", ["row", 0, -1, True, 2.0])
def test_an_unknown_granularity_is_refused(granularity):
    for function in (rounding.round_weight, rounding.stored_bits):
        with pytest.raises(ValueError, match="granularity must be 'tensor', 'channel' or a positive number"):
            function(torch.zeros(2, 2), 4, granularity)


def test_hooks_of_observing_are_taken_off_again(network, images):
    rounding.observe(network, ["fc2"], [images])
    assert not network.fc2._forward_hooks
    with pytest.raises(RuntimeError):
        rounding.observe(network, ["fc2"], [images[:, :1]])
    assert not network.fc2._forward_hooks
