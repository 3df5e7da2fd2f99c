"""NWB 2 files that are not as they should be: whatever is wrong is one line."""

import fcntl
import shutil

import h5py
import numpy as np
import pytest
from nwb_files import REGIONS, RUNNING, SERIES, STACK, TABLE, drop, other, put, refused
from small_scan import TRIALS, small_scan, spoiled

from neuroprior.recordings.formats.nwb import NWB

ONSET, NAMES = 0.5 * np.arange(TRIALS), [f"image-{k}" for k in (0, 1, 2, 2, 3, 2, 3, 2, 0)]
FRAMES, RESPONSES, TEXT = small_scan().trial_image, small_scan().responses, h5py.string_dtype()
FAULTS = [
    (
        (drop(TABLE),),
        "no presentations 'natural_scenes_presentations', nor others of natural images with frames (there are: none);",
    ),
    ((drop(STACK),), "no templates of natural images (there are: none); add the pictures to 'stimulus/templates'"),
    ((drop("processing"),), "no RoiResponseSeries in 'processing/' (there are: none); add the responses of the"),
    (
        (put(f"{TABLE}/frame", spoiled(FRAMES, 5, 4)),),
        f"dataset '{TABLE}/frame' is 4 in row 5, but '{STACK}/data' holds 4 pictures; frames count from 0, and -1",
    ),
    ((put(f"{TABLE}/frame", FRAMES + 0.5),), f"dataset '{TABLE}/frame' is 0.5 in row 0, not a whole number; mend"),
    ((put(f"{TABLE}/frame", NAMES, TEXT),), f"dataset '{TABLE}/frame' is not numbers; write the frames as integers"),
    ((put(f"{TABLE}/frame", FRAMES * 0 - 1),), f"dataset '{TABLE}/frame' shows no image (only blanks); name other"),
    ((put(f"{TABLE}/stop_time", ONSET),), f"dataset '{TABLE}' gives row 0 no time (0.0 s to 0.0 s); drop or mend it"),
    (
        (put(f"{TABLE}/start_time", spoiled(ONSET, 3, np.nan)),),
        f"dataset '{TABLE}' gives row 3 no time (nan s to 2.0 s); drop or mend it",
    ),
    (
        (put(f"{TABLE}/image_name", NAMES, TEXT),),
        f"dataset '{TABLE}/image_name' is 'image-2' in row 3 and 'image-3' in row 4, which both show frame 3; give a",
    ),
    (
        (put(f"{TABLE}/tier", ["test"] * TRIALS, TEXT),),
        f"dataset '{TABLE}/tier' is 'test' on trial 0; use only train, validation, oracle",
    ),
    (
        (put(f"{TABLE}/stop_time", ONSET + 0.5 + 2.0 * (ONSET == 4)),),
        f"dataset '{SERIES}/data' ends at 4 s, but presentation 8 is from 4 s to 6.5 s; drop it, or choose the",
    ),
    (
        (put(f"{SERIES}/timestamps", ONSET + 2.0),),
        f"dataset '{SERIES}/data' begins at 2 s, but presentation 0 is from 0 s to 0.5 s; drop it, or choose the",
    ),
    (
        (put(f"{SERIES}/timestamps", spoiled(ONSET, 3, 2.0)),),
        f"dataset '{SERIES}/data' has no sample there, but presentation 3 is from 1.5 s to 2 s; drop it, or choose",
    ),
    ((put(f"{SERIES}/timestamps", ONSET[:-1]),), f"dataset '{SERIES}/timestamps' is of shape (8,) for 9 samples; give"),
    ((put(f"{SERIES}/timestamps", -ONSET),), f"dataset '{SERIES}/timestamps' goes back at sample 1; sort the samples"),
    (
        (other(spoiled(RESPONSES, (3, 2), np.nan)),),
        f"dataset '{SERIES}/data' is nan for region 2 in presentation 3 (mean of samples 3 to 3); drop the region or",
    ),
    ((other(spoiled(RESPONSES, (3, 2), np.inf)),), f"dataset '{SERIES}/data' is inf for region 2 in presentation 3"),
    ((other(RESPONSES[:, 1:]),), f"dataset '{SERIES}/data' is of shape (9, 4), but names 5 regions; give it one"),
    ((other(RESPONSES.astype("S5")),), f"dataset '{SERIES}/data' is |S5 (9, 5), not real numbers (time, region); wri"),
    ((put(f"{SERIES}/rois", np.arange(5) + 1),), f"dataset '{SERIES}/rois' is 5 for region 4, but '{REGIONS}' has 5"),
    (
        (put(f"{STACK}/data", np.zeros((4, 3, 6, 3), np.uint8)),),
        f"dataset '{STACK}/data' is uint8 (4, 3, 6, 3); store gray pictures (frame, height, width)",
    ),
    (
        (put(f"{STACK}/data", np.random.default_rng(0).random((4, 3, 6))),),
        f"dataset '{STACK}/data' is float64 (4, 3, 6), not gray of 0..255; convert colour to gray and scale to 0..255",
    ),
    (
        (put(f"{STACK}/data", np.zeros((4, 3, 6), np.uint8)),),
        f"dataset '{TABLE}/image_name' gives one picture two ids, 'image-0' and 'image-1'",
    ),
    (
        (put(f"{RUNNING}/data", spoiled(ONSET, 2, np.inf)),),
        f"dataset '{RUNNING}/data, {RUNNING[:-13]}pupil size/data' is inf in row 2, column 0; drop the trial",
    ),
]


