"""The same post-training quantization through other libraries, each as its own manual says.

Every builder takes a full-precision network, calibration images and a width, and returns something that maps a batch
to logits. All use per-tensor min-max ranges, symmetric restricted weights and affine activations. PT2E and brevitas
let us round at the paper's sites (each layer's output before its ReLU), so they do exactly QuIDE's job; FX decides the
sites itself: the network's input, after each ReLU, and once more after each pooling.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

Network = Callable[[torch.Tensor], torch.Tensor]


def fx(network: nn.Module, calibration: torch.Tensor, bits: int) -> Network:
    """``torch.ao.quantization``'s FX graph mode with fake quantization of weights and activations."""
    from torch.ao.quantization import FakeQuantize, MinMaxObserver, QConfig, QConfigMapping, fake_quantize
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    high = 2 ** (bits - 1) - 1
    weights = FakeQuantize.with_args(
        observer=MinMaxObserver, quant_min=-high, quant_max=high, dtype=torch.qint8, qscheme=torch.per_tensor_symmetric
    )
    activations = FakeQuantize.with_args(
        observer=MinMaxObserver, quant_min=0, quant_max=2**bits - 1, dtype=torch.quint8, qscheme=torch.per_tensor_affine
    )
    with warnings.catch_warnings(action="ignore"):  # deprecated in favour of PT2E, which is measured as well
        mapping = QConfigMapping().set_global(QConfig(activations, weights))
        prepared = prepare_qat_fx(copy.deepcopy(network).train(), mapping, (calibration[:1],)).eval()
    return _calibrated(prepared, calibration, fake_quantize)


def pt2e(network: nn.Module, calibration: torch.Tensor, bits: int) -> Network:
    """torchao's PT2E flow: export, annotate, prepare; run with its fake-quantize modules."""
    from torchao.quantization.pt2e import FakeQuantize, MinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    observed = FakeQuantize.with_args(observer=MinMaxObserver)
    high = 2 ** (bits - 1) - 1
    weights = QuantizationSpec(torch.int8, observed, -high, high, torch.per_tensor_symmetric)
    activations = QuantizationSpec(torch.uint8, observed, 0, 2**bits - 1, torch.per_tensor_affine)
    return _annotated(network, calibration, weights, outputs=activations)


