"""Training with learned steps: gradients as published, a result like that of quantize, the same again from its file."""

import math

import pytest
import torch
from torch import nn

import quide
from quide.ptq.grid import FakeQuantize, Grid, fake_quantize
from quide.ptq.learned import LearnedQuantizer

SCHEME = quide.Scheme(
    weight_range="mse", weight_per_channel=True, activation_site="input", activation_range="mse", quantize_logits=False
)


@pytest.fixture
def data():
    """Images of two classes, told apart by their mean."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (256,), generator=generator)
    images = torch.randn(256, 3, 8, 8, generator=generator) + 0.3 * (2 * labels[:, None, None, None] - 1)
    return images, labels


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    ).eval()  # fmt: skip


def accuracy(network, images, labels):
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).float().mean())


def test_the_gradient_of_a_step_is_lsqs():
    grid = Grid(torch.tensor(0.5), 0, -3, 3)
    quantizer = LearnedQuantizer(grid, of_weights=True)
    values = torch.tensor([[0.6, -0.9], [5.0, -5.0]], requires_grad=True)
    quantizer(values).sum().backward()
    # Eq. 3: rounded minus scaled inside the grid, its end outside; times 1 / sqrt(N * Qp).
    inside = (1 - 1.2) + (-2 + 1.8)
    assert quantizer.scale.grad == pytest.approx((inside + 3 - 3) / math.sqrt(4 * 3), abs=1e-6)
    assert values.grad.tolist() == [[1, 1], [0, 0]]


def test_a_step_starts_where_lsq_lets_it():
    quantizer = LearnedQuantizer(Grid(torch.ones(2, 1), 0, -7, 7), of_weights=True)
    quantizer.start(torch.tensor([[1.0, -3.0], [0.5, 0.5]]))
    assert quantizer.scale.flatten().tolist() == pytest.approx([2 * 2 / math.sqrt(7), 2 * 0.5 / math.sqrt(7)])


@pytest.mark.parametrize("batch_norm", ["folded", "left", "reestimated"])
def test_training_finds_what_rounding_loses(model, data, batch_norm):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = quide.qat(model, data, 4, SCHEME, epochs=10, batch_size=32, learning_rate=0.05, batch_norm=batch_norm)
    assert accuracy(trained, *data) > 0.95 > accuracy(quide.quantize(model, 4, data[0], SCHEME), *data)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert trained.meta["qat"][-1] < trained.meta["qat"][0] and not trained.training
    norms = [part for part in trained.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == (2 if batch_norm == "left" else 0)


def test_what_comes_back_is_rounded_as_quantize_rounds(model, data, tmp_path):
    trained = quide.qat(model, data, 3, SCHEME, epochs=1)
    how = trained.meta["quide"]
    for layer, scale in how.weight_scales.items():
        weight = trained.get_submodule(layer).weight
        assert torch.equal(weight, fake_quantize(weight, Grid(scale, 0, -3, 3)))
    quantizers = [part for part in trained.modules() if isinstance(part, FakeQuantize)]
    assert len(quantizers) == len(how.quantizers) == 3
    loaded = quide.load(model, quide.save(trained, tmp_path / "trained.safetensors"))
    assert torch.equal(loaded(data[0]), trained(data[0]))


def test_statistics_estimated_anew_are_folded_into_steps(model, data):
    trained = quide.qat(model, data, 4, SCHEME, epochs=1, batch_norm="reestimated")
    for layer, scale in trained.meta["quide"].weight_scales.items():
        steps = trained.get_submodule(layer).weight / scale
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
        assert steps.abs().max() <= 7.001


def test_a_run_goes_on_from_its_file_to_the_same_weights(model, data, tmp_path):
    class Killed(Exception):
        pass

    calls = iter(range(100))

    def dying(outputs, labels):
        if next(calls) >= 6:
            raise Killed
        return nn.functional.cross_entropy(outputs, labels)

    whole = quide.qat(model, data, 4, SCHEME, epochs=3, batch_size=64)
    file = tmp_path / "qat.pt"
    with pytest.raises(Killed):
        quide.qat(model, data, 4, SCHEME, epochs=3, batch_size=64, checkpoint=file, loss=dying)
    again = quide.qat(model, data, 4, SCHEME, epochs=3, batch_size=64, checkpoint=file)
    assert torch.equal(whole(data[0]), again(data[0])) and whole.meta["qat"] == again.meta["qat"]
    fresh = quide.qat(model, data, 3, SCHEME, epochs=1)
    assert torch.equal(quide.qat(model, data, 3, SCHEME, epochs=1, checkpoint=file)(data[0]), fresh(data[0]))


def test_dropout_and_a_loader_that_shuffles_hang_on_the_seed_alone(model, data, tmp_path):
    """A run that went on from its file too; and nothing is drawn from the caller's generator."""
    model = nn.Sequential(*model[:-1], nn.Dropout(0.5), model[-1]).eval()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), 64, shuffle=True)

    def trained(**options):
        options = {"epochs": 2, "batch_norm": "reestimated", "checkpoint": tmp_path / "qat.pt"} | options
        return quide.qat(model, loader, 4, SCHEME, **options)(data[0])

    torch.manual_seed(5)
    state = torch.get_rng_state()
    whole = trained(checkpoint=None)
    assert torch.equal(torch.get_rng_state(), state)
    calls = iter(range(6))

    def dying(outputs, labels):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(outputs, labels)

    dying.__qualname__ = nn.functional.cross_entropy.__qualname__
    with pytest.raises(KeyboardInterrupt):
        trained(loss=dying)
    torch.manual_seed(6)
    assert torch.equal(trained(), whole)
    assert not torch.equal(trained(checkpoint=None, seed=1), whole)


