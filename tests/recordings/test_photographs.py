"""A folder of photographs becomes the paper's stimuli: which pixels, which names, which tier, and every fault."""

import hashlib
import os

import numpy as np
import pytest
from PIL import Image

import neuroprior.recordings.archive as archive_module
from neuroprior.recordings import load_stimuli
from neuroprior.recordings.photographs import prepare_stimuli
from neuroprior.types import InputError


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(file, pixels, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)
    return file


@pytest.fixture
def folder(tmp_path):
    """Twelve images of 64x64 in three folders."""
    for k in range(12):
        save(tmp_path / "photos" / f"class-{k % 3}" / f"{k:02d}.png", noise(k, 64, 64))
    return tmp_path / "photos"


def one(tmp_path, pixels, suffix=".png", **options):
    """What becomes of one image."""
    root = tmp_path / "one"
    save(root / f"image{suffix}", pixels, **options)
    return prepare_stimuli(root, tmp_path / "one.npz", n_oracle=0).stimuli.pixels[0]


def test_a_64x64_image_keeps_its_centre_rows(tmp_path):
    """As in the 5,100 Tiny-ImageNet stimuli that are at hand: rows 14 to 49."""
    pixels = noise(0, 64, 64)
    assert np.array_equal(one(tmp_path, pixels), pixels[14:50])


def test_a_64x64_photograph_in_colour_is_gray_first(tmp_path):
    pixels = noise(0, 64, 64, 3)
    assert np.array_equal(one(tmp_path, pixels), np.asarray(Image.fromarray(pixels).convert("L"))[14:50])


def test_a_tall_and_a_wide_image_keep_their_centre(tmp_path):
    tall, wide = noise(0, 101, 64), noise(1, 36, 101)
    assert np.array_equal(one(tmp_path, tall), tall[32:68])
    assert np.array_equal(one(tmp_path, wide), wide[:, 18:82])


def test_what_fills_the_screen_is_the_mean_of_four_by_four(tmp_path):
    """256x144 is shown as it is, and the model's pixel is the mean of sixteen: the factor of four of the paper."""
    shown = noise(0, 144, 256)
    mean = shown.reshape(36, 4, 64, 4).mean(axis=(1, 3))
    assert np.abs(one(tmp_path, shown) - mean).max() <= 0.5
    larger = noise(1, 300, 256)  # its centre of 16:9 is 256x144 again
    assert np.array_equal(one(tmp_path, larger), one(tmp_path, larger[78:222]))


def test_large_images_are_brought_down_without_aliasing(tmp_path):
    waves = np.sin(np.arange(1024) * (2 * np.pi / 64))  # 16 across: 4 of the model's pixels each
    scene = np.tile(128 + 60 * waves, (768, 1)).astype(np.uint8)
    low = one(tmp_path, scene)
    expected = np.tile(128 + 60 * waves, (36, 1)).reshape(36, 64, 16).mean(axis=2)
    assert np.abs(low - expected).max() < 4
    stripes = np.tile(np.array([0, 0, 255, 255, 0, 255, 0], np.uint8), 147)[:1024]  # finer than the screen
    flat = one(tmp_path, np.tile(stripes, (768, 1)))[:, 2:-2]
    assert flat.std() < 8  # every sixteenth pixel would have 125


def test_between_the_two_sizes_one_step_is_taken(tmp_path):
    scene = noise(0, 108, 192)  # less than the screen: 3 to 1
    expected = Image.fromarray(scene).resize((64, 36), Image.Resampling.LANCZOS)
    assert np.array_equal(one(tmp_path, scene), np.asarray(expected))


def test_another_size(folder, tmp_path):
    shown = prepare_stimuli(folder, tmp_path / "small.npz", n_oracle=2, size=(20, 20)).stimuli
    assert shown.pixels.shape == (12, 20, 20)


def test_a_turned_camera_is_heeded(tmp_path):
    upright = noise(0, 36, 64)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: to be turned by 90 degrees clockwise
    turned = np.ascontiguousarray(np.rot90(upright))
    assert np.array_equal(one(tmp_path, turned, exif=exif), upright)


