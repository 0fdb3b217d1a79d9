"""Build the book: execute its notebooks with papermill, stage them beside the prose, render that with Jupyter Book.

Everything made lies under ``_build/``: ``executed/`` the notebooks as papermill leaves them, ``stage/`` what Jupyter
Book reads (the same relative paths as in the checkout, so that page names are source paths), ``html/`` the book.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml

from quide import _files, _paths
from quide._check import one_of
from quide.experiments import records
from quide.experiments.profiles import PROFILES
from quidebook import closure, report

BOOK_PROFILES = tuple(name for name in PROFILES if name != "short")  # which only some pages can be run at
SOURCES = ("_config.yml", "_toc.yml", "CITATION.cff", "book")
LOOK = ("_config.yml", "_toc.yml", "book/_static", "book/_ext")  # what every page depends on
ROOMS, PAGES = ("book", "notebooks"), (".md", ".ipynb")  # where pages are, and how they end
# The keys of the table of contents, and of an entry of its lists.
CONTENTS = {"": ("format root parts", "format root chapters"), "parts": ("caption chapters",), "chapters": ("file",)}
KERNEL = "python3"
KERNEL_ARGUMENTS = ["--IPKernelApp.log_level=50"]  # no remarks on the transport or on being stopped; cells have errors
MOST_BYTES = 1 << 20  # of a settings file
ROUNDS = 2  # a notebook that writes records outdates those executed before it: they are executed once more

_EXPERIMENT = re.compile(r"(exp\d+|llama3)_\w+|aiq|better_ptq|real_kernels")
# The "[elapsed<left, rate]" that ends a tqdm bar, and its remark that it could draw a prettier one.
_PROGRESS = re.compile(r"\[\d+(:\d\d)+[<,].*\]|TqdmWarning|import tqdm as notebook_tqdm")
_IGNORED = re.compile(r"__pycache__|\.ipynb_checkpoints|\.partial$")
_JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # the package has no __main__


class BookError(ChildProcessError):
    """A notebook's kernel or the rendering ended in an error; the message says where to look."""


def build(profile: str = "quick", strict: bool = False, output: Path | None = None, progress: bool = True) -> Path:
    """Execute what changed, render the book with every warning an error, and return its first page.

    Args:
        profile: given to each notebook that has a parameter of that name.
        strict: forget earlier executions and renderings.
        output: folder that receives ``_build/``; the checkout by default.
        progress: show a bar a notebook.

    Raises:
        ValueError: unknown profile, or a figure without alternative text.
        FileNotFoundError: the book's sources are not where :func:`quide._paths.home` says.
        BookError: a notebook failed, or a page did not render cleanly.
    """
    started = time.perf_counter()
    one_of("profile", profile, BOOK_PROFILES)
    root = _paths.home().resolve()
    notebooks = [page for page in pages(root) if page.suffix == ".ipynb"]
    settings = root / "_config.yml"
    with _files.reading(settings, "restore it with git"):
        if not isinstance(_yaml(settings), dict):
            raise ValueError("it holds no settings by name")
    output = root if output is None else Path(output).resolve()
    made = output / "_build"
    if strict:
        for folder in ("executed", "stage", "html", ".doctrees"):
            shutil.rmtree(made / folder, ignore_errors=True)
    _execute_changed(root, notebooks, made / "executed", profile, progress)
    _stage(root, notebooks, made)
    _render(made / "stage", output)
    index = made / "html" / "index.html"
    print(f"The book is ready ({time.perf_counter() - started:.0f} s): {index}", flush=True)
    return index


def run(experiment: str, parameters: Mapping[str, Any], output: Path | None = None, progress: bool = True) -> Path:
    """Execute one experiment's notebook with ``parameters`` and return the executed copy.

    Args:
        experiment: the name of a file in ``notebooks/``, or what of it is before the underscore, such as ``"exp1"``.
        parameters: values for variables of the notebook's ``parameters`` cell.
        output: file to write; ``_build/runs/<notebook>.ipynb`` by default.
        progress: show a bar, and the notebook's own bars as they come.

    Raises:
        ValueError: unknown experiment, or a parameter that the notebook does not have.
        BookError: a cell failed; the partly executed copy is kept.
    """
    root = _paths.home().resolve()
    known = experiments(root)
    source = known[one_of("experiment", experiment, known)]
    if unknown := set(parameters) - set(declared := parameter_names(source)):
        raise ValueError(f"{source.name} has no parameter {min(unknown)!r}; it has {', '.join(declared)}")
    output = root / "_build" / "runs" / source.name if output is None else Path(output).resolve()
    if output.exists() and any(output.samefile(page) for room in ROOMS for page in (root / room).glob("*.ipynb")):
        raise ValueError(f"output must not be a notebook of the book, got {output}; name another file")
    _execute(root, source, parameters, output, progress)
    return output


