"""What running a language model needs is said in full before anything is downloaded; its files are told apart."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from quide.llm import checkpoints, llama2c

GB = 1_000_000_000


@pytest.fixture
def installed(monkeypatch) -> set[str]:
    """Packages that are installed, as far as the code can see; no token, no GPU, and no way to the hub."""
    there = set(checkpoints.PACKAGES)
    real = importlib.util.find_spec

    def find_spec(name: str):
        return (object() if name in there else None) if name in (*checkpoints.PACKAGES, "awq") else real(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(checkpoints, "_token", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return there


def with_gpu(monkeypatch, gigabytes: float) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    card = SimpleNamespace(total_memory=int(gigabytes * GB))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)


@pytest.fixture
def gguf(tmp_path) -> Path:
    (tmp_path / "Tiny Model.Q4_1.gguf").write_bytes(b"weights")
    return tmp_path


def put_model(folder: Path, quant_method: str | None = None) -> Path:
    """Files as transformers names them; their contents are never read here."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text("weights")
    settings = {} if quant_method is None else {"quantization_config": {"quant_method": quant_method, "bits": 4}}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def test_everything_that_the_papers_model_lacks_is_said_at_once(installed):
    installed -= {"bitsandbytes", "lm_eval"}
    packages, token, gpu = checkpoints.missing(checkpoints.PAPERS, "cpu")
    assert packages == "packages bitsandbytes, lm_eval are not installed (pip install 'quide[llm]')"
    assert (
        f"no access token (accept the licence on huggingface.co/{checkpoints.PAPERS}" in token and "HF_TOKEN" in token
    )
    assert gpu == "it needs a GPU with 24 GB, and device is 'cpu' (use device 'cuda')"
    with pytest.raises(FileNotFoundError) as refused:
        checkpoints.find(checkpoints.PAPERS, "cpu")
    assert str(refused.value) == f"{checkpoints.PAPERS} cannot be run here: {packages}; {token}; {gpu}"


def test_the_papers_model_is_refused_before_the_hub_is_asked(installed, monkeypatch):
    hub = SimpleNamespace(snapshot_download=lambda *_, **__: pytest.fail("something was downloaded"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(FileNotFoundError, match="torch sees none"):
        checkpoints.find(checkpoints.PAPERS, "cuda")


@pytest.mark.parametrize(("gigabytes", "reason"), [(15.8, "this one has 15.8 GB (use a larger one)"), (25.4, None)])
def test_a_gpu_is_measured(installed, monkeypatch, gigabytes, reason):
    with_gpu(monkeypatch, gigabytes)
    monkeypatch.setattr(checkpoints, "_token", lambda: "one")
    found = checkpoints.missing(checkpoints.PAPERS, "cuda")
    assert found == ([] if reason is None else [f"it needs a GPU with 24 GB, and {reason}"])


def test_with_all_that_is_needed_the_hub_is_asked_for_the_weights_alone(installed, monkeypatch, tmp_path):
    with_gpu(monkeypatch, 25.4)
    monkeypatch.setattr(checkpoints, "_token", lambda: "one")
    asked, snapshot = {}, tmp_path / "snapshots" / "c0ffee"

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        put_model(snapshot)
        return str(snapshot)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    found = checkpoints.find(checkpoints.PAPERS, "cuda")
    assert asked == {checkpoints.PAPERS: checkpoints.HUB_FILES} and "*.safetensors" in checkpoints.HUB_FILES
    assert (found.name, found.form, found.digest) == ("meta-llama-3-8b-instruct", "transformers", "c0ffee")


def test_the_token_is_taken_from_the_variable(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "one")
    assert checkpoints._token() == "one"


@pytest.mark.parametrize(
    ("files", "form", "name"),
    [
        (("a.gguf",), "gguf", "a"),
        (("config.json", "model.safetensors"), "transformers", "some-model"),
        ((llama2c.MODEL, llama2c.TOKENIZER), "llama2c", "stories260k"),
    ],
    ids=["gguf", "transformers", "llama2c"],
)
def test_the_form_of_a_folder_is_told_from_its_files(installed, tmp_path, files, form, name):
    folder = tmp_path / "Some Model"
    folder.mkdir()
    for file in files:
        (folder / file).write_text("{}")
    found = checkpoints.find(str(folder))
    assert (found.form, found.name, found.folder) == (form, name, folder)
    assert len(found.digest) == 64


def test_a_record_is_named_after_the_file_and_its_digest_after_the_contents(installed, gguf):
    before = checkpoints.find(str(gguf))
    assert before.name == "tiny-model.q4_1" and before.gguf.name == "Tiny Model.Q4_1.gguf"
    before.gguf.write_bytes(b"others")
    assert checkpoints.find(str(gguf)).digest != before.digest


@pytest.mark.parametrize("name", ["nowhere", "./a/b", "/no/such/folder"])
def test_a_folder_that_is_not_there_is_named(installed, name):
    (reason,) = checkpoints.missing(name)
    assert reason.startswith("there is no folder ") and "owner/name" in reason


def test_a_folder_without_a_model_is_named(installed, tmp_path):
    (reason,) = checkpoints.missing(str(tmp_path))
    assert f"{tmp_path} holds neither config.json with *.safetensors, nor one *.gguf file" in reason


def test_other_models_of_the_hub_ask_for_nothing_known(installed):
    assert checkpoints.missing("someone/small-model", "cpu") == []


def test_a_model_that_is_quantized_already_is_refused(installed, tmp_path):
    put_model(tmp_path, "gptq")
    (reason,) = checkpoints.missing(str(tmp_path))
    assert reason == f"{tmp_path} holds a model that gptq has quantized already (name the one that it was made from)"
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json cannot be read"):
        checkpoints.missing(str(tmp_path))


def test_what_autoawq_has_quantized_asks_for_the_package_that_reads_it(installed, tmp_path):
    folder = put_model(tmp_path / "Some-Model-AWQ", "awq")
    installed.add("awq")
    found = checkpoints.find(str(folder))
    assert (found.form, found.name) == ("autoawq", "some-model-awq")
    assert checkpoints.find(str(put_model(tmp_path / "mine", "awq"))).name == "mine-awq"  # told apart in records
    installed.remove("awq")
    (reason,) = checkpoints.missing(str(folder))
    assert reason == "the package autoawq is not installed (pip install 'quide[awq]')"


def test_a_model_of_the_hub_that_cannot_be_read_is_refused_when_its_files_are_there(installed, monkeypatch, tmp_path):
    hub = SimpleNamespace(snapshot_download=lambda *_, **__: str(put_model(tmp_path, "gptq")))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(FileNotFoundError, match="someone/small-model cannot be run here: .* gptq has quantized"):
        checkpoints.find("someone/small-model")


@pytest.mark.parametrize("settings", ["gptq", [1]])
def test_a_configuration_of_another_form_is_refused_by_name(installed, tmp_path, settings):
    put_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": settings}))
    with pytest.raises(ValueError, match="config.json cannot be read .its quantization_config is .*own file there"):
        checkpoints.missing(str(tmp_path))


def test_a_device_in_place_of_weights_is_refused_by_name(tmp_path):
    (tmp_path / "a.gguf").symlink_to("/dev/null")  # a pipe would be waited for
    with pytest.raises(ValueError, match="a.gguf cannot be read .it is not a regular file.; put"):
        checkpoints._digest([tmp_path / "a.gguf"])
