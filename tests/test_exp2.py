"""EXP-2's page: what it says with full records, with those of the short schedule, and with none."""

from __future__ import annotations

import numpy as np
import pytest
from known_records import IMAGES, LATENCY, PROVENANCE, save_accuracy, save_timing

from quide import exp2, metric, paper, records, report, runs, table1

ACCURACY = {"32": 0.95, "16": 0.95, "8": 0.9475, "4": 0.54, "2": 0.10}


def save(profile: str, seed: int, lift: float = 0.0, latency: dict[str, float] = LATENCY) -> None:
    """Records of one seed, its accuracies ``lift`` higher."""
    case = runs.Case(exp2.MODEL, exp2.DATASET, seed, profile)
    save_accuracy(runs.accuracy(case), {name: share + lift for name, share in ACCURACY.items()})
    save_timing(runs.timing(case), 1.0, latency)
    run = runs.training(case)
    history = [{"epoch": epoch, "loss": 1.0, "test_accuracy": 0.5 + epoch / 100} for epoch in range(1, 4)]
    values = {"history": history, "best_epoch": 3, "best_accuracy": 0.53, "last_accuracy": 0.53}
    values |= {"training": {"seconds": 120.0, "provenance": PROVENANCE}}
    records.save(records.Record(run.spec, values, run.code, run.data, PROVENANCE, 1.0))


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What is said, paragraph after paragraph."""
    paragraphs: list[str] = []
    monkeypatch.setattr(report, "say", paragraphs.append)
    return paragraphs


def tables(condition: table1.Condition) -> dict:
    return {
        "accuracy": table1.accuracy_table([condition]),
        "drop": exp2.drop_table(condition),
        "latency": exp2.latency_table(condition),
        "score": table1.score_table([condition]),
        "ranking": table1.ranking_table([condition]),
        "reversal": exp2.reversal_table(condition),
        "knee": table1.knee_table([condition]),
        "summary": exp2.summary_table(condition),
    }


def say_everything(condition: table1.Condition) -> None:
    exp2.say_run(condition, "quick")
    exp2.say_training(condition)
    exp2.say_stated_latency()
    exp2.say_latency(condition)
    exp2.say_reversal(condition)


# --- what is run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_the_embedded_profiles_run_nothing(profile, monkeypatch):
    monkeypatch.setattr(runs.Run, "result", lambda *_: pytest.fail("something was run"))
    assert exp2.run([0, 42], profile) == []


def test_each_seed_is_trained_swept_and_timed(monkeypatch):
    asked = []
    monkeypatch.setattr(runs.Run, "result", lambda run: asked.append((run.spec.kind, run.spec.seed)) or run.spec)
    done = exp2.run([0, 42], "short")
    assert asked == [(kind, seed) for seed in (0, 42) for kind in ("training", "accuracy", "latency")]
    assert [(case.seed, accuracy.kind, timed.kind) for case, accuracy, timed in done] == [
        (0, "accuracy", "latency"), (42, "accuracy", "latency"),
    ]  # fmt: skip


# --- without records -------------------------------------------------------------------------------------------------


def test_without_a_record_the_paper_s_side_and_the_command_are_shown(said):
    condition = exp2.best_known()
    assert condition.measured is None
    say_everything(condition)
    exp2.say_absent()
    assert "no record of ResNet-18" in said[0] and exp2.SHORT in said[0] and exp2.RERUN in said[0]
    assert all("nan" not in text for text in said)
    made = tables(condition)
    assert all(made[name].empty for name in ("latency", "ranking", "knee"))
    for name in ("accuracy", "drop", "summary"):
        assert set(made[name].verdict) == {report.UNDECIDED}, name
        assert all(exp2.RERUN in reason for reason in made[name].iloc[:, -1]), name
    assert made["reversal"].source.tolist() == ["the paper"]
    assert exp2.records_used(condition) == []


def test_the_paper_s_numbers_part_the_two_scores():
    (row,) = exp2.reversal_table(exp2.best_known()).to_dict("records")
    assert (row["I prefers"], row["I' prefers"]) == ("4 bits", "8 bits")


def test_the_paper_s_latencies_are_told_as_the_paper_states_them(said):
    exp2.say_stated_latency()
    stated = [paper.number(f"cifar10-resnet18.latency_ms.{bits}") for bits in (16, 8)]
    assert f"{stated[0]:.2f} ms at 16 bits" in said[0] and f"{stated[1] / stated[0]:.2f} times" in said[0]


# --- with records ----------------------------------------------------------------------------------------------------


def test_full_records_get_verdicts(said):
    for seed, lift in ((0, 0.0), (42, 0.0025), (123, -0.0025)):
        save("paper", seed, lift)
    condition = exp2.best_known()
    assert condition.profile == "paper" and condition.measured.seeds == [0, 42, 123] and not condition.shortened
    made = tables(condition)
    for name, table in made.items():
        assert len(table) and "nan" not in " ".join(table.astype(str).to_numpy().ravel()).lower().split(), name
    verdicts = made["summary"].set_index("claim").verdict
    assert set(verdicts) == {report.REPRODUCED}
    assert len(verdicts) == 9
    say_everything(condition)
    assert "full protocol" in said[0] and "short" not in said[0]
    assert len(exp2.records_used(condition)) == 9 and exp2.made_by(condition) == exp2.RERUN


def test_the_short_schedule_gets_no_verdict_on_what_hangs_on_training(said):
    save("short", 0)
    condition = exp2.best_known()
    assert exp2.made_by(condition) == exp2.SHORT
    assert "short profile" in condition.name
    assert condition.shortened == "trained for 3 epochs, the paper for 100"
    made = tables(condition)
    for name in ("accuracy", "drop", "ranking", "knee"):
        assert set(made[name].verdict) == {report.UNDECIDED}, name
        assert all(condition.shortened in reason for reason in made[name].reason), name
    decided = made["summary"][made["summary"].verdict != report.UNDECIDED]
    assert decided.claim.tolist() == ["CIFAR-10 (short profile): slower when quantized, and as slow at 8 as at 2 bits"]
    say_everything(condition)
    assert condition.shortened in said[0] and exp2.RERUN in said[0]


def test_the_short_schedule_is_never_joined_with_the_full_one():
    save("short", 7)
    save("paper", 0)
    condition = exp2.best_known()
    assert condition.profile == "paper" and condition.measured.seeds == [0]
    assert {record.spec.profile for record in exp2.records_used(condition)} == {"paper"}


def test_the_drop_of_one_seed_has_the_interval_of_its_images():
    save("paper", 0)
    drop = exp2._drop(exp2.best_known(), 4)
    assert drop.estimate == pytest.approx(0.41)
    half = 1.96 * np.sqrt(0.41 * 0.59 / IMAGES)  # 164 images lost, none gained
    assert drop.high - drop.low == pytest.approx(2 * half, rel=0.02)


def test_the_drop_of_several_seeds_has_their_interval():
    save("paper", 0)
    save("paper", 42)
    case = runs.Case(exp2.MODEL, exp2.DATASET, 42, "paper")
    save_accuracy(runs.accuracy(case), ACCURACY | {"4": 0.55})
    drop = exp2._drop(exp2.best_known(), 4)
    assert drop.estimate == pytest.approx(0.405)
    assert drop.high - drop.estimate == pytest.approx(12.7062 * 0.005, rel=1e-4)  # t quantile times standard error


def test_drops_are_told_apart_by_their_origin():
    cells = exp2.drop_table(exp2.best_known()).set_index("bits")["paper: drop (pp)"]
    assert cells[4] == "41.00"  # stated as such
    assert cells[8].endswith("†") and float(cells[8].split()[0]) == pytest.approx(94.93 - 94.84)


@pytest.mark.parametrize(
    ("latency", "verdict"),
    [
        ({}, report.REPRODUCED),
        ({"4": 3.0, "2": 2.5}, report.IN_PART),  # slower, but less so with fewer bits
        ({"8": 2.0, "4": 2.0, "2": 2.0}, report.IN_PART),  # alike, but no slower
        ({"8": 2.0, "4": 1.0, "2": 0.5}, report.NOT_REPRODUCED),  # what narrower arithmetic would show
    ],
)
def test_overhead_is_slower_and_alike_at_all_widths(latency, verdict):
    save("short", 0, latency=LATENCY | latency)
    assert exp2.overhead_verdict(exp2.best_known())[0] == verdict


@pytest.mark.parametrize("eight", [0.5, 0.7, 0.9475])
@pytest.mark.parametrize("four", [0.3, 0.45, 0.54, 0.8])
def test_the_thresholds_at_which_the_scores_part_are_those_of_the_formulas(four, eight):
    """Against the scores themselves on a grid of thresholds, at one latency for both widths."""
    said = exp2._parting({4: four, 8: eight})
    raw = metric.intelligence_index([4, 8], [eight, four], [2.0, 2.0])
    if raw[0] >= raw[1]:
        assert "prefers 8 bits as I' does" in said
        return
    low, high = 2 * four - eight, eight
    if four >= eight:
        assert "both scores prefer them" in said
    else:
        assert f"between {100 * low:.1f} % and {100 * high:.1f} %" in said
    for threshold in np.linspace(0.0, 0.99, 67):
        gated = metric.gated_index([4, 8], [eight, four], [2.0, 2.0], threshold)
        if abs(threshold - low) > 1e-9:
            assert (gated[0] > gated[1]) == (low < threshold < high), threshold


def test_no_width_is_preferred_where_both_score_zero():
    assert exp2._preferred({"gated_index": {8: 0.0, 4: 0.0}}, "gated_index") == "neither"


def test_every_figure_has_caption_and_alt_text_with_numbers():
    save("short", 0)
    condition = exp2.best_known()
    made = [
        table1.figure_components([condition]), table1.figure_index([condition]), table1.figure_knee([condition]),
        exp2.figure_overhead(condition),
    ]  # fmt: skip
    assert len({name for _, name, _, _ in made}) == len(made)
    for _, name, caption, alt in made:
        assert name.startswith("fig-exp2-") and len(caption) > 40 and any(character.isdigit() for character in alt)
    assert "ResNet-18" in made[0][2] and "SimpleCNN" not in made[0][2]
    assert runs.COMMUTED_8 not in made[3][3]
