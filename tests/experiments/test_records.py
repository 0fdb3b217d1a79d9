"""Records: keys that do not move, files that are whole or absent, and nothing stale passed off as fresh."""

import base64
import copy
import dataclasses
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quide import _files, _paths
from quide.experiments import provenance, records
from quide.experiments.records import Record, RunSpec, StaleRecordWarning
from quide.stats import pack_bits, unpack_bits

DETAILS = {"scheme": {"site": "output", "bits": (8, 8, 8, 4)}, "device": "cpu"}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    monkeypatch.setenv("QUIDE_RESULTS", str(folder))
    return folder


def spec(**changes):
    return RunSpec(**{
        "kind": "trial", "model": "simplecnn", "dataset": "cifar10", "seed": 0, "profile": "quick",
        "details": DETAILS, **changes,
    })  # fmt: skip


def record(values=None, code="code", data="data", **changes):
    return Record(spec(**changes), values or {"accuracy": 0.8}, code, data, {"date": "2026-01-01"}, 1.5)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=5)
cheap = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# --- keys


def test_keys_are_what_they_were():
    """A change here orphans every committed record: bump the schema and say so, do not just edit the literals."""
    assert spec(kind="accuracy").canonical == (
        '{"dataset":"cifar10","details":{"device":"cpu","scheme":{"bits":[8,8,8,4],"site":"output"}},'
        '"kind":"accuracy","model":"simplecnn","profile":"quick","seed":0}'
    )
    assert spec(kind="accuracy").key == "c75d6df050eada6f"
    other = RunSpec("latency", "llama-3.2-1b", "mmlu", 42, "paper", {"rate": 0.1, "name": "é", "none": None})
    assert other.key == "3132d18fe352b1a7"


def _reordered(value):
    if isinstance(value, dict):
        return {name: _reordered(value[name]) for name in reversed(value)}
    return tuple(map(_reordered, value)) if isinstance(value, list) else value


@cheap
@given(json_objects)
def test_order_and_tuples_do_not_change_the_key(details):
    one, other = spec(details=details), spec(details=_reordered(details))
    assert one == other and one.key == other.key and hash(one) == hash(other)
    assert len(one.key) == 16 and set(one.key) <= set("0123456789abcdef")


def test_equal_numbers_give_the_equal_key():
    plain = spec(details={"bits": 8, "rate": 0.5, "flag": True})
    assert plain == spec(details={"bits": np.int64(8), "rate": np.float64(0.5), "flag": np.bool_(True)})
    assert plain == spec(details={"bits": 8.0, "rate": 0.5, "flag": True})
    assert plain != spec(details={"bits": 8, "rate": 0.5, "flag": 1})


@pytest.mark.parametrize("change", [
    {"kind": "latency"}, {"model": "resnet18"}, {"dataset": "mnist"}, {"seed": 1}, {"profile": "paper"},
    {"details": {**DETAILS, "device": "cuda"}}, {"details": {}},
])  # fmt: skip
def test_every_field_is_in_the_key(change):
    assert spec(**change).key != spec().key and spec(**change) != spec()


def test_a_spec_is_frozen_copied_and_picklable():
    details = {"bits": [8, 4], "scheme": {"site": "output"}}
    frozen = spec(details=details)
    key = frozen.key
    details["bits"].append(2)
    details["scheme"]["site"] = "input"
    assert spec(details={"bits": [8, 4], "scheme": {"site": "output"}}).key == key
    assert frozen.details["bits"] == (8, 4)
    with pytest.raises(TypeError):
        frozen.details["bits"] = 2
    with pytest.raises(TypeError):
        frozen.details["scheme"]["site"] = "input"
    with pytest.raises(dataclasses.FrozenInstanceError):
        frozen.seed = 3
    assert pickle.loads(pickle.dumps(frozen)) == copy.deepcopy(frozen) == dataclasses.replace(frozen) == frozen
    assert dataclasses.replace(frozen, seed=9).key != key
    assert frozen != "something else"


@pytest.mark.parametrize("change, named", [
    ({"kind": "Accuracy"}, "kind"), ({"kind": "a/b"}, "kind"), ({"kind": ""}, "kind"), ({"kind": "a\n"}, "kind"),
    ({"model": "../up"}, "model"), ({"model": ".hidden"}, "model"), ({"dataset": "CIFAR 10"}, "dataset"),
    ({"dataset": None}, "dataset"), ({"seed": -1}, "seed"), ({"seed": True}, "seed"), ({"seed": "0"}, "seed"),
    ({"seed": 0.5}, "seed"), ({"profile": "fast"}, "smoke, quick, short, paper"), ({"profile": ["quick"]}, "profile"),
    ({"details": {"rate": float("nan")}}, r"details\.rate is nan"), ({"details": [1]}, "details must be a mapping"),
    ({"details": {"bits": {8: 1}}}, r"details\.bits has the key 8"),
    ({"details": {"a": {1, 2}}}, r"details\.a is a set"),
])  # fmt: skip
def test_bad_specs_are_refused_by_name(change, named):
    with pytest.raises(ValueError, match=named):
        spec(**change)


