"""Every notebook as it was executed for the book at the smoke profile; a few are executed again and show the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from quidebook import build

LIMIT = 600  # seconds
NOTEBOOKS = [page for page in build.pages(Path(__file__).resolve().parents[2]) if page.suffix == ".ipynb"]
# The others share their modules. These train nothing, but measure, search, resample and hand numbers to a script.
AGAIN = ("exp1_simplecnn", "metric_analysis", "what_if")

pytestmark = pytest.mark.slow


def test_the_book_has_notebooks() -> None:
    assert NOTEBOOKS


def test_a_second_execution_shows_the_same(
    executed_notebooks: Path, smoke_environment: dict[str, str], tmp_path: Path
) -> None:
    """By nbval, on the copies that papermill executed for the book; the first execution's records are there by now."""
    for name in AGAIN:
        shutil.copy(executed_notebooks / f"{name}.ipynb", tmp_path)
    options = ["--nbval", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path, env={**smoke_environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_first_execution_is_of_the_smoke_profile(notebook: Path, executed_notebooks: Path) -> None:
    executed = nbformat.read(executed_notebooks / notebook.name, as_version=4)
    injected = [cell.source for cell in executed.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    wanted = ['profile = "smoke"'] if "profile" in build.parameter_names(notebook) else []
    assert [line for source in injected for line in source.splitlines() if "profile" in line] == wanted
    assert not [
        output for cell in executed.cells for output in cell.get("outputs", []) if output.output_type == "error"
    ]


def test_a_seed_of_ones_own(checkout: Path, smoke_environment: dict[str, str], tmp_path: Path) -> None:
    """The command of the README, on the real experiment."""
    target = tmp_path / "seven.ipynb"
    named = ["--seeds", "7", "--datasets", "mnist", "--profile", "smoke", "--output", str(target)]
    results = tmp_path / "results"
    done = subprocess.run(
        [sys.executable, "-m", "quide.cli", "run", "exp1", *named],
        cwd=checkout, env={**smoke_environment, "QUIDE_RESULTS": str(results)},
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == f"The executed notebook: {target}"
    written = [file.name for file in (results / "smoke").rglob("*.json")]
    assert written and all("simplecnn-mnist-s7-" in name for name in written)
