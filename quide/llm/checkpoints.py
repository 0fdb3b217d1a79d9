"""Language models: what running one needs, and where its files are. Nothing is downloaded before all of it is there."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from quide import _files
from quide._check import whole

EXTRA, AWQ_EXTRA = "pip install 'quide[llm]'", "pip install 'quide[awq]'"
AUTOAWQ = "autoawq"  # the form of a model that this tool has quantized, and the package that reads it
RANDOM = "random:"  # begins what is asked for in place of a model: an architecture with random weights
QUANTIZED = "-awq"  # ends the names of such models on the hub, and of all of them in records
PACKAGES = ("transformers", "accelerate", "bitsandbytes", "gguf", "llmcompressor", "lm_eval")  # as they are imported
PAPERS = "meta-llama/Meta-Llama-3-8B-Instruct"
HUB_FILES = ["*.safetensors", "*.json", "tokenizer*", "*.model"]
OWN = "put the model's own file there"
MOST = {"num_hidden_layers": 1 << 10, "hidden_size": 1 << 17, "intermediate_size": 1 << 19, "vocab_size": 1 << 22}
WEIGHTS = ("*.safetensors", "*.gguf", "*.bin")


# Models whose owner lets in only who is logged in, and the GB of memory that a GPU needs for them: the 16-bit weights
# of the paper's take 16; 24 is its card (§3.3).
NEEDS_GB = {PAPERS: 24}


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk.

    Attributes:
        name: of its records, characters ``a-z0-9_.-``.
        folder: where its files are.
        form: ``"transformers"``, ``"random"``, ``"autoawq"``, ``"gguf"`` or ``"llama2c"``.
        digest: of its weights: the commit of a snapshot of the hub, of random weights that of how they are made, else
            SHA-256 over the weight files.
    """

    name: str
    folder: Path
    form: str
    digest: str

    @property
    def gguf(self) -> Path:
        """The one file of the form ``"gguf"``."""
        return next(self.folder.glob("*.gguf"))


def missing(model: str, device: str = "cpu") -> list[str]:
    """What keeps a model from being run here, each with its remedy; empty when nothing does.

    Args:
        model: a folder, a name on the Hugging Face hub, ``"owner/name"``, or ``"random:"`` and a name of
            :data:`quide.llm.random_weights.SHAPES`.
        device: where it is to run, ``"cpu"`` or ``"cuda"``.
    """
    return [*_missing_packages(), *_missing_files(model), *_missing_access(model, device)]


def find(model: str, device: str = "cpu") -> Checkpoint:
    """The model's files: those of a folder, a snapshot of the hub, downloaded if it is not in the hub's cache, or
    random weights, written if they are not in the cache.

    Raises:
        ValueError: no such architecture for random weights.
        FileNotFoundError: something is missing; the message lists everything that is, before anything is downloaded.
    """
    from quide.llm import llama2c, random_weights

    _refuse(model, missing(model, device))
    if model.startswith(RANDOM):
        name = model.removeprefix(RANDOM)
        folder = random_weights.write(name)
        return Checkpoint(f"{name}-random", folder, "random", random_weights.SHAPES[name].digest)
    if _is_folder(model):
        folder = Path(model).expanduser()
        form = _form(folder)
        weights = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
        named = {"gguf": next(folder.glob("*.gguf"), folder).stem, "llama2c": Path(llama2c.MODEL).stem}
        return Checkpoint(_record_name(named.get(form, folder.name), form), folder, form, _digest(weights))
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(model, allow_patterns=HUB_FILES))
    _refuse(model, list(_missing_files(str(folder))))
    form = _form(folder)
    return Checkpoint(_record_name(model.rpartition("/")[2], form), folder, form, folder.name)


def _refuse(model: str, lacking: list[str]) -> None:
    if lacking:
        raise FileNotFoundError(f"{model} cannot be run here: {'; '.join(lacking)}")


def _is_folder(model: str) -> bool:
    """Anything but ``owner/name`` without such a folder here is meant as a folder."""
    if model.startswith(RANDOM):
        return False
    return Path(model).expanduser().is_dir() or not re.fullmatch(r"[\w-]+/[\w.-]+", model)


