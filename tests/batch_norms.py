"""Batch norms as training leaves them, for networks that are not trained."""

from __future__ import annotations

from torch import nn


def randomize_batch_norm(net: nn.Module) -> nn.Module:
    """Statistics and affine parameters as after training, so that folding has something to fold."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight, 1, 0.3)
            nn.init.normal_(part.bias, 0, 0.3)
    return net
