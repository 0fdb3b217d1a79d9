"""Provenance: the digest follows the code and nothing else, and facts are asked for without side effects."""

import datetime
import json
import os
import shutil
import subprocess
import sys

import pytest

from quide import _paths
from quide.experiments import provenance

ORIGINAL = '''
"""What the module is for."""
import math

LIMIT = 3  # a comment


unused = 1


def area(radius, scale=1.0):
    """Of a circle."""
    # why
    if radius < 0:
        raise ValueError("radius must not be negative")
    return math.pi * radius**2 * scale


class Shape:
    """With a size."""

    def size(self):
        """Its size."""
        return f"{bumped(self.sides['all']):>{LIMIT}}"


def bumped(value):
    return value + 1
'''


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """Digest of names in a package of the files given: ``digest({"shapes.py": source}, "shapes:area")``."""

    def of(files, *names):
        package = tmp_path / f"v{len(list(tmp_path.iterdir()))}" / "sample"
        for name, source in files.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(source)
        monkeypatch.setattr(_paths, "PACKAGE", package)
        monkeypatch.setattr(provenance, "UNDECIDING", ("sample.who",))
        provenance._module.cache_clear()
        provenance.code_digest.cache_clear()
        return provenance.code_digest(*(f"sample.{name}" for name in names))

    yield of
    provenance._module.cache_clear()
    provenance.code_digest.cache_clear()


def of_original(digest, old="", new="", *names):
    return digest({"shapes.py": ORIGINAL.replace(old, new)}, *(f"shapes:{name}" for name in names or ("area", "Shape")))


@pytest.mark.parametrize("old, new", [
    ('"""What the module is for."""', '"""Something else."""'), ("# a comment", "# another"), ("    # why\n", ""),
    ('"""Of a circle."""', '"""Area of a\n\n    circle."""'), ('"""With a size."""', '"""Sized."""'),
    ('        """Its size."""\n', ""), ("\n\n\n", "\n\n\n\n"), ("import math", "import math, json"),
    ("math.pi * radius**2 * scale", "(math.pi * (radius ** 2)\n        * scale)"),
    ("radius, scale=1.0)", "radius: float, scale: float = 1.0) -> float"), ("must not", "may not"),
    ("unused = 1", "unused = 2"),
])  # fmt: skip
def test_wording_layout_types_imports_and_what_is_not_used_do_not_change_the_digest(digest, old, new):
    assert ORIGINAL.count(old) >= 1
    assert of_original(digest, old, new) == of_original(digest)


@pytest.mark.parametrize("old, new", [
    ("LIMIT = 3", "LIMIT = 4"), ("radius**2", "radius**3"), ("scale=1.0", "scale=2.0"), ("def size", "def length"),
    ("'all'", "'some'"), ("self.sides", "Shape.sides"), ("radius < 0", "radius < 1"), ("value + 1", "value + 2"),
])  # fmt: skip
def test_code_changes_the_digest(digest, old, new):
    assert ORIGINAL.count(old) == 1
    assert of_original(digest, old, new) != of_original(digest)


def test_the_digest_is_of_the_named_parts_and_of_what_they_lean_on(digest):
    both = of_original(digest)
    assert len({both, of_original(digest, "", "", "area"), of_original(digest, "", "", "Shape")}) == 3
    assert of_original(digest, "", "", "Shape", "area") == both and len(both) == 16 and int(both, 16) >= 0
    assert of_original(digest, "LIMIT = 3", "LIMIT = 4", "area") == of_original(digest, "", "", "area")


HELPER = "def helper(x):\n    return x"
MOVED = [
    {"a.py": "from sample.b.c import helper\ndef f(x):\n    return helper(x)", "b/c.py": HELPER},
    {"a.py": "from sample.b import c\ndef f(x):\n    return c.helper(x)", "b/c.py": HELPER},
    {
        "a.py": "from sample.b import helper\ndef f(x):\n    return helper(x)",
        "b/__init__.py": "from sample.b.d import helper",
        "b/d.py": HELPER,
    },
    {"a.py": "def f(x):\n    from sample.b import helper\n    return helper(x)", "b.py": HELPER},
]


@pytest.mark.parametrize("files", MOVED)
def test_moved_code_and_other_imports_keep_the_digest(digest, files):
    one_file = {"a.py": "def helper(x):\n    return x\ndef f(x):\n    return helper(x)"}
    assert digest(files, "a:f") == digest(one_file, "a:f")
    changed = {name: text.replace("return x", "return -x") for name, text in files.items()}
    assert digest(changed, "a:f") != digest(one_file, "a:f")


def test_what_decides_nothing_and_local_names_are_not_followed(digest):
    files = {"a.py": "from sample import who\ndef f(size):\n    return who.name(size)\ndef size():\n    return 1"}
    first = digest(files | {"who.py": "def name(x):\n    return x"}, "a:f")
    assert digest(files | {"who.py": "def name(x):\n    return x * 2"}, "a:f") == first
    assert digest({"a.py": files["a.py"].replace("return 1", "return 2"), "who.py": ""}, "a:f") == first


def test_what_a_class_calls_its_own_attribute_is_not_followed(digest):
    source = "class Traffic:\n    layers: list\n    moved = 0.0\ndef layers():\n    return 1\nf = Traffic"
    first = digest({"a.py": source}, "a:f")
    assert digest({"a.py": source.replace("return 1", "return 2")}, "a:f") == first
    assert digest({"a.py": source.replace("0.0", "layers")}, "a:f") != first


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(LookupError, match="quide.metric:no_such_name"):
        provenance.code_digest("quide.metric:no_such_name")


def test_the_digest_is_the_same_under_every_python_version(digest):
    """A record committed from one Python must not look stale under another, so this literal holds for all of them."""
    assert of_original(digest) == "da2f3b17b9d28bb8"


def test_collected_facts_are_plain_json():
    facts = provenance.collect()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["python"] == sys.version.split()[0] and facts["cores"] == os.cpu_count()
    assert facts["packages"].keys() == set(provenance.PACKAGES) and facts["packages"]["numpy"]
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(facts["date"])
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)
    assert facts["cpu"] and "\n" not in facts["cpu"]


def test_a_package_that_is_not_installed_has_no_version():
    assert provenance.version("no-such-package-anywhere") is None


def test_collecting_does_not_import_torch():
    script = "import sys; from quide.experiments import provenance as p"
    script += "; print(p.collect()['threads'], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["None", "False"]


def test_threads_and_accelerator_are_those_of_a_loaded_torch():
    torch = pytest.importorskip("torch")
    facts = provenance.collect()
    assert facts["threads"] == torch.get_num_threads()
    assert (facts["accelerator"] is not None) == torch.cuda.is_available()


def test_the_environment_of_a_latency_names_the_device():
    torch = pytest.importorskip("torch")
    facts = provenance.environment()
    assert facts["device"] == "cpu" and facts["device_name"]
    assert facts["threads"] == torch.get_num_threads() and facts["torch"] == str(torch.__version__).split("+")[0]
    assert json.loads(json.dumps(facts)) == facts
    assert provenance.environment("mps")["device"] == "mps"


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
    monkeypatch.setattr(_paths, "PACKAGE", package)
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
    monkeypatch.setattr(_paths, "PACKAGE", outside / "absent")
    assert provenance.git_commit() is None


def test_the_commit_of_a_repository_that_only_surrounds_the_package_is_not_taken(checkout, monkeypatch):
    """``pip install`` into ``project/.venv`` must not report the commit of the user's project."""
    installed = checkout / ".venv" / "lib" / "quide"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(_paths, "PACKAGE", installed)
    assert provenance.git_commit() is None
