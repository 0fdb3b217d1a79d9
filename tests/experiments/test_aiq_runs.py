"""Measurements of AIQ: shared starts give what whole networks give, and what is searched is what is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from quide import ptq
from quide.data import embedded
from quide.experiments import aiq
from quide.experiments.compute import aiq as computing
from quide.models import aiq as published
from quide.models import networks
from quide.ptq import rounding
from quide.stats import unpack_bits


@pytest.fixture
def images():
    return embedded.load("cifar10", "test").subset(slice(0, 40))


@pytest.fixture(params=[True, False], ids=["projections", "padded skips"])
def model(request):
    torch.manual_seed(0)
    return networks.resnet20(projections=request.param).eval()


def test_configurations_that_share_their_start_are_classified_as_whole_networks_are(model, images, monkeypatch):
    monkeypatch.setattr(computing, "PART", 16)
    layers = computing.traffic(model).layers
    assert len(layers) == 20
    configurations = [(32,) * 20, (4,) * 20, (4,) * 10 + (32,) * 10, (32,) * 19 + (2,), (4,) * 9 + (2,) + (8,) * 10]
    found = computing.tested(model, layers, images, configurations)
    for widths, hits in zip(configurations, found, strict=True):
        whole = networks.resnet20(projections=hasattr(model.layer2[0].downsample[0], "weight")).eval()
        whole.load_state_dict(model.state_dict())
        for name, bits in zip(layers, widths, strict=True):
            layer = whole.get_submodule(name)
            layer.weight = torch.nn.Parameter(rounding.round_weight(layer.weight.detach(), bits, "channel"))
        predicted = torch.cat([whole(images.normalized(slice(a, min(a + 16, 40)))).argmax(1) for a in range(0, 40, 16)])
        assert torch.equal(hits, predicted == images.labels)


def test_activations_kept_stay_within_their_bounds(model, images, monkeypatch):
    layers = computing.traffic(model).layers
    shared = computing.SharedStarts(model, layers, images)
    everything = shared.correct((4,) * 20), shared.correct((4,) * 12 + (8,) * 8)
    monkeypatch.setattr(computing, "KEPT_BYTES", 40 * 16 * 32 * 32 * 4 * 2)
    tight = computing.SharedStarts(model, layers, images)
    assert torch.equal(tight.correct((4,) * 20), everything[0])
    assert torch.equal(tight.correct((4,) * 12 + (8,) * 8), everything[1])
    kept = [batch.nbytes for state in tight.kept.values() for batch in state]
    assert sum(kept) <= computing.KEPT_BYTES


def test_traffic_is_the_published_count():
    counted = computing.traffic(networks.resnet20(projections=True))
    assert counted.flops == 81_626_368 and sum(counted.num_weights) == 268_336
    assert counted.bytes(counted.uniform(32)) == 2_734_608
    greedy = [8 if name in THEIR_EIGHT else 4 for name in counted.layers]
    assert counted.bytes(greedy) == 1_804_032
    gain = counted.intensity(counted.uniform(4), 64) / counted.intensity(counted.uniform(32), 64) - 1
    assert round(100 * gain, 1) == 0.9


THEIR_EIGHT = {
    "conv1", "layer1.0.conv1", "layer1.1.conv1", "layer1.1.conv2", "layer1.2.conv1", "layer1.2.conv2",
    "layer2.0.conv1", "linear",
}  # fmt: skip


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("method", aiq.METHODS)
def test_a_search_reports_what_it_found_on_images_it_did_not_select_by(model, images, method, split, monkeypatch):
    monkeypatch.setattr(computing, "network", lambda case: model)
    monkeypatch.setattr(computing, "images", lambda case, split: images if split == "test" else replace(images))
    monkeypatch.setattr(computing, "CHOICES", (32, 4))
    values = computing.search(aiq.AiqCase(aiq.OURS), method, "authors", 8, split)
    counted = aiq.Traffic(**values["traffic"])
    assert set(values["found"]) <= {32, 4} and [values["found"]] in [
        [widths] for widths, _, fitness in values["evaluated"] if fitness == values["fitness"]
    ]
    fresh = torch.from_numpy(unpack_bits(values["tested_on"]))
    assert fresh.sum() == values["images"] == (32 if split == "test" else 40)
    rounded = computing.tested(model, counted.layers, images.subset(fresh), [tuple(values["found"])])
    assert values["accuracy"]["found"] == rounded.double().mean()
    if method == "exhaustive":
        assert len(values["evaluated"]) == len(values["tested"]) == 2 ** len(aiq.GROUPS)


def test_what_is_wrong_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="model must be aiq-resnet20 or resnet20"):
        aiq.AiqCase("resnet18")
    with pytest.raises(ValueError, match="method must be one of greedy"):
        aiq.search(aiq.AiqCase(aiq.OURS), "annealing")
    monkeypatch.delenv("QUIDE_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="resnet20_cifar10_best.safetensors is not in QUIDE_DATA"):
        published.load()
    (tmp_path / "resnet20_cifar10_best.safetensors").write_bytes(b"broken")
    monkeypatch.setenv("QUIDE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="best.safetensors cannot be read .*; convert it again"):
        published.load()
    (tmp_path / "resnet20_cifar10_best.safetensors").unlink()
    (tmp_path / "resnet20_cifar10_best.safetensors").symlink_to("/dev/zero")  # a pipe would be waited for
    with pytest.raises(ValueError, match="not a regular file"):
        published.load()


def test_another_networks_weights_are_refused(monkeypatch, tmp_path):
    from safetensors.torch import save_file

    state = networks.resnet20(projections=True).state_dict()
    save_file(
        {name: values.contiguous() for name, values in state.items()}, tmp_path / "resnet20_uniform_int8.safetensors"
    )
    monkeypatch.setenv("QUIDE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="does not hold the published weights"):
        published.load("uniform_int8")


def test_share_of_equal_weights():
    full, other = networks.resnet20().eval(), networks.resnet20().eval()
    other.load_state_dict(full.state_dict())
    layers = ptq.quantizable_layers(full)
    for name in layers:
        layer = other.get_submodule(name)
        layer.weight.data = rounding.round_weight(layer.weight.data, 4, "channel")
    assert computing.same_weights(full, other, layers, [4] * 20) == 1
    assert computing.same_weights(full, other, layers, [8] * 20) < 0.5
    assert computing.widths_of(full, other, layers) == (4,) * 20
