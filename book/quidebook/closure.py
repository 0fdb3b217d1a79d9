"""Which files of the two packages a notebook depends on: found by reading its imports and theirs, importing nothing."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from quide import _paths

PACKAGES = (_paths.PACKAGE, Path(__file__).resolve().parent)

# Code that is named in a string: the deciding functions of a record, or a module that is imported by its name.
_NAMED = re.compile(r"(quide(?:\.\w+)+)(?::\w*)?")


def files(notebook: Path, packages: tuple[Path, ...] = PACKAGES) -> list[Path]:
    """Every module that running the notebook may load, imports inside functions included, and the files beside a module
    that share its stem, such as the template of a page. A notebook that does not parse depends on all of them."""
    known = {name: file for package in packages for name, file in _modules(package)}
    try:
        waiting = list(_resolved("", _asked(_code(notebook)), known))
    except SyntaxError:
        waiting = list(known)
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found or name not in known:
            continue
        found.add(name)
        waiting += [name.rpartition(".")[0], *_resolved(name, _asked(known[name].read_text()), known)]
    return sorted(file for name in found for file in known[name].parent.glob(f"{known[name].stem}.*"))


def _modules(package: Path) -> Iterator[tuple[str, Path]]:
    for file in package.rglob("*.py"):
        parts = file.relative_to(package.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def _code(notebook: Path) -> str:
    """The code cells, less the lines that are the notebook's own and not Python's."""
    cells = json.loads(notebook.read_text())["cells"]
    lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)


@cache
def _asked(source: str) -> frozenset[tuple[str, str]]:
    """What a text imports, as pairs of module and name in it; without a module, what its own package imports late."""
    asked: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module), level=0):
                asked |= {(module, alias.name) for alias in node.names}
            case ast.Import():
                asked |= {(alias.name, "") for alias in node.names}
            case ast.Attribute(value=ast.Name(id="quide")):
                asked.add(("quide", node.attr))
            case ast.Call(func=ast.Name(id="attributes")):
                asked |= {("", keyword.arg) for keyword in node.keywords}
            case ast.Constant(value=str(text)) if match := _NAMED.fullmatch(text):
                asked.add((match[1], ""))
    return frozenset(asked)


def _resolved(asking: str, asked: frozenset[tuple[str, str]], known: Mapping[str, Path]) -> Iterator[str]:
    """The modules that hold what ``asking`` asks for."""
    for module, name in asked:
        module = module or asking
        if module in known:
            yield f"{module}.{name}" if f"{module}.{name}" in known else module
            if home := _homes(known[module].read_text()).get(name):
                yield f"{module}.{home}"


@cache
def _homes(source: str) -> dict[str, str]:
    """The entries of the dictionaries of names in a text: of a package, where each of its names is kept."""
    tables = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Dict)]
    pairs = [pair for table in tables for pair in zip(table.keys, table.values, strict=True)]
    return {
        key.value: value.value
        for key, value in pairs
        if isinstance(key, ast.Constant) and isinstance(value, ast.Constant) and isinstance(value.value, str)
    }
