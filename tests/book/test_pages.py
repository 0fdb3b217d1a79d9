"""The book's sources: complete, free of outputs and of typed results, every figure described."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "book").glob("*.ipynb")])
PROSE = sorted((ROOT / "book").glob("*.md"))

# A version, the time constant of the index, the level of the intervals: constants, not results. Bare whole numbers may
# be typed, since they are bit-widths, seeds and epochs far more often than results.
CONSTANTS = {"3.11", "1 ms", "95 %"}
TYPED_RESULT = re.compile(r"\d+\.\d+|\d+(?:\.\d+)?\s*(?:%|percent\b|pp\b|ms\b|x\b|×)")
NOT_PROSE = [
    r"(?s)^```\{?(?:bash|python|bibliography).*?^```",  # listings
    r"(?s)\$\$.*?\$\$",
    r"`[^`]*`",  # code and roles
    r"\$[^$]+\$",
    r"\]\([^)]*\)",  # targets of links
    r"\barXiv[: ]\d+\.\d+",
]


# Pages that draw from records say which ones they used.
FROM_RECORDS = {
    "answer", "every_table_and_figure", "exp1_simplecnn", "exp2_imagenet", "exp2_resnet18", "exp3_mixed_precision",
    "llama3_mmlu", "metric_analysis", "paper_audit", "what_if",
}  # fmt: skip
THE_PAPERS_QUANTIZER = re.compile(r"(?i)(?<!reading of )the paper's (?:quantizer|scheme)(?!, as we read it)")
CONCLUDE = ("Experiments", "The paper, examined")  # parts of the book


def cells(notebook: Path, kind: str) -> list[dict]:
    """The notebook's cells of one kind, their source joined to one string."""
    content = json.loads(notebook.read_text())
    return [cell | {"source": "".join(cell["source"])} for cell in content["cells"] if cell["cell_type"] == kind]


def pages() -> list[Path]:
    """Files that the table of contents names."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [contents["root"], *(chapter["file"] for part in contents["parts"] for chapter in part["chapters"])]
    return [
        next((file for file in ROOT.glob(f"{name}.*") if file.suffix in (".md", ".ipynb")), ROOT / name)
        for name in names
    ]


def test_the_papers_equations_have_its_numbers():
    """The first four that count, in the order of the pages, are its Eq. 1 to 4, which the prose speaks of."""
    labels = [label for page in pages() for label in re.findall(r"\$\$ \(eq-([a-z-]+)\)", page.read_text())]
    assert labels[:4] == ["utility", "index", "gated", "threshold"]


def typed_results(text: str) -> list[str]:
    """What looks like a result typed into prose."""
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.MULTILINE)
    return [found for found in TYPED_RESULT.findall(text) if found not in CONSTANTS]


def test_contents_and_files_agree():
    listed = pages()
    assert [str(page) for page in listed if not page.is_file()] == []
    assert sorted(listed) == sorted([*PROSE, *NOTEBOOKS])


@pytest.mark.parametrize(
    ("prose", "found"),
    [
        ("accuracy fell to 58.2", ["58.2"]),
        ("a drop of 21 %", ["21 %"]),
        ("2.6x slower", ["2.6"]),
        ("took 12 ms", ["12 ms"]),
        ("4 bits, 50 epochs, seed 42, Python 3.11", []),
        ("`--seeds 0.5` and $x = 0.5$ and [a link](https://a.b/1.2)", []),
    ],
)
def test_typed_results_are_told_from_other_numbers(prose, found):
    assert typed_results(prose) == found


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_no_result_is_typed_into_a_page(page):
    assert typed_results(page.read_text()) == []


@pytest.mark.parametrize("page", [*PROSE, *NOTEBOOKS], ids=lambda page: page.name)
def test_no_page_takes_our_reading_of_the_quantizer_for_the_papers(page):
    """Its text leaves open where activations are rounded and how many ranges a tensor has."""
    text = re.sub(r"[\s\"\\]+", " ", page.read_text().replace("\\n", " "))
    assert THE_PAPERS_QUANTIZER.findall(text) == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("the paper's quantizer rounds", ["the paper's quantizer"]),
        ("our reading of the paper's quantizer rounds; the paper's quantizer, as we read it, too", []),
    ],
)
def test_our_reading_is_told_from_the_papers_quantizer(words, found):
    assert THE_PAPERS_QUANTIZER.findall(words) == found


def test_experiments_and_analyses_end_with_what_to_take_away():
    parts = {part["caption"]: part["chapters"] for part in yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]}
    files = [ROOT / f"{chapter['file']}.ipynb" for name in CONCLUDE for chapter in parts[name]]
    assert len(files) > 5
    for file in files:
        *_, last, records = cells(file, "code")
        assert "frame.take_aways(" in last["source"] and "report.provenance(" in records["source"], file.name


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
class TestNotebook:
    def test_no_result_is_typed(self, notebook):
        assert [found for cell in cells(notebook, "markdown") for found in typed_results(cell["source"])] == []

    def test_is_committed_without_outputs(self, notebook):
        for cell in cells(notebook, "code"):
            assert cell["outputs"] == []
            assert cell["execution_count"] is None

    def test_has_one_parameters_cell_with_a_profile_or_is_the_same_at_every_profile(self, notebook):
        """The build executes a page without one anew only when the committed records change; see book._inputs."""
        tagged = [cell for cell in cells(notebook, "code") if "parameters" in cell["metadata"].get("tags", [])]
        if not tagged:
            names = {node.id for cell in cells(notebook, "code") for node in ast.walk(ast.parse(cell["source"]))
                     if isinstance(node, ast.Name)}  # fmt: skip
            assert "profile" not in names
            return
        assert len(tagged) == 1
        assigned = [node.targets[0].id for node in ast.parse(tagged[0]["source"]).body]
        assert "profile" in assigned

    def test_has_one_title_and_headings_in_order(self, notebook):
        text = re.sub(r"(?s)```.*?```", "", "\n\n".join(cell["source"] for cell in cells(notebook, "markdown")))
        levels = [len(marks) for marks in re.findall(r"^(#+) ", text, flags=re.MULTILINE)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))

    def test_what_is_drawn_from_records_says_from_which(self, notebook):
        trees = [ast.parse(cell["source"]) for cell in cells(notebook, "code")]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        imported = {name.name for node in nodes if isinstance(node, ast.ImportFrom)
                    for name in node.names if node.module.startswith("quidebook")}  # fmt: skip
        boxes = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "report.provenance"]
        if imported & FROM_RECORDS:
            assert len(boxes) == 1, "end the page with report.provenance(records, command)"
            assert len(boxes[0].args) > 1, "name the command that makes the records"

    def test_every_figure_is_shown_with_its_description(self, notebook):
        """All figures go through ``report.show``; one that is left to the notebook's own display has no description."""
        for cell in cells(notebook, "code"):
            calls = [node for node in ast.walk(ast.parse(cell["source"])) if isinstance(node, ast.Call)]
            shown = [call for call in calls if ast.unparse(call.func) == "report.show"]
            assert len(shown) <= 1, "one figure a cell"
            for call in shown:
                all_four = len(call.args) == 4 or any(isinstance(argument, ast.Starred) for argument in call.args)
                assert all_four or {"name", "caption", "alt"} <= {keyword.arg for keyword in call.keywords}
            drawn = any(ast.unparse(call.func).endswith(("panels", "subplots", ".figure")) for call in calls)
            assert not drawn or shown, "a figure is drawn but not shown with report.show"
