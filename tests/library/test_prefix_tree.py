"""The prefix tree: every configuration exactly as if it were evaluated alone, on chains, branches and groups."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import quide
from quide import evaluate, ptq
from quide.evaluate import prefix_tree, spared
from quide.evaluate.prefix_tree import PrefixTree
from quide.models.networks import SimpleCNN
from quide.ptq.layers import quantizable_layers

CHOICES = (16, 8, 4, 2)
SCHEMES = {
    "paper": ptq.PAPER,
    "after ReLU": ptq.Scheme(activation_site="relu"),
    "input": ptq.Scheme(activation_site="input", weight_per_channel=True),
    "float logits": ptq.Scheme(quantize_logits=False),
    "input, float logits": ptq.Scheme(activation_site="input", quantize_logits=False, activation_range="percentile"),
    "float16": ptq.Scheme(sixteen_bit="float16"),
}


class Branched(nn.Module):
    """A residual network whose addition overwrites its input, with a size that is read from the data."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(64, 5)

    def forward(self, images):
        rows = images.shape[0]
        values = F.relu(self.bn(self.stem(images)))
        summed = self.left(values)
        summed += self.right(values)
        summed += values
        return self.head(F.max_pool2d(F.relu(summed), 2).reshape(rows, -1))


class OutOfOrder(nn.Module):
    """Layers registered in another order than they run in, and a parameter of its own in between."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 3)
        self.first = nn.Linear(64, 8)
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, images):
        return self.last(torch.tanh(self.first(images.flatten(1)) * self.gain))


class InPlace(nn.Module):
    """The second layer's part begins by overwriting what the first one left to several readers."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(64, 64) for _ in range(3))

    def forward(self, images):
        values = self.one(images.flatten(1))
        changed = self.two(values)
        values += changed
        return self.three(values)


class InTurns(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(64, 64) for _ in range(3))

    def forward(self, images):
        return self.c(self.b(self.a(images.flatten(1))))


def seeded(build) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def pictures(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


NETWORKS = {
    "chain": lambda: SimpleCNN(num_classes=5, in_channels=1, image_size=8),
    "branched": Branched,
    "out of order": OutOfOrder,
    "in place": InPlace,
}


def alone(prepared: ptq.Prepared, bits, images: torch.Tensor) -> torch.Tensor:
    return evaluate.predict(prepared.at(bits), [images])


# --- exactness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_configuration_is_as_if_evaluated_alone(network, scheme):
    prepared = ptq.prepare(seeded(NETWORKS[network]), pictures(40, 1), SCHEMES[scheme])
    choices = (16, 4, 2) if len(prepared.layers) > 3 else CHOICES
    tree, images = PrefixTree(prepared, choices), pictures(70, 2)
    predicted = tree.predict(images)
    assert tree.configurations == list(itertools.product(choices, repeat=len(prepared.layers)))
    for row, bits in zip(predicted, tree.configurations, strict=True):
        assert torch.equal(row, alone(prepared, bits, images)), bits


def test_configurations_differ_in_what_they_predict():
    prepared = ptq.prepare(seeded(NETWORKS["chain"]), pictures(40, 1))
    assert len(torch.unique(PrefixTree(prepared).predict(pictures(128, 2)), dim=0)) > 20


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100, 128])
def test_any_number_of_images_gives_the_same(count):
    prepared, images = ptq.prepare(seeded(NETWORKS["chain"]), pictures(40, 1)), pictures(count, 3)
    predicted = PrefixTree(prepared, (8, 3)).predict(images)
    expected = torch.stack([alone(prepared, bits, images) for bits in itertools.product((8, 3), repeat=4)])
    assert torch.equal(predicted, expected)


@pytest.mark.parametrize("limit", [0, 1_000, 30_000, 2**24])
def test_the_result_does_not_depend_on_how_much_is_stacked(limit, monkeypatch):
    prepared, images = ptq.prepare(seeded(NETWORKS["chain"]), pictures(40, 1)), pictures(64, 3)
    expected = PrefixTree(prepared, CHOICES).predict(images)
    monkeypatch.setattr(prefix_tree, "STACK_BYTES", limit)
    tree = PrefixTree(prepared, CHOICES)
    assert torch.equal(tree.predict(images), expected)


