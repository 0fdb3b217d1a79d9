"""The page of better quantization, from made-up records: steps are paired, knees follow accuracy, claims are judged."""

from __future__ import annotations

import numpy as np
import pytest
from quidebook.pages import better_ptq as page
from quidebook.verdicts import NOT_REPRODUCED, REPRODUCED, SUPPORTS, UNDECIDED

from quide.experiments import ladder, records
from quide.experiments.runs import Case
from quide.models import registry
from quide.stats import Interval, pack_bits

IMAGES, FULL = 1000, 900
PROVENANCE = {"date": "2026-01-01", "git_commit": None, "cpu": "x", "threads": 1, "accelerator": None, "packages": {}}
RIGHT = {  # of a thousand, by rung and width
    "the paper's": {"w8a8": 898, "w4a8": 700, "w4a4": 570, "w3a3": 200, "w2a2": 100},
    "image at 8 bits": {"w8a8": 899, "w4a8": 890, "w4a4": 880, "w3a3": 600, "w2a2": 100},
    "AdaRound": {"w8a8": 900, "w4a8": 899, "w4a4": 897, "w3a3": 880, "w2a2": 300},
    "LSQ": {"w4a4": 898, "w2a2": 870},
}
CHECKS = {"closed": 0.99, "nearest": 4.0, "hard": 1.0}


def save(model, rung, right):
    run = ladder.ladder(Case(*model, 0, "paper"), rung)
    counts = {"32": FULL} | right
    values = {
        "accuracy": {name: count / IMAGES for name, count in counts.items()},
        "correct": {name: pack_bits(np.arange(IMAGES) < count) for name, count in counts.items()},
        "seconds": dict.fromkeys(right, 60.0),
        "checks": {width: CHECKS if rung == "AdaRound" else {} for width in right},
        "threads": 1,
        "images": IMAGES,
    }
    records.save(records.Record(run.spec, values, run.code, run.data, PROVENANCE, 1.0))


@pytest.fixture
def known(no_records):
    for rung, right in RIGHT.items():
        save(page.SUBJECT, rung, right)
    return page.LadderRecords()


def test_the_answer_names_the_best_rung_without_labels(known):
    facts = page.answer(known)
    assert (facts["best"], facts["plain"], facts["careful"]) == ("AdaRound", 0.57, 0.897)
    assert (facts["plain_knee"], facts["knee"]) == (8, 3)
    assert page.lost(known.of(page.SUBJECT)["AdaRound"], "w4a4").estimate == pytest.approx(-0.3)


def test_a_step_is_from_the_rung_below_and_paired(known):
    steps = page.step_table(known).set_index("rung")
    assert list(steps.index) == list(map(page.printed, RIGHT))
    assert steps.loc["AdaRound", "W4A4 (pp)"].startswith("1.70 [")
    assert steps.loc["image at 8 bits", "W4A4 (pp)"] == "–"  # the rung below has no record
    assert steps.loc["LSQ", "knee"] == "–"  # not tried at 8 bits


def test_the_ladder_shows_what_was_tried(known):
    table = page.ladder_table(known).set_index("rung")
    assert table.loc["our reading of the paper's", "W4A4"] == "57.00 %" and table.loc["LSQ", "W8A8"] == "–"
    figure, alt = page.figure_ladder(known)
    assert "AdaRound -0.3" in alt and len(figure.axes) == 1
    (learned,) = page.learned_table(known).to_dict("records")
    assert learned["error against nearest"] == "0.25"


def test_claims_are_judged_by_intervals(known):
    verdicts = page.verdict_table(known).set_index("claim").verdict
    assert verdicts["PTQ at 8 bits costs nearly nothing (white paper)"] == REPRODUCED
    assert verdicts["AdaRound is at least as good as rounding to nearest at 4 bits"] == REPRODUCED
    assert verdicts["Training reaches fewer bits than PTQ (white paper)"] == REPRODUCED
    assert verdicts["8 bits is the knee of complex networks (QuIDE)"] == UNDECIDED  # it is at some rungs


