"""Files damaged at random, and a corpus of what once went wrong: refused in one line, or read as what they were."""

from __future__ import annotations

import os

import pytest

from benchmarks import attacks, mutations
from quide import _files


@pytest.fixture(scope="module")
def place():
    with mutations.workplace() as folder:
        yield folder


def test_what_can_be_proven_is_never_read_as_something_else(place):
    turns = mutations.attack(144, seed=7, folder=place)
    assert {one["what"] for one in turns} >= {target.name for target in mutations.targets(place) if target.proven}
    bad = [one for one in turns if set(one["outcomes"]) & set(mutations.BAD)]
    assert not bad


def test_a_run_that_was_stopped_goes_on(tmp_path):
    log, made = tmp_path / "log.jsonl", []

    def attack(turn):
        made.append(turn)
        return {"what": "thing", "outcomes": ["refused" if turn else "hang"], "said": "x"}

    before = attacks.resumed(log, 3, attack)
    log.write_text(log.read_text()[:-5])
    assert attacks.resumed(log, 4, attack) == [*before, {"turn": 3, **attack(3)}] and made == [0, 1, 2, 2, 3, 3]
    assert attacks.resumed(log, 4, attack)[3] == {"turn": 3, **attack(9)} and made[6:] == [9]
    found = attacks.result("mutations", 0, before, mutations.OUTCOMES, mutations.BAD)
    assert found["tables"]["Outcomes"][-1] == {
        "what": "all", "refused": 2, "hang": 1,
        **dict.fromkeys(set(mutations.OUTCOMES) - {"refused", "hang"}, 0),
    }  # fmt: skip
    assert found["notes"] == ["thing, turn 0: hang (x)"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_refused(place):
    for target in mutations.targets(place):
        content = target.file.read_bytes()
        for make in (os.mkfifo, lambda file: os.symlink("/dev/zero", file), os.mkdir):
            target.file.unlink()
            make(target.file)
            try:
                assert mutations.outcome(target, None)[0] == "refused", target.name
            finally:
                target.file.rmdir() if target.file.is_dir() else target.file.unlink()
                target.file.write_bytes(content)


def test_what_unpacks_without_end_is_refused_before_it_is_in_memory():
    import gzip

    packed = gzip.compress(bytes(1 << 22))
    assert _files.unpacked(packed, 1 << 22) == bytes(1 << 22)
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        _files.unpacked(packed, 1 << 20)


@pytest.mark.parametrize(
    "error", [KeyError("a"), MemoryError(), RecursionError("deep"), TypeError("x\ny"), OSError(5, "I/O")]
)
def test_whatever_a_parser_raises_is_one_line(error):
    with pytest.raises(ValueError, match="^notes cannot be read .*; write them anew$") as caught:
        with _files.reading("notes", "write them anew"):
            raise error
    assert "\n" not in str(caught.value)


def test_an_error_that_names_the_file_is_left_as_it_is():
    with pytest.raises(ValueError, match="^notes have no end$"):
        with _files.reading("notes", "write them anew"):
            raise ValueError("notes have no end")
