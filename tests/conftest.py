"""What several test files share: the checkout, and the book rendered once at the smoke profile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from tiers import QUICK

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: two workers with two threads each are far slower
    os.environ["OMP_NUM_THREADS"] = "1"

CHECKOUT = Path(__file__).resolve().parent.parent
BUILT = CHECKOUT / "_build" / "test"
_BOOK = {"smoke_environment", "rendered_book"}
RENDERING_LIMIT = 1200  # seconds


def _is_quick(item: pytest.Item) -> bool:
    named = item.path.relative_to(CHECKOUT / "tests").as_posix()
    return (named in QUICK or item.name.startswith("test_style")) and item.get_closest_marker("slow") is None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks those of the quick tier."""
    if CHECKOUT / "tests" in item.path.parents and _is_quick(item):
        item.add_marker("quick")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side (``-n``): first a file that has the book built, last the others that need it, to wait for no one."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        late = {item.path.stem for item in items if _BOOK.intersection(getattr(item, "fixturenames", ()))}
        items.sort(key=lambda item: 0 if item.path.stem == "test_browser" else 2 if item.path.stem in late else 1)


@pytest.fixture(autouse=True)
def _figures_closed() -> Iterator[None]:
    """Matplotlib keeps every figure that was not shown."""
    yield
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")


@pytest.fixture
def no_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder of records."""
    monkeypatch.setenv("QUIDE_RESULTS", str(tmp_path))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a page says, paragraph after paragraph."""
    from quidebook import report

    paragraphs: list[str] = []
    monkeypatch.setattr(report, "say", lambda template, facts=None: paragraphs.append(report.worded(template, facts)))
    return paragraphs


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds ``pyproject.toml``."""
    return CHECKOUT


@pytest.fixture(scope="session")
def smoke_environment() -> dict[str, str]:
    """Environment of everything that runs at the smoke profile: the committed records, and new ones, in a copy."""
    results = BUILT / "results"

    def make() -> None:
        shutil.rmtree(results, ignore_errors=True)
        shutil.copytree(CHECKOUT / "data" / "results", results, ignore=shutil.ignore_patterns("quick", "smoke"))

    _once("results", make)
    return {**os.environ, "QUIDE_RESULTS": str(results), "TQDM_DISABLE": "1", "JUPYTER_PREFER_ENV_PATH": "1"}


@pytest.fixture(scope="session")
def _built_book(smoke_environment: dict[str, str]) -> Path:
    """``_build`` of the book at the smoke profile, built from nothing with every warning an error."""
    command = [sys.executable, "-m", "quide.cli", "book", "--profile", "smoke", "--strict", "--output", str(BUILT)]

    def make() -> None:
        done = subprocess.run(
            command, cwd=CHECKOUT, env=smoke_environment, capture_output=True, text=True, timeout=RENDERING_LIMIT
        )
        assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"

    _once("book", make)
    return BUILT / "_build"


def _once(name: str, make: Callable[[], None]) -> None:
    """Have the first worker of this run that comes here ``make`` something; the others wait until it is there."""
    run, stamp = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())), BUILT / f"{name}.made-by"
    BUILT.mkdir(parents=True, exist_ok=True)
    with FileLock(BUILT / f"{name}.lock"):
        if not stamp.exists() or stamp.read_text() != run:
            make()
            stamp.write_text(run)


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
