"""The what-if page in a real browser: the controls move what they should, by mouse, by keyboard and by address."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import cycle, product
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="needs the test extra: pip install 'quide[test]'")
from browsing import DESKTOP, PHONE, axe_findings, go  # noqa: E402
from playwright.sync_api import Page, expect  # noqa: E402
from quidebook.pages import what_if as whatif  # noqa: E402
from quidebook.pages.what_if import MIXED, RESNET, START  # noqa: E402
from quidebook.shared.choices import COUNTS, KERNELS, SCORES, UNITS, Offered, Position  # noqa: E402

pytestmark = pytest.mark.browser

SCROLLED_MS = 30_000  # by then the browser has scrolled to what has the focus, on a busy machine too
COLUMNS = ("C", "P", "T", "I", "I′")
SHOWN = """() => ({
  table: [...document.querySelectorAll("#what-if tr")].map(row => [...row.cells].map(cell => cell.textContent)),
  controls: Object.fromEntries(["network", "tolerance", "unit", "count", "kernel"]
    .map(name => [name, document.querySelector("#what-if form").elements[name].value])),
  bars: [...document.querySelectorAll("#what-if .what-if-bar")].map(bar => bar.textContent),
  lengths: [...document.querySelectorAll("#what-if .what-if-bar")]
    .map(bar => Number(bar.style.getPropertyValue("--share"))),
  lines: [...document.querySelectorAll("#what-if .what-if-line > :first-child")].map(line => line.textContent),
})"""
# Go to a fragment as a reader would who follows a link on the page, and say what is shown then.
GO_TO = f"""fragment => new Promise(resolve => {{
  addEventListener("hashchange", () => resolve(({SHOWN})()), {{once: true}});
  location.hash = fragment;
}})"""
# Whether the element with the focus can be seen whole: in the window, and with nothing of another kind over it.
FOCUS_IS_CLEAR = """() => {
  const box = document.activeElement.getBoundingClientRect();
  const over = [[box.left + 3, box.top + 3], [box.right - 3, box.bottom - 3]]
    .map(point => document.elementFromPoint(...point));
  return over.every(top => top !== null && (top === document.activeElement || document.activeElement.contains(top)));
}"""
FOCUSED = "() => document.activeElement.name || document.activeElement.dataset.preset || document.activeElement.tagName"


@pytest.fixture(scope="module")
def file(rendered_book: Path) -> Path:
    """The page."""
    return rendered_book / "notebooks" / "what_if.html"


@pytest.fixture(scope="module")
def known(checkout: Path) -> dict[str, Offered]:
    """What the page was made from: the committed records and the paper."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIDE_RESULTS", str(checkout / "data" / "results"))
        return whatif.networks("smoke")


@pytest.fixture(scope="module")
def opened(file: Path, open_page: Callable) -> tuple[Page, list[str]]:
    """The page in one window for the whole module, and what it has complained of."""
    return open_page(file)


@pytest.fixture
def page(opened: tuple[Page, list[str]], file: Path) -> Page:
    """The page as it opens."""
    page, complaints = opened
    page.goto("about:blank")
    go(page, file)
    yield page
    assert complaints == []


def fragment(choice: Position) -> str:
    """The address of a choice."""
    return "#" + urlencode({name: value for name, value in asdict(choice).items() if value is not None})


def rows_of(network: Offered, choice: Position) -> list[list[str]]:
    """Heading and rows of the table that Python makes."""
    frame = whatif.table(network, choice)
    return [list(frame.columns), *frame.to_numpy().tolist()]


def columns(shown: dict) -> dict[str, list[str]]:
    """The table's cells by column, without the unit in a heading and the marks of the highest."""
    heading, *rows = shown["table"]
    cells = zip(*rows, strict=True)
    return {
        name.split(" (")[0]: [cell.split(" ▲")[0].split(" ★")[0] for cell in column]
        for name, column in zip(heading, cells, strict=True)
    }


def sentence(page: Page, after: Callable[[], object]) -> str:
    """What the page says once ``after`` has been done."""
    said = page.locator(".what-if-sentence")
    before = said.inner_text()
    after()
    expect(said).not_to_have_text(before)
    return said.inner_text()


def choose(page: Page, name: str, value: str) -> None:
    """Move one control as its kind is moved."""
    if name == "network":
        page.locator("#what-if-network").select_option(value)
    elif name == "tolerance":
        page.locator("#what-if-tolerance").fill(value)
    else:
        page.locator(f"input[name={name}][value={value}]").check()


