"""Who made a number: code, versions, machine, time. Standard library only."""

from __future__ import annotations

import ast
import contextlib
import datetime
import hashlib
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from quide import _paths

PACKAGES = ("torch", "torchvision", "numpy")
# Modules that say who made a number, where it is kept, and what went in, which checksums pin: not what it is.
UNDECIDING = (
    "quide._check", "quide._files", "quide._paths", "quide.experiments.inputs", "quide.experiments.measured",
    "quide.experiments.provenance", "quide.experiments.records", "quide.experiments.schema",
)  # fmt: skip


def collect() -> dict:
    """Commit, package versions, machine and time of this process, all plain JSON values."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        **_torch_facts(),
    }


@cache
def code_digest(*names: str) -> str:
    """SHA-256 (first 16 hex digits) of the functions of this package that decide a result, and of all they lean on.

    A record stores the digest of the code that made its numbers; when that code changes, the record is stale. Moving a
    function to another file, the imports it is reached by, wording, type annotations and the texts of errors change no
    result, and so do not count. Nothing is imported: the files are read.

    Args:
        names: functions, classes or constants to begin at, such as ``"quide.ptq.prepared:prepare"``. What their code
            names is followed, as far as it is of this package and decides results (not :data:`UNDECIDING`).

    Raises:
        LookupError: there is no such name.
    """
    found: dict[tuple[str, str], str] = {}
    waiting = []
    for name in names:
        module, _, member = name.partition(":")
        if (start := _resolve(module, member)) is None:
            raise LookupError(f"{name} is not in the package")
        waiting.append(start)
    while waiting:
        place = waiting.pop()
        if place not in found:
            reader = _Reader(place[0])
            found[place] = repr(reader.shape(_module(place[0]).definitions[place[1]]))
            waiting += reader.named
    shapes = sorted((member, shape) for (_, member), shape in found.items())
    return hashlib.sha256(repr(shapes).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Module:
    """What a file of the package defines at its top level, and what it imports: local name -> (module, name in it)."""

    definitions: dict[str, ast.stmt]
    imports: dict[str, tuple[str, str]]


@cache
def _module(name: str) -> _Module | None:
    """The module of the package of that name; None if there is none."""
    place = _paths.PACKAGE.parent.joinpath(*name.split("."))
    file = next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
    if file is None or name.partition(".")[0] != _paths.PACKAGE.name:
        return None
    definitions, imports = {}, {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            definitions[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                definitions |= {one.id: node for one in ast.walk(target) if isinstance(one, ast.Name)}
        else:
            imports |= _imported(node)
    return _Module(definitions, imports)


def _imported(node: ast.AST) -> dict[str, tuple[str, str]]:
    """Local name -> (module, name in it) of an import from the package, wherever in ``node`` it stands."""
    found = {}
    for part in ast.walk(node):
        if isinstance(part, ast.ImportFrom) and (part.module or "").partition(".")[0] == _paths.PACKAGE.name:
            found |= {alias.asname or alias.name: (part.module, alias.name) for alias in part.names}
    return found


def _resolve(module: str, member: str) -> tuple[str, str] | None:
    """Where a name that ``module`` knows is defined; None if outside the package, or in what decides no result."""
    known = _module(module)
    if known is None or module in UNDECIDING:
        return None
    if member in known.definitions:
        return module, member
    return _resolve(*known.imports[member]) if member in known.imports else None


class _Reader:
    """Reads one definition of a module: its shape, and the other definitions that it names."""

    def __init__(self, module: str):
        self.module, self.named = module, []
        self.imports, self.hidden = dict(_module(module).imports), [set()]

    def shape(self, node: object) -> object:
        """A syntax tree as nested lists, the same in every Python version and wherever the code stands.

        ``ast.unparse`` and ``ast.dump`` are not: they quote f-strings and print empty fields each in their own way.
        """
        if isinstance(node, list):
            return [self.shape(one) for one in node if not isinstance(one, (ast.Import, ast.ImportFrom))]
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, ast.JoinedStr):  # Python 3.12 ends some with an empty text that the others do not have
            return ["JoinedStr", self.shape([part for part in node.values if getattr(part, "value", None) != ""])]
        if isinstance(node, ast.Raise):
            return ["Raise"]
        if isinstance(node, (ast.Name, ast.Attribute)) and (place := self._definition(node)):
            if isinstance(node.ctx, ast.Load):  # what a class calls its own attribute is no use of that name
                self.named.append(place)
            return ["Name", place[1]]
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            return self._function(node)
        return self._fields(node)

    def _function(self, node: ast.FunctionDef | ast.Lambda) -> object:
        self.imports |= _imported(node)
        own = {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}
        own |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
        own |= {one.name for one in ast.walk(node) if isinstance(one, ast.FunctionDef) and one is not node}
        self.hidden.append(self.hidden[-1] | own)
        shape = self._fields(node)
        self.hidden.pop()
        return shape

    def _fields(self, node: ast.AST) -> object:
        filled = []
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node, False):
                value = value[1:]
            if value is not None and value != [] and name not in ("annotation", "returns", "type_comment"):
                filled.append([name, self.shape(value)])
        return [type(node).__name__, *filled]

    def _definition(self, node: ast.Name | ast.Attribute) -> tuple[str, str] | None:
        """Where a plain or dotted name of this module is defined."""
        if isinstance(node, ast.Name):
            if node.id in self.hidden[-1]:
                return None
            if node.id in _module(self.module).definitions:
                return self.module, node.id
            return _resolve(*self.imports[node.id]) if node.id in self.imports else None
        if isinstance(node.value, ast.Name) and node.value.id in self.imports and node.value.id not in self.hidden[-1]:
            return _resolve(".".join(self.imports[node.value.id]), node.attr)
        return None


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a latency belongs to besides its configuration: the device and its name, cores, threads, torch's version."""
    import torch  # noqa: F401 - here alone: a machine's threads are torch's

    kind = device.partition(":")[0]
    facts = collect()
    return {
        "device": kind,
        "device_name": facts["cpu"] if kind == "cpu" else facts["accelerator"] or kind,
        "cores": facts["cores"],
        "threads": facts["threads"],
        "torch": facts["packages"]["torch"],
    }


@cache
def git_commit() -> str | None:
    """Commit of the checkout, ``-dirty`` appended when tracked files differ from it; None outside a checkout."""
    if not (_paths.PACKAGE.parent / ".git").exists():  # installed: a repository around it is somebody else's
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=_paths.PACKAGE, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


@cache
def cpu_name() -> str:
    """The processor's model name."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name[^:]*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine()


def _torch_facts() -> dict:
    """Threads and accelerator, asked only of a torch that is already loaded: provenance alone must not import it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"threads": None, "accelerator": None}
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"threads": torch.get_num_threads(), "accelerator": name}


def version(package: str) -> str | None:
    """Of an installed package; None of one that is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