def experiments(root: Path) -> dict[str, Path]:
    """Experiment names and their notebooks; of an experiment with several the last has the short name."""
    found = {}
    for file in sorted((root / "notebooks").glob("*.ipynb")):
        if match := _EXPERIMENT.fullmatch(file.stem):
            found[match[1] or file.stem] = found[file.stem] = file
    if not found:
        raise FileNotFoundError(f"no experiment in {root / 'notebooks'}; work in a checkout of QuIDE or set QUIDE_HOME")
    return found


def pages(root: Path) -> list[Path]:
    """The files that ``_toc.yml`` lists, in reading order: each page there is, once."""
    file = root / "_toc.yml"
    with _files.reading(file, "work in a checkout of QuIDE, set QUIDE_HOME, or restore it with git"):
        found = [_page_file(root, name) for name in _page_names(_yaml(file))]
        there = {page for room in ROOMS for page in (root / room).glob("[!.]*") if page.suffix in PAGES}
        if wrong := (there - set(found)) | {page for page in found if found.count(page) > 1}:
            raise ValueError(f"it does not list {min(wrong).relative_to(root)} once; list it, or keep it elsewhere")
    return found


def _yaml(file: Path) -> Any:
    """What a small YAML file holds, in which nothing is repeated by aliases, which could go on for ever."""
    text = _files.content(file, MOST_BYTES).decode()
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
        raise ValueError("it has aliases")
    return yaml.safe_load(text)


def parameter_names(notebook: Path) -> list[str]:
    """Variables assigned in the cell tagged ``parameters``, in order; none without such a cell."""
    import papermill

    with _files.reading(notebook, "restore it with git"):
        nbformat.validate(nbformat.reads(_files.content(notebook).decode(), as_version=4))
        return list(papermill.inspect_notebook(notebook))


