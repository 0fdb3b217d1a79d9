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
        total.update(ast.unparse(tree).encode())
    return total.hexdigest()[:16]


@cache
def git_commit() -> str | None:
    """Commit of the checkout, ``-dirty`` appended when tracked files differ from it; None outside a checkout."""
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
