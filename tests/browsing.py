"""Opening the book's pages in a real browser, for the tests that look at them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOCAL = ("file", "data", "blob", "about")
PATIENCE_MS = 120_000  # a machine that trains networks meanwhile is slow, not broken
# Preloading would read the style sheets by XMLHttpRequest, which no browser allows on file:// pages.
AXE_OPTIONS = {
    "preload": False,
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
}
# Docutils gives the entries of a bibliography a role that ARIA has since deprecated; screen readers read them well.
AXE_CONTEXT = {"exclude": [[".citation-list"]]}

READY = """async () => {
  await document.fonts.ready;
  if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
  const images = [...document.querySelectorAll("article img")];
  await Promise.all(images.map(image => { image.loading = "eager"; return image.decode().catch(() => null); }));
}"""


@contextmanager
def launched() -> Iterator[Browser]:
    """Headless Chromium from the system; missing, the tests are skipped, but not where CI must run them."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no browser found, looked for {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opener(browser: Browser) -> Iterator[Callable[..., tuple[Page, list[str]]]]:
    """Yields a function that opens a file in a fresh profile, and returns the page and the list that gathers everything
    it complains of. Further options are those of a browser context."""
    contexts = []

    def open_page(file: Path, viewport: dict = DESKTOP, theme: str = "light", **options) -> tuple[Page, list[str]]:
        context = browser.new_context(viewport=viewport, color_scheme=theme, reduced_motion="reduce", **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page, complaints = context.new_page(), []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.extend(_failed(request)))
        page.on("request", lambda request: complaints.extend(_outside(request.url)))
        go(page, file)
        return page, complaints

    yield open_page
    for context in contexts:
        context.close()


def go(page: Page, file: Path, fragment: str = "") -> None:
    """Open a file, at a fragment of its address, and wait until fonts, mathematics and images are there."""
    page.goto(file.as_uri() + fragment)
    page.evaluate(READY)


def axe_findings(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 AA: the rule and the start of the element."""
    rules = Axe().run(page, context=AXE_CONTEXT, options=AXE_OPTIONS).response["violations"]
    return [f"{rule['id']}: {node['html'][:120]}" for rule in rules for node in rule["nodes"]]


def _failed(request: Request) -> list[str]:
    """What was not found; a request that the reader's next step cut off is nothing to complain of."""
    return [] if request.failure == "net::ERR_ABORTED" else [f"not loaded: {request.url}"]


def _outside(url: str) -> list[str]:
    return [] if urlsplit(url).scheme in LOCAL else [f"asked for {url}"]
