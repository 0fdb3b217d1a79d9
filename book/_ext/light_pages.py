"""Leaves out of every page the scripts that it can do without: most of what a first visit would load.

The theme draws its icons twice, with a font and with a script of one and a half megabytes; the font is enough. It loads
the search index on every page, for results while one types; this book searches on the search page alone. MathJax, more
than a megabyte, is for pages with equations.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

ICONS = "fontawesome"
SEARCH = ("searchtools", "language_data", "searchindex")
SEARCH_PAGE = "search.html"
MATHEMATICS, EQUATION = "tex-chtml", 'class="math'


def lighten(app: Sphinx, failure: Exception | None) -> None:
    """Take the scripts out of every page that was written."""
    if failure or app.builder.format != "html":
        return
    for file in Path(app.outdir).rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        if (light := without(text, unneeded(file.name, text))) != text:
            file.write_text(light, encoding="utf-8")


def unneeded(name: str, text: str) -> tuple[str, ...]:
    """Scripts that a page, given by its file name and contents, can do without."""
    search = () if name == SEARCH_PAGE else SEARCH
    return (ICONS, *search, *(() if EQUATION in text else (MATHEMATICS,)))


def without(text: str, scripts: tuple[str, ...]) -> str:
    """A page without the script elements that load any of ``scripts``, given by file name without its ending."""
    names = "|".join(scripts)
    return re.sub(rf'<script\b[^>]*\bsrc="[^"]*\b(?:{names})\.js[^"]*"[^>]*></script>\s*', "", text)


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.connect("build-finished", lighten)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