@pytest.mark.parametrize(("changes", "says"), FAULTS)
def test_what_is_wrong_is_named_with_dataset_and_mend(edited, shapes_unchecked, changes, says):
    quick = () if RUNNING in says else (drop("processing/behavior"),)  # the less there is, the sooner it is read
    said = refused(edited(*quick, *changes))
    assert said.startswith(says)
    assert ";" in said


@pytest.mark.parametrize("column", ["frame", "tier", "stop_time"])
def test_a_column_shorter_than_its_table_is_named(edited, column):
    def shorten(file):
        put(f"{TABLE}/{column}", file[f"{TABLE}/{column}"][:-2])(file)

    assert refused(edited(shorten)) == (
        f"dataset '{TABLE}/{column}' has 7 rows, but 'id' of its table has 9; give every row of it a value"
    )


def test_objects_and_links_out_of_the_file_are_refused(edited):
    def outside(file):
        del file[f"{SERIES}/data"]
        file[f"{SERIES}/data"] = h5py.ExternalLink("elsewhere.h5", "data")

    def references(file):
        del file[f"{SERIES}/data"]
        file.create_dataset(f"{SERIES}/data", data=[file[SERIES].ref] * TRIALS, dtype=h5py.ref_dtype)

    assert refused(edited(outside)) == (
        f"dataset '{SERIES}/data' is a link into another file, 'elsewhere.h5'; copy the data into this one"
    )
    assert refused(edited(references)) == (
        f"dataset '{SERIES}/data' holds objects, not numbers or text; write plain numbers"
    )


def test_a_file_that_is_no_nwb_2_file_is_said_to_be_none(saved, tmp_path):
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["data"] = np.zeros(3)
    assert refused(tmp_path / "plain.h5") == ("not an NWB file (no 'nwb_version'); load it as what it is, with format=")
    with h5py.File(tmp_path / "old.nwb", "w") as file:
        file["nwb_version"] = "NWB-1.0.6"
    assert refused(tmp_path / "old.nwb").startswith("is NWB 1, which pynwb does not read; take the NWB 2 file of the")
    with h5py.File(tmp_path / "hollow.nwb", "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
    assert refused(tmp_path / "hollow.nwb").startswith("cannot be read as NWB 2 (")
    (tmp_path / "text.nwb").write_text("neither")
    assert refused(tmp_path / "text.nwb").startswith("not an HDF5 file, or damaged; give an NWB 2 file")
    assert refused(tmp_path / "none.nwb").startswith("no such file; give an NWB 2 file")
    (tmp_path / "cut.nwb").write_bytes(saved.read_bytes()[:20_000])
    assert refused(tmp_path / "cut.nwb").startswith("stops before its end")
    for name, known in (("plain.h5", False), ("old.nwb", True), ("text.nwb", True), ("cut.nwb", True), (".", False)):
        assert NWB.recognises(tmp_path / name) == known
    assert NWB.recognises(saved)
    shutil.copy(saved, tmp_path / "named otherwise")
    assert NWB.recognises(tmp_path / "named otherwise")
    with (tmp_path / "named otherwise").open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert refused(tmp_path / "named otherwise") == "held by another process; close it there, or copy the file"
