"""Sensorium folders and zips: what is written is read to the last bit, and every fault names its file in the tree."""

import dataclasses
import os
import pickle
import shutil
import stat
import time
import zipfile

import numpy as np
import pytest
from small_scan import LAB_CHANNELS, LAB_IDS, NEURONS, TRIALS, reidentified, same, small_scan, spoiled

from neuroprior.recordings.formats.sensorium import SENSORIUM
from neuroprior.types import InputError, Scan, Stimuli

MEASURES = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max, "median": np.median}


@pytest.fixture
def scan():
    return small_scan("static21067-10-18", LAB_IDS, LAB_CHANNELS)


PLACES = ["a-folder", "a.zip", "new/static1-2-3-GrayImageNet-94c6ff99"]


@pytest.mark.parametrize("place", PLACES)
def test_what_is_saved_is_loaded(scan, tmp_path, place):
    SENSORIUM.save(scan, tmp_path / place)
    assert SENSORIUM.recognises(tmp_path / place)
    assert same(SENSORIUM.load(tmp_path / place), scan)
    assert not [name for name in os.listdir((tmp_path / place).parent) if name.startswith(".")]


OTHERS = {
    "bare": lambda s: dataclasses.replace(s, behavior=None, behavior_names=(), pupil_center=None, neuron_xyz=None),
    "one channel": lambda s: dataclasses.replace(s, behavior=s.behavior[:, :1], behavior_names=("Größe",)),
    "renamed": lambda s: dataclasses.replace(s, behavior_names=("a", "b", "c")),
    "unnamed": lambda s: dataclasses.replace(
        s, name="Maus Ä", behavior_names=("behavior_0", "behavior_1", "behavior_2")
    ),
    "lost eye": lambda s: dataclasses.replace(s, pupil_center=spoiled(s.pupil_center, (2, 0), np.nan)),
    "numbers": lambda s: reidentified(s, ["7", "12", "0", "a-7"]),
    "words": lambda s: reidentified(s, ["imagenet-007", "cat", "imagenet-7", "ö"]),
    "minus": lambda s: reidentified(s, ["-3", "a--3", "a-3", "3"]),
    "huge": lambda s: reidentified(s, ["a-1", "a-2", "a-3", f"a-{2**63}"]),
    "an oracle trial of silence": lambda s: dataclasses.replace(s, responses=spoiled(s.responses, 2, 0)),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_the_lab_has_no_place_for_comes_back_too(scan, tmp_path, other):
    SENSORIUM.save(other(scan), tmp_path / "a.zip")
    assert same(SENSORIUM.load(tmp_path / "a.zip"), other(scan))


def test_images_come_back_in_the_order_in_which_they_were_shown(scan, tmp_path):
    back = np.array([3, 1, 0, 2])  # where each image of the new order stood
    turned = dataclasses.replace(
        scan,
        stimuli=Stimuli(scan.stimuli.ids[back], scan.stimuli.pixels[back]),
        trial_image=np.argsort(back)[scan.trial_image],
    )
    SENSORIUM.save(turned, tmp_path / "a")
    assert same(SENSORIUM.load(tmp_path / "a"), scan)
    np.testing.assert_array_equal(SENSORIUM.load(tmp_path / "a").trial_ids, turned.trial_ids)


@pytest.mark.parametrize("place", ["a", "a.zip"])
def test_same_scan_same_bytes(scan, tmp_path, place):
    contents = []
    for folder in ("one", "two"):
        SENSORIUM.save(scan, tmp_path / folder / place)
        files = sorted(file for file in (tmp_path / folder).rglob("*") if file.is_file())
        contents.append([(file.relative_to(tmp_path / folder), file.read_bytes()) for file in files])
    assert contents[0] == contents[1]


def test_the_layout_is_the_one_that_other_libraries_read(scan, tmp_path):
    SENSORIUM.save(scan, tmp_path / "rec")

    def stored(name):
        return np.load(tmp_path / "rec" / f"{name}.npy", allow_pickle=False)

    assert sorted(os.listdir(tmp_path / "rec" / "data")) == ["behavior", "images", "pupil_center", "responses"]
    for kind in ("behavior", "images", "pupil_center", "responses"):
        assert sorted(os.listdir(tmp_path / "rec" / "data" / kind)) == [f"{trial}.npy" for trial in range(TRIALS)]
    image = stored("data/images/4")
    assert image.dtype == np.uint8
    assert image.shape == (1, 3, 6)
    np.testing.assert_array_equal(image[0], scan.stimuli.pixels[3])
    np.testing.assert_array_equal(stored("data/responses/4"), scan.responses[4])
    np.testing.assert_array_equal(stored("data/behavior/4"), scan.behavior[4])
    np.testing.assert_array_equal(stored("data/pupil_center/4"), scan.pupil_center[4])
    assert stored("meta/trials/tiers").tolist() == ["train", "validation", *["test"] * 6, "train"]
    assert stored("meta/trials/frame_image_id").tolist() == [17, 4, 923, 4, 4, 923, 4, 923, 17]
    assert stored("meta/trials/frame_image_class").tolist()[2:5] == ["imagenet", "noise", "noise"]
    assert stored("meta/trials/trial_idx").tolist() == list(range(TRIALS))
    hashes = stored("meta/trials/condition_hash")
    assert len(np.unique(hashes)) == 4
    assert hashes[3] == hashes[4]
    np.testing.assert_array_equal(stored("meta/neurons/cell_motor_coordinates"), scan.neuron_xyz)
    assert stored("meta/neurons/unit_ids").tolist() == [1, 2, 3, 4, 5]
    for name, number in (("animal_ids", 21067), ("sessions", 10), ("scan_idx", 18)):
        assert stored(f"meta/neurons/{name}").tolist() == [number] * NEURONS
    assert sorted(os.listdir(tmp_path / "rec" / "meta")) == ["name.npy", "neurons", "statistics", "trials"]
    assert not (tmp_path / "rec" / "meta" / "trials" / "image_name.npy").exists()


@pytest.mark.parametrize("over", ["all", "stimulus_frame"])
def test_statistics_are_those_of_the_training_trials(scan, tmp_path, over):
    lost = dataclasses.replace(scan, pupil_center=spoiled(scan.pupil_center, (8, 1), np.nan))
    SENSORIUM.save(lost, tmp_path / "rec")
    train = np.array([0, 8])
    for measure, of in MEASURES.items():
        at = tmp_path / "rec" / "meta" / "statistics"
        image = np.load(at / "images" / over / f"{measure}.npy")
        assert image.shape == ()
        np.testing.assert_allclose(image, of(scan.stimuli.pixels[[0, 0]]), rtol=1e-12)
        for kind in ("responses", "behavior"):
            found = np.load(at / kind / over / f"{measure}.npy")
            np.testing.assert_allclose(found, of(getattr(scan, kind)[train].astype(float), axis=0), rtol=1e-12)
        pupil = np.load(at / "pupil_center" / over / f"{measure}.npy")
        whole, single = lost.pupil_center[train, 0].astype(float), lost.pupil_center[:1, 1].astype(float)
        np.testing.assert_allclose(pupil, [of(whole), of(single)], rtol=1e-12)


def test_statistics_of_columns_do_not_depend_on_how_many_are_looked_at_together(scan, tmp_path):
    rng = np.random.default_rng(1)
    wide = dataclasses.replace(scan, responses=rng.random((TRIALS, 600), dtype=np.float32), neuron_xyz=None)
    none_to_train = dataclasses.replace(wide, tier=np.array([*["validation"] * 2, *["oracle"] * 6, "validation"]))
    for name, recording, trials in (("a", wide, [0, 8]), ("b", none_to_train, slice(None))):
        SENSORIUM.save(recording, tmp_path / name)
        for measure, of in MEASURES.items():
            found = np.load(tmp_path / name / "meta" / "statistics" / "responses" / "all" / f"{measure}.npy")
            np.testing.assert_allclose(found, of(wide.responses[trials].astype(float), axis=0), rtol=1e-12)


@pytest.fixture
def folder(scan, tmp_path):
    SENSORIUM.save(scan, tmp_path / "rec")
    return tmp_path / "rec"


def change(folder, name, make):
    np.save(folder / f"{name}.npy", make(np.load(folder / f"{name}.npy")))


def zipped(folder, path, top=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, top + str(file.relative_to(folder)))
    return path


@pytest.mark.parametrize("top", ["", "rec/", "some/where/"])
def test_a_zip_may_hold_the_folder_or_its_inside(scan, folder, tmp_path, top):
    path = zipped(folder, tmp_path / "a.zip", top)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/data/images/._0.npy", b"")
    assert SENSORIUM.recognises(path)
    assert same(SENSORIUM.load(path), scan)


def test_our_zip_stands_in_a_folder_of_its_own_name(scan, tmp_path):
    SENSORIUM.save(scan, tmp_path / "static1-GrayImageNet-9.zip")
    with zipfile.ZipFile(tmp_path / "static1-GrayImageNet-9.zip") as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"static1-GrayImageNet-9"}
        archive.extractall(tmp_path / "out")
    assert same(SENSORIUM.load(tmp_path / "out" / "static1-GrayImageNet-9"), scan)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("static21067-10-18-GrayImageNet-94c6ff995dac583098847cfecd43e7b6", "static21067-10-18"),
        ("static21067-10-18-GrayImageNet-94c6ff995dac583098847cfecd43e7b6.zip", "static21067-10-18"),
        ("static22564-2-13-preproc0", "static22564-2-13-preproc0"),
        ("mouse.v2", "mouse.v2"),
    ],
)
def test_a_recording_without_a_name_is_called_as_its_place(folder, tmp_path, place, name):
    (folder / "meta" / "name.npy").unlink()
    if place.endswith(".zip"):
        zipped(folder, tmp_path / place)
    else:
        folder.rename(tmp_path / place)
    assert SENSORIUM.load(tmp_path / place).name == name


