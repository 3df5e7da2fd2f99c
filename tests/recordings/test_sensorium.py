"""Sensorium folders and zips: what is written is read to the last bit, and others can read it."""

import dataclasses
import os
import time
import zipfile

import numpy as np
import pytest
from sensorium_files import change, zipped
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
