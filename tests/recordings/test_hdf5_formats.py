"""HDF5 recordings, the lab's and the plain one: to the last bit and back, lazily."""

import dataclasses
import hashlib
import os

import h5py
import numpy as np
import pytest
from hdf5_files import BOTH
from small_scan import LAB_CHANNELS, LAB_IDS, NEURONS, TRIALS, reidentified, same, small_scan, spoiled

import neuroprior.recordings.formats.hdf5 as hdf5
from neuroprior.recordings.formats.plain_h5 import PLAIN_H5
from neuroprior.recordings.formats.sensorium_h5 import SENSORIUM_H5


@pytest.fixture
def scan():
    return small_scan("static22564-2-13-preproc0", LAB_IDS, LAB_CHANNELS)


SCANS = {
    "whole": lambda s: s,
    "bare": lambda s: dataclasses.replace(s, behavior=None, behavior_names=(), pupil_center=None, neuron_xyz=None),
    "one channel": lambda s: dataclasses.replace(s, behavior=s.behavior[:, :1], behavior_names=("Größe",)),
    "renamed": lambda s: dataclasses.replace(s, name="Maus Ä", behavior_names=("a", "b", "c")),
    "lost eye": lambda s: dataclasses.replace(s, pupil_center=spoiled(s.pupil_center, (2, 0), np.nan)),
    "numbers": lambda s: reidentified(s, ["7", "12", "0", "3"]),
    "words": lambda s: reidentified(s, ["imagenet-007", "cat", "imagenet-7", "ö"]),
    "class": lambda s: reidentified(s, ["ö-7", "-7", "ö-8", "7"]),
}


@BOTH
@pytest.mark.parametrize("which", SCANS.values(), ids=SCANS)
def test_what_is_saved_is_loaded(scan, tmp_path, form, which):
    path = tmp_path / "new" / "a.h5"
    form.save(which(scan), path)
    assert os.listdir(path.parent) == ["a.h5"]
    assert form.recognises(path)
    assert same(form.load(path), which(scan))


