"""Bias correction (Nagel et al. 2019, arXiv 1906.04721, §4.2): the mean error of each channel taken off its bias."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx
from torch.nn import functional as F

from quide.ptq import moments
from quide.ptq.passes import Technique, Walk, channel_mean, of_constant, rounded_layers, set_parameter
from quide.ptq.prepared import Prepared


@dataclass(frozen=True)
class CorrectBias(Technique):
    """Takes off each layer's bias what rounding adds to the mean of its channels, all layers before it corrected.

    Attributes:
        guard: keep the corrections only where the classes' probabilities on the calibration images are nearer to those
            of full precision with them (Kullback-Leibler divergence): on deep networks at few bits they can do harm.
            Squared errors of logits would not tell, which a correction may raise and lose fewer images; they decide
            where there is one output.
    """

    guard: bool = True

    @torch.no_grad()
    def after(self, quantized: fx.GraphModule, prepared: Prepared, calibration: torch.Tensor) -> None:
        layers = rounded_layers(quantized)
        old = {layer: quantized.get_submodule(layer).bias for layer in layers}
        target = prepared.graph(calibration)
        before = _error(quantized, calibration, target)
        full, rounded = Walk(prepared.graph, calibration), Walk(quantized, calibration)
        for layer in layers:
            one, exact = quantized.get_submodule(layer), prepared.graph.get_submodule(layer)
            wanted = channel_mean(exact, exact(full.to(layer)))
            shift = channel_mean(one, one(rounded.to(layer))) - wanted
            set_parameter(one, "bias", -shift if one.bias is None else one.bias - shift)
        kept = not self.guard or _error(quantized, calibration, target) < before
        quantized.meta["correct_bias"] = kept
        if not kept:
            for layer, bias in old.items():
                quantized.get_submodule(layer).bias = bias


@dataclass(frozen=True)
class AnalyticBias(Technique):
    """The same without images: what a layer reads has the mean that batch norms say, clipped by the ReLU behind them.

    Layers that no batch norm tells of are left as they are; ``meta["analytic_bias"]`` names those that are corrected.
    """

    @torch.no_grad()
    def after(self, quantized: fx.GraphModule, prepared: Prepared, calibration: torch.Tensor) -> None:
        expected = moments.expected_inputs(prepared.graph, prepared.norms)
        corrected = [layer for layer in rounded_layers(quantized) if layer in expected]
        for layer in corrected:
            one, exact = quantized.get_submodule(layer), prepared.graph.get_submodule(layer)
            shift = of_constant(one, one.weight - exact.weight, expected[layer])
            set_parameter(one, "bias", -shift if one.bias is None else one.bias - shift)
        quantized.meta["analytic_bias"] = corrected


def _error(model: fx.GraphModule, images: torch.Tensor, target: torch.Tensor) -> float:
    outputs = model(images)
    if target.ndim < 2 or target.shape[1] == 1:
        return float((outputs - target).square().sum())
    return float(F.kl_div(outputs.log_softmax(1), target.log_softmax(1), reduction="sum", log_target=True))
