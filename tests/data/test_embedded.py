"""The embedded images: the real ones, complete, small, and refused when they are not."""

import shutil
from dataclasses import replace

import dataset_files
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from quide import _paths
from quide.data import datasets, embedded
from tools import make_embedded

PARTS = [(name, part) for name in embedded.PARTS for part in embedded.PARTS[name]]
every_part = pytest.mark.parametrize(("name", "part"), PARTS)


@every_part
def test_a_part_is_what_its_entry_says(name, part):
    facts, spec = datasets.info(name), embedded.PARTS[name][part]
    images = embedded.load(name, part)
    assert images.images.shape == (spec.count, facts.channels, facts.image_size, facts.image_size)
    assert images.images.permute(0, 2, 3, 1).is_contiguous()
    assert (images.images.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
    assert set(images.labels.tolist()) == set(range(10))
    assert (images.mean, images.std) == (facts.mean, facts.std)


@every_part
def test_a_part_is_taken_from_the_full_split(name, part):
    if not datasets.split_file(name, embedded.PARTS[name][part].split).exists():
        pytest.skip(f"{name} has not been fetched")
    full, ours = embedded.select(name, part), embedded.load(name, part)
    assert torch.equal(ours.images, full.images)
    assert torch.equal(ours.labels, full.labels)


def test_the_whole_test_split_of_mnist_is_embedded():
    assert embedded.PARTS["mnist"]["test"].sha256 == datasets.INFO["mnist"].sha256["test"]


def test_calibration_images_are_all_different():
    for name in embedded.PARTS:
        images = embedded.load(name, "calibration").images
        assert len(images.flatten(1).unique(dim=0)) == len(images) == 1_024


def test_the_files_fit_the_budget():
    total = sum(file.stat().st_size for name, part in PARTS for file in embedded.files(name, part))
    assert total < 6_000_000, "with two checkpoints the embedded data must stay below 10 MB"


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="dataset must be one of mnist, cifar10, cifar100, got 'svhn'"):
        embedded.load("svhn", "test")
    with pytest.raises(
        ValueError, match="cifar100 has no embedded images, .*mnist, cifar10.*quide data fetch cifar100"
    ):
        embedded.load("cifar100", "test")
    with pytest.raises(ValueError, match="part must be one of test, calibration, got 'train'"):
        embedded.load("mnist", "train")


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The embedded CIFAR-10 calibration pool in another checkout, to be spoilt; its picture and labels."""
    (tmp_path / "data" / "embedded").mkdir(parents=True)
    originals = embedded.files("cifar10", "calibration")
    monkeypatch.setenv("QUIDE_HOME", str(tmp_path))
    return [shutil.copy(file, _paths.embedded() / file.name) for file in originals]


@pytest.mark.parametrize("damage", ["cut", "text", "pixel", "size", "labels", "labels cut", "labels pickled"])
def test_a_damaged_file_is_refused_by_name(copy, damage):
    picture, labels = copy
    victim = labels if "labels" in damage else picture
    if "cut" in damage:
        victim.write_bytes(victim.read_bytes()[:-100])
    elif damage == "text":
        picture.write_text("version https://git-lfs.github.com/spec/v1")
    elif damage == "labels":
        np.save(labels, np.roll(np.load(labels), 1))
    elif damage == "labels pickled":
        np.save(labels, np.array([{}] * 1_024), allow_pickle=True)
    else:
        pixels = np.asarray(Image.open(picture)).copy()
        pixels[5, 7, 1] ^= 1
        Image.fromarray(pixels if damage == "pixel" else pixels[32:]).save(picture, "WEBP", lossless=True, quality=0)
    with pytest.raises(ValueError, match=f"{victim.name}.*restore it with: git checkout -- ") as caught:
        embedded.load("cifar10", "calibration")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_file_is_named(copy, which):
    copy[which].unlink()
    with pytest.raises(FileNotFoundError, match=f"{copy[which]} is missing; .*QUIDE_HOME"):
        embedded.load("cifar10", "calibration")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Small full splits in a cache, a checkout to build in, and entries for parts of them; the arrays."""
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("QUIDE_HOME", str(tmp_path / "checkout"))
    from safetensors.numpy import save_file

    (tmp_path / "cache" / "datasets").mkdir(parents=True)
    splits = {name: dataset_files.splits(name) for name in embedded.PARTS}
    entries = {}
    for name, arrays_ in splits.items():
        monkeypatch.setitem(datasets.INFO, name, dataset_files.facts(name, arrays_))
        for split, (images, labels) in arrays_.items():
            save_file({"images": images, "labels": labels}, datasets.split_file(name, split))
        drawn = datasets.calibration_indices(len(arrays_["train"][1]), 10, embedded.POOL_SEED).numpy()
        entries[name] = {
            "test": embedded.Part("test", False, 6, 3, datasets.digest(*(array[:6] for array in arrays_["test"]))),
            "calibration": embedded.Part(
                "train", True, 10, 5, datasets.digest(*(array[drawn] for array in arrays_["train"]))
            ),
        }
    monkeypatch.setattr(embedded, "PARTS", entries)
    return splits


def test_build_writes_what_load_reads(small):
    written = make_embedded.build()
    assert sorted(written) == sorted(_paths.embedded().iterdir())
    for name, splits in small.items():
        images, labels = splits["test"]
        test = embedded.load(name, "test")
        np.testing.assert_array_equal(test.images.permute(0, 2, 3, 1).numpy(), images[:6])
        np.testing.assert_array_equal(test.labels.numpy(), labels[:6])
        pool, drawn = embedded.load(name, "calibration"), embedded.select(name, "calibration")
        assert torch.equal(pool.images, drawn.images) and torch.equal(pool.labels, drawn.labels)


def test_build_writes_the_same_bytes_again(small):
    before = [file.read_bytes() for file in make_embedded.build()]
    assert [file.read_bytes() for file in make_embedded.build()] == before


def test_build_refuses_images_that_are_not_pinned(small, monkeypatch):
    entries = embedded.PARTS["mnist"]
    monkeypatch.setitem(entries, "test", replace(entries["test"], sha256="0" * 64))
    with pytest.raises(ValueError, match="PARTS pins other mnist test images"):
        make_embedded.build()
    assert not _paths.embedded().exists()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(["mnist", "cifar10"]), st.data())
def test_any_picture_is_lossless(tmp_path_factory, rows, columns, name, data):
    facts = datasets.INFO[name]
    shape = (rows * columns, facts.image_size, facts.image_size, facts.channels)
    images = data.draw(arrays(np.uint8, shape))
    file = tmp_path_factory.getbasetemp() / "picture.webp"
    file.write_bytes(make_embedded.webp(images, columns))
    spec = embedded.Part("test", False, rows * columns, columns, "")
    np.testing.assert_array_equal(embedded._read_picture(file, spec, facts), images)
