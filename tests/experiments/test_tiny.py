"""MLPerf Tiny's ResNet-8: only the published files are run, and their input is laid on the grid that they name."""

from pathlib import Path

import numpy as np
import pytest

from quide.data import embedded
from quide.experiments import tiny
from quide.experiments.compute import tiny as compute

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "mlperf-tiny-resnet8"


@pytest.fixture
def published(monkeypatch):
    """The published files, where they lie beside the checkout."""
    pytest.importorskip("ai_edge_litert")
    if not FOLDER.is_dir():
        pytest.skip(f"{FOLDER} is not there")
    monkeypatch.setenv("QUIDE_DATA", str(FOLDER))


def test_a_missing_file_is_asked_for_with_its_address(monkeypatch, tmp_path):
    monkeypatch.setenv("QUIDE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"pretrainedResnet.tflite is not in QUIDE_DATA; take it from https://"):
        tiny.files(tiny.TinyCase()).compute()


def test_another_file_of_that_name_is_refused(monkeypatch, tmp_path):
    (tmp_path / "pretrainedResnet.tflite").write_bytes(b"another network")
    monkeypatch.setenv("QUIDE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="pretrainedResnet.tflite .*SHA-256.*; take it again from https://"):
        tiny.files(tiny.TinyCase()).compute()


def test_the_two_files_score_what_the_benchmark_asks_for(published):
    images = embedded.load("cifar10", "test").subset(slice(0, 1000))
    right = {}
    for bits, name in tiny.FILES.items():
        network = compute._Network(compute._content(name), 100, threads=1)
        right[bits] = network.classes(images.images.permute(0, 2, 3, 1).numpy()) == images.labels.numpy()
    assert all(hits.mean() > 0.8 for hits in right.values())  # the benchmark's floor is 85 % of all test images
    assert (right["32"] == right["8"]).mean() > 0.95


def test_eight_bits_are_given_pixels_less_128(published):
    network = compute._Network(compute._content(tiny.FILES["8"]), 1, threads=1)
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(1, 32, 32, 3)
    network.give(pixels)
    laid = network.interpreter.get_tensor(network.given["index"])
    assert np.array_equal(laid, (pixels.astype(int) - 128).astype(np.int8))
