"""Runs on a small ImageNet folder with a small network: records hold what each quantized network says alone."""

from __future__ import annotations

import itertools

import imagenet_files
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from quide import evaluate, latency, metric, ptq
from quide.data.datasets import normalize
from quide.evaluate import label
from quide.experiments import imagenet_runs, kernels, records
from quide.experiments.compute import imagenet as computed
from quide.experiments.compute import kernels as computed_kernels
from quide.experiments.imagenet_runs import SCHEMES, SEARCHED, ImageNetCase
from quide.experiments.measured import KINDS
from quide.models import pretrained
from quide.stats import unpack_bits

SEED = 7  # whose answers differ between the widths
IMAGES = 6  # two for each of three classes


class Small(nn.Module):
    """The six groups' names, and little behind them."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 7, stride=8)
        self.layer1 = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.layer2, self.layer3, self.layer4 = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, stride=2), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1(images))
        x = torch.relu(self.layer2(torch.relu(self.layer1(x))))
        x = torch.relu(self.layer4(torch.relu(self.layer3(x))))
        return self.fc(x.mean((2, 3)))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Its logits are centred on the images, so that not all of them fall to one class."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = Small().eval()
    shown = [imagenet_files.pixels(10 * label + number, 224, 224) for label in range(3) for number in range(2)]
    facts = pretrained.NETWORKS["resnet50"]
    inputs = normalize(torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2), facts.mean, facts.std)
    with torch.no_grad():
        model.fc.bias -= model(inputs).mean(0)
    return model


@pytest.fixture
def small(model, tmp_path, monkeypatch):
    """The small network in ResNet-50's place, a folder of six images, and no records."""
    monkeypatch.setitem(pretrained.WEIGHTS, "resnet50", lambda *_: model.state_dict())
    monkeypatch.setitem(pretrained.EMPTY, "resnet50", Small)
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path / "results"))
    return imagenet_files.write_tree(tmp_path / "imagenet", monkeypatch, per_class=IMAGES // 3)


def alone(case: ImageNetCase, bits, scheme: ptq.Scheme = ptq.PAPER) -> np.ndarray:
    """Which images are right, by the public function on its own."""
    quantized = ptq.quantize(case.network, bits, case.calibrated_on.normalized(), scheme)
    return evaluate.correct(quantized, case.tested).numpy()


def by_layer(widths) -> list[int]:
    """One width a layer from one a group; the second group has two layers."""
    return [widths[0], widths[1], *widths[1:]]


def test_accuracy_is_that_of_each_network_alone(small):
    case = ImageNetCase("resnet50")
    record = imagenet_runs.accuracy(case).result()
    for bits, name in ((32, "32"), (4, "4"), (2, "2"), (by_layer(SEARCHED), label(SEARCHED))):
        hits = alone(case, bits)
        assert np.array_equal(unpack_bits(record.values["correct"][name]), hits)
        assert record.values["accuracy"][name] == hits.mean()
    assert record.values["images"] == IMAGES
    assert record.values["groups"] == ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert record.values["num_weights"] == [882, 432 + 64, 576, 576, 576, 24]
    assert unpack_bits(record.values["calibrated_on"]).all()
    assert record.spec.details["calibration_split"] == "val"


def test_calibration_takes_training_images_where_there_are_some(small, monkeypatch, tmp_path):
    without = imagenet_runs.accuracy(ImageNetCase("resnet50"))
    imagenet_files.write_tree(tmp_path / "both", monkeypatch, per_class=2, splits=("val", "train"))
    case = ImageNetCase("resnet50")
    run = imagenet_runs.accuracy(case)
    assert run.spec.details["calibration_split"] == "train"
    assert all(file.parent.parent.name == "train" for file in case.calibrated_on.files)
    assert run.spec.key != without.spec.key
    assert not unpack_bits(run.result().values["calibrated_on"]).any()


def test_other_images_seeds_and_numbers_of_images_are_other_runs(small):
    keys = {imagenet_runs.accuracy(ImageNetCase("resnet50", *rest)).spec.key for rest in ((0,), (1,), (0, 3))}
    file = ImageNetCase("resnet50").tested.files[0]
    file.write_bytes(file.read_bytes() + b"\0")
    changed = imagenet_runs.accuracy(ImageNetCase("resnet50"))
    assert len(keys | {changed.spec.key}) == 4
    assert changed.data.split()[0] == ImageNetCase("resnet50").tested.sha256


def test_fewer_images_are_spread_over_the_classes(small):
    assert ImageNetCase("resnet50", images=3).tested.labels.tolist() == [0, 1, 2]
    assert ImageNetCase("resnet50", images=IMAGES).tested.files == ImageNetCase("resnet50").tested.files


def test_it_is_scored_and_timed_in_real_kernels_too(small, monkeypatch):
    monkeypatch.setattr(computed_kernels, "WIDTHS", {"PyTorch": ("32",)})
    monkeypatch.setattr(latency, "wait_for_quiet", lambda seconds, progress: True)
    scored, *timed = [run for run in kernels.wanted() if run.spec.model == "resnet50"]
    assert {run.spec.kind for run in timed} == {"kernel_latency"} and len(timed) == 4  # batches and threads
    values = scored.result().values
    for bits, name in ((32, "32, PyTorch"), (8, kernels.SIMULATED)):
        assert np.array_equal(unpack_bits(values["correct"][name]), alone(ImageNetCase("resnet50"), bits))
    assert set(timed[-1].result().values["latencies"]) == {"32, PyTorch", kernels.SIMULATED}
    monkeypatch.delenv("QUIDE_IMAGENET")
    assert not [run for run in kernels.wanted() if run.spec.model == "resnet50"]


@pytest.mark.parametrize(
    ("arguments", "named"), [(("vgg",), "model"), (("resnet50", 0, 0), "images"), (("resnet50", 0, 7), "at most the 6")]
)
def test_a_wrong_case_is_refused_by_name(small, arguments, named):
    with pytest.raises(ValueError, match=named):
        imagenet_runs.accuracy(ImageNetCase(*arguments))


def test_one_calibration_does_for_all_quantizers(small):
    case = ImageNetCase("resnet50")
    values = imagenet_runs.quantizers(case).result().values
    assert values["accuracy"].keys() == {"32", *(f"{name}, {bits}" for name in SCHEMES for bits in (8, 4))}
    for name, scheme in SCHEMES.items():
        hits = alone(case, 4, scheme)
        assert np.array_equal(unpack_bits(values["correct"][f"{name}, 4"]), hits), name
    assert [scheme for scheme in SCHEMES.values() if scheme == ptq.PAPER] == [SCHEMES["paper"]]


def test_runs_of_the_same_images_share_a_calibration(small, monkeypatch):
    calibrated, prepare = [], ptq.prepare
    monkeypatch.setattr(ptq, "prepare", lambda *given: calibrated.append(given[2]) or prepare(*given))
    imagenet_runs._observed.cache_clear()
    for images in (None, 3):
        case = ImageNetCase("resnet50", 5, images)
        imagenet_runs.accuracy(case).result(), imagenet_runs.quantizers(case).result()
    assert [scheme.activation_range for scheme in calibrated] == ["minmax", "mse"]
    imagenet_runs.accuracy(ImageNetCase("resnet50", 6)).result()
    assert len(calibrated) == 3


def explored(record: records.Record) -> dict[str, np.ndarray]:
    names = record.values["configurations"]
    correct = unpack_bits(record.values["correct"]).reshape(record.values["images"], len(names))
    assert correct.mean(0).tolist() == record.values["accuracy"]
    return dict(zip(names, correct.T, strict=True))


def test_every_configuration_is_that_of_its_network_alone(small):
    case = ImageNetCase("resnet50")
    found = explored(record := imagenet_runs.mixed(case, "exhaustive", choices=(8, 2)).result())
    assert list(found) == [label(widths) for widths in itertools.product((8, 2), repeat=6)]
    for widths in ((8, 8, 8, 8, 8, 2), (2, 8, 2, 8, 8, 8), (8, 2, 2, 2, 2, 8)):
        assert np.array_equal(found[label(widths)], alone(case, by_layer(widths))), widths
    assert record.values["full_precision_accuracy"] == alone(case, 32).mean()


def test_the_genetic_search_records_what_it_evaluates(small, monkeypatch):
    case, asked = ImageNetCase("resnet50", 1), []
    index = metric.gated_index
    monkeypatch.setattr(metric, "gated_index", lambda *given: asked.append(given) or index(*given))
    found = explored(imagenet_runs.mixed(case, population=4, generations=2).result())
    uniform = [label((bits,) * 6) for bits in (16, 8, 4, 2)]
    assert list(found)[:4] == uniform and len(found) <= 4 + 4 + 2 * 3
    for name in (uniform[2], list(found)[-1]):
        assert np.array_equal(found[name], alone(case, by_layer([int(bits) for bits in name.split("-")])))
    assert {latency for _, _, latency, _ in asked} == {1.0}


def test_mixed_precision_refuses_another_method(small):
    with pytest.raises(ValueError, match="method must be genetic or exhaustive"):
        imagenet_runs.mixed(ImageNetCase("resnet50"), "random")


def test_the_cost_of_the_tree_is_counted_in_forward_passes(model):
    assert computed.tree_passes(model, (8,)) == 1
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model(torch.zeros(1, 3, 224, 224))
    counts = [sum(counter.get_flop_counts()[f"Small.{name}"].values()) for name in ptq.stages(model)]
    expected = sum(4 ** (k + 1) * count for k, count in enumerate(counts)) / sum(counts)
    assert computed.tree_passes(model) == pytest.approx(expected)
    assert not any(part._forward_hooks for part in model.modules())


def test_a_record_of_other_code_is_stale():
    codes = {kind: KINDS[kind].digest("resnet18") for kind in (imagenet_runs.ACCURACY, imagenet_runs.MIXED)}
    assert codes[imagenet_runs.ACCURACY] != codes[imagenet_runs.MIXED]
