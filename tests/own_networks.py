"""Networks and images as people bring them."""

from __future__ import annotations

import torch
from torch import nn

QUICK = {"warmup": 1, "passes": 2}  # of a timing that only has to end


def seeded(build, *arguments) -> nn.Module:
    torch.manual_seed(0)
    return build(*arguments).eval()


def normals(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(compute, /, **layers) -> nn.Module:
    """A module whose forward is the given function of itself and of the images."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            for name, layer in layers.items():
                setattr(self, name, layer)

        def forward(self, images):
            return compute(self, images)

    return seeded(Own)
