"""Who made a number: code, versions, machine, time. Standard library only."""

from __future__ import annotations

import ast
import datetime
import hashlib
import inspect
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from importlib import metadata
from types import ModuleType

from quide import paths

PACKAGES = ("torch", "torchvision", "numpy")


def collect() -> dict:
    """Commit, package versions, machine and time of this process, all plain JSON values."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        **_torch_facts(),
    }


@cache
def code_digest(*sources: ModuleType | type | Callable) -> str:
    """SHA-256 (first 16 hex digits) of the given code with comments, docstrings and layout taken out.

    A record stores the digest of the code that decides its numbers; when that code changes, the record is stale, and
    when only its wording changes, it is not.
    """
    total = hashlib.sha256()
    for source in sources:
        tree = ast.parse(textwrap.dedent(inspect.getsource(source)))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
                node.body = node.body[1:]
        total.update(repr(_shape(tree)).encode())
    return total.hexdigest()[:16]


def _shape(node: object) -> object:
    """A syntax tree as nested lists, the same in every Python version.

    ``ast.unparse`` and ``ast.dump`` are not: they quote f-strings and print empty fields each in their own way.
    """
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends some with an empty text that the other versions do not have
        parts = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        return ["JoinedStr", _shape(parts)]
    if isinstance(node, ast.AST):
        filled = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return [type(node).__name__, *([name, _shape(value)] for name, value in filled)]
    return [_shape(one) for one in node] if isinstance(node, list) else repr(node)


@cache
def git_commit() -> str | None:
    """Commit of the checkout, ``-dirty`` appended when tracked files differ from it; None outside a checkout."""
    if not (paths.PACKAGE.parent / ".git").exists():  # installed: a repository around it is somebody else's
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=paths.PACKAGE, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


@cache
def cpu_name() -> str:
    """The processor's model name."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _torch_facts() -> dict:
    """Threads and accelerator, asked only of a torch that is already loaded: provenance alone must not import it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"threads": None, "accelerator": None}
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"threads": torch.get_num_threads(), "accelerator": name}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
