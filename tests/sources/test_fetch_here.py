"""What is here is not asked for again, and every fault of the machine ends in one line that says what to do."""

import errno
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from neuroprior.sources import RemoteFile, Source, fetch, listing

from .toys import ARCHIVE, CONTENT, OTHER, everything, fetching, put, refused, source_of


def test_what_is_whole_is_found_without_writing(site, toy, tmp_path, monkeypatch):
    """A data folder may be read-only and shared: then not even a lock can be made in it."""
    fetch(toy, tmp_path)
    monkeypatch.setattr("filelock.FileLock", None)
    fetch(toy, tmp_path)
    assert len(site.asked) == 1


def test_offline_each_file_is_said_with_its_place_and_checksum(site, toy, photos, tmp_path):
    nobody = "http://127.0.0.1:9"  # the discard port: nothing listens
    files = tuple(
        RemoteFile(file.path, (f"{nobody}/{file.name}", f"{nobody}/again"), file.size, file.sha256, file.unpacks_to)
        for source in (toy, photos)
        for file in source.files
    )
    both = Source("toy", "Noise.", "none", files)
    said = refused(both, tmp_path)
    assert "(no connection to 127.0.0.1; is this machine offline?)" in said
    for file in files:
        assert f"{file.urls[0]} to {tmp_path / file.path} (SHA-256 {file.sha256})" in said
    for path, content in (("twins/a.pth", CONTENT), ("photos.tar.gz", ARCHIVE)):  # as the message says
        put(tmp_path / path, content)
    assert fetch(both, tmp_path) == [tmp_path / "twins/a.pth", tmp_path / "photos"]
    assert (tmp_path / "photos/one.bin").read_bytes() == CONTENT
    assert (tmp_path / "photos.tar.gz").exists()  # the user's own
    assert site.asked == []


def test_a_proxy_that_does_not_answer_is_named(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    assert "is this machine offline?" in refused(source_of("http://example.invalid/a.pth"), tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(CONTENT[:-1], "299,999 bytes where 300,000 should be"), (OTHER, "SHA-256 is")],
    ids=["shorter", "other"],
)
def test_a_file_of_that_name_with_other_bytes_is_named_and_left_alone(site, toy, tmp_path, content, said):
    put(tmp_path / "twins/a.pth", content)
    assert refused(toy, tmp_path).startswith(f"{tmp_path / 'twins/a.pth'}: {said}")
    assert (tmp_path / "twins/a.pth").read_bytes() == content
    assert site.asked == []


def test_too_small_a_disk_is_said_before_anything_is_asked_for(site, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    said = refused(photos, tmp_path)
    assert f"disk full: photos.tar.gz needs {2 * len(ARCHIVE):,} bytes more, 1,000 are free" in said
    assert site.asked == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full, which takes no byte, is Linux's")
def test_a_disk_that_takes_no_more_bytes_is_said(site, toy, tmp_path):
    (tmp_path / "twins").mkdir()
    (tmp_path / "twins/a.pth.part").symlink_to("/dev/full")
    said = refused(toy, tmp_path)
    assert re.search(r"disk full: a\.pth needs 300,000 bytes more, [\d,]+ are free; make room and run the same", said)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_what_came_before_the_disk_was_full_is_kept(site, toy, tmp_path, code):
    def full(*_):
        raise OSError(code, os.strerror(code))

    put(tmp_path / "twins/a.pth.part", CONTENT[:1000])
    assert "disk full: a.pth needs" in refused(toy, tmp_path, progress=full)  # called right after a write
    fetch(toy, tmp_path)
    assert (tmp_path / "twins/a.pth").read_bytes() == CONTENT
    first, second = (int(wanted.removeprefix("bytes=").removesuffix("-")) for _, wanted in site.asked)
    assert first == 1000 < second


def test_a_disk_that_fills_up_while_unpacking_leaves_the_archive(site, photos, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching, "unpack", full)
    assert f"needs {len(ARCHIVE):,} bytes more" in refused(photos, tmp_path)
    monkeypatch.undo()
    fetch(photos, tmp_path)
    assert (tmp_path / "photos/one.bin").exists()
    assert len(site.asked) == 1


def test_a_data_folder_that_is_a_file_is_named(toy, tmp_path):
    (tmp_path / "data").write_bytes(b"")
    assert str(tmp_path / "data") in refused(toy, tmp_path / "data")


def test_threads_that_want_the_same_bring_it_once(site, photos, tmp_path):
    site.faults["photos.tar.gz"] = "slow"
    brought = []
    threads = [threading.Thread(target=lambda: brought.append(fetch(photos, tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert brought == [[tmp_path / "photos"]] * 3
    assert len(site.asked) == 1
    assert everything(tmp_path) == ["photos/one.bin"]


def test_another_process_waits_for_the_one_that_downloads(site, toy, tmp_path):
    code = (
        "import sys; from neuroprior.sources import *; print('ready', flush=True)\n"
        f"fetch(Source('toy', '', '', {toy.files!r}), sys.argv[1])"
    )
    begun, go = threading.Event(), threading.Event()

    def hold(*_):
        begun.set()
        go.wait()

    mine = threading.Thread(target=fetch, args=(toy, tmp_path), kwargs={"progress": hold})
    mine.start()
    begun.wait()
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        time.sleep(0.2)  # unlocked, it would ask and be done in this time
        assert other.poll() is None
        go.set()
        assert other.wait() == 0
    mine.join()
    assert site.asked == [("a.pth", "")]
    assert (tmp_path / "twins/a.pth").read_bytes() == CONTENT


def test_the_listing_says_absent_part_and_there(toy, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "SOURCES", (toy, photos))

    def states():
        return [(state.state, state.bytes_here, state.paths) for state in listing(tmp_path)]

    plain, folder = (tmp_path / "twins/a.pth",), (tmp_path / "photos",)
    assert states() == [("absent", 0, plain), ("absent", 0, folder)]
    put(tmp_path / "twins/a.pth.part", CONTENT[:1000])
    put(tmp_path / "photos.tar.gz", ARCHIVE)
    assert states() == [("part", 1000, plain), ("part", len(ARCHIVE), folder)]
    fetch(toy, tmp_path)
    fetch(photos, tmp_path)
    assert states() == [("there", 0, plain), ("there", 0, folder)]


def test_looking_up_what_there_is_does_not_load_the_web():
    code = "import sys, neuroprior.sources; print({'pooch', 'requests', 'filelock', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
    assert Path(fetching.__file__).name == "fetch.py"
