"""What several test files share: the checkout, and the book rendered once at the smoke profile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: two workers with two threads each are far slower
    os.environ["OMP_NUM_THREADS"] = "1"

CHECKOUT = Path(__file__).resolve().parent.parent
RENDERING_LIMIT = 1200  # seconds
_NEEDS_BOOK = {"smoke_environment", "rendered_book"}  # each made once a worker, in the same folder


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side (``-n``): first all that needs the rendered book, on one worker, then the others file by file."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    for item in items:
        group = "book" if _NEEDS_BOOK.intersection(getattr(item, "fixturenames", ())) else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args[0] != "book")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds ``pyproject.toml``."""
    return CHECKOUT


@pytest.fixture(scope="session")
def smoke_environment() -> dict[str, str]:
    """Environment of everything that runs at the smoke profile: the committed records, and new ones, in a copy."""
    results = CHECKOUT / "_build" / "test" / "results"
    shutil.rmtree(results, ignore_errors=True)
    shutil.copytree(
        CHECKOUT / "data" / "results", results, ignore=shutil.ignore_patterns("quick", "smoke"), dirs_exist_ok=True
    )
    return {**os.environ, "QUIDE_RESULTS": str(results), "TQDM_DISABLE": "1", "JUPYTER_PREFER_ENV_PATH": "1"}


@pytest.fixture(scope="session")
def _built_book(smoke_environment: dict[str, str]) -> Path:
    """``_build`` of the book at the smoke profile, built from nothing with every warning an error."""
    output = CHECKOUT / "_build" / "test"
    command = [sys.executable, "-m", "quide.cli", "book", "--profile", "smoke", "--strict", "--output", str(output)]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=smoke_environment, capture_output=True, text=True, timeout=RENDERING_LIMIT
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return output / "_build"


@pytest.fixture(scope="session")
def executed_notebooks(_built_book: Path) -> Path:
    """The folder of the notebooks as papermill left them."""
    return _built_book / "executed"


@pytest.fixture(scope="session")
def rendered_book(request: pytest.FixtureRequest) -> Path:
    """The book's ``html`` folder; ``$QUIDE_HTML`` names one that is ready."""
    if ready := os.environ.get("QUIDE_HTML"):
        return Path(ready).resolve()
    return request.getfixturevalue("_built_book") / "html"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A running browser, which needs the test extra; see :func:`browsing.launched`."""
    import browsing

    with browsing.launched() as running:
        yield running


@pytest.fixture(scope="module")
def open_page(browser) -> Iterator:
    """Opens a file in a fresh profile; see :func:`browsing.opener`."""
    import browsing

    with browsing.opener(browser) as function:
        yield function
