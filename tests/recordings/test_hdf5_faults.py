"""HDF5 recordings that are not as they should be, the lab's and the plain one: every fault named."""

import dataclasses
import fcntl
import os
import struct

import h5py
import numpy as np
import pytest
from hdf5_files import BOTH
from small_scan import LAB_CHANNELS, LAB_IDS, NEURONS, TRIALS, same, small_scan, spoiled

import neuroprior.recordings.formats.hdf5 as hdf5
import neuroprior.recordings.formats.hdf5_heaps as hdf5_heaps
from neuroprior.recordings.formats.hdf5_heaps import endless_heap
from neuroprior.recordings.formats.plain_h5 import PLAIN_H5
from neuroprior.recordings.formats.sensorium_h5 import SENSORIUM_H5
from neuroprior.types import InputError


@pytest.fixture
def scan():
    return small_scan("static22564-2-13-preproc0", LAB_IDS, LAB_CHANNELS)


def test_a_heap_of_texts_without_an_end_is_refused_and_not_read_for_ever(scan, tmp_path, monkeypatch):
    """libhdf5 2.0 walks from object to object, and a free one of size 0 leads nowhere: it would never come back."""
    file = tmp_path / "scan.h5"
    PLAIN_H5.save(scan, file)
    with h5py.File(file, "r+") as written:
        names = [str(name) for name in written["image_names"].asstr()]
        del written["image_names"]
        written["image_names"] = names
    content = bytearray(file.read_bytes())
    heap = content.index(b"GCOL")
    (size,) = struct.unpack_from("<Q", content, heap + 8)
    place = heap + 16
    while struct.unpack_from("<H", content, place)[0]:  # the free object has index 0, and is the last
        place += 16 + -(-struct.unpack_from("<Q", content, place + 8)[0] // 8) * 8
    assert place < heap + size
    assert endless_heap(file) is None
    for wrong in (0, 2**64 - 16):
        bad = bytearray(content)
        struct.pack_into("<H4xxxQ", bad, place, int(wrong > 0), wrong)
        file.write_bytes(bad)
        for block in (1 << 24, heap + 3):  # also where a block of what is read ends within the signature
            monkeypatch.setattr(hdf5_heaps, "_BLOCK", block)
            assert endless_heap(file) == heap
        with pytest.raises(InputError, match=rf"scan\.h5: damaged \(the texts kept at byte {heap} have no end\)"):
            PLAIN_H5.load(file)


def replaced(name, make, **options):
    def spoil(file):
        values = make(file[name][()]) if name in file else make(None)
        if name in file:
            del file[name]
        if values is not None:
            file.create_dataset(name, data=values, **options)

    return spoil


def without(name):
    return lambda file: file.__delitem__(name)


def linked(name, link):
    def spoil(file):
        del file[name]
        file[name] = link

    return spoil


def of_objects(file):
    del file["responses"]
    file.create_dataset("responses", (TRIALS,), h5py.vlen_dtype(np.float32))


def of_references(file):
    del file["responses"]
    file.create_dataset("responses", data=np.array([file.ref] * TRIALS), dtype=h5py.ref_dtype)


def as_group(file):
    del file["responses"]
    file.create_group("responses")


def never_written(file):
    del file["responses"]
    file.create_dataset("responses", (TRIALS, NEURONS), np.float32)


def claimed(file):
    del file["responses"]
    file.create_dataset("responses", (1 << 20, 1 << 12), np.float32, chunks=(1, 1 << 12), compression="gzip")[3] = 1.0


def virtual(file):
    del file["responses"]
    layout = h5py.VirtualLayout((TRIALS, NEURONS), np.float32)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "responses", (TRIALS, NEURONS))
    file.create_virtual_dataset("responses", layout)


def outside(file):
    del file["responses"]
    file.create_dataset("responses", (TRIALS, NEURONS), np.float32, external=[("/etc/hostname", 0, 180)])


def damaged_chunk(file):
    values = file["responses"][()]
    del file["responses"]
    made = file.create_dataset("responses", data=values, chunks=(TRIALS, NEURONS), compression="gzip")
    made.id.write_direct_chunk((0, 0), b"no such thing as a packed chunk")


