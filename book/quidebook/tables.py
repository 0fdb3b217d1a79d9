"""Tables of the book as HTML: what heads a row first, its verdict second; a list a row on a phone, where it is wide."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from quidebook.verdicts import CLASSES

UNBROKEN = re.compile(r"[^A-Za-z]{1,32}|.{1,14}")  # numbers with their spread, configurations, orders, short words
SEQUENCE = re.compile(r"\d+(?:-\d+){2,}|\d+(?: &gt; \d+)+")  # 8-8-8-4, 4 > 8, a date
ROW, CELL = 42, 28  # characters that a row has room for on a phone, and that a cell takes before its text breaks
LONG = 40  # characters from which a cell is a sentence, which a narrow column would break into single words


@dataclass(frozen=True)
class Links:
    """A cell of a table that links to pages of the book.

    Attributes:
        targets: the words of each link, and the address relative to the page, such as ``exp3.html#table-2``.
    """

    targets: tuple[tuple[str, str], ...]

    @property
    def markup(self) -> str:
        """As HTML; the classes are those that Sphinx gives to its own links."""
        return "; ".join(
            f'<a class="reference internal" href="{html.escape(address)}">{html.escape(words)}</a>'
            for words, address in self.targets
        )


def table_markup(frame: pd.DataFrame, caption: str, classes: Mapping[str, str] | None = None) -> str:
    """HTML of a table; ``classes`` are those of verdicts, cell text -> CSS class."""
    classes = classes or CLASSES
    frame = _verdict_second(frame, classes)
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in frame.columns)
    wide = _is_wide(frame)
    labels = [f' data-label="{html.escape(str(column))}"' if wide else "" for column in frame.columns]
    lines = zip(*(frame[column].tolist() for column in frame), strict=True)
    rows = "".join(_row(list(values), labels, classes) for values in lines)
    text, name = html.escape(caption), "quide-table wide" if wide else "quide-table"
    return (
        f'<div class="{name}" role="region" tabindex="0" aria-label="{text}"><table><caption>{text}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


@dataclass(frozen=True)
class _Judged:
    """A cell with a verdict and, under it, the reason."""

    verdict: str
    reason: str


def _verdict_second(frame: pd.DataFrame, classes: Mapping[str, str]) -> pd.DataFrame:
    """The verdict beside what heads a row, where a phone shows it, with the reason or the evidence below it."""
    if "verdict" not in frame or not set(frame["verdict"]) & set(classes):
        return frame
    reasons = frame.get("reason", frame.get("evidence", pd.Series("", frame.index)))
    judged = [_Judged(str(verdict), str(reason)) for verdict, reason in zip(frame["verdict"], reasons, strict=True)]
    others = frame.drop(columns=["verdict", "reason", "evidence"], errors="ignore")
    others.insert(2 if "bits" in others.columns[1:2] else 1, "verdict", judged)
    return others


def _is_wide(frame: pd.DataFrame) -> bool:
    """Whether a phone has no room for the columns side by side; there each row is then a list, a line a column."""
    longest = (max(map(len, [str(column), *map(str, frame[column])])) for column in frame)
    return sum(min(length, CELL) + 1 for length in longest) > ROW


def _row(values: Sequence[object], labels: Sequence[str], classes: Mapping[str, str]) -> str:
    first, *others = values
    cells = "".join(_cell(value, label, classes) for value, label in zip(others, labels[1:], strict=True))
    return f'<tr><th scope="row">{_text(first)}</th>{cells}</tr>'


def _cell(content: object, label: str, classes: Mapping[str, str]) -> str:
    if isinstance(content, Links):
        return f"<td{label}>{content.markup}</td>"
    if isinstance(content, _Judged):
        reason = f'<span class="reason">{_text(content.reason)}</span>' if content.reason else ""
        name = classes.get(content.verdict, "")
        return f'<td class="{name}"{label}><strong>{_text(content.verdict)}</strong>{reason}</td>'
    value = str(content)
    own = "short" if UNBROKEN.fullmatch(value) else "long" if len(value) >= LONG else ""
    name = classes.get(value, own)
    return f'<td class="{name}"{label}>{_text(value)}</td>' if name else f"<td{label}>{_text(value)}</td>"


def _text(content: object) -> str:
    """A cell's text as HTML in which configurations, orders and dates are not broken over two lines."""
    return SEQUENCE.sub(r'<span class="unbroken">\g<0></span>', html.escape(str(content)))
