"""Processes that are killed at random moments while they write: nothing torn, the next run ends as an undisturbed one.

``python -m benchmarks.kills [NUMBER] [--seed SEED]`` counts outcomes by kind of work. A run that was stopped goes on
with the next kill; 100 take some minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import attacks
from quide import _paths

BAD = ("another result", "an error", "left behind")
OUTCOMES = ("killed", "ended before", "the same", *BAD)
ERROR, SHOWN = "an error:", 300  # characters of what a run ended with
LEFT = re.compile(r"^(?!.*\.lock$)(\.fetch-mnist-|.*\.(partial|looked-at))")  # names of what is to be gone
SLOWEST = 3.0  # seconds within which a process is killed, the time that it takes to start included
WORK = {
    "training": """
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
""",
    "records": """
import os, sys
os.environ["QUIDE_RESULTS"] = sys.argv[1]
from quide.experiments import records
print("ready", flush=True)
for turn in range(60):
    spec = records.RunSpec("trial", "a", "b", turn, "smoke")
    records.load_or_run(spec, lambda: {"x": turn, "long": ["word"] * 2000}, "c", "d")
print(sum(one.values["x"] for one in records.collect()))
""",
    "search": """
import sys
from quide import search
print("ready", flush=True)
found = search.genetic(lambda bits: 1 / sum(bits), 6, seed=1)
print(found.best, found.evaluations)
""",
    "fetching": """
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
""",
    "saving": """
import sys
from pathlib import Path
import torch
from torch import nn
import quide
from quide.models import train
torch.manual_seed(0)
net, images = nn.Sequential(nn.Linear(64, 2000), nn.ReLU(), nn.Linear(2000, 10)).eval(), torch.randn(16, 64)
file = Path(sys.argv[1]) / "net.safetensors"
print("ready", flush=True)
if file.exists():  # whole, whichever it is
    quide.load(net, file)
for bits in (8, 7, 6, 5, 4, 3, 2) * 5:
    quide.save(quide.quantize(net, bits, images), file)
print(train.digest(quide.load(net, file)(images)))
""",
    "sweep": """
import os, sys
from pathlib import Path
import numpy as np
root = Path(sys.argv[1])
os.chdir(root)
Path("net.py").write_text("from torch import nn\\ndef build():\\n    return nn.Linear(16, 3)\\n")
images = np.random.default_rng(0).normal(size=(300, 16)).astype("f4")
labels = np.digitize(images[:, 0], (-0.4, 0.4))
np.savez("data.npz", images=images, labels=labels, calibration=images)
import torch
weights = {"weight": torch.zeros(3, 16), "bias": torch.tensor([0.0, 0.4, 0.0])}
weights["weight"][:, 0] = torch.tensor([-3.0, 0.0, 3.0])
torch.save(weights, "net.pt")
from quide import cli
print("ready", flush=True)
try:
    cli.main("sweep net.py:build --weights net.pt --data data.npz --passes 2 --output out.json".split())
except SystemExit as end:
    assert not end.code
import json
print([(row["bits"], row["accuracy"]) for row in json.loads(Path("out.json").read_text())["rows"]])
""",
    "book": """
import sys
from pathlib import Path
import nbformat
from nbformat import v4
from quidebook import build
root = Path(sys.argv[1])
page, made = root / "notebooks" / "page.ipynb", root / "_build" / "executed"
page.parent.mkdir(exist_ok=True)
if not page.exists():
    cells = [v4.new_code_cell(f"import time; time.sleep(0.2); {turn} ** 2", id=str(turn)) for turn in range(5)]
    nbformat.write(v4.new_notebook(cells=cells), page)
print("ready", flush=True)
build._execute_changed(root, [page], made, "smoke", progress=False)
executed = nbformat.read(made / page.name, as_version=4)
print([cell.outputs[0].data["text/plain"] for cell in executed.cells])
""",
}


def run(code: str, folder: Path, limit: float | None = None) -> str | None:
    """The last line that a process prints; None if it is killed, so many seconds after it said that it is ready."""
    command, root = [sys.executable, "-c", code, str(folder)], _paths.PACKAGE.parent
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "TQDM_DISABLE": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env=environment
    )
    process.stdout.readline()
    try:
        said, complained = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    return f"{ERROR} {complained.strip()[-SHOWN:]}" if process.returncode else said.splitlines()[-1]


def attack(
    number: int, seed: int = 0, log: Path | None = None, work: tuple[str, ...] = tuple(WORK)
) -> list[attacks.Turn]:
    """So many kills, the kinds of work in turn: whether the run after one ends the same, and what stays behind."""
    undisturbed: dict[str, str | None] = {}

    def kill(turn: int) -> attacks.Turn:
        name, random = work[turn % len(work)], np.random.default_rng([seed, turn])
        if name not in undisturbed:
            with tempfile.TemporaryDirectory() as folder:
                undisturbed[name] = run(WORK[name], Path(folder))
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            killed = run(WORK[name], folder, float(random.uniform(0, 1)) ** 3 * SLOWEST) is None
            said = run(WORK[name], folder)
            outcomes = ["killed" if killed else "ended before"]
            if said.startswith(ERROR):
                outcomes.append("an error")
            else:
                outcomes.append("the same" if said == undisturbed[name] else "another result")
            left = [str(file.relative_to(folder)) for file in folder.rglob("*") if LEFT.search(file.name)]
            outcomes += ["left behind"] if left else []
        return {"what": name, "outcomes": outcomes, "said": f"{said}; {' '.join(left)}"}

    return attacks.resumed(log, number, kill)


if __name__ == "__main__":
    attacks.main("kills", 100, attack, OUTCOMES, BAD)
