"""The rendered book in a real browser: it works from the disk, without a network, on a phone, in the dark, for all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("playwright.sync_api", reason="needs the test extra: pip install 'quide[test]'")
from browsing import DESKTOP, PHONE, axe_findings, go  # noqa: E402
from playwright.sync_api import Page  # noqa: E402

pytestmark = pytest.mark.browser

VIEWS = {"desktop": (DESKTOP, "light"), "phone": (PHONE, "light"), "phone in the dark": (PHONE, "dark")}
AXE_VIEW = "phone"  # axe takes seconds a page; what differs between the views is checked here
SMALLEST_CONTRAST = 4.5  # WCAG 2 AA for text of normal size

# Everything that is asked of a page, in one round trip. Contrast is WCAG 2's ratio between the colours of a text and of
# what lies behind it, for every element that holds text of its own.
FACTS = """() => {
  const all = selector => [...document.querySelectorAll(selector)];
  const parse = colour => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]);
  const behind = element => {
    if (!element) return [255, 255, 255];
    if (element.tagName === "CAPTION") return behind(element.closest("table").parentElement);  // beside the table's box
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour[3] === 1 ? colour : over(colour, behind(element.parentElement));
  };
  const luminance = colour => colour.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = element => {
    const background = behind(element);
    const text = over(parse(getComputedStyle(element).color), background);
    const [a, b] = [luminance(text), luminance(background)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const seen = e => e.checkVisibility({opacityProperty: true, visibilityProperty: true});
  const holdsText = e => seen(e) && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const texts = all("body *:not(script, style, noscript, option, mjx-container *)").filter(holdsText);
  return {
    title: document.title,
    heading: document.querySelector("h1")?.firstChild?.textContent,
    language: document.documentElement.lang,
    theme: document.documentElement.dataset.theme,
    skips: all("a").filter(a => a.textContent.includes("Skip to main content")).length,
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    images: all("article img").map(image => ({alt: image.alt, width: image.naturalWidth})),
    figures: all("article figure").length,
    drawn: all("article figure:has(.figure-link)").map(figure => {
      const image = figure.querySelector("img");
      const box = image.getBoundingClientRect();
      const link = figure.querySelector(".figure-link").href;
      return {link, source: image.currentSrc, right: box.right, words: box.width / image.naturalWidth};
    }),
    captions: all("article figcaption .caption-number").map(caption => caption.textContent.trim()),
    equations: all("div.math mjx-container").map(equation => equation.getBoundingClientRect().width),
    broken: all("mjx-merror").length,
    contrasts: texts.map(e => [`${e.tagName} ${e.className}: ${e.textContent.trim().slice(0, 40)}`, contrast(e)]),
    text: document.querySelector("article").textContent,
    ids: all("[id]").map(e => e.id),
    links: all("a[href]").map(a => a.href),
    tables: all("article .quide-table").filter(seen).map(box => ({
      caption: box.querySelector("caption").textContent,
      width: box.scrollWidth,
      room: box.clientWidth,
      verdict: Math.max(0, ...[...box.querySelectorAll('td[class^="verdict-"] > strong')]
        .map(word => word.getBoundingClientRect().right)),
    })),
    outputs: all("article .cell_output pre").filter(seen).map(box => box.scrollWidth - box.clientWidth),
    small: all(".bd-header-article :is(button, label), article :is(button:not(.copybtn), summary, input)")
      .filter(seen).filter(e => e.getBoundingClientRect().height < 43.5 && !e.closest("label"))
      .map(e => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 30)}`),
  };
}"""


PAPER = {"width": 720, "height": 1000}  # what an A4 sheet has within its margins, in CSS pixels
SMALLEST_SCALE = 0.45  # of a picture: words of 10 points, drawn at 160 dots per inch, are then 10 pixels high
FIRST_PAGE_BYTES = 1_000_000  # everything that opening the first page loads, not compressed
DARKEST_TEXT = 0.2  # luminance that black ink stays below, from 0 for black to 1 for white


@dataclass(frozen=True)
class Visit:
    """What one page showed in one view: :data:`FACTS`, and what the browser complained of."""

    facts: dict
    complaints: list[str]


@pytest.fixture(scope="module")
def pages(rendered_book: Path) -> dict[str, Path]:
    """Files of the book's own pages by name, such as ``book/intro``."""
    files = [file for folder in ("book", "notebooks") for file in sorted((rendered_book / folder).glob("*.html"))]
    files = [file for file in files if 'http-equiv="refresh"' not in file.read_text()]
    assert files, f"no pages in {rendered_book}"
    return {file.relative_to(rendered_book).with_suffix("").as_posix(): file for file in files}


@pytest.fixture(scope="module")
def survey(pages, open_page) -> dict[str, dict[str, Visit]]:
    """Every page in every view, by view and page name; each is opened once."""
    found: dict[str, dict[str, Visit]] = {view: {} for view in VIEWS}
    for view, (viewport, theme) in VIEWS.items():
        page, complaints = open_page(next(iter(pages.values())), viewport, theme)
        for name, file in pages.items():
            complaints.clear()
            go(page, file)
            found[view][name] = Visit(page.evaluate(FACTS), list(complaints))
        page.context.close()
    return found


def _press_theme_switch(page: Page) -> str:
    """Press it and return the mode that it names then: auto, light or dark."""
    page.locator("button.theme-switch-button >> visible=true").first.click()
    return page.evaluate("document.documentElement.dataset.mode")


@pytest.mark.parametrize("view", VIEWS)
class TestEveryPage:
    def test_works_from_the_disk_and_asks_no_host(self, survey, view):
        assert {name: visit.complaints for name, visit in survey[view].items() if visit.complaints} == {}

    def test_has_title_language_and_skip_link(self, survey, view):
        for name, visit in survey[view].items():
            assert visit.facts["heading"] and visit.facts["title"].startswith(visit.facts["heading"].strip()), name
            assert visit.facts["language"] == "en", name
            assert visit.facts["skips"] == 1, name

    def test_fits_the_window(self, survey, view):
        wide = {name: visit.facts["overflow"] for name, visit in survey[view].items()}
        assert {name: pixels for name, pixels in wide.items() if pixels > 0} == {}

    def test_is_readable_in_the_theme_asked_for(self, survey, view):
        for name, visit in survey[view].items():
            assert visit.facts["theme"] == VIEWS[view][1], name
            assert visit.facts["contrasts"], name
            faint = [text for text, contrast in visit.facts["contrasts"] if contrast < SMALLEST_CONTRAST]
            assert faint == [], name


def test_every_page_passes_axe(pages, open_page):
    found = []
    page, _ = open_page(next(iter(pages.values())), *VIEWS[AXE_VIEW])
    for name, file in pages.items():
        go(page, file)
        found += [f"{name}: {finding}" for finding in axe_findings(page)]
    assert found == []


def test_images_are_loaded_described_and_numbered(survey):
    figures = 0
    for name, visit in survey["desktop"].items():
        for image in visit.facts["images"]:
            assert image["width"] > 1, name
            assert len(image["alt"]) > 20, name
        assert len(visit.facts["captions"]) == visit.facts["figures"], name
        assert all(caption.startswith("Fig.") for caption in visit.facts["captions"]), name
        figures += visit.facts["figures"]
    assert figures >= 3


def test_mathematics_is_rendered(survey):
    facts = survey["desktop"]["notebooks/metric_explained"].facts
    assert len(facts["equations"]) >= 7
    assert min(facts["equations"]) > 50
    assert all(visit.facts["broken"] == 0 for visit in survey["desktop"].values())


def test_no_page_shows_a_path_of_the_machine_that_made_it(survey):
    private = ("site-packages", f"{Path.home()}/", f"{Path(__file__).parents[2]}/")
    found = {
        name: [path for path in private if path in visit.facts["text"]] for name, visit in survey["desktop"].items()
    }
    assert {name: shown for name, shown in found.items() if shown} == {}


def test_links_within_the_book_lead_somewhere(survey, pages):
    ids = {pages[name]: set(visit.facts["ids"]) for name, visit in survey["desktop"].items()}
    for name, visit in survey["desktop"].items():
        for link in map(urlsplit, visit.facts["links"]):
            if link.scheme != "file":
                continue
            target = Path(unquote(link.path))
            assert target.is_file(), f"{name} links to {target}"
            if link.fragment and target in ids:
                assert unquote(link.fragment) in ids[target], f"{name} links to {target.name}#{link.fragment}"


def test_the_theme_switch_works_and_is_remembered(pages, open_page):
    page, complaints = open_page(pages["book/intro"])
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    assert "dark" in (_press_theme_switch(page) for _ in range(3))
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(background) != light
    assert complaints == []


def test_search_finds_a_term_without_a_server(rendered_book, open_page):
    page, complaints = open_page(rendered_book / "search.html")
    page.goto(f"{(rendered_book / 'search.html').as_uri()}?q=knee")
    found = page.locator("#search-results li", has=page.locator("a", has_text="Glossary"))
    found.first.wait_for()  # results come one after the other
    found.locator("p.context", has_text="knee").first.wait_for()  # with what stands around the word
    assert complaints == []


def test_the_first_page_is_light(rendered_book, open_page):
    page, _ = open_page(rendered_book / "search.html")
    loaded = {}
    page.on("requestfinished", lambda request: loaded.update(_size(request.url)))
    page.goto((rendered_book / "index.html").as_uri())
    page.wait_for_url("**/book/intro.html")
    page.wait_for_load_state("networkidle")
    largest = sorted(loaded.items(), key=lambda each: -each[1])[:5]
    assert len(loaded) > 5 and sum(loaded.values()) < FIRST_PAGE_BYTES, largest


def _size(address: str) -> dict[str, int]:
    """Bytes of a file of the book; nothing for what is part of another file."""
    parts = urlsplit(address)
    return {parts.path: Path(unquote(parts.path)).stat().st_size} if parts.scheme == "file" else {}


def test_icons_are_drawn_without_the_theme_s_script(pages, open_page):
    page, _ = open_page(pages["book/intro"])
    assert page.evaluate("document.fonts.check('900 16px \"Font Awesome 6 Free\"')")
    icon = page.locator(".theme-switch-button i >> visible=true").first
    assert icon.evaluate("icon => getComputedStyle(icon, '::before').content") not in ("none", "normal")


def test_the_citations_can_be_copied(pages, open_page):
    page, complaints = open_page(pages["book/intro"])
    blocks = page.locator("#how-to-cite div.highlight")
    texts = blocks.all_inner_texts()
    assert [text.split("{")[0] for text in texts if text.startswith("@")] == ["@software", "@misc"]
    assert sum("2605.10959" in text for text in texts) == 2
    blocks.first.hover()
    button = blocks.first.locator("button.copybtn")
    button.click()
    page.wait_for_function("button => button.classList.contains('success')", arg=button.element_handle())
    assert complaints == []


def test_a_page_prints_black_on_white_without_the_bars_around_it(pages, open_page):
    page, _ = open_page(pages["notebooks/exp1_simplecnn"], DESKTOP, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    for bar in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".bd-header-article"):
        assert not page.locator(bar).first.is_visible(), bar
    channels = page.locator("article p").first.evaluate("p => getComputedStyle(p).color.match(/[\\d.]+/g).map(Number)")
    assert max(channels[:3]) / 255 < DARKEST_TEXT
    tables = page.locator(".quide-table").all()
    assert tables and all(table.evaluate("box => getComputedStyle(box).overflowX") == "visible" for table in tables)


def test_paper_has_whole_tables_the_chart_in_its_place_and_the_report_on_one_page(pages, open_page):
    page, _ = open_page(pages["notebooks/what_if"], PAPER)
    page.emulate_media(media="print")
    assert page.locator(".what-if-result").evaluate("panel => getComputedStyle(panel).position") == "static"
    assert page.locator(".quide-provenance table").is_visible(), "what is folded on a screen is on paper"
    assert not page.locator(".quide-keys").is_visible(), "but the keys of files"
    go(page, pages["book/intro"])
    assert not page.locator(".quide-provenance table").is_visible(), "all records are listed on one page alone"
    go(page, pages["notebooks/one_page_report"])
    assert len(re.findall(rb"/Type */Page\b", page.pdf(format="A4"))) == 1


def test_tables_and_figures_fit_a_sheet(pages, open_page):
    page, _ = open_page(pages["book/intro"], PAPER)
    page.emulate_media(media="print")
    narrow = """() => [...document.querySelectorAll("article img")].map(image => image.currentSrc)
        .filter(source => source.includes("narrow-"))"""
    widths = """() => [...document.querySelectorAll(".quide-table, .pst-scrollable-table-container")]
        .map(box => [box.querySelector("caption, th").textContent, box.scrollWidth - box.clientWidth])"""
    whole = "() => [...document.querySelectorAll('article table')].map(table => getComputedStyle(table).breakInside)"
    for name, file in pages.items():
        go(page, file)
        assert [(caption, over) for caption, over in page.evaluate(widths) if over > 1] == [], name
        assert page.evaluate(narrow) == [], f"{name}: stacked panels are higher than a sheet"
        assert set(page.evaluate(whole)) <= {"auto"}, f"{name}: a table that may not break leaves sheets half empty"


@pytest.mark.parametrize("view", ["desktop", "phone"])
def test_a_table_shows_its_verdicts_without_scrolling(survey, view):
    """None is cut on a desktop, nor needs to be moved sideways on a phone."""
    for name, visit in survey[view].items():
        for table in visit.facts["tables"]:
            assert table["width"] <= table["room"], (name, table)
            assert table["verdict"] <= VIEWS[view][0]["width"], (name, table)


def test_what_code_prints_is_read_on_a_phone_without_scrolling(survey):
    outputs = [(name, cut) for name, visit in survey["phone"].items() for cut in visit.facts["outputs"]]
    assert outputs and [(name, cut) for name, cut in outputs if cut > 0] == []


def test_what_a_finger_touches_is_large_enough(survey):
    for name, visit in survey["phone"].items():
        assert [each for each in visit.facts["small"]] == [], name


def test_a_table_that_is_too_wide_for_a_small_window_scrolls_in_its_own_box(pages, open_page):
    page, _ = open_page(pages["notebooks/exp1_simplecnn"], {"width": 600, "height": 800})
    boxes = page.locator(".quide-table >> visible=true").all()
    widest = max(boxes, key=lambda box: box.evaluate("box => box.scrollWidth"))
    assert widest.evaluate("box => box.scrollWidth > box.clientWidth")
    widest.evaluate("box => box.scrollLeft = 100")
    left = widest.evaluate("box => box.getBoundingClientRect().left")
    heading = widest.locator("tbody th").first.evaluate("cell => cell.getBoundingClientRect().left")
    assert heading == pytest.approx(left, abs=1), "the first column stays in view"
    widest.focus()
    assert widest.evaluate("box => box === document.activeElement"), "can be reached, and so scrolled, by keyboard"


def test_code_stands_behind_one_switch_a_page(pages, open_page):
    page, complaints = open_page(pages["notebooks/exp1_simplecnn"])
    code = page.locator(".cell:not(.tag_injected-parameters) > .cell_input")
    assert code.count() > 3 and not any(each.is_visible() for each in code.all())
    page.locator("#quide-show-code").check()
    assert all(each.is_visible() for each in code.all())
    assert complaints == []


def test_the_address_of_a_page_that_moved_leads_to_it(rendered_book, open_page):
    page, _ = open_page(rendered_book / "book" / "intro.html")
    page.goto((rendered_book / "notebooks" / "status.html").as_uri(), wait_until="commit")  # it leaves by itself
    page.wait_for_url("**/every_table_and_figure.html")


def test_a_figure_fits_a_phone_in_a_picture_drawn_for_it(survey):
    for name, visit in survey["phone"].items():
        for figure in visit.facts["drawn"]:
            assert figure["right"] <= PHONE["width"], (name, figure)
            assert figure["words"] >= SMALLEST_SCALE, (name, figure)
            assert Path(unquote(urlsplit(figure["link"]).path)).is_file(), (name, figure)


def test_the_first_page_answers_with_a_verdict_and_a_link_for_each_claim(pages, open_page):
    page, _ = open_page(pages["book/intro"], PHONE)
    rows = page.locator("article .quide-table").first.locator("tbody tr")
    assert rows.count() == 5
    for row in rows.all():
        verdict = row.locator('td[class^="verdict-"] > strong').bounding_box()
        assert verdict["x"] + verdict["width"] <= PHONE["width"]
        assert row.locator("a").count() == 1
