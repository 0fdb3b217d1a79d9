"""The probe of a user's network: what is read, what is refused, its numbers, and the advice that follows from them."""

from __future__ import annotations

import json
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from test_cli import quide as run_quide
from torch import nn

import quide
from quide import cli, evaluate, latency, metric, stats
from quide.cli import probe
from quide.stats import pack_bits

CLASSES = 4
NETWORK = f"""\
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, {CLASSES}))

def fails():
    raise RuntimeError("no such\\n  luck")

def number():
    return 7
"""


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, CLASSES)).eval()


@pytest.fixture
def data(net) -> probe.Data:
    """Images of which the network classifies nine in ten correctly."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(200, 1, 8, 8, generator=generator)
    with torch.no_grad():
        labels = net(images).argmax(1)
    labels[::10] = (labels[::10] + 1) % CLASSES
    return probe.Data(images, labels, torch.randn(40, 1, 8, 8, generator=generator))


@pytest.fixture
def folder(tmp_path: Path, net, data, monkeypatch) -> Path:
    """The working folder of a user: the network's code, its weights, the data in each form."""
    (tmp_path / "mynet.py").write_text(NETWORK)
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, tmp_path / "checkpoint.pth")
    arrays = {name: getattr(data, name) for name in probe.ARRAYS}
    save_file(arrays, tmp_path / "set.safetensors")
    np.savez(tmp_path / "set.npz", **{name: array.numpy() for name, array in arrays.items()})
    (tmp_path / "set").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "set" / f"{name}.npy", array.numpy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    return tmp_path


# --- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mynet:build", "mynet.py:build", "{folder}/mynet.py:build"])
@pytest.mark.parametrize("weights", ["weights.safetensors", "weights.pt", "checkpoint.pth"])
def test_a_network_is_built_and_filled(folder, net, data, name, weights):
    found = probe.read_network(name.format(folder=folder), Path(weights))
    assert not found.training
    with torch.no_grad():
        assert torch.equal(found(data.images), net(data.images))


