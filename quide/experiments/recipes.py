"""The grid of plausible PTQ recipes that the paper's text leaves open (EXP-1's recipe question)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from quide.experiments.measured import Run
from quide.experiments.runs import CALIBRATION_SIZE, Case, accuracy
from quide.ptq.scheme import PAPER, RANGES, Scheme

GRID_BITS = (8, 4, 2)
SEARCHED = (8, 8, 8, 4)  # the topology of the paper's Table 2, whose accuracy it states


@dataclass(frozen=True)
class Recipe:
    """One way to read the paper's PTQ paragraph: a scheme, the epoch whose weights are used, and the calibration size.

    ``axis`` says what it varies: ``"grid"`` for the full factorial over the three main choices, else the one choice in
    which it differs from :data:`quide.ptq.PAPER`.
    """

    name: str
    axis: str
    scheme: Scheme
    selection: str = "best"
    calibration_size: int = CALIBRATION_SIZE

    def run(self, case: Case) -> Run:
        """Its accuracy run on a case, at the grid's widths and the paper's searched topology."""
        bits = (*GRID_BITS, SEARCHED)
        return accuracy(case, bits, self.scheme, self.selection, self.calibration_size)


def grid() -> list[Recipe]:
    """Full factorial over activation site and range and weight granularity; then single departures from PAPER."""
    factorial = [
        _named(site, activation, per_channel)
        for site, activation, per_channel in product(("output", "relu", "input"), RANGES, (False, True))
    ]
    departures = [
        Recipe("least-squares weight range", "weight range", replace(PAPER, weight_range="mse")),
        Recipe("percentile weight range", "weight range", replace(PAPER, weight_range="percentile")),
        Recipe("rounds half up", "rounding", replace(PAPER, rounding="half_up")),
        Recipe("rounds down", "rounding", replace(PAPER, rounding="floor")),
        Recipe("full weight range", "weight levels", replace(PAPER, weight_levels="full")),
        Recipe("float logits", "logits", replace(PAPER, quantize_logits=False)),
        Recipe("symmetric activations", "activation grid", replace(PAPER, activation_symmetric=True)),
        Recipe("128 calibration images", "calibration size", PAPER, calibration_size=128),
        Recipe("2048 calibration images", "calibration size", PAPER, calibration_size=2048),
        Recipe("last epoch", "model selection", PAPER, selection="last"),
    ]
    return factorial + departures


def _named(site: str, activation: str, per_channel: bool) -> Recipe:
    scheme = replace(PAPER, activation_site=site, activation_range=activation, weight_per_channel=per_channel)
    granularity = "channel" if per_channel else "tensor"
    return Recipe(f"{site} {activation}, weights per {granularity}", "grid", scheme)
