"""Files are whole or as they were, on the disk before they have their name; one process at a time makes a folder."""

import os
import subprocess
import sys
import time

import pytest

from quide import _paths


def test_a_file_and_its_folder_are_on_the_disk_before_and_after_it_has_its_name(tmp_path, monkeypatch):
    file, seen = tmp_path / "new" / "a.bin", []
    fsync, replace = os.fsync, os.replace
    name_of = lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(name_of(descriptor)), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda old, new: (seen.append("renamed"), replace(old, new)))
    with _paths.atomic(file) as partial:
        partial.write_bytes(b"whole")
    assert seen == [str(partial), "renamed", str(file.parent)]
    assert file.read_bytes() == b"whole" and os.listdir(file.parent) == ["a.bin"]


@pytest.mark.parametrize("variable", _paths.VARIABLES)
@pytest.mark.parametrize("name", ["file", "file/below", "file" * 100, "loop", "/dev/null", "~no-such-user/a"])
def test_a_variable_that_can_be_no_folder_is_named(tmp_path, monkeypatch, variable, name):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, name)
    with pytest.raises(ValueError, match=variable):
        _paths.settle()


@pytest.mark.parametrize("name", ["yet/to/be made", ".", "\udcff\udcfe"])
def test_folders_of_variables_become_absolute(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUIDE_CACHE", name)
    _paths.settle()
    assert os.environ["QUIDE_CACHE"] == str(tmp_path / name) and not os.listdir(tmp_path)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_the_old_file_stands_alone(tmp_path, error):
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    with pytest.raises(error), _paths.atomic(file) as partial:
        partial.write_bytes(b"ne")
        raise error
    assert file.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


def test_what_a_killed_writer_left_goes_after_an_hour(tmp_path):
    old, young = (tmp_path / f".{name}.0badcafe-1.{'0' * 32}.partial" for name in "ab")
    others = tmp_path / ".download.partial"
    for file in (old, young, others):
        file.touch()
    for file in (old, others):
        os.utime(file, (0, time.time() - 2 * _paths.ABANDONED_AFTER))
    with _paths.atomic(tmp_path / "c") as partial:
        partial.touch()
    assert sorted(os.listdir(tmp_path)) == [young.name, others.name, "c"]


MAKE = """
import sys, time
from pathlib import Path
from quide import _paths
def make(folder):
    folder.mkdir()
    (folder / "part").write_text("1")
    time.sleep(0.5)
    print("made", flush=True)
print(len(list(_paths.made_once(Path(sys.argv[1]), make).iterdir())))
"""


def test_of_several_that_want_a_folder_one_makes_it_and_all_get_it(tmp_path):
    command = [sys.executable, "-c", MAKE, tmp_path / "folder"]
    makers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = sorted(maker.communicate()[0].split() for maker in makers)
    assert [maker.returncode for maker in makers] == [0, 0, 0] and said == [["1"], ["1"], ["made", "1"]]


def test_a_folder_that_could_not_be_made_leaves_nothing_but_its_lock(tmp_path):
    def make(folder):
        folder.mkdir()
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        _paths.made_once(tmp_path / "folder", make)
    assert os.listdir(tmp_path) == [".folder.lock"]
