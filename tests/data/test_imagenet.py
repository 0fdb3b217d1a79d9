"""ImageNet folders: the right classes, torchvision's pixels, a checksum that notices, and memory that does not grow."""

from __future__ import annotations

import hashlib
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from imagenet_files import CLASSES, pixels, write_tree
from PIL import Image
from torchvision import transforms

from quide import evaluate
from quide.data import datasets, imagenet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
REAL = os.environ.get("QUIDE_IMAGENET")


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    return write_tree(tmp_path / "imagenet", monkeypatch, per_class=2)


def load(split="val") -> imagenet.ImageFiles:
    return imagenet.load(split, MEAN, STD)


def test_classes_are_numbered_by_their_sorted_names(tree):
    images = load()
    assert [file.parent.name for file in images.files] == [name for name in CLASSES for _ in range(2)]
    assert images.labels.tolist() == [number for number in range(len(CLASSES)) for _ in range(2)]
    assert images.files == tuple(sorted(images.files))


def test_pixels_are_torchvisions(tmp_path):
    steps = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    for number, (width, height) in enumerate([(256, 256), (341, 256), (256, 333), (500, 375), (301, 700), (90, 61)]):
        image = Image.fromarray(pixels(number, height, width))
        image.save(file := tmp_path / f"{number}.png")
        np.testing.assert_array_equal(imagenet.decode(file), np.asarray(steps(image)))


def test_grey_and_transparent_images_have_three_channels(tmp_path):
    for mode, ending in (("L", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("P", "png")):
        Image.fromarray(pixels(0, 300, 300)).convert(mode).save(file := tmp_path / f"{mode}.{ending}")
        assert imagenet.decode(file).shape == (224, 224, 3)


def test_other_formats_are_refused_whatever_their_name(tmp_path):
    """What reads PostScript starts another program."""
    Image.fromarray(pixels(0, 300, 300)).save(file := tmp_path / "a.JPEG", format="EPS")
    with pytest.raises(ValueError, match="a.JPEG cannot be read .*; put the original file there"):
        imagenet.decode(file)


def test_input_is_the_normalized_pixels_whatever_the_batch(tree):
    images = load()
    everything = images.normalized()
    assert everything.shape == (len(images), 3, 224, 224)
    scaled = torch.from_numpy(imagenet.decode(images.files[3])).permute(2, 0, 1) / 255
    expected = (scaled - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)
    torch.testing.assert_close(everything[3], expected)
    for size in (1, 4, 100):
        batches = list(images.batches(size))
        assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
        assert torch.equal(torch.cat(batches), everything)


def test_a_subset_keeps_images_with_their_labels(tree):
    images = load()
    part = images.subset(torch.tensor([5, 0]))
    assert part.files == (images.files[5], images.files[0])
    assert part.labels.tolist() == [images.labels[5], images.labels[0]]


def test_it_can_be_scored_like_an_image_set(tree):
    images = load()
    brightest = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    hits = evaluate.correct(brightest, images, 2)
    assert torch.equal(hits, images.normalized().mean((2, 3)).argmax(1) == images.labels)


def test_the_checksum_notices_contents_names_and_order(tree):
    before = load().sha256
    assert load().sha256 == before
    assert load().subset([1, 0]).sha256 != load().subset([0, 1]).sha256
    file = load().files[0]
    file.rename(file.with_name("other.JPEG"))
    assert load().sha256 != before
    file.with_name("other.JPEG").rename(file)
    assert load().sha256 == before
    file.write_bytes(file.read_bytes() + b"\0")
    assert load().sha256 != before


def test_batches_are_decoded_one_at_a_time_and_let_go(tree, monkeypatch):
    decoded, decode = [], imagenet.decode
    monkeypatch.setattr(imagenet, "decode", lambda file: decoded.append(file) or decode(file))
    alive = []
    for number, batch in enumerate(load().batches(2), start=1):
        assert len(decoded) == 2 * number
        assert not any(earlier() is not None for earlier in alive)
        alive.append(weakref.ref(batch))
        del batch


@pytest.mark.parametrize("split", ["val", "train"])
def test_an_absent_folder_is_named_with_the_remedy(split, tmp_path, monkeypatch):
    monkeypatch.delenv("QUIDE_IMAGENET", raising=False)
    with pytest.raises(FileNotFoundError, match="QUIDE_IMAGENET is not set; name the folder that holds val"):
        load(split)
    monkeypatch.setenv("QUIDE_IMAGENET", str(tmp_path))
    assert not imagenet.has(split)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} has no folder {split}; name the folder"):
        load(split)


def test_other_classes_are_refused(tree):
    (tree / "val" / CLASSES[0]).rename(tree / "val" / "n99999999")
    with pytest.raises(ValueError, match=f"{tree / 'val'} does not hold the 1,000 class folders"):
        load()


def test_an_empty_class_is_refused(tree):
    for file in (tree / "val" / CLASSES[1]).iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(ValueError, match=f"{CLASSES[1]} holds no image"):
        load()


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_image_is_named(tree, damage):
    file = load().files[2]
    file.write_bytes(file.read_bytes()[:300] if damage == "cut" else b"not an image")
    with pytest.raises(ValueError, match=f"{file} cannot be read"):
        load().normalized()


@pytest.mark.skipif(REAL is None, reason="set QUIDE_IMAGENET to a folder with ImageNet-1K")
def test_the_real_class_folders_are_known():
    images = load()
    assert len(set(images.labels.tolist())) == imagenet.CLASSES
    assert images.labels.max() == imagenet.CLASSES - 1
    assert datasets.calibration_indices(len(images), 2, 0).max() < len(images)
    names = "".join(f"{name} " for name in sorted({file.parent.name for file in images.files}))
    assert hashlib.sha256(names.encode()).hexdigest() == imagenet.WNIDS_SHA256
