"""Every page with records, without records, and with few and hostile ones: it renders, and says nothing unfinished."""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Callable
from pathlib import Path

import nbformat
import notebook_outputs
import pytest
from matplotlib.figure import Figure
from quidebook import build

from quide.experiments import campaign, records

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = [page for page in build.pages(ROOT) if page.suffix == ".ipynb"]
FROM_RECORDS = [page for page in NOTEBOOKS if page.stem not in ("debugging", "exercises", "metric_explained", "primer")]
MAKE_THEIR_OWN = ("exp1_simplecnn", "exp3_mixed_precision")  # which are then there, whatever was there before
HOSTILE = "<img src=x onerror=alert(1)>{{ template }}"
PARAMETERS = {"profile": "paper", "datasets": ["mnist", "cifar10"]}


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list]:
    """Renders a notebook at the paper profile from the records there are, and runs nothing for it."""
    for name in build.experiments(ROOT).values():
        module = __import__(f"quidebook.pages.{name.stem}", fromlist=["run"])
        monkeypatch.setattr(module, "run", lambda *arguments, **options: {}, raising=False)
    for name in ("measure", "measure_mixed", "measure_imagenet"):
        monkeypatch.setattr(campaign, name, lambda *arguments: [])
    monkeypatch.setattr(Figure, "savefig", lambda figure, target, **options: target.write(b"a picture"))
    return lambda notebook: notebook_outputs.run(notebook, PARAMETERS)


@pytest.fixture(scope="session")
def few_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed records of seed 0 alone, every text in them that no key depends on an attack."""
    folder = tmp_path_factory.mktemp("few")
    for file in (ROOT / "data" / "results" / "paper").glob("*/*-s0-*.json"):
        target = folder / "paper" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = json.loads(file.read_text())
        if "reasons" in content["values"]:
            content["values"] |= {"reasons": [HOSTILE], "noisy": True}
        if "groups" in content["values"]:
            content["values"]["groups"] = [HOSTILE for _ in content["values"]["groups"]]
        content["provenance"] |= {"cpu": HOSTILE, "git_commit": HOSTILE}
        content.pop("digest", None)
        content["digest"] = records._digest(content)  # sealed anew: what attacks is the text, not a torn file
        target.write_text(json.dumps(content))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_with_records(notebook: Path, executed_notebooks: Path) -> None:
    outputs = notebook_outputs.of_executed(executed_notebooks / notebook.name)
    assert outputs
    assert list(notebook_outputs.faults(outputs)) == []


@pytest.mark.parametrize(
    "notebook", [page for page in FROM_RECORDS if page.stem not in MAKE_THEIR_OWN], ids=lambda file: file.stem
)
def test_without_records(notebook: Path, rendered: Callable, no_records: None) -> None:
    assert list(notebook_outputs.faults(rendered(notebook))) == []


@pytest.mark.slow
@pytest.mark.parametrize("notebook", FROM_RECORDS, ids=lambda file: file.stem)
def test_with_one_seed_and_texts_that_attack(
    notebook: Path, rendered: Callable, few_records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIDE_RESULTS", str(few_records))
    outputs = rendered(notebook)
    assert list(notebook_outputs.faults(outputs)) == []
    assert "<img" not in notebook_outputs.markup(outputs)
    read = "".join(output.data.get("text/markdown", "") + str(output.metadata) for output in outputs)
    assert "{{ template" not in read  # in Markdown; in HTML it is words


def test_every_template_of_a_notebook_can_be_filled() -> None:
    """Each literal that ``report.say`` gets with facts parses, and all its fields have names."""
    templates = 0
    for notebook in NOTEBOOKS:
        for cell in nbformat.read(notebook, as_version=4).cells:
            calls = ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ()
            for call in (node for node in calls if isinstance(node, ast.Call) and len(node.args) == 2):
                if ast.unparse(call.func) == "report.say" and isinstance(call.args[0], ast.Constant):
                    parsed = string.Formatter().parse(call.args[0].value)
                    fields = [field for _, field, _, _ in parsed if field is not None]
                    assert all(re.match(r"[a-z_]", field) for field in fields), (notebook.stem, fields)
                    templates += 1
    assert templates > 20
