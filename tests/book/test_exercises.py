"""The exercises: each has a hint and a solution, both hidden until they are asked for, by keyboard too."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

CELLS = json.loads((Path(__file__).resolve().parents[2] / "notebooks" / "exercises.ipynb").read_text())["cells"]
PROMPTS = {"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}


def text(cell: dict) -> str:
    return "".join(cell["source"])


def solutions() -> list[dict]:
    return [cell for cell in CELLS if "hide-cell" in cell["metadata"].get("tags", [])]


def test_exercises_are_numbered_and_each_is_followed_by_its_hint_and_solution():
    numbers = []
    for cell, following in zip(CELLS, [*CELLS[1:], None], strict=True):
        for number, rest in re.findall(r"(?s)### Exercise (\d+): (.*?)(?=\n#|\Z)", text(cell)):
            numbers.append(int(number))
            assert cell["cell_type"] == "markdown"
            assert ":::{admonition} Hint\n:class: dropdown\n" in rest, f"exercise {number} has no hint"
            assert rest.rstrip().endswith(":::"), f"exercise {number} goes on after its hint"
            assert re.search(r"\n\n\*(Easy|Medium|Hard), \d+ min\.\* ", rest), f"exercise {number} is not rated"
            assert following in solutions(), f"exercise {number} has no solution"
    assert numbers == list(range(1, 15))
    assert len(solutions()) == len(numbers)
    after = [CELLS[place + 1] for place, cell in enumerate(CELLS) if cell in solutions()]
    assert all(text(cell).startswith(":::{admonition} Explanation") for cell in after)


def test_solutions_are_hidden_in_the_notebook_and_named_on_the_page():
    for cell in solutions():
        assert cell["metadata"]["jupyter"] == {"source_hidden": True}
        assert cell["metadata"]["mystnb"] == PROMPTS
        assert "print(" in text(cell)


@pytest.mark.browser
def test_hints_and_solutions_open_by_keyboard(rendered_book, open_page):
    page, complaints = open_page(rendered_book / "notebooks" / "exercises.html")
    folded = page.locator("details.hide")
    assert folded.count() == len(solutions())
    for solution in folded.all():
        answer = solution.locator(".cell_output pre").first
        assert not answer.is_visible()
        solution.locator("summary").focus()
        page.keyboard.press("Enter")
        answer.wait_for(state="visible")
        assert "Hide the solution" in solution.locator("summary").inner_text()
    hints = page.locator(".admonition.dropdown")
    assert hints.count() == 2 * len(solutions()), "a hint and an explanation each"
    hint = hints.first
    hint.locator("button").focus()
    page.keyboard.press("Enter")
    hint.locator("p:not(.admonition-title)").first.wait_for(state="visible")
    assert complaints == []