# --- the numbers -----------------------------------------------------------------------------------------------------


def test_every_network_and_position_shows_pythons_numbers(page, known):
    """All that holds the script and :mod:`quide.metric` together."""
    assert page.evaluate(SHOWN)["table"] == rows_of(known[START], known[START].start()), "as it opens"
    tolerances = cycle((None, 0.0, 0.45))
    for network in known.values():
        for each in product(network.latency_sources, UNITS, COUNTS):
            choice = Position(network.key, *each, next(tolerances))
            shown = page.evaluate(GO_TO, fragment(choice))
            assert shown["table"] == rows_of(network, choice), choice
            scored = network.scores(choice)
            names = [name + (" ▲" if name == network.best(choice, "index") else "") for name in scored.index]
            knee = network.best(choice)
            assert shown["lines"] == [
                name + (" ★" if plain == knee else "") for name, plain in zip(names, scored.index, strict=True)
            ]
            stated = [network.stated(choice, score) for score in SCORES]
            pairs = np.column_stack([scored[s.name].fillna(s) for s in stated])
            highest = np.nanmax(pairs) if not np.isnan(pairs).all() else math.nan
            np.testing.assert_allclose(shown["lengths"], np.nan_to_num(pairs / highest).ravel(), rtol=1e-6)
            assert shown["bars"] == [cell.split(" ")[0] for row in shown["table"][1:] for cell in row[2:0:-1]]


# --- the controls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "value", "moving"),
    [
        ("tolerance", "0.45", {"I′"}),
        ("unit", "s-batch", {"T", "I", "I′"}),
        ("count", "size", {"C", "I", "I′"}),
        ("kernel", "ideal", {"T", "I", "I′"}),
        ("network", "mnist-simplecnn-measured", {"P", "T", "I", "I′"}),
    ],
)
def test_a_control_moves_what_it_should_and_nothing_else(page, known, control, value, moving):
    network = MIXED if control != "network" else START
    before = page.evaluate(GO_TO, fragment(replace(known[network].start(), tolerance=0.2)))
    choose(page, control, value)
    after = page.evaluate(SHOWN)
    cells = columns(before), columns(after)
    assert {name for name in COLUMNS if cells[0][name] != cells[1][name]} == moving
    assert after["controls"] == before["controls"] | {control: value}
    assert cells[0]["configuration"] == cells[1]["configuration"]


def test_a_change_is_told_in_words(page, known):
    network = known[START]
    knees = [network.best(replace(network.start(), tolerance=tolerance)) for tolerance in (None, 0.45)]
    said = sentence(page, lambda: choose(page, "tolerance", "0.45"))
    assert f"δ: 0.45 instead of {network.tolerance:.2f}" in said
    assert f"{100 * network.threshold(0.45):.2f} %" in said
    assert "I does not change" in said
    assert (f"moves from {knees[0]} to {knees[1]}" if knees[0] != knees[1] else f"stays at {knees[0]}") in said
    said = sentence(page, lambda: choose(page, "kernel", "equal"))
    assert said.startswith("Latencies: all equal instead of measured.")
    said = sentence(page, lambda: choose(page, "count", "size"))
    assert "No score changes" in said, "all layers have one width"
    said = sentence(page, lambda: choose(page, "tolerance", "0"))
    assert "No configuration is above the threshold" in said
    said = sentence(page, lambda: choose(page, "network", whatif.IMAGENET))
    assert said.startswith(known[whatif.IMAGENET].label)
    assert page.locator(".what-if-sentence").get_attribute("aria-live") == "polite"


def test_a_missing_number_is_told(page, known):
    choice = known[whatif.IMAGENET].start()
    scored = known[whatif.IMAGENET].scores(choice)["index"]
    said = sentence(page, lambda: page.evaluate(GO_TO, fragment(choice)))
    assert f"Only {scored.notna().sum()} of {len(scored)} configurations can be scored" in said
    assert f"The paper states the knee at {known[whatif.IMAGENET].stated_knee}" in said
    assert "★" not in "".join(page.evaluate(SHOWN)["lines"]), "none is marked"


@pytest.mark.parametrize(("key", "mark"), [(START, "★ knee"), (whatif.RESNET, "★ highest I′, of those scored")])
def test_a_star_is_called_the_knee_only_where_every_configuration_is_scored(page, known, key, mark):
    page.evaluate(GO_TO, fragment(known[key].start()))
    assert known[key].whole(known[key].start()) == (mark == "★ knee")
    assert mark in page.locator(".what-if-legend").inner_text()


