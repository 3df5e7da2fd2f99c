"""Stimuli from files and from scikit-image's photographs: checked, deterministic, never unpickled."""

import inspect
import pickle
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from small_scan import small_scan

import neuroprior.recordings.stimuli as stimuli_module
from bombs import Bomb
from neuroprior.recordings import SCAN_FORMATS, load_stimuli, packaged_photographs, save_scan
from neuroprior.types import InputError

N = 5


@pytest.fixture
def fields():
    return {
        "images": np.random.default_rng(0).integers(0, 256, (N, 4, 6), dtype=np.uint8),
        "names": np.array([f"image-{i}" for i in range(N)]),
        "tier": np.array(["train", "oracle", "train", "validation", "oracle"]),
    }


def write(path, fields, **changes):
    np.savez(path, **{name: value for name, value in (fields | changes).items() if value is not None})
    return path


def test_what_was_written_is_read(tmp_path, fields):
    for path in (write(tmp_path / "a.npz", fields), str(write(tmp_path / "b.npz", fields, tier=None))):
        shown = load_stimuli(path)
        np.testing.assert_array_equal(shown.pixels, fields["images"])
        np.testing.assert_array_equal(shown.ids, fields["names"])


@pytest.mark.parametrize(
    ("format", "suffix"), [*((entry.name, entry.suffix) for entry in SCAN_FORMATS), ("sensorium", ".zip")]
)
def test_a_recording_is_told_from_stimuli(tmp_path, format, suffix):
    place = tmp_path / f"recording{suffix}"
    scan = small_scan()
    kept = np.flatnonzero(np.isin(scan.trial_image, [2, 3]))[:4]  # as equal in number as nat60k asks for
    rows = {name: getattr(scan, name)[kept] for name in ("responses", "tier", "behavior", "pupil_center")}
    shown = scan.stimuli.select(scan.stimuli.ids[2:])
    save_scan(replace(scan, stimuli=shown, trial_image=scan.trial_image[kept] - 2, **rows), place, format)
    for tier in (None, "oracle"):
        with pytest.raises(InputError, match=r"a recording, not stimuli; its images are load_scan\(path\)\.stimuli$"):
            load_stimuli(place, tier)


def test_what_is_neither_is_no_recording(tmp_path, fields):
    with pytest.raises(InputError, match="field 'names' is missing"):
        load_stimuli(write(tmp_path / "a.npz", fields, names=None))
    with pytest.raises(InputError, match="no such file"):
        load_stimuli(tmp_path)


def test_a_tier_is_its_images_in_their_order(tmp_path, fields):
    path = write(tmp_path / "a.npz", fields)
    for tier, rows in (("train", [0, 2]), ("oracle", [1, 4]), ("validation", [3])):
        shown = load_stimuli(path, tier)
        assert shown.ids.tolist() == [f"image-{i}" for i in rows]
        np.testing.assert_array_equal(shown.pixels, fields["images"][rows])


