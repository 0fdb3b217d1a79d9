"""The number line of the primer: its sentence is the library's quantizer, in Python and in the browser alike."""

from __future__ import annotations

import html
import re
from dataclasses import asdict, replace

import pytest
import torch
from quidebook.shared import number_line
from quidebook.shared.number_line import CONTROLS, LinePosition

from quide import ptq

CHOICES = [
    LinePosition(),
    LinePosition(kind="symmetric"),
    LinePosition(bits=2, value=-1.45),
    LinePosition(low=0.0, high=2.5, bits=4, value=0.85),
    LinePosition(low=-3.7, high=0.1, bits=5, value=4.4),
    LinePosition(kind="symmetric", bits=6, low=-0.3, high=1.9, value=-1.05),
]


def told(choice: LinePosition) -> list[float]:
    """The numbers of the sentence: levels, first, last, step, zero point, value, integer, stored, error."""
    return [float(found) for found in re.findall(r"[-+]?\d+(?:\.\d+)?", number_line.sentence(choice))]


@pytest.mark.parametrize("choice", CHOICES)
def test_the_sentence_tells_what_the_quantizer_does(choice):
    make = ptq.affine_grid if choice.kind == "affine" else ptq.symmetric_grid
    grid = make(torch.tensor(choice.low), torch.tensor(choice.high), choice.bits)
    stored = float(ptq.fake_quantize(torch.tensor([choice.value]), grid))
    levels, first, last, step, zero_point, value, integer, shown, error = told(choice)
    assert (levels, zero_point, value) == (grid.high - grid.low + 1, grid.zero_point, choice.value)
    assert step == pytest.approx(float(grid.scale), abs=5e-4)
    assert (first, last) == pytest.approx(
        [(end - grid.zero_point) * float(grid.scale) for end in (grid.low, grid.high)], abs=5e-3
    )
    assert (integer - zero_point) * float(grid.scale) == pytest.approx(stored, abs=1e-5)
    assert shown == pytest.approx(stored, abs=5e-3) and error == pytest.approx(stored - choice.value, abs=5e-4)


def test_clipping_is_named_where_it_happens():
    inside, edge, outside = (LinePosition(bits=2, low=0.0, high=3.0, value=value) for value in (1.2, 3.45, 3.55))
    assert [told(choice)[7] for choice in (inside, edge, outside)] == [1, 3, 3]
    assert ["from clipping" in number_line.sentence(choice) for choice in (inside, edge, outside)] == [
        False,
        False,
        True,
    ]


def test_without_javascript_there_is_the_sentence_and_no_dead_control():
    text = number_line.markup(LinePosition())
    assert html.escape(number_line.sentence(LinePosition())) in text
    assert re.search(r"<form [^>]*hidden>", text)
    for name, (label, low, high, _) in CONTROLS.items():
        assert f'<label for="number-line-{name}">{label}</label>' in text
        assert low <= asdict(LinePosition())[name] <= high


@pytest.fixture(scope="module")
def opened(rendered_book, open_page):
    return open_page(rendered_book / "notebooks" / "primer.html")


@pytest.mark.browser
@pytest.mark.parametrize("choice", CHOICES)
def test_the_browser_computes_what_the_library_does(opened, choice):
    page, complaints = opened
    assert page.evaluate("choice => numberLine.sentence(choice)", asdict(choice)) == number_line.sentence(choice)
    assert complaints == []


@pytest.mark.browser
def test_controls_move_the_picture_by_keyboard(opened):
    from playwright.sync_api import expect

    page, complaints = opened
    line = page.locator(".number-line")
    assert line.locator("svg :is(.level, .zero)").count() == 2 ** LinePosition().bits
    line.locator("input[name=bits]").focus()
    page.keyboard.press("ArrowRight")
    moved = replace(LinePosition(), bits=LinePosition().bits + 1)
    assert line.locator("svg :is(.level, .zero)").count() == 2**moved.bits
    expect(line.locator(".number-line-sentence")).to_have_text(number_line.sentence(moved))
    assert line.locator("[role=img]").get_attribute("aria-label") == number_line.sentence(moved)
    line.locator("input[name=kind]:checked").focus()
    page.keyboard.press("ArrowDown")
    expect(line.locator(".number-line-sentence")).to_have_text(number_line.sentence(replace(moved, kind="symmetric")))
    assert complaints == []
