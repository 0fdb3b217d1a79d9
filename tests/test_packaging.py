"""pyproject.toml, requirements.lock and environment.yml agree; the checkout is set up and checked the stated way."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import layers
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from tiers import QUICK

ENVIRONMENTS = [
    {
        "sys_platform": platform,
        "platform_machine": machine,
        "python_full_version": f"{python}.9",
        "python_version": python,
    }
    for platform, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
    for python in ("3.11", "3.12", "3.13")
]
LINUX_ONLY = re.compile(r"nvidia-(?!ml-py)|cuda-|triton$")
DISTRIBUTIONS = {
    "PIL": "pillow",
    "awq": "autoawq",
    "yaml": "pyyaml",
}  # module names that differ from the distribution's


@pytest.fixture(scope="module")
def project(checkout: Path) -> dict:
    return tomllib.loads((checkout / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def lock(checkout: Path) -> list[Requirement]:
    lines = (checkout / "requirements.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def direct(project: dict) -> list[Requirement]:
    extras = project["project"]["optional-dependencies"].values()
    groups = project["dependency-groups"].values()
    return [Requirement(line) for lines in (project["project"]["dependencies"], *extras, *groups) for line in lines]


def pin(lock: list[Requirement], name: str, environment: dict[str, str]) -> str | None:
    """The version that the lock installs there."""
    wanted = canonicalize_name(name)
    found = [line for line in lock if canonicalize_name(line.name) == wanted and _applies(line, environment)]
    assert len(found) <= 1, f"{name} is pinned twice"
    return str(found[0].specifier).removeprefix("==") if found else None


def _applies(line: Requirement, environment: dict[str, str]) -> bool:
    return line.marker is None or line.marker.evaluate(environment)


def test_the_lock_pins_every_line_exactly(lock: list[Requirement]) -> None:
    assert len(lock) > 100
    for line in lock:
        assert re.fullmatch(r"==[^*,]+", str(line.specifier)), line
        assert line.url is None


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: f"{e['sys_platform']}-{e['python_version']}")
def test_every_dependency_is_pinned_within_its_bounds(
    project: dict, lock: list[Requirement], environment: dict[str, str]
) -> None:
    for dependency in direct(project):
        if not _applies(dependency, environment):
            continue
        version = pin(lock, dependency.name, environment)
        assert version, f"{dependency.name} is not in requirements.lock; run: make lock"
        assert dependency.specifier.contains(version, prereleases=True), f"{dependency} excludes the pinned {version}"


def test_packages_for_linux_alone_are_marked(lock: list[Requirement]) -> None:
    heavy = [line for line in lock if LINUX_ONLY.match(line.name)]
    assert heavy
    mac = next(environment for environment in ENVIRONMENTS if environment["sys_platform"] == "darwin")
    assert not [line.name for line in heavy if _applies(line, mac)]


def test_conda_users_get_the_same_set(checkout: Path, project: dict, lock: list[Requirement]) -> None:
    written = yaml.safe_load((checkout / "environment.yml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in written if isinstance(entry, dict))
    assert "--constraint requirements.lock" in pip and "--editable ." in pip
    listed = {canonicalize_name(Requirement(line).name): line for line in pip if not line.startswith("--")}
    extras = project["project"]["optional-dependencies"].values()
    wanted = [Requirement(line) for lines in (project["project"]["dependencies"], *extras) for line in lines]
    markers = {canonicalize_name(dependency.name): dependency.marker for dependency in wanted}
    assert sorted(listed) == sorted(markers)
    for name, line in listed.items():
        assert Requirement(line).marker == markers[name]
        assert line.partition(" ; ")[0] == f"{name}=={pin(lock, name, ENVIRONMENTS[0])}"
    (python,) = (entry for entry in written if isinstance(entry, str) and entry.startswith("python="))
    assert SpecifierSet(project["project"]["requires-python"]).contains(python.removeprefix("python="))


def test_environment_yml_is_what_make_lock_writes(checkout: Path) -> None:
    writer = runpy.run_path(str(checkout / ".ci" / "environment.py"))
    assert (checkout / "environment.yml").read_text() == writer["text"]()


@pytest.mark.parametrize("name", ["requirements.lock", "environment.yml", "pyproject.toml", "Makefile"])
def test_no_index_or_host_is_named(checkout: Path, name: str) -> None:
    assert not re.search(r"https?://|--(extra-)?index-url\s+[^\s$]|--find-links", (checkout / name).read_text())


# What each room may import besides the core's dependencies: the extras that whoever uses it installs.
EXTRAS = {
    "quide._paths": ["data"],
    "quide.cli": ["cli"],
    "quide.cli.files": ["data"],
    "quide.cli.plot": ["book"],
    "quide.data": ["data"],
    "quide.models": ["data"],
    "quide.experiments.compute.tiny": ["deploy"],
    "quide.search": ["search"],
    "quide.deploy": ["deploy"],
    "quide.diagnosis": ["book"],
    "quide.llm": ["llm", "awq"],
    "quidebook": ["book"],
}
USED_WHERE_PRESENT = {"timm"}  # asked for by name, and whoever lacks them is told


def test_every_import_of_the_packages_is_declared(checkout: Path, project: dict) -> None:
    core, extras = project["project"]["dependencies"], project["project"]["optional-dependencies"]
    for module, file in layers.modules(checkout).items():
        allowed = [
            *core,
            *(line for room in EXTRAS if module.startswith(room) for name in EXTRAS[room] for line in extras[name]),
        ]
        declared = {canonicalize_name(Requirement(line).name) for line in allowed}
        asked = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in _third_party(file)}
        asked -= USED_WHERE_PRESENT
        assert asked <= declared, f"{module} imports {', '.join(asked - declared)}"


def _third_party(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"quide", "quidebook"}


def test_version_is_the_same_everywhere(checkout: Path, project: dict) -> None:
    import quide

    citation = yaml.safe_load((checkout / "CITATION.cff").read_text())
    assert project["project"]["version"] == quide.__version__ == citation["version"]
    assert any("2605.10959" in str(reference) for reference in citation["references"])


def test_metric_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys, quide.metric, quide.stats; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)


ALONE = """
import sys
from importlib.machinery import ModuleSpec

