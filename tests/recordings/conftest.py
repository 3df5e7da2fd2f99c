"""A saved NWB file, and copies of it that are changed."""

import shutil
from pathlib import Path

import h5py
import pytest
from small_scan import small_scan

from neuroprior.recordings.formats.nwb import NWB


@pytest.fixture
def scan():
    return small_scan()


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    file = tmp_path_factory.mktemp("nwb") / "whole.nwb"
    NWB.save(small_scan(), file)
    return file


@pytest.fixture
def edited(saved, tmp_path):
    """Return a function that gives a copy of the saved file, changed with h5py."""

    def edit(*changes) -> Path:
        file = tmp_path / "edited.nwb"
        shutil.copy(saved, file)
        with h5py.File(file, "r+") as opened:
            for change in changes:
                change(opened)
        return file

    return edit
