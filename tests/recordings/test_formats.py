"""Recordings in files: what is saved is loaded, whatever is wrong is named with file and field."""

import dataclasses
import hashlib
import os
import pickle

import numpy as np
import pytest
from small_scan import TRIALS, same, spoiled

import neuroprior.recordings.formats.plain as plain
import neuroprior.recordings.formats.registry as registry
from bombs import Bomb
from neuroprior.recordings.formats import SCAN_FORMATS, ScanFormat, load_scan, save_scan
from neuroprior.types import InputError


def test_what_is_saved_is_loaded(scan, tmp_path):
    save_scan(scan, tmp_path / "new" / "scan.npz")
    assert same(load_scan(tmp_path / "new" / "scan.npz"), scan)
    assert same(load_scan(str(tmp_path / "new" / "scan.npz"), format="plain"), scan)
    bare = dataclasses.replace(scan, behavior=None, behavior_names=(), pupil_center=None, neuron_xyz=None)
    save_scan(bare, str(tmp_path / "bare.npz"))
    assert same(load_scan(tmp_path / "bare.npz"), bare)
    assert not same(bare, scan)


def test_the_suffix_does_not_matter_to_what_is_in_it(scan, tmp_path):
    save_scan(scan, tmp_path / "recording")
    assert os.listdir(tmp_path) == ["recording"]
    assert same(load_scan(tmp_path / "recording"), scan)


