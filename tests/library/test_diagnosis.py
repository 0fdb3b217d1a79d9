"""Planted faults are found by layer and cause; sensitivity against networks quantized one by one."""

from __future__ import annotations

import copy
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import quide
from quide import cli, evaluate, stats
from quide.cli import debugging
from quide.diagnosis import ROUNDED, plot
from quide.ptq import prepared
from quide.ptq.prepared import META


class Small(nn.Module):
    """Two convolutions and a linear layer; its own answers are the labels, so that full precision is right."""

    def __init__(self, norm=False):
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12) if norm else nn.Identity()
        self.second = nn.Conv2d(12, 12, 3, padding=1)
        self.last = nn.Linear(12 * 16, 10)

    def forward(self, images):
        hidden = torch.relu(self.norm(torch.relu(self.first(images))))
        return self.last(torch.relu(self.second(hidden)).flatten(1))


def small(norm=False):
    torch.manual_seed(0)
    return Small(norm).eval()


def data(model, count=300):
    generator = torch.Generator().manual_seed(1)
    images, calibration = (torch.randn(size, 1, 4, 4, generator=generator) for size in (count, 64))
    return images, evaluate.predict(model, [images]), calibration


def outlier():
    """Channel 5 of the first layer times 100, which the second undoes: the same function."""
    model = small()
    with torch.no_grad():
        model.first.weight[5] *= 100
        model.first.bias[5] *= 100
        model.second.weight[:, 5] /= 100
    return model


def norm_after_relu():
    """A batch norm that no convolution can take in: it evens out what the first layer's channels differ by."""
    model, factors = small(norm=True), torch.logspace(0, 2, 12)
    with torch.no_grad():
        model.first.weight *= factors[:, None, None, None]
        model.first.bias *= factors
        model.norm.weight /= factors
    return model


def diagnosed(model, bits=4, **options):
    found = quide.diagnose(model, *data(model), bits, **options)
    assert_numbers_are_in_the_report(found)
    return found


def assert_numbers_are_in_the_report(found):
    """Every number of the sentence, but the widths and constants of its words, is one of the report's."""
    report = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    report.pop("diagnosis")
    values = [value for value in leaves(report) if isinstance(value, (int, float)) and not isinstance(value, bool)]
    shown = {text for value in values for text in (f"{100 * value:.1f}", f"{value:.0f}", f"{value:.3g}", str(value))}
    for number in re.findall(r"-?\d+(?:\.\d+)?", found.sentence.replace("32 bits", "")):
        assert number in shown | set(report["bits"]), (number, found.sentence)


def leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for each in value for leaf in leaves(each)] if isinstance(value, list) else [value]


def test_a_channel_times_100_is_found():
    found = diagnosed(outlier())
    kind, row = found.cause
    assert (kind, row["layer"], row["weight_channel"]) == ("outlier weights", "first", 5)
    assert 30 < row["weight_outlier"] < 300 and row["weights_zeroed"] > 0.8
    assert found.drop["both"].low > 0.3 and found.exact
    assert diagnosed(outlier(), scheme=quide.Scheme(weight_per_channel=True)).cause[0] != "outlier weights"


@pytest.mark.parametrize("bits", [4, 8])
def test_a_wrong_zero_point_is_found(bits):
    model = small()
    images, labels, calibration = data(model)
    quantized = quide.quantize(model, bits, calibration)
    assert quide.diagnose(model, images, labels, calibration, quantized=quantized).cause[0] != "grid"
    part = quantized.get_submodule(quantized.meta[META].quantizers["second"])
    due = part.zero_point
    part.zero_point = due + 2 ** (bits - 2)
    found = diagnosed(model, quantized=quantized)
    kind, row = found.cause
    assert (kind, row["layer"]) == ("grid", "second") and found.bits == (bits,) * 3
    assert (row["zero_point"], row["zero_point_due"], row["scale_ratio"]) == (due + 2 ** (bits - 2), due, 1)
    assert row["clipped_calibration"] > 0


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 5, 8, 16])
@pytest.mark.parametrize("observer", ["minmax", "mse"])
def test_the_grids_of_quantize_are_those_that_the_ranges_ask_for(symmetric, bits, observer):
    model = small()
    scheme = quide.Scheme(activation_symmetric=symmetric, activation_range=observer)
    table = quide.diagnose(model, *data(model, 20), bits, scheme=scheme).layers
    assert (
        table.scale_ratio.to_numpy() == pytest.approx(1, abs=ROUNDED / 2)
        and (table.zero_point == table.zero_point_due).all()
    )


