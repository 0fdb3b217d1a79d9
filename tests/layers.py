"""Who imports whom: the modules of the two packages, the floor that each stands on, and what it imports, by reading."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

# The longest prefix that fits says on which floor a module stands; a module imports only from floors below its own.
FLOORS = {
    "quide": 9,  # the names of the package itself, which are imported on first use
    "quide._lazy": 0,
    "quide._denormals": 0,
    "quide._random": 0,
    "quide._paths": 0,
    "quide._files": 0.2,
    "quide._check": -1,
    "quide._digest": 0,
    "quide.metric": 0,
    "quide.stats": 0.5,
    "quide.search": 0.5,
    "quide.ptq.scheme": -0.9,  # what can be asked for, of which scores and searches know too; no torch
    "quide.ptq.width": -0.8,
    "quide.ptq": 1,
    "quide.latency": 1,
    "quide.intensity": 1,
    "quide.data": 1,
    "quide.models": 1.5,
    "quide.models.train": 2.5,  # takes images, and evaluates after each epoch
    "quide.evaluate": 2,
    "quide.diagnosis": 2.2,
    "quide.deploy": 2,
    "quide.llm": 2,
    "quide.experiments": 3,
    "quide.cli": 4,
    "quidebook": 5,
    "quidebook.report": 5.1,
    "quidebook.frame": 5.15,
    "quidebook.evidence": 5.2,
    "quidebook.shared": 5.3,
    "quidebook.pages": 5.4,
    "quidebook.build": 5.5,
}


def modules(checkout: Path) -> dict[str, Path]:
    """Name of every module of both packages, and its file."""
    found = {}
    for root, package in ((checkout, "quide"), (checkout / "book", "quidebook")):
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(file: Path, known: dict[str, Path], lazy: bool = True) -> set[str]:
    """Modules of the two packages that a file imports; without ``lazy`` only those that loading the file loads."""
    nodes = ast.walk(_parsed(file)) if lazy else _at_the_top(file)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in known:
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                found.add(inside if inside in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
    return found


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def _at_the_top(file: Path) -> list[ast.stmt]:
    return [node for node in _parsed(file).body if isinstance(node, (ast.Import, ast.ImportFrom))]


def room(module: str) -> str:
    """The longest name in :data:`FLOORS` that the module is in."""
    return max((name for name in FLOORS if module == name or module.startswith(f"{name}.")), key=len)


def loads(module: str, known: dict[str, Path]) -> set[str]:
    """Everything of the two packages that importing a module loads, its packages included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name not in known:
            continue
        found.add(name)
        waiting += [name.rpartition(".")[0], *imports(known[name], known, lazy=False)]
    return found


def outside(file: Path) -> set[str]:
    """Top-level names of what a file imports at its top."""
    names = set()
    for node in _at_the_top(file):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif node.level == 0:
            names.add(node.module.partition(".")[0])
    return names