def test_a_function_may_fill_the_network_itself(folder, net):
    (folder / "mynet.py").write_text(
        f"{NETWORK}\ndef filled():\n    import safetensors.torch\n    network = build()\n"
        "    network.load_state_dict(safetensors.torch.load_file('weights.safetensors'))\n    return network.double()\n"
    )
    found = probe.read_network("mynet.py:filled")
    assert torch.equal(found[0].weight, net[0].weight) and found[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mynet",
            "^model must be a function, got 'mynet'; name a function without arguments, as package.module:function",
        ),
        ("mynet:", "^model must be a function"),
        ("nonet:build", r"^model nonet:build cannot be built \(ModuleNotFoundError: No module named 'nonet'\); name a"),
        ("nonet.py:build", r"^model nonet.py:build cannot be built \(.*No such file.*nonet.py"),
        ("mynet:biuld", r"^model mynet:biuld cannot be built \(module 'mynet' has no attribute 'biuld'"),
        ("mynet:fails", r"^model mynet:fails cannot be built \(no such luck\)"),
        ("mynet:number", "^model mynet:number returned int, not a torch.nn.Module"),
    ],
)
def test_what_is_no_network_is_refused_by_name(folder, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        probe.read_network(name)
    assert "\n" not in str(caught.value)


class Payload:
    """A pickle of it makes a folder when it is read."""

    def __reduce__(self):
        return (__import__("os").mkdir, ("made",))


def test_weights_are_never_unpickled_to_objects(folder):
    torch.save({"weight": Payload()}, "evil.pt")
    (folder / "evil.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    for file in ("evil.pt", "evil.pth"):
        with pytest.raises(
            ValueError, match=rf"^{file} holds more than weights.*run code.*safetensors.torch.save_file"
        ):
            probe.read_network("mynet:build", Path(file))
    assert not (folder / "made").exists()


@pytest.mark.parametrize("other", [torch.Tensor.int, lambda each: each.to(torch.complex64), torch.Tensor.to_sparse])
@pytest.mark.filterwarnings("error")
def test_weights_of_another_kind_are_refused(folder, net, other):
    torch.save({name: other(value) for name, value in net.state_dict().items()}, folder / "other.pt")
    with pytest.raises(ValueError, match="other.pt "):
        probe.read_network("mynet:build", folder / "other.pt")


def test_weights_that_do_not_fit_are_refused_in_one_line(folder, net):
    save_file({"0.weight": torch.zeros(4, 1, 5, 5), "other": torch.zeros(2)}, "misfit.safetensors")
    torch.save([1, 2], "list.pt")
    (folder / "damaged.safetensors").write_bytes(b"half")
    (folder / "damaged.pt").write_bytes(b"")
    for file, message in {
        "misfit.safetensors": "^misfit.safetensors does not fit the network Sequential .*0.bias",
        "list.pt": "^list.pt cannot be read .*",
        "damaged.safetensors": "^damaged.safetensors cannot be read",
        "damaged.pt": "^damaged.pt cannot be read",
        "weights.onnx": "^weights must be a .safetensors, .pt or .pth file, got weights.onnx",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            probe.read_network("mynet:build", Path(file))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    for absent in ("absent.safetensors", "absent.pt"):
        with pytest.raises(FileNotFoundError, match=absent):
            probe.read_network("mynet:build", Path(absent))


# --- the data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["set.npz", "set.safetensors", "set"])
def test_each_form_of_the_data_is_read_alike(folder, data, name):
    found = probe.read_data(Path(name))
    for array in probe.ARRAYS:
        assert torch.equal(getattr(found, array), getattr(data, array))


def test_other_number_types_become_those_that_networks_take(folder, data):
    np.savez(
        "other.npz", images=data.images.numpy().astype(">f8"), labels=data.labels.numpy().astype(np.uint8),
        calibration=data.calibration.half().numpy(),
    )  # fmt: skip
    found = probe.read_data(Path("other.npz"))
    assert [getattr(found, name).dtype for name in probe.ARRAYS] == [torch.float32, torch.int64, torch.float32]
    assert torch.equal(found.images, data.images) and torch.equal(found.labels, data.labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "^set.npz has no array 'labels'; it must hold images, labels and calibration"),
        ({"images": np.zeros((3, 1, 8, 8), np.uint8)}, "^images of set.npz are torch.uint8; .*normalized float32"),
        ({"labels": np.zeros(3)}, r"^labels of set.npz must be whole numbers \(n,\)"),
        ({"labels": np.zeros((3, 1), int)}, r"^labels of set.npz must be whole numbers \(n,\)"),
        ({"labels": np.zeros(3, bool)}, r"^labels of set.npz must be whole numbers \(n,\)"),
        ({"labels": np.zeros(3, complex)}, r"^labels of set.npz must be whole numbers \(n,\)"),
        ({"labels": np.array(["cat", "dog"])}, "^labels of set.npz cannot be read .*not numbers"),
        ({"labels": np.array([None, 3])}, "^set.npz cannot be read .*allow_pickle"),
        ({"calibration": np.zeros((3, 3, 8, 8), np.float32)}, r"^images and calibration of set.npz differ in shape"),
    ],
)
def test_wrong_data_are_refused_by_name(folder, data, change, message):
    arrays = {name: getattr(data, name).numpy() for name in probe.ARRAYS} | change
    np.savez("set.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=message):
        probe.read_data(Path("set.npz"))


def test_files_that_do_not_parse_or_exist_are_refused_by_name(folder):
    (folder / "set.npz").write_bytes(b"half a file")
    (folder / "set.safetensors").write_bytes(b"half a file")
    (folder / "set" / "labels.npy").unlink()
    (folder / "set.csv").touch()
    for name, message in {
        "set.npz": "^set.npz cannot be read",
        "set.safetensors": "^set.safetensors cannot be read",
        "set.csv": "^data must be a .npz or .safetensors file or a folder of .npy files, got set.csv",
    }.items():
        with pytest.raises(ValueError, match=message):
            probe.read_data(Path(name))
    for name in ("set", "absent.npz", "absent.safetensors"):
        with pytest.raises(FileNotFoundError):
            probe.read_data(Path(name))


# --- its numbers -----------------------------------------------------------------------------------------------------


def test_the_table_is_that_of_the_sweep_with_intervals_and_the_knee(net, data):
    found = probe.probe(net, data, (4, 8), tolerance=0.3, passes=2)
    table = found.table
    assert list(table.bits) == [32, 8, 4]
    swept = quide.sweep(
        net, data.images, data.labels, data.calibration, (32, 8, 4), tolerance=0.3, warmup=1, passes=2
    )  # fmt: skip
    for column in ("compression", "accuracy"):
        assert list(table[column]) == list(swept[column])
    assert found.threshold == swept.attrs["threshold"] == pytest.approx(0.6)
    assert list(found.correct.mean(1)) == list(table.accuracy)
    for row, hits in zip(table.itertuples(), found.correct, strict=True):
        interval = stats.wilson_interval(int(hits.sum()), 200)
        assert (row.accuracy_low, row.accuracy_high) == (interval.low, interval.high)
    expected = stats.bootstrap_knee(
        found.correct[None], table.latency_ms, (32, 8, 4), tolerance=0.3, num_classes=CLASSES
    )  # fmt: skip
    assert list(table.knee_probability) == [expected.probability[width] for width in (32, 8, 4)]
    assert found.knee == metric.knee(table.bits, table.gated_index)
    assert (found.num_classes, found.calibrated_on, found.timings.latencies["8"].passes) == (CLASSES, 40, 2)


def test_the_network_is_left_as_it_was(net, data):
    net = nn.Sequential(nn.BatchNorm2d(1), *net).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    probe.probe(net, data, (8,), passes=1)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": (32,)}, "^bits must name a width below 32"),
        ({"bits": (8, 33)}, "^bits must be whole numbers in 1..32, got 33"),
        ({"labels": torch.full((200,), CLASSES)}, "^labels lie in 4..4, the network's 4 classes are numbered 0..3"),
        ({"labels": torch.full((200,), -1)}, "^labels lie in -1..-1"),
        ({"images": torch.zeros(0, 1, 8, 8)}, "^images are none"),
        ({"images": torch.zeros(200, 8, 8, 1)}, r"^the network does not take an image of shape \(8, 8, 1\) .*\(n, cha"),
        (
            {"model": nn.Conv2d(1, 4, 3)},
            r"^the network must return one score a class, \(n, classes\), got \(1, 4, 6, 6",
        ),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 1))}, "^the network must return one score a class"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_the_sweep(net, data, change, message, monkeypatch):
    monkeypatch.setattr(evaluate, "sweep", lambda *_, **__: pytest.fail("swept"))
    arrays = {name: change.get(name, getattr(data, name)) for name in probe.ARRAYS}
    with pytest.raises(ValueError, match=message):
        probe.probe(change.get("model", net), probe.Data(**arrays), change.get("bits", (8, 4)))


