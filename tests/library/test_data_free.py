"""Ranges by golden section, by cross-entropy, and from batch norms; biases corrected without images."""

import pytest
import torch
from torch import nn

import quide
from quide import ptq
from quide.ptq import moments
from quide.ptq.grid import affine_grid, fake_quantize
from quide.ptq.prepared import prepare, weight_grid
from quide.ptq.ranges import Statistics


@pytest.fixture
def values():
    return torch.randn(4000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    """Batch norms with statistics of what they see, so that beta and gamma are what their outputs have."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    images = torch.randn(512, 3, 10, 10)
    with torch.no_grad():
        for norm in (model[1], model[4]):
            norm.momentum = None
            norm.weight.copy_(torch.rand(6) + 0.5)
            norm.bias.copy_(torch.randn(6) * 0.5)
        model.train()(images)
        model[4].reset_running_stats()
        model[1].eval()
        model(images)
    return model.eval(), images


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_golden_section_is_no_worse_than_the_grid_of_ranges(values, bits):
    weight = values.reshape(40, 100)
    errors = {}
    for rule in ("mse", "mse_golden"):
        scheme = quide.Scheme(weight_range=rule, weight_per_channel=True)
        rounded = fake_quantize(weight, weight_grid(weight, bits, scheme))
        errors[rule] = (rounded - weight).square().sum(1)
    assert (errors["mse_golden"] <= errors["mse"] * 1.0001).all()
    assert errors["mse_golden"].sum() < errors["mse"].sum()


def test_golden_section_of_activations(values):
    statistics = Statistics()
    statistics.see_extremes(values)
    statistics.see_histogram(values)
    errors = [
        float((fake_quantize(values, affine_grid(*statistics.range(rule, 4, 99.9, False), 4)) - values).square().sum())
        for rule in ("minmax", "mse", "mse_golden")
    ]
    assert errors[2] <= errors[1] * 1.001 < errors[0]


def test_logits_keep_their_probabilities(values):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 10)).eval()
    with torch.no_grad():
        model[0].bias[0] = 40  # a class that is far from all others
    images = values.reshape(-1, 20)
    wanted = model(images).softmax(1)

    def cross_entropy(scheme):
        rounded = quide.quantize(model, quide.Width(32, 3), images, scheme)
        return float(-(wanted * rounded(images).log_softmax(1)).sum(1).mean())

    plain, better = quide.Scheme(), quide.Scheme(logits_range="cross_entropy")
    assert cross_entropy(better) < cross_entropy(plain)


def test_moments_are_those_that_are_measured(network):
    model, images = network
    prepared = prepare(model, images)
    known = moments.of_values(prepared.graph, prepared.norms)
    seen = {"0": model[:2](images), "2": model[:3](images), "3": model[:5](images), "5": model[:6](images)}
    names = {node.target: node.name for node in prepared.graph.graph.nodes if node.op == "call_module"}
    for place, measured in seen.items():
        mean, deviation = known[names[place]].moments()
        torch.testing.assert_close(mean, measured.mean((0, 2, 3)), rtol=0, atol=0.08)
        torch.testing.assert_close(deviation, measured.std((0, 2, 3)), rtol=0, atol=0.08)


def test_an_addition_adds_means_and_variances():
    one = moments.Normal(torch.tensor([1.0]), torch.tensor([3.0]))
    rectified = moments.Normal(torch.tensor([-100.0]), torch.tensor([1.0]), rectified=True)
    assert [float(value) for value in rectified.moments()] == pytest.approx([0, 0], abs=1e-6)
    assert one.range() == (-17, 19) and rectified.range() == (0, 0)


@pytest.mark.parametrize("site", ["output", "relu", "input"])
def test_ranges_from_batch_norms_need_no_images(network, site):
    model, images = network
    scheme = quide.Scheme(activation_range="batch_norm", activation_site=site, quantize_logits=False)
    by_two = quide.quantize(model, 8, images[:2], scheme)
    assert torch.equal(by_two(images), quide.quantize(model, 8, torch.cat([images[:2], images[:1]]), scheme)(images))
    full = model(images)
    assert (by_two(images) - full).abs().max() < 0.1 * full.abs().max()


def test_a_site_that_no_batch_norm_tells_of_is_refused(network):
    model, images = network
    with pytest.raises(ValueError, match="finds no range for what layer 8"):
        prepare(model, images, quide.Scheme(activation_range="batch_norm"))  # its logits


def test_biases_are_corrected_without_images(network):
    model, images = network
    bits, scheme = quide.Width(2, 32), quide.Scheme(weight_range="mse")
    plain = quide.quantize(model, bits, images, scheme)
    better = quide.quantize(model, bits, images[:2], scheme, [ptq.AnalyticBias()])
    assert better.meta["analytic_bias"] == ["3", "8"]  # what the first layer reads is the image
    folded = prepare(model, images, scheme).graph.get_submodule("3")
    exact = folded(model[:3](images)).mean((0, 2, 3))
    errors = [
        (one.get_submodule("3")(model[:3](images)).mean((0, 2, 3)) - exact).abs().mean() for one in (plain, better)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_equalization_carries_what_batch_norms_say(network):
    model, images = network
    from quide.ptq.equalize import Equalize

    changed = Equalize().before(prepare(model, images), images)
    known = moments.of_values(changed.graph, changed.norms)
    name = next(node.name for node in changed.graph.graph.nodes if node.target == "0")
    measured = changed.graph.get_submodule("0")(images)
    torch.testing.assert_close(known[name].moments()[0], measured.mean((0, 2, 3)), rtol=0.1, atol=0.1)
