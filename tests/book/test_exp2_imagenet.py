"""The page of EXP-2 on ImageNet: numbers and verdicts follow the records, and without any it says what is missing."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from quidebook import report
from quidebook.pages import exp2_imagenet
from quidebook.pages.exp2_imagenet import Found

from quide import metric, stats
from quide.evaluate import label
from quide.experiments import imagenet_runs, records
from quide.experiments.imagenet_runs import SCHEMES, SEARCHED
from quide.models import pretrained
from quide.stats import pack_bits

SIZES = [9_408, 212_992, 1_212_416, 7_077_888, 14_942_208, 2_048_000]
SHARES = {"32": 0.91, "16": 0.91, "8": 0.905, "4": 0.002, "2": 0.001, label(SEARCHED): 0.906}


def hits(share: float, count: int, seed: int = 0) -> np.ndarray:
    """The same easy images right at every width."""
    ease = np.random.default_rng(seed).permutation(count)
    return ease < round(share * count)


def record(kind: str, values: dict, count: int, model: str = "resnet50", seed: int = 0, **details) -> records.Record:
    details = {"calibration": 512, "calibration_split": "val", "weights": "a package"} | details
    spec = records.RunSpec(kind, model, "imagenet", seed, "paper", details | {"images": count})
    made = {"date": "2026-01-01T00:00:00+00:00", "packages": {"torch": "2"}, "accelerator": None, "cpu": "an abacus"}
    values = values | {"images": count, "groups": ["a", "b", "c", "d", "e", "f"], "num_weights": SIZES}
    return records.Record(spec, values, imagenet_runs.code(kind), "0" * 64, made | {"git_commit": None}, 1.0)


def scored(shares: dict[str, float], count: int) -> dict:
    correct = {name: hits(share, count) for name, share in shares.items()}
    return {
        "accuracy": {name: float(hit.mean()) for name, hit in correct.items()},
        "correct": {name: pack_bits(hit) for name, hit in correct.items()},
    }


def accuracy(count: int = 1000, model: str = "resnet50", seed: int = 0, seen: int = 512, **shares) -> records.Record:
    calibrated = {"calibrated_on": pack_bits(np.arange(count) < seen)}
    return record(imagenet_runs.ACCURACY, scored(SHARES | shares, count) | calibrated, count, model, seed)


def quantizers(best: float = 0.6) -> records.Record:
    shares = {f"{scheme}, {bits}": 0.9 if bits == 8 else 0.002 for scheme in SCHEMES for bits in (8, 4)}
    return record(imagenet_runs.QUANTIZERS, scored(shares | {"32": 0.91, "both, 4": best}, 200), 200)


def mixed(method: str) -> records.Record:
    configurations = [(bits,) * 6 for bits in (16, 8, 4, 2)] + [SEARCHED, (8, 8, 8, 8, 4, 4)]
    shares = [0.9, 0.9, 0.0, 0.0, 0.9, 0.86]
    correct = np.stack([hits(share, 50) for share in shares], axis=1)
    values = {
        "configurations": [label(widths) for widths in configurations],
        "accuracy": correct.mean(0).tolist(),
        "correct": pack_bits(correct.ravel()),
        "full_precision_accuracy": 0.92,
        "full_precision_correct": pack_bits(hits(0.92, 50)),
        "tree_passes": 313.0,
    }
    return record(imagenet_runs.MIXED, values, 50, method=method, choices=[16, 8, 4, 2])


@pytest.fixture
def known() -> Found:
    kinds = accuracy(), quantizers(), mixed("genetic"), mixed("exhaustive")
    return Found(*({"resnet50": each} for each in kinds))


NOTHING = Found({}, {}, {}, {})
TABLES = [exp2_imagenet.table1, exp2_imagenet.table2, exp2_imagenet.summary_table, exp2_imagenet.absent_table,
          exp2_imagenet.quantizer_table]  # fmt: skip


@pytest.fixture
def spoken(monkeypatch) -> list[str]:
    """The sentences displayed so far."""
    sentences = []
    monkeypatch.setattr(report, "say", sentences.append)
    return sentences


# --- Table 1 ---------------------------------------------------------------------------------------------------------


def test_the_papers_cells_are_the_papers(known):
    table = exp2_imagenet.table1(known)
    shown = table[table.network == "ResNet-50"].set_index("bits")
    assert shown["paper P (%)"].tolist() == ["69.76", "69.76 †", "69.36", "0.18", "0.10"]
    assert shown["paper, of 32 bits"][8] == report.percent(0.6936 / 0.6976)


def test_our_cells_are_the_records(known):
    shown = exp2_imagenet.table1(known).query("network == 'ResNet-50'").set_index("bits")
    interval = stats.wilson_interval(905, 1000)
    assert shown["ours P (%)"][8] == report.with_interval(interval, 100)
    change = stats.paired_difference_interval(hits(0.91, 1000), hits(0.905, 1000))
    assert shown["change (pp)"][8] == report.with_interval(change, 100)
    assert shown["ours, of 32 bits"][8].startswith(f"{100 * 0.905 / 0.91:.2f} [")


def test_what_is_compared_is_the_share_of_full_precision(known):
    shown = exp2_imagenet.table1(known).query("network == 'ResNet-50'").set_index("bits").verdict
    assert shown[32] == report.UNDECIDED  # another network's level says nothing
    assert shown[8] == shown[4] == report.REPRODUCED
    worse = Found({"resnet50": accuracy(**{"8": 0.7, "4": 0.5})}, {}, {}, {})
    shown = exp2_imagenet.table1(worse).query("network == 'ResNet-50'").set_index("bits").verdict
    assert shown[8] == shown[4] == report.NOT_REPRODUCED


@pytest.mark.parametrize(("count", "level", "verdict"), [(1000, 0.6976, report.UNDECIDED),
                                                         (50_000, 0.6976, report.REPRODUCED),
                                                         (50_000, 0.60, report.NOT_REPRODUCED)])  # fmt: skip
def test_levels_are_compared_on_the_whole_validation_set_alone(count, level, verdict):
    found = Found({"resnet18": accuracy(count, "resnet18", seen=0, **{"32": level})}, {}, {}, {})
    shown = exp2_imagenet.table1(found).query("network == 'ResNet-18' and bits == 32")
    assert shown.verdict.item() == verdict


def test_too_few_images_decide_nothing():
    few = Found({"resnet50": accuracy(64, seen=0)}, {}, {}, {})
    shown = exp2_imagenet.table1(few).query("network == 'ResNet-50' and bits == 4")
    assert shown.verdict.item() == report.UNDECIDED and "too few images" in shown.reason.item()
    claims = exp2_imagenet.summary_table(few).set_index("claim").verdict
    assert claims["16 bits lose nothing"] == report.IN_PART


def test_a_network_without_a_record_says_which_command_makes_it(known):
    shown = exp2_imagenet.table1(known).query("network == 'ResNet-18'")
    assert set(shown["ours P (%)"]) == {"no record"} and set(shown.verdict) == {report.UNDECIDED}
    assert all("quide run exp2_imagenet --profile paper" in reason for reason in shown.reason)


# --- Table 2 ---------------------------------------------------------------------------------------------------------


def test_table_2_holds_uniform_widths_and_scores_at_equal_latency(known):
    table = exp2_imagenet.table2(known).set_index("method")
    searched = table.loc["the paper's search"]
    assert (searched["paper P (%)"], searched["paper I'"], searched["C"]) == ("69.36", "0.350", "3.43")
    threshold = metric.accuracy_threshold(0.91, 0.60, 1000)
    ours = (32 / (56 / 6)) * (0.906 - threshold) / (4 * (0.905 - threshold))
    assert searched["ours I' / I'(8), equal T"] == f"{ours:.2f}"
    assert searched["C by size"] == f"{metric.compression_ratio(SEARCHED, SIZES):.2f}"
    assert table.loc["uniform 8", "ours I' / I'(8), equal T"] == "1.00"
    assert table.loc["HAQ (the paper's)", "paper I'"] == "0.225"
    assert table.loc["BRECQ (the paper's)", "paper I'"] == report.UNKNOWN


def test_explored_configurations_are_ranked_and_uniform_ones_always_shown(known):
    table = exp2_imagenet.mixed_table(known.searched, most=2).set_index("widths")
    threshold = metric.accuracy_threshold(0.92, 0.60, 1000)
    best = (32 / (40 / 6)) * (0.86 - threshold) / (4 * (0.9 - threshold))
    assert table["place"]["8-8-8-8-4-4"] == "1 of 6"
    assert table["I' / I'(8), equal T"]["8-8-8-8-4-4"] == f"{best:.2f}"
    assert set(table.index) == {"8-8-8-8-4-4", label(SEARCHED), *(label((bits,) * 6) for bits in (16, 8, 4, 2))}
    assert table["place"][label((4,) * 6)] == table["place"][label((2,) * 6)] == "5 of 6"  # both score nothing
    assert exp2_imagenet.mixed_table({}).empty


# --- sentences, figure, verdicts -------------------------------------------------------------------------------------


def test_few_images_are_called_what_they_are(known, spoken):
    exp2_imagenet.say_images(known)
    (text,) = spoken
    assert "1,000 images scored, 512 calibrated on, 512 of them among the images scored" in text
    assert "91.00 %" in text and "almost surely images the network was trained on" in text
    exp2_imagenet.say_images(Found({"resnet18": accuracy(50_000, "resnet18", seen=0)}, {}, {}, {}))
    assert "trained on" not in spoken[1]


def test_images_without_ranges_are_told_apart(known, spoken):
    fresh = np.arange(1000) >= 512
    change = stats.paired_difference_interval(hits(0.91, 1000)[fresh], hits(0.905, 1000)[fresh])
    exp2_imagenet.say_held_out(known)
    expected = f"8 bits change accuracy by {report.with_interval(change, 100)} pp"
    assert f"on the 488 images that no range was read from, {expected}" in spoken[0]


def test_the_cost_of_the_whole_space_is_said(known, spoken):
    exp2_imagenet.say_search(known)
    assert "6 of 4,096 configurations" in spoken[0] and "313 plain forward passes" in spoken[0]


def test_the_search_is_held_against_the_whole_space(known, spoken):
    exp2_imagenet.say_every(known)
    assert "all 6 configurations by a prefix tree, on 50 images" in spoken[0]
    assert f"The paper's {label(SEARCHED)} is in place 3 by" in spoken[0] and "uniform 8 bits in place 2;" in spoken[0]
    assert "what the search liked best, 8-8-8-8-4-4, in place 1." in spoken[0]
    assert "Of the 2 configurations with 4 bits somewhere, and 2 bits nowhere, 1 stay" in spoken[0]


def test_verdicts_follow_the_numbers(known):
    good = exp2_imagenet.summary_table(known).set_index("claim").verdict
    bad = Found({"resnet50": accuracy(**{"16": 0.8, "8": 0.8, "4": 0.6, "2": 0.5, label(SEARCHED): 0.7})}, {}, {}, {})
    bad = exp2_imagenet.summary_table(bad).set_index("claim").verdict
    for claim, verdict in bad.items():
        assert verdict == report.NOT_REPRODUCED, claim
        implied = claim.startswith("(implied)")
        assert good[claim] == (report.NOT_REPRODUCED if implied else report.REPRODUCED), claim
    question = exp2_imagenet.summary_table(known).set_index("claim").evidence
    assert "the best (both) 65.9" in question["(not asked) 4 bits collapse with other quantizers too"]


def test_the_figure_says_what_it_shows(known):
    figure, name, caption, alt = exp2_imagenet.figure_accuracy(known)
    assert name == "fig-exp2-imagenet" and len(caption) > 40 and figure.axes
    assert "ResNet-50: 91.0 % at 32" in alt and "both, 4 bits: 60.0 %" in alt


# --- no records, or several ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_tables_without_records_are_frames(table):
    assert isinstance(table(NOTHING), pd.DataFrame)


def test_without_records_the_page_says_what_is_missing(spoken):
    for sentence in (
        exp2_imagenet.say_images,
        exp2_imagenet.say_held_out,
        exp2_imagenet.say_search,
        exp2_imagenet.say_every,
    ):
        sentence(NOTHING)
    assert len(spoken) == 3 and all("quide run exp2_imagenet --profile paper" in text for text in spoken)
    assert "QUIDE_IMAGENET" in spoken[0]
    assert exp2_imagenet.summary_table(NOTHING).verdict.tolist() == [report.UNDECIDED]
    assert len(exp2_imagenet.absent_table(NOTHING)) == 4
    figure, _, _, alt = exp2_imagenet.figure_accuracy(NOTHING)
    assert figure.axes and alt


def test_the_record_on_most_images_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    for count, seed in itertools.product((100, 900), (1, 0)):
        records.save(accuracy(count, seed=seed, seen=0))
    found = exp2_imagenet.found()
    assert (found.accuracy["resnet50"].values["images"], found.accuracy["resnet50"].spec.seed) == (900, 0)
    assert found.used == [found.accuracy["resnet50"]]


def test_a_stale_record_is_shown_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    records.save(accuracy(100, seen=0))
    monkeypatch.setattr(imagenet_runs, "code", lambda kind: "0" * 16)
    with pytest.warns(records.StaleRecordWarning, match="stale"):
        assert exp2_imagenet.found().accuracy


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_only_the_papers_profile_runs_anything(profile, monkeypatch):
    monkeypatch.setenv("QUIDE_IMAGENET", "/nowhere")
    exp2_imagenet.run(["resnet50"], [0], None, 250, 64, 16, profile)
    monkeypatch.delenv("QUIDE_IMAGENET")
    exp2_imagenet.run(["resnet50"], [0], None, 250, 64, 16, "paper")


def test_a_network_that_cannot_be_had_does_not_stop_the_next(spoken, tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_IMAGENET", str(tmp_path))

    def offline(case):
        raise FileNotFoundError(f"{case.model} is nowhere")

    monkeypatch.setattr(imagenet_runs, "accuracy", offline)
    exp2_imagenet.run(pretrained.trained_on("imagenet"), [0, 1], None, 250, 64, 16, "paper")
    assert spoken == ["ResNet-18 was not run: resnet18 is nowhere.", "ResNet-50 was not run: resnet50 is nowhere."]
