"""quidebook.build: what is executed again and what not, how figures reach their pages, and that no warning is lost."""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from pathlib import Path

import nbformat
import pytest
from quidebook import build

from quide.experiments import records

PIXEL = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
).decode()
SHOW = f"""\
from IPython.display import display
def show(name):
    facts = {{"name": name, "caption": f"Caption of {{name}}.", "alt": f"Words for {{name}}."}}
    display({{"image/png": {PIXEL!r}}}, metadata={{"quide": facts}}, raw=True)
"""
CONFIG = """\
title: A small book
only_build_toc_files: true
execute: {execute_notebooks: "off"}
repository: {url: ""}
sphinx: {config: {language: en}}
"""
CONTENTS = """\
format: jb-book
root: book/intro
parts:
  - caption: Part
    chapters:
      - file: notebooks/exp1_small
"""


def figure(name: str = "fig-a", alt: str = "A falling line.", caption: str = "A line.") -> nbformat.NotebookNode:
    facts = {"name": name, "caption": caption, "alt": alt}
    return nbformat.v4.new_output("display_data", {"image/png": PIXEL}, metadata={"quide": facts})


def stream(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name=name, text=text)


def notebook_of(*outputs: nbformat.NotebookNode, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell("work()", outputs=list(outputs), execution_count=3, metadata={"tags": list(tags)})
    return nbformat.v4.new_notebook(cells=[cell])


# --- figures and outputs ---------------------------------------------------------------------------------------------


def test_a_figure_becomes_the_figure_of_its_cell() -> None:
    (cell,) = build.translate(notebook_of(figure()), "n").cells
    assert cell.metadata.mystnb == {
        "image": {"alt": "A falling line."},
        "figure": {"name": "fig-a", "caption": "A line."},
    }


def test_other_outputs_and_second_figures_get_cells_of_their_own() -> None:
    source = notebook_of(stream("before"), figure("fig-a"), figure("fig-b"), stream("after"), tags=("hide-output",))
    cells = build.translate(source, "n").cells
    assert [cell.source for cell in cells] == ["work()", *["# more output of the cell above"] * 3]
    assert [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells] == [
        None, "fig-a", "fig-b", None,
    ]  # fmt: skip
    assert cells[0].metadata.tags == ["hide-output"]
    assert all(cell.metadata.tags == ["hide-output", "remove-input"] for cell in cells[1:])
    assert len({cell.id for cell in cells}) == 4
    translated = nbformat.v4.new_notebook(cells=cells)
    nbformat.validate(translated)


def test_translation_is_repeatable_and_leaves_its_argument_alone() -> None:
    source = notebook_of(stream("a"), figure(), stream("b"))
    before = nbformat.writes(source)
    assert nbformat.writes(build.translate(source, "n")) == nbformat.writes(build.translate(source, "n"))
    assert nbformat.writes(source) == before


def test_an_image_without_alternative_text_is_refused_by_name() -> None:
    bare = nbformat.v4.new_output("display_data", {"image/png": PIXEL})
    for output in (bare, figure(alt="")):
        with pytest.raises(ValueError, match=r"notebooks/x\.ipynb: a figure without alternative text .*work\(\)"):
            build.translate(notebook_of(output), "notebooks/x.ipynb")


def test_alternative_text_may_also_be_given_in_the_cell() -> None:
    source = notebook_of(nbformat.v4.new_output("display_data", {"image/png": PIXEL}))
    source.cells[0].metadata["mystnb"] = {"image": {"alt": "By hand."}}
    assert build.translate(source, "n").cells[0].metadata.mystnb.image.alt == "By hand."


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("  0%|          | 0/60 [00:00<?, ?it/s]\r100%|###| 60/60 [1:00:30<00:00,  1.97it/s]\n", None),
        ("12it [00:03,  3.90it/s]", None),
        ("a.py:3: StaleRecordWarning: made by other code\n", "a.py:3: StaleRecordWarning: made by other code\n"),
        ("50%|##   | 1/2 [00:01<00:01]\rUserWarning: look\n", "UserWarning: look\n"),
    ],
)
def test_progress_bars_go_and_warnings_stay(text: str, left: str | None) -> None:
    outputs = build.translate(notebook_of(stream(text, "stderr")), "n").cells[0].outputs
    assert [output.text for output in outputs] == ([] if left is None else [left])


def test_standard_output_is_never_filtered() -> None:
    text = "rate [00:01<00:02, 3it/s]\n"
    assert build.translate(notebook_of(stream(text)), "n").cells[0].outputs[0].text == text


