"""Every backend makes a network that answers as the one it was given, at one image and at several."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from quide import deploy, ptq
from quide.deploy import fbgemm, matmul, onnx, openvino
from quide.experiments import kernels
from quide.experiments.kernels import WIDTHS
from quide.llm import random_weights

pytestmark = pytest.mark.slow
CLOSE = {"32": 1e-4, "32 channels last": 1e-4, "bfloat16": 0.05, "8": 0.1}  # of the largest logit


class Residual(nn.Module):
    """One ReLU that is called twice, a residual sum, pooling and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.relu, self.last = nn.ReLU(inplace=True), nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.relu(self.first(images))
        values = self.relu(self.second(values) + values)
        return self.last(values.mean((2, 3)))


@pytest.fixture(scope="module")
def given() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    calibration = torch.randn(64, 3, 16, 16)
    return ptq.prepare(Residual().eval(), calibration).at(ptq.FULL_PRECISION), calibration


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize(("backend", "width"), [(each, width) for each, widths in WIDTHS.items() for width in widths])
def test_each_artefact_answers_as_the_network(given, backend, width, rows):
    model, calibration = given
    pytest.importorskip({"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}.get(backend, "torch"))
    images = torch.randn(rows, 3, 16, 16)
    try:
        artefact = deploy.backend(backend).compiled(width, model, calibration, images)
    except ValueError as error:
        assert "has no kernels" in str(error)  # bfloat16, on some processors
        return
    wanted = model(images)
    found = artefact.run(artefact.laid_out(images))
    assert found.dtype == torch.float32 and (found - wanted).abs().max() <= CLOSE[width] * wanted.abs().max()


@pytest.mark.parametrize("backend", ["inductor", "ONNX Runtime", "OpenVINO"])
def test_integers_take_a_quarter_of_the_bytes(backend):
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(768, 512), nn.ReLU(), nn.Linear(512, 10)), torch.randn(8, 768)
    prepared = ptq.prepare(model.eval(), images).at(ptq.FULL_PRECISION)
    sizes = [deploy.backend(backend).compiled(width, prepared, images, images).size for width in ("32", "8")]
    assert sizes[1] < 0.3 * sizes[0]


def test_one_layer_alone_is_in_integers(given):
    model, calibration = given
    from onnx import TensorProto, load_from_string

    images, wanted = calibration[:8], model(calibration[:8])
    exported = onnx.export(model, images)
    packed = onnx.integers(exported, calibration, ["second"])
    held = {each.name: each.data_type for each in load_from_string(packed).graph.initializer if len(each.dims) > 1}
    assert [name for name, kind in held.items() if kind == TensorProto.INT8] == ["second.weight_quantized"]
    for run in (
        onnx.OnnxNetwork(packed),
        openvino.network(packed).run,
        fbgemm.integers(model, ["second"], calibration).run,
    ):
        error = (run(images) - wanted).abs().max() / wanted.abs().max()
        assert 1e-5 < error < CLOSE["8"]  # rounded, and little


def test_an_unknown_backend_names_the_known_ones():
    with pytest.raises(ValueError, match="backend must be one of PyTorch, inductor, ONNX Runtime, OpenVINO"):
        deploy.backend("tflite")


def test_a_linear_layer_of_few_bits_answers_as_the_float_one_in_an_eighth_of_the_bytes():
    pytest.importorskip("onnxruntime")
    generator = np.random.default_rng(0)
    weight, given = generator.standard_normal((256, 96), np.float32), torch.randn(5, 256)
    wanted = given @ torch.from_numpy(weight)
    made = {bits: matmul.linear(weight, bits) for bits in (None, *matmul.BITS)}
    error = {
        bits: float((layer(given) - wanted).square().mean() / wanted.square().mean())
        for bits, (layer, _) in made.items()
    }
    assert error[None] < 1e-10 and error[8] < 1e-3 and error[8] < error[4] < 0.02 < error[2] < 0.3
    sizes = {bits: size / made[None][1] for bits, (_, size) in made.items()}
    scale = 1 / matmul.BLOCK  # one of 32 bits for each block
    widest = random_weights.SHAPES[kernels.LANGUAGE_MODEL]
    assert (kernels.ROWS, kernels.COLUMNS) == (widest.hidden_size, widest.intermediate_size)  # where no torch is needed
    assert tuple(kernels.LINEARS[1:-1]) == tuple(map(str, matmul.BITS))
    assert all(sizes[bits] == pytest.approx(bits / 32 + scale, abs=0.01) for bits in matmul.BITS)
