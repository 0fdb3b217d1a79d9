"""The number line of the primer: a quantizer to be moved by hand, with ``book/_static/number_line.js``."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass

import torch

from quide import ptq
from quidebook import report

KINDS = {"affine": "affine: from the lowest to the highest value", "symmetric": "symmetric: as far down as up"}
REACH = 5.0  # the line goes from -REACH to REACH


@dataclass(frozen=True)
class Choice:
    """Where the controls are: a grid's kind, width and range, and a value to store. The range holds zero."""

    kind: str = "affine"
    bits: int = 3
    low: float = -1.0
    high: float = 4.0
    value: float = 1.3

    def grid(self) -> ptq.Grid:
        """The library's grid."""
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        make = ptq.affine_grid if self.kind == "affine" else ptq.symmetric_grid
        return make(low, high, self.bits)


@dataclass(frozen=True)
class Control:
    """A slider: its label, ends and step."""

    label: str
    low: float
    high: float
    step: float


CONTROLS = {
    "bits": Control("Bits", 2, 6, 1),
    "low": Control("Lowest value of the range", -4, 0, 0.1),
    "high": Control("Highest value of the range", 0.1, 4, 0.1),
    "value": Control("Value to store", -REACH, REACH, 0.05),
}


def show(choice: Choice | None = None) -> None:
    """Display the number line; without JavaScript it is a sentence about the starting position."""
    report.show_markup(markup(choice or Choice()))


def markup(choice: Choice) -> str:
    """The HTML that :func:`show` displays."""
    sliders = "".join(_slider(name, control, asdict(choice)[name]) for name, control in CONTROLS.items())
    radios = "".join(
        f'<label><input type="radio" name="kind" value="{kind}"{" checked" if kind == choice.kind else ""}> '
        f"{html.escape(text)}</label>"
        for kind, text in KINDS.items()
    )
    return "\n".join(
        [
            '<div class="number-line">',
            '<form aria-label="Number line" autocomplete="off" hidden>',
            f"{sliders}<fieldset><legend>Grid</legend>{radios}</fieldset>",
            "</form>",
            '<div class="number-line-picture" role="img" aria-label="" hidden></div>',
            f'<p class="number-line-sentence" aria-live="polite">{html.escape(sentence(choice))}</p>',
            "</div>",
        ]
    )


def _slider(name: str, control: Control, value: float) -> str:
    ends = f'min="{control.low:g}" max="{control.high:g}" step="{control.step:g}" value="{value:g}"'
    return (
        f'<div><label for="number-line-{name}">{control.label}</label> <output for="number-line-{name}"></output>'
        f'<input id="number-line-{name}" type="range" name="{name}" {ends}></div>'
    )


def sentence(choice: Choice) -> str:
    """What the quantizer does to the value, in words."""
    grid = choice.grid()
    value = torch.tensor(choice.value)
    stored = float(ptq.fake_quantize(value, grid))
    integer = round(stored / float(grid.scale)) + grid.zero_point
    first, last = ((end - grid.zero_point) * float(grid.scale) for end in (grid.low, grid.high))
    outside = not first - float(grid.scale) / 2 <= choice.value <= last + float(grid.scale) / 2
    return (
        f"{grid.high - grid.low + 1} levels from {first:.2f} to {last:.2f}, {float(grid.scale):.3f} apart, zero point "
        f"{grid.zero_point}. {choice.value:.2f} becomes the integer {integer} and stands for {stored:.2f}: an error of "
        f"{stored - choice.value:+.3f}{', from clipping' if outside else ''}."
    )
