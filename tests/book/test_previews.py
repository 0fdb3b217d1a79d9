"""The previews of references: what is gathered from the rendered pages, and how the book shows it."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("bs4", reason="needs the book extra: pip install 'quide[book]'")
from bs4 import BeautifulSoup
from sphinx_extensions import extension

GLOSSARY = """
<article><dl class="glossary">
<dt id="term-Knee">Knee<a class="headerlink" href="#term-Knee">#</a></dt><dt id="term-Pareto-knee">Pareto knee</dt>
<dd><p>Where I′ is highest; see <a class="reference internal" href="#term-Gate">gate</a>.</p></dd>
<dt id="term-Gate">Gate</dt><dd><p>The part that gives zero.</p></dd>
</dl></article>"""
PAGE = """
<article>
<section id="one"><span id="label"></span><h2>One<a class="headerlink" href="#one">#</a></h2><p>First.</p><p>More.</p>
</section>
<div class="math" id="equation-e"><span class="eqno">(1)<a class="headerlink" href="#e">#</a></span>\\[x\\]</div>
<figure id="fig-a"><img alt="A line." src="../_images/a.png"/><figcaption><p>Fig. 1</p></figcaption></figure>
<div class="citation" id="id1"><span class="label">[1]</span><p>Somebody. <em>A work.</em></p></div>
<a class="reference internal" href="#one">one</a>
<a class="reference internal" href="../book/glossary.html#term-Knee">knee</a>
<a class="reference internal" href="../book/glossary.html">no anchor</a>
<a class="reference internal" href="gone.html#x">not of the book</a>
<a class="reference external" href="https://example.org/#x">elsewhere</a>
</article><nav><a class="reference internal" href="#equation-e">not in the text</a></nav>"""


@pytest.fixture(scope="module")
def previews():
    return extension("previews")


@pytest.fixture(scope="module")
def contents() -> dict[str, BeautifulSoup]:
    texts = {"book/glossary.html": GLOSSARY, "notebooks/page.html": PAGE}
    return {name: BeautifulSoup(text, "html.parser") for name, text in texts.items()}


def test_only_anchors_that_the_text_of_a_page_refers_to_are_wanted(previews, contents):
    assert list(previews.wanted(contents)) == [
        ("book/glossary.html", "term-Gate"), ("book/glossary.html", "term-Knee"), ("notebooks/page.html", "one"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "anchor", "text"),
    [
        ("book/glossary.html", "term-Knee", "<p>Where I′ is highest; see gate.</p>"),
        ("book/glossary.html", "term-Pareto-knee", "<p>Where I′ is highest; see gate.</p>"),
        ("notebooks/page.html", "one", "<strong>One</strong><p>First.</p>"),
        ("notebooks/page.html", "label", "<strong>One</strong><p>First.</p>"),
        ("notebooks/page.html", "equation-e", '<div class="math"><span class="eqno">(1)</span>\\[x\\]</div>'),
        ("notebooks/page.html", "id1", "<p>Somebody. <em>A work.</em></p>"),
        ("notebooks/page.html", "absent", ""),
    ],
)  # fmt: skip
def test_a_preview_is_the_target_without_links_and_anchors(previews, contents, page, anchor, text):
    assert previews.preview(contents[page], page, anchor) == text


def test_the_address_of_an_image_begins_at_the_root(previews, contents):
    text = previews.preview(contents["notebooks/page.html"], "notebooks/page.html", "fig-a")
    assert 'src="_images/a.png"' in text and 'alt="A line."' in text and "id=" not in text


@pytest.mark.browser
class TestInTheBook:
    TERM = 'article a.reference.internal[href*="term-Knee"]'
    BOX = "#quide-preview"

    @pytest.fixture
    def page(self, rendered_book, open_page):
        page, complaints = open_page(rendered_book / "book" / "intro.html")
        yield page
        assert complaints == []

    def test_every_target_that_can_be_shown_is(self, rendered_book):
        text = (rendered_book / "_static" / "previews_data.js").read_text().split(" = ", 1)[1].strip().rstrip(";")
        found = json.loads(text)
        for part in ("#term-", "#equation-", "#fig-", "bibliography.html#", "rerun.html#"):
            assert any(part in name for name in found), part
        assert not [name for name, html in found.items() if not html or "<a " in html]

    def test_pointing_shows_it_and_the_pointer_may_move_onto_it(self, page):
        box = page.locator(self.BOX)
        page.locator(self.TERM).first.hover()
        box.wait_for()
        assert "bit-width" in box.inner_text()
        box.hover()
        page.wait_for_timeout(600)
        assert box.is_visible()
        page.mouse.move(1, 1)
        box.wait_for(state="hidden")

    def test_the_keyboard_shows_it_and_escape_puts_it_away(self, page):
        reference, box = page.locator(self.TERM).first, page.locator(self.BOX)
        page.keyboard.press("Tab")  # so that the focus that follows counts as the keyboard's
        reference.focus()
        box.wait_for()
        assert reference.get_attribute("aria-describedby") == "quide-preview"
        assert box.get_attribute("role") == "tooltip"
        page.keyboard.press("Escape")
        assert box.is_hidden() and reference.get_attribute("aria-describedby") is None
        assert reference.evaluate("link => link === document.activeElement")

    def test_it_stays_inside_a_narrow_window(self, page):
        page.set_viewport_size({"width": 390, "height": 844})
        page.locator(self.TERM).first.hover()
        page.locator(self.BOX).wait_for()
        edges = page.locator(self.BOX).bounding_box()
        assert edges["x"] >= 0 and edges["x"] + edges["width"] <= 390
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

    def test_it_passes_axe(self, page):
        from browsing import axe_findings

        page.locator(self.TERM).first.hover()
        page.locator(self.BOX).wait_for()
        assert axe_findings(page) == []

    def test_an_equation_is_set_on_a_page_that_has_none_of_its_own(self, rendered_book, open_page):
        page, complaints = open_page(rendered_book / "book" / "glossary.html")
        page.locator('article a.reference.internal[href*="equation-eq-index"]').first.hover()
        page.locator(f"{self.BOX} mjx-container").wait_for()
        assert complaints == []
