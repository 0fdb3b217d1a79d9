"""The page of evidence: every exhibit is judged and placed, verdicts follow from the parts, what is missing is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from known_results import condition, landscape
from notebook_outputs import headings
from quidebook.evidence.conditions import NAMES, Condition
from quidebook.pages import every_table_and_figure as overview
from quidebook.report import UNKNOWN
from quidebook.shared import answer, imagenet, language
from quidebook.shared import landscape as shared
from quidebook.shared.imagenet import ImageNetRecords
from quidebook.verdicts import ABSENT, IN_PART, NOISY, NOT_REPRODUCED, REPRODUCED, SUPPORTS, UNDECIDED

from quide import metric
from quide.experiments import paper, runs
from quide.experiments.mixed import Landscape
from quide.experiments.profiles import PROFILES

NOTHING = ImageNetRecords({}, {}), language.LanguageRecords([], [], [], {})


def known(measured=(), truth=None) -> overview.Known:
    """As if these conditions of SimpleCNN were all that was measured."""
    found = {each.condition: each for each in measured}
    conditions = [
        Condition("simplecnn", dataset, "paper", found.get(f"{dataset}-simplecnn"), "quide run exp1")
        for dataset in NAMES
    ]
    conditions.append(Condition("resnet18", "cifar10", "none", None, "quide run exp2"))
    return overview.Known(conditions, [], *NOTHING, list(measured), truth)


def test_every_exhibit_of_the_paper_is_judged_and_has_a_place():
    exhibits = list(paper.exhibits().index)
    assert list(overview.JUDGES) == sorted(exhibits, key=exhibits.index)
    assert list(overview.PLACES) == exhibits


def test_every_place_is_a_section_of_a_page(checkout):
    for exhibit, places in overview.PLACES.items():
        present = [place for place in places if (checkout / "notebooks" / f"{place[0]}.ipynb").exists()]
        assert present, exhibit
        for page, section, _ in present:
            assert not section or section in headings(checkout / "notebooks" / f"{page}.ipynb"), (exhibit, section)
        assert len(overview.links(exhibit).targets) == len(present)


@pytest.mark.parametrize(
    ("parts", "missing", "verdict"),
    [
        ([REPRODUCED, REPRODUCED, UNDECIDED], [], REPRODUCED),
        ([REPRODUCED, REPRODUCED], ["a condition"], IN_PART),
        ([REPRODUCED, NOT_REPRODUCED], [], IN_PART),
        ([REPRODUCED, IN_PART], [], IN_PART),
        ([NOT_REPRODUCED, UNDECIDED], ["a condition"], NOT_REPRODUCED),
        ([SUPPORTS, UNDECIDED], ["a condition"], SUPPORTS),
        ([SUPPORTS, NOT_REPRODUCED], [], NOT_REPRODUCED),
        ([SUPPORTS, REPRODUCED], ["a condition"], IN_PART),
        ([UNDECIDED], [], UNDECIDED),
        ([], ["a condition"], UNDECIDED),
        ([REPRODUCED, NOISY], [], REPRODUCED),
        ([NOT_REPRODUCED, NOISY], [], NOT_REPRODUCED),  # a noisy clock makes no verdict milder
        ([NOISY, UNDECIDED], [], NOISY),
    ],
)
def test_the_verdict_follows_from_the_parts(parts, missing, verdict):
    assert answer.judged(parts, missing) == verdict


def test_without_records_nothing_is_said_to_reproduce():
    rows = overview.table(known(), dict.fromkeys(overview.JUDGES, "{missing}"))
    assert set(rows["verdict"]) == {UNDECIDED, ABSENT}
    assert rows.set_index("exhibit").at["Table 3", "verdict"] == ABSENT


def test_a_condition_that_was_not_measured_keeps_an_exhibit_in_part():
    found = known([condition()])
    assert overview.JUDGES["Table 4"](found)[0] == IN_PART
    assert found.absent == [
        "SimpleCNN / MNIST", "SimpleCNN / CIFAR-100", "ResNet-18 / CIFAR-10", "ResNet-18 / ImageNet-1K",
    ]  # fmt: skip


def test_the_threshold_must_move_the_knee_to_wider_widths():
    measured = condition()
    assert overview.JUDGES["Figure 5"](known([measured]))[0] == REPRODUCED
    flat = measured.table.assign(accuracy=0.8)  # one width is best at every threshold
    assert overview.JUDGES["Figure 5"](known([replace(measured, table=flat)]))[0] == NOT_REPRODUCED


def test_the_fall_at_4_bits_is_that_of_the_records():
    measured = condition()
    verdict, facts = overview.JUDGES["Figure 2"](known([measured]))
    assert verdict == IN_PART and facts["lost"] == "CIFAR-10 20.0 pp"
    stable = measured.table.assign(accuracy=measured.table["accuracy"].where(measured.table["bits"] != 4, 0.795))
    assert overview.JUDGES["Figure 2"](known([replace(measured, table=stable)]))[1]["lost"] == "CIFAR-10 1.0 pp"


def test_what_each_checkpoint_answers_makes_the_verdict_on_the_search():
    def with_accuracy(land: Landscape, mixed: bool) -> Landscape:
        """Mixed widths are always right, or never."""
        correct = land.correct.copy()
        correct[:, [len(set(widths)) > 1 for widths in land.configurations]] = mixed
        return replace(land, correct=correct)

    for better, verdict in (((True, True), REPRODUCED), ((True, False), IN_PART), ((False, False), NOT_REPRODUCED)):
        truth = landscape()
        lands = zip(truth.landscapes.items(), better, strict=True)
        changed = replace(truth, landscapes={seed: with_accuracy(land, mixed) for (seed, land), mixed in lands})
        assert overview.JUDGES["Figure 4"](known(truth=changed))[0] == verdict


def test_the_algorithm_is_judged_by_how_often_it_finds_the_best():
    truth = landscape()
    verdict, facts = overview.JUDGES["Algorithm 1"](known(truth=truth))
    assert verdict == (REPRODUCED if facts["hits"] > 50 else NOT_REPRODUCED)
    assert (facts["all"], facts["seeds"]) == (256, PROFILES["paper"].searches), "as on the page of EXP-3"


def test_a_record_of_another_network_does_not_count_as_the_papers_condition(checkout, monkeypatch):
    monkeypatch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
    found = imagenet.found()
    assert found.used and imagenet.PAPERS not in found.accuracy
    assert "ResNet-18 / ImageNet-1K" in replace(known(), imagenet=found).absent
    as_the_papers = replace(found, accuracy={imagenet.PAPERS: next(iter(found.accuracy.values()))})
    assert "ResNet-18 / ImageNet-1K" not in replace(known(), imagenet=as_the_papers).absent


def test_a_search_that_wins_on_some_test_sets_alone_reproduces_in_part():
    truth = landscape()
    share = shared.share_above(truth.main, (8, 8, 8, 8), (8, 8, 8, 4))
    assert 0 <= share <= 1
    accuracies, reference = shared.redrawn(truth.main)
    eight, mixed = (truth.main.index_of(widths) for widths in ((8, 8, 8, 8), (8, 8, 8, 4)))
    scores = [
        metric.gated_index(
            truth.main.compression[place], accuracies[:, place], truth.main.latency_ms[place],
            np.maximum(reference - truth.main.tolerance, 1 / truth.main.num_classes),
        )
        for place in (eight, mixed)
    ]  # fmt: skip
    assert share == np.mean(scores[0] > scores[1])


def test_the_area_is_judged_on_the_papers_own_network_too():
    """Three orders of the axes, two networks."""
    verdict, facts = overview.JUDGES["Figure 7"](known([condition()]))
    assert verdict == IN_PART and (facts["agreeing"], facts["cases"]) == (5, 6), (
        "three orders of the axes, two networks"
    )


@pytest.fixture
def kept(checkout, monkeypatch) -> list:
    monkeypatch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
    return overview.kept()


def test_records_are_counted_by_profile_and_by_what_made_them(kept):
    some = kept[:3]
    changed = [replace(some[0], provenance=dict(some[0].provenance) | {"git_commit": "abc-dirty"}), *some[1:]]
    before, after = overview.counts(some), overview.counts(changed)
    assert before["paper"] + before["short"] == 3
    assert after["dirty"] == before["dirty"] + ("dirty" not in some[0].provenance["git_commit"])


def test_a_network_beside_the_papers_has_no_numbers_of_the_paper_and_no_tick(kept):
    rows = overview.at_a_glance()
    assert len(rows) == len(paper.conditions()) + len(runs.BESIDE) + 1  # ResNet-18, trained for fewer epochs
    beside = rows[rows["network / task"].str.contains("beside")]
    assert set(beside[["paper: I", "paper: I′"]].to_numpy().ravel()) == {UNKNOWN}
    assert set(beside["verdict"]) == {SUPPORTS} and "calibration draws" in beside["measured: I′"].iloc[1]
    assert (rows["verdict"] == REPRODUCED).sum() == 2


def test_a_condition_is_missing_until_its_own_network_has_a_record(kept):
    missing = overview.missing_table(kept).set_index("network / task")["to measure it"]
    assert "ResNet-18 / ImageNet-1K" in missing.index, "there are records of another network"
    assert "SimpleCNN / MNIST" not in missing.index
    assert "--datasets cifar100" in missing["SimpleCNN / CIFAR-100"]
    assert len(overview.missing_table([])) == len(paper.conditions())
