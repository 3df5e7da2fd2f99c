"""Archives become folders, whole or not at all; those that mean harm are refused by the name of the member."""

import io
import stat
import tarfile
import zipfile

import pytest

from neuroprior.sources.unpack import unpack
from neuroprior.types import InputError

LIMIT = 100_000
GOOD = {"data/one.bin": b"1" * 5000, "data/deep/none.bin": b""}


def tar_member(name, kind=tarfile.REGTYPE, link="", size=0):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.mode, member.uid = kind, link, size, 0o4777, 12345
    return member


def write_tar(path, *members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in GOOD.items():
            archive.addfile(tar_member(name, size=len(content)), io.BytesIO(content))
        for member in members:
            archive.addfile(member, io.BytesIO(b"0" * member.size))
    return path


def zip_member(name, mode=stat.S_IFREG):
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr, member.compress_type = 3, mode << 16, zipfile.ZIP_DEFLATED
    return member


def write_zip(path, *members, content=b"/etc/passwd"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, inside in GOOD.items():
            archive.writestr(name, inside)
        for member in members:
            archive.writestr(member, content)
    return path


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_the_folder_holds_what_the_archive_holds(tmp_path, kind):
    if kind == "zip":
        archive = write_zip(tmp_path / "a.zip", zip_member("data/empty/", stat.S_IFDIR), content=b"")
    else:
        archive = write_tar(tmp_path / "a.tar.gz", tar_member("data/empty", tarfile.DIRTYPE))
    said = []
    unpack(archive, tmp_path / "data", at_most=LIMIT, progress=lambda *done: said.append(done))
    assert everything(tmp_path / "data") == ["deep", "deep/none.bin", "empty", "one.bin"]
    assert (tmp_path / "data/one.bin").read_bytes() == GOOD["data/one.bin"]
    assert stat.S_IMODE((tmp_path / "data/one.bin").stat().st_mode) & 0o7133 == 0  # the archive's mode is not taken
    assert everything(tmp_path) == sorted([archive.name, "data", *(f"data/{p}" for p in everything(tmp_path / "data"))])
    assert said[-1][0] == f"unpacking {archive.name}"
    assert 0 < said[-1][1] <= said[-1][2] == archive.stat().st_size


EVIL = [
    ("../evil", tar_member("../evil", size=1), "would land outside"),
    ("data/../../evil", tar_member("data/../../evil", size=1), "would land outside"),
    ("/evil", tar_member("/evil", size=1), "would land outside"),
    ("C:evil", tar_member("C:evil", size=1), "would land outside"),
    ("data\\\\..\\\\evil", tar_member("data\\..\\evil", size=1), "would land outside"),
    ("data/out", tar_member("data/out", tarfile.SYMTYPE, "/etc"), "is a link"),
    ("data/up", tar_member("data/up", tarfile.SYMTYPE, "../.."), "is a link"),
    ("data/inside", tar_member("data/inside", tarfile.SYMTYPE, "one.bin"), "is a link"),
    ("data/hard", tar_member("data/hard", tarfile.LNKTYPE, "../../etc/passwd"), "is a link"),
    ("data/disk", tar_member("data/disk", tarfile.BLKTYPE), "is a device"),
    ("data/tty", tar_member("data/tty", tarfile.CHRTYPE), "is a device"),
    ("data/pipe", tar_member("data/pipe", tarfile.FIFOTYPE), "is a device"),
    ("../evil", zip_member("../evil"), "would land outside"),
    ("/evil", zip_member("/evil"), "would land outside"),
    ("C:/evil", zip_member("C:/evil"), "would land outside"),
    ("data/../../evil", zip_member("data/../../evil"), "would land outside"),
    ("data/out", zip_member("data/out", stat.S_IFLNK), "is a link"),
    ("data/pipe", zip_member("data/pipe", stat.S_IFIFO), "is a device"),
]


@pytest.mark.parametrize(("name", "member", "said"), EVIL, ids=[f"{type(m).__name__} {n} {s}" for n, m, s in EVIL])
def test_what_climbs_out_is_refused_by_name_and_leaves_nothing(tmp_path, name, member, said):
    home = tmp_path / "home"
    home.mkdir()
    write, suffix = (write_tar, "tar.gz") if isinstance(member, tarfile.TarInfo) else (write_zip, "zip")
    archive = write(home / f"a.{suffix}", member)
    with pytest.raises(InputError) as caught:
        unpack(archive, home / "data", at_most=LIMIT)
    assert str(caught.value).startswith(f"{archive}: member '{name}' {said}")
    assert everything(tmp_path) == ["home", f"home/{archive.name}"]


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path):
    archive = write_zip(tmp_path / "a.zip", zip_member("data/bomb"), content=b"0" * (LIMIT - 5000 + 1))
    assert archive.stat().st_size < LIMIT / 50
    with pytest.raises(InputError, match=r"a\.zip: unpacks to more than 100,000 bytes"):
        unpack(archive, tmp_path / "data", at_most=LIMIT)
    assert everything(tmp_path) == ["a.zip"]
    unpack(archive, tmp_path / "data", at_most=LIMIT + 1)  # the bound itself is allowed


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_damaged_archive_is_said_to_be_damaged(tmp_path, kind):
    whole = (write_zip if kind == "zip" else write_tar)(tmp_path / f"a.{kind}")
    cut = tmp_path / f"cut.{kind}"
    for content in (whole.read_bytes()[:-40], b"not an archive", b""):
        cut.write_bytes(content)
        with pytest.raises(InputError, match=r"cut\.\S+: damaged"):
            unpack(cut, tmp_path / "data", at_most=LIMIT)
    assert everything(tmp_path) == sorted([whole.name, cut.name])


def test_an_archive_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no folder other"):
        unpack(write_tar(tmp_path / "a.tar.gz"), tmp_path / "other", at_most=LIMIT)
    assert not (tmp_path / "other").exists()


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / ".data.unpacking/data").mkdir(parents=True)
    (tmp_path / ".data.unpacking/data/half.bin").write_bytes(b"half")
    unpack(write_tar(tmp_path / "a.tar.gz"), tmp_path / "data", at_most=LIMIT)
    assert everything(tmp_path / "data") == ["deep", "deep/none.bin", "one.bin"]
    assert not (tmp_path / ".data.unpacking").exists()
