"""Accuracy and the sweep: what the table holds, that each column is the formula, and what is refused."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import quide
from quide import evaluate, latency, metric, ptq
from quide.data.datasets import ImageSet
from quide.models.networks import SimpleCNN
from quide.stats import unpack_bits

QUICK = {"warmup": 1, "passes": 2}
COLUMNS = ["bits", "compression", "accuracy", "latency_ms", "index", "gated_index"]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return SimpleCNN(num_classes=4, in_channels=1, image_size=8).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(150, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def labels(net, images) -> torch.Tensor:
    """What the network says, a tenth of it wrong: 90 % accuracy at full precision."""
    with torch.no_grad():
        classes = net(images).argmax(1)
    classes[::10] = (classes[::10] + 1) % 4
    return classes


@pytest.fixture(scope="module")
def calibration() -> torch.Tensor:
    return torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def table(net, images, labels, calibration) -> pd.DataFrame:
    return quide.sweep(net, images, labels, calibration, (32, 8, (8, 4, 8, 2), 2), tolerance=0.3, **QUICK)


# --- predictions -----------------------------------------------------------------------------------------------------


def test_predict_returns_the_largest_output_of_each_image(net, images):
    with torch.no_grad():
        expected = net(images).argmax(1)
    predicted = evaluate.predict(net, images.split(40))
    assert predicted.dtype == torch.int64
    assert torch.equal(predicted, expected)


def test_predict_takes_one_batch_at_a_time(net, images):
    """A generator is asked for its next batch only when the one before has been through the network."""
    events = []

    class Watched(nn.Module):
        def forward(self, batch):
            events.append("forward")
            return net(batch)

    def batches():
        for batch in images.split(50):
            events.append("batch")
            yield batch

    evaluate.predict(Watched(), batches())
    assert events == ["batch", "forward"] * 3


def test_predict_evaluates_without_dropout_and_without_gradients(images):
    seen = []

    class Watched(nn.Module):
        def forward(self, batch):
            seen.append((self.training, torch.is_grad_enabled()))
            return batch.flatten(1)

    evaluate.predict(Watched().train(), [images])
    assert seen == [(False, False)]


@pytest.mark.parametrize("batch", [1, 64, 1000])
def test_correct_marks_the_images_that_are_right(net, batch):
    pixels = torch.randint(0, 256, (150, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ImageSet(pixels, torch.zeros(150, dtype=torch.int64), (0.5,), (0.25,))
    with torch.no_grad():
        expected = net((pixels / 255 - 0.5) / 0.25).argmax(1) == 0
    hits = evaluate.correct(net, images, batch)
    assert hits.dtype == torch.bool
    assert torch.equal(hits, expected)
    assert 0 < hits.sum() < 150


# --- the sweep -------------------------------------------------------------------------------------------------------


def test_one_row_a_configuration_in_the_order_given(table):
    assert list(table.columns) == COLUMNS
    assert list(table.bits) == [32, 8, (8, 4, 8, 2), 2]
    assert len(table) == 4


def test_accuracy_is_that_of_the_quantized_network(table, net, images, labels, calibration):
    assert table.accuracy[0] == 0.9
    for bits, accuracy in zip(table.bits, table.accuracy, strict=True):
        with torch.no_grad():
            hits = quide.quantize(net, bits, calibration)(images).argmax(1) == labels
        assert accuracy == int(hits.sum()) / 150
    assert table.accuracy[1] > 0.8 > table.accuracy[3]


def test_compression_counts_layers_or_weights(table, net, images, labels, calibration):
    assert list(table.compression) == [1, 4, 32 / 5.5, 16]
    weighted = quide.sweep(net, images, labels, calibration, (8, (8, 4, 8, 2)), size_weighted=True, **QUICK)
    sizes = [9 * 32, 9 * 32 * 64, 64 * 4 * 128, 128 * 4]
    stored = sum(bits * size for bits, size in zip((8, 4, 8, 2), sizes, strict=True))
    assert list(weighted.compression) == [4, pytest.approx(32 * sum(sizes) / stored)]


def test_scores_are_the_formulas_of_the_other_columns(table):
    threshold = table.attrs["threshold"]
    assert (table.latency_ms > 0).all()
    for row in table.itertuples():
        penalty = math.log2(row.latency_ms + 1)
        assert table["index"][row.Index] == pytest.approx(row.compression * row.accuracy / penalty)
        gated = row.compression * max(row.accuracy - threshold, 0) / penalty
        assert row.gated_index == pytest.approx(gated)


def test_which_images_were_right_is_kept_for_intervals(table):
    kept = {name: unpack_bits(text) for name, text in table.attrs["correct"].items()}
    assert list(kept) == ["32", "8", "8-4-8-2", "2"]
    assert [hits.mean() for hits in kept.values()] == list(table.accuracy)


def test_threshold_is_equation_4_with_the_measured_full_precision_accuracy(table, net, images, labels, calibration):
    assert table.attrs["threshold"] == pytest.approx(max(1 / 4, 0.9 - 0.3))
    # also where 32 bits are not among the configurations, and where guessing is the floor
    without = quide.sweep(net, images, labels, calibration, (8,), tolerance=0.2, **QUICK)
    assert without.attrs["threshold"] == pytest.approx(0.7)
    floor = quide.sweep(net, images, labels, calibration, (8,), tolerance=0.9, **QUICK)
    assert floor.attrs["threshold"] == 1 / 4
    ten = quide.sweep(net, images, labels, calibration, (8,), tolerance=0.9, num_classes=10, **QUICK)
    assert ten.attrs["threshold"] == 1 / 10


def test_knee_is_the_best_gated_index_or_none(table, net, images, labels, calibration):
    assert table.attrs["knee"] == table.bits[table.gated_index.argmax()]
    assert table.gated_index.max() > 0
    nothing = quide.sweep(net, images, labels, calibration, (2,), tolerance=0.0, **QUICK)
    assert nothing.attrs["threshold"] == pytest.approx(0.9)
    assert nothing.attrs["knee"] is None


def test_latencies_are_those_of_the_kept_timings(table):
    timings = table.attrs["timings"]
    assert isinstance(timings, latency.Timings)
    assert list(timings.latencies) == ["32", "8", "8-4-8-2", "2"]
    assert list(table.latency_ms) == [timed.median_ms for timed in timings.latencies.values()]
    assert {(timed.warmup, timed.passes) for timed in timings.latencies.values()} == {(1, 2)}


def test_timing_is_on_one_batch_of_64_with_every_quantizer_where_a_framework_puts_it(
    monkeypatch, net, images, labels, calibration
):
    """The paper times simulated quantization, not our shortcut past pooling."""
    timed = {}

    def measure(fns, warmup, passes, progress):
        timed.update({name: fn() for name, fn in fns.items()}, protocol=(warmup, passes, progress))
        one = latency.Latency(1.0, 1.0, 1.0, 1.0, passes, warmup)
        return latency.Timings(dict.fromkeys(fns, one), 1.0, None, None, None, ())

    monkeypatch.setattr(latency, "measure_interleaved", measure)
    shapes = []
    forward = ptq.FakeQuantize.forward
    monkeypatch.setattr(ptq.FakeQuantize, "forward", lambda self, x: shapes.append(tuple(x.shape)) or forward(self, x))
    quide.sweep(net, images, labels, calibration, (8,), warmup=7, passes=9)
    assert timed["protocol"] == (7, 9, False)
    assert timed["8"].shape == (64, 4)
    assert shapes[-4:] == [(64, 32, 8, 8), (64, 64, 4, 4), (64, 128), (64, 4)]


def test_the_paper_s_widths_and_protocol_are_the_defaults():
    parameters = inspect.signature(quide.sweep).parameters
    assert list(parameters)[:5] == ["model", "images", "labels", "calibration", "bits"]
    assert parameters["bits"].default == (32, 16, 8, 4, 2)
    assert (parameters["warmup"].default, parameters["passes"].default) == (100, 1000)
    assert parameters["scheme"].default is quide.PAPER


def test_contract_call(monkeypatch, net, images, labels, calibration):
    measure = latency.measure_interleaved
    monkeypatch.setattr(latency, "measure_interleaved", lambda fns, *_, progress: measure(fns, 1, 2))
    table = quide.sweep(net, images, labels, calibration)
    assert list(table.bits) == [32, 16, 8, 4, 2]
    assert list(table.compression) == [1, 2, 4, 8, 16]


def test_widths_may_be_numpy_integers(net, images, labels, calibration):
    table = quide.sweep(net, images, labels, calibration, np.array([8, 4]), **QUICK)
    assert list(table.bits) == [8, 4]
    mixed = quide.sweep(net, images, labels, calibration, [np.array([8, 4, 8, 4])], **QUICK)
    assert list(mixed.bits) == [(8, 4, 8, 4)]


def test_the_scheme_is_used_and_the_model_left_alone(net, images, labels, calibration):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.train()
    tables = [
        quide.sweep(net, images, labels, calibration, (4, 3), scheme=ptq.Scheme(activation_site=site), **QUICK)
        for site in ("output", "input")
    ]
    assert list(tables[0].accuracy) != list(tables[1].accuracy)
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


# --- small helpers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "name"),
    [(8, "8"), (32, "32"), ((8, 8, 8, 4), "8-8-8-4"), ([16, 2], "16-2"), (np.int64(8), "8"), (np.array([8, 2]), "8-2")],
)
def test_label(bits, name):
    assert evaluate.label(bits) == name


def test_num_weights_counts_no_biases(net):
    assert evaluate.num_weights(net) == [9 * 32, 9 * 32 * 64, 64 * 4 * 128, 128 * 4]
    assert metric.compression_ratio(8, evaluate.num_weights(net)) == 4


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(149, dtype=torch.int64)}, "^images and labels must be of the same number.*150 and 149"),
        (
            {"images": torch.zeros(0, 1, 8, 8), "labels": torch.zeros(0)},
            "^images and labels .*at least one; got 0 and 0",
        ),
        ({"images": torch.full((150, 1, 8, 8), torch.nan)}, "^images hold NaN or infinite.*normalization"),
        ({"images": torch.zeros(150, 1, 8, 8, dtype=torch.uint8)}, "^images must be a floating-point.*uint8"),
        ({"images": np.zeros((150, 1, 8, 8))}, "^images must be a floating-point tensor"),
        ({"labels": [0] * 150}, r"^labels must be a tensor \(n,\)"),
        ({"labels": torch.zeros(150, 1, dtype=torch.int64)}, r"^labels must be a tensor \(n,\)"),
        ({"calibration": torch.zeros(0, 1, 8, 8)}, "^calibration must be"),
        ({"bits": (32, 33)}, "^bits must be whole numbers in 1..32, got 33"),
        ({"bits": (32, (8, 8))}, "^bits names 2 layers, the model has 4: conv1"),
        ({"bits": 8}, "^bits must list one or more configurations"),
        ({"bits": ()}, "^bits must list one or more configurations"),
        ({"tolerance": 30}, "^tolerance must be a fraction.*percentage"),
        ({"num_classes": 1}, "^num_classes must be an integer of at least 2"),
        ({"num_classes": 0}, "^num_classes must be an integer of at least 2"),
        ({"model": nn.ReLU()}, "^model ReLU has no .* to quantize"),
    ],
)
def test_refuses_bad_input_by_name(change, message, net, images, labels, calibration):
    arguments = {"model": net, "images": images, "labels": labels, "calibration": calibration, "bits": (32,), **change}
    with pytest.raises(ValueError, match=message):
        quide.sweep(**arguments, **QUICK)


def test_a_wrong_width_is_refused_before_anything_is_evaluated(monkeypatch, net, images, labels, calibration):
    monkeypatch.setattr(evaluate, "predict", lambda *_: pytest.fail("evaluated"))
    with pytest.raises(ValueError, match="^bits "):
        quide.sweep(net, images, labels, calibration, (32, 8, 0))
