"""The page of EXP-2 on ImageNet: numbers and verdicts follow the records, and without any it says what is missing."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from quidebook import report
from quidebook.pages import exp2_imagenet
from quidebook.shared import imagenet
from quidebook.shared.imagenet import ImageNetRecords
from quidebook.verdicts import IN_PART, NOT_REPRODUCED, REPRODUCED, SUPPORTS, UNDECIDED

from quide import metric, stats
from quide.experiments import campaign, imagenet_runs, records, staleness
from quide.experiments.imagenet_runs import SCHEMES, SEARCHED
from quide.experiments.measured import KINDS
from quide.ptq.width import label
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
    return records.Record(spec, values, KINDS[kind].digest("resnet18"), "0" * 64, made | {"git_commit": None}, 1.0)


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


@pytest.fixture
def known() -> ImageNetRecords:
    return ImageNetRecords({"resnet50": accuracy()}, {"resnet50": quantizers()})


NOTHING = ImageNetRecords({}, {})
TABLES = [imagenet.table1, imagenet.table2, imagenet.summary_table, exp2_imagenet.accuracy_table]


# --- Table 1 ---------------------------------------------------------------------------------------------------------


def test_the_papers_cells_are_the_papers(known):
    table = imagenet.table1(known)
    shown = table[table.network == "ResNet-50"].set_index("bits")
    assert shown["paper P (%)"].tolist() == ["69.76", "69.76 †", "69.36", "0.18", "0.10"]
    assert shown["paper, of 32 bits"][8] == report.percent(0.6936 / 0.6976)


def test_our_cells_are_the_records(known):
    shown = imagenet.table1(known).query("network == 'ResNet-50'").set_index("bits")
    interval = stats.wilson_interval(905, 1000)
    assert shown["ours P (%)"][8] == report.with_interval(interval, 100)
    change = stats.paired_difference_interval(hits(0.91, 1000), hits(0.905, 1000))
    assert shown["change (pp)"][8] == report.with_interval(change, 100)
    assert shown["ours, of 32 bits"][8].startswith(f"{100 * 0.905 / 0.91:.2f} [")


def test_what_is_compared_is_the_share_of_full_precision():
    def verdicts(**shares) -> pd.Series:
        known = ImageNetRecords({"resnet18": accuracy(model="resnet18", **shares)}, {})
        return imagenet.table1(known).query("network == 'ResNet-18'").set_index("bits").verdict

    shown = verdicts()
    assert shown[32] == UNDECIDED  # on other images than the validation set's
    assert shown[16] == shown[8] == REPRODUCED
    assert shown[4] == shown[2] == UNDECIDED  # that both guess is no agreement
    worse = verdicts(**{"8": 0.7, "4": 0.5})
    assert worse[8] == worse[4] == NOT_REPRODUCED


def test_another_network_supports_and_is_never_said_to_reproduce(known):
    tables = [
        imagenet.table1(known).query("network == 'ResNet-50'"), imagenet.table2(known), imagenet.summary_table(known)
    ]  # fmt: skip
    worse = {"16": 0.8, "8": 0.7, "4": 0.5, "2": 0.5, label(SEARCHED): 0.6}
    worse = ImageNetRecords({"resnet50": accuracy(**worse)}, {})
    assert {verdict for table in tables for verdict in table.verdict} == {SUPPORTS, UNDECIDED}
    assert set(imagenet.summary_table(worse).verdict) == {UNDECIDED}


@pytest.mark.parametrize(("count", "level", "verdict"), [(1000, 0.6976, UNDECIDED),
                                                         (50_000, 0.6976, REPRODUCED),
                                                         (50_000, 0.60, NOT_REPRODUCED)])  # fmt: skip
def test_levels_are_compared_on_the_whole_validation_set_alone(count, level, verdict):
    found = ImageNetRecords({"resnet18": accuracy(count, "resnet18", seen=0, **{"32": level})}, {})
    shown = imagenet.table1(found).query("network == 'ResNet-18' and bits == 32")
    assert shown.verdict.item() == verdict


def test_too_few_images_decide_nothing():
    few = ImageNetRecords({"resnet18": accuracy(64, "resnet18", seen=0, **{"8": 0.8})}, {})
    shown = imagenet.table1(few).query("network == 'ResNet-18' and bits == 8")
    assert shown.verdict.item() == UNDECIDED
    claims = imagenet.summary_table(few).set_index("claim").verdict
    assert claims["16 bits lose nothing"] == IN_PART


def test_a_network_without_a_record_says_which_command_makes_it(known):
    shown = imagenet.table1(known).query("network == 'ResNet-18'")
    assert set(shown["ours P (%)"]) == {"no record"} and set(shown.verdict) == {UNDECIDED}
    assert all("quide run exp2_imagenet --profile paper" in reason for reason in shown.reason)


# --- Table 2 ---------------------------------------------------------------------------------------------------------


def test_table_2_holds_uniform_widths_and_scores_at_equal_latency(known):
    table = imagenet.table2(known).set_index("method")
    searched = table.loc["the paper's search"]
    assert (searched["paper P (%)"], searched["paper I'"], searched["C"]) == ("69.36", "0.350", "3.43")
    threshold = metric.accuracy_threshold(0.91, 0.60, 1000)
    ours = (32 / (56 / 6)) * (0.906 - threshold) / (4 * (0.905 - threshold))
    assert searched["ours I' / I'(8), equal T"] == f"{ours:.2f}"
    assert searched["C by size"] == f"{metric.compression_ratio(SEARCHED, SIZES):.2f}"
    assert table.loc["uniform 8", "ours I' / I'(8), equal T"] == "1.00"
    assert table.loc["HAQ (the paper's)", "paper I'"] == "0.225"
    assert table.loc["BRECQ (the paper's)", "paper I'"] == report.UNKNOWN


def test_quantizers_are_compared_image_by_image(known):
    rows = {(facts["quantizer"], facts["bits"]): facts for facts in exp2_imagenet.quantizers(known)}
    assert len(rows) == 2 * len(SCHEMES)
    best, ours = rows["both", 4], rows["our reading of the paper's (quide.PAPER)", 4]
    assert best["accuracy"].estimate == pytest.approx(60) and best["kept"].estimate == pytest.approx(60 / 0.91)
    change = stats.paired_difference_interval(hits(0.002, 200), hits(0.6, 200))
    assert best["change"].low == pytest.approx(100 * change.low) and np.isnan(ours["change"])


# --- sentences, figure, verdicts -------------------------------------------------------------------------------------


def test_the_answer_is_of_the_record_that_is_compared(known):
    facts = exp2_imagenet.answer(known)
    assert (facts["title"], facts["images"], facts["best"]) == ("ResNet-50", 1000, exp2_imagenet.BOTH["both"])
    assert facts["eight"].estimate == pytest.approx(-0.5) and facts["best_kept"].estimate == pytest.approx(0.6 / 0.91)
    assert np.isnan(exp2_imagenet.answer(ImageNetRecords({"resnet50": accuracy()}, {}))["kept"])


def test_the_facts_on_images_are_the_record_s(known):
    (facts,) = exp2_imagenet.images(known)
    assert (facts["images"], facts["calibration"], facts["seen"], facts["seed"]) == (1000, 512, 512, 0)
    assert facts["accuracy"] == 0.91 and not facts["whole"]
    (facts,) = exp2_imagenet.images(ImageNetRecords({"resnet18": accuracy(50_000, "resnet18", seen=0)}, {}))
    assert facts["whole"] and facts["seen"] == 0


def test_images_without_ranges_are_told_apart(known):
    fresh = np.arange(1000) >= 512
    change = stats.paired_difference_interval(hits(0.91, 1000)[fresh], hits(0.905, 1000)[fresh])
    (facts,) = exp2_imagenet.held_out(known)
    assert facts["fresh"] == 488
    found = facts["change"]
    assert [found.estimate, found.low, found.high] == [100 * one for one in (change.estimate, change.low, change.high)]


def test_verdicts_follow_the_numbers(known):
    def verdicts(**shares) -> pd.Series:
        found = ImageNetRecords({"resnet18": accuracy(model="resnet18", **shares)}, {})
        return imagenet.summary_table(found).set_index("claim").verdict

    good, bad = verdicts(), verdicts(**{"16": 0.8, "8": 0.8, "4": 0.6, "2": 0.5, label(SEARCHED): 0.7})
    for claim, verdict in bad.items():
        assert verdict == NOT_REPRODUCED, claim
        assert good[claim] == (NOT_REPRODUCED if claim.startswith("(implied)") else REPRODUCED), claim


def test_the_figure_says_what_it_shows(known):
    figure, alt = exp2_imagenet.figure_accuracy(known)
    assert figure.axes
    assert "ResNet-50, ours: 91.0 at 32" in alt and "both: 90.0 at 8, 60.0 at 4" in alt


# --- no records, or several ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_tables_without_records_are_frames(table):
    assert isinstance(table(NOTHING), pd.DataFrame)


def test_without_records_there_is_nothing_but_what_is_missing():
    assert exp2_imagenet.images(NOTHING) == exp2_imagenet.held_out(NOTHING) == []
    assert exp2_imagenet.answer(NOTHING) == exp2_imagenet.NO_RECORD
    assert imagenet.RERUN in exp2_imagenet.NO_RECORD.command and "QUIDE_IMAGENET" in exp2_imagenet.NO_RECORD.command
    assert imagenet.summary_table(NOTHING).verdict.tolist() == [UNDECIDED]
    figure, alt = exp2_imagenet.figure_accuracy(NOTHING)
    assert figure.axes and alt


def test_the_record_on_most_images_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    for count, seed in itertools.product((100, 900), (1, 0)):
        records.save(accuracy(count, seed=seed, seen=0))
    found = imagenet.found()
    assert (found.accuracy["resnet50"].values["images"], found.accuracy["resnet50"].spec.seed) == (900, 0)
    assert found.used == [found.accuracy["resnet50"]]


def test_a_stale_record_is_shown_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))
    records.save(accuracy(100, seen=0))
    monkeypatch.setattr(staleness, "code", lambda spec: "0" * 16)
    with pytest.warns(records.StaleRecordWarning, match="stale"):
        assert imagenet.found().accuracy


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_only_the_papers_profile_runs_anything(profile, monkeypatch):
    monkeypatch.setenv("QUIDE_IMAGENET", "/nowhere")
    campaign.measure_imagenet(["resnet50"], [0], None, 250, 64, 16, profile)
    monkeypatch.delenv("QUIDE_IMAGENET")
    assert campaign.measure_imagenet(["resnet50"], [0], None, 250, 64, 16, "paper") == []


def test_a_network_that_cannot_be_had_does_not_stop_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_IMAGENET", str(tmp_path))

    def offline(case):
        raise FileNotFoundError(f"{case.model} is nowhere")

    monkeypatch.setattr(imagenet_runs, "accuracy", offline)
    said = campaign.measure_imagenet(["resnet18", "resnet50"], [0, 1], None, 250, 64, 16, "paper")
    assert said == ["ResNet-18 was not run: resnet18 is nowhere.", "ResNet-50 was not run: resnet50 is nowhere."]
