"""Sensorium folders and zips that are not as they should be: every fault names its file in the tree."""

import os
import pickle
import shutil
import stat
import zipfile

import numpy as np
import pytest
from sensorium_files import change, zipped
from small_scan import LAB_CHANNELS, LAB_IDS, small_scan, spoiled

from neuroprior.recordings.formats.sensorium import SENSORIUM
from neuroprior.types import InputError


@pytest.fixture
def scan():
    return small_scan("static21067-10-18", LAB_IDS, LAB_CHANNELS)


@pytest.fixture
def folder(scan, tmp_path):
    SENSORIUM.save(scan, tmp_path / "rec")
    return tmp_path / "rec"


def remove(folder, name):
    (folder / name).unlink()


def truncate(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-3])


def claim(folder, name):
    """A header that says the array is a thousand million times as large."""
    content = (folder / name).read_bytes()
    old = content[content.index(b"(") : content.index(b")") + 1]
    new = b"(9999999999,)"
    at = content.index(old)
    longer = content[:at] + new + content[at + len(old) :]
    end, extra = longer.index(b"\n"), len(new) - len(old)
    (folder / name).write_bytes(longer[: end - extra] + longer[end:])


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("it ran",))


def explode(folder, name):
    np.save(folder / name, np.array([Bomb()] * 3, dtype=object), allow_pickle=True)


def put(name, value):
    return lambda folder: np.save(folder / f"{name}.npy", value)


def with_(name, make):
    return lambda folder: change(folder, name, make)