def test_what_the_paper_states_is_hollow_where_it_cannot_be_computed(page, known):
    network = known["cifar100-simplecnn-paper"]
    page.evaluate(GO_TO, fragment(network.start()))
    hollow = page.locator(".what-if-bar.what-if-stated")
    stated = [network.stated(network.start(), score).notna().sum() for score in SCORES]
    assert hollow.count() == sum(stated) > 0
    assert "1.841" in hollow.all_inner_texts()
    filled = hollow.first.evaluate("bar => getComputedStyle(bar, '::before').backgroundImage")
    assert filled == "none"
    page.evaluate(GO_TO, fragment(replace(network.start(), unit="s-batch")))
    assert hollow.count() == 0, "it is of the paper's choices"


def test_the_papers_accuracies_meet_our_clock_only_when_asked_to(page, known):
    choose(page, "kernel", "measured")
    choose(page, "network", "cifar10-simplecnn-paper")
    assert page.evaluate(SHOWN)["controls"]["kernel"] == "paper"
    choose(page, "kernel", "measured")
    assert "measured on" in page.locator(".what-if-source").inner_text()
    choose(page, "kernel", "equal")
    choose(page, "network", RESNET)
    assert page.evaluate(SHOWN)["controls"]["kernel"] == "equal", "of no clock: it stays"


def test_latencies_that_nobody_knows_cannot_be_chosen(page, known):
    for key in (RESNET, START):
        choose(page, "network", key)
        for kernel in KERNELS:
            radio = page.locator(f"input[name=kernel][value={kernel}]")
            assert radio.is_enabled() == (kernel in known[key].latency_sources)
    choose(page, "kernel", "measured")
    choose(page, "network", RESNET)
    if "measured" not in known[RESNET].latency_sources:
        assert page.evaluate(SHOWN)["controls"]["kernel"] == "paper"


def test_the_tolerance_follows_the_paper_until_it_is_moved(page, known):
    choose(page, "network", RESNET)
    assert page.evaluate(SHOWN)["controls"]["tolerance"] == str(known[RESNET].tolerance)
    choose(page, "tolerance", "0.21")
    choose(page, "network", START)
    assert page.evaluate(SHOWN)["controls"]["tolerance"] == "0.21"
    assert page.locator("#what-if output").inner_text() == f"0.21 (the paper's is {known[START].tolerance:.2f})"


PRESETS = {
    "paper": (RESNET, {}),
    "s-batch": (RESNET, {"unit": "s-batch"}),
    "ms-image": (RESNET, {"unit": "ms-image"}),
    "size": (MIXED, {"count": "size"}),
}


def test_presets_and_reset(page, known):
    for key, (name, moved) in PRESETS.items():
        button = page.locator(f"button[data-preset={key}]")
        sentence(page, button.click)
        assert page.evaluate(SHOWN)["table"] == rows_of(known[name], replace(known[name].start(), **moved))
        assert button.evaluate("b => document.getElementById(b.getAttribute('aria-describedby')).textContent")
    choose(page, "tolerance", "0.9")
    sentence(page, page.locator("button[data-reset]").click)
    assert page.evaluate(SHOWN)["table"] == rows_of(known[START], known[START].start())


# --- the address -----------------------------------------------------------------------------------------------------


def test_the_address_keeps_the_choice(page, known):
    choice = Position(RESNET, "equal", "s-batch", "size", 0.12)
    for name, value in asdict(choice).items():
        choose(page, name, str(value))
    page.wait_for_url(lambda url: url.endswith(fragment(choice)))
    before = page.evaluate(SHOWN)
    page.reload()
    assert page.evaluate(SHOWN) == before
    assert before["table"] == rows_of(known[RESNET], choice)


@pytest.mark.parametrize(
    "wrong",
    ["#exercises", "#network=nonsense&unit=s-batch", "#network=constructor", "#%E0%A4%A", "#unit=s-batch"],
)
def test_an_address_without_a_choice_opens_the_start(page, file, known, wrong):
    page.goto("about:blank")
    go(page, file, wrong)
    assert page.evaluate(SHOWN)["table"] == rows_of(known[START], known[START].start())


def test_what_is_wrong_in_an_address_is_as_at_the_start(page, known):
    asked = {"network": RESNET, "kernel": "magic", "unit": "weeks", "count": "", "tolerance": "7"}
    shown = page.evaluate(GO_TO, f"#{urlencode(asked)}")
    assert shown["table"] == rows_of(known[RESNET], known[RESNET].start())


