"""One folder a class: what counts as an image, which come first, sizes, and every fault."""

import numpy as np
import pytest
from PIL import Image

from neuroprior.classifier.datasets import check_image_folder, load_image_folder
from neuroprior.types import InputError


def save(file, pixels, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    for k, name in enumerate(["dog/b.png", "dog/a.png", "cat/z.PNG", "cat/more/y.bmp", "cat/x.png", "ant/only.tif"]):
        save(root / name, noise(k, 8, 10, 3))
    for hidden in ("dog/._a.png", ".cache/a.png", "cat/.thumbs/a.png"):
        (root / hidden).parent.mkdir(exist_ok=True)
        (root / hidden).write_bytes(b"not an image")
    (root / "dog" / "Thumbs.db").write_bytes(b"not an image")
    (root / "readme.txt").write_text("not a class")
    return root


def test_classes_and_files_are_sorted_and_what_is_hidden_is_passed_over(folder):
    images = load_image_folder(folder, "rgb")
    assert images.classes == ("ant", "cat", "dog")
    assert images.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert np.array_equal(images.pixels, [noise(k, 8, 10, 3).transpose(2, 0, 1) for k in (5, 3, 4, 2, 1, 0)])
    check_image_folder(folder)


def test_gray_is_pillows(folder):
    gray = load_image_folder(folder).pixels
    assert gray.shape == (6, 1, 8, 10)
    assert np.array_equal(gray[0, 0], np.asarray(Image.fromarray(noise(5, 8, 10, 3)).convert("L")))


@pytest.mark.parametrize(
    ("n", "labels"),
    [
        (1, [0]),
        (2, [0, 1]),
        (3, [0, 1, 2]),
        (4, [0, 1, 1, 2]),  # the class of one image has no second
        (5, [0, 1, 1, 2, 2]),
        (6, [0, 1, 1, 1, 2, 2]),
        (100, [0, 1, 1, 1, 2, 2]),
    ],
)
def test_n_is_spread_over_the_classes(folder, n, labels):
    some, whole = load_image_folder(folder, n=n), load_image_folder(folder)
    assert some.labels.tolist() == labels
    assert some.classes == whole.classes
    first = [np.flatnonzero(whole.labels == k)[: labels.count(k)] for k in range(3)]
    assert np.array_equal(some.pixels, whole.pixels[np.concatenate(first)])


def test_size_scales_the_shorter_side_and_keeps_the_centre(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 120).astype(np.uint8), (40, 1))  # 40 high, 120 wide
    save(tmp_path / "wide" / "a.png", ramp)
    save(tmp_path / "tall" / "a.png", np.ascontiguousarray(ramp.T))
    tall, wide = load_image_folder(tmp_path, size=(10, 10)).pixels[:, 0]
    # the middle third of the ramp, four pixels to one
    expected = ramp[:, 40:80].reshape(10, 4, 10, 4).mean(axis=(1, 3))
    assert np.abs(wide - expected).max() <= 1.5
    assert np.array_equal(tall, wide.T)
    assert load_image_folder(tmp_path, size=(6, 10)).pixels.shape == (2, 1, 6, 10)


def test_downsampling_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    save(tmp_path / "a" / "stripes.png", stripes)
    small = load_image_folder(tmp_path, size=(16, 16)).pixels[0, 0, 2:-2, 2:-2]
    assert np.abs(small - 127.5).max() < 3  # every fourth pixel alone would be black


def test_an_image_that_has_the_size_keeps_its_pixels(folder):
    assert np.array_equal(load_image_folder(folder, size=(8, 10)).pixels, load_image_folder(folder).pixels)


def test_deep_gray_is_scaled_and_transparency_shows_gray(tmp_path):
    deep = np.array([[0, 257, 65535], [128, 129, 40000]], np.uint16)
    save(tmp_path / "a" / "deep.png", deep)
    clear = np.zeros((2, 3, 4), np.uint8)
    clear[0] = (10, 20, 30, 255)
    save(tmp_path / "a" / "faint.png", clear)
    first, second = load_image_folder(tmp_path, "rgb").pixels
    assert first[0].tolist() == [[0, 1, 255], [0, 1, 156]]
    assert second[:, 0].tolist() == [[10] * 3, [20] * 3, [30] * 3]
    assert (second[:, 1] == 128).all()
    assert load_image_folder(tmp_path).pixels[1, 0].tolist() == [[18] * 3, [128] * 3]


def both(folder, match, **options):
    with pytest.raises(InputError, match=match):
        load_image_folder(folder, **options)
    with pytest.raises(InputError, match=match):
        check_image_folder(folder, **options)


def test_sizes_that_differ_are_named_with_their_mend(folder):
    save(folder / "cat" / "x.png", noise(0, 9, 10, 3))
    both(folder, r"x\.png: 9x10, but only\.tif is 8x10 \(height x width\); give `size:`")
    check_image_folder(folder, size=(4, 4))
    assert len(load_image_folder(folder, size=(4, 4))) == 6


def test_what_cannot_be_decoded_is_named(folder):
    (folder / "dog" / "b.png").write_bytes(b"not an image")
    both(folder, r"dog/b\.png: cannot be decoded \(not an image\); replace or remove it")
    both(folder, r"dog/b\.png: cannot be decoded", size=(4, 4))
    save(folder / "dog" / "b.png", noise(0, 8, 10, 3))
    content = (folder / "dog" / "b.png").read_bytes()
    (folder / "dog" / "b.png").write_bytes(content[:-60])
    with pytest.raises(InputError, match=r"dog/b\.png: cannot be decoded \(image file is truncated"):
        load_image_folder(folder)
    check_image_folder(folder)  # its header is whole


def test_other_folders_and_numbers_are_refused(tmp_path, folder):
    both(tmp_path / "none", "no such folder; give one that holds a folder of images for each class")
    both(folder / "dog", "dog: holds no folders; put the images of each class in a folder of its name")
    both(folder, "n is 0; it must be 1 or more", n=0)
    both(folder, "size is 0x4; height and width must be 1 or more", size=(0, 4))
    (folder / "empty").mkdir()
    both(folder, "empty: holds no images; put some there, or remove the folder: each is a class")