NO_LIST = "is missing (meta/trials holds animal_id.npy, condition_hash.npy,"
FAULTS = {
    "no response": (
        lambda f: remove(f, "data/responses/3.npy"),
        "'data/responses/3.npy' is missing, while 'data/images/3.npy' is there; take",
    ),
    "no last response": (
        lambda f: remove(f, "data/responses/8.npy"),
        "'data/responses/8.npy' is missing, while 'data/images/8.npy' is",
    ),
    "no image": (
        lambda f: remove(f, "data/images/3.npy"),
        "'data/images/3.npy' is missing, while 'data/responses/3.npy' is there; take",
    ),
    "no behaviour": (
        lambda f: remove(f, "data/behavior/3.npy"),
        "'data/behavior/3.npy' is missing, while 'data/images/3.npy' is",
    ),
    "image without trial": (
        put("data/images/9", np.zeros((1, 3, 6), np.uint8)),
        "'data/responses/9.npy' is missing, while 'data/images/9.npy'",
    ),
    "no images at all": (
        lambda f: shutil.rmtree(f / "data" / "images"),
        "'data/images/0.npy' is missing, while 'data/responses/0.npy' is",
    ),
    "no trials": (
        lambda f: [shutil.rmtree(f / "data"), (f / "data" / "images").mkdir(parents=True)],
        "'data/responses' holds no trials; take",
    ),
    "hole": (
        lambda f: [os.rename(f / "data" / k / "8.npy", f / "data" / k / "10.npy") for k in os.listdir(f / "data")],
        "'data/images/8.npy' is missing, while trials go to 10; take another copy",
    ),
    "odd name": (
        put("data/images/first", np.zeros(3)),
        "'data/images/first.npy' is no trial's; move it away: trials are 0.npy",
    ),
    "two names": (put("data/images/07", np.zeros(3)), "'data/images/07.npy' is no trial's; move it away"),
    "broken link": (
        lambda f: [remove(f, "data/images/2.npy"), os.symlink("gone", f / "data" / "images" / "2.npy")],
        "'data/images/2.npy' cannot be read (No such file or directory); take",
    ),
    "longer response": (
        with_("data/responses/5", lambda r: np.ones(6, np.float32)),
        "'data/responses/5.npy' is (6,), while 'data/responses/0.npy' is (5,); give every",
    ),
    "flat responses": (
        put("data/responses/0", np.ones((1, 5))),
        "'data/responses/0.npy' is float64 (1, 5), not real numbers on one axis; give",
    ),
    "text response": (
        put("data/responses/4", np.array(["a"] * 5)),
        "'data/responses/4.npy' is <U1 (5,), not real numbers on one axis; give",
    ),
    "mixed images": (
        with_("data/images/5", lambda i: i[:, :2]),
        "'data/images/5.npy' is (1, 2, 6), while 'data/images/0.npy' is (1, 3, 6); give",
    ),
    "colour": (
        with_("data/images/0", lambda i: np.repeat(i, 3, axis=0)),
        "'data/images/0.npy' is uint8 (3, 3, 6), not (1, height, width); convert",
    ),
    "bright image": (
        with_("data/images/5", lambda i: np.full(i.shape, 260.5)),
        "'data/images/5.npy' is 260.5 at row 0, column 0 of trial 5; scale pictures",
    ),
    "image of NaN": (
        with_("data/images/5", lambda i: np.full(i.shape, np.nan)),
        "'data/images/5.npy' is nan at row 0, column 0 of trial 5; scale",
    ),
    "boolean image": (
        with_("data/images/5", lambda i: i > 9),
        "'data/images/5.npy' is bool, not numbers from 0 (black) to 255 (white); write",
    ),
    "images of 0 to 1": (
        lambda f: [change(f, f"data/images/{k}", lambda i: i / 255) for k in range(9)],
        "'data/images/0.npy' goes from 0 to 1 on every trial; multiply pictures by 255",
    ),
    "NaN": (
        with_("data/responses/1", lambda r: spoiled(r, 2, np.nan)),
        "'data/responses/1.npy' is nan on trial 1, column 2; drop the trial or mend",
    ),
    "NaN in one test trial": (
        with_("data/responses/3", lambda r: r * np.nan),
        "'data/responses/3.npy' is nan on trial 3, column 0, the first of 5 such values on 1 trial and 5 neurons; drop",
    ),
    "inf": (
        with_("data/responses/8", lambda r: spoiled(r, 4, np.inf)),
        "'data/responses/8.npy' is inf on trial 8, column 4; drop",
    ),
    "too large": (
        with_("data/responses/8", lambda r: spoiled(r.astype(float), 4, 1e300)),
        "'data/responses/8.npy' is inf on trial 8, column 4; drop",
    ),
    "inf of behaviour": (
        with_("data/behavior/8", lambda r: spoiled(r, 1, np.inf)),
        "'data/behavior/8.npy' is inf on trial 8, column 1; drop",
    ),
    "pupil of three": (
        lambda f: [put(f"data/pupil_center/{k}", np.ones(3))(f) for k in range(9)],
        "'data/pupil_center' is float32 (9, 3), not real numbers (9, 2); give",
    ),
    "no tiers": (lambda f: remove(f, "meta/trials/tiers.npy"), f"'meta/trials/tiers.npy' {NO_LIST}"),
    "few tiers": (
        with_("meta/trials/tiers", lambda t: t[:-1]),
        "'meta/trials/tiers.npy' has 8 rows for 9 trials in 'data/responses'; give each",
    ),
    "one tier": (
        put("meta/trials/tiers", np.array("train")),
        "'meta/trials/tiers.npy' has no rows for 9 trials in 'data/responses'; give",
    ),
    "unknown tier": (
        with_("meta/trials/tiers", lambda t: spoiled(t, 3, "live")),
        "'meta/trials/tiers.npy' is 'live' on trial 3; use only train, validation, test, final_test",
    ),
    "numbered tiers": (
        put("meta/trials/tiers", np.zeros(9, int)),
        "'meta/trials/tiers.npy' is int64 (9,), not strings (trial); give each trial one",
    ),
    "no UTF-8": (
        put("meta/trials/tiers", np.array([b"\xff"] * 9)),
        "'meta/trials/tiers.npy' is text that is not UTF-8; write it as UTF-8",
    ),
    "two tiers": (
        with_("meta/trials/tiers", lambda t: spoiled(t, 8, "validation")),
        "'meta/trials/tiers.npy' is 'train' on trial 0 and 'validation' on trial 8, which",
    ),
    "no ids": (
        lambda f: remove(f, "meta/trials/frame_image_id.npy"),
        "'meta/trials/frame_image_id.npy' is missing; give each trial the number of the",
    ),
    "few ids": (
        with_("meta/trials/frame_image_id", lambda i: i[:-1]),
        "'meta/trials/frame_image_id.npy' has 8 rows for 9 trials in",
    ),
    "real ids": (
        with_("meta/trials/frame_image_id", lambda i: i + 0.5),
        "'meta/trials/frame_image_id.npy' is float64 (9,), not integers (trial); give",
    ),
    "few classes": (
        with_("meta/trials/frame_image_class", lambda i: i[:-1]),
        "'meta/trials/frame_image_class.npy' has 8 rows for 9 trials in",
    ),
    "one id, two pictures": (
        with_("meta/trials/frame_image_id", lambda i: spoiled(i, 1, 17)),
        "'meta/trials/frame_image_id.npy' is 'imagenet-17' on trials 0 and 1, whose pictures",
    ),
    "one picture, two ids": (
        with_("meta/trials/frame_image_id", lambda i: spoiled(i, 8, 18)),
        "'meta/trials/frame_image_id.npy' gives one picture two ids, 'imagenet-17' and",
    ),
    "few coordinates": (
        with_("meta/neurons/cell_motor_coordinates", lambda c: c[:-1]),
        "'meta/neurons/cell_motor_coordinates.npy' has 4 rows, but there are 5 neurons in 'data/responses';",
    ),
    "many units": (
        put("meta/neurons/unit_ids", np.arange(6)),
        "'meta/neurons/unit_ids.npy' is int64 (6,) for 5 neurons in 'data/responses'; give",
    ),
    "names of behaviour": (
        put("meta/behavior_names", np.array(["a", "b"])),
        "'meta/behavior_names.npy' is <U1 (2,), not 3 strings; give one for each channel",
    ),
    "objects": (
        lambda f: explode(f, "meta/trials/tiers.npy"),
        "'meta/trials/tiers.npy' cannot be read (Object arrays cannot be read",
    ),
    "objects of a trial": (
        lambda f: explode(f, "data/responses/4.npy"),
        "'data/responses/4.npy' cannot be read (Object arrays cannot be read",
    ),
    "cut off": (
        lambda f: truncate(f, "data/responses/4.npy"),
        "'data/responses/4.npy' cannot be read (it says float32 (5,), for which the file has the",
    ),
    "cut off in its head": (
        lambda f: (f / "data/images/4.npy").write_bytes(b"\x93NUMPY\x01"),
        "'data/images/4.npy' cannot be read (",
    ),
    "empty file": (lambda f: (f / "data/images/4.npy").write_bytes(b""), "'data/images/4.npy' cannot be read ("),
    "no npy": (lambda f: (f / "data/images/4.npy").write_bytes(b"GIF89a" * 50), "'data/images/4.npy' cannot be read ("),
    "claims": (
        lambda f: claim(f, "data/responses/4.npy"),
        "'data/responses/4.npy' cannot be read (it says float32 (9999999999,), for which",
    ),
    "all withheld": (
        lambda f: [
            put("meta/trials/tiers", np.array(["test"] * 9))(f),
            *[put(f"data/responses/{k}", np.zeros(5))(f) for k in range(9)],
        ],
        "'data/responses' is 0 or NaN on every trial: withheld; ask",
    ),
}


