"""Links every figure to its image, to be opened at its full size, and gives phones a picture of their own.

The builder stages the pictures for phones in the folder ``narrow``, by the figure's name.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

IMAGE = re.compile(r'(<figure\b[^>]*>\s*)(<img\b[^>]*?\bsrc="([^"]+)"[^>]*>)')
NAME = re.compile(r'\bid="([^"]+)"')
PHONE = "screen and (max-width: 48rem)"  # paper is as narrow, but stacked panels are higher than a sheet


def link_figures(app: Sphinx, failure: Exception | None) -> None:
    """Wrap the image of each figure in a link; one that has a link is left as it is."""
    if failure or app.builder.format != "html":
        return
    for name in app.env.found_docs:
        file = Path(app.outdir) / f"{name}.html"
        text = file.read_text(encoding="utf-8")
        linked = with_links(text, file.parent, Path(app.srcdir, "narrow"))
        if linked != text:
            file.write_text(linked, encoding="utf-8")


def with_links(text: str, page: Path, narrow: Path) -> str:
    """The HTML of a page in the folder ``page``; ``narrow`` is the folder with pictures for phones."""
    return IMAGE.sub(lambda found: _linked(found, page, narrow), text)


def _linked(found: re.Match, page: Path, narrow: Path) -> str:
    start, image, source = found.groups()
    if (named := NAME.search(start)) and (picture := narrow / f"{named[1]}.png").exists():
        folder, _, _ = source.rpartition("/")
        shutil.copy(picture, page / folder / f"narrow-{picture.name}")
        image = f'<picture><source media="{PHONE}" srcset="{folder}/narrow-{picture.name}">{image}</picture>'
    return f'{start}<a class="figure-link" href="{source}">{image}</a>'


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.connect("build-finished", link_figures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