# --- the advice ------------------------------------------------------------------------------------------------------


def found_with(monkeypatch, data, accuracies, latencies=None, images=200, reasons=(), **options) -> probe.Probe:
    """A probe of the given accuracies by width; each width is right for the first images, so that they are nested."""
    times = {width: 1.0 for width in accuracies} if latencies is None else latencies
    correct = {width: np.arange(images) < round(share * images) for width, share in accuracies.items()}

    def swept(model, tested, labels, calibration, bits, *, tolerance, num_classes, passes, **_):
        table = pd.DataFrame({"bits": bits, "compression": [32 / width for width in bits]})
        table["accuracy"] = [correct[width].mean() for width in bits]
        table["latency_ms"] = [times[width] for width in bits]
        threshold = metric.accuracy_threshold(correct[32].mean(), tolerance, num_classes)
        table["index"] = metric.intelligence_index(table.compression, table.accuracy, table.latency_ms)
        table["gated_index"] = metric.gated_index(table.compression, table.accuracy, table.latency_ms, threshold)
        one = {str(width): latency.Latency(times[width], 1.0, 1.0, 1.0, passes, 1) for width in bits}
        table.attrs = {
            "threshold": threshold,
            "timings": latency.Timings(one, 1.0, None, None, None, tuple(reasons)),
            "correct": {str(width): pack_bits(correct[width]) for width in bits},
        }
        return table

    monkeypatch.setattr(evaluate, "sweep", swept)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    narrower = [width for width in accuracies if width != 32]
    return probe.probe(model, data, narrower, **options)


