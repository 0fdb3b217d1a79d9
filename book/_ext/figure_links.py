"""Links every figure to its image, to be opened at its full size: on a phone a figure is wider than the page.

The figures of notebooks come without a link, and a figure that scrolls must hold something that the keyboard can reach.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

IMAGE = re.compile(r'(<figure\b[^>]*>\s*)(<img\b[^>]*?\bsrc="([^"]+)"[^>]*>)')
LINKED = r'\1<a class="figure-link" href="\3">\2</a>'


def link_figures(app: Sphinx, failure: Exception | None) -> None:
    """Wrap the image of each figure in a link; one that has a link is left as it is."""
    if failure or app.builder.format != "html":
        return
    for name in app.env.found_docs:
        file = Path(app.outdir) / f"{name}.html"
        text = file.read_text(encoding="utf-8")
        if (linked := IMAGE.sub(LINKED, text)) != text:
            file.write_text(linked, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.connect("build-finished", link_figures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