ALIKE = {
    "missing": (without("responses"), "'responses' is missing (the file holds behavior, "),
    "external link": (
        linked("responses", h5py.ExternalLink("other.h5", "/r")),
        "'responses' is a link into another file, 'other.h5'; copy the data into",
    ),
    "link to a link": (
        linked("responses", h5py.SoftLink("/responses")),
        "'responses' is a link that leads to itself; ",
    ),
    "dangling link": (linked("responses", h5py.SoftLink("/gone")), "'responses' is missing (the file holds "),
    "group": (as_group, "'responses' is a group, not a dataset; "),
    "empty": (linked("responses", h5py.Empty("f4")), "'responses' is empty; "),
    "objects": (of_objects, "'responses' holds objects, not numbers or text; write plain numbers"),
    "references": (of_references, "'responses' holds objects, not numbers or text; write plain numbers"),
    "never written": (never_written, "'responses' was never written; "),
    "claims": (claimed, "'responses' grows from 0 kB to 16384 MB, as no recording does; "),
    "virtual": (virtual, "'responses' keeps its values in other files; copy them into this one"),
    "outside": (outside, "'responses' keeps its values in other files; copy them into this one"),
    "damaged chunk": (damaged_chunk, "'responses' cannot be read ("),
    "text": (replaced("responses", lambda _: ["a"] * TRIALS), "'responses' is <U1 (9,), not real numbers ("),
    "complex": (
        replaced("responses", lambda r: r.astype(complex)),
        "'responses' is complex128 (9, 5), not real numbers (",
    ),
    "scalar": (replaced("responses", lambda _: 3.0), "'responses' is float64 (), not real numbers ("),
    "inf of the pupil": (replaced("pupil_center", lambda p: spoiled(p, (1, 0), np.inf)), "'pupil_center' is inf "),
    "few pupils": (replaced("pupil_center", lambda p: p[:-1]), "'pupil_center' "),
    "NaN": (replaced("responses", lambda r: spoiled(r, (1, 2), np.nan)), "'responses' is nan "),
    "NaN, packed": (
        replaced("responses", lambda r: spoiled(r, (8, 2), np.nan), compression="gzip"),
        "'responses' is nan ",
    ),
    "too large": (replaced("responses", lambda r: spoiled(r.astype(float), (1, 2), 1e300)), "'responses' is inf "),
}
PLAIN = {
    "long text": (replaced("name", lambda _: "a" * 5000), "'name' holds a text of 5000 characters; give at most 4096"),
    "long texts": (
        replaced("tier", lambda t: ["a" * 5000] * TRIALS),
        "'tier' holds a text of 5000 characters; give at most 4096",
    ),
    "no UTF-8": (
        replaced("tier", lambda t: np.array([b"\xff"] * TRIALS)),
        "'tier' cannot be read ('utf-8' codec can't decode",
    ),
    "table of text": (replaced("tier", lambda t: t[:, None]), "'tier' is text (9, 1); give it one axis"),
    "unknown tier": (
        replaced("tier", lambda t: spoiled(t, 4, b"test")),
        "'tier' is 'test' on trial 4; use only train, validation, oracle",
    ),
    "numbered tier": (
        replaced("tier", lambda t: np.zeros(TRIALS)),
        "'tier' is float64 (9,), not 9 strings; give one for each trial",
    ),
    "real images": (
        replaced("images", lambda i: i / 255),
        "'images' is float64 (4, 3, 6), not uint8 (image, height, width); convert",
    ),
    "no name": (without("name"), "'name' is missing (the file holds behavior, behavior_names, image_names,"),
    "names": (replaced("name", lambda n: ["a", "b"]), "'name' is <U1 (2,), not one string; give the recording a name"),
    "external link to an option": (
        linked("neuron_xyz", h5py.ExternalLink("o.h5", "/r")),
        "'neuron_xyz' is a link into another file",
    ),
}
LABS = {
    "no images": (without("images"), "'images' is missing (the file holds behavior, item_info, name,"),
    "few images": (
        replaced("images", lambda i: i[:-1]),
        "'images' has 8 rows for 9 trials in 'responses'; give each trial one",
    ),
    "colour": (
        replaced("images", lambda i: np.repeat(i, 3, axis=1)),
        "'images' is (9, 3, 3, 6), not (trial, 1, height, width); convert colour to gray",
    ),
    "bright": (
        replaced("images", lambda i: spoiled(i.astype(float), (5, 0, 1, 2), 300)),
        "'images' is 300.0 at row 1, column 2 of trial 5; scale pictures",
    ),
    "NaN image": (
        replaced("images", lambda i: spoiled(i.astype(float), (5, 0, 1, 2), np.nan)),
        "'images' is nan at row 1, column 2 of trial 5; scale",
    ),
    "0 to 1": (
        replaced("images", lambda i: i / 255),
        "'images' goes from 0 to 1 on every trial; multiply pictures by 255",
    ),
    "text images": (
        replaced("images", lambda i: np.full(i.shape, b"a")),
        "'images' is |S1, not numbers from 0 (black) to 255 (white); write",
    ),
    "NaN of a trial": (
        replaced("responses", lambda r: spoiled(r, (3, 2), np.nan)),
        "'responses' is nan on trial 3, column 2; drop the trial or",
    ),
    "behaviour of objects": (
        replaced("behavior", lambda b: b.astype(complex)),
        "'behavior' is complex128 (9, 3), not real numbers (trial, channel);",
    ),
    "no tiers": (without("tiers"), "'tiers' is missing (the file holds behavior, images, item_info,"),
    "few tiers": (
        replaced("tiers", lambda t: t[:-1]),
        "'tiers' has 8 rows for 9 trials in 'responses'; give each trial one",
    ),
    "unknown tier": (
        replaced("tiers", lambda t: spoiled(t, 3, b"live")),
        "'tiers' is 'live' on trial 3; use only train, validation, test, final_test",
    ),
    "no ids": (
        without("item_info/frame_image_id"),
        "'item_info/frame_image_id' is missing; give each trial the number",
    ),
    "no info": (without("item_info"), "'item_info/frame_image_id' is missing; give each trial the number"),
    "one id, two pictures": (
        replaced("item_info/frame_image_id", lambda i: spoiled(i, 1, 17)),
        "'item_info/frame_image_id' is 'imagenet-17' on trials 0 and 1, whose pictures differ; give",
    ),
    "one picture, two ids": (
        replaced("item_info/frame_image_id", lambda i: spoiled(i, 8, 1)),
        "'item_info/frame_image_id' gives one picture two ids, 'imagenet-17' and 'imagenet-1'",
    ),
    "few coordinates": (
        replaced("neurons/cell_motor_coordinates", lambda c: c[:-1]),
        "'neurons/cell_motor_coordinates' has 4 rows, but there are 5 neurons in 'responses'; give",
    ),
    "few units": (
        replaced("neurons/unit_ids", lambda u: u[:-1]),
        "'neurons/unit_ids' is int64 (4,) for 5 neurons in 'responses'; give each neuron one",
    ),
    "external group": (
        linked("neurons", h5py.ExternalLink("o.h5", "/r")),
        "'neurons/unit_ids' is a link into another file, 'o.h5'; copy",
    ),
}
CASES = [
    *((PLAIN_H5, spoil, says) for spoil, says in (ALIKE | PLAIN).values()),
    *((SENSORIUM_H5, spoil, says) for spoil, says in (ALIKE | LABS).values()),
]