# --- records


@pytest.mark.parametrize("values, named", [
    ({"accuracy": float("nan")}, r"values\.accuracy is nan"),
    ({"widths": {"4": [0.5, float("inf")]}}, r"values\.widths\.4\[1\] is inf"),
    ({"accuracy": np.float32("nan")}, r"values\.accuracy is nan"),
    ({"correct": np.zeros(3)}, r"values\.correct is a ndarray"),
    ({"a": {4: 0.5}}, r"values\.a has the key 4"),
    ([0.5], "values must be a mapping"),
])  # fmt: skip
def test_values_that_are_not_finite_json_are_refused_by_name(values, named):
    with pytest.raises(ValueError, match=named):
        record(values=values)


@pytest.mark.parametrize("change, named", [
    ({"spec": "accuracy"}, "spec"), ({"code": ""}, "code"), ({"data": None}, "data"), ({"seconds": -1}, "seconds"),
    ({"seconds": float("inf")}, "seconds"), ({"seconds": True}, "seconds"), ({"schema": 2}, "schema"),
    ({"schema": True}, "schema"), ({"provenance": None}, "provenance"),
])  # fmt: skip
def test_bad_records_are_refused_by_name(change, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(record(), **change)


def test_numpy_numbers_are_stored_as_plain_ones():
    given_values = {"hits": np.int64(7), "accuracy": np.float32(0.5), "ok": np.bool_(True), "row": (1, 2)}
    values = record(values=given_values).values
    assert values == {"hits": 7, "accuracy": 0.5, "ok": True, "row": [1, 2]}
    assert [type(value) for value in values.values()] == [int, float, bool, list]


@cheap
@given(values=json_objects, details=json_objects)
def test_what_is_saved_is_read_back(values, details):
    saved = record(values=values or {"none": None}, details=details)
    file = records.save(saved)
    assert records.read(file) == saved == records.load(saved.spec)
    assert records.read(file).spec.details == saved.spec.details


def test_the_file_is_where_it_says_and_reads_well_in_a_diff(results):
    hits = np.arange(5000) % 7 > 2
    packed = pack_bits(hits)
    file = records.save(record(values={"correct": packed, "accuracy": hits.mean()}))
    assert file == records.path_of(spec()) == results / "quick" / "trial" / f"simplecnn-cifar10-s0-{spec().key}.json"
    text = file.read_text()
    assert text.endswith("}\n") and text == json.dumps(json.loads(text), sort_keys=True, indent=1) + "\n"
    assert f' "values": {{\n  "accuracy": {hits.mean()},\n  "correct": "{packed}"\n }}\n' in text
    assert os.listdir(file.parent) == [file.name]


def test_what_is_not_there(results):
    assert records.load(spec()) is None
    assert records.collect() == [] and not results.exists()
    with pytest.raises(FileNotFoundError, match="absent.json"):
        records.read(results / "absent.json")


def _sealed(content):
    """As somebody would write it who knows how records are sealed."""
    held = {name: value for name, value in content.items() if name != "digest"}
    return {**held, "digest": records._digest(held)}


def _edited(**changes):
    def edit(content):
        return json.dumps(_sealed({**content, **changes}))

    return edit


def _unsealed(**changes):
    return lambda content: json.dumps({**content, **changes})


@pytest.mark.parametrize("damage, reason", [
    (lambda content: "", "Expecting value"),
    (lambda content: json.dumps(content)[:-20], "delimiter|Unterminated"),
    (lambda content: json.dumps(content).encode() + b"\xff", "codec"),
    (lambda content: "[" * 100_000, "recursion"),
    (lambda content: "[]", "data.sha256"),
    (lambda content: json.dumps({k: v for k, v in content.items() if k != "digest"}), "data.sha256"),
    (_unsealed(values={"accuracy": 0.7}), "its digest"),
    (_unsealed(values={"accuracy": "0.8"}), "its digest"),
    (_unsealed(seconds=1.25), "its digest"),
    (_unsealed(digest=None), "its digest"),
    (lambda content: json.dumps(content)[:-1] + ', "code": "other"}', "twice"),
    (lambda content: json.dumps({**content, "values": {"accuracy": float("nan")}}), "NaN is not a finite number"),
    (lambda content: json.dumps(content).replace("0.8", "1e999"), "its digest"),
    (lambda content: json.dumps(_sealed({k: v for k, v in content.items() if k != "code"})), "lacks code"),
    (_edited(note="hello"), "unknown note"),
    (_edited(schema=99), "schema must be 1"),
    (_edited(key="0" * 16), "the key of its spec"),
    (_edited(values=[1]), "values must be a mapping"),
    (_edited(code=3), "code"),
    (_edited(seconds="long"), "seconds"),
    (_edited(spec=None), "spec holds NoneType"),
    (_edited(spec={"kind": "trial"}), "spec lacks dataset"),
])  # fmt: skip
def test_a_file_that_does_not_parse_is_refused_by_name(damage, reason):
    file = records.save(record())
    damaged = damage(json.loads(file.read_text()))
    file.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    for attempt in (lambda: records.read(file), lambda: records.load(spec()), records.collect):
        with pytest.raises(ValueError, match=reason) as caught:
            attempt()
        assert str(file) in str(caught.value) and "delete it" in str(caught.value)


def test_a_changed_spec_or_a_moved_file_is_refused():
    file = records.save(record())
    content = json.loads(file.read_text())
    content["spec"]["seed"] = 1
    file.write_text(json.dumps(_sealed(content)))
    with pytest.raises(ValueError, match="the key of its spec"):
        records.read(file)
    moved = records.save(record()).rename(file.with_name("other.json"))
    with pytest.raises(ValueError, match=f"belongs in quick/trial/{file.name}"):
        records.read(moved)


def test_collect_filters_and_sorts():
    wanted = [
        record(kind=kind, profile=profile, model=model, dataset=dataset, seed=seed)
        for kind in ("other", "trial") for profile in ("paper", "quick") for model in ("resnet18", "simplecnn")
        for dataset in ("cifar10", "mnist") for seed in (2, 10)
    ]  # fmt: skip
    for one in reversed(wanted):
        records.save(one)
    assert records.collect() == wanted
    assert records.collect(kind="trial", dataset="mnist") == [
        r for r in wanted if (r.spec.kind, r.spec.dataset) == ("trial", "mnist")
    ]
    assert {r.spec.model for r in records.collect(model="resnet18", profile="paper")} == {"resnet18"}
    assert records.collect(kind="training") == []
    for name in ({"profile": "fast"}, {"kind": "*"}):
        with pytest.raises(ValueError, match=next(iter(name))):
            records.collect(**name)


def test_collect_parses_no_more_than_it_is_asked_for():
    kept = record(model="resnet18", dataset="cifar10")
    records.save(kept)
    records.save(record(model="simplecnn", dataset="mnist")).write_text("damaged")
    assert records.collect(model="resnet18") == records.collect(dataset="cifar10") == [kept]
    assert records.collect(model="resnet*") == records.collect(dataset="cifar1") == []
    with pytest.raises(ValueError, match="cannot be read"):
        records.collect()


# --- load or run


def test_a_miss_computes_times_and_saves_a_hit_reads():
    calls = []

    def compute():
        calls.append(1)
        time.sleep(0.02)
        return {"accuracy": np.float64(0.75)}

    made = records.load_or_run(spec(), compute, "code", "data")
    assert made.values == {"accuracy": 0.75} and made.seconds >= 0.02 and (made.code, made.data) == ("code", "data")
    assert made.provenance.keys() == provenance.collect().keys()
    assert records.load_or_run(spec(), compute, "code", "data") == made
    assert len(calls) == 1
    records.load_or_run(spec(), compute, "code", "data", refresh=True)
    assert len(calls) == 2


def test_a_field_that_came_later_enters_a_spec_only_where_it_is_not_at_its_default():
    @dataclasses.dataclass(frozen=True)
    class Choices:
        first: int = 1
        later: str = dataclasses.field(default="no", metadata={"later": True})

    assert records.described(Choices()) == {"first": 1}
    assert records.described(Choices(later="yes")) == {"first": 1, "later": "yes"}


def test_a_record_of_code_that_is_proven_equivalent_is_fresh(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    content = '{"old": ["middle", "new"]}'
    (tmp_path / "data" / "codes.json").write_text(content)
    monkeypatch.setenv("QUIDE_HOME", str(tmp_path))
    known = {"codes.json": _files.digest("codes.json", content.encode())}
    monkeypatch.setattr(_files, "_manifest", lambda: known)
    records._equivalent_codes.cache_clear()
    try:
        old = Record(spec(), {"accuracy": 0.5}, "old", "data", {}, 1.0)
        assert [records.is_stale(old, code) for code in ("new", "middle", "old", "other")] == [
            False,
            False,
            False,
            True,
        ]
    finally:
        records._equivalent_codes.cache_clear()


@pytest.mark.parametrize("code, data, reason", [
    ("newer", "data", "made by code code, today's is newer"),
    ("code", "newer", "made from data data, today's is newer"),
])  # fmt: skip
def test_a_stale_record_is_returned_with_a_warning_until_refreshed(code, data, reason):
    old = record()
    records.save(old)
    with pytest.warns(StaleRecordWarning, match=reason) as caught:
        assert records.load_or_run(spec(), lambda: {"accuracy": 0.1}, code, data) == old
    message = str(caught[0].message)
    assert str(records.path_of(spec())) in message and "refresh=True" in message
    assert caught[0].filename == __file__
    assert records.is_stale(old, code, data) and not records.is_stale(old, "code", "data")
    assert not records.is_stale(old, "code")
    assert records.load_or_run(spec(), lambda: {"accuracy": 0.1}, code, data, refresh=True).values == {"accuracy": 0.1}
    assert not records.is_stale(records.load(spec()), code, data)


def test_refresh_replaces_a_damaged_record():
    file = records.save(record())
    file.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        records.load_or_run(spec(), dict, "code", "data")
    fresh = records.load_or_run(spec(), lambda: {"accuracy": 0.9}, "code", "data", refresh=True)
    assert records.load(spec()) == fresh


@pytest.mark.parametrize("bad", [{"accuracy": float("nan")}, None])
def test_a_run_that_fails_leaves_nothing(bad, results):
    with pytest.raises(ValueError, match="values"):
        records.load_or_run(spec(), lambda: bad, "code", "data")
    with pytest.raises(ZeroDivisionError):
        records.load_or_run(spec(), lambda: {"x": 1 / 0}, "code", "data")
    assert [file for file in results.rglob("*") if file.is_file()] == []


# --- a disk that does not cooperate


@pytest.fixture
def read_only(monkeypatch):
    """A results folder that cannot be written to, by root neither (who becomes nobody for the test)."""
    folder = Path(tempfile.mkdtemp())  # not tmp_path: nobody could not even enter that
    monkeypatch.setenv("QUIDE_RESULTS", str(folder))
    inner = records.path_of(spec()).parent  # it exists, so only writing shows that it is locked
    inner.mkdir(parents=True)
    inner.chmod(0o555)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o755)
    inner.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
def test_a_read_only_folder_is_refused_before_the_work(read_only):
    calls = []
    with pytest.raises(OSError, match="QUIDE_RESULTS") as caught:
        records.load_or_run(spec(), lambda: calls.append(1) or {}, "code", "data")
    assert str(read_only) in str(caught.value) and "\n" not in str(caught.value)
    assert calls == []
    with pytest.raises(OSError, match="QUIDE_RESULTS"):
        records.save(record())


def test_a_full_disk_leaves_the_old_record(monkeypatch):
    old = record()
    file = records.save(old)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device.*QUIDE_RESULTS"):
        records.save(record(values={"accuracy": 0.1}))
    assert records.read(file) == old and os.listdir(file.parent) == [file.name]


def test_a_file_in_the_place_of_the_folder(results):
    results.write_text("not a folder")
    with pytest.raises(OSError, match=f"cannot write records into {results}"):
        records.save(record())


@pytest.mark.parametrize("content", ["[]", '{"old": ["other"]}'])
def test_a_changed_list_of_equivalent_codes_is_refused(tmp_path, monkeypatch, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "codes.json").write_text(content)
    monkeypatch.setenv("QUIDE_HOME", str(tmp_path))
    records._equivalent_codes.cache_clear()
    with pytest.raises(ValueError, match="codes.json cannot be read .*data.sha256 .*restore it"):
        records.same_code("old", "other")


def test_abandoned_partial_files_are_ignored_then_removed():
    folder = records.save(record()).parent
    names = (f".a.0badcafe-1.{'0' * 32}.partial", f".b.0badcafe-2.{'0' * 32}.partial", ".notes.partial")
    old, young, foreign = (folder / name for name in names)
    for file in (old, young, foreign):
        file.write_text("{")
        os.utime(file, (0, time.time() - _paths.ABANDONED_AFTER * (0.5 if file is young else 2)))
    assert records.collect() == [record()]
    records.save(record(seed=1))
    assert not old.exists() and young.exists() and foreign.exists()


# --- several processes

WRITER = textwrap.dedent("""
    import itertools, sys
    from quide.experiments.records import Record, RunSpec, save
    name, seeds, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print("ready", flush=True)
    for turn in range(rounds):
        spec = RunSpec("trial", "simplecnn", "cifar10", turn % seeds, "quick")
        values = {"writer": name, "turn": turn, "payload": [name] * 5_000}
        save(Record(spec, values, "code", "data", {}, 0.0))
        print(turn, flush=True)
""")


def start_writer(name, seeds, rounds):
    command = [sys.executable, "-c", WRITER, name, str(seeds), str(rounds)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "ready\n"
    return writer


def test_killed_writers_tear_and_lose_nothing():
    reported = {}
    for attempt in range(6):
        writer = start_writer(str(attempt), 3, 10**9)
        for _ in range(4):  # lines read: that many saves have returned
            turn = int(writer.stdout.readline())
            reported[turn % 3] = (str(attempt), turn)
        time.sleep(0.013 * attempt)  # so that the kill meets different moments of a save
        writer.send_signal(signal.SIGKILL)
        for line in writer.communicate()[0].splitlines(keepends=True):
            if line.endswith("\n"):
                reported[int(line) % 3] = (str(attempt), int(line))
        found = {r.spec.seed: r.values for r in records.collect()}
        assert found.keys() == reported.keys()
        for seed, (name, turn) in reported.items():
            # the save after the last reported one may have been finished too, its report killed
            assert found[seed]["writer"] == name and found[seed]["turn"] in (turn, turn + 3)
            assert found[seed]["payload"] == [name] * 5_000


def test_writers_of_one_record_leave_one_whole():
    writers = [start_writer(name, 1, 25) for name in "ab"]
    while any(writer.poll() is None for writer in writers):
        for found in records.collect():
            assert found.values["payload"] == [found.values["writer"]] * 5_000
        time.sleep(0.01)
    assert [writer.wait() for writer in writers] == [0, 0]
    for writer in writers:
        writer.stdout.close()
    [last] = records.collect()
    assert last.values["turn"] == 24
    assert len(os.listdir(records.path_of(last.spec).parent)) == 1


# --- bit sets


@cheap
@given(arrays(bool, st.integers(0, 300)))
def test_bits_survive_packing(bits):
    text = pack_bits(bits)
    assert json.loads(json.dumps(text)) == text
    restored = unpack_bits(text)
    assert restored.dtype == bool and np.array_equal(restored, bits)


def test_bits_of_a_test_set_are_small():
    correct = np.random.default_rng(0).random(10_000) < 0.98
    assert np.array_equal(unpack_bits(pack_bits(correct)), correct)
    assert len(pack_bits(correct)) < 10_000 / 8 / 2


@pytest.mark.parametrize("bits", [np.zeros(3, int), np.zeros((2, 2), bool), [0, 1], np.array(True)])
def test_what_is_not_a_bool_vector_is_not_packed(bits):
    with pytest.raises(ValueError, match="one-dimensional bool"):
        pack_bits(bits)


@cheap
@given(arrays(bool, st.integers(1, 300)), st.data())
def test_damaged_bits_are_refused(bits, data):
    text = pack_bits(bits)
    position = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(max_codepoint=127).filter(lambda c: c != text[position]))
    try:  # a change that hits only bits which base64 does not use restores the same vector
        assert np.array_equal(unpack_bits(text[:position] + other + text[position + 1 :]), bits)
    except ValueError:
        pass


@cheap
@given(st.text() | st.binary() | st.none() | st.from_regex(r"eJ([A-Za-z0-9+/]{4}){3,9}", fullmatch=True))
def test_garbage_is_not_unpacked(text):
    with pytest.raises(ValueError):
        unpack_bits(text)


@pytest.mark.parametrize("length, content", [
    (0, b"\0"), (8, b""), (15, b"\1\1"), (17, b"\1\1"), (2**63, b"\1"), (8, b"\1\0"),
])  # fmt: skip
def test_a_length_that_the_bits_do_not_have_is_refused(length, content):
    forged = base64.b64encode(zlib.compress(struct.pack("<Q", length) + content)).decode()
    with pytest.raises(ValueError, match=f"the {length} bits it claims"):
        unpack_bits(forged)


def test_bits_cut_short_or_run_on_are_refused():
    packed = base64.b64decode(pack_bits(np.ones(16, bool)))
    for damaged in (b"", packed[:-1], packed + b"x", zlib.compress(b"short")):
        with pytest.raises(ValueError, match="not a bit set"):
            unpack_bits(base64.b64encode(damaged).decode())
