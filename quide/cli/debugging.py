"""A diagnosis of a network as text, as JSON, and as one page that needs nothing else."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pandas as pd

from quide.cli import output
from quide.diagnosis import Diagnosis
from quide.stats import Interval

ENDINGS = (".json", ".html")
COLUMNS = {
    "layer": "layer",
    "drop": "alone (pp) [95 %]",
    "weights_drop": "weights (pp)",
    "activations_drop": "activations (pp)",
    "left_gain": "left out, gain (pp)",
    "weight_outlier": "weights: furthest of channels",
    "activation_outlier": "activations: furthest",
    "weights_zeroed": "weights to zero (%)",
    "clipped": "clipped (%)",
    "batch_norm": "not folded",
}


def as_text(found: Diagnosis) -> str:
    """Both tables in fixed columns, and the diagnosis as the last line."""
    whole, layers = (table.to_string(index=False) for table in (_whole(found), _by_layer(found)))
    return "\n\n".join([_checks(found), whole, layers, found.sentence])


def save(found: Diagnosis, file: Path) -> None:
    """Write everything as ``.json``, or as a page."""
    as_json = file.suffix == ".json"
    output.write(file, json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n" if as_json else _page(found))


def _page(found: Diagnosis) -> str:
    whole, layers = (
        f'<div class="wide" tabindex="0">{table.to_html(index=False, border=0, escape=True)}</div>'
        for table in (_whole(found), _by_layer(found))
    )
    said = f"<p><strong>{html.escape(found.sentence)}</strong></p>{output.paragraphs(_checks(found))}"
    return output.page("Why a network loses accuracy", said, whole, "<h2>By layer</h2>", _bars(found), layers)


def _checks(found: Diagnosis) -> str:
    same = "exactly" if found.exact else "NOT"
    return (
        f"{found.images} test images, {found.calibrated_on} calibration images. At 32 bits: {same} the model; "
        f"folding changes outputs by {found.difference:.1e}."
    )


def _whole(found: Diagnosis) -> pd.DataFrame:
    rows = [{"rounded": "nothing", "accuracy (%) [95 %]": _percent(found.full_precision), "drop (pp) [95 %]": ""}]
    rows += [
        {
            "rounded": {"both": "weights and activations"}.get(side, f"{side} alone"),
            "accuracy (%) [95 %]": _percent(found.accuracy[side]),
            "drop (pp) [95 %]": _percent(found.drop[side]),
        }
        for side in found.accuracy
    ]
    return pd.DataFrame(rows)


def _by_layer(found: Diagnosis) -> pd.DataFrame:
    """Worst first."""
    table = found.layers.sort_values("drop", ascending=False, kind="stable")
    shown = pd.DataFrame({"layer": table.layer})
    for name, title in list(COLUMNS.items())[1:]:
        percent = name.endswith(("drop", "gain", "zeroed")) or name == "clipped"
        shown[title] = [_cell(value, 100 if percent else 1) for value in table[name]]
    shown[COLUMNS["drop"]] = [
        _percent(Interval(row["drop"], row["drop_low"], row["drop_high"])) for row in table.to_dict("records")
    ]
    return shown


def _cell(value: object, factor: int) -> str:
    if isinstance(value, str):
        return value
    return "–" if pd.isna(value) else f"{factor * value:.1f}"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.estimate:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _bars(found: Diagnosis) -> str:
    """The drop of each layer alone, worst first, as a picture."""
    rows = found.layers.sort_values("drop", ascending=False, kind="stable")
    pairs = list(zip(rows.layer, rows["drop"], strict=True))
    largest = max(float(rows["drop"].max()), 1e-9)
    drawn = [
        f'<text x="190" y="{20 * place + 15}" text-anchor="end">{html.escape(layer)}</text>'
        f'<rect x="200" y="{20 * place + 3}" width="{400 * max(drop, 0) / largest:.1f}" height="14" fill="#0072B2"/>'
        f'<text x="610" y="{20 * place + 15}">{100 * drop:.1f}</text>'
        for place, (layer, drop) in enumerate(pairs)
    ]
    words = html.escape("; ".join(f"{layer} {100 * drop:.1f}" for layer, drop in pairs))
    size = f'viewBox="0 0 660 {20 * len(drawn)}" width="660" height="{20 * len(drawn)}"'
    title = f"Accuracy lost by each layer alone, in percentage points: {words}"
    return f'<svg {size} font-size="12" role="img" aria-label="{title}">{"".join(drawn)}</svg>'