def pt2e_compiled(network: nn.Module, calibration: torch.Tensor, bits: int) -> Network:
    """The PT2E flow to its end: converted to quantize and dequantize operations and compiled."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    return torch.compile(convert_pt2e(pt2e(network, calibration, bits)))


def brevitas(network: nn.Module, calibration: torch.Tensor, bits: int) -> Network:
    """Brevitas layers in its quantized inference mode, which caches the quantized weights."""
    import brevitas.nn as qnn
    from brevitas.export.inference import quant_inference_mode
    from brevitas.graph.calibrate import calibration_mode
    from brevitas.quant import Int8WeightPerTensorFloat, ShiftedUint8ActPerTensorFloat

    options = {
        "weight_quant": Int8WeightPerTensorFloat,
        "weight_bit_width": bits,
        "output_quant": ShiftedUint8ActPerTensorFloat,
        "output_bit_width": bits,
        # The minimum and the maximum: its rank of a share of exactly zero is one too small.
        "output_low_percentile_q": 1e-12,
        "output_high_percentile_q": 100.0,
    }
    quantized = copy.deepcopy(network)
    for name, layer in network.named_children():
        if isinstance(layer, nn.Conv2d):
            sizes = layer.in_channels, layer.out_channels, layer.kernel_size
            new = qnn.QuantConv2d(*sizes, padding=layer.padding, **options)
        elif isinstance(layer, nn.Linear):
            new = qnn.QuantLinear(layer.in_features, layer.out_features, bias=True, **options)
        else:
            continue
        new.weight, new.bias = layer.weight, layer.bias
        setattr(quantized, name, new)
    quantized.eval()
    with torch.no_grad():
        with calibration_mode(quantized):
            quantized(calibration)  # in one batch: it averages the ranges of several
        quant_inference_mode(quantized, cache_quant_weight=True).__enter__()  # for good
        quantized(calibration[:2])
    return quantized


def pt2e_inputs(network: nn.Module, calibration: torch.Tensor, observer: str) -> Network:
    """PT2E with weights at 4 bits, a scale a channel, and what each layer reads at 8, by an observer of torchao."""
    from torchao.quantization.pt2e import FakeQuantize, PerChannelMinMaxObserver
    from torchao.quantization.pt2e import observer as observers
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    of_weights = FakeQuantize.with_args(observer=PerChannelMinMaxObserver)
    of_inputs = FakeQuantize.with_args(observer=getattr(observers, observer))
    weights = QuantizationSpec(torch.int8, of_weights, -7, 7, torch.per_channel_symmetric, ch_axis=0)
    inputs = QuantizationSpec(torch.uint8, of_inputs, 0, 255, torch.per_tensor_affine)
    return _annotated(network, calibration, weights, inputs=inputs)


def _annotated(
    network: nn.Module, calibration: torch.Tensor, weights: QuantizationSpec,
    inputs: QuantizationSpec | None = None, outputs: QuantizationSpec | None = None,
) -> nn.Module:  # fmt: skip
    """A network exported, with what every convolution and linear layer has, reads and returns rounded by these, and
    calibrated."""
    from torchao.quantization.pt2e import fake_quantize
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer

    class OfLayers(Quantizer):
        """Convolutions and linear layers."""

        def annotate(self, model):
            for node in model.graph.nodes:
                if node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
                    read = {node.args[0]: inputs} if inputs else {}
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map=read | {node.args[1]: weights}, output_qspec=outputs, _annotated=True
                    )
            return model

        def validate(self, model):
            pass

    # A batch that is not 1, which export would take for a constant, and its first dimension free.
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(copy.deepcopy(network).eval(), (calibration[:2],), dynamic_shapes=shapes).module()
    return _calibrated(prepare_pt2e(exported, OfLayers()), calibration, fake_quantize)


def brevitas_inputs(
    network: nn.Module, calibration: torch.Tensor, equalize: bool = False, correct: bool = False, gptq: bool = False
) -> Network:
    """Brevitas with weights at 4 bits by least squares, a scale a channel, and what each layer reads at 8.

    Its ranges of activations are percentiles, its default. ``equalize``, ``correct`` and ``gptq`` are its cross-layer
    equalization, bias correction and GPTQ.
    """
    import brevitas.nn as qnn
    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
    from brevitas.graph.gptq import gptq_mode
    from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize
    from brevitas.quant import Int8WeightPerChannelFloatMSE, ShiftedUint8ActPerTensorFloat

    options = {
        "weight_quant": Int8WeightPerChannelFloatMSE,
        "weight_bit_width": 4,
        "input_quant": ShiftedUint8ActPerTensorFloat,
        "input_bit_width": 8,
        "bias_quant": None,
    }
    prepared = preprocess_for_quantize(network, equalize_iters=20 if equalize else 0)
    kinds = {nn.Conv2d: (qnn.QuantConv2d, options), nn.Linear: (qnn.QuantLinear, options)}
    quantized, batches = layerwise_quantize(prepared, compute_layer_map=kinds).eval(), calibration.split(128)
    with torch.no_grad():
        with calibration_mode(quantized):
            _shown(quantized, batches)
        _shown(quantized, batches[:1])  # which makes the scales of the weights
        if gptq:
            with gptq_mode(quantized, use_quant_activations=True) as layers:
                for _ in range(layers.num_layers):
                    _shown(layers.model, batches)
                    layers.update()
        if correct:
            with bias_correction_mode(quantized):
                _shown(quantized, batches)
    return quantized


def _shown(network: Network, batches: Iterable[torch.Tensor]) -> None:
    for images in batches:
        network(images)


def _calibrated(prepared: nn.Module, calibration: torch.Tensor, switches: ModuleType) -> nn.Module:
    """The network with its ranges read from ``calibration``; ``switches`` has the functions that turn its parts on."""
    prepared.apply(switches.enable_observer).apply(switches.disable_fake_quant)
    with torch.no_grad():
        prepared(calibration)
    return prepared.apply(switches.disable_observer).apply(switches.enable_fake_quant)
