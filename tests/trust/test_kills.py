"""Kills at random moments: the next run ends as an undisturbed one, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from benchmarks import kills


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_ten_kills_change_no_result_and_leave_nothing():
    found = kills.attack(10, seed=3)
    assert found["the same"] == 10 and not found["another result"] and not found["left behind"]
    assert found["killed"]


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
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert len(said.splitlines()) == 1 and said.startswith("quide: ")
