"""Recordings of 60,000 images: what is saved is loaded, from the fields and the bank that others read too."""

import dataclasses
import os
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat, whosmat
from small_scan import NEURONS, same, small_scan, spoiled

import neuroprior.recordings.formats.mat_images as mat_images
from neuroprior.recordings.formats.mat_images import read_mat_images, write_mat_images
from neuroprior.recordings.formats.nat60k import NAT60K
from neuroprior.types import InputError, Stimuli


@pytest.fixture
def scan():
    return dataclasses.replace(small_scan(), behavior=None, behavior_names=(), pupil_center=None)


def test_what_is_saved_is_loaded(scan, tmp_path):
    NAT60K.save(scan, tmp_path / "new" / "a.npz")
    assert same(NAT60K.load(tmp_path / "new" / "a.npz"), scan)
    bare = dataclasses.replace(scan, neuron_xyz=None)
    NAT60K.save(bare, tmp_path / "new" / "b.npz")  # beside the other, each with its bank
    assert same(NAT60K.load(tmp_path / "new" / "b.npz"), bare)
    assert same(NAT60K.load(tmp_path / "new" / "a.npz"), scan)
    assert not same(scan, bare)


@pytest.mark.parametrize("tier", ["train", "oracle"])
def test_a_recording_of_one_tier_is_held(scan, tmp_path, tier):
    one = dataclasses.replace(
        scan,
        trial_image=np.array([0, 1, 2, 3, 3, 2, 1, 0]),
        responses=scan.responses[:8],
        tier=np.array([tier] * 8, dtype="<U10"),
    )
    NAT60K.save(one, tmp_path / "a.npz")
    assert same(NAT60K.load(tmp_path / "a.npz"), one)


def test_behaviour_is_what_such_files_drop(scan, tmp_path):
    rng = np.random.default_rng(1)
    whole = dataclasses.replace(
        scan,
        behavior=rng.random((9, 2), dtype=np.float32),
        behavior_names=("running speed", "pupil size"),
        pupil_center=rng.random((9, 2), dtype=np.float32),
    )
    NAT60K.save(whole, tmp_path / "a.npz")
    assert NAT60K.drops == ("behavior", "behavior_names", "pupil_center")
    assert same(NAT60K.load(tmp_path / "a.npz"), scan)


