"""Provenance: the digest follows the code and nothing else, and facts are asked for without side effects."""

import datetime
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

from quide import paths, provenance

ORIGINAL = '''
"""What the module is for."""
import math

LIMIT = 3  # a comment


def area(radius, scale=1.0):
    """Of a circle."""
    # why
    return math.pi * radius**2 * scale


class Shape:
    """With a size."""

    def size(self):
        """Its size."""
        return f"{self.sides['all']:>{LIMIT}}"
'''


def load(tmp_path, source, name="sample"):
    """Import ``source`` as a module of its own."""
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    file = folder / f"{name}.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def digest(tmp_path, monkeypatch):
    def of(source, *names):
        module = load(tmp_path, source)
        monkeypatch.setitem(sys.modules, "sample", module)  # how inspect finds the source of a class
        return provenance.code_digest(*([getattr(module, name) for name in names] or [module]))

    return of


@pytest.mark.parametrize("old, new", [
    ('"""What the module is for."""', '"""Something else."""'), ('"""What the module is for."""\n', ""),
    ("# a comment", "# another"), ("    # why\n", ""), ('"""Of a circle."""', '"""Area of a\n\n    circle."""'),
    ('"""With a size."""', '"""Sized."""'), ('        """Its size."""\n', ""), ("\n\n\n", "\n\n\n\n"),
    ("math.pi * radius**2 * scale", "(math.pi * (radius ** 2)\n        * scale)"),
])  # fmt: skip
def test_wording_and_layout_do_not_change_the_digest(digest, old, new):
    assert ORIGINAL.count(old) >= 1
    changed = ORIGINAL.replace(old, new)
    assert digest(changed) == digest(ORIGINAL)
    assert digest(changed, "area", "Shape") == digest(ORIGINAL, "area", "Shape")


@pytest.mark.parametrize("old, new", [
    ("LIMIT = 3", "LIMIT = 4"), ("radius**2", "radius**3"), ("scale=1.0", "scale=2.0"), ("def size", "def length"),
    ("import math", "import math, json"), ("'all'", "'some'"), ("self.sides", "Shape.sides"),
])  # fmt: skip
def test_code_changes_the_digest(digest, old, new):
    assert ORIGINAL.count(old) == 1
    assert digest(ORIGINAL.replace(old, new)) != digest(ORIGINAL)


def test_the_digest_is_of_the_named_parts_in_order(digest):
    both = digest(ORIGINAL, "area", "Shape")
    assert len({both, digest(ORIGINAL, "area"), digest(ORIGINAL, "Shape"), digest(ORIGINAL, "Shape", "area")}) == 4
    assert digest(ORIGINAL.replace("LIMIT = 3", "LIMIT = 4"), "area", "Shape") == both
    assert len(both) == 16 and int(both, 16) >= 0


def test_nested_functions_and_methods_have_a_digest(digest):
    def local():
        """Words."""
        return 1

    def documented_only():
        """Nothing but words."""

    assert provenance.code_digest(local) != provenance.code_digest(documented_only)
    assert provenance.code_digest(provenance._version) == provenance.code_digest(provenance._version)


def test_the_digest_is_the_same_under_every_python_version(digest):
    """A record committed from one Python must not look stale under another, so this literal holds for all of them."""
    assert digest(ORIGINAL) == "a25f1c93675d18ce"


def test_collected_facts_are_plain_json():
    facts = provenance.collect()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["python"] == sys.version.split()[0] and facts["cores"] == os.cpu_count()
    assert facts["packages"].keys() == set(provenance.PACKAGES) and facts["packages"]["numpy"]
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(facts["date"])
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)
    assert facts["cpu"] and "\n" not in facts["cpu"]


def test_a_package_that_is_not_installed_has_no_version():
    assert provenance._version("no-such-package-anywhere") is None


def test_collecting_does_not_import_torch():
    script = "import sys; from quide import provenance; print(provenance.collect()['threads'], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["None", "False"]


def test_threads_and_accelerator_are_those_of_a_loaded_torch():
    torch = pytest.importorskip("torch")
    facts = provenance.collect()
    assert facts["threads"] == torch.get_num_threads()
    assert (facts["accelerator"] is not None) == torch.cuda.is_available()


# --- the commit


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a package in it, which provenance takes for its own."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    package = tmp_path / "quide"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(paths, "PACKAGE", package)
    provenance.git_commit.cache_clear()
    yield tmp_path
    provenance.git_commit.cache_clear()


def test_the_commit_of_the_checkout(checkout):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True).stdout
    git(checkout, "tag", "v1")
    assert provenance.git_commit() == head[:12]


def test_changed_files_make_it_dirty_new_ones_do_not(checkout):
    (checkout / "new.txt").write_text("not tracked")
    assert not provenance.git_commit().endswith("-dirty")
    provenance.git_commit.cache_clear()
    (checkout / "quide" / "__init__.py").write_text("changed = True\n")
    assert provenance.git_commit().endswith("-dirty")


def test_no_commit_without_a_checkout_or_git(tmp_path, monkeypatch, checkout):
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert provenance.git_commit() is None
    provenance.git_commit.cache_clear()
    monkeypatch.undo()
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.setattr(paths, "PACKAGE", outside / "absent")
    assert provenance.git_commit() is None


def test_the_commit_of_a_repository_that_only_surrounds_the_package_is_not_taken(checkout, monkeypatch):
    """``pip install`` into ``project/.venv`` must not report the commit of the user's project."""
    installed = checkout / ".venv" / "lib" / "quide"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(paths, "PACKAGE", installed)
    assert provenance.git_commit() is None