def test_a_function_that_makes_wrong_grids_is_found(monkeypatch):
    def wrong(minimum, maximum, bits):
        right = affine_grid(minimum, maximum, bits)
        return replace(right, zero_point=right.zero_point + 2) if maximum - minimum > 5 else right

    model, affine_grid = outlier(), prepared.affine_grid
    monkeypatch.setattr(prepared, "affine_grid", wrong)
    kind, row = diagnosed(model).cause
    assert (kind, row["layer"], row["zero_point"] - row["zero_point_due"]) == ("grid", "first", 2)


def test_a_wrong_scale_is_found():
    model = small()
    quantized = quide.quantize(model, 8, data(model)[2])
    quantized.get_submodule(quantized.meta[META].quantizers["last"]).scale.mul_(0.5)
    kind, row = diagnosed(model, quantized=quantized).cause
    assert (kind, row["layer"], row["scale_ratio"]) == ("grid", "last", 0.5)


def test_a_batch_norm_that_is_not_folded_is_found():
    kind, row = diagnosed(norm_after_relu()).cause
    assert (kind, row["layer"], row["batch_norm"]) == ("batch norm", "first", "norm")
    assert row["batch_norm_channel"] == 0 and row["batch_norm_spread"] == pytest.approx(100 ** (6 / 11), rel=1e-3)
    folded, left = nn.Sequential(), nn.Sequential()
    for model, norm in ((folded, nn.BatchNorm2d(4)), (left, nn.Identity())):
        model.extend([nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(16, 3)])
        table = quide.diagnose(model.eval(), *data(model, 40), 4).layers
        assert not any(isinstance(name, str) for name in table.batch_norm)


def test_a_network_that_loses_nothing_or_knows_nothing_is_told_so():
    model = small()
    images, labels, calibration = data(model)
    assert quide.diagnose(model, images, labels, calibration, 16).cause == ("none", None)
    wrong = quide.diagnose(model, images, (labels + 1) % 10, calibration, 4)
    assert wrong.cause == ("chance", None) and wrong.full_precision.estimate == 0
    assert_numbers_are_in_the_report(wrong)
    with torch.no_grad():
        model.second.weight[3] *= 100
    wrong = quide.diagnose(model, images, (labels + 1) % 10, calibration, 4)
    assert wrong.cause[0] == "chance" and wrong.cause[1]["layer"] == "second" and wrong.cause[1]["weight_channel"] == 3
    assert_numbers_are_in_the_report(wrong)