@BOTH
def test_same_scan_same_bytes(scan, tmp_path, form):
    for name in ("a.h5", "b.h5"):
        form.save(scan, tmp_path / name)
    a, b = (hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.h5", "b.h5"))
    assert a == b


def test_each_is_recognised_as_what_it_is(scan, tmp_path):
    for form, other in ((PLAIN_H5, SENSORIUM_H5), (SENSORIUM_H5, PLAIN_H5)):
        form.save(scan, tmp_path / "a")
        assert form.recognises(tmp_path / "a")
        assert not other.recognises(tmp_path / "a")
        for name in ("none", "."):
            assert not form.recognises(tmp_path / name)
    (tmp_path / "text.h5").write_text("neither")
    assert [form.recognises(tmp_path / "text.h5") for form in (PLAIN_H5, SENSORIUM_H5)] == [True, False]


def test_the_plain_datasets_are_those_of_the_plain_format(scan, tmp_path):
    from neuroprior.recordings.formats.fields import scan_fields

    PLAIN_H5.save(scan, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert sorted(file) == sorted(scan_fields(scan))
        assert file["name"].shape == ()
        assert file["name"].asstr()[()] == scan.name
        assert file["tier"].asstr()[()].tolist() == scan.tier.tolist()
        assert h5py.check_string_dtype(file["image_names"].dtype).encoding == "utf-8"
        for name in ("images", "trial_image", "responses", "behavior", "pupil_center", "neuron_xyz"):
            np.testing.assert_array_equal(file[name][()], scan_fields(scan)[name])


def test_the_labs_layout_is_the_one_that_other_libraries_read(scan, tmp_path):
    SENSORIUM_H5.save(scan, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        data = ["behavior", "images", "pupil_center", "responses"]
        assert sorted(file) == sorted([*data, "item_info", "name", "neurons", "statistics", "tiers"])
        assert file["images"].shape == (TRIALS, 1, 3, 6)
        assert file["images"].dtype == np.uint8
        np.testing.assert_array_equal(file["images"][:, 0], scan.stimuli.pixels[scan.trial_image])
        for name in ("responses", "behavior", "pupil_center"):
            np.testing.assert_array_equal(file[name][()], getattr(scan, name))
        assert file["tiers"].dtype.kind == "S"
        assert file["tiers"][()].tolist() == [b"train", b"validation", *[b"test"] * 6, b"train"]
        info = file["item_info"]
        assert info["frame_image_id"][()].tolist() == [17, 4, 923, 4, 4, 923, 4, 923, 17]
        assert info["frame_image_class"][()].tolist()[2:5] == [b"imagenet", b"noise", b"noise"]
        assert info["trial_idx"][()].tolist() == list(range(TRIALS))
        assert len(np.unique(info["condition_hash"][()])) == 4
        assert (info["animal_id"][0], info["session"][0], info["scan_idx"][0]) == (22564, 2, 13)
        np.testing.assert_array_equal(file["neurons/cell_motor_coordinates"][()], scan.neuron_xyz)
        assert file["neurons/unit_ids"][()].tolist() == [1, 2, 3, 4, 5]
        assert file["neurons/animal_ids"][()].tolist() == [22564] * NEURONS
        assert sorted(file["statistics"]) == data
        for over in ("all", "stimulus.Frame"):
            image = file[f"statistics/images/{over}"]
            assert sorted(image) == ["max", "mean", "median", "min", "std"]
            assert image["median"][()] == np.median(scan.stimuli.pixels[0])
            np.testing.assert_allclose(
                file[f"statistics/responses/{over}/std"][()],
                scan.responses[[0, 8]].std(axis=0, dtype=float),
                rtol=1e-12,
            )


def lies_in_a_file(array: np.ndarray) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


@BOTH
def test_responses_stay_in_the_file(scan, tmp_path, form):
    form.save(scan, tmp_path / "a.h5")
    loaded = form.load(tmp_path / "a.h5")
    assert lies_in_a_file(loaded.responses)
    assert not lies_in_a_file(scan.responses)
    with h5py.File(tmp_path / "a.h5", "r+") as file:  # nothing holds the file open, and nothing was copied
        file["responses"][3, 2] = 77.0
    assert loaded.responses[3, 2] == 77.0
    assert not loaded.responses.flags.writeable


STORED = {
    "chunked": {"chunks": (2, 3)},
    "packed": {"chunks": (4, 5), "compression": "gzip"},
    "double": {"dtype": "f8"},
    "another byte order": {"dtype": ">f4"},
    "half of the rows a chunk": {"dtype": "f8", "chunks": (5, 1), "shuffle": True, "compression": "lzf"},
}


@BOTH
@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
def test_what_cannot_stay_in_the_file_is_read_from_it(scan, tmp_path, monkeypatch, form, stored):
    monkeypatch.setattr(hdf5, "_BLOCK", 64)  # a few rows
    form.save(scan, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["responses"]
        file.create_dataset("responses", data=scan.responses, **stored)
    loaded = form.load(tmp_path / "a.h5")
    assert same(loaded, scan)
    assert not lies_in_a_file(loaded.responses)


@BOTH
def test_a_file_that_begins_with_a_block_of_its_own_is_mapped_in_the_right_place(scan, tmp_path, form):
    form.save(scan, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as old, h5py.File(tmp_path / "b.h5", "w", userblock_size=1024) as new:
        for name in old:
            old.copy(name, new)
    loaded = form.load(tmp_path / "b.h5")
    assert same(loaded, scan)
    assert lies_in_a_file(loaded.responses)


def test_fixed_and_variable_strings_and_links_inside_are_the_same(scan, tmp_path):
    path = tmp_path / "a.h5"
    PLAIN_H5.save(scan, path)
    with h5py.File(path, "r+") as file:
        for name in ("image_names", "tier", "behavior_names"):
            texts = file[name].asstr()[()]
            del file[name]
            file[name] = texts  # of variable length
        del file["name"]
        file["name"] = scan.name
        group = file.create_group("group")
        file.move("responses", "group/moved")
        file.move("pupil_center", "group/pupil")
        group["again"] = h5py.SoftLink("moved")
        file["responses"] = h5py.SoftLink("/group/again")
        file["pupil_center"] = h5py.SoftLink("group/pupil")
    assert same(PLAIN_H5.load(path), dataclasses.replace(scan, notes=("dataset 'group' is not read",)))


def test_images_of_real_numbers_are_rounded_and_it_is_said(scan, tmp_path):
    SENSORIUM_H5.save(scan, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        images = np.clip(file["images"][()].astype(np.float32) + 0.25, 0, 255)
        del file["images"], file["name"]
        file.create_dataset("images", data=images, chunks=(2, 1, 3, 6), compression="gzip")
    (tmp_path / "a.h5").rename(tmp_path / "static1-2-3-GrayImageNet-abc.h5")
    loaded = SENSORIUM_H5.load(tmp_path / "static1-2-3-GrayImageNet-abc.h5")
    assert loaded.notes == ("pictures rounded to 8 bits, by 0.25 at most",)
    assert loaded.name == "static1-2-3"
    assert same(dataclasses.replace(loaded, notes=(), name=scan.name), scan)


def test_trials_whose_responses_are_withheld_are_left_out_and_noted(scan, tmp_path):
    SENSORIUM_H5.save(scan, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["responses"][2:8] = np.nan
    loaded = SENSORIUM_H5.load(tmp_path / "a.h5")
    assert loaded.notes == ("6 trials of tier 'test' left out: their responses are withheld (0 or NaN)",)
    np.testing.assert_array_equal(loaded.responses, scan.responses[[0, 1, 8]])
    assert loaded.trial_ids.tolist() == ["imagenet-17", "imagenet-4", "imagenet-17"]
