"""Rebuilds a page when a notebook that it shows results of has changed.

MyST-NB lets a page show an output of another page (``{glue} name`` with ``:doc:``), but does not tell Sphinx about it,
so that an incremental build would go on showing the old output.
"""

from __future__ import annotations

from docutils import nodes
from myst_nb.ext.glue.utils import PendingGlueReference
from sphinx.application import Sphinx


def note_sources(app: Sphinx, document: nodes.document) -> None:
    """Tell Sphinx that the page just read depends on the pages it shows outputs of."""
    for reference in document.findall(PendingGlueReference):
        app.env.note_dependency(app.env.doc2path(reference.refdoc))


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.connect("doctree-read", note_sources)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