def test_sixteen_bits_palettes_and_transparency(tmp_path):
    gray = noise(0, 36, 64)
    assert np.array_equal(one(tmp_path, gray.astype(np.uint16) * 257), gray)
    assert np.array_equal(one(tmp_path, gray.astype(np.uint16) * 257, suffix=".tif"), gray)

    color = Image.fromarray(noise(1, 36, 64, 3))
    paletted = color.quantize(32)
    root = tmp_path / "palette"
    root.mkdir()
    paletted.save(root / "a.png")
    shown = prepare_stimuli(root, tmp_path / "palette.npz", n_oracle=0).stimuli.pixels[0]
    assert np.array_equal(shown, np.asarray(paletted.convert("RGB").convert("L")))

    opaque = np.dstack([gray, gray, gray, np.full_like(gray, 255)])
    assert np.array_equal(one(tmp_path, opaque), gray)
    opaque[:, :32, 3] = 0
    faint = one(tmp_path, opaque)
    assert (faint[:, :32] == 128).all()
    assert np.array_equal(faint[:, 32:], gray[:, 32:])
    paletted.save(root / "a.png", transparency=bytes([0] * 16 + [255] * 16))
    assert (prepare_stimuli(root, tmp_path / "palette.npz", n_oracle=0).stimuli.pixels == 128).any()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".bmp", ".tif", ".webp"])
def test_the_kinds_of_files(tmp_path, suffix):
    smooth = np.add.outer(np.arange(36) * 3, np.arange(64) * 2).astype(np.uint8)
    assert np.abs(one(tmp_path, smooth, suffix).astype(int) - smooth).max() <= 6  # some are lossy


def test_what_is_written_is_read_and_named_by_path(folder, tmp_path):
    out = tmp_path / "new" / "stimuli.npz"
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.png").write_bytes(b"not an image")
    (folder / "class-0" / "._00.png").write_bytes(b"not an image")
    (folder / "list.txt").write_text("not an image")
    made = prepare_stimuli(folder, out, n_oracle=5)
    assert made.stimuli.ids.tolist() == [f"class-{c}/{k:02d}" for c in range(3) for k in range(c, 12, 3)]
    assert np.array_equal(made.stimuli.pixels[1], noise(3, 64, 64)[14:50])
    assert (made.n_files, made.n_duplicates) == (12, 0)
    assert load_stimuli(out).digest == made.stimuli.digest
    assert np.count_nonzero(made.tier == "oracle") == 5
    for tier in ("train", "oracle"):
        assert np.array_equal(load_stimuli(out, tier).ids, made.stimuli.ids[made.tier == tier])


def test_two_files_of_one_stem_keep_their_suffix(tmp_path):
    for k, name in enumerate(["a.png", "a.bmp", "b.png", "b.png.bmp", "c.d.png"]):
        save(tmp_path / "photos" / name, noise(k, 64, 64))
    made = prepare_stimuli(tmp_path / "photos", tmp_path / "out.npz", n_oracle=0)
    assert made.stimuli.ids.tolist() == ["a.bmp", "a.png", "b", "b.png.bmp", "c.d"]


def test_copies_are_left_out_and_counted(folder, tmp_path):
    first = folder / "class-0" / "00.png"
    (folder / "z.png").write_bytes(first.read_bytes())
    padded = np.pad(noise(0, 64, 64), ((3, 3), (0, 0)))  # the same once its centre is taken
    save(folder / "class-1" / "padded.png", padded)
    made = prepare_stimuli(folder, tmp_path / "out.npz", n_oracle=2)
    assert (made.n_files, made.n_duplicates) == (14, 2)
    assert len(made.stimuli) == 12
    assert made.stimuli.ids[0] == "class-0/00"  # the first by path stays
    assert not {"z", "class-1/padded"} & set(made.stimuli.ids.tolist())


def test_n_are_drawn_from_all_folders_whatever_is_a_copy(folder, tmp_path):
    for k in range(6):
        save(folder / "class-0" / f"copy-{k}.png", noise(0, 64, 64))
    made = [prepare_stimuli(folder, tmp_path / f"{s}.npz", n=9, n_oracle=3, seed=s) for s in range(3)]
    for each in made:
        assert len(each.stimuli) == 9
        assert each.stimuli.ids.tolist() == sorted(each.stimuli.ids.tolist())
        assert len({name.split("/")[0] for name in each.stimuli.ids}) == 3
    assert len({each.stimuli.digest for each in made}) == 3
    more_oracle = prepare_stimuli(folder, tmp_path / "more.npz", n=9, n_oracle=5, seed=0)
    assert more_oracle.stimuli.digest == made[0].stimuli.digest
    assert set(made[0].stimuli.ids[made[0].tier == "oracle"]) < set(
        more_oracle.stimuli.ids[more_oracle.tier == "oracle"]
    )
    with pytest.raises(InputError, match=r"12 different photographs \(6 more are copies\), but n is 13; ask for fewer"):
        prepare_stimuli(folder, tmp_path / "x.npz", n=13, n_oracle=3)


