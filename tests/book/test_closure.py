"""Which files a notebook depends on: of small packages, and of the real ones against what Python loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from quidebook import closure

PACKAGES = {
    "quide/__init__.py": '_HOME = {"gated_index": "metric", "sweep": "evaluate"}',
    "quide/metric.py": "",
    "quide/evaluate.py": "def sweep():\n    from quide.latency import measure",
    "quide/latency.py": "",
    "quide/ptq/__init__.py": "__getattr__ = attributes(__name__, prepared=['prepare'])",
    "quide/ptq/prepared.py": "",
    "quide/ptq/rounding.py": "",
    "quide/runs.py": 'code_digest("quide.ptq.rounding:round_up")',
    "quidebook/__init__.py": "",
    "quidebook/report.py": "import quide.metric",
    "quidebook/pages/__init__.py": "",
    "quidebook/pages/one.py": "from quidebook import report",
    "quidebook/pages/one.html": "<p>",
    "quidebook/pages/two.py": "from quide import runs",
}


@pytest.fixture
def packages(tmp_path: Path) -> tuple[Path, Path]:
    for name, text in PACKAGES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "quide", tmp_path / "quidebook"


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("import numpy", set()),
        ("from quidebook.pages import one", {"metric.py", "report.py", "one.py", "one.html"}),
        ("%matplotlib inline\n!ls\nfrom quidebook import report", {"metric.py", "report.py"}),
        ("import quide\nquide.gated_index(1, 1, 1)", {"metric.py"}),
        ("from quide import sweep", {"evaluate.py", "latency.py"}),
        ("def later():\n    from quide import evaluate", {"evaluate.py", "latency.py"}),
        ("from quide import ptq\nptq.prepare", {"prepared.py"}),
        ("from quidebook.pages import two", {"two.py", "runs.py", "rounding.py", "prepared.py"}),
    ],
)
def test_a_notebook_depends_on_what_its_imports_may_load(packages, tmp_path, source, wanted):
    notebook = tmp_path / "a.ipynb"
    cells = [nbformat.v4.new_markdown_cell("import quide.runs"), nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    assert {file.name for file in closure.files(notebook, packages)} - {"__init__.py"} == wanted


def test_a_notebook_that_does_not_parse_depends_on_everything(packages, tmp_path):
    notebook = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("for")]), notebook)
    assert len(closure.files(notebook, packages)) == len(PACKAGES)


def test_a_page_depends_on_the_module_of_its_name_and_on_that_of_no_other_page(checkout):
    pages = set((checkout / "book" / "quidebook" / "pages").glob("[!_]*.py"))
    for page in pages:
        assert pages & set(closure.files(checkout / "notebooks" / f"{page.stem}.ipynb")) == {page}


@pytest.mark.parametrize("name", ["metric_explained", "what_if"])
def test_nothing_that_python_loads_is_forgotten(checkout, name):
    notebook = checkout / "notebooks" / f"{name}.ipynb"
    imports = [
        line
        for cell in nbformat.read(notebook, 4).cells
        for line in cell.source.splitlines()
        if cell.cell_type == "code" and line.startswith(("import ", "from "))
    ]
    loaded = "print(*(m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] in ('quide', 'quidebook')))"
    code = "\n".join([*imports, "import sys", loaded])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert set(map(Path, done.stdout.split())) <= set(closure.files(notebook))