@pytest.mark.parametrize(
    ("form", "spoil", "says"),
    CASES,
    ids=[*(f"plain: {n}" for n in ALIKE | PLAIN), *(f"lab: {n}" for n in ALIKE | LABS)],
)
def test_a_fault_is_one_line_with_file_dataset_and_mend(scan, tmp_path, shapes_unchecked, form, spoil, says):
    path = tmp_path / "a.h5"
    form.save(scan, path)
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(InputError) as error:
        form.load(path)
    said = str(error.value)
    assert said.startswith(f"{path}: dataset {says}")
    assert ";" in said
    assert "\n" not in said


@BOTH
def test_what_cannot_be_opened_is_said(scan, tmp_path, form):
    path = tmp_path / "a.h5"
    with pytest.raises(InputError, match=r"a\.h5: no such file; "):
        form.load(path)
    form.save(scan, path)
    whole = path.read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(
        InputError, match=r"cut\.h5: stops before its end, as after a copy that was cut off; copy it ag"
    ):
        form.load(tmp_path / "cut.h5")
    (tmp_path / "text.h5").write_text("neither")
    with pytest.raises(InputError, match=r"text\.h5: not an HDF5 file, or damaged; "):
        form.load(tmp_path / "text.h5")
    held = os.open(path, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)  # as a process that writes it does
    try:
        with pytest.raises(InputError, match=r"a\.h5: held by another process; close it there, or copy the file$"):
            form.load(path)
    finally:
        os.close(held)
    assert same(form.load(path), scan)


@BOTH
def test_what_could_not_be_read_again_is_not_written(scan, tmp_path, form):
    lost = dataclasses.replace(scan, pupil_center=spoiled(scan.pupil_center, (2, 0), np.inf))
    with pytest.raises(InputError, match=r"lost\.h5: \w+ 'pupil_center' is inf in row 2, column 0"):
        form.save(lost, tmp_path / "lost.h5")
    for name, says in (
        ("\ud800", "holds a text that is not Unicode; rename it"),
        ("a" * 5000, "holds a text of 5000 char"),
    ):
        with pytest.raises(InputError, match=rf"odd\.h5: dataset 'name' {says}"):
            form.save(dataclasses.replace(scan, name=name), tmp_path / "odd.h5")
    assert not os.listdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for place in ("folder", "file/under"):
        with pytest.raises(InputError, match=rf"{place}: cannot be written \(.+\); name another place"):
            form.save(scan, tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@BOTH
def test_a_recording_that_stops_halfway_leaves_the_one_before(scan, tmp_path, monkeypatch, form):
    form.save(scan, tmp_path / "a.h5")
    fill, filled = hdf5._fill, []

    def full(dataset, values):
        filled.append(dataset.name)
        if len(filled) == 5:
            raise OSError(28, "No space left on device")
        fill(dataset, values)

    monkeypatch.setattr(hdf5, "_fill", full)
    with pytest.raises(InputError, match=r"a\.h5: cannot be written \(No space left on device\); name another place"):
        form.save(dataclasses.replace(scan, name="other"), tmp_path / "a.h5")
    assert os.listdir(tmp_path) == ["a.h5"]
    assert same(form.load(tmp_path / "a.h5"), scan)