def _form(folder: Path) -> str | None:
    from quide.llm import llama2c

    if (folder / llama2c.MODEL).is_file():
        return "llama2c"
    if len(list(folder.glob("*.gguf"))) == 1:
        return "gguf"
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return AUTOAWQ if quantization(folder).get("quant_method") == "awq" else "transformers"
    return None


def quantization(folder: Path) -> dict:
    """What the configuration of a folder of transformers says on how it was quantized; empty for a plain model.

    Raises:
        ValueError: the configuration does not parse.
    """
    file = folder / "config.json"
    if not file.is_file():
        return {}
    with _files.reading(file, OWN):
        held = json.loads(_files.content(file)).get("quantization_config") or {}
        if not isinstance(held, dict):
            raise ValueError(f"its quantization_config is {held!r}")
        return held


def check(folder: Path) -> None:
    """Refuse by name what in a model's folder is damaged or of no size that a machine could run.

    Raises:
        ValueError: the message names the file.
    """
    for file in sorted(folder.glob("*.json")):
        with _files.reading(file, OWN):
            held = json.loads(_files.content(file))
            if not isinstance(held, dict):
                raise ValueError(f"it holds {type(held).__name__}, not an object")
            for name, most in MOST.items() if file.name == "config.json" else ():
                whole(name, held.get(name, 1), 1, most)
    for file in sorted(folder.glob("*.safetensors")):
        with _files.reading(file, OWN), safe_open(_files.regular(file), "np") as held:
            held.keys()
    for file in sorted(folder.glob("*.gguf")):
        with _files.reading(file, OWN), open(_files.regular(file), "rb") as held:
            if held.read(4) != b"GGUF":
                raise ValueError("it does not begin as GGUF files do")


def _missing_packages() -> Iterator[str]:
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        yield f"packages {', '.join(absent)} are not installed ({EXTRA})"


def _missing_files(model: str) -> Iterator[str]:
    if not _is_folder(model):
        return
    from quide.llm import llama2c

    folder = Path(model).expanduser()
    if not folder.is_dir():
        yield f"there is no folder {folder} (name a folder, or a model on the Hugging Face hub as owner/name)"
    elif _form(folder) is None:
        yield (
            f"{folder} holds neither config.json with *.safetensors, nor one *.gguf file, nor {llama2c.MODEL} "
            "(put the model's files there)"
        )
    elif _form(folder) == AUTOAWQ:  # of a model on the hub it is not known before its files are here
        yield from missing_autoawq()
    elif method := quantization(folder).get("quant_method"):
        yield f"{folder} holds a model that {method} has quantized already (name the one that it was made from)"


def missing_autoawq() -> Iterator[str]:
    """What keeps models from being quantized by autoawq, or read as it left them."""
    if importlib.util.find_spec("awq") is None:
        yield f"the package autoawq is not installed ({AWQ_EXTRA})"


def _missing_access(model: str, device: str) -> Iterator[str]:
    """What keeps :data:`NEEDS_GB` from being met: the owner's leave, a GPU, its memory."""
    if model not in NEEDS_GB:
        return
    import torch

    if not _token():
        yield (
            f"there is no access token (accept the licence on huggingface.co/{model}, then run `hf auth login` "
            "or set HF_TOKEN)"
        )
    lacking = f"it needs a GPU with {NEEDS_GB[model]} GB, and"
    if torch.device(device).type != "cuda":
        yield f"{lacking} device is {device!r} (use device 'cuda')"
    elif not torch.cuda.is_available():
        yield f"{lacking} torch sees none (run it on a machine that has one)"
    elif (there := torch.cuda.get_device_properties(device).total_memory / 1e9) < NEEDS_GB[model]:
        yield f"{lacking} this one has {there:.1f} GB (use a larger one)"


def _token() -> str | None:
    """The user's token for the hub, from the variable or from where its own client keeps it."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return os.environ.get("HF_TOKEN")
    from huggingface_hub import get_token

    return get_token()


def _record_name(name: str, form: str) -> str:
    allowed = re.sub(r"[^a-z0-9_.-]", "-", name.lower())
    return allowed.removesuffix(QUANTIZED) + QUANTIZED if form == AUTOAWQ else allowed


def _digest(files: list[Path]) -> str:
    """SHA-256 over names and contents, a part of a file at a time."""
    total = hashlib.sha256()
    for file in files:
        with _files.reading(file, OWN), open(_files.regular(file), "rb") as content:
            total.update(f"{file.name}\0".encode())
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()