def test_batches_and_layers_with_widths_of_their_own(model, data):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), 64)
    trained = quide.qat(model, loader, quide.Width(2, 4), keep={"0": 8, "8": 8})
    levels = {layer: trained.get_submodule(layer).weight.unique().numel() for layer in trained.meta["quide"].layers}
    assert levels == {"3": trained.get_submodule("3").weight.unique().numel()}
    per_channel = [row.unique().numel() for row in trained.get_submodule("3").weight.flatten(1)]
    assert max(per_channel) <= 3 < trained.get_submodule("0").weight[0].unique().numel()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 32}, "bits must round something"),
        ({"epochs": 0}, "epochs"),
        ({"batch_norm": "gone"}, "batch_norm must be one of folded, left, reestimated"),
        ({"loss": lambda outputs, labels: outputs.sum() * float("nan")}, "lower learning_rate"),
    ],
)
def test_what_cannot_be_trained_is_refused(model, data, options, words):
    with pytest.raises(ValueError, match=words):
        quide.qat(model, data, **({"bits": 4, "scheme": SCHEME} | options))


def test_a_generator_is_refused(model, data):
    with pytest.raises(ValueError, match="a generator ends once"):
        quide.qat(model, (batch for batch in [data]), 4)


def test_batch_norms_are_folded_without_factors_and_into_layers_that_stay_in_float(data):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    ).eval()  # fmt: skip
    trained = quide.qat(model, data, 4, SCHEME, keep={"3": 32}, batch_norm="reestimated")
    assert not any(isinstance(part, nn.BatchNorm2d) for part in trained.modules())
    steps = trained.get_submodule("0").weight / trained.meta["quide"].weight_scales["0"]
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)


def test_first_steps_are_behind_the_batchs_own_statistics():
    """Those of full precision, which evaluation uses, do not fit what few bits leave of the weights."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 4))
    norm.running_var.fill_(1e6)
    images = torch.randn(64, 3, 8, 8)
    trained = quide.qat(
        net, (images, torch.arange(64) % 4), 4, quide.BEST, epochs=1, learning_rate=1e-9, batch_norm="left"
    )
    steps = [float(part.scale) for part in trained.modules() if isinstance(part, FakeQuantize)]
    assert len(steps) == 3 and steps[1] > 0.05  # by the statistics of full precision it would be a thousandth