def test_a_width_that_keeps_the_accuracy_is_recommended(monkeypatch, data):
    found = found_with(monkeypatch, data, {32: 0.95, 8: 0.95, 4: 0.94}, images=2000)
    said = probe.advice(found)
    assert found.knee == 4 and found.probability(4) == 1
    assert said[0].startswith("Use 4 bits: highest I' of the widths tried. So it is in 100% of the test sets")
    assert said[1].startswith("Accuracy of 8 bits against 32: +0.00 percentage points")
    assert said[1].endswith("which may be chance.")
    assert said[2].startswith("Accuracy of 4 bits against 8: -1.00 percentage points [-1.") and "chance" not in said[2]


def test_a_width_that_loses_more_than_half_of_the_margin_is_not(monkeypatch, data):
    found = found_with(monkeypatch, data, {32: 0.95, 8: 0.95, 4: 0.91}, images=2000)
    said = probe.advice(found)
    assert found.knee == 8 and said[0].startswith("Use 8 bits")
    assert said[1] == "Between 8 bits and 4 bits lies mixed precision, a width for each layer: see quide.search."


def test_few_images_do_not_settle_it(monkeypatch, data):
    found = found_with(monkeypatch, data, {32: 0.95, 8: 0.95, 4: 0.925}, images=200)
    first = probe.advice(found)[0]
    assert found.probability(4) + found.probability(8) == pytest.approx(1)
    assert "But the 200 test images do not settle it" in first and first.endswith("be content with 8 bits.")


def test_where_no_narrower_width_is_worth_it_the_wide_one_stays(monkeypatch, data):
    found = found_with(monkeypatch, data, {32: 0.95, 8: 0.8, 4: 0.3})
    said = probe.advice(found)
    assert said[0].startswith("Stay at 32 bits: at this tolerance none of the narrower widths is worth it. So it is in")
    assert said[1] == "Or try 16 bits: --bits 16,8."
    tried = probe.advice(found_with(monkeypatch, data, {32: 0.95, 16: 0.8}))
    assert tried[0].startswith("Stay at 32 bits") and not any("try 16" in line for line in tried)


def test_no_tolerance_leaves_no_knee(monkeypatch, data):
    found = found_with(monkeypatch, data, {32: 0.95, 8: 0.95, 4: 0.3}, tolerance=0.0)
    assert found.knee is None and found.probability(None) == pytest.approx(1)
    assert probe.advice(found)[0] == "No width is above the threshold: allow a larger --tolerance."


def test_a_network_that_guesses_gets_no_recommendation(monkeypatch, data):
    (said,) = probe.advice(found_with(monkeypatch, data, {32: 0.27, 8: 0.26, 4: 0.25}))
    assert (
        said.startswith("At 32 bits the network is right for 27.0% of the images") and "Were the weights loaded" in said
    )


def test_a_network_that_is_hardly_better_than_guessing_has_no_knee(monkeypatch, data):
    """As random weights can be: 30 % of four classes, on so many images that chance alone does not explain it."""
    found = found_with(monkeypatch, data, {32: 0.3, 8: 0.3, 4: 0.3}, images=20_000)
    assert found.table.accuracy_low[0] > 1 / CLASSES
    assert found.knee is None and len(probe.advice(found)) == 1


