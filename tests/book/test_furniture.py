"""How pages begin and end, and what every rendered page gets: minutes, the switch for code, a summary."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from quidebook import frame, report
from sphinx_extensions import extension

PAGE = """<html><head><title>A title &#8212; The book</title></head>
<body><div class="article-header-buttons"></div><article class="bd-article"><h1>A title
<a class="headerlink">#</a></h1><p><strong>Answer.</strong> It is <a>so</a>. <span class="quide-minutes"></span></p>
<div class="cell"><div class="cell_input">x = 1</div></div><details><summary>More</summary><p>not seen</p></details>
</article></body></html>"""


@pytest.fixture(scope="module")
def furniture():
    return extension("furniture")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(frame, "show_markdown", texts.append)
    return texts


def test_only_what_a_reader_sees_counts(furniture):
    article = BeautifulSoup(PAGE, "html.parser").article
    assert furniture.words(article) == len("A title Answer It is so More".split())
    assert furniture.summary(article) == "It is so."


def test_a_page_is_furnished_once(furniture):
    page = furniture.furnished(PAGE, 1400, 90, "It is so.", "../")
    assert "7 min to read" in page and page.count('id="quide-show-code"') == 1
    assert '<meta name="description" content="It is so.">' in page and "../_static/favicon.svg" in page
    shared = {"type": "article", "title": "A title", "site_name": "The book", "description": "It is so."}
    for name, content in shared.items():
        assert page.count(f'<meta property="og:{name}" content="{content}">') == 1
    assert furniture.furnished(page, 1400, 90, "It is so.", "../") == page


def test_the_source_of_a_page_is_kept_when_its_link_is_pressed(furniture):
    page = PAGE.replace("<article", '<a href="../_sources/a.ipynb" target="_blank">.ipynb</a><article')
    page = furniture.furnished(page, 1, 1, "", "../")
    assert page.count('<a href="../_sources/a.ipynb" download target="_blank">') == 1
    assert furniture.furnished(page, 1, 1, "", "../") == page


def test_a_page_without_code_has_no_switch(furniture):
    assert "quide-show-code" not in furniture.furnished(PAGE.replace("cell_input", "output"), 1, 1, "", "")


def test_an_opening_is_filled_from_facts(shown):
    facts = {"share": 0.5}
    frame.opening("Why?", "It is {share:pct0}.", facts, limits="One <b>seed</b>.", level="beginner", goals=["see"])
    assert "50 %" in shown[0] and "<b>" not in shown[0] and frame.MINUTES in shown[0]


def test_an_opening_without_records_says_how_to_make_them(shown):
    absent = report.Absent("it", "quide run exp1")
    limits = "{many:,} {{term}}`seeds <seed>`."
    frame.opening("Why?", "It is {share:pct0}.", absent, limits=limits, level="expert", goals=["see"])
    assert "quide run exp1" in shown[0] and f"{report.UNKNOWN} {{term}}`seeds <seed>`." in shown[0]


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="level must be one of beginner"):
        frame.opening("", "", limits="", level="wizard", goals=[])


def test_a_point_without_facts_is_left_out(shown):
    absent = report.Absent("it", "quide run exp1")
    frame.take_aways("first", ("{a}", absent), ("{a}", {"a": 2}))
    assert shown[0].splitlines()[2:] == ["- first", "- 2"]
    frame.take_aways(("{a}", absent))
    assert "quide run exp1" in shown[1]


def test_each_answer_of_a_question_says_whether_it_is_right(monkeypatch):
    texts: list[str] = []
    monkeypatch.setattr(frame, "show_markup", texts.append)
    frame.check("2 < 3?", {"yes": (True, "Count."), "no": (False, "Count again.")})
    found = BeautifulSoup(texts[0], "html.parser")
    assert [each.get_text() for each in found.select("details p")] == ["Right. Count.", "No. Count again."]
    frame.check("Of {n}?", {"{n}": (True, "{share:pct1} <b>.")}, {"n": 2, "share": 0.5})
    assert "50.0 %" in texts[1] and "{" not in texts[1] and "<b>" not in texts[1]
    frame.check("{n}?", {}, report.Absent("it", "quide run exp1"))
    assert len(texts) == 2, "without facts there is nothing to ask"


def test_a_page_that_asks_asks_three_questions_of_which_each_has_one_right_answer():
    """So does every page on which one learns, but where tasks with solutions take the place of questions."""
    root = Path(__file__).resolve().parents[2]
    learn = next(
        part for part in yaml.safe_load((root / "_toc.yml").read_text())["parts"] if part["caption"] == "Learn"
    )
    asked = {}
    for file in sorted((root / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(file, as_version=4).cells
        code = ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
        calls = [node for node in ast.walk(code) if isinstance(node, ast.Call)]
        asked[f"notebooks/{file.stem}"] = [call for call in calls if ast.unparse(call.func) == "frame.check"]
        tasks = sum("hide-cell" in cell.metadata.get("tags", []) for cell in cells)
        assert len(asked[f"notebooks/{file.stem}"]) in (0, 3) or tasks >= 3, file.stem
        for call in asked[f"notebooks/{file.stem}"]:
            assert [answer.elts[0].value for answer in call.args[1].values].count(True) == 1, file.stem
        if f"notebooks/{file.stem}" in [chapter["file"] for chapter in learn["chapters"]]:
            assert asked[f"notebooks/{file.stem}"] or tasks >= 3, file.stem
    assert sum(map(bool, asked.values())) > 2
