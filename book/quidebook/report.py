"""Tables and figures of the book, drawn from data frames; each figure carries its caption and its alt text."""

from __future__ import annotations

import base64
import functools
import html
import io
import re
import string
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

import matplotlib

matplotlib.use("agg")  # figures are rendered to PNG here; no window, no notebook backend

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display
from matplotlib.figure import Figure

from quide.experiments import staleness
from quide.stats import Interval
from quidebook.tables import table_markup

# Okabe and Ito's colours, told apart in every form of colour blindness; markers and line styles repeat the distinction.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#595959"
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
NARROW = "application/x-quide-narrow"  # the kind of output that holds a figure's picture for phones, in base 64
NARROW_INCHES, LABEL_CHARACTERS, LINE_INCHES = 4.6, 22, 0.15  # a line of a label of 8 points
POINTS_AN_INCH, CHARACTER = 72, 0.55  # a character's mean width, as a share of its size
UNKNOWN, NO_RECORD = "–", "no record"  # cells: of what is not known, of what was not measured
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_MARK = re.compile(r"[\\`*_~{}\[\]$]")
_CODE_OR_TAG = re.compile(r"(?P<code>(?<![\\`])(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))|" + _TAG.pattern)


def panels(
    columns: int = 1, rows: int = 1, width: float = 7.0, height: float = 3.2, **options
) -> tuple[Figure, np.ndarray]:
    """A figure in the book's style and its axes as a flat array; sizes in inches."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)
    return figure, axes.ravel()


def show(figure: Figure, name: str, caption: str, alt: str) -> None:
    """Display a figure as PNG with its reference name, caption and alternative text; one figure a notebook cell.

    Raises:
        ValueError: the caption or the alternative text is empty.
    """
    for argument, text in (("name", name), ("caption", caption), ("alt", alt)):
        if not text.strip():
            raise ValueError(f"{argument} must not be empty: every figure is numbered, captioned and described")
    image = _drawn(figure)
    narrow = {NARROW: base64.b64encode(_drawn(figure)).decode()} if _narrow(figure) else {}
    plt.close(figure)
    caption = without_tags(caption)  # which Sphinx reads as Markdown; it escapes the alternative text itself
    display(
        {"image/png": image, "text/plain": f"{caption} ({alt})", **narrow},
        metadata={"quide": {"name": name, "caption": caption, "alt": alt}, "image/png": {"alt": alt}},
        raw=True,
    )


def _drawn(figure: Figure) -> bytes:
    image = io.BytesIO()
    with plt.rc_context(STYLE):
        figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()


def _narrow(figure: Figure) -> bool:
    """Whether a figure was wider than a phone shows; it then is as wide, panels below each other, titles broken."""
    if figure.get_figwidth() <= NARROW_INCHES:
        return False
    figure.set_size_inches(NARROW_INCHES, figure.get_figheight() * _stack(figure))
    for axis in figure.axes:
        labels = [text.get_text() for text in axis.get_yticklabels()]
        named = not any("$" in label for label in labels)  # powers of ten are mathematics, which no line break may cut
        if named and max(map(len, labels), default=0) > LABEL_CHARACTERS:
            labels = [textwrap.fill(label, LABEL_CHARACTERS) for label in labels]
            axis.set_yticks(axis.get_yticks(), labels, fontsize=8)
            tallest = max(label.count("\n") + 1 for label in labels) * len(labels) * LINE_INCHES
            figure.set_figheight(max(figure.get_figheight(), 1 + tallest))  # so that none covers its neighbour
    figure.draw_without_rendering()  # which lays it out
    for axis in figure.axes:
        inches = axis.get_window_extent().width / figure.dpi
        characters = inches * POINTS_AN_INCH / (CHARACTER * axis.title.get_fontsize())
        axis.title.set_text(textwrap.fill(axis.get_title(), int(characters)))
    for legend in list(figure.legends):
        labels, size = [text.get_text() for text in legend.get_texts()], legend.get_texts()[0].get_fontsize()
        legend.remove()
        figure.legend(legend.legend_handles, labels, loc="outside lower center", ncols=2, fontsize=size)
    return True


def _stack(figure: Figure) -> float:
    """Put panels that stand side by side below each other; by what the height grows."""
    panels = [axis for axis in figure.axes if axis.get_visible() and axis.get_subplotspec() is not None]
    grids = {axis.get_subplotspec().get_gridspec() for axis in panels}
    if len(grids) != 1 or (grid := grids.pop()).ncols == 1 or any(axis.get_label() == "<colorbar>" for axis in panels):
        return 1
    places = list(dict.fromkeys(axis.get_subplotspec().num1 for axis in panels))
    below = figure.add_gridspec(len(places), 1)
    for axis in panels:
        if not axis.get_ylabel() and axis.get_shared_y_axes().joined(axis, panels[0]):
            axis.set_ylabel(panels[0].get_ylabel())
        axis.tick_params(labelleft=True)
        axis.set_subplotspec(below[places.index(axis.get_subplotspec().num1)])
    return len(places) / grid.nrows


@dataclass(frozen=True)
class Absent:
    """In place of facts that no record holds: what they are of, and the command that makes the records."""

    what: str
    command: str

    def __str__(self) -> str:
        return f"There is no record of {self.what} here. To make it: `{self.command}`."


Facts = Mapping[str, object] | Absent


class _Fields(string.Formatter):
    """Python's format fields, and two more formats: ``:pct1`` a fraction in percent, ``:num3`` a number, to so many
    digits; an unknown value is a dash in every format, an interval has its bounds behind it."""

    def format_field(self, value: object, format_spec: str) -> str:
        if isinstance(value, float) and np.isnan(value):
            return UNKNOWN
        if match := re.fullmatch(r"(pct|num)(\d)", format_spec):
            kind, digits = match[1], int(match[2])
            if isinstance(value, Interval):
                return with_interval(value, 100, digits) + " %" if kind == "pct" else with_interval(value, 1, digits)
            return {"pct": percent, "num": number}[kind](value, digits)
        return super().format_field(value, format_spec)


class _Template(_Fields):
    """The same in Markdown: no value opens an HTML tag."""

    def format_field(self, value: object, format_spec: str) -> str:
        return _TAG.sub("&lt;", super().format_field(value, format_spec))


def worded(template: str, facts: Facts | None = None) -> str:
    """A sentence of a page: its fields filled from facts, or, of absent facts, how to get them.

    A fact may be a string of a record, which anybody can have written: what looks like HTML in it is shown as it is.

    Raises:
        KeyError: a field that is not among the facts.
    """
    if isinstance(facts, Absent):
        return without_tags(str(facts))
    return without_tags(template if facts is None else _Template().vformat(template, (), facts))


def without_tags(text: str) -> str:
    """Markdown in which no ``<`` begins a tag, but in code such as ``{term}`words <target>```, which ends in a line."""
    return _CODE_OR_TAG.sub(lambda found: found["code"] or "&lt;", text)


def say(template: str, facts: Facts | None = None) -> None:
    """Display a paragraph of Markdown: :func:`worded`."""
    show_markdown(worded(template, facts))


def listed(template: str, many: Iterable[Facts]) -> str:
    """One clause for each of several facts, with semicolons between them."""
    return "; ".join(worded(template, facts) for facts in many)


def noise(reasons: Sequence[str]) -> str:
    """A sentence on timings that are not to be trusted; empty where there is no reason to distrust them."""
    return f"These timings are noisy: {'; '.join(map(plain, reasons))}." if reasons else ""


def plain(text: str) -> str:
    """A string of a record as Markdown that shows it: on one line, no role, template, directive, link or code in it."""
    return _MARK.sub(r"\\\g<0>", "".join(each if each.isprintable() else " " for each in text))


def table(frame: pd.DataFrame, caption: str) -> None:
    """Display a data frame of finished text cells as an accessible table that scrolls sideways on a narrow screen.

    Args:
        frame: one row a line, of text or :class:`Links`; the first column heads its row.
        caption: what it shows and where the numbers are from.
    """
    if frame.empty:
        return say(f"*{caption}*: there is no record of it here.")
    show_markup(table_markup(frame, caption))


def folded(frame: pd.DataFrame, caption: str, summary: str = "", classes: Mapping[str, str] | None = None) -> None:
    """:func:`table` in a line that unfolds, a summary or the caption, for what few readers ask for; ``classes`` are
    those of verdicts, cell text -> CSS class."""
    if frame.empty:
        return table(frame, caption)
    line, inside = html.escape(summary or f"Table: {caption}"), table_markup(frame, caption, classes)
    show_markup(f"<details><summary>{line}</summary>{inside}</details>")


def rows(columns: Mapping[str, str], many: Iterable[Facts]) -> pd.DataFrame:
    """Cells for :func:`table`: a row for each of several facts, a template of them for each column."""
    return pd.DataFrame({name: filled(cell, facts) for name, cell in columns.items()} for facts in many)


def filled(template: str, facts: Mapping[str, object]) -> str:
    """Plain text: the fields of a template filled from facts."""
    return _Fields().vformat(template, (), facts)


def show_markup(text: str) -> None:
    """Display HTML as it is: strings of records in it have been escaped."""
    display(HTML(text))


def show_markdown(text: str) -> None:
    """Display Markdown as it is: strings of records in it have been through :func:`without_tags`."""
    display(Markdown(text))


def _collected(kind: Callable) -> Callable[[Callable[..., Iterable]], Callable]:
    def decorator(rows: Callable[..., Iterable]) -> Callable:
        @functools.wraps(rows)
        def collected(*arguments, **options):
            return kind(rows(*arguments, **options))

        return collected

    return decorator


tabled = _collected(pd.DataFrame)  # makes of a function that yields the rows of a table one that returns the table
gathered = _collected(list)  # likewise of one that yields facts: it returns the list of them


def points(values: pd.Series, digits: int) -> str:
    """The known ones of what a figure draws, in words: ``12.3 at 8, 4.5 at 4``."""
    return ", ".join(f"{value:.{digits}f} at {place}" for place, value in values.dropna().items())


def percent(value: float, digits: int = 2) -> str:
    """A fraction as a percentage, or a dash for an unknown one."""
    return UNKNOWN if pd.isna(value) else f"{100 * value:.{digits}f} %"


def number(value: float, digits: int = 3) -> str:
    """A number, or a dash for an unknown one."""
    return UNKNOWN if pd.isna(value) else f"{value:.{digits}f}"


def with_origin(text: str, origin: str) -> str:
    """A number of the paper with a dagger when the paper does not print it but implies it."""
    return f"{text} †" if origin == "derived" and text != UNKNOWN else text


def spread(row: pd.Series, quantity: str, scale: float = 1.0) -> str:
    """``mean ± standard deviation [95 % interval]`` over seeds, from a row of :meth:`summary`."""
    mean, std, low, high = (scale * row[f"{quantity}{end}"] for end in ("", "_std", "_low", "_high"))
    if np.isnan(std):
        return f"{mean:.2f} (1 seed)"
    return f"{mean:.2f} ± {std:.2f} [{low:.2f}, {high:.2f}]"


def mean_std(shares: Sequence[float]) -> str:
    """``mean ± standard deviation`` in percent, of one the value alone."""
    return f"{100 * np.mean(shares):.2f}" + (f" ± {100 * np.std(shares, ddof=1):.2f}" if len(shares) > 1 else "")


def scaled(interval: Interval, scale: float = 100.0) -> Interval:
    """An interval in other units, by default in percent."""
    return Interval(*(scale * end for end in (interval.estimate, interval.low, interval.high)))


def with_interval(interval: Interval, scale: float = 1.0, digits: int = 2) -> str:
    """``estimate [low, high]``."""
    shown = scaled(interval, scale)
    return f"{shown.estimate:.{digits}f} [{shown.low:.{digits}f}, {shown.high:.{digits}f}]"


def error_bars(axis: plt.Axes, places: Sequence[float], intervals: Iterable[Interval], **look) -> None:
    """A mark at each estimate, with a bar from low to high; one that rounding puts beyond an end has no bar there."""
    middle, low, high = np.array([astuple(each) for each in intervals]).reshape(-1, 3).T
    axis.errorbar(places, middle, yerr=np.abs([middle - low, high - middle]), **{"capsize": 3} | look)


def legend_below(figure: Figure, axis: plt.Axes, **options) -> None:
    """One legend of all panels, below them, where it covers no point."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", **options)


