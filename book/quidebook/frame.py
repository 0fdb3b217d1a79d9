"""How a page begins and ends: its question and answer, for whom it is and how long it takes; what to take away from it.

All is Markdown, so that links, terms and mathematics work in it; ``book/_ext/furniture.py`` fills in the minutes.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import nan

from quide._check import one_of
from quidebook.report import Absent, Facts, filled, show_markdown, show_markup, without_tags, worded

LEVELS = ("beginner", "intermediate", "expert")
MARK, MINUTES, TOTAL_MINUTES, END = (
    f'<span class="quide-{name}"></span>' for name in ("opening", "minutes", "total-minutes", "take-aways")
)
Point = str | tuple[str, Facts]  # a sentence, or a template with its facts


def opening(
    question: str, answer: str, facts: Facts | None = None, *, limits: str, level: str, goals: Sequence[str]
) -> None:
    """Display what a page opens with, in a cell tagged ``remove-input`` below the title.

    Args:
        question: what the page asks.
        answer: two sentences; a template of ``facts``, as in :func:`quidebook.report.say`.
        limits: what the answer does not cover; it may be a template of the same facts.
        level: one of :data:`LEVELS`.
        goals: what a reader will be able to do; each goes on after "After it you can".
    """
    one_of("level", level, LEVELS)
    kept = worded(limits, defaultdict(lambda: nan) if isinstance(facts, Absent) else facts)  # which shows dashes
    lines = [
        f"{MARK}**Question.** {without_tags(question)}",
        f"**Answer.** {worded(answer, facts)}",
        f"**Limits.** {kept}",
        f"**For:** {level} readers.{MINUTES} After it you can {without_tags('; '.join(goals))}.",
    ]
    show_markdown("\n\n".join(lines))


def take_aways(*points: Point) -> None:
    """Display what to take away, a point a line; a point whose facts are absent is left out unless all are."""
    known = [point for point in points if isinstance(point, str) or not isinstance(point[1], Absent)]
    lines = [worded(*((point,) if isinstance(point, str) else point)) for point in known or points[:1]]
    show_markdown(f"{END}**Take-aways**\n\n" + "\n".join(f"- {line}" for line in lines))


def check(question: str, options: Mapping[str, tuple[bool, str]], facts: Facts | None = None) -> None:
    """Display a question with its possible answers, each of which opens to say whether it is right, and why.

    Args:
        question: plain text, as everything here.
        options: answer -> whether it is right, and the reason.
        facts: what fills the fields of all of these; the question is left out where they are absent.
    """
    if isinstance(facts, Absent):
        return
    text = html.escape if facts is None else lambda template: html.escape(filled(template, facts))
    answers = "".join(
        f"<details><summary>{text(answer)}</summary>"
        f"<p><strong>{'Right.' if right else 'No.'}</strong> {text(why)}</p></details>"
        for answer, (right, why) in options.items()
    )
    show_markup(f'<div class="quide-check"><p><strong>{text(question)}</strong></p>{answers}</div>')


def fold(shown: str, summary: str, text: str) -> None:
    """Display Markdown, and below it more in a line that unfolds."""
    show_markdown(f"{shown}\n\n:::{{dropdown}} {summary}\n{text}\n:::")
