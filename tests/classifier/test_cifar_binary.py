"""The binary CIFAR layouts: folders as their makers pack them, made small, and every fault."""

import inspect

import numpy as np
import pytest
from PIL import Image

from neuroprior.classifier.datasets import CIFAR10, load_cifar_binary, load_parquet_images
from neuroprior.types import InputError

FINE = tuple(f"fine {k}" for k in range(100))


def records(n: int, label_sizes: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, size, (n, 1)) for size in label_sizes]
    return np.hstack([*labels, rng.integers(0, 256, (n, 3072))]).astype(np.uint8)


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        records(7, (10,), k).tofile(folder / f"{name}.bin")
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")  # ends so in the real archive
    return folder


@pytest.fixture
def cifar100(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    records(12, (20, 100), 0).tofile(folder / "train.bin")
    records(5, (20, 100), 1).tofile(folder / "test.bin")
    (folder / "fine_label_names.txt").write_text("\n".join(FINE) + "\n")
    (folder / "coarse_label_names.txt").write_text("not read")
    return folder


def test_cifar10_is_its_batches_in_order(cifar10):
    written = np.concatenate([records(7, (10,), k) for k in range(5)])
    train = load_cifar_binary(cifar10, "train", "rgb")
    assert np.array_equal(train.pixels, written[:, 1:].reshape(35, 3, 32, 32))
    assert np.array_equal(train.labels, written[:, 0])
    assert train.classes == CIFAR10
    test = load_cifar_binary(cifar10, "test", "rgb")
    assert np.array_equal(test.pixels.reshape(7, -1), records(7, (10,), 5)[:, 1:])


def test_cifar100_gives_the_fine_labels(cifar100):
    train, test = load_cifar_binary(cifar100, "train", "rgb"), load_cifar_binary(cifar100, "test", "rgb")
    written = records(12, (20, 100), 0)
    assert np.array_equal(train.pixels.reshape(12, -1), written[:, 2:])
    assert np.array_equal(train.labels, written[:, 1])
    assert train.classes == test.classes == FINE
    assert len(test) == 5


def test_gray_is_pillows_to_the_bit(tmp_path):
    """All values of each channel with many of the others: 70,000 colours."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (70, 3, 32, 32), dtype=np.uint8)
    rgb[:3] = np.arange(256, dtype=np.uint8).repeat(4).reshape(32, 32)
    rgb[0, 1:] = rgb[1, ::2] = rgb[2, :2] = 0
    np.hstack([np.zeros((70, 1), np.uint8), rgb.reshape(70, -1)]).tofile(tmp_path / "test_batch.bin")
    gray = load_cifar_binary(tmp_path, "test").pixels
    for image, color in zip(gray, rgb, strict=True):
        assert np.array_equal(image[0], np.asarray(Image.fromarray(color.transpose(1, 2, 0)).convert("L")))
    assert gray.shape == (70, 1, 32, 32)


def test_real_gray_images_come_back_from_a_binary_file(data, tmp_path):
    real = load_parquet_images(data("cifar10/test-00000-of-00001.parquet"), n=200)
    rgb = np.repeat(real.pixels, 3, axis=1).reshape(200, -1)
    np.hstack([real.labels[:, None].astype(np.uint8), rgb]).tofile(tmp_path / "test_batch.bin")
    read = load_cifar_binary(tmp_path, "test")
    assert np.array_equal(read.pixels, real.pixels)
    assert np.array_equal(read.labels, real.labels)
    assert read.classes == real.classes


@pytest.mark.parametrize("n", [1, 7, 8, 35, 99])
def test_the_first_so_many(cifar10, n):
    whole, some = load_cifar_binary(cifar10, "train"), load_cifar_binary(cifar10, "train", n=n)
    assert np.array_equal(some.pixels, whole.pixels[:n])
    assert np.array_equal(some.labels, whole.labels[:n])


def test_files_of_more_records_than_are_converted_at_a_time(cifar100, monkeypatch):
    whole = load_cifar_binary(cifar100, "train")
    monkeypatch.setattr("neuroprior.classifier.datasets.cifar_binary._RECORDS", 5)
    for n in (None, 7):
        again = load_cifar_binary(cifar100, "train", n=n)
        assert np.array_equal(again.pixels, whole.pixels[:n])
        assert np.array_equal(again.labels, whole.labels[:n])


def test_names_are_optional_and_must_fit(cifar10, cifar100):
    (cifar10 / "batches.meta.txt").unlink()
    (cifar100 / "fine_label_names.txt").unlink()
    assert load_cifar_binary(cifar10, "test").classes == CIFAR10
    assert load_cifar_binary(cifar100, "test").classes == tuple(str(k) for k in range(100))
    (cifar100 / "fine_label_names.txt").write_text("apple\n")
    with pytest.raises(InputError, match=r"fine_label_names\.txt: 1 class names, not 100; .* or remove the file"):
        load_cifar_binary(cifar100, "test")
    (cifar100 / "fine_label_names.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"fine_label_names\.txt: not a text file"):
        load_cifar_binary(cifar100, "test")


def test_only_the_part_that_is_read_must_be_there(cifar10):
    (cifar10 / "test_batch.bin").unlink()
    assert len(load_cifar_binary(cifar10, "train")) == 35


def cut(file):
    file.write_bytes(file.read_bytes()[:-1000])


def relabel(file):
    content = bytearray(file.read_bytes())
    content[3073 * 4] = 10
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("data_batch_3.bin", lambda file: file.unlink(), r"data_batch_3\.bin: no such file, but others of cifar-10-ba"),
        ("data_batch_2.bin", cut, r"data_batch_2\.bin: 20511 bytes are not a whole number of records of 3073 bytes"),
        ("data_batch_5.bin", lambda file: file.write_bytes(b""), r"data_batch_5\.bin: 0 bytes are not a whole number"),
        ("data_batch_4.bin", relabel, r"data_batch_4\.bin: label of record 4 is 10, not below 10; .*unpack"),
        ("train.bin", lambda file: file.write_bytes(bytes(3074)), "holds the files of both CIFAR-10 and CIFAR-100"),
    ],
)
def test_faults_are_named(cifar10, name, spoil, says):
    spoil(cifar10 / name)
    with pytest.raises(InputError, match=says):
        load_cifar_binary(cifar10, "train")


@pytest.mark.parametrize("byte", [0, 1])
def test_both_labels_of_cifar100_must_be_in_range(cifar100, byte):
    written = records(12, (20, 100), 0)
    written[9, byte] = 100
    written.tofile(cifar100 / "train.bin")
    with pytest.raises(InputError, match=rf"label of record 9 is 100, not below {(20, 100)[byte]}"):
        load_cifar_binary(cifar100, "train")


def test_other_folders_and_arguments_are_refused(tmp_path, cifar10):
    with pytest.raises(InputError, match="no such folder"):
        load_cifar_binary(tmp_path / "none", "train")
    (tmp_path / "data_batch_1").write_bytes(b"a pickle, which is never read")
    with pytest.raises(InputError, match="neither cifar-10-batches-bin nor cifar-100-binary"):
        load_cifar_binary(tmp_path, "train")
    plain = inspect.unwrap(load_cifar_binary)
    with pytest.raises(InputError, match="part 'valid' is not one of train, test"):
        plain(cifar10, "valid")
    with pytest.raises(InputError, match="color 'grey' is not one of gray, rgb"):
        plain(cifar10, "train", "grey")
    with pytest.raises(InputError, match="n is 0; it must be 1 or more"):
        load_cifar_binary(cifar10, "train", n=0)
