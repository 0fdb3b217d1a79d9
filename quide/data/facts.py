"""What is fixed about image data sets, and the parts of them that travel with the checkout. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from quide._check import one_of


@dataclass(frozen=True)
class DatasetInfo:
    """What is fixed about a data set: shape, classes, the normalization constants, and a checksum a split.

    ``sha256[split]`` is over the decoded images (uint8, n x height x width x channels, C order) followed by the
    labels (uint8). ``None`` marks a split nobody has been able to pin here.
    """

    name: str
    num_classes: int
    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sizes: dict[str, int]
    sha256: dict[str, str | None]


INFO = {
    "mnist": DatasetInfo(
        "mnist", 10, 28, 1, (0.1307,), (0.3081,), {"train": 60_000, "test": 10_000},
        {"train": "edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b",
         "test": "c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b"},
    ),
    "cifar10": DatasetInfo(
        "cifar10", 10, 32, 3, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), {"train": 50_000, "test": 10_000},
        {"train": "f912919bdea371136f1aa4feed6beeca728015a5f08b1899a29c932a7e30be2b",
         "test": "8193b3fbce55bec361cd1b8fd4880cb1649832dc4d6de6da1e7a21847a4843aa"},
    ),
    "cifar100": DatasetInfo(
        "cifar100", 100, 32, 3, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), {"train": 50_000, "test": 10_000},
        {"train": None, "test": None},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """``count`` images of a split, the first or, where ``drawn``, a uniform draw; ``columns`` to a row of the picture.

    ``sha256`` is over the decoded arrays (:func:`quide.data.datasets.digest`).
    """

    split: str
    drawn: bool
    count: int
    columns: int
    sha256: str


PARTS = {
    "mnist": {
        "test": Part("test", False, 10_000, 100, "c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b"),
        "calibration": Part(
            "train", True, 1_024, 32, "3917ecefdca6cd752b956c86d6bc56975c5092528484998711283dffda2509b4"
        ),
    },
    "cifar10": {
        "test": Part("test", False, 1_500, 50, "cfb86d49f7d9a8ac1b4ac419c79a65ff6035924734654464b25f2259ffb5e4f5"),
        "calibration": Part(
            "train", True, 1_024, 32, "6b55e199338f8fa29eafaf8435c15a9c90b00f221480f728df14d0f9a92424b9"
        ),
    },
}


def info(name: str) -> DatasetInfo:
    """Facts about a data set; ``ValueError`` names the known ones."""
    return INFO[one_of("dataset", name, INFO)]
