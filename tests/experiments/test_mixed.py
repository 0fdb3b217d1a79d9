"""Mixed precision: the landscape's scores are the metric's, from records as from the networks alone."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from quide import evaluate, metric, ptq, search
from quide.data import datasets
from quide.experiments import inputs, mixed, runs
from quide.experiments.mixed import CHOICES, Landscape
from quide.experiments.recipes import SEARCHED
from quide.models import networks

SIZES = (864, 18432, 524288, 1280)
SMOKE = runs.Case("simplecnn", "cifar10", 0, "smoke")


@pytest.fixture(scope="module")
def land() -> Landscape:
    """Accuracy grows with the widths, with noise; latency is the same but for a little noise."""
    configurations = list(itertools.product(CHOICES, repeat=4))
    generator = np.random.default_rng(0)
    chance = np.array([0.1 + 0.7 * np.prod([1 - 2.0 ** -(b - 1) for b in each]) for each in configurations])
    correct = generator.random((600, 256)) < chance
    measured = 10 + generator.normal(0, 0.05, 256)
    latency, compression = mixed.additive_latency(configurations, measured), mixed._compression(configurations, None)
    right = generator.random(600) < 0.8
    return Landscape(configurations, correct, right, latency, measured, compression, SIZES, 0.3, 10)


# --- the landscape ---------------------------------------------------------------------------------------------------


def test_scores_are_the_metrics(land):
    threshold = metric.accuracy_threshold(land.reference.mean(), 0.3, 10)
    for place, bits in enumerate(land.configurations[::17]):
        place *= 17
        expected = metric.gated_index(
            metric.compression_ratio(bits), land.correct[:, place].mean(), land.latency_ms[place], threshold
        )
        assert land.fitness[bits] == pytest.approx(expected, rel=1e-12)
        weighted = land.size_weighted()
        assert weighted.compression[place] == metric.compression_ratio(bits, SIZES)
        gain = weighted.compression[place] / land.compression[place]
        assert weighted.fitness[bits] == pytest.approx(gain * land.fitness[bits])


def test_places_count_from_the_best(land):
    assert land.place(land.best) == 1
    assert sorted(land.place(bits) for bits in land.configurations if land.fitness[bits] > 0) == list(
        range(1, 1 + int((land.gated_index > 0).sum()))
    )


def test_a_subset_of_the_images_has_its_own_accuracy_and_threshold(land):
    part = land.on(np.arange(100))
    assert np.array_equal(part.accuracy, land.correct[:100].mean(0))
    assert part.threshold == metric.accuracy_threshold(land.reference[:100].mean(), 0.3, 10)


def test_equal_latency_leaves_compression_and_accuracy_to_decide(land):
    even = land.equal_latency()
    assert len(set(even.latency_ms)) == 1
    top = np.maximum(even.compression * (even.accuracy - even.threshold), 0).argmax()
    assert even.best == land.configurations[top]


def test_additive_latency_recovers_a_sum_over_layers_and_is_the_least_squares_fit(land):
    generator = np.random.default_rng(3)
    effect = [{width: generator.normal() for width in CHOICES} for _ in range(4)]
    truth = np.array([20 + sum(effect[i][b] for i, b in enumerate(bits)) for bits in land.configurations])
    assert mixed.additive_latency(land.configurations, truth) == pytest.approx(truth)
    noisy = truth + generator.normal(0, 1, 256)
    columns = [[1, *(bits[i] == b for i in range(4) for b in CHOICES)] for bits in land.configurations]
    design = np.array(columns, dtype=float)
    expected = design @ np.linalg.lstsq(design, noisy)[0]
    assert mixed.additive_latency(land.configurations, noisy) == pytest.approx(expected.clip(noisy.min(), noisy.max()))


def test_additive_latency_of_pure_noise_stays_within_what_was_measured(land):
    noise = np.full(256, 0.1)
    noise[:3] = 100  # three hiccups: the sums alone would go below zero
    fitted = mixed.additive_latency(land.configurations, noise)
    assert 0.1 <= fitted.min() and fitted.max() <= 100


def test_the_latency_can_be_the_single_measurement(land):
    assert np.array_equal(land.measured_latency().latency_ms, land.measured_ms)


# --- the runs --------------------------------------------------------------------------------------------------------


def test_a_landscape_from_records_holds_what_each_network_says_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    timed = mixed.timing(SMOKE, progress=False).result()
    known = mixed.landscape(SMOKE, timed, mixed.accuracy(SMOKE, progress=False).result())
    prepared = ptq.prepare(inputs.network(SMOKE), inputs.calibration_images(SMOKE), ptq.PAPER)
    images = inputs.test_images(SMOKE)
    for bits in (SEARCHED, (2, 16, 4, 8), (16, 16, 16, 16)):
        hits = evaluate.correct(prepared.at(bits), images).numpy()
        assert np.array_equal(known.correct[:, known.index_of(bits)], hits)
    assert known.num_weights == SIZES
    assert set(timed.values["latencies"]) == {"32", *map(evaluate.label, known.configurations)}
    assert search.exhaustive(known.fitness.__getitem__, 4).best == known.best


# --- by parts --------------------------------------------------------------------------------------------------------


def test_each_part_of_a_residual_network_has_each_width(monkeypatch):
    torch.manual_seed(0)
    network = networks.resnet20().eval()
    pixels = torch.randint(256, (12, 32, 32, 3), dtype=torch.uint8)
    test = datasets.image_set(pixels.numpy(), np.arange(12) % 10, datasets.info("cifar10"))
    calibration = torch.randn(16, 3, 32, 32)
    for name, value in (("network", network), ("test_images", test), ("calibration_images", calibration)):
        monkeypatch.setattr(inputs, name, lambda case, value=value: value)
    case = runs.Case("resnet20", "cifar10", 0, "paper")
    values = mixed.by_stages(case, images=8, choices=(8, 2)).compute()
    assert values["groups"] == ["conv1", "layer1", "layer2", "layer3", "linear"]
    assert sum(values["num_weights"]) == sum(evaluate.num_weights(network)) and values["images"] == 8
    land = mixed.staged(case, SimpleNamespace(values=values))
    assert land.configurations == list(itertools.product((8, 2), repeat=5)) and set(land.latency_ms) == {1.0}
    prepared, widths = ptq.prepare(network, calibration, ptq.PAPER), (2, 8, 2, 8, 8)
    of_layer = {
        layer: bits for layers, bits in zip(ptq.stages(network).values(), widths, strict=True) for layer in layers
    }
    whole = prepared.at([of_layer[layer] for layer in prepared.layers])
    right = evaluate.correct(whole, test.subset(slice(0, 8))).numpy()
    assert np.array_equal(land.correct[:, land.index_of(widths)], right)
