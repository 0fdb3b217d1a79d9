"""The benchmarks run from end to end at a tiny size and show ratios; how fast anything is, is not tested."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch

from benchmarks import denormals, harness, ladder, memory, own, peers, precision, resnet18, search, sweep, training
from quide import ptq

LIMIT = 900  # seconds


@pytest.fixture(scope="module")
def network():
    return harness.network()


@pytest.fixture(scope="module")
def calibration():
    return harness.calibration()


@pytest.fixture(scope="module")
def swept():
    return sweep.run(harness.TINY).to_dict()


@pytest.fixture(scope="module")
def trained():
    return training.run(harness.TINY).to_dict()


def rows(result, title=0):
    return list(result["tables"].values())[title]


@pytest.mark.slow
def test_the_sweep_measures_every_contestant_at_every_width(swept):
    measured = {(row["contestant"], row["bits"]) for row in rows(swept)}
    missing = {note.split()[0] for note in swept["notes"]}
    wanted = {name for name in sweep.EAGER if name not in missing} - {sweep.FP32}
    assert measured == {(sweep.FP32, 32), *((name, bits) for name in wanted for bits in sweep.BITS)}
    assert missing <= {"brevitas"}


@pytest.mark.slow
def test_the_sweeps_ratios_are_those_of_its_times(swept):
    plain = rows(swept)[0]["median_s"]
    assert all(row["of_FP32"] == row["median_s"] / plain for row in rows(swept))
    ours = {row["bits"]: row["median_s"] for row in rows(swept) if row["contestant"] == sweep.QUIDE}
    goals = {goal["what"]: goal for goal in swept["goals"]}
    for bits in sweep.BITS:
        assert goals[f"QuIDE at {bits} bits, of the FP32 pass"]["ratio"] == ours[bits] / plain
        peer = next(row for row in rows(swept) if (row["contestant"], row["bits"]) == ("FX", bits))
        assert goals[f"FX at {bits} bits, of QuIDE"]["ratio"] == peer["median_s"] / ours[bits]


@pytest.mark.slow
def test_everyone_does_the_same_job(swept):
    for row in rows(swept):
        if row["contestant"] in (sweep.IN_PLACE, "PT2E"):
            assert row["same_as_QuIDE"] == 1
        if row["bits"] == 8:
            assert row["same_as_QuIDE"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_pt2e_rounds_where_quide_does(network, calibration, bits):
    images, _ = harness.images("test", 100)
    ours = ptq.quantize(network, bits, calibration)
    theirs = peers.pt2e(network, calibration, bits)
    with torch.inference_mode():
        inputs = images.normalized()
        step = float(ours.get_submodule("fc2_quantizer").scale)
        # Sums are added up in another order, and a value on the edge between two steps may fall to either side.
        off = (ours(inputs) - theirs(inputs)).abs()
    assert off.max() <= 1.01 * step and (off < 0.01 * step).double().mean() > 0.99


@pytest.mark.slow
def test_pt2e_rounds_inputs_where_quide_does(network, calibration):
    pytest.importorskip("torchao")
    scheme = ptq.Scheme(weight_per_channel=True, activation_site="input", quantize_logits=False)
    ours = ptq.quantize(network, ladder.WIDTH, calibration, scheme)
    theirs = peers.pt2e_inputs(ptq.prepare(network, calibration).full_precision(), calibration, "MinMaxObserver")
    with torch.no_grad():
        torch.testing.assert_close(theirs(calibration), ours(calibration), rtol=0, atol=0.05)


def test_the_best_rung_is_compared_with_each_peer(network, calibration):
    found, _ = harness.images("test", 64)
    folded = ptq.prepare(network, calibration).full_precision()

    def absent(*_):
        raise ImportError("no such library")

    others = {"exact": lambda network, _: network, "absent": absent}
    ours = {f"QuIDE, {name}": ladder.CONTESTANTS[f"QuIDE, {name}"] for name in ladder.OURS[:2]}
    result = ladder.measure(folded, calibration[:32], found, ours | others, harness.Result("ladder", "tiny", {}))
    table = {row["contestant"]: row for row in rows(result.to_dict())}
    assert table.keys() == {*ours, "exact"} and table["exact"]["from_FP32_(pp)"] == 0
    best = max(table[name]["accuracy"] for name in ours)
    assert [goal.ratio for goal in result.goals] == [best / table["exact"]["accuracy"]]
    assert result.notes == ["absent was not measured: no such library"]


@pytest.mark.slow
def test_fx_quantizes_weights_and_activations(network, calibration):
    images, _ = harness.images("test", 20)
    with torch.inference_mode():
        outputs = peers.fx(network, calibration, 4)(images.normalized())
    assert len(outputs.unique()) <= 2**4


def test_a_missing_library_is_noted_and_the_rest_measured(monkeypatch):
    def missing(network, calibration, bits):
        raise ImportError("No module named 'brevitas'", name="brevitas")

    contestants = {sweep.FP32: sweep._full_precision, sweep.QUIDE: sweep._quide(True), "brevitas": missing}
    monkeypatch.setattr(sweep, "EAGER", contestants)
    result = sweep.run(harness.TINY)
    assert result.notes == ["brevitas was not measured: No module named 'brevitas'"]
    assert {row["contestant"] for row in rows(result.to_dict())} == {sweep.FP32, sweep.QUIDE}


@pytest.mark.slow
def test_resnet18_is_compared_with_its_plain_pass():
    result = resnet18.run(harness.TINY).to_dict()
    assert [(row["contestant"], row["bits"]) for row in rows(result)] == [
        (sweep.FP32, 32), *((sweep.QUIDE, bits) for bits in sweep.BITS)
    ]  # fmt: skip
    assert result["inputs"]["images"] == harness.TINY.deep_images
    assert {goal["limit"] for goal in result["goals"]} == {sweep.FULL_PRECISION_LIMIT}


@pytest.mark.slow
def test_the_tree_is_compared_with_one_after_the_other_and_the_memory_with_none():
    every, alone, genetic = search.run(harness.TINY).to_dict()["tables"].values()
    assert [row["way"] for row in every] == [search.FP32, search.TREE]
    assert [row["way"] for row in alone] == [search.TREE, search.FLAT]
    assert alone[1]["same_predictions"] is True
    with_memory, without = genetic
    assert with_memory["evaluations"] < without["evaluations"] == 4 + 2 * 4
    assert with_memory["best"] == without["best"]


def test_both_layouts_are_compared_and_answer_alike():
    result = own.run(harness.TINY).to_dict()
    assert [row["layout"] for table in result["tables"].values() for row in table] == [*own.LAYOUTS] * 2
    assert all(table[1]["same_accuracies"] is True for table in result["tables"].values())
    assert [goal["limit"] for goal in result["goals"]] == [1.1, 1.1]


@pytest.mark.slow
def test_training_is_compared_with_the_loader_and_with_bare_steps(trained):
    table = {row["contestant"]: row for row in rows(trained)}
    assert table[training.QUIDE]["of_QuIDE"] == 1
    loaders = [row for name, row in table.items() if name.startswith("DataLoader")]
    assert len(loaders) == len(training.WORKERS)
    by_goal = {goal["kind"]: goal["ratio"] for goal in trained["goals"]}
    assert by_goal["at least"] == min(row["of_QuIDE"] for row in loaders)
    bare = [row["median_s"] for name, row in table.items() if name.startswith(training.BARE)]
    assert by_goal["at most"] == pytest.approx(table[training.QUIDE]["median_s"] / min(bare))


@pytest.mark.slow
def test_all_trainings_learn_from_the_same_start(trained):
    losses = [row["first_loss"] for row in rows(trained) if row["first_loss"] is not None]
    assert len(losses) == 1 + len(training.WORKERS)
    assert all(abs(loss - math.log(10)) < 0.2 for loss in losses)  # an untrained network knows nothing of ten classes


@pytest.mark.slow
def test_only_unflushed_weights_become_denormal():
    found = {mode: harness.child("benchmarks.denormals", mode, "1200") for mode in ("kept", "flushed")}
    assert found["flushed"]["denormal"] == 0 < found["kept"]["denormal"]
    assert found["kept"]["decayed"] == found["flushed"]["decayed"] <= found["kept"]["weights"]


@pytest.mark.slow
def test_mixed_precision_is_judged_by_how_far_apart_seeds_are():
    result = precision.run(harness.TINY).to_dict()
    reached, (over,) = rows(result), rows(result, 1)
    changes = [row["mixed"] - row["float32"] for row in reached]
    assert [row["seed"] for row in reached] == [0, 1] and [row["change"] for row in reached] == changes
    assert over["mean change"] == pytest.approx(sum(changes) / 2)
    apart = abs(reached[0]["float32"] - reached[1]["float32"]) / math.sqrt(2)
    assert over["standard deviation between seeds"] == pytest.approx(apart)
    (goal,) = result["goals"]
    assert goal["ratio"] == pytest.approx(abs(over["mean change"]) / apart)


def test_denormals_are_told_by_their_bits():
    smallest = torch.finfo(torch.float32).tiny
    assert denormals._denormal(torch.tensor([0.0, -0.0, 1.0, smallest, -smallest, smallest / 2, -1e-44])) == 2


@pytest.mark.slow
@pytest.mark.skipif(not memory.STATUS.exists(), reason="memory is measured on Linux alone")
def test_memory_is_measured_in_fresh_processes(monkeypatch):
    monkeypatch.setattr(memory, "SHARES", (1.0,))
    result = memory.run(harness.TINY).to_dict()
    assert [row["images"] for row in rows(result)][-1] == harness.TINY.images
    assert {row["way"] for row in rows(result)} == set(memory.WAYS)
    assert all(row["peak_MiB"] > row["added_MiB"] >= 0 for row in rows(result))


def test_memory_that_cannot_be_measured_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    with pytest.raises(OSError, match="name the other benchmarks"):
        memory.run(harness.TINY)


def test_a_failing_child_says_why():
    with pytest.raises(RuntimeError, match="invalid literal"):
        harness.child("benchmarks.denormals", "kept", "many")


def some_result() -> dict:
    result = harness.Result("sweep", "tiny", {"images": 3})
    result.tables["Times"] = [{"contestant": "QuIDE", "median_s": 1.23456, "same_as_QuIDE": None}]
    result.goals = [
        harness.Goal("this, of that", 1.5, "at most", 1.3),
        harness.Goal("that, of this", 2.0, "at least", 2),
    ]
    result.noise = ["the machine was busy"]
    return result.to_dict()


def test_results_are_kept_and_shown(tmp_path):
    result = some_result()
    file = harness.save(result, tmp_path)
    assert harness.load("sweep", tmp_path) == json.loads(file.read_text()) == result
    assert list(tmp_path.iterdir()) == [file]
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{harness.START}\nold\n{harness.END}\nafter\n")
    harness.write_readme(["sweep", "memory"], tmp_path, readme)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    for shown in (
        "| QuIDE      | 1.235    |",
        "at most 1.3 | 1.50     | no",
        "at least 2  | 2.00     | yes",
        "No result yet",
    ):
        assert shown in text
    assert "Doubtful: the machine was busy" in text and result["provenance"]["date"] in text
    harness.write_readme(["sweep", "memory"], tmp_path, readme)
    assert readme.read_text() == text


def test_a_readme_without_its_marks_is_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("mine\n")
    with pytest.raises(ValueError, match="lost its marks"):
        harness.write_readme(harness.SECTIONS, tmp_path, readme)
    assert readme.read_text() == "mine\n"


def test_a_torn_result_is_refused(tmp_path):
    (tmp_path / "sweep.json").write_text('{"name": ')
    with pytest.raises(ValueError, match=r"sweep\.json does not parse .* python -m benchmarks sweep"):
        harness.load("sweep", tmp_path)


def test_the_readme_shows_the_committed_results(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(harness.README.read_text())
    harness.write_readme(harness.SECTIONS, harness.RESULTS, readme)
    assert readme.read_text() == harness.README.read_text(), "run: python -m benchmarks --tables"


@pytest.mark.slow
def test_the_command_prints_the_ratios_and_keeps_nothing_of_a_tiny_run(checkout, tmp_path):
    command = [sys.executable, "-m", "benchmarks", "search", "--tiny", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert "one after the other, of the prefix tree" in done.stdout and "at least 10" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_command_names_a_file_it_cannot_use(checkout, tmp_path):
    (tmp_path / "sweep.json").write_text("torn")
    readme = tmp_path / "README.md"
    readme.write_text(before := f"{harness.START}\n{harness.END}\n")
    command = [sys.executable, "-m", "benchmarks", "--tables", "--results", str(tmp_path), "--readme", str(readme)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "sweep.json" in done.stderr
    assert readme.read_text() == before
