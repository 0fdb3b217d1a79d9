"""What the commands write: refused before the work is done, whole or not at all; pages that need nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from quide import _paths

LEAST = 2**16  # bytes that are tried before the work; a result takes fewer

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body{{font:1rem/1.5 sans-serif;max-width:70rem;margin:1rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}th,td{{padding:.2rem .6rem;border-bottom:1px solid #ccc;text-align:right}}
th:first-child,td:first-child{{text-align:left}}pre,.wide{{overflow-x:auto}}svg{{max-width:100%;height:auto}}</style></head>
<body><h1>{title}</h1>{body}</body></html>
"""


def check(option: str, file: Path | None, endings: Sequence[str]) -> None:
    """Refuse a file that could not be written; None is no file.

    Raises:
        ValueError: another ending than those, or a folder of that name.
        FileNotFoundError: its folder does not exist.
        OSError: its folder cannot be written to, or is full.
    """
    if file is None:
        return
    if file.suffix not in endings or file.is_dir():
        raise ValueError(f"{option} must be a file that ends in {' or '.join(endings)}, got {file}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file.parent} does not exist; make it, or name another --{option}")
    try:
        _paths.try_to_write(file.parent, LEAST)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write {file} ({reason}); free space, or name another --{option}") from error


def write(file: Path, text: str) -> None:
    """Write a text; ``OSError`` names the file."""
    with _paths.written(file) as partial:
        partial.write_text(text, encoding="utf-8")


def page(title: str, *parts: str) -> str:
    """A whole HTML file; ``parts`` are HTML, in which what the user named is escaped."""
    return _PAGE.format(title=title, body="\n".join(parts))


def paragraphs(*sentences: str) -> str:
    """Sentences as HTML."""
    return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