def test_pictures_of_real_numbers_are_rounded_and_it_is_said(scan, folder):
    for trial in range(TRIALS):
        change(folder, f"data/images/{trial}", lambda image: image.astype(np.float32))
    assert same(SENSORIUM.load(folder), scan)
    for trial in (0, 8):
        change(folder, f"data/images/{trial}", lambda image: np.clip(image + 0.25, 0, 255))
    loaded = SENSORIUM.load(folder)
    assert loaded.notes == ("pictures rounded to 8 bits, by 0.25 at most",)
    assert same(dataclasses.replace(loaded, notes=()), scan)


def test_responses_of_other_widths_and_orders_are_converted(scan, folder):
    for trial in range(TRIALS):
        change(folder, f"data/responses/{trial}", lambda row: row.astype([">f8", "<f4", "<f8"][trial % 3]))  # noqa: B023
        change(folder, f"data/images/{trial}", np.asfortranarray)
    change(folder, "meta/trials/tiers", lambda tiers: tiers.astype("S"))
    assert same(SENSORIUM.load(folder), scan)


@pytest.mark.parametrize("picture", ["frame_image", "colorframeprojector_image", "image"])
def test_pictures_are_named_by_the_first_pair_that_is_there(scan, folder, picture):
    trials = folder / "meta" / "trials"
    for part in ("id", "class"):
        (trials / f"frame_image_{part}.npy").rename(trials / f"{picture}_{part}.npy")
    np.save(trials / "image_id.npy", np.load(trials / f"{picture}_id.npy"))
    assert same(SENSORIUM.load(folder), scan)
    (trials / f"{picture}_class.npy").unlink()
    np.save(trials / f"{picture}_id.npy", np.array([17, 4, 923, 5, 5, 923, 5, 923, 17]))
    assert SENSORIUM.load(folder).stimuli.ids.tolist() == ["17", "4", "923", "5"]


