"""What batch norms tell of a network's values without any image: means and deviations of each channel.

A batch norm leaves a channel with mean beta and standard deviation gamma; behind a ReLU it is a clipped normal
variable, and an addition adds means and variances (arXiv 1906.04721, §4.2 and Appendix C).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx, nn
from torch.nn import functional as F

from quide.ptq import activations
from quide.ptq.layers import is_quantizable, module_of
from quide.ptq.ranges import Statistics

DEVIATIONS = 6.0
Norms = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # beta and gamma of the batch norm in a layer, by its name
_SAME = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Identity, nn.Flatten)
_SAME_CALLS = {F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.dropout, torch.flatten, torch.max_pool2d}
_SAME_METHODS = {"flatten", "view", "reshape", "contiguous", "clone", "mean"}


@dataclass(frozen=True)
class Normal:
    """Normal variables, one a channel; ``rectified``: behind a ReLU."""

    mean: torch.Tensor
    deviation: torch.Tensor
    rectified: bool = False

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each channel."""
        if not self.rectified:
            return self.mean, self.deviation
        mean, deviation = self.mean.double(), self.deviation.double().clamp_min(1e-12)
        standard = torch.distributions.Normal(0.0, 1.0)
        ratio = mean / deviation
        density, above = standard.log_prob(ratio).exp(), standard.cdf(ratio)
        first = deviation * density + mean * above
        second = (mean.square() + deviation.square()) * above + mean * deviation * density
        return first.to(self.mean), (second - first.square()).clamp_min(0).sqrt().to(self.mean)

    def range(self) -> tuple[float, float]:
        """Lowest and highest value of any channel that is to be expected."""
        low = float((self.mean - DEVIATIONS * self.deviation).min())
        high = float((self.mean + DEVIATIONS * self.deviation).max())
        return (max(low, 0.0), max(high, 0.0)) if self.rectified else (low, high)


def of_values(model: fx.GraphModule, norms: Norms) -> dict[str, Normal]:
    """What is known of the values of a network with batch norms folded, by the name of the node."""
    known: dict[str, Normal] = {}
    for node in model.graph.nodes:
        sources = [known.get(source.name) for source in node.all_input_nodes]
        if node.op == "call_module" and node.target in norms:
            known[node.name] = Normal(norms[node.target][0], norms[node.target][1].abs())
        elif sources and None not in sources and (found := _passed(model, node, sources)) is not None:
            known[node.name] = found
    return known


def _passed(model: fx.GraphModule, node: fx.Node, sources: list[Normal]) -> Normal | None:
    if activations.is_relu(model, node):
        return replace(sources[0], rectified=True)
    if activations.is_addition(node):
        (one, spread), (other, wide) = (source.moments() for source in sources)
        return Normal(one + other, (spread.square() + wide.square()).sqrt()) if one.shape == other.shape else None
    if (part := module_of(model, node)) is not None:
        if isinstance(part, nn.ConstantPad3d) and part.value == 0:
            return _padded(part.padding, sources[0])
        return sources[0] if isinstance(part, _SAME) else None
    if node.op == "call_method":
        return sources[0] if node.target in _SAME_METHODS else None
    if node.target is F.pad:
        return _padded(node.args[1], sources[0])
    return sources[0] if _is_same(node) else None


def _is_same(node: fx.Node) -> bool:
    """A call that keeps the channels, such as a slice of rows and columns."""
    index = node.args[1] if len(node.args) > 1 else None
    if getattr(node.target, "__name__", "") == "getitem":
        return isinstance(index, tuple) and len(index) > 1 and index[:2] == (slice(None),) * 2
    return node.target in _SAME_CALLS


def _padded(padding: Sequence[int], source: Normal) -> Normal:
    """Channels of zeros on either side."""
    if len(padding) != 6:
        return source
    return Normal(*(F.pad(values, padding[4:]) for values in (source.mean, source.deviation)), source.rectified)


def statistics(
    model: fx.GraphModule, norms: Norms, sites: Mapping[str, str], calibration: torch.Tensor
) -> dict[str, Statistics]:
    """Ranges of the sites without a look at what images give there; the image's own are its extremes.

    Args:
        model: with batch norms folded.
        norms: of them.
        sites: name of the node by layer.
        calibration: images, as they are scaled.

    Raises:
        ValueError: a site that no batch norm tells anything of.
    """
    known = of_values(model, norms)
    images = next(node.name for node in model.graph.nodes if node.op == "placeholder")
    found = {}
    for layer, site in sites.items():
        found[site] = Statistics()
        if site == images:
            found[site].see_extremes(calibration)
        elif site in known:
            found[site].see_extremes(torch.tensor(known[site].range()))
        else:
            raise ValueError(
                f"activation_range 'batch_norm' finds no range for what layer {layer} has rounded: no batch norm that "
                "is folded tells it; name another range, or leave that layer out with keep"
            )
    return found


def expected_inputs(model: fx.GraphModule, norms: Norms) -> dict[str, torch.Tensor]:
    """Mean of each channel that a layer reads, ``(in,)``, where it is known, by layer."""
    known, found = of_values(model, norms), {}
    for node in model.graph.nodes:
        layer = module_of(model, node)
        if is_quantizable(layer) and node.all_input_nodes[0].name in known:
            mean = known[node.all_input_nodes[0].name].moments()[0]
            width = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
            if width % len(mean) == 0:  # flattened: each channel has as many values in turn
                found[node.target] = mean.repeat_interleave(width // len(mean))
    return found
