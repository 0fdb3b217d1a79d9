"""The number line of the primer: a quantizer to be moved by hand, with ``book/_static/number_line.js``."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass

from quide import ptq
from quidebook import report

KINDS = {"affine": "affine: from the lowest to the highest value", "symmetric": "symmetric: as far down as up"}
REACH = 5.0  # the line goes from -REACH to REACH
CONTROLS = {  # sliders: label, ends and step
    "bits": ("Bits", 2, 6, 1),
    "low": ("Lowest value of the range", -4, 0, 0.1),
    "high": ("Highest value of the range", 0.1, 4, 0.1),
    "value": ("Value to store", -REACH, REACH, 0.05),
}


@dataclass(frozen=True)
class LinePosition:
    """Where the controls are: a grid's kind, width and range, and a value to store. The range holds zero."""

    kind: str = "affine"
    bits: int = 3
    low: float = -1.0
    high: float = 4.0
    value: float = 1.3


def show() -> None:
    """Display the number line; without JavaScript it is a sentence about the starting position."""
    report.show_markup(markup(LinePosition()))


def markup(setting: LinePosition) -> str:
    """The HTML that :func:`show` displays."""
    sliders = "".join(
        f'<div><label for="number-line-{name}">{label}</label> <output for="number-line-{name}"></output>'
        f'<input id="number-line-{name}" type="range" name="{name}" min="{low:g}" max="{high:g}" step="{step:g}" '
        f'value="{asdict(setting)[name]:g}"></div>'
        for name, (label, low, high, step) in CONTROLS.items()
    )
    radios = "".join(
        f'<label><input type="radio" name="kind" value="{kind}"{" checked" if kind == setting.kind else ""}> '
        f"{html.escape(text)}</label>"
        for kind, text in KINDS.items()
    )
    return f"""<div class="number-line">
<form aria-label="Number line" autocomplete="off" hidden>
{sliders}<fieldset><legend>Grid</legend>{radios}</fieldset>
</form>
<div class="number-line-picture" role="img" aria-label="" hidden></div>
<p class="number-line-sentence" aria-live="polite">{html.escape(sentence(setting))}</p>
</div>"""


def sentence(setting: LinePosition) -> str:
    """What the quantizer does to the value, in words, as the script has them."""
    import torch

    low, high, value = (torch.tensor(each) for each in (setting.low, setting.high, setting.value))
    grid = (ptq.affine_grid if setting.kind == "affine" else ptq.symmetric_grid)(low, high, setting.bits)
    step, stored = float(grid.scale), float(ptq.fake_quantize(value, grid))
    integer = round(stored / step) + grid.zero_point
    first, last = ((end - grid.zero_point) * step for end in (grid.low, grid.high))
    outside = not first - step / 2 <= setting.value <= last + step / 2
    return (
        f"{grid.high - grid.low + 1} levels from {first:.2f} to {last:.2f}, {step:.3f} apart, zero point "
        f"{grid.zero_point}. {setting.value:.2f} becomes the integer {integer} and stands for {stored:.2f}: an error "
        f"of {stored - setting.value:+.3f}{', from clipping' if outside else ''}."
    )
