"""The decoders of published files: exact on whole files, a ValueError on every other kind of bytes."""

import json

import dataset_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from quide.data import published

PIXELS = st.integers(1, 4).flatmap(lambda n: arrays(np.uint8, (n, 32, 32, 3)))


@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_idx_images_come_back_with_a_channel_axis(images):
    decoded, labels = published.idx(dataset_files.idx(images))
    assert labels is None
    np.testing.assert_array_equal(decoded, images[..., None])


@given(arrays(np.uint8, st.integers(0, 50)))
def test_idx_labels_come_back(labels):
    images, decoded = published.idx(dataset_files.idx(labels))
    assert images is None
    np.testing.assert_array_equal(decoded, labels)


@given(st.data())
def test_an_idx_file_cut_or_lengthened_is_refused(data):
    whole = dataset_files.idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    cut = data.draw(st.integers(0, len(whole) - 1))
    for broken in (whole[:cut], whole + b"\0"):
        with pytest.raises(ValueError, match="bytes"):
            published.idx(broken)


@given(st.binary(max_size=64))
def test_idx_raises_nothing_but_value_error(data):
    try:
        published.idx(data)
    except ValueError:
        return
    assert data[:3] == b"\x00\x00\x08"


@settings(max_examples=20, deadline=None)
@given(PIXELS, st.booleans(), st.data())
def test_every_cifar_form_gives_the_same_arrays(images, coarse, data):
    labels = data.draw(arrays(np.uint8, len(images)))
    split = {"test": (images, labels)}
    name = "fine_labels" if coarse else "labels"
    file = "test" if coarse else "test_batch"
    pickled = dataset_files.cifar_python(split | {"train": (images, labels)}, name)[file]
    binary = dataset_files.cifar_binary(split | {"train": (images, labels)}, coarse)[f"{file}.bin"]
    for decoded in (published.cifar_pickle(pickled, name), published.cifar_binary(binary, 2 if coarse else 1)):
        np.testing.assert_array_equal(decoded[0], images)
        np.testing.assert_array_equal(decoded[1], labels)
        assert decoded[0].dtype == decoded[1].dtype == np.uint8
    rows, none = published.png_rows(dataset_files.png(images.reshape(len(images), -1, 3)))
    assert none is None
    np.testing.assert_array_equal(rows, images)


@given(st.integers(0, 3 * 3073).filter(lambda size: size % 3073 or not size))
def test_a_cifar_binary_of_part_of_a_record_is_refused(size):
    with pytest.raises(ValueError, match="3073-byte records"):
        published.cifar_binary(bytes(size))


@settings(deadline=None)
@given(st.floats(0, 0.9))
def test_a_cut_png_is_refused(part):
    whole = dataset_files.png(np.random.default_rng(0).integers(0, 256, (2, 1024, 3), dtype=np.uint8))
    with pytest.raises((OSError, SyntaxError, ValueError)):
        published.png_rows(whole[: int(part * len(whole))])


def test_a_png_of_another_width_is_refused():
    with pytest.raises(ValueError, match="is 32 x 32 pixels where a row of one image has 1024"):
        published.png_rows(dataset_files.png(np.zeros((32, 32, 3), np.uint8)))


@pytest.mark.parametrize("labels", [[256], [-1], ["cat"], {"a": 1}, [None], [[1], [2, 3]]])
def test_json_that_is_no_list_of_labels_is_refused(labels):
    with pytest.raises((ValueError, TypeError, OverflowError)):
        published.json_labels(json.dumps(labels).encode())


def test_json_labels():
    images, labels = published.json_labels(b"[3, 8, 255]")
    assert images is None
    np.testing.assert_array_equal(labels, np.array([3, 8, 255], np.uint8), strict=True)