def test_a_noisy_timing_that_decides_and_a_width_without_kernels_are_named(monkeypatch, data):
    accuracies, latencies = {32: 0.95, 8: 0.95, 4: 0.94}, {32: 1.0, 8: 1.0, 4: 100.0}
    said = probe.advice(found_with(monkeypatch, data, accuracies, latencies, reasons=["others used it"]))
    assert any("The recommendation rests on it" in line for line in said)
    assert not any("kernel" in line for line in said)  # 8 bits
    assert any("kernel for 4 bits" in line for line in probe.advice(found_with(monkeypatch, data, accuracies)))


def test_latencies_that_decide_are_named(monkeypatch, data):
    accuracies = {32: 0.95, 8: 0.95, 4: 0.94}
    slow = found_with(monkeypatch, data, accuracies, latencies={32: 1.0, 8: 1.0, 4: 100.0})
    assert slow.knee == 8 and slow.knee_at_equal_latency == 4
    assert any("were all widths equally fast, it would be 4 bits" in line for line in probe.advice(slow))
    same = found_with(monkeypatch, data, accuracies)
    assert not any("equally fast" in line for line in probe.advice(same))


def test_noise_and_few_calibration_images_are_named(monkeypatch, data):
    accuracies = {32: 0.95, 8: 0.95}
    said = probe.advice(found_with(monkeypatch, data, accuracies, reasons=["others used it", "it is unsteady"]))
    assert any("others used it; it is unsteady" in line and "the same at equal latencies" in line for line in said)
    assert said[-1] == "Only 40 calibration images; the paper uses 512."
    plenty = probe.Data(data.images, data.labels, torch.zeros(512, 1, 8, 8))
    quiet = probe.advice(found_with(monkeypatch, plenty, accuracies))
    assert not any("noisy" in line or "calibration" in line for line in quiet)