def bit_axis(axis: plt.Axes, bits: Iterable[int]) -> None:
    """Bit-widths as evenly spaced categories, widest first: compression grows to the right."""
    widths = sorted(bits, reverse=True)
    axis.set_xticks(range(len(widths)), [str(width) for width in widths])
    axis.set_xlabel("bits")


def positions(bits: Iterable[int], widths: Sequence[int]) -> list[int]:
    """Where :func:`bit_axis` puts each of ``widths``."""
    order = sorted(bits, reverse=True)
    return [order.index(width) for width in widths]


def provenance(records: Iterable, *commands: str) -> None:
    """Display one line on the records a page was drawn from; it unfolds to what ran, where, when, on which data, how
    long, every key, and the commands (each takes ``--seeds``) that make them.

    Args:
        records: :class:`quide.experiments.records.Record` objects.
        commands: as typed.
    """
    used = {record.key: record for record in records}.values()
    if not used:
        say(f"No record was used. To make them: {' and '.join(f'`{command}`' for command in commands)}")
        return
    facts = pd.DataFrame(map(_provenance_row, sorted(used, key=lambda record: (record.spec.kind, record.key))))
    summary = facts.groupby(["ran", "network", "profile", "machine"], sort=False).agg(
        seeds=("seed", lambda seeds: ", ".join(map(str, sorted(set(seeds))))),
        records=("key", "count"),
        took=("seconds", lambda seconds: _duration(seconds.sum())),
        made=("made", _span),
        commit=("commit", _distinct),
        data=("data", _distinct),
        stale=("stale", "sum"),
        noisy=("noisy", "sum"),
    )
    columns = ["ran", "network", "seeds", "profile", "records", "took", "made", "data", "machine", "commit"]
    marks = [mark for mark in ("stale", "noisy") if facts[mark].any()]
    marked = "".join(f", {facts[mark].sum()} {mark}" for mark in marks)
    details = table_markup(summary.reset_index()[[*columns, *marks]], "What was run, on which data, where and when")
    keys = ", ".join(facts["ran"].str.replace(" ", "_") + " " + facts["key"])
    again = "\n".join(line for command in commands for line in (command, f"{command} --seeds 7  # another seed"))
    show_markup(
        f'<details class="quide-provenance"><summary>Drawn from {len(used)} records, made {_span(facts["made"])} in '
        f"{_duration(facts['seconds'].sum())}{marked}: what ran, where, by which code</summary>{details}"
        f'<p class="quide-keys">Keys: {html.escape(keys)}</p><p>Made by these commands; what has '
        f'its record is <a class="reference internal" href="../book/rerun.html#records">not run again</a>.</p>'
        f"<pre>{html.escape(again)}</pre></details>"
    )


def _provenance_row(record) -> dict[str, object]:
    made = record.provenance
    machine = made["accelerator"] or f"{made['cpu']}, {made['threads'] or 'all'} threads"
    return {
        "ran": record.spec.kind.replace("_", " "),
        "network": f"{record.spec.model} on {record.spec.dataset}",
        "profile": record.spec.profile,
        "seed": record.spec.seed,
        "made": made["date"][:10],
        "machine": f"{machine}, torch {made['packages']['torch']}",
        "commit": made["git_commit"] or UNKNOWN,
        # A training that was taken up again tells how long all of it took.
        "seconds": record.values.get("training", {}).get("seconds", record.seconds),
        "data": record.data[:8],
        "key": record.key,
        "stale": staleness.stale(record),
        "noisy": bool(record.values.get("noisy")),
    }


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _span(dates: pd.Series) -> str:
    return dates.min() if dates.min() == dates.max() else f"{dates.min()} to {dates.max()}"


def _distinct(values: pd.Series) -> str:
    return ", ".join(dict.fromkeys(values))