@pytest.mark.parametrize(
    ("changes", "tier", "message"),
    [
        ({"images": None}, None, "field 'images' is missing (it holds names, tier)"),
        ({"names": None}, None, "field 'names' is missing"),
        ({"tier": None}, "train", "field 'tier' is missing"),
        ({"images": np.zeros((N, 4, 6))}, None, "field 'images' is float64 (5, 4, 6), not uint8"),
        ({"images": np.zeros((N, 4, 6, 3), np.uint8)}, None, "field 'images' is uint8 (5, 4, 6, 3), not uint8 (image,"),
        ({"images": np.zeros((0, 4, 6), np.uint8), "names": np.array([], "U"), "tier": None}, None, "holds no pixels"),
        ({"names": np.arange(N)}, None, "field 'names' is int64 (5,), not 5 strings"),
        ({"names": np.array(["a", "b"])}, None, "field 'names' is <U1 (2,), not 5 strings"),
        ({"names": np.array(list("abcda"))}, None, "field 'names': stimuli: image id"),
        ({"names": np.array(list("abcde"), object)}, None, "field 'names' cannot be read (Object arrays cannot be"),
        ({"tier": np.array(["train"] * 4)}, None, "field 'tier' is <U5 (4,), not 5 strings"),
        ({"tier": np.array(["train"] * 4 + ["test"])}, None, "field 'tier' holds 'test'; use only train, validation"),
        ({"tier": np.array(["train"] * N)}, "oracle", "holds no pixels of tier 'oracle'"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_mend(tmp_path, fields, changes, tier, message):
    path = write(tmp_path / "wrong.npz", fields, **changes)
    with pytest.raises(InputError) as error:
        load_stimuli(path, tier)
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert message in said
    assert ";" in said  # what is wrong; how to mend it
    assert "\n" not in said


def test_what_is_no_such_file_is_said(tmp_path, fields):
    whole = write(tmp_path / "whole.npz", fields).read_bytes()
    with zipfile.ZipFile(tmp_path / "foreign.npz", "w") as archive:
        archive.writestr("images", "not an array")
        archive.writestr("names", "neither")
    np.save(tmp_path / "array.npy", fields["images"])
    contents = {
        "text.npz": b"images, names",
        "empty.npz": b"",
        "cut.npz": whole[: len(whole) // 2],
        "pickle.npz": pickle.dumps({"images": 1}),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.npz").mkdir()
    wrong = [*contents, "array.npy", "foreign.npz"]
    for name, message in [
        *((name, "") for name in wrong),
        ("folder.npz", "no such file"),
        ("none.npz", "no such file"),
    ]:
        with pytest.raises(InputError) as error:
            load_stimuli(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: {message}")
        assert "\n" not in str(error.value)


def test_a_file_that_may_not_be_opened_is_said(tmp_path, fields, monkeypatch):
    path = write(tmp_path / "locked.npz", fields)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(InputError, match=r"locked\.npz: cannot be opened \(Permission denied\); make it readable"):
        load_stimuli(path)


def test_a_damaged_file_is_an_input_error_wherever_the_damage_is(tmp_path, fields):
    whole = write(tmp_path / "whole.npz", fields).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            load_stimuli(tmp_path / "damaged.npz")
        except InputError:
            refused += 1
    assert refused > 50  # some bytes (dates, flags) mean nothing


def test_a_pickle_inside_is_never_run(tmp_path, fields):
    path = write(tmp_path / "bomb.npz", fields, names=np.array([Bomb(tmp_path / "it ran")] * N, dtype=object))
    (tmp_path / "it ran").unlink(missing_ok=True)
    with pytest.raises(InputError, match="Object arrays cannot be read"):
        load_stimuli(path)
    assert not (tmp_path / "it ran").exists()


def test_an_unknown_tier_is_refused(tmp_path, fields):
    path = write(tmp_path / "a.npz", fields)
    with pytest.raises(InputError, match="tier 'test' is not one of train, validation, oracle"):
        inspect.unwrap(load_stimuli)(path, "test")
    with pytest.raises(InputError, match="tier 'validation' is not one of train, oracle"):
        packaged_photographs("validation")


def test_the_packaged_photographs_are_gray_crops_of_the_papers_size_with_contrast():
    start = time.process_time()
    shown = packaged_photographs()
    assert time.process_time() - start < 3
    assert shown.pixels.shape == (1000, 36, 64)
    spread = shown.pixels.std(axis=(1, 2))
    assert spread.min() >= 10
    assert len(np.unique(shown.pixels.reshape(1000, -1), axis=0)) == 1000
    assert len({name.split("-")[0] for name in shown.ids[:12]}) == 12
    assert shown.ids[0] == "astronaut-000"
    assert shown.ids[900] == "astronaut-oracle-000"


def test_tiers_are_the_parts_of_the_whole():
    whole = packaged_photographs(n_train=30, n_oracle=14)
    train, oracle = (packaged_photographs(tier, n_train=30, n_oracle=14) for tier in ("train", "oracle"))
    np.testing.assert_array_equal(np.concatenate([train.ids, oracle.ids]), whole.ids)
    np.testing.assert_array_equal(np.concatenate([train.pixels, oracle.pixels]), whole.pixels)
    assert not len(packaged_photographs("oracle", n_oracle=0))


def test_same_seed_same_images_and_another_seed_others():
    first, again, other = (packaged_photographs(n_train=24, n_oracle=12, seed=seed) for seed in (3, 3, 4))
    assert first.digest == again.digest
    assert not (first.pixels == other.pixels).all(axis=(1, 2)).any()


def test_asking_for_more_keeps_what_one_had():
    few, many = packaged_photographs(n_train=20, n_oracle=5), packaged_photographs(n_train=60, n_oracle=30)
    assert many.select(few.ids).digest == few.digest


@pytest.mark.parametrize("blackened", ["train", "oracle"])
def test_no_pixel_is_in_crops_of_both_tiers(monkeypatch, blackened):
    """With one part of every photograph blackened, the other tier's crops stay as they are, to the last pixel."""
    shown = {tier: packaged_photographs(tier, n_train=360, n_oracle=120) for tier in ("train", "oracle")}
    gray = stimuli_module._gray

    def partly_black(photograph):
        image = gray(photograph)
        border = round(image.height * (1 - stimuli_module._HELD_OUT))
        part = (0, 0, image.width, border) if blackened == "train" else (0, border, image.width, image.height)
        image.paste(0, part)
        return image

    monkeypatch.setattr(stimuli_module, "_gray", partly_black)
    other = "oracle" if blackened == "train" else "train"
    again = packaged_photographs(other, n_train=360, n_oracle=120)
    np.testing.assert_array_equal(again.pixels, shown[other].pixels)
    monkeypatch.setattr(stimuli_module, "_LEAST_CONTRAST", 0.0)
    assert not packaged_photographs(blackened, n_train=12, n_oracle=12).pixels.any()


def test_every_photograph_states_a_free_licence():
    for photograph in stimuli_module._PHOTOGRAPHS:
        assert photograph.licence.startswith(("CC0", "public domain", "no known copyright"))


def test_what_cannot_be_had_is_said(monkeypatch):
    with pytest.raises(InputError, match="n_train is -1; it must be 0 or more"):
        packaged_photographs(n_train=-1)
    monkeypatch.setattr(stimuli_module, "_LEAST_CONTRAST", 200.0)
    monkeypatch.setattr(stimuli_module, "_TRIES_A_CROP", 3)
    with pytest.raises(InputError, match="too few crops with contrast"):
        packaged_photographs(n_train=1, n_oracle=0)
    lost = stimuli_module._Photograph("lost", "lost.png", "CC0")
    monkeypatch.setattr(stimuli_module, "_PHOTOGRAPHS", (lost,))
    with pytest.raises(InputError, match=r"does not ship lost\.png here; reinstall scikit-image"):
        packaged_photographs(n_train=1)