def test_same_scan_same_bytes(scan, tmp_path):
    for name in ("a.npz", "b.npz"):
        save_scan(scan, tmp_path / name)
    a, b = (hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.npz", "b.npz"))
    assert a == b


@pytest.fixture
def fields(scan, tmp_path):
    save_scan(scan, tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as archive:
        return dict(archive)


def write(path, fields, **changes):
    np.savez(path, **{name: value for name, value in (fields | changes).items() if value is not None})
    return path


def test_the_fields_are_those_that_the_documentation_lists(fields):
    listed = [line.split("`")[1] for line in (plain.__doc__ or "").splitlines() if line.startswith("| `")]
    assert listed == [*fields, "notes"]


@pytest.mark.parametrize("entry", SCAN_FORMATS, ids=lambda entry: entry.name)
def test_notes_go_through_every_format_and_none_is_said_twice(entry, scan, tmp_path):
    said = ("7 trials left out: withheld", "pictures rounded, by ½ at most")
    place = tmp_path / f"static1-2-3{entry.suffix}"
    # repeats as equal in number as nat60k asks for
    even = dataclasses.replace(
        scan,
        trial_image=np.array([0, 1, 2, 3, 3, 2, 0, 1, 0]),
        tier=np.array(["oracle" if trial in (2, 3, 4, 5) else "train" for trial in range(TRIALS)]),
        responses=scan.responses - np.float32(0.5),
        notes=said,
    )
    entry.save(even, place)
    first = entry.load(place)
    assert first.notes[:2] == said
    again = tmp_path / "again" / place.name
    entry.save(first, again)
    assert entry.load(again).notes == first.notes
    silent = tmp_path / "silent" / place.name
    entry.save(dataclasses.replace(even, notes=()), silent)
    assert entry.load(silent).notes == first.notes[2:]  # what the reader itself says


@pytest.mark.parametrize("notes", [np.array([1, 2]), np.array([["a"]])])
def test_notes_that_are_none(fields, tmp_path, notes):
    with pytest.raises(InputError, match=r"field 'notes' is .*, not . strings; give one for each note"):
        load_scan(write(tmp_path / "odd.npz", fields, notes=notes))


def test_other_widths_of_numbers_are_converted(fields, scan, tmp_path):
    path = write(
        tmp_path / "wide.npz",
        fields,
        trial_image=fields["trial_image"].astype(np.uint8),
        responses=fields["responses"].astype(np.float64),
        behavior=np.asfortranarray(fields["behavior"].astype(">f8")),
        neuron_xyz=fields["neuron_xyz"].astype(np.float64),
    )
    assert same(load_scan(path), scan)


FAULTS = [
    ("name", lambda _: None, "field 'name' is missing (it holds images,"),
    ("name", lambda _: np.array(["a", "b"]), "field 'name' is <U1 (2,), not one string; give the recording a name"),
    ("name", lambda _: np.array(""), "field 'name' is <U1 (), not one string"),
    ("images", lambda a: a.astype(float), "field 'images' is float64 (4, 3, 6), not uint8 (image, height, width)"),
    ("images", lambda a: a[0], "field 'images' is uint8 (3, 6), not uint8 (image, height, width); convert"),
    ("image_names", lambda a: a[:3], "field 'image_names' is <U7 (3,), not 4 strings; give one for each image"),
    ("image_names", lambda a: a.astype("S"), "field 'image_names' is |S7 (4,), not 4 strings"),
    ("image_names", lambda a: spoiled(a, 2, a[1]), "field 'image_names' is 'image-1' in rows 1 and 2; give each image"),
    ("image_names", lambda a: a.astype(object), "field 'image_names' cannot be read (Object arrays cannot be"),
    ("images", lambda a: a[..., None], "field 'images' is uint8 (4, 3, 6, 1), not uint8 (image, height, width);"),
    ("trial_image", lambda a: a.astype(float), "field 'trial_image' is float64 (9,), not integers (trial); give each"),
    ("trial_image", lambda a: a[:0], "field 'trial_image' is int64 (0,), not integers (trial)"),
    ("trial_image", lambda a: a + 1, "field 'trial_image' is 4 on trial 3, but of 4 images; rows count from 0"),
    ("trial_image", lambda a: a - 1, "field 'trial_image' is -1 on trial 0, but of 4 images"),
    ("responses", lambda a: a[:-1], "field 'responses' has 8 rows, but there are 9 trials in 'trial_image'; give one"),
    ("responses", lambda a: a.T, "field 'responses' is float32 (5, 9) for 9 trials; looks transposed: use responses.T"),
    ("neuron_xyz", lambda a: a.T, "field 'neuron_xyz' is float32 (3, 5) for 5 neurons; looks transposed: use neuron_"),
    ("behavior", lambda a: a.T, "field 'behavior' is float32 (2, 9) for 9 trials; looks transposed: use behavior.T"),
    ("pupil_center", lambda a: a[:-1], "field 'pupil_center' has 8 rows, but there are 9 trials in 'trial_image';"),
    (
        "images",
        lambda a: np.moveaxis(a, 0, 2),
        "field 'images' is uint8 (3, 6, 4) for 4 names; looks like (height, width, image): use np.moveaxis(images,",
    ),
    ("image_names", lambda a: np.arange(4), "field 'image_names' is int64 (4,), not 4 strings; give one for"),
    (
        "responses",
        lambda a: spoiled(spoiled(spoiled(a, (3, 2), np.nan), (3, 4), np.inf), (7, 2), np.nan),
        "field 'responses' is nan in row 3, column 2, the first of 3 such values on 2 trials and 2 neurons; drop",
    ),
    ("responses", lambda a: a * [1, np.nan, 1, np.nan, 1], "field 'responses' is nan in all of column 1 (and of 1"),
    ("responses", lambda a: a[:, 0], "field 'responses' is float32 (9,), not real numbers (9, 1 or more)"),
    ("responses", lambda a: a[:, :0], "field 'responses' is float32 (9, 0), not real numbers (9, 1 or more)"),
    ("responses", lambda a: a.astype(complex), "field 'responses' is complex128 (9, 5), not real numbers"),
    ("responses", lambda a: spoiled(a, (3, 2), np.nan), "field 'responses' is nan in row 3, column 2; drop the trial"),
    ("responses", lambda a: spoiled(a.astype(float), (3, 2), 1e300), "field 'responses' is 1e+300 in row 3, column 2"),
    ("tier", lambda a: a[:-1], "field 'tier' is <U10 (8,), not 9 strings; give one for each trial"),
    ("tier", lambda a: spoiled(a, 4, "test"), "field 'tier' is 'test' on trial 4; use only train, validation, oracle"),
    (
        "tier",
        lambda a: spoiled(a, 8, "validation"),
        "field 'tier' is 'train' on trial 0 and 'validation' on trial 8, which",
    ),
    ("images", lambda a: spoiled(a, 2, a[0]), "field 'image_names' gives one picture two ids, 'image-0' and 'image-2'"),
    (
        "trial_image",
        lambda a: spoiled(a, 1, 0),
        "field 'trial_image' shows 1 of 4 images on no trial (first: 'image-1')",
    ),
    ("behavior", lambda a: a[:, 0], "field 'behavior' is float32 (9,), not real numbers (9, 1 or more)"),
    ("behavior", lambda a: a[:, :1], "field 'behavior_names' is <U13 (2,), not 1 strings; give one for each channel"),
    ("behavior", lambda a: spoiled(a, (0, 1), np.inf), "field 'behavior' is inf in row 0, column 1; drop the trial or"),
    ("behavior", lambda _: None, "field 'behavior' is missing while 'behavior_names' is there; give both or none"),
    ("behavior_names", lambda _: None, "field 'behavior_names' is missing while 'behavior' is there; give both"),
    ("behavior_names", lambda a: a[[0, 0]], "field 'behavior_names' is 'running speed' in rows 0 and 1; give each"),
    ("pupil_center", lambda a: a[:, :1], "field 'pupil_center' is float32 (9, 1), not real numbers (9, 2); give one"),
    ("neuron_xyz", lambda a: a[:-1], "field 'neuron_xyz' has 4 rows, but there are 5 neurons in 'responses'; give one"),
    ("neuron_xyz", lambda a: spoiled(a, (4, 0), np.nan), "field 'neuron_xyz' is nan in row 4, column 0; drop the neur"),
]


@pytest.mark.parametrize(("field", "spoil", "says"), FAULTS)
def test_a_wrong_field_is_named_with_file_and_mend(fields, tmp_path, shapes_unchecked, field, spoil, says):
    path = write(tmp_path / "wrong.npz", fields, **{field: spoil(fields[field])})
    with pytest.raises(InputError) as error:
        load_scan(path)
    said = str(error.value)
    assert said.startswith(f"{path}: {says}")
    assert ";" in said
    assert "\n" not in said


def test_what_could_not_be_read_again_is_not_written(scan, tmp_path):
    lost = dataclasses.replace(scan, pupil_center=spoiled(scan.pupil_center, (2, 0), np.inf))
    with pytest.raises(InputError, match=r"lost\.npz: field 'pupil_center' is inf in row 2, column 0"):
        save_scan(lost, tmp_path / "lost.npz")
    assert not os.listdir(tmp_path)


def test_an_eye_that_was_lost_stays_lost(scan, tmp_path):
    blink = dataclasses.replace(
        scan,
        behavior=spoiled(scan.behavior, (1, 0), np.nan),
        pupil_center=spoiled(scan.pupil_center, (2, 0), np.nan),
    )
    save_scan(blink, tmp_path / "blink.npz")
    loaded = load_scan(tmp_path / "blink.npz")
    np.testing.assert_array_equal(loaded.behavior, blink.behavior)
    np.testing.assert_array_equal(loaded.pupil_center, blink.pupil_center)


def test_what_is_no_recording_is_said_with_the_formats_there_are(scan, tmp_path):
    formats = r"plain \(one \.npz file with the fields of neuroprior\.Scan\)"
    (tmp_path / "text.mat").write_text("neither")
    for path in (tmp_path / "text.mat", tmp_path):
        with pytest.raises(InputError, match=f"no known format of recordings; the formats are {formats}"):
            load_scan(path)
    with pytest.raises(InputError, match=r"none: no such file or folder; give the path of a recording$"):
        load_scan(tmp_path / "none")
    save_scan(scan, tmp_path / "a.npz")
    with pytest.raises(InputError, match=f"format 'dicom' is not one of {formats}"):
        load_scan(tmp_path / "a.npz", format="dicom")
    with pytest.raises(InputError, match=r"text\.mat: not an \.npz file, or damaged"):
        load_scan(tmp_path / "text.mat", format="plain")
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.npz: stops before its end, as after a copy that was cut off; copy it"):
        load_scan(tmp_path / "cut.npz")
    np.savez(tmp_path / "stimuli.npz", images=scan.stimuli.pixels, names=scan.stimuli.ids)
    with pytest.raises(InputError, match=r"stimuli\.npz: stimuli, not a recording \(no responses\)"):
        load_scan(tmp_path / "stimuli.npz")
    np.save(tmp_path / "array.npz", scan.responses)
    os.rename(tmp_path / "array.npz.npy", tmp_path / "array.npz")
    with pytest.raises(InputError, match=r"array\.npz: a single array, not an \.npz file"):
        load_scan(tmp_path / "array.npz")


def test_a_pickle_inside_is_never_run(fields, tmp_path):
    path = write(tmp_path / "bomb.npz", fields, tier=np.array([Bomb(tmp_path / "it ran")] * TRIALS, dtype=object))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "it ran")))
    (tmp_path / "it ran").unlink(missing_ok=True)
    for file in (path, tmp_path / "plain.npz"):
        with pytest.raises(InputError):
            load_scan(file)
    assert not (tmp_path / "it ran").exists()