def test_an_interval_that_does_not_tell_supports_nothing():
    assert page._holds(Interval(0.0, -0.4, 0.4)) is True and page._holds(Interval(-3.0, -4.0, -2.0)) is False
    assert page._holds(Interval(0.0, -4.0, 4.0)) is None
    assert page._judged(True, True) == REPRODUCED and page._judged(True, None) == page._judged() == UNDECIDED
    assert page._judged(None, False) == NOT_REPRODUCED


def test_claims_that_fail_are_said_to(known):
    save(page.SUBJECT, "image at 8 bits", RIGHT["image at 8 bits"] | {"w8a8": 800})
    save(page.SUBJECT, "AdaRound", RIGHT["AdaRound"] | {"w4a4": 700, "w3a3": 100})
    save(page.SUBJECT, "LSQ", {"w4a4": 898, "w2a2": 150})
    verdicts = page.verdict_table(page.LadderRecords()).set_index("claim").verdict
    assert list(verdicts)[:3] == [NOT_REPRODUCED] * 3
    assert verdicts.iloc[3] in (SUPPORTS, UNDECIDED)


def test_calibration_sets(known):
    run = ladder.calibration_draws(Case(*ladder.DRAWN_FOR, 0, "paper"))
    names = [f"{name}, {draw}" for name in (*ladder.SIZES, *ladder.STRANGE) for draw in range(ladder.DRAWS)]
    hits = {name: np.arange(IMAGES) < 800 + place % ladder.DRAWS for place, name in enumerate(names)}
    values = {
        "accuracy": {name: float(hit.mean()) for name, hit in hits.items()},
        "correct": {name: pack_bits(hit) for name, hit in hits.items()},
        "images": IMAGES,
    }
    records.save(records.Record(run.spec, values, run.code, run.data, PROVENANCE, 1.0))
    found = page.LadderRecords()
    table = page.draws_table(found)
    assert len(table) == 7 and set(table["worst draw"]) == {"80.00 %"} and set(table["best draw"]) == {"80.90 %"}
    facts = page.draws_facts(found)
    assert facts["one"] == pytest.approx(0.9) and facts["noise"] == pytest.approx(0)


def test_without_records(no_records):
    nothing = page.LadderRecords()
    assert not nothing and page.ladder_table(nothing).empty and page.verdict_table(nothing).empty
    assert page.answer(nothing) == page.NO_RECORD and not page.side_facts(nothing)
    assert not nothing.used


def test_what_others_report_has_a_source():
    table = page.published_table()
    assert (table.source != "").all() and {"AdaRound", "BRECQ", "LSQ"} <= set(table.recipe)


def test_the_idea_of_a_narrower_range_holds():
    _, alt = page.figure_ideas()
    assert "min-max" in alt


def test_the_depthwise_network_is_not_drawn_as_a_ladder_of_one_rung(known):
    save(page.DEPTHWISE, "the paper's", RIGHT["the paper's"])
    assert len(page.figure_ladder(page.LadderRecords())[0].axes) == 1


def test_the_figure_stands_where_one_rung_has_been_run(no_records):
    save(page.SUBJECT, "the paper's", RIGHT["the paper's"])
    assert len(page.figure_ladder(page.LadderRecords())[0].axes) == 1


@pytest.mark.parametrize(
    ("without", "equalized", "verdict"),
    [(600, 898, SUPPORTS), (600, 610, NOT_REPRODUCED), (899, 900, UNDECIDED)],
)
def test_equalization_is_judged_where_there_is_something_to_win_back(known, without, equalized, verdict):
    for rung, right in zip(ladder.BESIDE, (without, equalized), strict=False):
        save(page.DEPTHWISE, rung.name, dict.fromkeys(page.WIDTHS, right))
    table = page.verdict_table(page.LadderRecords()).set_index("claim").verdict
    assert table[[claim for claim in table.index if "depthwise" in claim]].tolist() == [verdict]
    facts = page.depthwise_facts(page.LadderRecords())
    assert (facts["epochs"], facts["full"]) == (registry.row(*page.DEPTHWISE).recipe.epochs, FULL / IMAGES)
    assert (facts["plain"], facts["equalized"]) == (without / IMAGES, equalized / IMAGES)
