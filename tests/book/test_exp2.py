"""EXP-2's page: facts and verdicts with full records, with those of the short schedule, and with none."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from known_records import IMAGES, LATENCY, PROVENANCE, save_accuracy, save_timing
from quidebook.evidence.conditions import Condition
from quidebook.pages import exp2_resnet18 as exp2
from quidebook.report import Absent
from quidebook.shared import claims, residual, table1
from quidebook.shared.landscape import BY_SIZE, NOMINAL
from quidebook.verdicts import NOISY, NOT_REPRODUCED, REPRODUCED, SUPPORTS, UNDECIDED

from quide import metric
from quide.experiments import campaign, mixed, paper, records, runs
from quide.ptq.width import label
from quide.stats import pack_bits

pytestmark = pytest.mark.usefixtures("no_records")

ACCURACY = {"32": 0.95, "16": 0.95, "8": 0.9475, "4": 0.54, "2": 0.10}


def save(profile: str, seed: int, lift: float = 0.0, latency: dict[str, float] = LATENCY) -> None:
    """Records of one seed, its accuracies ``lift`` higher."""
    case = runs.Case(exp2.MODEL, exp2.DATASET, seed, profile, epochs=3 if profile == "short" else None)
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
            save_accuracy(campaign.sited(case, site), {"32": 0.92, "8": 0.92, "4": share + lift})


def tables(found: list[Condition]) -> dict:
    return {
        "accuracy": table1.accuracy_table(found),
        "drop": exp2._accuracies(found),
        "latency": table1.latency_table(found).replace(exp2.SHOWN),
        "score": table1.score_table(found),
        "ranking": table1.ranking_table(found),
        "reversal": exp2.reversal_table(found),
        "knee": table1.knee_table(found),
        "summary": residual.summary_table(found),
    }


# --- without records -------------------------------------------------------------------------------------------------


def test_without_a_record_the_paper_s_side_and_the_command_are_shown():
    (condition,) = found = residual.known()
    assert condition.measured is None
    assert exp2.published(found) == Absent("the published ResNet-20 (Y. Idelbayev's pytorch_resnet_cifar10, on GitHub)",
                                           exp2.BESIDE)  # fmt: skip
    assert exp2.trained(condition) == [] and isinstance(exp2.parted(found), Absent)
    made = tables([condition])
    assert all(made[name].empty for name in ("latency", "ranking", "knee", "drop"))
    for name in ("accuracy", "summary"):
        assert set(made[name].verdict) == {UNDECIDED}, name
        assert all(exp2.RERUN in reason for reason in made[name].iloc[:, -1]), name
    assert made["reversal"].source.tolist() == ["the paper's ResNet-18"]
    assert [facts["kind"] for facts in exp2.partings(found)] == ["part"]
    assert residual.records_used([condition]) == []


def test_the_paper_s_numbers_part_the_two_scores():
    (row,) = exp2.reversal_table(residual.known()).to_dict("records")
    assert (row["I prefers"], row["I' prefers"]) == ("4 bits", "8 bits")


def test_the_paper_s_latencies_are_told_as_the_paper_states_them():
    stated = [paper.number(f"cifar10-resnet18.latency_ms.{bits}") for bits in (16, 8, 4, 2)]
    facts = residual.stated_latency()
    assert [facts[name] for name in ("sixteen", "eight", "four", "two")] == stated
    assert facts["ratio"] == stated[1] / stated[0]


# --- with records ----------------------------------------------------------------------------------------------------


def test_full_records_get_verdicts():
    for seed, lift in ((0, 0.0), (42, 0.0025), (123, -0.0025)):
        save("paper", seed, lift)
    condition = residual.best_known()
    assert condition.profile == "paper" and condition.measured.seeds == [0, 42, 123] and not condition.shortened
    made = tables([condition])
    for name, table in made.items():
        assert len(table) and "nan" not in " ".join(table.astype(str).to_numpy().ravel()).lower().split(), name
    verdicts = made["summary"].set_index("claim").verdict
    assert verdicts.pop("CIFAR-10: slower at 8 than at 16 bits") == UNDECIDED  # a CPU emulates float16
    assert set(verdicts) == {REPRODUCED}
    assert len(verdicts) == 9
    assert len(residual.records_used([condition])) == 9 and exp2.made_by([condition]) == [exp2.RERUN]


def test_a_short_training_as_accurate_as_the_paper_s_is_its_network_and_says_its_schedule():
    save("short", 0)
    table = residual.summary_table([residual.best_known()]).set_index("claim")
    assert set(table.verdict) == {REPRODUCED, UNDECIDED}  # the clock of a CPU decides nothing about 16 bits
    evidence = table.evidence["ResNet-18, 3 epochs: the knee is 8-bit"]
    assert evidence.endswith("; 3 of 100 epochs")


def test_a_short_training_that_ended_some_points_below_supports_at_most():
    save("short", 0, lift=-0.03)
    verdicts = residual.summary_table([residual.best_known()]).set_index("claim").verdict
    assert set(verdicts) == {SUPPORTS, UNDECIDED}  # its latency, which no training changes, too
    assert verdicts["ResNet-18, 3 epochs: 4 bits lose 41 pp"] == UNDECIDED


def test_a_short_training_far_below_gets_no_verdict_on_what_depends_on_it():
    save("short", 0, lift=-0.06)
    condition = residual.best_known()
    assert exp2.made_by([condition]) == [exp2.SHORT]
    assert condition.name == "ResNet-18, 3 epochs" and condition.shortened == (3, 100)
    made = tables([condition])
    for name in ("accuracy", "drop", "ranking", "knee"):
        assert set(made[name].verdict) == {UNDECIDED}, name
    decided = made["summary"][made["summary"].verdict != UNDECIDED]
    assert decided.claim.tolist() == ["ResNet-18, 3 epochs: as slow at 8 as at 2 bits"]
    (facts,) = exp2.trained(condition)
    assert (facts["epochs"], facts["of"], facts["minutes"]) == (3, 100, 2.0)
    assert (facts["best"], facts["stated"]) == (0.53, 0.9493)


def test_a_training_that_ended_far_below_the_paper_is_set_apart():
    save("short", 0, lift=-0.1)
    save_published()
    low, published = residual.known()
    assert exp2.apart([low, published]) == ([published], [low])
    save("short", 0)  # as few epochs, as accurate as the paper's
    high = residual.best_known()
    assert high.shortened and exp2.apart([high, published]) == ([high, published], [])
    assert "verdict" in exp2.accuracy_table([high, published])
    assert "verdict" not in exp2.accuracy_table([published])  # where none is given, no column says so


def test_the_short_schedule_is_never_joined_with_the_full_one():
    save("short", 7)
    save("paper", 0)
    condition = residual.best_known()
    assert condition.profile == "paper" and condition.measured.seeds == [0]
    assert {record.spec.profile for record in residual.records_used([condition])} == {"paper"}


# --- the published network --------------------------------------------------------------------------------------------


def test_the_published_network_supports_claims_and_gets_no_tick():
    save("short", 0)
    save_published()
    found = residual.known()
    published = found[1]
    assert [condition.name for condition in found] == ["ResNet-18, 3 epochs", "ResNet-20"]
    assert published.measured.seeds == [0, 42, 123] and published.shortened is None
    made = tables(found)
    for name, table in made.items():
        assert "nan" not in " ".join(table.astype(str).to_numpy().ravel()).lower().split(), name
    levels = made["accuracy"][made["accuracy"].condition == published.name].set_index("bits")
    assert set(levels.verdict) == {UNDECIDED}
    drops = made["drop"][made["drop"].network == published.network]
    assert set(drops.verdict) == {UNDECIDED}
    verdicts = made["summary"][made["summary"].claim.str.startswith(published.name)].set_index("claim").verdict
    supported = {claim.partition(": ")[2] for claim, verdict in verdicts.items() if verdict == SUPPORTS}
    assert supported == {
        "collapse to chance at 2 bits", "16 bits lose nothing", "stable through 8 bits", "the knee is 8-bit",
        "I prefers 4 bits to 8, I' 8 to 4", "as slow at 8 as at 2 bits",
    }  # fmt: skip
    assert set(verdicts) == {SUPPORTS, UNDECIDED}
    facts = exp2.published(found)
    assert (facts["title"], facts["accuracy"], facts["seeds"], facts["images"]) == ("ResNet-20", 0.92, 3, 512)
    assert exp2.made_by(found) == [exp2.SHORT, exp2.BESIDE]


def test_one_timing_serves_all_calibration_draws_and_is_counted_once():
    save_published()
    published = residual.known()[1]
    assert len(published.measured.timed) == 1
    assert np.ptp(published.measured.latencies, axis=0).max() == 0
    assert "±" not in "".join(table1.score_table([published])["ours T (ms)"])  # there is nothing to spread
    used = residual.records_used(residual.known())
    assert len({record.key for record in used}) == len(used) == 3 * 3 + 1


def test_the_drop_of_a_published_network_has_the_interval_of_its_images():
    save_published(seeds=(0,), four=0.5)
    drop = residual.drop(residual.known()[1], 4)
    assert drop.estimate == pytest.approx(0.42)
    assert drop.high - drop.low == pytest.approx(2 * 1.96 * np.sqrt(0.42 * 0.58 / IMAGES), rel=0.02)


def test_where_activations_are_rounded_decides_what_the_scores_prefer():
    save_published(four=0.45)
    rows = exp2.site_table(residual.known()).set_index("activations rounded")
    assert rows.index.tolist() == list(exp2.SITES.values()) and set(rows.draws) == {3}
    assert rows["4 bits (%)"].tolist() == ["45.25 ± 0.25", "70.25 ± 0.25", "90.25 ± 0.25"]
    assert rows["I prefers"].tolist() == ["8 bits", "4 bits", "4 bits"]  # at half of 92 % they score the same
    assert rows["I' prefers"].tolist() == ["8 bits", "4 bits", "4 bits"]
    assert exp2.site_table(residual.known()[:1]).empty


def test_the_parts_widths_are_ranked_and_the_search_is_held_against_all_of_them(monkeypatch):
    run = mixed.by_stages(runs.Case(exp2.PUBLISHED, exp2.DATASET, 0, "paper"), choices=(8, 4))
    widths = list(itertools.product((8, 4), repeat=3))
    right = {each: 910 - 100 * each.count(4) + 60 * (each[2] == 4) for each in widths}  # the last part loses least
    hits = np.stack([np.arange(1000) < right[each] for each in widths], axis=1)
    values = {
        "configurations": [label(each) for each in widths],
        "accuracy": [right[each] / 1000 for each in widths],
        "correct": pack_bits(hits.ravel()),
        "full_precision_accuracy": 0.92,
        "full_precision_correct": pack_bits(np.arange(1000) < 920),
        "images": 1000,
        "groups": ["conv1", "layer1", "linear"],
        "num_weights": [10, 100, 1000],
    }
    record = records.Record(run.spec, values, run.code, run.data, PROVENANCE, 1.0)
    land = mixed.staged(runs.Case(exp2.PUBLISHED, exp2.DATASET, 0, "paper"), record)
    monkeypatch.setattr(residual, "staged", lambda found: {"ResNet-20": (record, land)})
    table = exp2.stages_table([]).set_index("C")
    for counting, sizes in ((NOMINAL, None), (BY_SIZE, values["num_weights"])):
        score = {each: metric.compression_ratio(each, sizes) * (right[each] / 1000 - land.threshold) for each in widths}
        ranked = sorted(score, key=score.get, reverse=True)
        assert table.at[counting, "highest I'"] == label(ranked[0])
        places = [1 + ranked.index((bits,) * 3) for bits in (8, 4)]
        assert table.at[counting, "uniform 8, 4: ranks"] == f"{places[0]}, {places[1]}"
    assert set(table["search finds it"]) == {f"{exp2.SEARCHES} of {exp2.SEARCHES} seeds"}
    (facts,) = exp2.staged([])
    assert (facts["configurations"], facts["images"], facts["parts"]) == (8, 1000, "conv1, layer1, linear")


def test_the_places_where_the_scores_part_are_told_from_the_others():
    save_published(four=0.55)
    facts = exp2.parted(residual.known())
    assert facts["different"] == residual.SITES["output"]
    assert facts["same"] == f"{residual.SITES['relu']} or {residual.SITES['input']}"


def test_both_networks_are_drawn_side_by_side():
    save("short", 0)
    save_published()
    figure, alt = exp2.figure_overhead(residual.known())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ResNet-18", "ResNet-20"]
    assert "ResNet-18: 16" in alt and "ResNet-20: 16" in alt and "in integers" not in alt  # without its records


# --- its parts --------------------------------------------------------------------------------------------------------


def test_the_drop_of_one_seed_has_the_interval_of_its_images():
    save("paper", 0)
    drop = residual.drop(residual.best_known(), 4)
    assert drop.estimate == pytest.approx(0.41)
    half = 1.96 * np.sqrt(0.41 * 0.59 / IMAGES)  # 164 images lost, none gained
    assert drop.high - drop.low == pytest.approx(2 * half, rel=0.02)


def test_the_drop_of_several_seeds_has_their_interval():
    save("paper", 0)
    save("paper", 42)
    case = runs.Case(exp2.MODEL, exp2.DATASET, 42, "paper")
    save_accuracy(runs.accuracy(case), ACCURACY | {"4": 0.55})
    drop = residual.drop(residual.best_known(), 4)
    assert drop.estimate == pytest.approx(0.405)
    assert drop.high - drop.estimate == pytest.approx(12.7062 * 0.005, rel=1e-4)  # t quantile times standard error


def test_drops_are_told_apart_by_their_origin():
    save("paper", 0)
    cells = exp2.accuracy_table(residual.known()).set_index("bits")["paper: drop"]
    assert cells[4] == "41.00"  # stated as such
    assert cells[8].endswith("†") and float(cells[8].split()[0]) == pytest.approx(94.93 - 94.84)


@pytest.mark.parametrize(
    ("latency", "verdict"),
    [
        ({}, REPRODUCED),
        ({"8": 2.0, "4": 2.0, "2": 2.0}, REPRODUCED),  # alike, whether slower than 32 bits or not
        ({"4": 3.0, "2": 2.5}, NOT_REPRODUCED),  # less so with fewer bits
        ({"8": 2.0, "4": 1.0, "2": 0.5}, NOT_REPRODUCED),  # what narrower arithmetic would show
    ],
)
def test_rounding_takes_the_same_time_at_all_widths(latency, verdict):
    save("short", 0, latency=LATENCY | latency)
    assert residual.alike_verdict(residual.best_known())[0] == verdict


def noisy(condition: Condition) -> Condition:
    return replace(condition, measured=replace(condition.measured, noisy=("others",)))


def test_a_noisy_clock_ranks_nothing():
    save("paper", 0)
    save_published()
    for condition in map(noisy, residual.known()):
        orders = table1.ranking_table([condition])
        assert set(orders[orders.reason != "no order stated"].verdict) == {NOISY}
        assert residual.alike_verdict(condition)[0] == NOISY
        assert residual.reversal_verdict(condition)[0] in (REPRODUCED, SUPPORTS)  # which needs no clock


@pytest.mark.parametrize(("sixteen", "verdict"), [(1.5, REPRODUCED), (3.9, NOT_REPRODUCED), (9.0, NOT_REPRODUCED)])
def test_8_bits_are_compared_with_16_on_a_device_that_computes_in_float16(sixteen, verdict):
    save("paper", 0, latency=LATENCY | {"16": sixteen})
    condition = residual.best_known()
    assert residual.slower_verdict(condition)[0] == UNDECIDED
    timed = condition.measured.timed[0]
    details = {**timed.spec.details, "environment": {**timed.spec.details["environment"], "device": "cuda"}}
    elsewhere = replace(timed, spec=replace(timed.spec, details=details))
    others = [record for record in condition.measured.records if record is not timed]
    measured = replace(condition.measured, records=[*others, elsewhere])
    assert residual.slower_verdict(replace(condition, measured=measured))[0] == verdict


@pytest.mark.parametrize(("two", "verdict"), [(0.08, REPRODUCED), (0.11, REPRODUCED),
                                              (0.1125, NOT_REPRODUCED)])  # fmt: skip
def test_a_collapse_is_no_more_than_guessing(two, verdict):
    save("paper", 0)
    save_accuracy(runs.accuracy(runs.Case(exp2.MODEL, exp2.DATASET, 0, "paper")), ACCURACY | {"2": two})
    assert claims.collapse(residual.best_known(), 2)[0] == verdict
    table = table1.accuracy_table([residual.best_known()]).set_index("bits")
    assert (table.verdict[2] == UNDECIDED) == (verdict == REPRODUCED)  # that both guess is no agreement


@pytest.mark.parametrize("eight", [0.5, 0.7, 0.9475])
@pytest.mark.parametrize("four", [0.3, 0.45, 0.54, 0.8])
def test_the_thresholds_at_which_the_scores_part_are_those_of_the_formulas(four, eight):
    """Against the scores themselves on a grid of thresholds, at one latency for both widths."""
    facts = exp2.parting({4: four, 8: eight})
    raw = metric.intelligence_index([4, 8], [eight, four], [2.0, 2.0])
    if raw[0] >= raw[1]:
        assert facts["kind"] == "8"
        return
    low, high = 2 * four - eight, eight
    assert facts == {"kind": "4" if four >= eight else "part", "low": low, "high": high}
    for threshold in np.linspace(0.0, 0.99, 67):
        gated = metric.gated_index([4, 8], [eight, four], [2.0, 2.0], threshold)
        if abs(threshold - low) > 1e-9:
            assert (gated[0] > gated[1]) == (low < threshold < high), threshold


def test_no_width_is_preferred_where_both_score_zero():
    assert residual.preferred({8: 0.0, 4: 0.0}) == "neither"


def test_what_is_seen_of_every_figure_is_said_in_numbers():
    save("short", 0)
    condition = residual.best_known()
    made = [
        table1.figure_components([condition]), table1.figure_index([condition]),
        exp2.figure_overhead([condition]),
    ]  # fmt: skip
    assert all(any(character.isdigit() for character in alt) for _, alt in made)
    assert runs.COMMUTED_8 not in made[-1][1]
