"""Files that are read, damaged at random: each must be refused in one line that names it, or read as what it was.

``python -m benchmarks.mutations [NUMBER] [--seed SEED]`` counts outcomes by kind of file. A run that was stopped goes
on with the next mutation; 2,500 take some minutes.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from quidebook import build
from torch import nn

import quide
from benchmarks import attacks
from quide import _paths
from quide.cli import files
from quide.data import datasets, embedded, stories
from quide.experiments import inputs, paper, records, runs
from quide.llm import mmlu_harness
from quide.models import train

SECONDS = 20  # after which a reading hangs
SHOWN = 200  # characters of what was read instead
BAD = ("accepted silently", "traceback", "hang", "left behind")
# "not provable": read as something else of the right form, which nobody knows to be wrong.
OUTCOMES = ("refused", "as it was", "not provable", *BAD)


@dataclass(frozen=True)
class Target:
    """A kind of file: where a sound one is, and how it is read; ``proven`` ones may not be read as anything else, since
    a change can be told from what is known of the file."""

    name: str
    file: Path
    read: Callable[[], Any]
    proven: bool = True


def targets(folder: Path) -> list[Target]:
    """One of each kind, in a copy of what is committed and in made-up files; the variables must name the folder."""
    data, notebook = folder / "data", folder / "notebooks" / "exp1_simplecnn.ipynb"
    known = min((data / "results" / "paper" / "accuracy").glob("*.json"))
    sealed = records.save(records.Record(records.RunSpec("trial", "a", "b", 0, "smoke"), {"x": 0.5}, "c", "d", {}, 1.0))
    case = runs.Case("simplecnn", "mnist", 0, "smoke")
    weights = inputs.published_checkpoint(case)
    picture, labels = embedded.files("mnist", "calibration")
    cached = datasets.split_file("mnist", "test")
    return [
        Target("record", known, lambda: records.read(known)),
        Target("sealed record", sealed, lambda: records.read(sealed)),
        Target("paper", data / "paper" / "numbers.csv", lambda: paper.numbers().to_json()),
        Target("picture", picture, lambda: _arrays(embedded.load("mnist", "calibration"))),
        Target("labels", labels, lambda: _arrays(embedded.load("mnist", "calibration"))),
        Target("weights", weights, lambda: train.digest(inputs._read_weights(case, weights))),
        Target("stories", data / "embedded" / "stories.txt", stories.load),
        *([Target("data set", cached, lambda: _arrays(datasets.load("mnist", "test")))] if cached.exists() else []),
        _checkpoint(folder / "run.pt"),
        _answers(folder / "answers.jsonl"),
        _saved(folder / "saved.safetensors"),
        _learned(folder / "rounded.pt"),
        _own(folder / "own.npz"),
        _own_weights(folder / "own.pt"),
        Target("contents", folder / "_toc.yml", lambda: build.pages(folder)),
        Target("notebook", notebook, lambda: build.parameter_names(notebook), proven=False),
    ]


def _arrays(images: datasets.ImageSet) -> str:
    return train.digest([images.images, images.labels])


def _checkpoint(file: Path) -> Target:
    images = datasets.ImageSet(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4) % 2, (0.5,), (0.5,))

    def fit() -> str:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        recipe = train.TrainingRecipe("adam", 1e-3, 0.0, epochs=1, batch_size=2)
        return train.digest(train.fit(net, images, images, recipe, 0, file, every=1, progress=False).last)

    fit()
    return Target("checkpoint", file, fit)


def _answers(file: Path) -> Target:
    lines = (mmlu_harness._line(f"anatomy {place}", [-1.0, -2.0, -3.5, -4.0]) for place in range(4))
    file.write_text("".join(lines))
    return Target("answers", file, lambda: {name: tuple(values) for name, values in mmlu_harness._known(file).items()})


def _own(file: Path) -> Target:
    arrays = {"images": np.zeros((4, 3), "f4"), "labels": np.arange(4), "calibration": np.ones((4, 3), "f4")}
    np.savez(file, **arrays)
    return Target("own data", file, lambda: train.digest(vars(files.read_data(file))), proven=False)


def _network() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.randn(16, 6)


def _saved(file: Path) -> Target:
    net, images = _network()
    quide.save(quide.quantize(net, 4, images), file)
    return Target("saved network", file, lambda: train.digest(quide.load(net, file)(images)))


def _learned(file: Path) -> Target:
    net, images = _network()
    how = quide.ptq.AdaRound(iterations=2, outputs=8, checkpoint=file)

    def read() -> str:
        return train.digest(quide.quantize(net, 4, images, techniques=[how])(images))

    read()
    return Target("learned rounding", file, read)


def _own_weights(file: Path) -> Target:
    net = nn.Linear(3, 4)
    torch.save(net.state_dict(), file)

    def read() -> str:
        files._fill(net, file)
        return train.digest(net.state_dict())

    return Target("own weights", file, read, proven=False)


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The content with a bit flipped, cut, grown, a part lost or doubled, a digit or a word of JSON changed."""
    place, kind = int(random.integers(max(len(content), 1))), int(random.integers(10))
    if kind < 4:
        return content[:place] + bytes([content[place] ^ (1 << int(random.integers(8)))]) + content[place + 1 :]
    if kind == 4:
        return content[:place]
    if kind == 5:
        return content + random.bytes(int(random.integers(1, 50)))
    if kind == 6:
        return content[: place // 2] + content[place:]
    if kind == 7:
        digits = [at for at, byte in enumerate(content[:100_000]) if 48 <= byte < 58]
        at = int(random.choice(digits)) if digits else place
        return content[:at] + str(int(random.integers(10))).encode() + content[at + 1 :]
    if kind == 8:
        return content.replace(b"1", b"null", 1) if b"1" in content else b""
    return (b"", b"[]", b"{}", b"null", b"5", b"[" * 100_000, b"\xff" * 100)[int(random.integers(7))]


def outcome(target: Target, before: Any) -> tuple[str, str]:
    """What reading a damaged file comes to, and what was said or read."""
    try:
        with _limited(), contextlib.redirect_stderr(io.StringIO()):
            found = target.read()
    except TimeoutError:
        return "hang", f"more than {SECONDS} s"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        named = target.file.name in str(error) or target.name in ("picture", "labels")
        told = isinstance(error, (ValueError, OSError)) and named and "\n" not in str(error)
        return ("refused" if told else "traceback"), said
    fewer = target.name == "answers" and isinstance(before, dict) and found.items() <= before.items()
    if found == before or fewer:  # what a line less leaves out is asked again
        return "as it was", ""
    return ("accepted silently" if target.proven else "not provable"), str(found)[:SHOWN]


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attack(number: int, seed: int = 0, log: Path | None = None, folder: Path | None = None) -> list[attacks.Turn]:
    """So many turns: what was attacked, and the outcomes. The files lie in ``folder``, which the variables name."""
    if folder is None:
        with workplace() as folder:
            return attack(number, seed, log, folder)
    chosen = targets(folder)
    before = [target.read() for target in chosen]

    def damage(turn: int) -> attacks.Turn:
        target, was = chosen[turn % len(chosen)], before[turn % len(chosen)]
        content, random = target.file.read_bytes(), np.random.default_rng([seed, turn])
        there = set(target.file.parent.iterdir())
        while (damaged := mutated(content, random)) == content:
            pass
        target.file.write_bytes(damaged)
        try:
            result, said = outcome(target, was)
        finally:
            target.file.write_bytes(content)
        left = set(target.file.parent.iterdir()) - there
        return {"what": target.name, "outcomes": [result, *(["left behind"] if left else [])], "said": said}

    return attacks.resumed(log, number, damage)


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A copy of the committed data in a folder of its own, which the variables name meanwhile."""
    home = _paths.home()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        for name in ("data", "notebooks", "book"):
            shutil.copytree(home / name, folder / name)
        for name in ("_toc.yml", "_config.yml", "CONTRIBUTING.md"):
            shutil.copy(home / name, folder / name)
        places = {"HOME": folder, "RESULTS": folder / "data" / "results", "CACHE": folder / "cache"}
        with mock.patch.dict(os.environ, {f"QUIDE_{name}": str(place) for name, place in places.items()}):
            yield folder


if __name__ == "__main__":
    attacks.main("mutations", 2500, attack, OUTCOMES, BAD)