def test_text_and_files_hold_the_numbers(monkeypatch, data, tmp_path):
    found = found_with(monkeypatch, data, {32: 0.95, 8: 0.9, 4: 0.3}, latencies={32: 3.0, 8: 1.0, 4: 1.0})
    text = probe.as_text(found)
    assert "8 4.00 90.00 [85.06, 93.43]" in text and f"{4 * 0.9:.3f}" in text
    assert "200 images; I' counts what is above 90.00%, from a tolerance of 0.05" in text
    assert all(line in text for line in probe.advice(found))
    probe.save(found, tmp_path / "out.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out.csv"), found.table, check_dtype=False)
    probe.save(found, tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["knee"] == found.knee == 32 and written["advice"] == probe.advice(found)
    assert [row["accuracy"] for row in written["rows"]] == list(found.table.accuracy)
    assert math.isclose(written["rows"][1]["index"], 4 * 0.9) and written["provenance"]["packages"]["torch"]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_writes_and_succeeds(folder, net, data):
    done = run_quide(
        folder, "sweep", "mynet:build", "--weights", "weights.safetensors", "--data", "set.npz", "--bits", "8,4",
        "--tolerance", "0.3", "--passes", "2", "--output", "out.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "P(knee)" in done.stdout and done.stdout.splitlines()[-1] == "Written: out.json"
    written = json.loads((folder / "out.json").read_text())
    assert [row["bits"] for row in written["rows"]] == [32, 8, 4] and written["tolerance"] == 0.3
    with torch.no_grad():
        hits = quide.quantize(net, 4, data.calibration)(data.images).argmax(1) == data.labels
    assert written["rows"][2]["accuracy"] == int(hits.sum()) / 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mynet:build"], "Missing option '--data'"),
        (
            ["mynet:build", "--data", "set.npz", "--output", "out.txt"],
            "output must be a file that ends in .csv or .json",
        ),
        (["mynet:build", "--data", "set.npz", "--output", "no/out.csv"], "no does not exist; make it, or name another"),
        (["mynet:build", "--data", "set.npz", "--bits", "8;4"], "bits must be widths with commas between them"),
        (["mynet:build", "--data", "set.npz", "--tolerance", "5"], "Invalid value for '--tolerance'"),
        (["mynet:build", "--data", "set.npz", "--passes", "1000001"], "Invalid value for '--passes'"),
        (["mynet:build", "--data", "set.npz", "--bits", "8,W4"], "a width must be a whole number in 1..32 or such as"),
        (["mynet:build", "--data", "set.npz", "--keep", "3"], "keep must be a layer and its width, such as fc=32"),
        (["mynet:build", "--data", "set.npz", "--score", "mynet:no"], "score mynet:no cannot be read"),
        (["torchvision:resnet1", "--data", "set.npz"], "model torchvision:resnet1 cannot be built (torchvision has"),
        (["mynet:fails", "--data", "set.npz"], "model mynet:fails cannot be built (no such luck)"),
        (["mynet:build", "--data", "absent.npz"], "absent.npz is missing"),
    ],
)
def test_the_command_refuses_in_one_line(folder, capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        cli.main(["sweep", *arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("quide: ") and said in line


LEAVES = """
import sys
import torch
class Leaves(torch.nn.Module):
    def forward(self, images):
        sys.exit(0)
def score(outputs, labels):
    sys.exit(0)
"""


@pytest.mark.parametrize("words", ["debug leaves:Leaves", "sweep mynet:build --score leaves:score"])
def test_code_that_leaves_python_is_no_success(folder, capsys, words):
    (folder / "leaves.py").write_text(LEAVES)
    with pytest.raises(SystemExit) as ended:
        cli.main([*words.split(), "--data", "set.npz"])
    assert ended.value.code == 2 and "SystemExit: 0" in capsys.readouterr().err.splitlines()[-1]


def test_an_empty_score_is_not_accuracy(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["sweep", "mynet:build", "--data", "set.npz", "--score", ""])
    assert ended.value.code == 2 and "score" in capsys.readouterr().err


def test_a_width_of_two_sides_kept_layers_and_a_score_from_the_command_line(folder, capsys):
    (folder / "scores.py").write_text(
        "def best_three(outputs, labels):\n"
        "    return (outputs.topk(3).indices == labels[:, None]).any(1).double().mean()\n"
        "def percent(outputs, labels):\n    return 97\n"
    )
    words = ["sweep", "mynet:build", "--weights", "weights.pt", "--data", "set.npz", "--passes", "2"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--bits", "8,w4a8", "--keep", "3=16", "--score", "scores:best_three", "--output", "out.json"])
    assert not ended.value.code
    found = json.loads((folder / "out.json").read_text())
    assert [row["bits"] for row in found["rows"]] == [32, 8, "w4a8"]
    assert [row["compression"] for row in found["rows"]] == pytest.approx([64 / 48, 64 / 24, 64 / 20])
    assert found["rows"][0]["accuracy"] > 0.9 and found["rows"][0]["accuracy_low"] is None
    assert found["num_classes"] is None and found["threshold"] == pytest.approx(found["rows"][0]["accuracy"] - 0.05)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--score", "scores:percent"])
    assert ended.value.code == 2 and "score must return a number in [0, 1]" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_package_of_networks_that_is_not_installed_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"^{package} is missing; install it with: pip install {package}$"):
        probe.read_network(f"{package}:resnet18")


def test_a_network_of_torchvision_is_named(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    wanted = torchvision.models.squeezenet1_1(weights=None)
    save_file(wanted.state_dict(), tmp_path / "weights.safetensors")
    found = probe.read_network("torchvision:squeezenet1_1", tmp_path / "weights.safetensors")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert not found.training and torch.equal(found(images), wanted.eval()(images))


def test_a_network_of_timm_is_named():
    timm = pytest.importorskip("timm")
    found = probe.read_network("timm:resnet18")
    assert type(found) is type(timm.create_model("resnet18"))


def test_a_device_in_place_of_a_module_is_refused(tmp_path):
    (tmp_path / "pipe.py").symlink_to("/dev/null")  # a pipe would be waited for
    with pytest.raises(ValueError, match="pipe.py:build cannot be built .it is not a regular file"):
        probe.read_network(f"{tmp_path / 'pipe.py'}:build")