def test_time_stamps_and_paths_of_the_machine_are_left_out() -> None:
    source = notebook_of(stream("x"))
    source.metadata["papermill"] = {"input_path": "/home/someone/x.ipynb"}
    source.cells[0].metadata["papermill"] = {"start_time": "2026-01-01"}
    source.cells[0].metadata["execution"] = {"iopub.execute_input": "2026-01-01"}
    assert "/home/someone" not in (text := nbformat.writes(build.translate(source, "n"))) and "2026-01-01" not in text


# --- finding pages and experiments -----------------------------------------------------------------------------------


def test_pages_follow_the_table_of_contents(small_book: Path) -> None:
    assert [page.relative_to(small_book).as_posix() for page in build.pages(small_book)] == [
        "book/intro.md",
        "notebooks/exp1_small.ipynb",
    ]


def test_a_listed_page_that_does_not_exist_is_named(small_book: Path) -> None:
    (small_book / "_toc.yml").write_text("format: jb-book\nroot: book/intro\nchapters:\n- file: book/gone\n")
    with pytest.raises(FileNotFoundError, match="book/gone"):
        build.pages(small_book)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CONTENTS.replace("  - caption", "  - captain"), "an entry of parts has .*captain"),
        (CONTENTS.replace("- file", "- fil"), "an entry of chapters has .*'fil'"),
        (CONTENTS.replace("root", "rood"), "an entry of the file has .*'rood'"),
        (CONTENTS.replace("jb-book", "jb-bool"), "its format is 'jb-bool'"),
        (CONTENTS.partition("parts")[0] + "parts: []", "parts is \\[\\]"),
        (CONTENTS.partition("chapters")[0] + "chapters: book/intro", "chapters is 'book/intro'"),
        (CONTENTS.partition("chapters")[0] + "chapters: [book/intro]", "an entry of chapters has 'book/intro'"),
        (CONTENTS.replace("notebooks/exp1_small", "book/intro"), "does not list book/intro.md once"),
        ("format: jb-book\nroot: notebooks/exp1_small\nchapters: [{file: notebooks/exp1_small}]", "does not list book"),
        ("format: jb-book\nroot: 5\nparts: [{caption: a, chapters: [{file: notebooks/exp1_small}]}]", "root is 5"),
        ("[]", "an entry of the file has \\[\\]"),
    ],
)  # fmt: skip
def test_a_table_of_contents_that_loses_or_repeats_a_page_is_refused(small_book: Path, text: str, reason: str) -> None:
    (small_book / "_toc.yml").write_text(text)
    with pytest.raises(ValueError, match=f"_toc.yml cannot be read .*{reason}") as caught:
        build.pages(small_book)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_checkout_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for function in (build.pages, build.experiments):
        with pytest.raises(FileNotFoundError, match="QUIDE_HOME"):
            function(tmp_path)


def test_experiments_are_named_by_their_file(small_book: Path) -> None:
    notebook = small_book / "notebooks" / "exp1_small.ipynb"
    assert build.experiments(small_book) == {"exp1": notebook, "exp1_small": notebook}
    assert build.parameter_names(small_book / "notebooks" / "exp1_small.ipynb") == ["profile", "seeds"]