# --- for everybody ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_everything_works_by_keyboard(page, known, viewport):
    page.set_viewport_size(viewport)
    page.evaluate(GO_TO, fragment(known[MIXED].start()))  # the tallest chart, which hides most
    page.locator("button[data-preset]").first.focus()
    stops = [*PRESETS, "BUTTON", "network", "tolerance", "unit", "count", "kernel"]
    reached = []
    for _ in stops:
        reached.append(page.evaluate(FOCUSED))
        page.wait_for_function(FOCUS_IS_CLEAR, timeout=SCROLLED_MS)  # the browser scrolls to it in its own time
        assert page.evaluate("() => document.activeElement.matches(':focus-visible')"), reached[-1]
        page.keyboard.press("Tab")
    assert reached == stops
    page.locator("button[data-reset]").focus()
    page.keyboard.press("Enter")
    page.locator("#what-if-tolerance").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    tolerance = round(known[START].tolerance + 5 * whatif.STEP, 2)
    choice = Position(START, list(KERNELS)[-1], "ms-image", "size", tolerance)  # up from the first goes to the last
    assert page.evaluate(SHOWN)["table"] == rows_of(known[START], choice)
    page.locator("button[data-preset=paper]").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(SHOWN)["table"] == rows_of(known[RESNET], known[RESNET].start())
    page.set_viewport_size(DESKTOP)


@pytest.mark.parametrize(("viewport", "theme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["light", "dark"])
def test_every_state_passes_axe_and_fits_the_window(open_page, file, known, viewport, theme):
    page, complaints = open_page(file, viewport, theme)
    for key in (START, MIXED, whatif.IMAGENET):
        choose(page, "network", key)
        assert axe_findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert complaints == []
    page.context.close()


def test_the_panel_leaves_room_on_a_phone(page, known):
    page.set_viewport_size({"width": 390, "height": 800})
    for network in known.values():
        page.evaluate(GO_TO, fragment(replace(network.start(), tolerance=0.11)))
        sentence(page, lambda: choose(page, "tolerance", "0.45"))
        height = page.locator(".what-if-result").evaluate("panel => panel.getBoundingClientRect().height")
        assert height <= 800 / 3, network.label
    page.set_viewport_size(DESKTOP)


def test_controls_and_chart_have_names(page, known):
    form = page.locator("#what-if form")
    for role, name in (("combobox", "Network, task, accuracies"), ("slider", "Tolerance δ"), ("group", "Unit of T")):
        assert form.get_by_role(role, name=name, exact=True).count() == 1, name
    start = known[START].start()
    chart = page.get_by_role("img", name="Bars of I and I′")
    assert f"the knee is at {known[START].best(start)}" in chart.get_attribute("aria-label")
    assert page.locator("#what-if-tolerance").get_attribute("aria-valuetext").endswith("(the paper's)")


def test_the_two_scores_differ_without_colour(page):
    look = """kind => ["::before", "::after"].map(part => {
      const style = getComputedStyle(document.querySelector(`.what-if-bar.what-if-${kind}`), part);
      return [style.backgroundImage !== "none", style.borderRadius, style.rotate];
    })"""
    (raw_filling, raw_mark), (gated_filling, gated_mark) = (page.evaluate(look, kind) for kind in ("raw", "gated"))
    assert not raw_filling[0] and gated_filling[0], "plain against hatched"
    assert raw_mark[1:] == ["50%", "none"] and gated_mark[1:] == ["0px", "45deg"], "circle against diamond"


def test_without_javascript_the_start_is_there(open_page, file, known):
    page, _ = open_page(file, java_script_enabled=False)
    rows = page.locator("#what-if tbody tr")
    expected = rows_of(known[START], known[START].start())[1:]
    assert [row.split("\t") for row in rows.all_inner_texts()] == expected
    expect(page.locator(".what-if-missing")).to_be_visible()
    for part in ("form", ".what-if-result"):
        expect(page.locator(f"#what-if {part}")).to_be_hidden()
    page.context.close()


def test_with_javascript_nothing_is_said_to_be_missing(page):
    expect(page.locator(".what-if-missing")).to_be_hidden()
    expect(page.locator("#what-if form")).to_be_visible()


def test_solutions_open_by_keyboard(page):
    solutions = page.locator("details.hide:has(table)")
    assert solutions.count() == 5
    for solution in solutions.all():
        table = solution.locator("table").first
        assert not table.is_visible()
        solution.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(table).to_be_visible()
