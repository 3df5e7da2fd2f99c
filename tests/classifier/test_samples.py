"""Test images of any layout: the same images whatever the axes, all classes early, names that stay."""

import numpy as np
import pytest
from PIL import Image

from neuroprior.classifier.datasets import load_packaged_digits, load_samples
from neuroprior.types import InputError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (9, 3, 5, 6), dtype=np.uint8)
LABELS = np.repeat([0, 1, 2], [5, 3, 1])
IN_TURN = [0, 5, 8, 1, 6, 2, 7, 3, 4]


def test_axes_and_number_types_do_not_matter(tmp_path):
    rounded = (COLOR / 255).astype(np.float32)
    first = None
    for k, images in enumerate((COLOR, COLOR.transpose(0, 2, 3, 1), rounded, rounded.transpose(0, 2, 3, 1))):
        np.savez(tmp_path / f"{k}.npz", images=images, labels=LABELS.astype(np.uint8))
        read = load_samples(tmp_path / f"{k}.npz")
        assert np.allclose(read.images, rounded[IN_TURN], atol=1e-7)
        first = first or read
        assert (read.ids, read.labels.tolist()) == (first.ids, LABELS[IN_TURN].tolist())
    np.savez(tmp_path / "gray.npz", images=COLOR[:, 0], labels=LABELS)
    assert np.array_equal(load_samples(tmp_path / "gray.npz").images, first.images[:, :1])
    np.save(tmp_path / "images.npy", COLOR)
    np.save(tmp_path / "labels.npy", LABELS)
    assert np.array_equal(load_samples(tmp_path / "images.npy", labels=tmp_path / "labels.npy").images, first.images)


def test_fewer_are_among_more_under_the_same_names(tmp_path):
    np.savez(tmp_path / "a.npz", images=COLOR, labels=LABELS)
    for name, count in (("cat", 3), ("dog", 5)):
        (tmp_path / "folder" / name).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)).save(
                tmp_path / "folder" / name / f"{k}.png"
            )
    for path in (tmp_path / "a.npz", tmp_path / "folder", "digits"):
        many, few = load_samples(path), load_samples(path, n=4)
        assert len(few) == 4
        assert few.ids == many.ids[:4]
        assert np.array_equal(few.images, many.images[:4])
        assert len(set(many.ids)) == len(many)
    assert load_samples(tmp_path / "folder", n=3).ids == ("cat/0", "dog/0", "cat/1")
    assert load_samples(tmp_path / "a.npz").ids == tuple(map(str, IN_TURN))


def test_digits_are_gray_and_those_of_the_test(tmp_path):
    read, test = load_samples("digits", n=30), load_packaged_digits()[1]
    assert np.bincount(read.labels).tolist() == [3] * 10
    rows = [int(name) for name in read.ids]
    assert np.array_equal(read.images, test.pixels[rows].astype(np.float32) / np.float32(255))
    assert load_samples("digits", color="rgb", n=2).images.shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"images": COLOR}, "field 'labels' is missing (it holds images)"),
        ({"images": COLOR, "labels": LABELS[:4]}, "field 'labels' is int64 (4,); give 9 whole numbers"),
        ({"images": COLOR, "labels": LABELS / 2}, "field 'labels' is float64 (9,); give 9 whole numbers"),
        ({"images": COLOR, "labels": LABELS - 1}, "field 'labels' has -1 in it"),
        ({"images": COLOR.astype(np.float32), "labels": LABELS}, "images span [0, 255]; floats must lie in [0, 1]"),
        ({"images": COLOR / 255 - 0.5, "labels": LABELS}, "images span [-0.5, 0.5]"),
        ({"images": np.full((9, 5, 6), np.nan), "labels": LABELS}, "images span [nan, nan]"),
        ({"images": COLOR.astype(np.int64), "labels": LABELS}, "images are int64; give uint8, or floats"),
        ({"images": COLOR[:, :2], "labels": LABELS}, "images are (9, 2, 5, 6); give (n, h, w)"),
        ({"images": COLOR[:, :, :3, :3], "labels": LABELS}, "images are (9, 3, 3, 3); give (n, h, w)"),
        ({"images": COLOR[:0], "labels": LABELS[:0]}, "holds no images"),
    ],
)
def test_faults_of_an_npz_are_named(tmp_path, fields, says):
    np.savez(tmp_path / "bad.npz", **fields)
    with pytest.raises(InputError) as told:
        load_samples(tmp_path / "bad.npz")
    assert str(told.value).startswith(str(tmp_path / "bad.npz"))
    assert says in str(told.value)


def test_what_does_not_fit_is_refused(tmp_path):
    np.save(tmp_path / "images.npy", COLOR)
    np.savez(tmp_path / "a.npz", images=COLOR, labels=LABELS)
    (tmp_path / "folder").mkdir()
    for path, options, says in (
        (tmp_path / "images.npy", {}, "holds images alone; give their labels"),
        (tmp_path / "images.npy", {"labels": tmp_path / "none.npy"}, "none.npy: no such file"),
        (tmp_path / "images.npy", {"labels": tmp_path / "a.npz"}, "a.npz: not a single array"),
        (tmp_path / "a.npz", {"color": "gray"}, "color has no use with it"),
        (tmp_path / "a.npz", {"size": (4, 4)}, "size has no use with it"),
        (tmp_path / "a.npz", {"n": 0}, "n is 0"),
        ("digits", {"labels": tmp_path / "images.npy"}, "labels has no use with it"),
        (tmp_path / "folder", {}, "holds no folders"),
        (tmp_path / "none.parquet", {}, "no such file or folder"),
    ):
        with pytest.raises(InputError, match=r"^[^\n]+$") as told:
            load_samples(path, **options)
        assert says in str(told.value)
