"""Running a notebook's cells in this process, and what its outputs say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import RichOutput, capture_output

# A field of a template that was not filled; roles and directives of MyST and mathematics have braces of their own.
_UNFILLED = r"\{[a-z_]\w*(?:[.\[][^{}]*)?(?::[^{}`]*)?\}"
_NOT_WORDS = re.compile(
    r"(?s):::\{\w+\}|\{[\w:]+\}`[^`]*`|\$[^$\n]*\$|<script.*?</script>|<style.*?</style>|```.*?```|`[^`\n]*`"
)
SHORTEST = 8  # characters of a name, a caption or a description


def run(notebook: Path, parameters: Mapping[str, object]) -> list[RichOutput]:
    """Execute the code cells with other parameters where the notebook has them, and return all that is displayed."""
    shell = InteractiveShell.instance(history_length=0)
    shell.reset(new_session=False)
    shell.user_module.__spec__ = None  # it stands as __main__ from here on, and starting a process asks for this
    shown = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        with capture_output() as captured:
            shell.run_cell(cell.source).raise_error()
            if "parameters" in cell.metadata.get("tags", []):
                shell.user_ns.update({name: value for name, value in parameters.items() if name in shell.user_ns})
        shown += captured.outputs
    return shown


def of_executed(notebook: Path) -> list[RichOutput]:
    """What an executed notebook displays."""
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", []) if "data" in output]
    return [RichOutput(data=output["data"], metadata=output["metadata"]) for output in outputs]


def faults(outputs: list[RichOutput]) -> Iterator[str]:
    """What no page may show: an unknown number as ``nan``, a field without its value, a figure without its words."""
    for output in outputs:
        for text in _texts(output):
            words = unescape(re.sub(r"<[^>]+>", " ", _NOT_WORDS.sub(" ", text)))
            for pattern in (r"\b(?:nan|None|inf)\b", _UNFILLED):
                if match := re.search(pattern, words):
                    yield f"{match[0]!r} in {words[max(match.start() - 60, 0) : match.end() + 60]!r}"
        if "image/png" in output.data:
            facts = output.metadata.get("quide", {})
            if not all(
                len(facts.get(part, "")) >= length for part, length in (("name", 5), ("caption", 20), ("alt", 20))
            ):
                yield f"a figure without name, caption or alternative text: {facts}"


def _texts(output: RichOutput) -> Iterator[str]:
    """Every form of an output that a reader or Sphinx takes: markup, words of a figure, plain text."""
    kinds = [kind for kind in ("text/markdown", "text/html") if kind in output.data] or ["text/plain"]
    yield from ("".join(output.data.get(kind, "")) for kind in kinds)
    yield from (output.metadata.get("quide", {}).get(part, "") for part in ("caption", "alt"))


def markup(outputs: list[RichOutput]) -> str:
    """All that is read as Markdown or HTML."""
    return "\n".join(text for output in outputs for text in _texts(output))


def headings(notebook: Path) -> set[str]:
    """Anchors of a page's headings, as MyST makes them: GitHub's way."""
    cells = json.loads(notebook.read_text())["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    titles = [re.sub(r"[$`*]|\{\w+\}", "", title) for title in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
