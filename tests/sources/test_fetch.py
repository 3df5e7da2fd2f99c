"""Every fault of a server ends in the whole file or in one line that says what to do; nothing is asked for twice."""

import hashlib
import re

import pytest

from neuroprior.sources import fetch

from .toys import CONTENT, OTHER, everything, fetching, put, refused, source_of


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
    monkeypatch.setattr(fetching, "_PATIENCE", 0.0)
    monkeypatch.setattr(fetching, "_SLOW", 1e12)
    site.files |= {"slow": CONTENT, "slow%20too": CONTENT}
    site.faults |= {"slow": "slow", "slow%20too": "slow"}
    fetch(source_of(f"{site.url}/slow", f"{site.url}/{second}"), tmp_path)
    assert [path.replace("%20", " ") for path, _ in site.asked] == ["slow", second, "slow"]
    assert site.asked[-1][1].startswith("bytes=")
    assert (tmp_path / "twins/a.pth").read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_given_up(site, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_READ", 0.2)
    site.faults["a.pth"] = "hang"
    assert re.search(r"the connection broke after [\d,]+ of 300,000 bytes \(.*Read timed out", refused(toy, tmp_path))


def test_a_labs_own_mirrors_are_asked_first(site, toy, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROPRIOR_MIRROR", f"{site.url}/b/  {site.url}/c")
    site.files["c/a.pth"] = CONTENT
    fetch(toy, tmp_path, base_urls=[f"{site.url}/lab/"])
    assert [path for path, _ in site.asked] == ["lab/a.pth", "b/a.pth", "c/a.pth"]


def test_an_address_that_is_none_is_named(toy, tmp_path):
    assert "lab/a.pth: Invalid URL 'lab/a.pth'" in refused(source_of("ftp://x/a"), tmp_path, base_urls=["lab"])
