"""Every fault of a download ends in the whole file or in one line that says what to do; nothing is asked for twice."""

import errno
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from neuroprior.sources import RemoteFile, Source, fetch, listing
from neuroprior.types import InputError

module = import_module("neuroprior.sources.fetch")  # the package's name for the function hides the module

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)


def archive_of(content):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("photos/one.bin")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


ARCHIVE = archive_of(CONTENT)


def source_of(*urls, path="twins/a.pth", content=CONTENT, unpacks_to=None):
    file = RemoteFile(path, urls, len(content), hashlib.sha256(content).hexdigest(), unpacks_to)
    return Source("toy", "Noise.", "none", (file,))


@pytest.fixture
def toy(site):
    """One plain file, on one address."""
    site.files["a.pth"] = CONTENT
    return source_of(f"{site.url}/a.pth")


@pytest.fixture
def photos(site):
    """One archive, on one address."""
    site.files["photos.tar.gz"] = ARCHIVE
    return source_of(f"{site.url}/photos.tar.gz", path="photos.tar.gz", content=ARCHIVE, unpacks_to="photos")


def refused(source, folder, **options):
    with pytest.raises(InputError) as caught:
        fetch(source, folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_a_file_is_brought_once(site, toy, tmp_path):
    said = []
    assert fetch(toy, tmp_path, progress=lambda *done: said.append(done)) == [tmp_path / "twins/a.pth"]
    assert (tmp_path / "twins/a.pth").read_bytes() == CONTENT
    assert everything(tmp_path) == ["twins/a.pth"]
    assert site.asked == [("a.pth", "")]
    assert all(re.fullmatch(r"neuroprior/\d+\.\d+\.\d+", agent) for agent in site.agents)
    assert said[-1] == ("a.pth", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in said] == sorted(done for _, done, _ in said)
    fetch(toy, tmp_path)
    assert len(site.asked) == 1


def test_an_archive_is_brought_once_and_unpacked(site, photos, tmp_path):
    assert fetch(photos, tmp_path) == [tmp_path / "photos"]
    assert (tmp_path / "photos/one.bin").read_bytes() == CONTENT
    assert everything(tmp_path) == ["photos/one.bin"]
    fetch(photos, tmp_path)
    assert site.asked == [("photos.tar.gz", "")]


def test_an_archive_is_kept_on_demand_and_unpacked_again_without_the_network(site, photos, tmp_path):
    fetch(photos, tmp_path, keep_archive=True)
    assert everything(tmp_path) == ["photos.tar.gz", "photos/one.bin"]
    (tmp_path / "photos/one.bin").unlink()
    (tmp_path / "photos").rmdir()
    fetch(photos, tmp_path)
    assert everything(tmp_path) == ["photos.tar.gz", "photos/one.bin"]
    assert len(site.asked) == 1


def test_what_is_whole_is_found_without_writing(site, toy, tmp_path, monkeypatch):
    """A data folder may be read-only and shared: then not even a lock can be made in it."""
    fetch(toy, tmp_path)
    monkeypatch.setattr("filelock.FileLock", None)
    fetch(toy, tmp_path)
    assert len(site.asked) == 1


def test_an_interrupted_download_asks_only_for_what_is_missing(site, toy, tmp_path):
    site.faults["a.pth"] = "cut"
    said = refused(toy, tmp_path)
    assert "the connection broke after 100,000 of 300,000 bytes" in said
    assert "run the same command again to go on from the 100,000 bytes that are here" in said
    assert (tmp_path / "twins/a.pth.part").read_bytes() == CONTENT[:100_000]
    site.faults.clear()
    fetch(toy, tmp_path)
    assert site.asked == [("a.pth", ""), ("a.pth", "bytes=100000-")]
    assert (tmp_path / "twins/a.pth").read_bytes() == CONTENT
    assert everything(tmp_path) == ["twins/a.pth"]


def test_a_server_that_does_not_say_how_long_the_file_is(site, toy, tmp_path):
    site.faults["a.pth"] = "no length"
    assert "the connection broke after 100,000 of 300,000 bytes" in refused(toy, tmp_path)


@pytest.mark.parametrize(
    ("fault", "asked"),
    [("no ranges", ["bytes=1000-"]), ("wrong range", ["bytes=1000-", ""]), ("416", ["bytes=1000-", ""])],
)
def test_a_server_that_cannot_continue_starts_again(site, toy, tmp_path, fault, asked):
    put(tmp_path / "twins/a.pth.part", CONTENT[:1000])
    site.faults["a.pth"] = fault
    fetch(toy, tmp_path)
    assert (tmp_path / "twins/a.pth").read_bytes() == CONTENT
    assert [wanted for _, wanted in site.asked] == asked


@pytest.mark.parametrize(
    ("part", "asked"),
    [
        (CONTENT, []),  # killed before it was checked
        (CONTENT + b"and more", [""]),
        (OTHER, [""]),
        (OTHER[:1000], ["bytes=1000-", ""]),  # of another version: only the checksum of the whole can tell
        (b"", [""]),
    ],
    ids=["whole", "longer", "as long, other", "other beginning", "empty"],
)
def test_whatever_was_left_of_a_download_the_file_comes_out_right(site, toy, tmp_path, part, asked):
    put(tmp_path / "twins/a.pth.part", part)
    fetch(toy, tmp_path)
    assert (tmp_path / "twins/a.pth").read_bytes() == CONTENT
    assert [wanted for _, wanted in site.asked] == asked
    assert everything(tmp_path) == ["twins/a.pth"]


def test_a_wrong_checksum_says_both_and_leaves_nothing(site, toy, tmp_path):
    site.files["a.pth"] = OTHER
    said = refused(toy, tmp_path)
    expected, got = (hashlib.sha256(content).hexdigest() for content in (CONTENT, OTHER))
    assert f"wrong checksum, expected SHA-256 {expected}, got {got}" in said
    assert everything(tmp_path / "twins") == [".a.pth.lock"]


def test_another_version_is_seen_by_its_length_before_anything_is_thrown_away(site, toy, tmp_path):
    put(tmp_path / "twins/a.pth.part", CONTENT[:1000])
    site.files["a.pth"], site.faults["a.pth"] = OTHER + b"!", "no ranges"
    assert "it offers 300,001 bytes where 300,000 should come: another version" in refused(toy, tmp_path)
    assert (tmp_path / "twins/a.pth.part").read_bytes() == CONTENT[:1000]


def test_a_server_that_goes_on_and_on_is_left(site, toy, tmp_path):
    site.files["a.pth"], site.faults["a.pth"], site.cut_after = CONTENT + bytes(1_000_000), "no length", 10_000_000
    done = []
    said = refused(toy, tmp_path, progress=lambda name, here, whole: done.append(here))
    assert "wrong checksum" in said
    assert len(CONTENT) < max(done) < 2 * len(CONTENT)


@pytest.mark.parametrize("fault", ["page", "bare page"])
def test_a_web_page_is_not_taken_for_the_file(site, toy, tmp_path, fault):
    put(tmp_path / "twins/a.pth.part", CONTENT[:1000])
    site.faults["a.pth"] = fault
    said = refused(toy, tmp_path)
    assert "a web page came in place of the file" in said
    assert "checksum" not in said
    assert (tmp_path / "twins/a.pth.part").read_bytes() == CONTENT[:1000]


def test_a_server_that_calls_the_gz_an_encoding_does_not_unpack_it(site, photos, tmp_path):
    site.faults["photos.tar.gz"] = "gzip"
    fetch(photos, tmp_path)
    assert (tmp_path / "photos/one.bin").read_bytes() == CONTENT


def test_mirrors_take_over_the_same_part(site, tmp_path):
    site.files |= {"broken": CONTENT, "page": CONTENT, "good": CONTENT, "never": CONTENT}
    site.faults |= {"broken": "cut", "page": "page"}
    fetch(source_of(*(f"{site.url}/{name}" for name in ("gone", "broken", "page", "good", "never"))), tmp_path)
    assert site.asked == [("gone", ""), ("broken", ""), ("page", "bytes=100000-"), ("good", "bytes=100000-")]
    assert (tmp_path / "twins/a.pth").read_bytes() == CONTENT


def test_a_mirror_is_not_blamed_for_the_beginning_that_another_sent(site, tmp_path):
    site.files |= {"other": OTHER, "good": CONTENT}
    site.faults["other"] = "cut"
    fetch(source_of(f"{site.url}/other", f"{site.url}/good"), tmp_path)
    assert site.asked == [("other", ""), ("good", "bytes=100000-"), ("good", "")]
    assert (tmp_path / "twins/a.pth").read_bytes() == CONTENT


def test_when_all_fail_each_one_is_named_with_its_fault_and_without_its_password(site, tmp_path):
    site.files |= {"broken": CONTENT, "page": CONTENT, "other": OTHER}
    site.faults |= {"broken": "cut", "page": "page"}
    source = source_of(*(f"{site.url}/{name}" for name in ("page", "other", "broken")))
    said = refused(source, tmp_path, base_urls=[site.url.replace("//", "//me:secret@")])
    assert f"{site.url}/a.pth: HTTP 404" in said
    assert f"{site.url}/page: a web page came" in said
    assert f"{site.url}/other: wrong checksum" in said
    assert f"{site.url}/broken: the connection broke" in said
    assert "secret" not in said


@pytest.mark.parametrize("second", ["slow too", "gone"])
def test_a_slow_address_is_left_for_the_next_and_waited_for_when_none_is_better(site, tmp_path, monkeypatch, second):
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    monkeypatch.setattr(module, "_SLOW", 1e12)
    site.files |= {"slow": CONTENT, "slow%20too": CONTENT}
    site.faults |= {"slow": "slow", "slow%20too": "slow"}
    fetch(source_of(f"{site.url}/slow", f"{site.url}/{second}"), tmp_path)
    assert [path.replace("%20", " ") for path, _ in site.asked] == ["slow", second, "slow"]
    assert site.asked[-1][1].startswith("bytes=")
    assert (tmp_path / "twins/a.pth").read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_given_up(site, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_READ", 0.2)
    site.faults["a.pth"] = "hang"
    assert re.search(r"the connection broke after [\d,]+ of 300,000 bytes \(.*Read timed out", refused(toy, tmp_path))


def test_a_labs_own_mirrors_are_asked_first(site, toy, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROPRIOR_MIRROR", f"{site.url}/b/  {site.url}/c")
    site.files["c/a.pth"] = CONTENT
    fetch(toy, tmp_path, base_urls=[f"{site.url}/lab/"])
    assert [path for path, _ in site.asked] == ["lab/a.pth", "b/a.pth", "c/a.pth"]


def test_an_address_that_is_none_is_named(toy, tmp_path):
    assert "lab/a.pth: Invalid URL 'lab/a.pth'" in refused(source_of("ftp://x/a"), tmp_path, base_urls=["lab"])


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
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
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

    monkeypatch.setattr(module, "unpack", full)
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
    monkeypatch.setattr(module, "SOURCES", (toy, photos))

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
    assert Path(module.__file__).name == "fetch.py"
