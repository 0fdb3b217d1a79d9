"""A quantized network comes back bit for bit, in a fresh process too, and into no other network."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from batch_norms import randomize_batch_norm
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import quide
from quide import ptq
from quide.models.networks import SimpleCNN, resnet20
from quide.ptq.grid import FakeQuantize


def simplecnn(seed=0):
    torch.manual_seed(seed)
    return SimpleCNN(10, 1, 28).eval()


def residual(seed=0):
    torch.manual_seed(seed)
    return randomize_batch_norm(resnet20(10)).eval()


IMAGES = {simplecnn: (1, 28, 28), residual: (3, 32, 32)}
SCHEMES = {
    "paper": quide.PAPER,
    "relu": quide.Scheme(activation_site="relu", weight_per_channel=True, weight_range="mse"),
    "input": quide.Scheme(activation_site="input", activation_symmetric=True, quantize_logits=False),
    "float16": quide.Scheme(sixteen_bit="float16"),
}


@pytest.fixture(params=IMAGES)
def build(request):
    return request.param


def images(build, count=16, seed=1):
    return torch.randn(count, *IMAGES[build], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("scheme", "bits"), [("paper", 4), ("relu", 3), ("input", 8), ("float16", 16), ("paper", 32)])
def test_it_comes_back_bit_for_bit_into_a_network_of_other_weights(build, scheme, bits, tmp_path):
    shown = images(build)
    quantized = quide.quantize(build(), bits, shown, SCHEMES[scheme])
    file = quide.save(quantized, tmp_path / "net.safetensors")
    other = build(seed=7)
    before = copy.deepcopy(other.state_dict())
    loaded = quide.load(other, file)
    with torch.inference_mode():
        assert torch.equal(loaded(shown), quantized(shown))
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in before.items())
    again = quide.save(loaded, tmp_path / "again.safetensors")
    assert again.read_bytes() == file.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again.safetensors", "net.safetensors"]


def test_mixed_widths_and_the_layout_come_back(tmp_path):
    shown = images(simplecnn).to(memory_format=torch.channels_last)
    model = simplecnn().to(memory_format=torch.channels_last)
    quantized = quide.quantize(model, (8, 32, 4, 2), shown)
    loaded = quide.load(simplecnn(3), quide.save(quantized, tmp_path / "net.safetensors"))
    for name, tensor in quantized.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]) and tensor.stride() == loaded.state_dict()[name].stride()
    with torch.inference_mode():
        assert torch.equal(loaded(shown), quantized(shown))


class Unbiased(nn.Module):
    """A convolution and two linear layers without a bias, which techniques may give them."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.relu, self.next = nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 9, bias=False), nn.ReLU())
        self.last = nn.Linear(9, 5, bias=False)

    def forward(self, x):
        return self.last(self.head(self.next(self.relu(self.conv(x)))))


@pytest.mark.parametrize("keep", [{}, {"next": 32}], ids=["all", "one kept"])
@pytest.mark.parametrize(
    "techniques",
    [
        [ptq.CorrectBias(guard=False)],
        ["equalize", "absorb_bias", "correct_bias"],
        [ptq.AdaRound(iterations=3), ptq.CorrectBias(guard=False)],
    ],
)
def test_biases_that_a_technique_added_come_back(techniques, keep, tmp_path):
    shown = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    quantized = quide.quantize(Unbiased().eval(), 4, shown, techniques=techniques, keep=keep)
    loaded = quide.load(Unbiased(3).eval(), file := quide.save(quantized, tmp_path / "net.safetensors"))
    with torch.inference_mode():
        assert torch.equal(loaded(shown), quantized(shown))
    assert quantized.state_dict().keys() == loaded.state_dict().keys()
    assert quide.save(loaded, tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("bits", [8, 16])
def test_limits_of_a_rescaled_relu6_come_back(bits, tmp_path):
    def made(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 5, 1)).eval()

    shown, scheme = torch.randn(16, 3, 4, 4), quide.Scheme(sixteen_bit="float16")
    quantized = quide.quantize(made(0), bits, shown, scheme, ["equalize"])
    file = quide.save(quantized, tmp_path / "net.safetensors")
    loaded = quide.load(made(1), file)
    with torch.inference_mode():
        assert torch.equal(loaded(shown), quantized(shown))
    with pytest.raises(ValueError, match="does not fit"):
        quide.load(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1)).eval(), file)


def test_an_absorbed_bias_comes_back_in_half_precision(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].bias += 20
    shown = torch.randn(16, 3, 4, 4)
    quantized = quide.quantize(model, 16, shown, quide.Scheme(sixteen_bit="float16"), ["absorb_bias"])
    assert quantized.model.get_submodule("2").bias is not None
    loaded = quide.load(model, quide.save(quantized, tmp_path / "net.safetensors"))
    with torch.inference_mode():
        assert torch.equal(loaded(shown), quantized(shown))


def test_a_bias_that_the_file_lacks_is_refused(tmp_path):
    shown = torch.randn(16, 3, 12, 12)
    file = quide.save(quide.quantize(Unbiased().eval(), 4, shown), tmp_path / "net.safetensors")
    other = Unbiased().eval()
    other.last = nn.Linear(9, 5)
    with pytest.raises(ValueError, match="last, Linear.*bias=False.*bias=True"):
        quide.load(other, file)


