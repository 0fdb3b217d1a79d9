"""What the committed records of the ladder hold: careful quantization loses as little as it should."""

from __future__ import annotations

import pytest

from quide import _paths
from quide.experiments import records
from quide.stats import Hits

FEW_BITS = ("w4a8", "w4a4", "w3a3", "w2a2")


@pytest.fixture(scope="module")
def ladder() -> dict[tuple[str, str, str], dict]:
    """Values by network, data set and rung."""
    folder = _paths.home() / "data" / "results" / "paper" / "ladder"
    found = [records.read(file) for file in sorted(folder.glob("*.json"))]
    return {(one.spec.model, one.spec.dataset, one.spec.details["rung"]): one.values for one in found}


def networks(ladder, rung: str, *others: str) -> list[tuple[str, str]]:
    """Those that have been tried on all of these rungs."""
    found = [(model, dataset) for model, dataset, name in ladder if name == rung]
    found = [network for network in found if all((*network, other) in ladder for other in others)]
    assert found
    return found


def change(better: dict, worse: dict, width: str):
    """Of accuracy, in fractions, with its interval over images."""
    return Hits.unpacked(better["correct"][width]).change(Hits.unpacked(worse["correct"][width]))


def is_at_least(better: dict, worse: dict, width: str) -> bool:
    """Surely better where there is a percentage point to win; elsewhere surely not half a point worse."""
    room = worse["accuracy"]["32"] - worse["accuracy"][width]
    return change(better, worse, width).low > (0 if room > 0.01 else -0.005)


@pytest.mark.parametrize("width", FEW_BITS)
def test_adaround_is_at_least_rounding_to_nearest(ladder, width):
    for network in networks(ladder, "AdaRound"):
        assert is_at_least(ladder[*network, "AdaRound"], ladder[*network, "image at 8 bits"], width), network


def test_least_squares_ranges_are_at_least_min_max_with_one_scale_a_tensor(ladder):
    rungs = ("least squares, scale a tensor", "inputs rounded")
    for network in networks(ladder, *rungs):
        mse, minmax = (ladder[*network, rung] for rung in rungs)
        assert is_at_least(mse, minmax, "w4a8") and is_at_least(mse, minmax, "w4a4"), network


@pytest.mark.parametrize("width, points", [("w8a8", 0.1), ("w4a8", 0.5), ("w4a4", 1.0), ("w3a3", 3.0)])
def test_adaround_keeps_resnet20_near_full_precision(ladder, width, points):
    accuracy = ladder["resnet20", "cifar10", "AdaRound"]["accuracy"]
    assert accuracy[width] >= accuracy["32"] - points / 100


def test_equalization_does_nothing_for_a_network_of_residual_sums(ladder):
    plain, equalized = (
        ladder["resnet20", "cifar10", rung] for rung in ("least squares, scale a tensor", "equalization")
    )
    assert change(equalized, plain, "w4a4").high < 0.01


def test_equalization_rescues_a_depthwise_network(ladder):
    plain, equalized = (
        ladder["mobilenetv2", "cifar10", rung] for rung in ("least squares, scale a tensor", "equalization")
    )
    assert change(equalized, plain, "w8a8").estimate >= 0.05 and change(equalized, plain, "w4a8").low >= 0.05


def test_learned_rounding_decides_in_every_layer(ladder):
    for network in networks(ladder, "AdaRound"):
        for width, check in ladder[*network, "AdaRound"]["checks"].items():
            assert check["closed"] > 0.75 and check["hard"] <= check["nearest"], (network, width)