def translate(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """An executed notebook in the form that Jupyter Book reads.

    A figure carries its ``name``, ``caption`` and ``alt`` in its output's metadata (:func:`show`), where
    MyST-NB wants them in the cell's, one figure a cell: each becomes a cell of its own. Progress bars, papermill's time
    stamps and the paths of the machine are left out, so that the same results give the same page.

    Args:
        notebook: as papermill leaves it; not changed.
        name: what to call it in an error.
    """
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    notebook.cells = [part for cell in notebook.cells for part in _one_figure_a_cell(cell, name)]
    return notebook


# --- executing -------------------------------------------------------------------------------------------------------


def _execute_changed(root: Path, notebooks: list[Path], folder: Path, profile: str, progress: bool) -> None:
    """Bring the executed copies up to date with everything that they are made from."""
    executed = 0
    for _ in range(ROUNDS):
        for notebook in notebooks:
            parameters = {"profile": profile} if "profile" in parameter_names(notebook) else {}
            target, stamp = folder / notebook.name, folder / f"{notebook.stem}.inputs.json"
            now = _inputs(root, notebook, parameters)
            if not (changed := _changed(target, stamp, now)):
                continue
            print(f"Executing {notebook.relative_to(root)}, profile {profile} ({changed})", flush=True)
            stamp.unlink(missing_ok=True)
            looked_at = _execute(root, notebook, parameters, target, progress)
            # The notebook's own records belong to the state that it shows; all else is as it was at the start.
            stamp.write_text(json.dumps({**now, **_records(looked_at)}, indent=1))
            executed += 1
    if not executed:
        print(f"Notebooks: all {len(notebooks)} are up to date", flush=True)


def _execute(root: Path, source: Path, parameters: Mapping[str, Any], target: Path, progress: bool) -> list[str]:
    """Run a notebook, write ``target`` and return which records it looked at, as :mod:`records` notes them."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # rather than a kernel of the user's with the same name
    target.parent.mkdir(parents=True, exist_ok=True)
    notes = target.with_name(f".{target.stem}.looked-at")
    notes.unlink(missing_ok=True)  # of a run that was killed
    os.environ[records.NOTES] = str(notes)
    try:
        with tempfile.TemporaryDirectory() as private:  # where jupyter's own cleaning comes too late at a signal
            config = Config(KernelManager={"connection_file": str(Path(private) / "kernel.json")})
            papermill.execute_notebook(
                source, target, dict(parameters), kernel_name=KERNEL, cwd=root, extra_arguments=KERNEL_ARGUMENTS,
                progress_bar={"desc": source.stem} if progress else False, stderr_file=sys.stderr if progress else None,
                config=config,
            )  # fmt: skip
        return sorted(set(notes.read_text().splitlines())) if notes.exists() else []
    except PapermillExecutionError as error:
        reason = error.evalue.strip().splitlines()
        raise BookError(
            f"{source.name} failed in cell {error.cell_index + 1}: {error.ename}: {reason[0] if reason else ''}; "
            f"executed as far as it went: {target}"
        ) from error
    finally:
        del os.environ[records.NOTES]
        notes.unlink(missing_ok=True)


def _inputs(root: Path, notebook: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """One digest for each kind of thing that an executed notebook depends on, but for the records."""
    return {
        "notebook": digest([notebook]),
        "parameters": json.dumps(parameters, sort_keys=True),
        "code": digest([*closure.files(notebook), root / "requirements.lock"]),
        "data": digest([root / "data" / "paper", root / "data" / "embedded"]),
    }


def _records(looked_at: list[str]) -> dict[str, Any]:
    """Which records a notebook looked at, as patterns of folders, and a digest of all that are there."""
    folders = {folder for pattern in looked_at for folder in _paths.results().glob(pattern)}
    return {"looked_at": looked_at, "records": digest(sorted(folders))}


def _changed(target: Path, stamp: Path, now: dict[str, str]) -> str:
    """Which inputs differ from those that ``target`` was made from, in words; empty when none does."""
    try:
        then = json.loads(_files.content(stamp))
        now = now | _records(then["looked_at"])
    except Exception:  # whatever is wrong with the stamp: the notebook is executed again
        return "first time"
    if not target.exists():
        return "first time"
    differing = [kind for kind, value in now.items() if then.get(kind) != value]
    return f"changed: {', '.join(differing)}" if differing else ""


def digest(roots: Iterable[Path]) -> str:
    """SHA-256 over names and contents of the files at and below ``roots``; what is missing counts as empty."""
    total = hashlib.sha256()
    for root in roots:
        for file in _below(root):
            total.update(f"{file.relative_to(root)}\0".encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _below(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
    for file in sorted(root.rglob("*")):
        if file.is_file() and not _IGNORED.search(str(file.relative_to(root))):
            yield file


# --- staging ---------------------------------------------------------------------------------------------------------


def _stage(root: Path, notebooks: list[Path], made: Path) -> None:
    """Make ``stage/`` the book's sources and executed notebooks; a file is touched only where its contents change."""
    contents = {}
    for name in SOURCES:
        for file in _below(root / name):
            contents[file.relative_to(root)] = file.read_bytes()
    for notebook in notebooks:
        name = notebook.relative_to(root)
        file = made / "executed" / notebook.name
        with _files.reading(file, "delete it to have it executed again"):
            executed = nbformat.reads(_files.content(file).decode(), as_version=4)
        contents |= {Path("narrow", f"{figure}.png"): image for figure, image in narrow_pictures(executed)}
        contents[name] = nbformat.writes(translate(executed, str(name))).encode()
    stage = made / "stage"
    for name, data in contents.items():
        target = stage / name
        if not target.exists() or target.read_bytes() != data:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    for file in list(_below(stage)):
        if file.relative_to(stage) not in contents:
            file.unlink()


def narrow_pictures(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, bytes]]:
    """The pictures for phones of a notebook's figures, by the figure's name; ``figure_links`` puts them on the page."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get(report.NARROW):
                yield output.metadata["quide"]["name"], base64.b64decode(picture)


def _one_figure_a_cell(cell: nbformat.NotebookNode, name: str) -> list[nbformat.NotebookNode]:
    """``cell``, or its parts when it shows a figure beside other output; the later parts show no source."""
    if cell.cell_type != "code":
        return [cell]
    parts, outputs = [cell], [shown for output in cell.outputs if (shown := _without_progress(output))]
    cell.outputs = []
    for output in outputs:
        figure = _figure(output, cell, name)
        if parts[-1].outputs and (figure or "figure" in parts[-1].metadata.get("mystnb", {})):
            parts.append(_continuation(cell, len(parts)))
        if figure:
            parts[-1].metadata.setdefault("mystnb", {}).update(figure)
        output.get("data", {}).pop(report.NARROW, None)
        parts[-1].outputs.append(output)
    return parts


def _continuation(cell: nbformat.NotebookNode, number: int) -> nbformat.NotebookNode:
    """A cell for more output of ``cell``: its source is not shown, but MyST-NB drops a cell that has none."""
    part = nbformat.v4.new_code_cell("# more output of the cell above", execution_count=cell.execution_count)
    part["id"] = f"{cell.get('id', 'cell')[:56]}-{number}"  # not a random one: the same results give the same page
    part.metadata["tags"] = [*cell.metadata.get("tags", []), "remove-input"]
    return part


def _figure(output: nbformat.NotebookNode, cell: nbformat.NotebookNode, name: str) -> dict[str, Any]:
    """MyST-NB's options for an output that is an image, else nothing."""
    if not any(kind.startswith("image/") for kind in output.get("data", {})):
        return {}
    facts = output.metadata.get("quide", {})
    if not facts.get("alt") and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt"):
        start = cell.source.strip().splitlines()[:1]
        raise ValueError(
            f"{name}: a figure without alternative text (cell {start}); show it with quidebook.report.show"
        )
    if not facts:
        return {}
    return {
        "image": {"alt": facts["alt"]},
        "figure": {key: facts[key] for key in ("name", "caption") if facts.get(key)},
    }