def test_a_file_that_two_formats_know_is_asked_about(scan, tmp_path, monkeypatch):
    other = ScanFormat("other", "the same again", lambda path: True, lambda path: scan, lambda scan, path: None)
    monkeypatch.setattr(registry, "SCAN_FORMATS", (*SCAN_FORMATS, other))
    save_scan(scan, tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npz: could be plain or other; say which one with format="):
        load_scan(tmp_path / "a.npz")
    assert load_scan(tmp_path / "a.npz", format="other") is scan
    (tmp_path / "b").touch()
    assert load_scan(tmp_path / "b") is scan


def test_fields_that_are_not_read_are_noted_with_the_one_that_was_meant(fields, scan, tmp_path):
    meant = fields.pop("neuron_xyz")
    save_scan(dataclasses.replace(scan, neuron_xyz=None), tmp_path / "known.npz")
    assert load_scan(tmp_path / "known.npz").notes == ()
    loaded = load_scan(write(tmp_path / "other.npz", fields, neurons_xyz=meant, weather=np.zeros(2)))
    assert loaded.neuron_xyz is None
    assert loaded.notes == (
        "field 'neurons_xyz' is not read (did you mean 'neuron_xyz'?)",
        "field 'weather' is not read",
    )
    # not one that is there already
    both = load_scan(write(tmp_path / "both.npz", fields, neuron_xyz=meant, neurons_xyz=meant))
    assert both.notes == ("field 'neurons_xyz' is not read",)
    many = load_scan(write(tmp_path / "many.npz", fields, **{f"weather{k}": np.zeros(1) for k in range(30)}))
    assert len(many.notes) == 9
    assert many.notes[-1] == "22 more are not read"


def test_objects_in_the_place_of_names_are_mended(fields, tmp_path):
    path = write(tmp_path / "objects.npz", fields, image_names=fields["image_names"].astype(object))
    with pytest.raises(InputError, match=r"docs/recordings\.md lists \(texts as np\.asarray\(names, str\)\)$"):
        load_scan(path)
    load_scan(write(tmp_path / "mended.npz", fields, image_names=np.asarray(fields["image_names"].astype(object), str)))
