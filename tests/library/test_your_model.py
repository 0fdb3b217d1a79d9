"""The book's page on a model of one's own: its programs run, in the order in which a reader meets them."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from quide import cli, search

LIMIT = 300  # seconds
LISTING = re.compile(r"^```(python|bash)\n(.*?)^```", flags=re.M | re.S)
NAME = re.compile(r"# (\w+\.py)\n")  # the first line of a listing that is a file


@pytest.fixture
def listings(checkout: Path, tmp_path: Path, monkeypatch) -> list[tuple[str, str]]:
    """Language and text of each listing, in a folder that holds those which are files."""
    found = LISTING.findall((checkout / "book" / "your_model.md").read_text())
    for _, text in found:
        if match := NAME.match(text):
            (tmp_path / match[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    return found


def test_every_listing_runs_beside_the_files_of_the_others(listings, tmp_path, capsys):
    runpy.run_path("make_files.py")
    programs = [text for language, text in listings if language == "python" and not NAME.match(text)]
    assert len(programs) == 9
    for number, text in enumerate(programs):
        (tmp_path / f"listing_{number}.py").write_text(text)
        runpy.run_path(f"listing_{number}.py")
    said = capsys.readouterr().out
    assert "best width: " in said and "P(knee)" in said and "8 bits, in integers: " in said
    assert (tmp_path / "smaller.pt2").exists() and (tmp_path / "eight.safetensors").exists()


def test_the_command_runs_as_printed(listings, capsys):
    runpy.run_path("make_files.py")
    (command,) = [text for language, text in listings if language == "bash"]
    program, *arguments = shlex.split(command)
    assert program == "quide"
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert not ended.value.code
    assert "At 32 bits the network is right for" in capsys.readouterr().out  # it was not trained


def test_the_parallel_search_runs(listings, tmp_path):
    done = subprocess.run(
        [sys.executable, "search_in_parallel.py"], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{search.genetic(lambda bits: 1 / sum(bits), num_layers=21).best}\n"
