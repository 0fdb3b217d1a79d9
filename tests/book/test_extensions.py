"""The book's own Sphinx extensions: how to cite it, lighter pages, and buttons that need the project's address."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
import yaml

pytest.importorskip("sphinx", reason="needs the book extra: pip install 'quide[book]'")
from bs4 import BeautifulSoup
from quidebook import build
from sphinx.errors import ConfigError
from sphinx_extensions import extension

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "https://github.com/someone/quide"


# --- how to cite -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_software_is_cited_from_the_citation_file(citation):
    cite = extension("citation_file")
    text, entry = cite.in_words(citation), cite.bibtex(citation)
    assert text.startswith(f"{citation['authors'][0]['name']} (2026). {citation['title']} (Version ")
    assert entry.startswith("@software{") and f"version = {{{citation['version']}}}" in entry


def test_the_paper_is_cited_by_its_author_and_number(citation):
    cite = extension("citation_file")
    (work,) = citation["references"]
    assert cite.in_words(work).startswith("Jiang, X. (2026). QuIDE: Mastering")
    assert cite.in_words(work).endswith("arXiv:2605.10959")
    for field in ("author = {Jiang, Xiantao}", "eprint = {2605.10959}", "year = {2026}"):
        assert field in cite.bibtex(work)


# --- lighter pages ---------------------------------------------------------------------------------------------------


def test_only_the_named_scripts_are_taken_out():
    kept = '<script src="../_static/doctools.js?v=1"></script><script>let fontawesome = "fontawesome.js";</script>'
    page = f'<script defer src="../_static/scripts/fontawesome.js?digest=5"></script>\n{kept}'
    assert extension("light_pages").without(page, ("fontawesome",)) == kept


@pytest.mark.parametrize(
    ("name", "text", "loaded"),
    [
        ("page.html", "", set()),
        ("page.html", '<span class="math notranslate">', {"tex-chtml"}),
        ("search.html", "", {"searchtools", "language_data", "searchindex"}),
    ],
)
def test_a_page_loads_what_it_shows(name, text, loaded):
    light = extension("light_pages")
    every = {light.ICONS, light.MATHEMATICS, *light.SEARCH}
    assert every - set(light.unneeded(name, text)) == loaded


# --- search ----------------------------------------------------------------------------------------------------------


def test_the_search_knows_the_text_of_each_section_and_no_code():
    page = """<article class="bd-article"><section id="a"><h1>Title<a class="headerlink">#</a></h1>
    <p>One <b>knee</b>.</p><div class="cell_input">code</div><section id="b"><p>Two</p></section></section></article>"""
    text = BeautifulSoup(extension("search_texts").sections(page), "html.parser")
    assert " ".join(text.select_one("main[role=main] #a").get_text().split()) == "Title One knee . Two"
    assert text.select_one("#b").get_text().strip() == "Two" and "code" not in text.get_text()
    assert extension("search_texts").sections("<p>no article</p>") == ""


# --- figures ---------------------------------------------------------------------------------------------------------


FIGURE = '<figure class="a" id="fig-a">\n<img alt="x &gt; y" src="../_images/a.png" />\n</figure>'


def test_a_figure_is_linked_to_its_image_once(tmp_path):
    links = extension("figure_links")
    linked = links.with_links(f'<img alt="no figure" src="b.png" />{FIGURE}', tmp_path, tmp_path)
    assert linked.count('<a class="figure-link" href="../_images/a.png"><img alt="x') == linked.count("<a ") == 1
    assert links.with_links(linked, tmp_path, tmp_path) == linked


def test_a_phone_gets_a_picture_of_its_own(tmp_path):
    links, page, narrow = extension("figure_links"), tmp_path / "html" / "notebooks", tmp_path / "narrow"
    for folder in (page, page.parent / "_images", narrow):
        folder.mkdir(parents=True)
    (narrow / "fig-a.png").write_bytes(b"narrow")
    linked = links.with_links(FIGURE, page, narrow)
    assert 'class="figure-link"' in linked and 'srcset="../_images/narrow-fig-a.png"' in linked
    assert (page.parent / "_images" / "narrow-fig-a.png").read_bytes() == b"narrow"


# --- buttons ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["github.com/someone/quide", "https://github.com/someone", "http://a.b/c/d"])
def test_an_address_that_is_none_of_a_repository_is_refused(address):
    with pytest.raises(ConfigError, match="QUIDE_REPOSITORY"):
        extension("repository").buttons(address)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["", ADDRESS])
def test_pages_offer_what_needs_the_address_where_it_is_known_and_nothing_else(address, tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_REPOSITORY", address)
    page = BeautifulSoup(_rendered(tmp_path).read_text(), "html.parser")
    links = {link["href"] for link in page.select("a[href]")}
    assert "../_sources/notebooks/small.ipynb" in links, "the notebook can be downloaded"
    outside = {link for link in links if link.startswith("http")}
    if not address:
        assert outside == set()
        return
    assert {ADDRESS, f"{ADDRESS}/edit/main/notebooks/small.ipynb"} <= outside
    starts = ("https://mybinder.org/v2/gh/someone/quide/main", f"{ADDRESS}/issues/new")
    starts += ("https://colab.research.google.com/github/someone/quide/blob/main/notebooks/small.ipynb",)
    for start in starts:
        assert any(link.startswith(start) for link in outside), start


def _rendered(folder: Path) -> Path:
    """The page of a notebook in a book of two pages, with the settings of the real one."""
    stage = folder / "stage"
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, stage / "book" / name)
    for name in ("_config.yml", "CITATION.cff", "book/references.bib"):
        shutil.copy(ROOT / name, stage / name)
    contents = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": "notebooks/small"}]}
    (stage / "_toc.yml").write_text(yaml.safe_dump(contents))
    (stage / "book" / "intro.md").write_text("# A small book\n\nOne page.\n")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.cells = [nbformat.v4.new_markdown_cell("# Small\n\nText.")]
    (stage / "notebooks").mkdir()
    nbformat.write(notebook, stage / "notebooks" / "small.ipynb")
    build._render(stage, folder)
    return folder / "_build" / "html" / "notebooks" / "small.html"