class Blocked:  # torch looks whether some packages are there, without importing them
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.partition(".")[0] in BLOCKED else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name)

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Blocked())
import torch
import quide
from quide import evaluate, search
from quide.models import SimpleCNN

model, images, labels = SimpleCNN(10, 1, 8), torch.randn(20, 1, 8, 8), torch.arange(20) % 10
assert quide.intelligence_index(compression=4, accuracy=0.9, latency_ms=1.0) > 0
assert quide.quantize(model, 8, images)(images).shape == (20, 10)
assert list(quide.sweep(model, images, labels, images, bits=(32, 8), warmup=1, passes=3)["bits"]) == [32, 8]
assert len(evaluate.exhaustive(model, images, labels, images, choices=(8, 4))) == 16
assert search.genetic(lambda bits: 1 / sum(bits), num_layers=2, generations=2).best
"""


def test_the_library_needs_no_more_than_its_core_dependencies(project: dict, tmp_path: Path) -> None:
    core = {canonicalize_name(Requirement(line).name) for line in project["project"]["dependencies"]}
    assert core == {"numpy", "pandas", "safetensors", "scipy", "torch", "tqdm"}
    names = {canonicalize_name(requirement.name).replace("-", "_") for requirement in direct(project)} - core
    modules = {next((module for module, one in DISTRIBUTIONS.items() if one == name), name) for name in names}
    code = f"BLOCKED = {sorted(modules)!r}\n{ALONE}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    code = "import sys; sys.modules['typer'] = None; import quide.cli"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "needs the package typer; run: pip install 'quide[cli]'" in done.stderr


def test_the_book_brings_what_it_takes_from_the_other_extras(project: dict) -> None:
    extras = project["project"]["optional-dependencies"]
    assert set(extras["cli"]) <= set(extras["data"]) <= set(extras["book"])


@pytest.mark.slow
def test_the_wheel_holds_both_packages_alone(checkout: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(checkout)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("quide-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"quide/__init__.py", "quide/metric.py", "quide/py.typed", "quidebook/build.py"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"quide", "quidebook"}


# --- style, and the documented way in --------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_style(checkout: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "."], cwd=checkout, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nto put it right: make format"


def test_make_help_lists_every_target(checkout: Path) -> None:
    done = subprocess.run(["make", "help"], cwd=checkout, capture_output=True, text=True, timeout=60, check=True)
    listed = set(re.findall(r"^  ([a-z-]+) ", done.stdout, flags=re.M))
    phony = re.search(r"^\.PHONY: (.*)$", (checkout / "Makefile").read_text(), flags=re.M)
    assert listed == set(phony[1].split())
    for named in re.findall(r"`?make ([a-z-]+)", (checkout / "README.md").read_text()):
        assert named in listed, f"README.md names make {named}"


def test_the_quick_tier_names_files_that_exist(checkout: Path) -> None:
    assert all((checkout / "tests" / name).is_file() for name in QUICK)


def make_set_up(folder: Path, python: str, *variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PIP_"))}
    return subprocess.run(
        ["make", "set-up", f"PYTHON={python}", *variables],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def bare_checkout(checkout: Path, tmp_path: Path) -> Path:
    """The build files beside an empty package, with a lock that asks for nothing but the build back end."""
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((checkout / name).read_text())
    (tmp_path / "requirements.lock").write_text("")
    return tmp_path


def test_set_up_refuses_an_old_python_in_one_line(bare_checkout: Path) -> None:
    old = bare_checkout / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make_set_up(bare_checkout, "./python-old")
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed, and ./python-old is not; name one" in done.stderr.splitlines()[0]
    assert not (bare_checkout / ".venv").exists()


def test_set_up_that_fails_is_not_taken_for_done_and_keeps_what_is_there(bare_checkout: Path) -> None:
    calls = bare_checkout / "calls"
    python = _recording_python(bare_checkout, calls)
    first = make_set_up(bare_checkout, python)
    assert first.returncode != 0 and not (bare_checkout / ".venv" / ".set-up").exists()
    (bare_checkout / ".venv" / "mine").touch()
    (bare_checkout / "pip-works").touch()
    second = make_set_up(bare_checkout, python)
    assert second.returncode == 0, second.stderr
    assert (bare_checkout / ".venv" / ".set-up").exists() and (bare_checkout / ".venv" / "mine").exists()
    before = calls.read_text()
    assert before.count("-m venv .venv") == 1 and "--clear" not in before
    third = make_set_up(bare_checkout, python)
    assert third.returncode == 0 and calls.read_text() == before  # a set-up that is done costs nothing
    (bare_checkout / "requirements.lock").write_text("# other\n")
    os.utime(bare_checkout / "requirements.lock", (2e9, 2e9))
    assert make_set_up(bare_checkout, python).returncode == 0 and calls.read_text() != before


def test_set_up_from_cpu_wheels_leaves_the_cuda_packages_out(bare_checkout: Path) -> None:
    calls = bare_checkout / "calls"
    (bare_checkout / "requirements.lock").write_text(
        "cuda-toolkit==13 ; sys_platform == 'linux'\nnvidia-cublas==13\nnvidia-ml-py==13\ntorch==2.14.0\n"
        "triton==3.8.0\n"
    )
    done = make_set_up(bare_checkout, _recording_python(bare_checkout, calls), "TORCH_INDEX=wheels")
    assert done.returncode == 0, done.stderr
    assert "-m pip install --extra-index-url wheels --requirement .venv/cpu.lock" in calls.read_text()
    assert (bare_checkout / ".venv" / "cpu.lock").read_text() == "nvidia-ml-py==13\ntorch==2.14.0\n"


def _recording_python(folder: Path, calls: Path) -> str:
    """An interpreter that notes how it is called, makes a venv of itself, and fails to install until told otherwise."""
    script = folder / "python-recording"
    script.write_text(
        f"""#!/bin/sh
