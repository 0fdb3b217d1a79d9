"""Write environment.yml: the direct dependencies of pyproject.toml, at the versions of requirements.lock."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# For conda users: conda env create --file environment.yml. Written by `make lock`; do not edit.
name: quide
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
      # What follows from the packages listed is held at the same versions as in the lock.
      - --constraint requirements.lock
"""


def direct_dependencies() -> dict[str, str]:
    """Canonical name to marker of everything that pyproject.toml asks for, extras included; mostly there is none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    found = map(Requirement, wanted)
    return {canonicalize_name(each.name): f" ; {each.marker}" if each.marker else "" for each in found}


def pins() -> dict[str, str]:
    """Canonical name to version, of requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in found}


def text() -> str:
    """The whole file."""
    versions = pins()
    lines = [f"      - {name}=={versions[name]}{marker}\n" for name, marker in sorted(direct_dependencies().items())]
    return HEADER + "".join(lines) + "      - --editable .\n"


if __name__ == "__main__":
    (ROOT / "environment.yml").write_text(text())
