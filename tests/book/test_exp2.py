"""EXP-2's page: what it says with full records, with those of the short schedule, and with none."""

from __future__ import annotations

import numpy as np
import pytest
from known_records import IMAGES, LATENCY, PROVENANCE, save_accuracy, save_timing
from quidebook import report
from quidebook.pages import exp2_resnet18 as exp2
from quidebook.shared import table1

from quide import metric
from quide.experiments import paper, records, runs

pytestmark = pytest.mark.usefixtures("no_records")

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


def save_published(seeds=(0, 42, 123), four: float = 0.6) -> None:
    """Records of the published network, timed once as it is run."""
    cases = [runs.Case(exp2.PUBLISHED, exp2.DATASET, seed, "paper") for seed in seeds]
    save_timing(runs.timing(cases[0]), 1.0)
    for place, case in enumerate(cases):
        lift = 0.0025 * place
        save_accuracy(runs.accuracy(case), {"32": 0.92, "16": 0.92, "8": 0.92, "4": four + lift, "2": 0.1})
        for site, share in (("relu", 0.7), ("input", 0.9)):
            save_accuracy(exp2.sited(case, site), {"32": 0.92, "8": 0.92, "4": share + lift})


def tables(found: list[table1.Condition]) -> dict:
    return {
        "accuracy": table1.accuracy_table(found),
        "drop": exp2.drop_table(found),
        "latency": exp2.latency_table(found),
        "score": table1.score_table(found),
        "ranking": table1.ranking_table(found),
        "reversal": exp2.reversal_table(found),
        "knee": table1.knee_table(found),
        "summary": exp2.summary_table(found),
    }


def say_everything(found: list[table1.Condition]) -> None:
    exp2.say_run(found[0], "quick")
    exp2.say_training(found[0])
    exp2.say_stated_latency()
    exp2.say_latency(found)
    exp2.say_reversal(found)
    exp2.say_published(found)


# --- what is run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_the_embedded_profiles_run_nothing(profile, monkeypatch):
    monkeypatch.setattr(runs.Run, "result", lambda *_: pytest.fail("something was run"))
    assert exp2.run([exp2.MODEL, exp2.PUBLISHED], [0, 42], profile) == []


def test_each_seed_is_trained_swept_and_timed(monkeypatch):
    asked = []
    monkeypatch.setattr(runs.Run, "result", lambda run: asked.append((run.spec.kind, run.spec.seed)) or run.spec)
    done = exp2.run([exp2.MODEL], [0, 42], "short")
    whole = [(kind, seed) for seed in (0, 42) for kind in ("training", "accuracy", "latency")]
    assert asked == [*whole, ("deployed", 0)]
    assert [(case.seed, accuracy.kind, timed.kind) for case, accuracy, timed in done] == [
        (0, "accuracy", "latency"), (42, "accuracy", "latency"),
    ]  # fmt: skip


@pytest.mark.parametrize("profile", ["short", "paper"])
def test_the_published_network_is_swept_by_the_paper_s_protocol_and_timed_once(profile, monkeypatch):
    asked = []

    def result(run):
        site = run.spec.details.get("scheme", {}).get("activation_site")
        asked.append((run.spec.kind, run.spec.seed, run.spec.profile, site))
        return run.spec

    monkeypatch.setattr(runs.Run, "result", result)
    done = exp2.run([exp2.PUBLISHED], [0, 42], profile)
    assert [(case.model, case.seed, timed.seed) for case, _, timed in done] == [("resnet20", 0, 0), ("resnet20", 42, 0)]
    assert {name for _, _, name, _ in asked} == {"paper"}
    assert {(kind, seed) for kind, seed, _, _ in asked if kind != "accuracy"} == {("latency", 0), ("deployed", 0)}
    assert {(seed, site) for kind, seed, _, site in asked if kind == "accuracy"} == {
        (seed, site) for seed in (0, 42) for site in ("output", "relu", "input")
    }


def test_weights_that_cannot_be_had_are_said_and_stop_nothing(monkeypatch, said):
    def result(run):
        raise FileNotFoundError("put that file into a folder")

    monkeypatch.setattr(runs.Run, "result", result)
    assert exp2.run([exp2.PUBLISHED], [0], "paper") == []
    assert said == ["ResNet-20 was not run: put that file into a folder."]


