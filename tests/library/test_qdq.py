"""A quantized network as ONNX integers: what ONNX Runtime answers, what the file holds, and what it cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import quide
from quide.deploy.qdq import export_onnx
from quide.ptq.grid import FakeQuantize

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Block(nn.Module):
    """A residual block with a batch norm and a functional ReLU, two layers of which share one input."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.inner, self.skip, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Linear(8 * 16, 5)

    def forward(self, images):
        stem = nn.functional.max_pool2d(self.norm(self.stem(images)).relu(), 2)
        return self.fc(nn.functional.relu(self.inner(stem) + self.skip(stem)).flatten(1))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def block() -> nn.Module:
    torch.manual_seed(0)
    model = Block()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    return model.eval()


def answers(file, images: torch.Tensor) -> torch.Tensor:
    """As the file reads: integer kernels, which some CPUs compute inexactly, come from graph optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


SCHEMES = {
    "paper": quide.PAPER,
    "per channel": quide.Scheme(weight_per_channel=True),
    "symmetric, after the ReLU": quide.Scheme(activation_symmetric=True, activation_site="relu", weight_levels="full"),
    "at the input": quide.Scheme(activation_site="input"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [8, 3, quide.Width(4, 8), (8, 4, 2, 32)], ids=str)
def test_onnx_runtime_gives_the_same_answers_within_one_step(tmp_path, block, images, bits, scheme):
    quantized = quide.quantize(block, bits, images, SCHEMES[scheme])
    ours = quantized(images)
    theirs = answers(export_onnx(quantized, images[:2], tmp_path / "net.onnx"), images)
    steps = [float(part.scale) for part in quantized.modules() if isinstance(part, FakeQuantize)]
    assert float((ours - theirs).abs().max()) <= 1.001 * max(steps)
    assert float((ours - theirs).abs().mean()) < 0.02 * float(ours.std())  # so is hardly ever one step away


def test_the_file_holds_integers_with_our_scales_and_zero_points(tmp_path, block, images):
    quantized = quide.quantize(block, 8, images, quide.Scheme(weight_per_channel=True))
    graph = onnx.load(quide.export_onnx(quantized, images[:2], tmp_path / "net.onnx")).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [value for value in held.values() if value.dtype == np.int8 and value.ndim > 1]
    scales = quantized.meta["quide"].weight_scales
    for layer, scale in scales.items():
        weight = quantized.get_submodule(layer).weight
        assert any(
            value.shape == weight.shape and torch.allclose(torch.from_numpy(value.copy()) * scale, weight, rtol=1e-6)
            for value in weights
        )
    assert not [value for value in held.values() if value.dtype == np.float32 and value.ndim > 1]
    rounded = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    pairs = sorted((float(held[node.input[1]]), int(held[node.input[2]])) for node in rounded)
    parts = [part for part in quantized.modules() if isinstance(part, FakeQuantize)]
    assert pairs == sorted((float(part.scale), part.zero_point) for part in parts)


def test_what_the_format_cannot_hold_is_refused_by_the_layer(tmp_path, block, images):
    file = tmp_path / "net.onnx"
    for bits, message in {
        (8, 16, 8, 8): "^layer inner has weights of more than 8 bits.*keep={'inner': 32}",
        (8, 8, quide.Width(8, 12), 8): "^layer skip has activations of more than 8 bits",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            export_onnx(quide.quantize(block, bits, images), images[:2], file)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="^layer stem rounds activations by 'floor'"):
        export_onnx(quide.quantize(block, 8, images, quide.Scheme(rounding="floor")), images[:2], file)
    with pytest.raises(ValueError, match="^quantized must be what quide.quantize returned, got Block"):
        export_onnx(block, images[:2], file)
    with pytest.raises(ValueError, match="^quantized must be in float32"):
        export_onnx(quide.quantize(block, 16, images, quide.Scheme(sixteen_bit="float16")), images[:2], file)
    quantized = quide.quantize(block, 8, images)
    with pytest.raises(ValueError, match="^file must end in .onnx"):
        export_onnx(quantized, images[:2], tmp_path / "net.pb")
    with pytest.raises(ValueError, match="^example_input must be a tensor of two or more images"):
        export_onnx(quantized, images[:1], file)
    assert not list(tmp_path.iterdir())
