"""What the search page shows of a hit: the text of every page in one script beside the index.

Sphinx fetches the pages that it found, which browsers refuse on ``file://`` addresses, the way most readers open the
book. The script answers in their place, on the search page alone.
"""

from __future__ import annotations

import json
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

LEFT_OUT = ".cell_input, script, style, svg, mjx-container, .headerlink, .toctree-wrapper, .prev-next-area"
NAME = "search_texts.js"
ANSWER = """const texts = %s;
window.fetch = (address) => {
  const page = address.slice(document.documentElement.dataset.content_root.length).replace(/\\.html$/, "");
  return Promise.resolve({ text: () => Promise.resolve(texts[page] ?? "") });
};
"""


def write(app: Sphinx, failure: Exception | None) -> None:
    """Write the script, and let the search page load it."""
    if failure or app.builder.format != "html":
        return
    out = Path(app.outdir)
    pages = {name: (out / f"{name}.html").read_text(encoding="utf-8") for name in sorted(app.env.found_docs)}
    texts = {name: text for name, page in pages.items() if (text := sections(page))}
    (out / "_static" / NAME).write_text(ANSWER % json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    page = out / "search.html"
    text = page.read_text(encoding="utf-8")
    if NAME not in text:
        loaded = f'<script src="_static/{NAME}"></script>\n</head>'
        page.write_text(text.replace("</head>", loaded, 1), encoding="utf-8")


def sections(page: str) -> str:
    """The text of a page in the form that Sphinx's search reads: main part and sections, and no other elements."""
    article = BeautifulSoup(page, "html.parser").select_one("article.bd-article")
    if article is None:
        return ""
    for element in article.select(LEFT_OUT):
        element.decompose()
    for element in article.find_all(True):
        _bare(element)
    return f'<main role="main">{" ".join(article.decode_contents().split())}</main>'


def _bare(element: Tag) -> None:
    name = element.get("id")
    if name is None:
        element.insert_after(" ")
        element.unwrap()
    else:
        element.name, element.attrs = "section", {"id": name}


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
