"""The command line as a user meets it: one line and exit code 2 for what can be put right, 130 after Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from quide import cli
from quide.cli import output

LIMIT = 180  # seconds
NOTEBOOK = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}

WORK = """\
import os, time
assert os.getcwd() == os.environ["QUIDE_HOME"]
if seeds == [13]:
    raise ValueError("the seed is unlucky\\nand so on")
if seeds == [99]:
    open("started", "w").write(str(os.getpid()))
    time.sleep(600)
print("given", seeds, datasets, profile, device)"""


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A checkout with one experiment, which says what it was given, or fails, or waits to be interrupted."""
    (tmp_path / "notebooks").mkdir()
    parameters = nbformat.v4.new_code_cell('seeds = [0]\ndatasets = ["mnist"]\nprofile = "quick"\ndevice = "cpu"')
    parameters.metadata["tags"] = ["parameters"]
    work = nbformat.v4.new_code_cell(WORK)
    notebook = nbformat.v4.new_notebook(cells=[parameters, work], metadata=NOTEBOOK)
    nbformat.write(notebook, tmp_path / "notebooks" / "exp1_small.ipynb")
    return tmp_path


def environment(workplace: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUIDE_")}
    return {**kept, "QUIDE_HOME": str(workplace), "QUIDE_CACHE": str(workplace / "cache"), **more}


def quide(workplace: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quide.cli", *arguments],
        cwd=workplace, env=environment(workplace, **more), capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run"], "Missing argument 'experiment'; see: quide run --help"),
        (["run", "exp9"], "experiment must be one of exp1, exp1_small, got 'exp9'"),
        (["run", "exp1", "--seeds", "seven"], "seeds must be whole numbers from 0 to 2147483647, such as 7 or 7,42"),
        (["run", "exp1", "--seeds", "-1"], "from 0 to 2147483647, such as 7 or 7,42, got '-1'"),
        (["run", "exp1", "--seeds", "3000000000"], "from 0 to 2147483647, such as 7 or 7,42, got '3000000000'"),
        (["run", "exp1", "--seeds", "7", "7"], "seeds must differ from one another, got 7, 7"),
        (["run", "exp1", "--datasets", "imagenet"], "dataset must be one of mnist, cifar10, cifar100, got 'imagenet'"),
        (["run", "exp1", "--profile", "huge"], "profile must be one of smoke, quick, short, paper, got 'huge'"),
        (["run", "exp1", "--device", "abacus"], "device 'abacus' cannot be used on this machine; try cpu"),
        (["run", "exp1", "--output", "out.html"], "output must be a file that ends in .ipynb, got out.html"),
        (["run", "exp1", "--output", "folder.ipynb"], "output must be a file that ends in .ipynb, got folder.ipynb"),
        (["book", "--profile", "huge"], "profile must be one of smoke, quick, paper, got 'huge'"),
        (["book"], "_toc.yml is missing; work in a checkout of QuIDE, set QUIDE_HOME"),
        (["data", "fetch", "mnist", "svhn"], "dataset must be one of mnist, cifar10, cifar100, got 'svhn'"),
        (["data", "verify"], "no data set is here yet; run: quide data fetch"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(workplace: Path, arguments: list[str], said: str) -> None:
    (workplace / "folder.ipynb").mkdir()
    before = sorted(workplace.rglob("*"))
    done = quide(workplace, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("quide: ") and said in line
    assert sorted(workplace.rglob("*")) == before  # nothing was begun


def test_debugging_shows_the_traceback(workplace: Path) -> None:
    done = quide(workplace, "run", "exp9", QUIDE_DEBUG="1")
    assert done.returncode != 0 and "Traceback" in done.stderr and "ValueError" in done.stderr


def test_absent_and_damaged_data_are_told_apart(workplace: Path) -> None:
    damaged = workplace / "cache" / "datasets" / "mnist-train.safetensors"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half a file")
    listed = quide(workplace, "data", "list")
    assert listed.returncode == 0 and len(listed.stdout.splitlines()) == 6 and listed.stdout.count(": absent") == 5
    checked = quide(workplace, "data", "verify", "mnist")
    train, test = checked.stdout.splitlines()
    assert f"{damaged} cannot be read" in train and "absent; run: quide data fetch mnist" in test
    assert checked.returncode == 2
    assert checked.stderr == "quide: not verified: mnist train, mnist test; each line above says what to do\n"


def test_help_and_version_need_no_torch(workplace: Path) -> None:
    code = (
        "import sys\nfrom quide import cli\n"
        "for arguments in ([], ['--help'], ['--version'], ['data'], ['run', '--help'], ['sweep', '--help']):\n"
        "    try:\n        cli.main(arguments)\n"
        "    except SystemExit as end:\n        assert end.code in (0, None), (arguments, end.code)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "quide 0." in done.stdout and "--seeds" in done.stdout


@pytest.mark.slow
def test_a_run_passes_its_parameters_on_and_says_where_the_notebook_is(workplace: Path) -> None:
    target = workplace / "mine" / "seven.ipynb"
    named = ["--seeds", "7", "42", "--datasets", "cifar10", "--profile", "smoke", "--output", str(target)]
    done = quide(workplace, "run", "exp1", *named)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"The executed notebook: {target}"
    outputs = [output.text for cell in nbformat.read(target, 4).cells for output in cell.get("outputs", [])]
    assert outputs == ["given [7, 42] ['cifar10'] smoke cpu\n"]


@pytest.mark.slow
def test_a_notebook_that_fails_ends_in_its_reason(workplace: Path) -> None:
    done = quide(workplace, "run", "exp1", "--seeds", "13")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    reason, _, where = done.stderr.splitlines()[-1].partition("; executed")
    assert reason.startswith("quide: exp1_small.ipynb failed in cell ") and reason.endswith("the seed is unlucky")
    assert (workplace / "_build" / "runs" / "exp1_small.ipynb").samefile(where.rpartition(": ")[2])


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_stops_the_kernel_and_exits_130(workplace: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "quide.cli", "run", "exp1", "--seeds", "99"],
        cwd=workplace, env=environment(workplace), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    try:
        _wait_for((workplace / "started").exists)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "quide: interrupted"
    assert "Traceback" not in said
    kernel = int((workplace / "started").read_text())
    _wait_for(lambda: not Path(f"/proc/{kernel}").exists())


def _wait_for(condition) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_standard_output_that_takes_nothing_is_named(workplace):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "quide.cli", "--help"],
            stdout=full, stderr=subprocess.PIPE, env=environment(workplace), text=True, timeout=LIMIT,
        )  # fmt: skip
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1 and "standard output" in ended.stderr


def test_a_terminal_that_lacks_a_letter_is_told_what_to_set():
    said = cli._message(UnicodeEncodeError("ascii", "–", 0, 1, "ordinal not in range"))
    assert said == "the standard output takes ascii alone; set PYTHONIOENCODING=utf-8"


def test_a_file_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=f"cannot write {tmp_path / 'a.json'} .No space left on device.; free space"):
        output.write(tmp_path / "a.json", "x")


def test_the_folder_of_a_result_is_tried_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    output.check("output", tmp_path / "a.json", (".json",))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(output._paths, "try_to_write", full)
    with pytest.raises(OSError, match="cannot write .*a.json .No space left on device.; .* name another --output"):
        output.check("output", tmp_path / "a.json", (".json",))