echo "$*" >> {calls}
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin && cp {script} .venv/bin/python ;;
  *"pip install --requirement"*) test -e {folder}/pip-works ;;
esac
"""
    )
    script.chmod(0o755)
    return str(script)


# --- README ----------------------------------------------------------------------------------------------------------


def test_readme_examples_run(checkout: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (checkout / "README.md").read_text(), flags=re.S)
    assert len(blocks) == 5
    for number, block in enumerate(blocks):
        file = tmp_path / f"example_{number}.py"  # a file, whose functions other processes can import
        file.write_text(block)
        subprocess.run([sys.executable, str(file)], check=True, cwd=tmp_path, timeout=300)


def test_readme_and_contributing_link_to_files_that_exist(checkout: Path) -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (checkout / page).read_text()):
            assert (checkout / target).exists(), f"{page} links to {target}"


def test_the_hosted_checks_run_what_make_test_runs(checkout: Path) -> None:
    checks = yaml.safe_load((checkout / ".github" / "workflows" / "ci.yml").read_text())
    commands = [step.get("run", "") for step in checks["jobs"]["test"]["steps"]]
    assert sum("bash .ci/run" in command for command in commands) == 1
    assert "bash .ci/run" in (checkout / "Makefile").read_text()
    for workflow in (checkout / ".github" / "workflows").glob("*.yml"):
        for action in re.findall(r"uses: (\S+)", workflow.read_text()):
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action), action
