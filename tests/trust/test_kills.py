"""Kills at random moments: the next run ends as an undisturbed one, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor, CancelledError, Future

import pytest

from benchmarks import kills
from quide import _paths, search


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_ten_kills_change_no_result_and_leave_nothing():
    turns = kills.attack(10, seed=3)
    assert not [one for one in turns if set(one["outcomes"]) & set(kills.BAD)]
    assert any("killed" in one["outcomes"] for one in turns)


WAITING = """
import sys, time
from quide import cli

@cli.app.command()
def wait():
    print("waiting", flush=True)
    time.sleep(60)

cli.main(["wait"])
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_command_in_one_line(name, code):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_DFL),  # background jobs ignore some
    )  # fmt: skip
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert len(said.splitlines()) == 1 and said.startswith("quide: ")


class Restarted:
    """An executor whose scheduler is lost after three evaluations, as Dask's clients tell it."""

    def __init__(self, error):
        self.error, self.done = error, 0

    def submit(self, function, *arguments):
        self.done += 1
        future = Future()
        if self.done > 3:
            future.set_exception(self.error)
        else:
            future.set_result(function(*arguments))
        return future


class KilledWorker(Exception):
    """Dask's, which takes other arguments."""

    def __init__(self, task, last_worker):
        super().__init__(task, last_worker)


@pytest.mark.parametrize("error", [CancelledError(), KilledWorker("task", "tcp://worker")], ids=["scheduler", "worker"])
def test_an_executor_that_is_gone_leaves_what_it_evaluated(error):
    with pytest.raises(BrokenExecutor, match="died .*use fewer workers.*keeps the 3 values") as caught:
        search.exhaustive(lambda bits: 1 / sum(bits), 2, (8, 4, 2), executor=Restarted(error))
    assert len(caught.value.evaluated) == 3 and "while evaluating one of" in caught.value.__notes__[0]


IMPORTING = """
import os, signal, sys, types
from quide.cli import stopping

stopping.listen()
torch = types.ModuleType("torch")
exec("import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(0); done = True", torch.__dict__)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_waits_until_torch_is_imported():
    code = (
        IMPORTING + "\nassert torch.done\nimport time\ntry:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    sys.exit(stopping.stopped())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_in_a_text_that_is_executed_is_that_signal(tmp_path):
    code = "import sys\nfrom quide.cli import stopping\nstopping.listen()\ntry:\n    exec('import os, signal, time; "
    code += "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)')\n"
    code += "except KeyboardInterrupt:\n    sys.exit(stopping.stopped())"
    (tmp_path / "killed.py").write_text(code)
    path = os.pathsep.join([str(_paths.PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "killed"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 143 and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_while_python_ends_is_said_and_loses_no_output():
    code = "import os, signal\nfrom quide.cli import stopping\nprint('found')\nstopping.stopped()\n"
    code += "os.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and done.stdout == "found\n" and done.stderr.startswith("quide: ")