@pytest.mark.parametrize("turn", range(24))
def test_a_flipped_bit_is_refused(turn, tmp_path):
    file = quide.save(quide.quantize(simplecnn(), 4, images(simplecnn)), tmp_path / "net.safetensors")
    content = bytearray(file.read_bytes())
    random = torch.Generator().manual_seed(turn)
    place = torch.randint(len(content) if turn % 2 else 9000, (1,), generator=random).item()
    content[place] ^= 1 << turn % 8
    file.write_bytes(content)
    with pytest.raises(ValueError, match=file.name) as caught:
        quide.load(simplecnn(), file)
    assert "\n" not in str(caught.value)


LOADING = """
import sys, torch, quide
from test_save import simplecnn, images
torch.set_num_threads(1)
print(torch.sum(quide.load(simplecnn(5), sys.argv[1])(images(simplecnn)).double()).item().hex())
"""


def test_a_fresh_process_gives_the_same_bits(tmp_path):
    quantized = quide.quantize(simplecnn(), 4, images(simplecnn))
    file = quide.save(quantized, tmp_path / "net.safetensors")
    paths = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__)), os.environ.get("PYTHONPATH", "")]
    said = subprocess.run(
        [sys.executable, "-c", LOADING, file], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = torch.sum(quantized(images(simplecnn)).double()).item().hex()
    torch.set_num_threads(threads)
    assert said.stdout.strip() == expected


def test_the_file_has_integers_scales_and_zero_points(tmp_path):
    quantized = quide.quantize(simplecnn(), 4, images(simplecnn))
    with safe_open(quide.save(quantized, tmp_path / "net.safetensors"), "pt") as file:
        said = json.loads(file.metadata()["quide"])
        assert said["scheme"]["activation_site"] == "output" and said["bits"] == [4, 4, 4, 4]
        for layer in said["layers"]:
            integers = file.get_tensor(f"{layer}.weight") / file.get_tensor(f"weight_scale:{layer}")
            assert integers.abs().max() == pytest.approx(7) and torch.allclose(integers, integers.round(), atol=1e-5)
    quantizers = {name: part for name, part in quantized.named_modules() if isinstance(part, FakeQuantize)}
    state = quantized.state_dict()
    for name, part in quantizers.items():
        assert state[f"{name}.scale"] == part.scale
        assert state[f"{name}.levels"].tolist() == [part.zero_point, part.low, part.high]


def test_the_state_of_a_quantized_network_holds_its_grids():
    shown = images(simplecnn)
    quantized, other = (quide.quantize(simplecnn(), bits, factor * shown) for bits, factor in ((4, 1), (6, 5)))
    other.load_state_dict(quantized.state_dict())
    with torch.inference_mode():
        assert torch.equal(other(shown), quantized(shown))
    state = {name: tensor for name, tensor in quantized.state_dict().items() if "quantizer" not in name}
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(state)


class Otherwise(SimpleCNN):
    """The same weights, another function of them."""

    def __init__(self):
        super().__init__(10, 1, 28)
        for name, part in self.named_children():
            if isinstance(part, nn.ReLU):
                setattr(self, name, nn.Tanh())


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: SimpleCNN(10, 3, 28), "3 channels"),
        (lambda: SimpleCNN(7, 1, 28), "out_features=7"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), "the model has '1'"),
        (Otherwise, "pool1"),
    ],
)
def test_another_network_is_refused_in_one_line(model, told, tmp_path):
    file = quide.save(quide.quantize(simplecnn(), 4, images(simplecnn)), tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=told) as caught:
        quide.load(model().eval(), file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_other_files_and_networks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="quantized must be what quide.quantize returned, got SimpleCNN"):
        quide.save(simplecnn(), tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())
    save_file(simplecnn().state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="was not written by quide.save"):
        quide.load(simplecnn(), tmp_path / "weights.safetensors")
    (tmp_path / "text").write_text("no")
    with pytest.raises(ValueError, match="cannot be read"):
        quide.load(simplecnn(), tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        quide.load(simplecnn(), tmp_path / "absent")


@pytest.mark.skipif(os.name == "nt", reason="needs limits on files")
@pytest.mark.parametrize(
    "work",
    [
        "quide.save(quide.quantize(net, 4, images), sys.argv[1])",
        "quide.quantize(net, 4, images, techniques=[quide.ptq.AdaRound(iterations=3, checkpoint=sys.argv[1])])",
    ],
)
def test_a_full_disk_names_the_file_and_the_remedy(work, tmp_path):
    """In a process of its own, whose files end after 100 bytes."""
    code = (
        "import sys, resource, torch, quide; from torch import nn\n"
        "net, images = nn.Sequential(nn.Linear(6, 8)).eval(), torch.randn(16, 6)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        f"    {work}\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path / "net"], capture_output=True, text=True, timeout=100)
    assert said.stdout == f"cannot write {tmp_path / 'net'} (File too large); free space, or name another file\n"
    assert not list(tmp_path.iterdir())