def test_columns_of_behaviour_are_the_labs_where_there_are_three(folder):
    for trial in range(TRIALS):
        change(folder, f"data/behavior/{trial}", lambda row: row[:2])
    assert SENSORIUM.load(folder).behavior_names == ("behavior_0", "behavior_1")


def test_final_test_is_oracle_too(scan, folder):
    tiers = np.load(folder / "meta" / "trials" / "tiers.npy").astype("<U10")
    tiers[[2, 5, 7]] = "final_test"
    np.save(folder / "meta" / "trials" / "tiers.npy", tiers)
    assert same(SENSORIUM.load(folder), scan)


@pytest.mark.parametrize("withheld", [0.0, np.nan])
@pytest.mark.parametrize("tier", ["test", "final_test"])
def test_trials_whose_responses_are_withheld_are_left_out_and_noted(scan, folder, withheld, tier):
    tiers = np.load(folder / "meta" / "trials" / "tiers.npy").astype("<U10")
    tiers[[2, 5, 7]] = "final_test"
    np.save(folder / "meta" / "trials" / "tiers.npy", tiers)
    for trial in np.flatnonzero(tiers == tier):
        change(folder, f"data/responses/{trial}", lambda row: np.full_like(row, withheld))
    kept = tiers != tier
    loaded = SENSORIUM.load(folder)
    assert loaded.notes == (f"3 trials of tier {tier!r} left out: their responses are withheld (0 or NaN)",)
    for name in ("responses", "behavior", "pupil_center", "tier", "trial_ids"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(scan, name)[kept])
    gone = "noise-4" if tier == "test" else "imagenet-923"
    assert loaded.stimuli.ids.tolist() == [name for name in scan.stimuli.ids.tolist() if name != gone]


