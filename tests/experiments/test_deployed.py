"""Real 8-bit arithmetic: what ONNX Runtime computes is the network, and what its integers compute is nearly so."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_norms import randomize_batch_norm
from torch import nn
from torchvision.models.resnet import BasicBlock

from quide import ptq
from quide.deploy import onnx
from quide.experiments import deployed, inputs, runs
from quide.stats import unpack_bits

pytest.importorskip("onnxruntime")

SHAPE = (3, 8, 8)


def images(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small residual network whose batch norms are folded, as what is exported."""
    torch.manual_seed(0)
    plain = nn.Sequential(BasicBlock(3, 3), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    return ptq.prepare(randomize_batch_norm(plain).eval(), images(20)).at(32)


@pytest.fixture(scope="module")
def exported(network):
    return onnx.export(network, images(4))


@torch.inference_mode()
def test_the_runtime_computes_the_network_for_batches_of_any_size(network, exported):
    run = onnx.OnnxNetwork(exported)
    for count in (1, 4, 7):
        x = images(count, seed=count)
        torch.testing.assert_close(run(x), network(x), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_integers_are_near_the_network_and_are_integers(network, exported):
    import onnx as format_

    model, x = onnx.integers(exported, images(64)), images(200, seed=2)
    ours = onnx.OnnxNetwork(model)(x)
    expected = network(x)
    assert not torch.equal(ours, expected)
    assert float((ours - expected).abs().max()) < 0.1 * float(expected.abs().max())
    assert float((ours.argmax(1) == expected.argmax(1)).double().mean()) > 0.9
    stored = {weights.name: weights for weights in format_.load_from_string(model).graph.initializer}
    kernels = [w for w in stored.values() if w.data_type == format_.TensorProto.INT8 and len(w.dims) > 1]
    assert len(kernels) == 4
    zero_points = [stored[w.name.replace("_quantized", "_zero_point")] for w in kernels]
    assert all(format_.numpy_helper.to_array(zero).item() == 0 for zero in zero_points)  # symmetric, one a tensor


def test_the_runtime_takes_as_many_threads_as_torch(exported):
    options = onnx.OnnxNetwork(exported).session.get_session_options()
    assert options.intra_op_num_threads == torch.get_num_threads()


def has_vnni() -> bool:
    return "vnni" in Path("/proc/cpuinfo").read_text()


@torch.inference_mode()
def test_without_saturation_integers_are_what_is_simulated():
    """On any CPU, and with VNNI the fast kernels too: their sums are exact."""
    case = runs.Case("simplecnn", "cifar10", 0, "smoke")
    test, calibration = inputs.test_images(case).normalized(), inputs.calibration_images(case)
    prepared = ptq.prepare(inputs.network(case), calibration, ptq.PAPER)
    model = onnx.integers(onnx.export(prepared.at(32), test[:4]), calibration)
    exact = onnx.OnnxNetwork(model, exact=True)(test)
    assert float((exact.argmax(1) == prepared.at(8)(test).argmax(1)).double().mean()) > 0.95
    if has_vnni():
        assert torch.equal(onnx.OnnxNetwork(model)(test), exact)


def test_a_run_times_all_four_and_scores_both_of_the_runtime():
    run = deployed.run(runs.Case("simplecnn", "cifar10", 0, "smoke"), progress=False)
    values = run.compute()
    assert tuple(values["latencies"]) == deployed.CONFIGURATIONS
    assert {timed["passes"] for timed in values["latencies"].values()} == {10}
    for name in (deployed.RUNTIME, deployed.INTEGER):
        hits = unpack_bits(values["correct"][name])
        assert len(hits) == 200 and hits.mean() == pytest.approx(values["accuracy"][name])
    assert values["accuracy"][deployed.RUNTIME] == pytest.approx(0.8, abs=0.1)
    assert (0.9 if has_vnni() else 0.8) < values["agreement"] <= 1  # without it, sums of products saturate
    assert values["bytes"][deployed.INTEGER] < 0.3 * values["bytes"][deployed.RUNTIME]
    assert set(values["libraries"]) == {"onnx", "onnxruntime"}


def test_the_key_hangs_on_the_machine_and_the_weights():
    first, other = (deployed.run(runs.Case("simplecnn", "cifar10", seed, "paper")).spec for seed in (0, 42))
    assert first.kind == "deployed" and first.key != other.key
    assert first.details["environment"]["threads"] == torch.get_num_threads()


def test_without_the_extra_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=r"onnxruntime is missing.*quide\[deploy\]"):
        deployed.run(runs.Case("simplecnn", "cifar10", 0, "smoke")).compute()


def test_calibration_is_read_in_batches_to_the_last_image(exported):
    """With the widest image last, the range of the input must hold it."""
    import onnx as format_

    wide = images(130)
    wide[-1] *= 10
    model = format_.load_from_string(onnx.integers(exported, wide))
    scale = next(format_.numpy_helper.to_array(w) for w in model.graph.initializer if w.name == "images_scale")
    np.testing.assert_allclose(scale, float(wide.max() - wide.min()) / 255, rtol=1e-3)
