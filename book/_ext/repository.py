"""Buttons that need the project's address: repository, edit, issue, Binder and Colab; none where it is not known.

The address is ``book_repository`` in ``_config.yml``, or the environment variable ``QUIDE_REPOSITORY``, which the
publishing workflow sets.
"""

from __future__ import annotations

import os
import re

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

VARIABLE = "QUIDE_REPOSITORY"
ADDRESS = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]+")
HOSTS = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}


def buttons(address: str) -> dict:
    """Options of the theme for a repository.

    Raises:
        ConfigError: the address is not that of a repository.
    """
    if not address:
        return {}
    if not ADDRESS.fullmatch(address):
        raise ConfigError(f"{VARIABLE} or book_repository must be like https://github.com/owner/name, got {address!r}")
    shown = ("use_repository_button", "use_edit_page_button", "use_issues_button")
    return {
        "repository_url": address,
        "repository_branch": "main",
        "path_to_docs": "",  # the pages have the paths of the checkout
        "launch_buttons": {**HOSTS, "notebook_interface": "jupyterlab"},
        **dict.fromkeys(shown, True),
    }


def add_buttons(app: Sphinx, config: Config) -> None:
    """Add the options to those of ``_config.yml``."""
    config.html_theme_options |= buttons(os.environ.get(VARIABLE) or config.book_repository)


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.add_config_value("book_repository", "", "html", str)
    app.connect("config-inited", add_buttons)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