@pytest.mark.parametrize(
    ("experiment", "parameters", "message"),
    [("exp9", {}, "must be one of exp1"), ("exp1", {"bits": [8]}, "no parameter 'bits'; it has profile, seeds")],
)
def test_a_run_refuses_unknown_names_before_it_starts(
    small_book: Path, experiment: str, parameters: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build.run(experiment, parameters)
    assert not (small_book / "_build").exists()


# --- what counts as changed ------------------------------------------------------------------------------------------


def test_a_digest_sees_names_and_contents_and_nothing_else(tmp_path: Path) -> None:
    folder, empty = tmp_path / "data", tmp_path / "absent"
    folder.mkdir()
    (folder / "a.json").write_text("1")
    first = build.digest([folder, empty])
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_text("x")
    (folder / "b.json.partial").write_text("half")
    (folder / "a.json").touch()
    assert build.digest([folder, empty]) == first
    (folder / "a.json").write_text("2")
    second = build.digest([folder, empty])
    (folder / "a.json").rename(folder / "b.json")
    assert len({first, second, build.digest([folder, empty])}) == 3


def test_what_changed_is_executed_again(
    small_book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _pretend_to_execute(monkeypatch, writes_record=set())
    source, folder = small_book / "notebooks" / "exp1_small.ipynb", small_book / "_build" / "executed"

    def execute(profile: str) -> str:
        build._execute_changed(small_book, [source], folder, profile, progress=False)
        return capsys.readouterr().out

    assert "(first time)" in execute("smoke")
    assert "all 1 are up to date" in execute("smoke")
    assert "(changed: parameters)" in execute("quick")
    _write_record(small_book, "smoke/accuracy")
    assert "(changed: records)" in execute("quick")
    _write_record(small_book, "smoke/latency")  # where the page does not look
    assert "all 1 are up to date" in execute("quick")
    (small_book / "data" / "paper" / "numbers.csv").write_text("id\n")
    (small_book / "requirements.lock").write_text("torch==3\n")
    assert "(changed: code, data)" in execute("quick")
    source.write_text(source.read_text().replace("# An experiment", "# The experiment"))
    assert "(changed: notebook)" in execute("quick")
    (folder / "exp1_small.ipynb").unlink()
    assert "(first time)" in execute("quick")
    assert "all 1 are up to date" in execute("quick")


def test_pages_executed_before_a_record_was_written_are_brought_up_to_date(
    small_book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    executed = _pretend_to_execute(monkeypatch, writes_record={"writer"})
    source = (small_book / "notebooks" / "exp1_small.ipynb").read_text()
    notebooks = [small_book / "notebooks" / f"{name}.ipynb" for name in ("early", "writer", "late")]
    for notebook in notebooks:
        notebook.write_text(source)
    for _ in range(2):
        build._execute_changed(small_book, notebooks, small_book / "_build" / "executed", "smoke", progress=False)
    assert executed == ["early", "writer", "late", "early"]


def test_an_execution_tells_which_records_it_looked_at(small_book: Path) -> None:
    source = small_book / "notebooks" / "exp1_small.ipynb"
    notebook = nbformat.read(source, as_version=4)
    looks = "from quide import records\nrecords.collect('accuracy', 'paper')\nrecords.collect('accuracy', 'paper')"
    notebook.cells = [nbformat.v4.new_code_cell(looks), nbformat.v4.new_code_cell("records.collect()")]
    nbformat.write(notebook, source)
    target = small_book / "_build" / "looks.ipynb"
    assert build._execute(small_book, source, {}, target, progress=False) == ["*/*", "paper/accuracy"]
    assert records.NOTES not in os.environ and [file.name for file in target.parent.iterdir()] == ["looks.ipynb"]


def test_the_key_of_a_kernel_does_not_stay_where_jupyter_leaves_it(small_book, tmp_path, monkeypatch):
    monkeypatch.setattr("jupyter_client.connect.ConnectionFileMixin.cleanup_connection_file", lambda self: None)
    (tmp_path / "private").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "private"))
    source, target = small_book / "notebooks" / "key.ipynb", tmp_path / "key.ipynb"
    code = "from ipykernel.connect import get_connection_file\nget_connection_file()"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), source)
    build._execute(small_book, source, {}, target, progress=False)
    shown = nbformat.read(target, as_version=4).cells[0].outputs[0].data["text/plain"]
    assert str(tmp_path / "private") in shown and not list((tmp_path / "private").rglob("*.json"))


def _pretend_to_execute(monkeypatch: pytest.MonkeyPatch, writes_record: set[str]) -> list[str]:
    """Replace papermill by a copy; returns the growing list of what was executed."""
    executed: list[str] = []

    def pretend(root: Path, source: Path, parameters: dict, target: Path, progress: bool) -> list[str]:
        executed.append(source.stem)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
        if source.stem in writes_record:
            _write_record(root, "smoke/accuracy")
        return ["smoke/accuracy"]

    monkeypatch.setattr(build, "_execute", pretend)
    return executed


def _write_record(root: Path, folder: str) -> None:
    (root / "data" / "results" / folder).mkdir(parents=True, exist_ok=True)
    (root / "data" / "results" / folder / "new.json").write_text("{}")


def test_all_pages_are_rendered_anew_after_a_failure_and_when_what_they_share_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, forced = iter([0, 0, 1, 0, 0]), []

    def pretend(command: list[str], cwd: Path) -> subprocess.CompletedProcess:
        forced.append("--all" in command)
        return subprocess.CompletedProcess(command, next(codes))

    monkeypatch.setattr(build.subprocess, "run", pretend)
    stage, style = tmp_path / "stage", tmp_path / "stage" / "book" / "_static" / "style.css"
    for file in (style, tmp_path / "_build" / "html" / "index.html"):
        file.parent.mkdir(parents=True)
        file.touch()
    build._render(stage, tmp_path)
    build._render(stage, tmp_path)
    with pytest.raises(build.BookError):
        build._render(stage, tmp_path)
    build._render(stage, tmp_path)
    style.write_text("a { color: red }")
    build._render(stage, tmp_path)
    assert forced == [True, False, False, True, True]