def test_same_scan_same_bytes(scan, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        NAT60K.save(scan, tmp_path / name / "scan.npz")
    assert sorted(os.listdir(tmp_path / "a")) == ["scan.npz", "scan_bank_text16.mat"]
    for name in os.listdir(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_layout_is_the_published_one(scan, tmp_path):
    NAT60K.save(scan, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as dat:
        img = np.transpose(loadmat(tmp_path / "a_bank_text16.mat", squeeze_me=True)["img"], (2, 0, 1))
        np.testing.assert_array_equal(img, scan.stimuli.pixels)
        single = scan.tier != "oracle"
        np.testing.assert_array_equal(dat["sp"], scan.responses[single].T)
        np.testing.assert_array_equal(img[dat["istim_sp"]], scan.stimuli.pixels[scan.trial_image[single]])
        assert dat["ss_all"].shape == (2, 3, NEURONS)
        for image, responses in zip(dat["istim_ss"], dat["ss_all"], strict=True):
            np.testing.assert_array_equal(responses, scan.responses[scan.trial_image == image])
        np.testing.assert_array_equal(np.stack([dat["xpos"], dat["ypos"]], axis=1), scan.neuron_xyz[:, :2])
        assert dat["iplane"].dtype.kind == "i"


@pytest.fixture
def published(tmp_path):
    """Fields as a lab writes them: indices as floats, a bank of which few pictures are shown."""
    rng = np.random.default_rng(2)
    bank = rng.integers(0, 256, (40, 3, 6), np.uint8)
    savemat(tmp_path / "nat60k_text16.mat", {"img": np.moveaxis(bank, 0, -1)})
    fields = {
        "sp": rng.gamma(2.0, size=(NEURONS, 6)),
        "istim_sp": np.array([30.0, 7, 8, 9, 39, 0]),
        "ss_all": rng.gamma(2.0, size=(2, 3, NEURONS)).astype(np.float32),
        "istim_ss": np.array([5, 2]),
        "xpos": rng.random(NEURONS),
        "ypos": rng.random(NEURONS),
        "iplane": np.array([0, 0, 1, 1, 2]),
    }
    np.savez(tmp_path / "FX8.npz", **fields)
    return tmp_path / "FX8.npz", fields, bank


def change(file, fields, **changes):
    np.savez(file, **{name: value for name, value in (fields | changes).items() if value is not None})
    return file


def test_a_published_file_is_read_with_its_bank(published):
    file, fields, bank = published
    scan = NAT60K.load(file)
    assert scan.name == "FX8"
    shown = [0, 2, 5, 7, 8, 9, 30, 39]
    assert scan.stimuli.ids.tolist() == [f"nat60k-{row:05d}" for row in shown]
    np.testing.assert_array_equal(scan.stimuli.pixels, bank[shown])
    trials = [30, 7, 8, 9, 39, 0, 5, 5, 5, 2, 2, 2]
    assert scan.trial_ids.tolist() == [f"nat60k-{row:05d}" for row in trials]
    assert scan.tier.tolist() == ["train"] * 6 + ["oracle"] * 6
    np.testing.assert_array_equal(scan.responses[:6], fields["sp"].T.astype(np.float32))
    np.testing.assert_array_equal(scan.responses[6:9], fields["ss_all"][0])
    np.testing.assert_array_equal(scan.responses[9:], fields["ss_all"][1])
    np.testing.assert_array_equal(scan.neuron_xyz[:, 2], fields["iplane"])
    assert scan.notes == ("neuron_xyz: z is the number of the imaging plane (iplane), not micrometres",)


def test_what_is_unusual_is_noted(published):
    file, fields, bank = published
    change(file, fields, istim_sp=np.array([7, 7, 8, 9, 5, 0]), sp=fields["sp"] - 3.0, iplane=None, ypos=None)
    scan = NAT60K.load(file)
    assert scan.tier[:6].tolist() == ["oracle", "oracle", "train", "train", "oracle", "train"]
    assert scan.neuron_xyz is None
    assert scan.notes == (
        "sp: 1 trials show test images: oracle",
        "sp: 1 images are shown more than once: oracle",
        f"responses: as low as {scan.responses.min():.3g}, kept; activity is expected not to be negative",
    )
    twice = bank.copy()
    twice[9] = twice[8]
    savemat(file.with_name("nat60k_text16.mat"), {"img": np.moveaxis(twice, 0, -1)})
    merged = NAT60K.load(file)
    assert merged.trial_ids[2] == merged.trial_ids[3] == "nat60k-00008"
    assert merged.tier[2] == merged.tier[3] == "oracle"
    assert "1 pictures stand in nat60k_text16.mat twice: one id for both" in merged.notes
    change(file, fields, istim_ss=np.array([0, 3]), ss_labels=np.array([25, 22]))
    textures = NAT60K.load(file)
    assert textures.trial_ids[-1] == "nat60k-00022"
    assert "istim_ss holds labels; the test images are taken from ss_labels" in textures.notes


def test_flipped_test_images_are_noted(published, monkeypatch):
    file, _, _ = published
    monkeypatch.setattr("neuroprior.recordings.formats.nat60k._NATURAL", 25)
    assert "istim_sp: 1 trials show flipped versions of test images" in NAT60K.load(file).notes


def test_the_bank_is_looked_for_beside_the_recording(published):
    file, _, bank = published
    folder = file.parent
    expected = NAT60K.load(file).stimuli.digest
    (folder / "nat60k_text16.mat").rename(folder / "8x4_text16_old.mat")
    assert NAT60K.load(file).stimuli.digest == expected
    savemat(folder / "z_text16.mat", {"img": np.moveaxis(255 - bank, 0, -1)})
    with pytest.raises(InputError) as error:
        NAT60K.load(file)
    assert str(error.value) == (
        f"{file}: its pictures could be in 8x4_text16_old.mat or z_text16.mat; rename the right one to "
        "nat60k_text16.mat"
    )
    (folder / "8x4_text16_old.mat").unlink()
    (folder / "z_text16.mat").unlink()
    (folder / "other_bank_text16.mat").touch()  # another recording's own
    with pytest.raises(InputError) as error:
        NAT60K.load(file)
    assert str(error.value) == (
        f"{file}: its pictures are in another file, which is not in its folder; put nat60k_text16.mat (or an .npz "
        f"file with 'img' and text16 in its name) in {folder}"
    )
    np.savez(folder / "small_text16.npz", img=np.moveaxis(bank, 0, -1))
    np.savez(folder / "text16_recording.npz", sp=np.zeros(3))
    assert NAT60K.load(file).stimuli.digest == expected
    np.savez(folder / "small_text16.npz", img=bank[0])
    with pytest.raises(InputError, match=r"small_text16\.npz: field 'img' is uint8 \(3, 6\), not uint8 \(height, wid"):
        NAT60K.load(file)


RAGGED = np.array([np.ones((2, NEURONS)), np.ones((3, NEURONS))], dtype=object)
FAULTS = [
    ("sp", lambda _: None, "field 'sp' is missing (it holds istim_sp, ss_all,"),
    ("sp", lambda a: a[:, :-1], "field 'sp' is float64 (5, 5), not real numbers (neuron, 6); give one column for"),
    (
        "sp",
        lambda a: spoiled(a, (3, 2), np.nan),
        "field 'sp' is nan at neuron 3, column 2; drop it from every field or",
    ),
    ("sp", lambda a: spoiled(a, (3, 2), 1e300), "field 'sp' is inf in row 2, column 3; drop the trial or mend"),
    ("ss_all", lambda _: None, "field 'ss_all' is missing (it holds sp,"),
    (
        "ss_all",
        lambda _: RAGGED,
        "field 'ss_all' cannot be read (Object arrays cannot be read, as they are pickles); w",
    ),
    ("ss_all", lambda a: a[:, :, 1:], "field 'ss_all' is float32 (2, 3, 4), not real numbers (2, repeat, 5); give (t"),
    ("ss_all", lambda a: spoiled(a, (1, 2, 4), np.inf), "field 'ss_all' is inf at test image 1, repeat 2, neuron 4; d"),
    ("istim_sp", lambda a: a + 1, "field 'istim_sp' is 40 in place 4, but "),
    ("istim_ss", lambda a: -a, "field 'istim_ss' is -5 in place 0, but "),
    (
        "istim_sp",
        lambda a: a + 0.5,
        "field 'istim_sp' is float64 (6,), not integers (column); give each column the row",
    ),
    ("istim_ss", lambda a: a[:1], "field 'ss_all' is float32 (2, 3, 5), not real numbers (1, repeat, 5)"),
    ("iplane", lambda a: a[:-1], "field 'iplane' is int64 (4,), not real numbers (5,); give one for each neuron"),
    ("xpos", lambda a: spoiled(a, 2, np.nan), "field 'xpos, ypos, iplane' is nan in row 2, column 0; drop the neuron"),
]


@pytest.mark.parametrize(("field", "spoil", "says"), FAULTS)
def test_a_wrong_field_is_named_with_file_and_mend(published, shapes_unchecked, field, spoil, says):
    file, fields, _ = published
    change(file, fields, **{field: spoil(fields[field])})
    with pytest.raises(InputError) as error:
        NAT60K.load(file)
    said = str(error.value)
    assert said.startswith(f"{file}: {says}")
    assert ";" in said
    assert "\n" not in said


def test_our_own_fields_are_checked_too(scan, tmp_path):
    NAT60K.save(scan, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        fields = dict(archive)
    for field, value, says in (
        ("trial_order", np.zeros(9, int), "field 'trial_order' is int64 (9,), not each of 0..8 once; leave it out"),
        ("tier", fields["tier"][1:], "field 'tier' is <U10 (2,), not 3 strings; give one for each column of 'sp'"),
        ("image_names", fields["image_names"][1:], "field 'image_names' is <U7 (3,), not 4 strings"),
    ):
        change(tmp_path / "a.npz", fields, **{field: value})
        with pytest.raises(InputError) as error:
            NAT60K.load(tmp_path / "a.npz")
        assert str(error.value).startswith(f"{tmp_path / 'a.npz'}: {says}")


def test_what_cannot_be_held_is_refused_and_nothing_is_written(scan, tmp_path):
    uneven = dataclasses.replace(
        scan,
        trial_image=scan.trial_image[:-2],
        responses=scan.responses[:-2],
        tier=scan.tier[:-2],
    )
    with pytest.raises(InputError) as error:
        NAT60K.save(uneven, tmp_path / "a.npz")
    assert str(error.value) == (
        f"{tmp_path / 'a.npz'}: field 'ss_all' holds equally many repeats of every image, but 'image-3' was shown 3 "
        "times and 'image-2' 2 times; drop trials, or save in another format"
    )
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match=r"folder\.npz: is a folder; name a file"):
        NAT60K.save(scan, tmp_path / "folder.npz")
    assert os.listdir(tmp_path) == ["folder.npz"]


def test_where_the_archive_fails_the_old_bank_stays(scan, tmp_path, monkeypatch):
    NAT60K.save(scan, tmp_path / "a.npz")
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuroprior.recordings.formats.nat60k.write_archive", full)
    other = dataclasses.replace(scan, stimuli=Stimuli(scan.stimuli.ids, 255 - scan.stimuli.pixels))
    with pytest.raises(InputError, match="cannot be written \\(No space left on device\\); name another place"):
        NAT60K.save(other, tmp_path / "a.npz")
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_it_is_recognised_by_what_is_in_it(published, tmp_path):
    file, _, _ = published
    np.savez(tmp_path / "plain.npz", trial_image=np.zeros(3))
    (tmp_path / "text.npz").write_text("neither")
    assert NAT60K.recognises(file)
    for other in ("plain.npz", "text.npz", "nat60k_text16.mat", "."):
        assert not NAT60K.recognises(tmp_path / other)


@pytest.mark.parametrize("compressed", [False, True])
def test_pictures_are_read_without_the_rest(tmp_path, compressed):
    rng = np.random.default_rng(3)
    bank = np.kron(rng.integers(0, 256, (300, 8, 9)), np.ones((1, 8, 8))).astype(np.uint8)
    file = tmp_path / "bank.mat"
    savemat(file, {"a": np.arange(5.0), "img": np.moveaxis(bank, 0, -1)}, do_compression=compressed)
    wanted = np.array([0, 3, 4, 299])
    images, n = read_mat_images(file, "img", wanted)
    assert n == 300
    np.testing.assert_array_equal(images, bank[wanted])
    images, n = read_mat_images(file, "img", np.array([299, 300, 1000]))
    np.testing.assert_array_equal(images, bank[299:])


def test_a_bank_that_is_written_is_matlabs(tmp_path):
    images = np.random.default_rng(4).integers(0, 256, (7, 3, 6), np.uint8)
    write_mat_images(tmp_path / "a.mat", {"img": images})
    assert whosmat(tmp_path / "a.mat") == [("img", (3, 6, 7), "uint8")]
    np.testing.assert_array_equal(loadmat(tmp_path / "a.mat")["img"], np.moveaxis(images, 0, -1))


def test_more_than_such_a_file_holds_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(mat_images, "_MOST", 100)
    with pytest.raises(InputError, match=r"a\.mat: a MATLAB v5 file holds less than 4 GB of pictures; save in"):
        write_mat_images(tmp_path / "a.mat", {"img": np.zeros((6, 3, 6), np.uint8)})
    assert not os.listdir(tmp_path)


def test_what_is_wrong_with_a_bank_is_said(tmp_path):
    file, wanted, rng = tmp_path / "bank.mat", np.array([1]), np.random.default_rng(5)
    mend = "save it from MATLAB with -v6 or -v7"
    for variables, says in (
        ({"pictures": np.zeros((3, 6, 4), np.uint8)}, f"variable 'img' is missing (it holds pictures); {mend}"),
        (
            {"img": np.zeros((3, 6, 4))},
            f"variable 'img' is not uint8 (3, 6, 4), not uint8 (height, width, image); {mend}",
        ),
        (
            {"img": np.zeros((3, 6), np.uint8)},
            f"variable 'img' is uint8 (3, 6), not uint8 (height, width, image); {mend}",
        ),
    ):
        savemat(file, variables)
        with pytest.raises(InputError) as error:
            read_mat_images(file, "img", wanted)
        assert str(error.value).startswith(f"{file}: {says}")
    savemat(file, {"img": rng.integers(0, 256, (3, 6, 4), np.uint8)})
    whole = file.read_bytes()
    for content, says in (
        (whole[:-60], "ends too early; copy it again"),
        (whole[:100], "is not a MATLAB v5 file of a little-endian machine"),
        (b"MATLAB 7.3 MAT-file".ljust(500), f"is a MATLAB 7.3 file; {mend}"),
        (whole[:126] + b"MI" + whole[128:], "is not a MATLAB v5 file of a little-endian machine"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError) as error:
            read_mat_images(file, "img", wanted)
        assert str(error.value).startswith(f"{file}: {says}")
    savemat(file, {"img": rng.integers(0, 256, (30, 60, 40), np.uint8)}, do_compression=True)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="ends too early; copy it again"):
        read_mat_images(file, "img", np.array([39]))
    file.write_bytes(whole[:140] + zlib.crc32(whole).to_bytes(4, "big") * 20 + whole[220:])
    with pytest.raises(InputError, match=r"is damaged|is not uint8|missing|ends too early"):
        read_mat_images(file, "img", np.array([39]))


def test_a_damaged_bank_is_an_input_error_wherever_the_damage_is(tmp_path):
    file, rng, said = tmp_path / "bank.mat", np.random.default_rng(6), []
    for compressed in (False, True):
        savemat(file, {"img": rng.integers(0, 256, (3, 6, 40), np.uint8)}, do_compression=compressed)
        whole = file.read_bytes()
        for place in [*range(124, 200), *rng.integers(200, len(whole), 60)]:
            damaged = bytearray(whole)
            damaged[place] ^= int(rng.integers(1, 256))
            file.write_bytes(damaged)
            try:
                images, _ = read_mat_images(file, "img", np.array([0, 39]))
            except InputError as error:
                said.append(str(error))
            else:
                assert images.dtype == np.uint8
    assert said
    assert not [line for line in said if "\n" in line]
