"""A picture of a probed network: accuracy and I' by width with intervals, as a file."""

from __future__ import annotations

import html
import io
from pathlib import Path

from quide import _paths, metric
from quide.cli import output
from quide.cli.probe import Probe, advice, as_text, percent, spoken

ENDINGS = (".png", ".svg", ".pdf", ".html")
BLUE, ORANGE = "#0072B2", "#D55E00"


def check(file: Path) -> None:
    """Refuse what :func:`draw` could not write, before the work is done.

    Raises:
        ValueError: another ending.
        FileNotFoundError: the folder does not exist.
        ModuleNotFoundError: matplotlib is not installed.
    """
    output.check("plot", file, ENDINGS)
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("matplotlib is missing; install it with: pip install 'quide[book]'") from error


def draw(found: Probe, file: Path) -> None:
    """Write the picture; an ``.html`` file also holds the table and the advice, and needs nothing else."""
    drawn = _figure(found)
    if file.suffix != ".html":
        with _paths.written(file) as partial:
            drawn.savefig(partial, dpi=160, format=file.suffix[1:])
        return
    picture = io.StringIO()
    drawn.savefig(picture, format="svg")
    text = picture.getvalue()
    figure = f'<figure role="img" aria-label="{html.escape(description(found))}">{text[text.index("<svg") :]}</figure>'
    table = f'<pre tabindex="0">{html.escape(as_text(found))}</pre>'
    output.write(file, output.page("A network by bit-width", output.paragraphs(*advice(found)), figure, table))


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