@pytest.mark.parametrize(
    ("fault", "as_zip"),  # a link is no member of a zip that Python packs
    [(fault, as_zip) for fault in FAULTS for as_zip in (False, True) if not (as_zip and fault == "broken link")],
)
def test_a_fault_is_one_line_with_file_dataset_and_mend(folder, tmp_path, monkeypatch, shapes_unchecked, fault, as_zip):
    monkeypatch.chdir(tmp_path)  # where the bomb would go off
    spoil, says = FAULTS[fault]
    spoil(folder)
    path = zipped(folder, tmp_path / "rec.zip", "rec/") if as_zip else folder
    with pytest.raises(InputError) as error:
        SENSORIUM.load(path)
    said = str(error.value)
    assert said.startswith(f"{path}: dataset {says}")
    assert ";" in said
    assert "\n" not in said
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ("/data/images/0.npy", "member '/data/images/0.npy' leads out of the zip; pack it from the folder's inside"),
        ("../data/images/0.npy", "member '../data/images/0.npy' leads out of the zip"),
        ("data/../../images/0.npy", "member 'data/../../images/0.npy' leads out of the zip"),
        ("C:/data/images/0.npy", "member 'C:/data/images/0.npy' leads out of the zip"),
        ("..\\data\\0.npy", "member '..\\\\data\\\\0.npy' leads out of the zip"),
        ("other/data/images/0.npy", "holds 2 recordings (, other/); give each a zip of its own"),
    ],
)
def test_a_member_that_leads_elsewhere_is_refused(folder, tmp_path, member, says):
    path = zipped(folder, tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"")
    with pytest.raises(InputError) as error:
        SENSORIUM.load(path)
    assert str(error.value).startswith(f"{path}: {says}")
    assert "\n" not in str(error.value)


def test_a_member_that_is_a_link_is_refused(folder, tmp_path):
    path = zipped(folder, tmp_path / "a.zip")
    link = zipfile.ZipInfo("data/images/9.npy")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"a\.zip: member 'data/images/9\.npy' is a link; pack the file that it leads"):
        SENSORIUM.load(path)


def test_a_zip_that_grows_as_no_recording_does_is_refused(folder, tmp_path, monkeypatch):
    path = zipped(folder, tmp_path / "a.zip")
    whole = zipfile.ZipFile.infolist

    def claiming(archive):
        infos = whole(archive)
        infos[-1].file_size = 1 << 40
        return infos

    monkeypatch.setattr(zipfile.ZipFile, "infolist", claiming)
    with pytest.raises(
        InputError, match=r"a\.zip: grows from \d+ kB to 1048576 MB, as no recording does; take another"
    ):
        SENSORIUM.load(path)


def test_what_is_no_zip_and_no_recording_is_said(scan, folder, tmp_path):
    whole = zipped(folder, tmp_path / "a.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    assert SENSORIUM.recognises(tmp_path / "cut.zip")
    with pytest.raises(InputError, match=r"cut\.zip: not a zip file, or damaged; take another copy of the recording"):
        SENSORIUM.load(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(InputError, match=r"other\.zip: holds none of the folders data/images, data/responses,"):
        SENSORIUM.load(tmp_path / "other.zip")
    with pytest.raises(InputError, match=r"none: no such file or folder; take another copy"):
        SENSORIUM.load(tmp_path / "none")
    (tmp_path / "pickle").write_bytes(pickle.dumps(scan.name))
    for place in ("other.zip", "none", "pickle", ""):
        assert not SENSORIUM.recognises(tmp_path / place)
