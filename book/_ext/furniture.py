"""What every page gets that its text cannot know: how many minutes it takes to read, a switch for its code, a summary.

The switch is a check box that style sheets look at, so that it works without a script. Minutes are counted from the
words that a reader sees: code behind the switch and what is folded away do not count.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

WORDS_A_MINUTE = 200
CODE = ".cell_input, script, style, .headerlink, .toctree-wrapper"
HIDDEN = f"{CODE}, details > :not(summary), .admonition.dropdown > :not(.admonition-title)"
LONGEST_SUMMARY = 300  # characters
MINUTES, TOTAL = "quide-minutes", "quide-total-minutes"
SWITCH = (
    '<label class="quide-code-switch d-print-none"><input type="checkbox" id="quide-show-code" autocomplete="off">'
    " Show code</label>"
)
MOVED = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>This page has moved</title>'
    '<meta http-equiv="refresh" content="0; url={target}"></head><body><p>This page has moved: '
    '<a href="{target}">go there</a>.</p></body></html>\n'
)
SOURCE = re.compile(r'(<a href="[^"]*_sources/[^"]+")(?! download)')  # which a browser would show instead of keeping
ICON = '<link rel="icon" type="image/svg+xml" href="{root}_static/favicon.svg">'


def words(article: Tag, hidden: str = HIDDEN) -> int:
    """How many words of a page a reader sees."""
    copy = BeautifulSoup(str(article), "html.parser")
    for element in copy.select(hidden):
        element.decompose()
    return len(re.findall(r"[^\W_][\w.,%'’-]*", copy.get_text(" ")))


def minutes(count: int) -> int:
    """Reading time of so many words."""
    return max(1, round(count / WORDS_A_MINUTE))


def summary(article: Tag) -> str:
    """What a search engine shows of a page: its answer, or else its first paragraph."""
    paragraphs = [" ".join(each.get_text(" ").split()) for each in article.select("p")]
    answers = [text for text in paragraphs if text.startswith("Answer.")]
    text = re.sub(r"\s+([.,;:)])", r"\1", (answers or paragraphs or [""])[0].removeprefix("Answer.").strip())
    return text if len(text) <= LONGEST_SUMMARY else f"{text[:LONGEST_SUMMARY].rsplit(' ', 1)[0]} …"


def redirect(app: Sphinx, failure: Exception | None) -> None:
    """Write, at the address of every page that has moved, where it is now."""
    if failure or app.builder.format != "html":
        return
    for old, new in app.config.book_moved.items():
        target = posixpath.relpath(f"{new}.html", posixpath.dirname(old))
        Path(app.outdir, f"{old}.html").write_text(MOVED.format(target=target), encoding="utf-8")


def furnish(app: Sphinx, failure: Exception | None) -> None:
    """Write minutes, switch and summary into every page."""
    if failure or app.builder.format != "html":
        return
    files = {name: Path(app.outdir) / f"{name}.html" for name in sorted(app.env.found_docs)}
    articles = {name: _article(file) for name, file in files.items()}
    counts = {name: words(article) for name, article in articles.items() if article is not None}
    total = sum(map(minutes, counts.values()))
    for name, file in files.items():
        if name in counts:
            text = file.read_text(encoding="utf-8")
            shown = furnished(text, counts[name], total, summary(articles[name]), "../" * name.count("/"))
            if shown != text:
                file.write_text(shown, encoding="utf-8")


def furnished(text: str, count: int, total: int, about: str, root: str) -> str:
    """A page, given as HTML, with its furniture; one that has it already is left as it is."""
    if "quide-code-switch" not in text and '<div class="cell_input' in text:
        text = text.replace('<div class="article-header-buttons">', f'<div class="article-header-buttons">{SWITCH}', 1)
    if 'name="description"' not in text:
        text = text.replace("</head>", f"{_about(text, html.escape(about))}{ICON.format(root=root)}\n</head>", 1)
    text = SOURCE.sub(r"\1 download", text)
    text = _filled(text, MINUTES, f" {minutes(count)} min to read.")
    return _filled(text, TOTAL, f"{total // 60} h {total % 60} min")


def _about(text: str, description: str) -> str:
    """What search engines and previews of a link show of a page."""
    title, _, book = re.search(r"<title>(.*?)</title>", text).group(1).partition(" &#8212; ")
    named = {"type": "article" if book else "website", "title": title, "description": description}
    named |= {"site_name": book} if book else {}
    shared = (f'<meta property="og:{name}" content="{content}">\n' for name, content in named.items())
    return f'<meta name="description" content="{description}">\n{"".join(shared)}'


def _filled(text: str, name: str, content: str) -> str:
    return re.sub(rf'(<span class="{name}">)[^<]*(</span>)', rf"\g<1>{content}\g<2>", text)


def _article(file: Path) -> Tag | None:
    return BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser").select_one("article.bd-article")


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.add_config_value("book_moved", {}, "html", dict)
    app.connect("build-finished", furnish)
    app.connect("build-finished", redirect)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