def test_without_the_extra_the_rest_is_run(monkeypatch, said):
    def result(run):
        if run.spec.kind == "deployed":
            raise ModuleNotFoundError("onnxruntime is missing")
        return run.spec

    monkeypatch.setattr(runs.Run, "result", result)
    assert len(exp2.run([exp2.MODEL, exp2.PUBLISHED], [0], "short")) == 2
    assert said == ["Real 8-bit arithmetic was not timed: onnxruntime is missing."]


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="models must be of resnet18, resnet20, got 'vgg'"):
        exp2.run(["vgg"], [0], "quick")


# --- without records -------------------------------------------------------------------------------------------------


def test_without_a_record_the_paper_s_side_and_the_command_are_shown(said):
    (condition,) = found = exp2.known()
    assert condition.measured is None
    say_everything(found)
    exp2.show_overhead(found)
    assert "no record of ResNet-18" in said[0] and exp2.SHORT in said[0] and exp2.RERUN in said[0]
    assert "published ResNet-20" in said[-2] and exp2.BESIDE in said[-2] and exp2.RERUN in said[-1]
    assert all("nan" not in text for text in said)
    made = tables([condition])
    assert all(made[name].empty for name in ("latency", "ranking", "knee"))
    for name in ("accuracy", "drop", "summary"):
        assert set(made[name].verdict) == {report.UNDECIDED}, name
        assert all(exp2.RERUN in reason for reason in made[name].iloc[:, -1]), name
    assert made["reversal"].source.tolist() == ["the paper"]
    assert exp2.records_used([condition]) == []


def test_the_paper_s_numbers_part_the_two_scores():
    (row,) = exp2.reversal_table(exp2.known()).to_dict("records")
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
    made = tables([condition])
    for name, table in made.items():
        assert len(table) and "nan" not in " ".join(table.astype(str).to_numpy().ravel()).lower().split(), name
    verdicts = made["summary"].set_index("claim").verdict
    assert set(verdicts) == {report.REPRODUCED}
    assert len(verdicts) == 9
    say_everything([condition])
    assert "full protocol" in said[0] and "short" not in said[0]
    assert len(exp2.records_used([condition])) == 9 and exp2.made_by([condition]) == [exp2.RERUN]


def test_the_short_schedule_gets_no_verdict_on_what_hangs_on_training(said):
    save("short", 0)
    condition = exp2.best_known()
    assert exp2.made_by([condition]) == [exp2.SHORT]
    assert "short profile" in condition.name
    assert condition.shortened == "trained for 3 epochs, the paper for 100"
    made = tables([condition])
    for name in ("accuracy", "drop", "ranking", "knee"):
        assert set(made[name].verdict) == {report.UNDECIDED}, name
        assert all(condition.shortened in reason for reason in made[name].reason), name
    decided = made["summary"][made["summary"].verdict != report.UNDECIDED]
    assert decided.claim.tolist() == ["CIFAR-10 (short profile): slower when quantized, and as slow at 8 as at 2 bits"]
    say_everything([condition])
    assert condition.shortened in said[0] and exp2.RERUN in said[0]


def test_the_short_schedule_is_never_joined_with_the_full_one():
    save("short", 7)
    save("paper", 0)
    condition = exp2.best_known()
    assert condition.profile == "paper" and condition.measured.seeds == [0]
    assert {record.spec.profile for record in exp2.records_used([condition])} == {"paper"}


# --- the published network --------------------------------------------------------------------------------------------


