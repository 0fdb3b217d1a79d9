"""Loading, normalizing and drawing from image sets."""

import dataset_files
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file

from quide.data import datasets


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A small MNIST in a cache of its own; the arrays of its splits."""
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path))
    splits = dataset_files.splits("mnist")
    monkeypatch.setitem(datasets.INFO, "mnist", dataset_files.facts("mnist", splits))
    for split, (images, labels) in splits.items():
        keep(split, images, labels)
    return splits


def keep(split, images, labels):
    file = datasets.split_file("mnist", split)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"images": images, "labels": labels}, file)
    return file


def test_load_gives_the_arrays_in_channels_last(mnist):
    for split, (images, labels) in mnist.items():
        loaded = datasets.load("mnist", split)
        assert (len(loaded), loaded.images.dtype, loaded.labels.dtype) == (len(labels), torch.uint8, torch.int64)
        assert loaded.images.permute(0, 2, 3, 1).is_contiguous()
        np.testing.assert_array_equal(loaded.images.permute(0, 2, 3, 1).numpy(), images)
        np.testing.assert_array_equal(loaded.labels.numpy(), labels)


def test_a_split_that_is_absent_names_the_command(mnist):
    datasets.split_file("mnist", "test").unlink()
    with pytest.raises(FileNotFoundError, match="run: quide data fetch mnist"):
        datasets.load("mnist", "test")


@pytest.mark.parametrize("damage", ["pixel", "label", "cut", "text", "keys"])
def test_a_damaged_split_is_refused_by_its_file(mnist, damage):
    images, labels = (array.copy() for array in mnist["test"])
    file = datasets.split_file("mnist", "test")
    if damage == "pixel":
        images[3, 4, 5] ^= 1
        keep("test", images, labels)
    elif damage == "label":
        labels[0] = (labels[0] + 1) % 10
        keep("test", images, labels)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "text":
        file.write_text("<html>404</html>")
    else:
        save_file({"pixels": images}, file)
    with pytest.raises(ValueError, match=rf"{file}.*quide data fetch mnist"):
        datasets.load("mnist", "test")


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="dataset must be one of mnist, cifar10, cifar100, got 'imagenet'"):
        datasets.load("imagenet", "test")
    with pytest.raises(ValueError, match="split must be one of train, test, got 'validation'"):
        datasets.load("mnist", "validation")


@pytest.mark.parametrize("name", datasets.INFO)
def test_facts_agree_with_one_another(name):
    facts = datasets.info(name)
    assert facts.name == name
    assert len(facts.mean) == len(facts.std) == facts.channels
    assert facts.sizes.keys() == facts.sha256.keys() == {"train", "test"}


def test_digest_is_of_the_values_in_order():
    images, labels = dataset_files.splits("cifar10")["test"]
    pinned = datasets.digest(images, labels)
    planar = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    assert datasets.digest(planar, labels.astype(np.int64)) == pinned
    assert datasets.digest(images[::-1], labels[::-1]) != pinned
    assert datasets.digest(images, labels[::-1]) != pinned


@settings(max_examples=25, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(3), st.integers(1, 5), st.integers(1, 5))),
    st.tuples(*[st.floats(0, 1)] * 3),
    st.tuples(*[st.floats(0.05, 1)] * 3),
)
def test_normalize_is_the_arithmetic_of_torchvision(pixels, mean, std):
    from torchvision.transforms import v2

    usual = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    images = torch.from_numpy(pixels)
    ours = datasets.normalize(images, mean, std)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    for image, one in zip(images, ours, strict=True):
        torch.testing.assert_close(one, usual(image.permute(1, 2, 0).numpy()), rtol=1e-5, atol=1e-5)


def test_normalize_leaves_its_input_alone():
    images = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    before = images.clone()
    datasets.normalize(images, (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(images, before)


def test_normalize_needs_a_mean_and_a_deviation_a_channel():
    with pytest.raises(ValueError):
        datasets.normalize(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), (0.5,) * 3, (0.5,))


def test_an_image_set_is_taken_apart_by_index(mnist):
    whole = datasets.load("mnist", "test")
    chosen = whole.subset(torch.tensor([5, 2]))
    assert torch.equal(chosen.images, whole.images[[5, 2]])
    assert torch.equal(chosen.labels, whole.labels[[5, 2]])
    assert torch.equal(whole.normalized(slice(2, 4)), whole.normalized()[2:4])
    assert torch.equal(whole.to("cpu").images, whole.images)


@given(st.integers(1, 500), st.data())
def test_a_calibration_draw_is_distinct_and_of_its_seed(count, data):
    size, seed = data.draw(st.integers(1, count)), data.draw(st.integers(0, 2**32 - 1))
    drawn = datasets.calibration_indices(count, size, seed)
    assert len(drawn) == len(set(drawn.tolist())) == size
    assert 0 <= drawn.min() and drawn.max() < count
    assert torch.equal(drawn, datasets.calibration_indices(count, size, seed))


def test_calibration_draws_of_different_seeds_differ():
    draws = {tuple(datasets.calibration_indices(60_000, 512, seed).tolist()) for seed in range(20)}
    assert len(draws) == 20


def test_calibration_draws_are_uniform():
    """Each of 100 indices is drawn about 500 times in 1,000 draws of 50; one deviating by 6 sigma is no accident."""
    counts = torch.zeros(100)
    for seed in range(1_000):
        counts[datasets.calibration_indices(100, 50, seed)] += 1
    assert (counts - 500).abs().max() < 6 * (1_000 * 0.5 * 0.5) ** 0.5


@pytest.mark.parametrize("size", [0, -1, 101])
def test_a_calibration_draw_of_impossible_size_is_refused(size):
    with pytest.raises(ValueError, match=f"size must be between 1 and the 100 images there are, got {size}"):
        datasets.calibration_indices(100, size, 0)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_real_test_split_has_its_class_counts(name):
    """A published fact that the pinned digest does not state: CIFAR-10 is balanced, MNIST's counts are known."""
    if not datasets.split_file(name, "test").exists():
        pytest.skip(f"{name} has not been fetched")
    counts = torch.bincount(datasets.load(name, "test").labels).tolist()
    assert counts == {"mnist": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], "cifar10": [1000] * 10}[name]
