"""Processes that are killed at random moments while they write: nothing torn, the next run ends as an undisturbed one.

``python -m benchmarks.kills [NUMBER]`` prints what was found; 100 take some minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from quide import _paths

SLOWEST = 2.0  # seconds within which a process is killed, the time that it takes to start included
TRAINING = """
import sys, torch
from pathlib import Path
from torch import nn
from quide.data.datasets import ImageSet
from quide.models import train
torch.manual_seed(0)
images = ImageSet(torch.arange(64 * 16).reshape(64, 1, 4, 4).to(torch.uint8), torch.arange(64) % 2, (0.5,), (0.5,))
net = nn.Sequential(nn.Flatten(), nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 2))
print("ready", flush=True)
recipe = train.TrainingRecipe("adam", 1e-3, 0.0, epochs=40, batch_size=16)
fitted = train.fit(net, images, images, recipe, 0, Path(sys.argv[1]) / "run.pt", every=1, progress=False)
print(train.digest(fitted.last))
"""
RECORDS = """
import os, sys
os.environ["QUIDE_RESULTS"] = sys.argv[1]
from quide.experiments import records
print("ready", flush=True)
for turn in range(60):
    spec = records.RunSpec("trial", "a", "b", turn, "smoke")
    records.load_or_run(spec, lambda: {"x": turn, "long": ["word"] * 2000}, "c", "d")
print(sum(one.values["x"] for one in records.collect()))
"""
SEARCH = """
import sys
from quide import search
print("ready", flush=True)
found = search.genetic(lambda bits: 1 / sum(bits), 6, seed=1)
print(found.best, found.evaluations)
"""
FETCHING = """
import os, sys
from pathlib import Path
root = Path(sys.argv[1])
os.environ["QUIDE_CACHE"], os.environ["QUIDE_DATA"] = str(root / "cache"), str(root / "files")
sys.path.insert(0, "tests")
import dataset_files
from quide.data import datasets, sources
arrays = dataset_files.splits("mnist")
datasets.INFO["mnist"] = dataset_files.facts("mnist", arrays)
(root / "files").mkdir(exist_ok=True)
for name, content in dataset_files.mnist(arrays).items():
    (root / "files" / name).write_bytes(content)
print("ready", flush=True)
for _ in range(6):
    for file in sources.fetch("mnist", progress=False):
        digest = datasets.load("mnist", "test").labels.sum().item()
        if _ < 5:
            file.unlink()
print(digest)
"""
WORK = {"training": TRAINING, "records": RECORDS, "search": SEARCH, "fetching": FETCHING}


def run(code: str, folder: Path, limit: float | None = None) -> str | None:
    """The last line that a process prints; None if it is killed, so many seconds after it said that it is ready."""
    command, root = [sys.executable, "-c", code, str(folder)], _paths.PACKAGE.parent
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    process.stdout.readline()
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    if process.returncode:
        raise RuntimeError(f"a run ended with {process.returncode}")
    return said.splitlines()[-1]


def attack(number: int, seed: int = 0, work: tuple[str, ...] = tuple(WORK)) -> Counter:
    """``number`` kills over the kinds of work: how many runs after one ended the same, and what was left behind."""
    random, found = np.random.default_rng(seed), Counter()
    undisturbed = {}
    for name in work:
        with tempfile.TemporaryDirectory() as folder:
            undisturbed[name] = run(WORK[name], Path(folder))
    for turn in range(number):
        name = work[turn % len(work)]
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            killed = run(WORK[name], folder, float(random.uniform(0, 1)) ** 3 * SLOWEST) is None
            found["killed" if killed else "ended before"] += 1
            found["the same" if run(WORK[name], folder) == undisturbed[name] else "another result"] += 1
            left = [
                file for file in folder.rglob("*") if ".partial" in file.name or file.name.startswith(".fetch-mnist-")
            ]
            found["left behind"] += len([file for file in left if file.suffix != ".lock"])
    return found


def main(number: int = 100) -> None:
    """Print the counts."""
    print(json.dumps(attack(number), indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
