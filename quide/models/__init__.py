"""Networks: the paper's, published ones, and how the paper trains them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quide._lazy import attributes

if TYPE_CHECKING:
    from quide.models.networks import BUILDERS, SimpleCNN, build, resnet18, resnet20

__all__ = ["BUILDERS", "SimpleCNN", "build", "resnet18", "resnet20"]
__getattr__ = attributes(__name__, networks=__all__)
