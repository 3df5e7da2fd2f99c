"""A compressed file may not say more than its bytes bear out: one rule for archives, zips of .npy files and HDF5."""

import zipfile

import h5py
import numpy as np
import pytest

import neuroprior.recordings.growth as growth
from neuroprior.recordings.archive import read_archive
from neuroprior.recordings.formats.hdf5 import opened_hdf5
from neuroprior.recordings.formats.npy_tree import opened_tree
from neuroprior.types import InputError

SIZE = 1 << 21


def in_an_archive(file, values):
    with file.open("wb") as stream:
        np.savez_compressed(stream, responses=values)
    return read_archive(file, ["responses"], mend="mend it")["responses"]


def in_a_tree(file, values):
    np.save(file.with_suffix(".npy"), values)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(file.with_suffix(".npy"), "data/0.npy")
    with opened_tree(file, ["data"]) as tree:
        return tree.array("data/0.npy")


def in_hdf5(file, values):
    with h5py.File(file, "w") as opened:
        opened.create_dataset("responses", data=values, chunks=(1 << 16,), compression="gzip")
    with opened_hdf5(file, "mend it") as opened:
        return opened.array("responses")


@pytest.mark.parametrize("read", [in_an_archive, in_a_tree, in_hdf5])
def test_zeros_without_end_are_refused_where_they_are_large(tmp_path, monkeypatch, read):
    zeros = np.zeros(SIZE, dtype=np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    np.testing.assert_array_equal(read(tmp_path / "small.zip", zeros), zeros)  # not large
    monkeypatch.setattr(growth, "_LARGE", SIZE // 2)
    np.testing.assert_array_equal(read(tmp_path / "noise.zip", noise), noise)  # large, and all of it there
    with pytest.raises(InputError, match=r"grows from [0-9]+ kB to 2 MB, as no recording does; "):
        read(tmp_path / "zeros.zip", zeros)


def together_in_an_archive(file, fields):
    with file.open("wb") as stream:
        np.savez_compressed(stream, **fields)
    return read_archive(file, [*fields], mend="mend it")


def together_in_hdf5(file, fields):
    with h5py.File(file, "w") as opened:
        for name, values in fields.items():
            opened.create_dataset(name, data=values, chunks=(1 << 16,), compression="gzip")
    with opened_hdf5(file, "mend it") as opened:
        opened.refuse_growth(fields)
        return {name: opened.array(name) for name in fields}


@pytest.mark.parametrize("read", [together_in_an_archive, together_in_hdf5])
def test_fields_that_each_keep_to_the_limit_do_not_exceed_it_together(tmp_path, monkeypatch, read):
    monkeypatch.setattr(growth, "_LARGE", 2 * SIZE)
    zeros = {f"field{k}": np.zeros(SIZE, dtype=np.uint8) for k in range(4)}
    one = {"field0": zeros["field0"]}
    np.testing.assert_array_equal(read(tmp_path / "one.zip", one)["field0"], zeros["field0"])

    def nothing_is_read(*_):
        raise AssertionError

    monkeypatch.setattr("neuroprior.recordings.archive.read_array", nothing_is_read)
    with pytest.raises(InputError, match=r"\.zip: grows from [0-9]+ kB to [68] MB, as no recording does; mend it$"):
        read(tmp_path / "four.zip", zeros)


def test_a_header_that_lies_is_found_before_the_values_of_others_are_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", first=np.zeros(9), last=np.array([{}], dtype=object))

    def nothing_is_read(*_):
        raise AssertionError

    monkeypatch.setattr("neuroprior.recordings.archive.read_array", nothing_is_read)
    with pytest.raises(InputError, match="field 'last' cannot be read"):
        read_archive(tmp_path / "a.npz", ["first", "last"], mend="mend it")
