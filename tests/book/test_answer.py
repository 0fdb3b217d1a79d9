"""The first page: verdicts on the claims follow from records, a stand-in earns no tick, the evidence is short."""

from __future__ import annotations

import ast
import json
from dataclasses import replace

import numpy as np
import pytest
from known_results import condition, landscape
from notebook_outputs import headings
from quidebook import report
from quidebook.evidence.conditions import Condition
from quidebook.shared import answer
from quidebook.verdicts import IN_PART, NOT_REPRODUCED, REPRODUCED, UNDECIDED

MOST_WORDS = 15


@pytest.fixture
def committed(checkout, monkeypatch) -> None:
    monkeypatch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))


def first_page_words(checkout) -> dict[str, tuple]:
    cells = json.loads((checkout / "book" / "intro.ipynb").read_text())["cells"]
    source = next("".join(cell["source"]) for cell in cells if "CLAIMS = {" in "".join(cell["source"]))
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return next(ast.literal_eval(node.value) for node in assigned if node.targets[0].id == "CLAIMS")


def test_the_evidence_of_each_claim_is_short_and_read_from_records(checkout, committed):
    answers, words = answer.answers(), first_page_words(checkout)
    assert list(words) == list(answers)
    for name, (_, template, _) in words.items():
        evidence = report.worded(template, answers[name][1])
        assert len(evidence.split()) <= MOST_WORDS, evidence


def test_without_records_no_claim_has_a_verdict_of_ours(no_records):
    answers = answer.answers()
    assert {verdict for name, (verdict, _) in answers.items() if name != "one number"} == {UNDECIDED}
    assert isinstance(answer.key_figure(), report.Absent)


def test_a_knee_that_moves_with_the_place_of_rounding_holds_in_part(no_records, monkeypatch):
    measured = condition()
    found = [Condition("simplecnn", "cifar10", "paper", measured, "")]
    assert answer.knee(found)[1]["elsewhere"] == report.UNKNOWN, "no record of the other places"
    monkeypatch.setattr(answer.sites, "at_each", lambda _: iter([("output", measured), ("relu", measured)]))
    verdict, facts = answer.knee(found)
    assert verdict == REPRODUCED and facts["elsewhere"] == "8"
    alike = replace(measured, correct=np.ones_like(measured.correct))
    monkeypatch.setattr(answer.sites, "at_each", lambda _: iter([("output", measured), ("relu", alike)]))
    verdict, facts = answer.knee(found)
    assert verdict == IN_PART and facts["elsewhere"] != "8"


def test_the_search_is_judged_on_every_checkpoint(monkeypatch):
    truth = landscape()
    monkeypatch.setattr(answer.landscape, "known", lambda: truth)
    verdict, facts = answer.searched()
    ahead = facts["ahead"]
    assert verdict == (REPRODUCED if ahead == 0 else NOT_REPRODUCED if ahead == facts["networks"] else IN_PART)


def test_each_claim_leads_to_a_section_that_is_there(checkout):
    for _, _, (_, address) in first_page_words(checkout).values():
        page, section = address.removeprefix("../").split(".html#")
        assert section in headings(checkout / f"{page}.ipynb"), address