# --- whole builds of a small book ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_build_shows_figures_skips_what_is_unchanged_and_forgets_no_warning(
    small_book: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    index = build.build("smoke", progress=False)
    assert index == small_book / "_build" / "html" / "index.html" and index.exists()
    page = (small_book / "_build" / "html" / "notebooks" / "exp1_small.html").read_text()
    assert 'alt="Words for fig-first."' in page and 'alt="Words for fig-second."' in page
    assert "Caption of fig-first." in page and "the profile is smoke" in page
    assert '<a class="reference internal" href="#fig-second"><span class="std std-numref">Fig. 2</span></a>' in page
    assert str(small_book) not in page
    said = capfd.readouterr().out
    assert "Executing notebooks/exp1_small.ipynb, profile smoke (first time)" in said and str(index) in said
    assert said.count("Executing") == 1

    # The notebook has written a record meanwhile; that is part of the state it shows.
    assert (small_book / "data" / "results" / "smoke.json").exists()
    build.build("smoke", progress=False)
    assert "Notebooks: all 1 are up to date" in capfd.readouterr().out

    (small_book / "book" / "intro.md").write_text("# Intro\n\n{numref}`no-such-figure`\n")
    for _ in range(2):
        with pytest.raises(build.BookError, match="did not render cleanly"):
            build.build("smoke", progress=False)
        capfd.readouterr()


@pytest.mark.slow
def test_a_failure_names_the_cell_and_is_not_taken_for_done(small_book: Path, tmp_path: Path) -> None:
    source, folder = small_book / "notebooks" / "exp1_small.ipynb", tmp_path / "executed"
    notebook = nbformat.read(source, as_version=4)
    notebook.cells.insert(2, nbformat.v4.new_code_cell("raise ValueError('bits must be even\\nand more')"))
    nbformat.write(notebook, source)
    for _ in range(2):
        with pytest.raises(build.BookError) as caught:
            build._execute_changed(small_book, [source], folder, "smoke", progress=False)
        first, second = str(caught.value).split("; ")
        assert first.startswith("exp1_small.ipynb failed in cell ") and first.endswith("ValueError: bits must be even")
        assert Path(second.removeprefix("executed as far as it went: ")).exists()


@pytest.fixture
def small_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one page of prose and one experiment, which leaves a record and shows two figures."""
    root = tmp_path / "checkout"
    for folder in ("book", "notebooks", "data/paper", "data/results"):
        (root / folder).mkdir(parents=True)
    (root / "_config.yml").write_text(CONFIG)
    (root / "_toc.yml").write_text(CONTENTS)
    (root / "book" / "intro.md").write_text("# Intro\n\nSee {numref}`fig-first`.\n")
    nbformat.write(_experiment(), root / "notebooks" / "exp1_small.ipynb")
    monkeypatch.setenv("QUIDE_HOME", str(root))
    monkeypatch.delenv("QUIDE_RESULTS", raising=False)
    return root


def _experiment() -> nbformat.NotebookNode:
    cells = [
        nbformat.v4.new_markdown_cell("# An experiment\n\nSee {numref}`fig-second`."),
        nbformat.v4.new_code_cell('profile = "quick"\nseeds = [0]', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(SHOW),
        nbformat.v4.new_code_cell(
            'print("the profile is", profile)\nshow("fig-first")\nshow("fig-second")\n'
            "from quide import _paths\n_ = (_paths.results() / 'smoke.json').write_text('{}')"
        ),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    )


@pytest.mark.parametrize("page", ["book/intro.ipynb", "notebooks/exercises.ipynb"])
def test_a_run_does_not_overwrite_a_page(tmp_path, monkeypatch, page):
    monkeypatch.setenv("QUIDE_HOME", str(tmp_path))
    for name in ("notebooks/exp1_small.ipynb", page):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(), tmp_path / name)
    before = (tmp_path / page).read_bytes()
    with pytest.raises(ValueError, match="output must not be a notebook of the book"):
        build.run("exp1", {}, tmp_path / page, progress=False)
    assert (tmp_path / page).read_bytes() == before