def test_the_published_network_gets_verdicts_on_orders_and_none_on_levels(said):
    save("short", 0)
    save_published()
    found = exp2.known()
    published = found[1]
    assert [condition.name for condition in found] == ["CIFAR-10 (short profile)", "CIFAR-10 (ResNet-20)"]
    assert published.measured.seeds == [0, 42, 123] and published.shortened == ""
    made = tables(found)
    for name, table in made.items():
        assert "nan" not in " ".join(table.astype(str).to_numpy().ravel()).lower().split(), name
    levels = made["accuracy"][made["accuracy"].condition == published.name].set_index("bits")
    assert all(reason.endswith("another network than the paper's") for reason in levels.reason)
    assert set(levels.verdict) == {report.UNDECIDED}
    drops = made["drop"][made["drop"].condition == published.name]
    assert set(drops.verdict) == {report.UNDECIDED}
    claims = made["summary"][made["summary"].claim.str.startswith(published.name)].set_index("claim").verdict
    decided = {claim.partition(": ")[2] for claim, verdict in claims.items() if verdict == report.REPRODUCED}
    assert decided == {
        "collapse to chance at 2 bits", "16 bits loses nothing", "stable through 8 bits", "the knee is 8-bit",
        "I prefers 4 bits to 8, I' 8 to 4", "slower when quantized, and as slow at 8 as at 2 bits",
    }  # fmt: skip
    assert set(claims) == {report.REPRODUCED, report.UNDECIDED}
    say_everything(found)
    assert "ResNet-20" in said[-1] and "92.00 %" in said[-1] and "3 draws of 512" in said[-1]
    assert exp2.made_by(found) == [exp2.SHORT, exp2.BESIDE]


def test_one_timing_serves_all_calibration_draws_and_is_counted_once():
    save_published()
    published = exp2.known()[1]
    assert len(published.timed) == 1
    assert np.ptp(published.measured.latencies, axis=0).max() == 0
    assert "±" not in "".join(table1.score_table([published])["ours T (ms)"])  # there is nothing to spread
    used = exp2.records_used(exp2.known())
    assert len({record.key for record in used}) == len(used) == 3 * 3 + 1


def test_the_drop_of_a_published_network_has_the_interval_of_its_images():
    save_published(seeds=(0,), four=0.5)
    drop = exp2._drop(exp2.known()[1], 4)
    assert drop.estimate == pytest.approx(0.42)
    assert drop.high - drop.low == pytest.approx(2 * 1.96 * np.sqrt(0.42 * 0.58 / IMAGES), rel=0.02)


def test_where_activations_are_rounded_decides_what_the_scores_prefer():
    save_published(four=0.45)
    rows = exp2.site_table(exp2.known()).set_index("activations rounded")
    assert rows.index.tolist() == list(exp2.SITES.values()) and set(rows.draws) == {3}
    assert rows["4 bits (%)"].tolist() == ["45.25 ± 0.25", "70.25 ± 0.25", "90.25 ± 0.25"]
    assert rows["I prefers"].tolist() == ["8 bits", "4 bits", "4 bits"]  # at half of 92 % they score the same
    assert rows["I' prefers"].tolist() == ["8 bits", "4 bits", "4 bits"]
    assert exp2.site_table(exp2.known()[:1]).empty


def test_the_sentence_on_sites_counts_where_the_scores_part(said):
    save_published(four=0.55)
    exp2.say_sites(exp2.known())
    assert "before its ReLU (the paper's)" in said[0] and "after its ReLU, at its input" in said[0]
    exp2.say_sites(exp2.known()[:1])
    assert len(said) == 1


def test_both_networks_are_drawn_side_by_side():
    save("short", 0)
    save_published()
    figure, _, _, alt = exp2.figure_overhead(exp2.known())
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["ResNet-18", "ResNet-20"]
    assert "ResNet-18, 16" in alt and "ResNet-20, 16" in alt


# --- its parts --------------------------------------------------------------------------------------------------------


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
    cells = exp2.drop_table(exp2.known()).set_index("bits")["paper: drop (pp)"]
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


@pytest.mark.parametrize(("two", "verdict"), [(0.08, report.REPRODUCED), (0.11, report.REPRODUCED),
                                              (0.1125, report.NOT_REPRODUCED)])  # fmt: skip
def test_a_collapse_is_no_more_than_guessing(two, verdict):
    save("paper", 0)
    save_accuracy(runs.accuracy(runs.Case(exp2.MODEL, exp2.DATASET, 0, "paper")), ACCURACY | {"2": two})
    assert table1.collapse_verdict(exp2.best_known(), 2) == (verdict, f"ours {100 * two:.2f} %, guessing 10 %")


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
        exp2.figure_overhead([condition]),
    ]  # fmt: skip
    assert len({name for _, name, _, _ in made}) == len(made)
    for _, name, caption, alt in made:
        assert name.startswith("fig-exp2-") and len(caption) > 40 and any(character.isdigit() for character in alt)
    assert "ResNet-18" in made[0][2] and "SimpleCNN" not in made[0][2]
    assert runs.COMMUTED_8 not in made[3][3]