def _without_progress(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The output less the progress bars in it; None when nothing else was there."""
    if output.output_type != "stream" or output.name != "stderr":
        return output
    kept = [line for line in re.split(r"[\r\n]+", output.text) if line.strip() and not _PROGRESS.search(line)]
    output.text = "\n".join(kept) + "\n"
    return output if kept else None


def _page_names(entry: Any, of: str = "") -> Iterator[str]:
    """Every ``root:`` and ``file:`` of a table of contents, depth first."""
    if not isinstance(entry, dict) or sorted(map(str, entry)) not in [sorted(keys.split()) for keys in CONTENTS[of]]:
        keys = list(entry) if isinstance(entry, dict) else entry
        raise ValueError(f"an entry of {of or 'the file'} has {keys!r} where {' or '.join(CONTENTS[of])} belong")
    for key, value in entry.items():
        if not isinstance(value, list if key in CONTENTS else str) or not value:
            raise ValueError(f"{key} is {value!r}")
        if key == "format" and value != "jb-book":
            raise ValueError(f"its format is {value!r}, not jb-book")
        if key in CONTENTS:
            for item in value:
                yield from _page_names(item, key)
        elif key in ("root", "file"):
            yield value


def _page_file(root: Path, name: str) -> Path:
    for suffix in ("", *PAGES):
        if (file := root / f"{name}{suffix}").is_file() and file.resolve().is_relative_to(root.resolve()):
            return file
    raise FileNotFoundError(f"{root / '_toc.yml'} lists {name}, but there is no {name}.md or {name}.ipynb")


# --- rendering -------------------------------------------------------------------------------------------------------


def _render(stage: Path, output: Path) -> None:
    """Run Jupyter Book on the stage in a process of its own."""
    made = output / "_build"
    rendered = made / ".rendered"
    look = f"{digest(stage / name for name in LOOK)} {os.environ.get('QUIDE_REPOSITORY', '')}"
    command = [sys.executable, "-c", _JUPYTER_BOOK, "build", str(stage), "--path-output", str(output)]
    command += ["-W", "-n", "--keep-going"]
    clean = rendered.exists() and (made / "html" / "index.html").exists()
    if not clean or rendered.read_text() != look:
        # Sphinx does not repeat the warnings of pages that it has read, nor copy a style sheet where no page changed.
        command.append("--all")
    rendered.unlink(missing_ok=True)
    print("Rendering the pages", flush=True)
    if subprocess.run(command, cwd=output).returncode:
        raise BookError("the pages did not render cleanly; every warning above counts as an error")
    rendered.write_text(look)
