"""quidebook.report: tables with links, and the box that says where a page's numbers come from."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from quidebook import report, tables
from quidebook.verdicts import REPRODUCED

from quide.experiments import records
from quide.stats import Interval

MADE = {
    "date": "2026-01-02T03:04:05+00:00", "git_commit": "abc1234", "cpu": "a CPU", "accelerator": None, "threads": 2,
    "packages": {"torch": "2.14.0"},
}  # fmt: skip


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """What is displayed, HTML and Markdown alike."""
    texts: list[str] = []
    monkeypatch.setattr(report, "show_markdown", texts.append)
    monkeypatch.setattr(report, "show_markup", texts.append)
    return texts


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a <img src=x> b", "a &lt;img src=x> b"),
        ("</script>, <!-- and <?", "&lt;/script>, &lt;!-- and &lt;?"),
        ("8 < 16, 4 > 2, a<1", "8 < 16, 4 > 2, a<1"),
        ("`quide run <your folder>` and {term}`a <b>`", "`quide run <your folder>` and {term}`a <b>`"),
        ("``a ` <b>`` <b> ` <b> \n `<b>", "``a ` <b>`` &lt;b> ` &lt;b> \n `&lt;b>"),
        (r"\`<img>`", r"\`&lt;img>`"),
    ],
)
def test_no_tag_of_html_is_left_in_markdown_outside_code(text, left):
    assert report.worded(text) == report.without_tags(text) == left


def test_a_string_of_a_record_opens_no_tag_wherever_it_stands():
    facts = {"reason": "` <img src=x onerror=alert(1)> `", "place": (8, "<b>")}
    text = report.worded("`{reason}` and {place[1]}: {reason!r}, $`$ {reason}", facts)
    assert not re.search("<[a-z]", text) and text.count("&lt;img") == 3
    assert report.worded("x", report.Absent("<b>", "quide run")).count("<b") == 0


def test_an_unknown_number_is_a_dash_in_every_format():
    facts = {"low": float("nan"), "high": np.float64("nan"), "known": 1.25}
    assert report.worded("{low:+.1f} {high:pct2} {low:num1} {high} {known:+.1f}", facts) == "– – – – +1.2"


def test_an_interval_in_a_sentence_has_its_bounds_behind_it():
    facts = {"share": Interval(0.5, 0.4, 0.6)}
    assert report.worded("{share:pct1} {share:num2}", facts) == "50.0 [40.0, 60.0] % 0.50 [0.40, 0.60]"


def test_a_caption_holds_no_html(monkeypatch):
    displayed = []
    monkeypatch.setattr(report, "display", lambda *content, **options: displayed.append(options["metadata"]["quide"]))
    report.show(report.panels()[0], "fig-x", "On <script>", "x < y")
    assert displayed == [{"name": "fig-x", "caption": "On &lt;script>", "alt": "x < y"}]


def record(seed: int, seconds: float = 30.0, **changes) -> records.Record:
    spec = records.RunSpec("accuracy", "simplecnn", "mnist", seed, "paper")
    return records.Record(spec, {}, "0" * 16, "f" * 64, MADE | changes, seconds)


def test_a_cell_of_links_is_linked_and_escaped():
    links = tables.Links((("EXP <1>", "exp1.html#table-1"), ("EXP-2", "exp2.html")))
    text = tables.table_markup(pd.DataFrame({"exhibit": ["<Table 1>"], "where": [links]}), "Where")
    assert '<th scope="row">&lt;Table 1&gt;</th>' in text
    assert '<a class="reference internal" href="exp1.html#table-1">EXP &lt;1&gt;</a>; <a class=' in text


def test_the_box_says_what_ran_where_when_on_which_data_how_long_and_every_key(shown):
    used = [record(7), record(0, 100.0), record(0, 100.0), record(42, date="2026-02-03T00:00:00+00:00")]
    report.provenance(used, "quide run exp1 --profile paper")
    (box,) = shown
    for fact in (
        "accuracy", "simplecnn on mnist", "paper", "a CPU, 2 threads", "2.14.0", "0, 7, 42", "3 min",
        "2026-01-02 to 2026-02-03", "abc1234", "ffffffff", "3 records",
    ):  # fmt: skip
        assert fact in re.sub(r"<[^>]*>", "", box), fact
    assert all(each.key in box for each in used)
    assert "\nquide run exp1 --profile paper --seeds 7  # another seed<" in box


def test_a_page_without_records_says_how_to_make_them(shown):
    report.provenance([], "quide run exp1", "quide run exp3")
    assert shown == ["No record was used. To make them: `quide run exp1` and `quide run exp3`"]


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (90, "2 min"), (3 * 3600, "3.0 h")])
def test_a_duration_is_said_in_a_fitting_unit(seconds, words):
    assert report._duration(seconds) == words


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("8 > 16 > 4 > 32 > 2", "short"),
        ("99.36 ± 0.15 [99.19, 99.52]", "short"),
        ("8-8-8-4", "short"),
        ("not stated", "short"),
        ("ours +0.15 pp, inside our interval", ""),
        ("an estimated bound, not a measurement; its values are not in the text", "long"),
        (REPRODUCED, "verdict-reproduced"),
    ],
)
def test_numbers_and_orders_stay_on_one_line_and_sentences_keep_their_width(text, name):
    cell = tables.table_markup(pd.DataFrame({"what": ["a"], "found": [text]}), "Cells").split("</th>")[-1]
    assert cell.startswith(f'<td class="{name}">' if name else "<td>")


def test_configurations_inside_a_sentence_are_not_broken():
    frame = pd.DataFrame({"place of 8-8-8-4": ["8-8-8-8"], "found": ["4 > 8 (of these), 1-2 <b>"]})
    text = tables.table_markup(frame, "Cells")
    for part in ("8-8-8-4", "8-8-8-8", "4 &gt; 8"):
        assert f'<span class="unbroken">{part}</span>' in text
    assert "1-2 &lt;b&gt;</td>" in text


def test_rows_fill_a_template_for_each_column_and_clauses_are_joined():
    many = [{"name": "a", "x": 0.5, "by": {8: 1}}, {"name": "b", "x": float("nan"), "by": {8: 2}}]
    table = report.rows({"who": "{name}", "share": "{x:pct0}", "at 8": "{by[8]}"}, many)
    assert table.to_numpy().tolist() == [["a", "50 %", "1"], ["b", report.UNKNOWN, "2"]]
    assert report.listed("{name}: {x:num1}", many) == "a: 0.5; b: –"
    assert report.rows({"who": "{name}"}, []).empty


def test_a_phone_gets_panels_below_each_other_and_titles_in_lines():
    figure, axes = report.panels(columns=2, width=7)
    axes[0].set_title("words of a title " * 5)
    figure.legend([axes[0].plot([1], label=str(number))[0] for number in range(4)], list("abcd"), ncols=4)
    assert report._narrow(figure)
    figure.draw_without_rendering()
    upper, lower = (axis.get_position() for axis in axes)
    assert upper.y0 > lower.y1 and upper.x0 == pytest.approx(lower.x0, abs=0.02)
    assert figure.get_figwidth() == report.NARROW_INCHES and figure.get_figheight() == pytest.approx(2 * 3.2)
    assert axes[0].title.get_window_extent().width <= axes[0].get_window_extent().width
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list("abcd")


def test_a_phone_gets_one_panel_as_wide_as_it_shows():
    figure, _ = report.panels(width=7)
    assert report._narrow(figure)
    assert tuple(figure.get_size_inches()) == (report.NARROW_INCHES, pytest.approx(3.2))
    assert not report._narrow(report.panels(width=4)[0])


def test_on_a_phone_a_panel_lends_its_unit_only_to_those_that_share_its_axis():
    for shared in (True, False):
        figure, (left, right) = report.panels(2, sharey=shared)
        left.set_ylabel("error")
        assert report._narrow(figure)
        assert right.get_ylabel() == ("error" if shared else "")


def test_on_a_phone_no_label_covers_its_neighbour():
    figure, (axis,) = report.panels(width=7.4, height=3.0)
    axis.set_yticks(range(7), ["SimpleCNN / CIFAR-10, paper (8 bits as accurate as 32, T(8) = 1.16 ms)"] * 7)
    assert report._narrow(figure)
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axis.get_yticklabels()), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))


def test_only_a_table_that_a_phone_has_no_room_for_names_its_columns_in_every_cell():
    narrow, wide = (pd.DataFrame({f"column {n}": ["some words"] for n in range(count)}) for count in (3, 6))
    assert "data-label" not in tables.table_markup(narrow, "Few")
    text = tables.table_markup(wide, "Many")
    assert re.findall(r'data-label="([^"]*)"', text) == [f"column {n}" for n in range(1, 6)]
    assert 'class="quide-table wide"' in text and ">some words</td>" in text


@pytest.mark.parametrize(
    "text",
    [
        '{{ cycler.__init__.__globals__.os.system("true") }}',
        "a\n\n```{raw} html\n`<script>alert(1)</script>`\n```\n",
        "a\n\n:::{include} /etc/hostname\n:::\n",
        "{nosuchrole}`x` [x](#nosuch) [x][y] $x$ **x** <b>x</b>",
        "a \u202eb \ud800 \x1b[31m",
    ],
)
def test_a_string_of_a_record_is_words_in_markdown(text):
    from markdown_it.renderer import RendererHTML
    from myst_parser.config.main import MdParserConfig
    from myst_parser.parsers.mdit import create_md_parser

    settings = yaml.safe_load((Path(__file__).parents[2] / "_config.yml").read_text())["parse"]
    parser = create_md_parser(MdParserConfig(enable_extensions=settings["myst_enable_extensions"]), RendererHTML)
    tokens = parser.parse(report.worded("{noise}", {"noise": report.noise([text])}))
    kinds = {inner.type for token in tokens for inner in [token, *(token.children or ())]}
    assert kinds == {"paragraph_open", "inline", "text", "paragraph_close"}
    assert "substitution" not in settings["myst_enable_extensions"]  # templates that Jinja runs, with all of Python
    report.plain(text).encode()
