"""A picture of a probed network: accuracy and I' by width with intervals, as a file."""

from __future__ import annotations

import html
import io
from pathlib import Path

from quide import _paths, metric
from quide.cli.files import check_output
from quide.cli.probe import Probe, advice, as_text, percent, spoken

ENDINGS = (".png", ".svg", ".pdf", ".html")
BLUE, ORANGE = "#0072B2", "#D55E00"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body{{font:1rem/1.5 sans-serif;max-width:45rem;margin:1rem auto;padding:0 1rem}}
svg{{max-width:100%;height:auto}}pre{{overflow-x:auto}}</style></head>
<body><h1>{title}</h1>{advice}<figure role="img" aria-label="{alt}">{figure}</figure><pre tabindex="0">{table}</pre>
</body></html>
"""


def check(file: Path) -> None:
    """Refuse what :func:`draw` could not write, before the work is done.

    Raises:
        ValueError: another ending.
        FileNotFoundError: the folder does not exist.
        ModuleNotFoundError: matplotlib is not installed.
    """
    check_output("plot", file, ENDINGS)
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("matplotlib is missing; install it with: pip install 'quide[book]'") from error


def draw(found: Probe, file: Path) -> None:
    """Write the picture; an ``.html`` file also holds the table and the advice, and needs nothing else.

    Errors as :func:`check`.
    """
    check(file)
    drawn = _figure(found)
    if file.suffix != ".html":
        with _paths.atomic(file) as partial:
            drawn.savefig(partial, dpi=160, format=file.suffix[1:])
        return
    picture = io.StringIO()
    drawn.savefig(picture, format="svg")
    text = picture.getvalue()
    said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in advice(found))
    page = PAGE.format(
        title="A network by bit-width",
        advice=said,
        alt=html.escape(description(found)),
        figure=text[text.index("<svg") :],
        table=html.escape(as_text(found)),
    )
    with _paths.atomic(file) as partial:
        partial.write_text(page, encoding="utf-8")


def description(found: Probe) -> str:
    """The picture in words."""
    rows = [
        f"{spoken(row['bits'])}: accuracy (%) {percent(row)}, I' {row['gated_index']:.3f}"
        for row in found.table.to_dict("records")
    ]
    return "; ".join(rows)


def _figure(found: Probe):
    from matplotlib.figure import Figure

    table, places = found.table, range(len(found.table))
    for end in ("low", "high"):  # a score of the user's has no interval
        table = table.assign(**{f"accuracy_{end}": table[f"accuracy_{end}"].fillna(table["accuracy"])})
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    error = 100 * abs(table[["accuracy_low", "accuracy_high"]].to_numpy().T - table["accuracy"].to_numpy())
    left.errorbar(places, 100 * table["accuracy"], yerr=error, fmt="o-", color=BLUE, capsize=3)
    what = "score (%)" if found.correct is None else "accuracy (%), 95 % interval"
    left.axhline(100 * found.threshold, color="black", linestyle=":", linewidth=1)
    left.set_ylabel(f"{what}; dotted: threshold")
    low, high = (
        metric.gated_index(table["compression"], table[f"accuracy_{end}"], table["latency_ms"], found.threshold)
        for end in ("low", "high")
    )
    gated = table["gated_index"]
    right.errorbar(places, gated, yerr=[gated - low, high - gated], fmt="s--", color=ORANGE, capsize=3)
    right.set_ylabel("I'")
    for axes in (left, right):
        axes.set_xticks(places, [str(bits) for bits in table["bits"]])
        axes.set_xlabel("bits")
        axes.spines[["top", "right"]].set_visible(False)
    best = "no width is above the threshold" if found.knee is None else f"highest I' at {spoken(found.knee)}"
    figure.suptitle(best, fontsize=11)
    return figure
