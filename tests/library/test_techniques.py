"""Techniques of post-training quantization: what they leave alone, what they mend, and that they check themselves."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import quide
from quide import ptq
from quide.ptq import adaround, bias, brecq, equalize
from quide.ptq.prepared import prepare

WEIGHTS_ALONE = quide.Width(4, 32)


class Residual(nn.Module):
    """A chain of two convolutions beside a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(inputs, 6, 3, padding=1) for inputs in (3, 6, 6))
        self.head = nn.Linear(6, 5)

    def forward(self, images):
        start = torch.relu(self.stem(images))
        end = torch.relu(self.two(torch.relu(self.one(start))) + start)
        return self.head(end.mean((2, 3)))


@pytest.fixture
def images():
    return torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def chain():
    """Three convolutions, one of them depthwise, whose channels differ a hundredfold."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 5, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip
    with torch.no_grad():
        factors = torch.logspace(-1, 1, 8)
        model[0].weight *= factors[:, None, None, None]
        model[0].bias *= factors
        model[2].weight /= factors[:, None, None, None]
    return model


def distance(model, other, images):
    with torch.no_grad():
        return float((model(images) - other(images)).square().mean())


def equalized(model, images, scheme=quide.PAPER):
    return equalize.Equalize().before(prepare(model, images, scheme), images).graph


def test_equalization_leaves_the_function_alone_and_the_rounded_network_nearer(chain, images):
    graph = equalized(chain, images)
    with torch.no_grad():
        torch.testing.assert_close(graph(images), chain(images), rtol=0, atol=1e-5)
    largest = graph.get_submodule("0").weight.abs().flatten(1).amax(1)
    assert largest.max() / largest.min() < 10 < chain[0].weight.abs().flatten(1).amax(1).max() / 0.1
    plain = quide.quantize(chain, WEIGHTS_ALONE, images)
    better = quide.quantize(chain, WEIGHTS_ALONE, images, techniques=["equalize"])
    assert distance(better, chain, images) < distance(plain, chain, images)


class Inverted(nn.Module):
    """A ReLU6 in each of its forms, with limits that are reached: as a module called twice, and as a function."""

    def __init__(self):
        super().__init__()
        self.expand, self.depthwise, self.project = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)
        self.relu, self.fc, self.last = nn.ReLU6(inplace=True), nn.Linear(4, 9), nn.Linear(9, 5)
        with torch.no_grad():
            self.depthwise.weight *= torch.logspace(-1, 1, 8)[:, None, None, None]
            self.depthwise.bias += 6
            self.fc.weight *= 40
            self.expand.bias[:2] += torch.tensor([5.0, 40.0])

    def forward(self, x):
        features = F.relu6(self.depthwise(self.relu(self.expand(x))))
        return self.last(self.relu(self.fc(self.project(F.max_pool2d(features, 2)).mean((2, 3)))))


def test_a_relu6_is_rescaled_with_its_channels(images):
    model = Inverted().eval()
    prepared = prepare(model, images)
    assert equalize.pairs(prepared.graph) == [("expand", "depthwise"), ("depthwise", "project"), ("fc", "last")]
    changed = equalize.Equalize().before(prepared, images)
    assert changed.sites == prepared.sites and "relu6" not in {str(node.target) for node in changed.graph.graph.nodes}
    absorbed = equalize.AbsorbBias().before(changed, images)
    with torch.no_grad():
        torch.testing.assert_close(changed.graph(images), model(images), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(absorbed.graph(images), model(images), rtol=1e-3, atol=1e-3)
    limits = dict(absorbed.graph.named_buffers())["relu_clipped.limit"]
    assert limits.min() >= 0 and limits[1] == 0  # a channel that is always at its limit is all bias


def test_pairs_never_cross_a_residual_addition(images):
    assert equalize.pairs(prepare(Residual().eval(), images).graph) == [("one", "two")]


def test_equalization_is_nothing_where_weights_have_a_scale_a_channel(chain, images):
    scheme = quide.Scheme(weight_per_channel=True)
    plain = quide.quantize(chain, 4, images, scheme)
    same = quide.quantize(chain, 4, images, scheme, ["equalize"])
    assert distance(plain, same, images) == 0


def test_absorbed_biases_leave_the_function_alone(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].bias[:2] += 20
    graph = equalize.AbsorbBias().before(prepare(model.eval(), images), images).graph
    assert (model[0].bias - graph.get_submodule("0").bias)[:2].min() > 10
    with torch.no_grad():
        torch.testing.assert_close(graph(images), model(images), rtol=0, atol=0.02)


def test_bias_correction_brings_the_mean_of_each_channel_back(chain, images):
    model = nn.Sequential(chain[0])
    means = [
        rounded(images).mean((0, 2, 3)) - model(images).mean((0, 2, 3))
        for rounded in (
            quide.quantize(model, quide.Width(3, 32), images),
            quide.quantize(model, quide.Width(3, 32), images, techniques=[ptq.CorrectBias(guard=False)]),
        )
    ]
    assert means[0].abs().max() > 1e-3 > 1e-5 > means[1].abs().max()


@pytest.mark.parametrize("outputs", [1, 5])
def test_a_correction_is_judged_by_the_probabilities_of_the_classes(outputs, images, monkeypatch):
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *pooled).eval()
    errors = iter([1.0, 2.0])  # a correction that makes it worse
    monkeypatch.setattr(bias, "_error", lambda *_: next(errors))
    worse = quide.quantize(model, 3, images, techniques=["correct_bias"])
    assert not worse.meta["correct_bias"] and distance(worse, quide.quantize(model, 3, images), images) == 0
    monkeypatch.undo()
    exact = prepare(model, images).graph
    with torch.no_grad():
        target = exact(images)
        shifted = copy.deepcopy(exact)
        shifted.get_submodule("4").bias.add_(3.0)  # which moves all logits alike
        error = bias._error(shifted, images, target)
    assert error == pytest.approx(0 if outputs > 1 else 9 * len(images), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kind", ["chain", "residual"])
def test_adaround_is_nearer_than_nearest_and_its_variables_decide(kind, chain, images):
    torch.manual_seed(0)
    model = chain if kind == "chain" else Residual().eval()
    how = ptq.AdaRound(iterations=1500, outputs=128)
    scheme = quide.Scheme(weight_per_channel=True, weight_range="mse")
    nearest = quide.quantize(model, WEIGHTS_ALONE, images, scheme)
    learned = quide.quantize(model, WEIGHTS_ALONE, images, scheme, [how])
    assert distance(learned, model, images) < distance(nearest, model, images)
    report = learned.meta["adaround"]
    assert all(one.hard <= one.nearest and one.soft <= one.nearest * 1.05 for one in report.values())
    assert min(one.closed for one in report.values()) > 0.95
    for name, layer in learned.named_modules():  # each weight is one of the two grid values around it
        if isinstance(layer, nn.Conv2d):
            step = learned.meta["quide"].weight_scales[name].reshape(-1, 1, 1, 1)
            original = model.get_submodule(name).weight
            inside = (original / step).abs() < 7
            assert ((layer.weight - original).abs() <= step * 1.001)[inside].all()


def test_adaround_is_the_same_again_and_goes_on_from_its_file(chain, images, tmp_path, monkeypatch):
    how = ptq.AdaRound(iterations=30, outputs=64, checkpoint=tmp_path / "rounded.pt")
    first = quide.quantize(chain, 4, images, techniques=[how])
    again = quide.quantize(chain, 4, images, techniques=[ptq.AdaRound(iterations=30, outputs=64)])
    assert distance(first, again, images) == 0
    monkeypatch.setattr(adaround._Problem, "solve", None)  # nothing is left to do
    assert distance(first, quide.quantize(chain, 4, images, techniques=[how]), images) == 0


def test_a_file_of_adaround_is_of_one_network_and_proven(chain, images, tmp_path):
    how = ptq.AdaRound(iterations=5, outputs=64, checkpoint=tmp_path / "rounded.pt")
    first = quide.quantize(chain, 4, images, techniques=[how])
    turned = images.flip(0)  # of the same sums
    fresh = quide.quantize(chain, 4, turned, techniques=[ptq.AdaRound(iterations=5, outputs=64)])
    assert distance(quide.quantize(chain, 4, turned, techniques=[how]), fresh, images) == 0
    assert distance(quide.quantize(chain, 4, images, techniques=[how]), first, images) == 0
    content = bytearray(how.checkpoint.read_bytes())
    content[len(content) // 2] ^= 4
    how.checkpoint.write_bytes(content)
    with pytest.raises(ValueError, match="rounded.pt cannot be read .*; delete it to begin anew"):
        quide.quantize(chain, 4, images, techniques=[how])


def test_blocks_end_where_a_single_value_passes(chain, images):
    residual = prepare(Residual().eval(), images)
    found = brecq.blocks(residual.graph, ["stem", "one", "two", "head"])
    assert [block.layers for block in found] == [("stem",), ("one", "two"), ("head",)]
    assert found[0].end == found[1].start  # behind the ReLU of the stem; the shortcut is in the block
    plain = prepare(chain, images)
    assert [block.layers for block in brecq.blocks(plain.graph, ["0", "2", "4"])] == [("0",), ("2",), ("4",)]


@pytest.mark.parametrize("bits", [WEIGHTS_ALONE, quide.Width(4, 4)])
def test_blocks_that_learned_to_round_are_nearer_than_nearest(images, bits):
    torch.manual_seed(0)
    model = Residual().eval()
    nearest = quide.quantize(model, bits, images, quide.BEST)
    learned = quide.quantize(model, bits, images, quide.BEST, [ptq.Brecq(iterations=800)])
    assert distance(learned, model, images) < distance(nearest, model, images)
    report = learned.meta["brecq"]
    assert list(report) == ["stem", "one", "head"]
    assert all(one.hard <= one.nearest for one in report.values())
    assert min(one.closed for one in report.values()) > 0.9
    for name, scale in learned.meta["quide"].weight_scales.items():
        steps = learned.get_submodule(name).weight / scale
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)


def test_blocks_are_the_same_again_and_go_on_from_their_file(images, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, how = Residual().eval(), ptq.Brecq(iterations=20, checkpoint=tmp_path / "blocks.pt")
    first = quide.quantize(model, 4, images, quide.BEST, [how])
    again = quide.quantize(model, 4, images, quide.BEST, [ptq.Brecq(iterations=20)])
    assert distance(first, again, images) == 0
    monkeypatch.setattr(brecq._BlockProblem, "solve", None)  # nothing is left to do
    assert distance(first, quide.quantize(model, 4, images, quide.BEST, [how]), images) == 0


def test_the_network_given_is_left_as_it_was(chain, images):
    before = copy.deepcopy(chain.state_dict())
    techniques = ["equalize", "absorb_bias", ptq.AdaRound(iterations=5), ptq.Brecq(iterations=5), "correct_bias"]
    quide.quantize(chain, 4, images, quide.PAPER, techniques)
    assert all(torch.equal(value, before[name]) for name, value in chain.state_dict().items())


def test_a_technique_that_is_not_known_is_refused(chain, images):
    with pytest.raises(ValueError, match="techniques must be among .*'smooth'"):
        quide.quantize(chain, 4, images, techniques=["smooth"])