class Changing(nn.Module):
    """Computes something else when it is traced, as code that asks for types does."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 10)

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        return logits + 1e-3 if type(images) is torch.Tensor else logits


def test_at_32_bits_the_network_is_the_model_or_that_is_the_diagnosis():
    model = Changing().eval()
    found = diagnosed(model)
    assert found.cause == ("tracing", None) and not found.exact
    assert model.training is False


def test_sensitivity_is_that_of_networks_quantized_one_by_one():
    model = small()
    images, labels, calibration = data(model)
    table = quide.sensitivity(model, images, labels, calibration, 3).set_index("layer")

    def hits(bits):
        quantized = quide.quantize(model, bits, calibration)
        return stats.Hits((evaluate.predict(quantized, [images]) == labels).numpy())

    full, everything = hits(32), hits(3)
    for place, layer in enumerate(("first", "second", "last")):
        alone, left = [32] * 3, [3] * 3
        alone[place], left[place] = 3, 32
        change = full.change(hits(alone))
        row = table.loc[layer]
        assert (row["drop"], row.drop_low, row.drop_high) == (change.estimate, change.low, change.high)
        assert row.left_gain == hits(left).change(everything).estimate and row.accuracy == hits(alone).accuracy
    weights = copy.deepcopy(model)
    weights.first.weight.data = quide.ptq.quantized_weight(model.first.weight.detach(), 3)
    only = stats.Hits((evaluate.predict(weights, [images]) == labels).numpy())
    assert table.loc["first"].weights_drop == full.change(only).estimate
    assert table.loc["first"].activations_drop != table.loc["first"].weights_drop


def test_widths_a_side_and_kept_layers():
    model = small()
    images, labels, calibration = data(model)
    found = quide.diagnose(
        model, images, labels, calibration, quide.Width(weights=3, activations=32), keep={"last": 32}
    )
    assert list(found.layers.layer) == ["first", "second"] and (found.layers.activations_drop == 0).all()
    assert (found.layers["drop"] == found.layers.weights_drop).all() and found.drop["both"] == found.drop["weights"]
    assert "w3a32 bits" in found.sentence
    quantized = quide.quantize(model, 4, calibration, keep={"last": 8})
    again = quide.diagnose(model, images, labels, calibration, quantized=quantized)
    assert again.bits == (4, 4) and again.cause[0] != "grid"


def test_the_plot_draws_each_layer():
    pytest.importorskip("matplotlib")
    model = small()
    axis = plot(quide.sensitivity(model, *data(model, 60), 3)).axes[0]
    assert sorted(label.get_text() for label in axis.get_yticklabels()) == ["first", "last", "second"]


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_the_page_stands_alone_and_opens_no_tag_of_a_layers_name(tmp_path):
    torch.manual_seed(0)
    hostile = "<script>alert(1)<|script>&"
    model = nn.Sequential()
    model.add_module("flat", nn.Flatten())
    model.add_module(hostile, nn.Linear(16, 10))
    found = quide.diagnose(model.eval(), *data(model), 2)
    debugging.save(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    tags = _Tags()
    tags.feed(page)
    assert {tag for tag, _ in tags.found}.isdisjoint({"script", "link", "img", "iframe"})
    assert not any(name in ("src", "href") or name.startswith("on") for _, given in tags.found for name in given)
    assert "&lt;script&gt;" in page and "<script" not in page
    debugging.save(found, tmp_path / "report.json")
    held = json.loads((tmp_path / "report.json").read_text())
    assert held["diagnosis"] == found.sentence and held["layers"][0]["layer"] == hostile


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A module that builds the network with the outlier, its weights, and data."""
    monkeypatch.chdir(tmp_path)
    model = outlier()
    (tmp_path / "debugged_net.py").write_text("from test_diagnosis import small\nbuild = small\n")
    save_file(model.state_dict(), "weights.safetensors")
    images, labels, calibration = (part.numpy() for part in data(model))
    np.savez("set.npz", images=images, labels=labels, calibration=calibration)
    return ["debug", "debugged_net.py:build", "--data", "set.npz", "--weights", "weights.safetensors"]


def run(arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return ended.value.code


def test_the_command_ends_with_the_diagnosis(files, capsys):
    assert not run([*files, "--output", "report.json"])
    said = capsys.readouterr().out.strip().splitlines()
    assert said[-2] == json.loads(open("report.json").read())["diagnosis"] and "layer first" in said[-2]
    model = outlier()
    quide.save(quide.quantize(model, 8, data(model)[2]), "eight.safetensors")
    assert not run([*files, "--quantized", "eight.safetensors", "--output", "page.html"])
    assert "At 8 bits" in open("page.html").read()


def test_bad_input_ends_in_one_line(files, capsys):
    for wrong in (["--output", "report.txt"], ["--bits", "33"], ["--quantized", "weights.safetensors"]):
        assert run([*files, *wrong]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not [file for file in os.listdir() if file.endswith((".html", ".json", ".txt"))]
