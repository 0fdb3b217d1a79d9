"""The page of debugging: tables of a diagnosis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from quidebook import report

if TYPE_CHECKING:
    from quide.diagnosis import Diagnosis

SIDES = {"both": "weights and activations", "weights": "weights alone", "activations": "activations alone"}


def whole_table(found: Diagnosis) -> pd.DataFrame:
    """Accuracy of the whole network, with weights and activations rounded together and apart."""
    rows = [("nothing", report.with_interval(found.full_precision, 100, 1), report.UNKNOWN)]
    rows += [
        (name, report.with_interval(found.accuracy[side], 100, 1), report.with_interval(found.drop[side], 100, 1))
        for side, name in SIDES.items()
    ]
    return pd.DataFrame(rows, columns=["rounded", "accuracy (%)", "loses (pp)"])


def layer_table(found: Diagnosis) -> pd.DataFrame:
    """What each layer alone costs, and how far its furthest channel reaches."""
    return pd.DataFrame(
        {
            "layer": row.layer,
            "costs (pp)": f"{100 * row.drop:.1f}",
            "its weights": f"{100 * row.weights_drop:.1f}",
            "its activations": f"{100 * row.activations_drop:.1f}",
            "furthest channel": f"{row.weight_channel}",
            "times the median": f"{row.weight_outlier:.0f}",
            "weights to zero": report.percent(row.weights_zeroed, 0),
        }
        for row in found.layers.itertuples()
    )