def test_a_scan_that_would_be_read_as_withheld_is_not_written(scan, tmp_path):
    silent = dataclasses.replace(scan, responses=spoiled(scan.responses, slice(2, 8), 0))
    with pytest.raises(InputError, match=r"a\.zip: field 'responses' is 0 on every oracle trial, which here means"):
        SENSORIUM.save(silent, tmp_path / "new" / "a.zip")
    assert not os.listdir(tmp_path)


def test_what_could_not_be_read_again_is_not_written(scan, tmp_path):
    lost = dataclasses.replace(scan, pupil_center=spoiled(scan.pupil_center, (2, 0), np.inf))
    for place in ("lost", "lost.zip"):
        with pytest.raises(InputError, match=r"lost.*: field 'pupil_center' is inf in row 2, column 0"):
            SENSORIUM.save(lost, tmp_path / place)
    assert not os.listdir(tmp_path)


def test_a_folder_that_is_in_use_is_left_alone(scan, tmp_path):
    (tmp_path / "empty").mkdir()
    SENSORIUM.save(scan, tmp_path / "empty")
    assert same(SENSORIUM.load(tmp_path / "empty"), scan)
    (tmp_path / "file").write_text("mine")
    for place in ("empty", "file"):
        with pytest.raises(InputError, match=rf"{place}: there is something already; name another place, or move it"):
            SENSORIUM.save(dataclasses.replace(scan, name="other"), tmp_path / place)
    assert SENSORIUM.load(tmp_path / "empty").name == scan.name
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(InputError, match=r"under: cannot be written \(.+\); name another place"):
        SENSORIUM.save(scan, tmp_path / "file" / "under")
    assert sorted(os.listdir(tmp_path)) == ["empty", "file"]


@pytest.mark.parametrize("place", ["a", "a.zip"])
def test_a_recording_that_stops_halfway_does_not_appear(scan, tmp_path, monkeypatch, place):
    written = []

    def full(stream, array, **options):
        written.append(array)
        if len(written) > 60:
            raise OSError(28, "No space left on device")
        np.lib._format_impl.write_array(stream, array, **options)

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); name another place"):
        SENSORIUM.save(scan, tmp_path / place)
    assert not os.listdir(tmp_path)


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


def test_a_damaged_zip_is_an_input_error_wherever_the_damage_is(scan, tmp_path):
    SENSORIUM.save(scan, tmp_path / "whole.zip")
    whole = (tmp_path / "whole.zip").read_bytes()
    rng = np.random.default_rng(0)
    refused: list[str] = []
    for place in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        (tmp_path / "damaged.zip").write_bytes(damaged)
        SENSORIUM.recognises(tmp_path / "damaged.zip")
        try:
            SENSORIUM.load(tmp_path / "damaged.zip")
        except InputError as error:
            refused.append(str(error))
    assert not [said for said in refused if "\n" in said]
    assert len(refused) > 50  # statistics are not read, and some bytes (dates, flags) mean nothing


def test_a_thousand_trials_are_read_in_well_under_a_second(tmp_path):
    trials = 1000
    rng = np.random.default_rng(0)
    large = Scan(
        name="large",
        stimuli=Stimuli(np.arange(trials).astype(np.str_), rng.integers(0, 256, (trials, 36, 64), np.uint8)),
        trial_image=np.arange(trials),
        responses=rng.random((trials, 500), dtype=np.float32),
        tier=np.full(trials, "train"),
    )
    SENSORIUM.save(large, tmp_path / "large")
    start = time.process_time()
    assert same(SENSORIUM.load(tmp_path / "large"), large)
    assert time.process_time() - start < 1.0