def test_same_input_same_bytes_and_another_seed_another_tier(folder, tmp_path):
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare_stimuli(folder, tmp_path / f"{name}.npz", n_oracle=4, seed=seed)
        digests.append(hashlib.sha256((tmp_path / f"{name}.npz").read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]
    assert load_stimuli(tmp_path / "a.npz").digest == load_stimuli(tmp_path / "c.npz").digest


def test_progress_ends_at_all(folder, tmp_path):
    told = []
    prepare_stimuli(folder, tmp_path / "out.npz", n_oracle=1, progress=lambda done, of: told.append((done, of)))
    assert told == [(k, 12) for k in range(1, 13)]
    told.clear()
    prepare_stimuli(folder, tmp_path / "out.npz", n=4, n_oracle=1, progress=lambda done, of: told.append((done, of)))
    assert told == [(k, 4) for k in range(1, 5)]


def test_a_failure_leaves_what_was_there(folder, tmp_path, monkeypatch):
    out = tmp_path / "out" / "stimuli.npz"
    prepare_stimuli(folder, out, n_oracle=1)
    before = out.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(archive_module.np, "savez", full)
        with pytest.raises(
            InputError, match=r"stimuli\.npz: cannot be written \(No space left on device\); name anoth"
        ):
            prepare_stimuli(folder, out, n_oracle=2)
    (folder / "class-2" / "11.png").write_bytes(b"not an image")
    with pytest.raises(InputError):
        prepare_stimuli(folder, out, n_oracle=2)
    assert out.read_bytes() == before
    assert os.listdir(out.parent) == ["stimuli.npz"]


def cut(file):
    file.write_bytes(file.read_bytes()[:-500])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda file: file.write_bytes(b""), "cannot be decoded (not an image); replace or remove it"),
        (cut, "cannot be decoded (image file is truncated"),
        (lambda file: save(file, noise(0, 35, 64)), "64x35 pixels (width x height), smaller than 64x36; replace or"),
        (lambda file: save(file, noise(0, 64, 63)), "63x64 pixels (width x height), smaller than 64x36"),
        (
            lambda file: Image.fromarray(np.zeros((64, 64), np.float32)).save(file, format="TIFF"),
            "cannot be decoded (32-bit pixels of unknown range: save it as 8-bit)",
        ),
    ],
)
def test_a_bad_file_is_named(folder, tmp_path, spoil, says):
    bad = folder / "class-1" / "04.png"
    spoil(bad)
    with pytest.raises(InputError) as error:
        prepare_stimuli(folder, tmp_path / "out.npz", n_oracle=2)
    assert str(error.value).startswith(f"{bad}: {says}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.npz").exists()


def test_a_decompression_bomb_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"00\.png: cannot be decoded \(Image size \(4096 pixels\) exceeds limit"):
        prepare_stimuli(folder, tmp_path / "out.npz", n_oracle=2)


def test_other_folders_and_numbers_are_refused(folder, tmp_path):
    out = tmp_path / "out.npz"
    (tmp_path / "empty").mkdir()
    for arguments, says in (
        ({"folder": tmp_path / "none"}, "none: no such folder; give one that holds photographs"),
        ({"folder": tmp_path / "empty"}, "empty: holds no photographs; give a folder of .png"),
        ({"out": tmp_path / "empty"}, "empty: a folder; name the .npz file to write"),
        ({"n": 0}, "n is 0; it must be 1 or more"),
        ({"n": 13}, "holds 12 photographs, but n is 13; ask for fewer"),
        ({"n_oracle": -1}, "n_oracle is -1; it must be 0 or more"),
        ({"n_oracle": 12}, "n_oracle is 12 of 12 photographs, which leaves none to train on; ask for fewer"),
        ({"n": 5, "n_oracle": 5}, "n_oracle is 5 of 5 photographs"),
        ({}, "n_oracle is 100 of 12 photographs"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"size": (0, 64)}, "size is 0; it must be 1 or more"),
    ):
        with pytest.raises(InputError) as error:
            prepare_stimuli(**({"folder": folder, "out": out} | arguments))
        assert says in str(error.value)
        assert not out.exists()


def test_copies_may_leave_none_to_train_on(tmp_path):
    for k in range(3):
        save(tmp_path / "photos" / f"{k}.png", noise(0, 64, 64))
    with pytest.raises(InputError, match="n_oracle is 1 of 1 photographs, which leaves none"):
        prepare_stimuli(tmp_path / "photos", tmp_path / "out.npz", n_oracle=1)
