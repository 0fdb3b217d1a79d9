"""The directive ``cite-as``: what CITATION.cff says, as text and as BibTeX, each with a button that copies it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

KEYS = {"software": "quide2026rerun", "article": "jiang2026quide"}
ARXIV = "arXiv:"


class CiteAs(SphinxDirective):
    """``{cite-as} path``: the software of a citation file first, then the works it refers to."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Headed blocks of text."""
        _, file = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(file)
        entry = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        shown = [("This book and its software", entry), *(("The paper", work) for work in entry["references"])]
        return [node for words, work in shown for node in _blocks(words, work)]


def _blocks(words: str, work: dict[str, Any]) -> list[nodes.Node]:
    blocks: list[nodes.Node] = []
    for form, language, text in (("text", "text", in_words(work)), ("BibTeX", "bibtex", bibtex(work))):
        label = f"{words}, as {form}"
        block = nodes.literal_block(text, text, language=language, classes=["cite-as"])
        blocks += [nodes.paragraph("", "", nodes.strong(label, label)), block]
    return blocks


def in_words(work: dict[str, Any]) -> str:
    """A work in the style of the American Psychological Association."""
    kind = f" (Version {work['version']}) [Computer software]" if "version" in work else ""
    where = [address for address in (_identifier(work), work.get("repository-code")) if address]
    return " ".join([f"{_authors(work, initials=True)} ({_year(work)}). {work['title']}{kind}.", *where])


def bibtex(work: dict[str, Any]) -> str:
    """A work as an entry of a BibTeX file."""
    identifier = _identifier(work)
    fields = {"author": _authors(work), "title": f"{{{work['title']}}}", "year": _year(work)}
    if identifier.startswith(ARXIV):
        fields |= {"eprint": identifier.removeprefix(ARXIV), "archiveprefix": "arXiv"}
    fields |= {name: work[key] for name, key in (("version", "version"), ("url", "repository-code")) if key in work}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{'software' if 'version' in work else 'misc'}{{{KEYS[work['type']]},", *lines, "}"])


def _authors(work: dict[str, Any], initials: bool = False) -> str:
    names = []
    for author in work["authors"]:
        if "name" in author:  # an organisation, kept as it is
            names.append(author["name"] if initials else f"{{{author['name']}}}")
        else:
            given = author["given-names"]
            names.append(f"{author['family-names']}, {f'{given[0]}.' if initials else given}")
    return " & ".join(names) if initials else " and ".join(names)


def _year(work: dict[str, Any]) -> str:
    return str(work.get("year") or str(work["date-released"])[:4])


def _identifier(work: dict[str, Any]) -> str:
    return next((each["value"] for each in work.get("identifiers", [])), "")


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.add_directive("cite-as", CiteAs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