def test_a_device_that_computes_stacks_otherwise_gets_none():
    """A layer whose result depends on the number of images stands for a kernel that is chosen by it."""

    class Counting(nn.Module):
        def forward(self, values):
            return values * (1 + 1e-3 * len(values))

    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 4)).eval()
    prepared = ptq.prepare(network, pictures(40, 1))
    tree = PrefixTree(prepared, (8, 4))
    tree._stages[0].modules = [nn.Sequential(module, _First(Counting())) for module in tree._stages[0].modules]
    tree.predict(pictures(64, 2))
    assert tree._stackable is False


class _First(nn.Module):
    """Applies a module to the only value of a stage's result."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, values):
        return (self.module(values[0]),)


def test_a_size_read_from_the_data_forbids_stacking_and_a_chain_allows_it():
    stackable = {}
    for name in ("chain", "branched"):
        tree = PrefixTree(ptq.prepare(seeded(NETWORKS[name]), pictures(40, 1)), (8, 4))
        tree.predict(pictures(64, 2))
        stackable[name] = tree._stackable
    assert stackable == {"chain": True, "branched": False}


def test_the_model_and_the_images_are_left_alone():
    network, images = seeded(NETWORKS["in place"]), pictures(64, 2)
    weights, before = {n: v.clone() for n, v in network.state_dict().items()}, images.clone()
    PrefixTree(ptq.prepare(network, pictures(40, 1)), (8, 4)).predict(images)
    assert torch.equal(images, before)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_work_is_shared(monkeypatch):
    """Four layers at two widths, stacked: each stage runs once a width, not once a configuration."""
    prepared = ptq.prepare(seeded(NETWORKS["chain"]), pictures(40, 1))
    tree = PrefixTree(prepared, (8, 4))
    tree.predict(pictures(32, 2))
    calls = []
    monkeypatch.setattr(
        prefix_tree.Stage, "run", lambda stage, choice, state: calls.append(stage) or stage.modules[choice](*state)
    )
    tree.predict(pictures(32, 2))
    assert len(calls) == 4 * 2


# --- exhaustive ------------------------------------------------------------------------------------------------------


def test_exhaustive_returns_the_accuracy_of_each_configuration():
    network, images, calibration = seeded(NETWORKS["chain"]), pictures(150, 2), pictures(40, 1)
    labels = evaluate.predict(network, [images])
    table = quide.evaluate.exhaustive(network, images, labels, calibration, (16, 4))
    for bits in itertools.product((16, 4), repeat=4):
        predicted = evaluate.predict(quide.quantize(network, bits, calibration), images.split(128))
        assert table[bits] == (predicted == labels).double().mean().item()
    assert list(table) == list(itertools.product((16, 4), repeat=4))


def test_groups_share_a_width():
    network, images, calibration = seeded(Branched), pictures(64, 2), pictures(40, 1)
    labels = evaluate.predict(network, [images])
    groups = [["stem"], ["left", "right"], ["head"]]
    table = quide.evaluate.exhaustive(network, images, labels, calibration, (8, 2), groups=groups)
    assert list(table) == list(itertools.product((8, 2), repeat=3))
    for (a, b, c), accuracy in table.items():
        predicted = evaluate.predict(quide.quantize(network, (a, b, b, c), calibration), [images])
        assert accuracy == (predicted == labels).double().mean().item()


def test_images_are_streamed(monkeypatch):
    network, labels = seeded(NETWORKS["chain"]), torch.zeros(300, dtype=torch.long)
    sizes, whole = [], PrefixTree.predict
    monkeypatch.setattr(PrefixTree, "predict", lambda tree, images: sizes.append(len(images)) or whole(tree, images))
    quide.evaluate.exhaustive(network, pictures(300, 2), labels, pictures(40, 1), (8, 4))
    assert sizes == [128, 128, 44]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [["conv1"], ["conv2", "fc1"]]}, "each layer of the model once: conv1, conv2, fc1, fc2"),
        ({"groups": [["conv1", "conv2"], ["fc1", "fc2", "fc1"]]}, "each layer of the model once"),
        ({"groups": [["conv1", "conv2", "fc1", "fc2"], []]}, "each layer of the model once"),
        ({"choices": ()}, "choices must be"),
        ({"choices": (8, 8)}, "choices must be"),
        ({"choices": (8, 64)}, "choices must be whole numbers in 1..32"),
        ({"limit": 255}, "256 configurations, more than limit=255; pass groups"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    prepared = ptq.prepare(seeded(NETWORKS["chain"]), pictures(40, 1))
    with pytest.raises(ValueError, match=message):
        PrefixTree(prepared, **options)


def test_groups_that_run_in_turns_are_refused_by_name():
    prepared = ptq.prepare(seeded(InTurns), pictures(40, 1))
    with pytest.raises(ValueError, match="layer c needs the result of a group that begins after its own, b"):
        PrefixTree(prepared, (8, 4), groups=[["a", "c"], ["b"]])


def test_images_and_labels_are_checked_before_any_work():
    network = seeded(NETWORKS["chain"])
    with pytest.raises(ValueError, match="images and labels must be of the same number"):
        quide.evaluate.exhaustive(network, pictures(3, 1), torch.zeros(2, dtype=torch.long), pictures(3, 1))


def test_layers_come_in_the_order_the_model_registers_them():
    network = seeded(OutOfOrder)
    prepared, images = ptq.prepare(network, pictures(40, 1)), pictures(64, 2)
    tree = PrefixTree(prepared, (16, 2))
    assert quantizable_layers(network) == ["last", "first"]
    coarse_first = tree.predict(images)[tree.configurations.index((16, 2))]
    assert torch.equal(coarse_first, alone(prepared, (16, 2), images))
    assert not torch.equal(coarse_first, alone(prepared, (2, 16), images))


# --- what is known beforehand ----------------------------------------------------------------------------------------


def spared_and_plain(bits: int, scheme: ptq.Scheme = ptq.PAPER):
    """A convolution and a linear layer large enough to be looked into, half of whose units are dead."""
    torch.manual_seed(0)
    parts = [nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU()]
    model = nn.Sequential(*parts, nn.Linear(64, 5)).eval()
    for layer in (model[0], model[4]):
        layer.weight.data[::2] = 0
    images = torch.randn(48, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    images[40:] *= 1e-6  # every output is the bias, to within a step
    prepared = ptq.prepare(model, images[:8], scheme, fastest_layout=True)
    plain, ours = prepared.at(bits), prepared.at(bits)
    spared.spare([ours])
    return plain, ours, images.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rounding", ["half_even", "half_up", "floor"])
@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_what_is_left_out_changes_no_value(bits, rounding):
    plain, ours, images = spared_and_plain(bits, ptq.Scheme(rounding=rounding))
    layers = [part for part in ours.modules() if isinstance(part, spared.Spared)]
    with torch.inference_mode():
        for batch in (images, images, images[:16], images[40:]):
            assert torch.equal(ours(batch), plain(batch))
            assert batch is not images or (len(layers) == 2 and not all(layer.vain for layer in layers))
        buffer = images.clone()
        ours(buffer)
        buffer.mul_(50)  # what was found of a tensor does not hold for its later contents
        assert torch.equal(ours(buffer), plain(buffer))
        buffer[0, 0, 0, 0] = float("nan")
        assert torch.equal(ours(buffer).isnan(), plain(buffer).isnan())


def test_a_layer_in_which_all_differs_is_left_as_it_is():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 5)).eval()
    images = torch.randn(32, 256)
    network = ptq.quantize(model, 8, images)
    spared.spare([network])
    with torch.inference_mode():
        for _ in range(2 * spared.PATIENCE):
            network(images)
    (layer,) = (part for part in network.modules() if isinstance(part, spared.Spared))
    assert layer.vain == spared.PATIENCE and not layer.alike


@pytest.mark.parametrize("what", ["another reader", "in groups", "float64"])
def test_only_what_a_quantizer_alone_reads_is_looked_into(what):
    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(64, 64, 3, padding=1, groups=2 if what == "in groups" else 1)
            self.last = nn.Linear(64, 3)

        def forward(self, images):
            first = self.first(images)
            return self.last((first.relu() + (first if what == "another reader" else 0)).mean((2, 3)))

    model, images = Read().eval(), torch.randn(4, 64, 6, 6)
    if what == "float64":
        model, images = model.double(), images.double()
    scheme = ptq.Scheme(activation_site="relu" if what == "another reader" else "output")
    network = ptq.prepare(model, images, scheme).at(quide.Width(8, 32) if what == "another reader" else 8)
    spared.spare([network])
    assert not [part for part in network.modules() if isinstance(part, spared.Spared)]
