"""Gathers what the targets of references say, for a reader who points at a reference or reaches it by keyboard.

References to terms, equations, figures, works and sections of the book's pages; the texts go to one script file, which
``previews.js`` loads when the first of them is wanted. A script and not JSON, because a page opened from the disk may
load scripts but not fetch files.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

REFERENCES = 'article a.reference.internal[href*="#"]'
LEFT_OUT = ".headerlink, .toggle-button, script"
HEADINGS = ["h1", "h2", "h3", "h4"]
ADDRESSED = {"img": "src"}  # elements that a preview keeps, and their attribute that holds an address


def write_previews(app: Sphinx, failure: Exception | None) -> None:
    """Write ``_static/previews_data.js``: by page and anchor, as HTML whose addresses begin at the book's root."""
    if failure or app.builder.format != "html":
        return
    root = Path(app.outdir)
    pages = {f"{name}.html": BeautifulSoup((root / f"{name}.html").read_text(), "html.parser")
             for name in sorted(app.env.found_docs)}  # fmt: skip
    found = {f"{page}#{anchor}": text for page, anchor in wanted(pages) if (text := preview(pages[page], page, anchor))}
    text = f"window.quidePreviews = {json.dumps(found, indent=0, ensure_ascii=False, sort_keys=True)};\n"
    (root / "_static" / "previews_data.js").write_text(text, encoding="utf-8")


def wanted(pages: dict[str, BeautifulSoup]) -> Iterator[tuple[str, str]]:
    """Page and anchor of everything within the book that one of its ``pages`` refers to."""
    targets = set()
    for page, content in pages.items():
        for reference in content.select(REFERENCES):
            address = urlsplit(reference["href"])
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), address.path)) if address.path else page
            if address.fragment and not address.netloc and target in pages:
                targets.add((target, unquote(address.fragment)))
    yield from sorted(targets)


def preview(content: BeautifulSoup, page: str, anchor: str) -> str:
    """What stands at ``anchor`` of a page, as HTML without links and anchors; empty where that is nothing to show."""
    target = content.find(id=anchor)
    parts = [] if target is None else [BeautifulSoup(str(part), "html.parser") for part in _parts(target)]
    for part in parts:
        for element in part.select(LEFT_OUT):
            element.decompose()
        for element in part.find_all(True):
            if element.name == "a":
                element.unwrap()
                continue
            if element.name in HEADINGS:  # in a preview it heads nothing
                element.name = "strong"
            for attribute in ("id", "role", "tabindex"):
                del element[attribute]
            if attribute := ADDRESSED.get(element.name):
                element[attribute] = posixpath.normpath(posixpath.join(posixpath.dirname(page), element[attribute]))
    return "".join(str(part).strip() for part in parts)


def _parts(target: Tag) -> list[Tag]:
    """The elements that say what a target is."""
    classes = target.get("class", [])
    if target.name == "dt":  # a term, with others that share its definition
        return target.find_next_sibling("dd").find_all(recursive=False)
    if target.name == "figure" or "math" in classes:
        return [target]
    if "citation" in classes:
        return target.find_all("p", recursive=False)
    if target.name == "span" and target.parent.name == "section":  # a label that stands before its heading
        target = target.parent
    if target.name == "section":
        return [part for name in (HEADINGS, "p") if (part := target.find(name, recursive=False))]
    return []


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.connect("build-finished", write_previews)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
