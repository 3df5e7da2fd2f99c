"""NWB 2 files: what is saved is loaded, and the layout is Allen's."""

import dataclasses
import os
import sys

import h5py
import numpy as np
import pytest
from nwb_files import PUPIL, REGIONS, RUNNING, SERIES, STACK, TABLE, refused
from small_scan import same, spoiled

from neuroprior.recordings.formats.nwb import NWB, read_nwb
from neuroprior.types import InputError


def test_a_labs_own_notes_are_not_the_scans(edited):
    def annotate(file):
        file["general"]["notes"] = "bright room\nneuroprior: 7 trials left out"

    assert read_nwb(edited(annotate)).notes == ("7 trials left out",)


def test_what_is_saved_is_loaded(scan, saved, tmp_path):
    assert same(NWB.load(saved), scan)
    bare = dataclasses.replace(scan, behavior=None, behavior_names=(), pupil_center=None, neuron_xyz=None)
    NWB.save(bare, tmp_path / "new" / "bare")
    assert same(NWB.load(tmp_path / "new" / "bare"), bare)
    assert not same(bare, scan)
    assert NWB.drops == ()


def test_whatever_a_scan_may_hold_is_held(scan, tmp_path):
    lost = scan.pupil_center.copy()
    lost[2, 0] = np.nan
    odd = dataclasses.replace(
        scan,
        behavior=np.concatenate([scan.behavior, lost[:, :1], lost[:, 1:]], axis=1),
        behavior_names=("pupil/size", "pupil:size", "..", ""),
        pupil_center=lost,
        responses=-scan.responses,
    )
    NWB.save(odd, tmp_path / "odd.nwb")
    loaded = NWB.load(tmp_path / "odd.nwb")
    assert loaded.notes == (
        f"{SERIES}/data: as low as {odd.responses.min():.3g}, kept; events (deconvolved) would not be negative",
    )
    assert same(dataclasses.replace(loaded, notes=()), odd)
    one = dataclasses.replace(
        scan,
        stimuli=scan.stimuli.select(scan.stimuli.ids[:1]),
        trial_image=np.array([0]),
        responses=scan.responses[:1, :1],
        tier=np.array(["train"]),
        behavior=scan.behavior[:1],
        pupil_center=scan.pupil_center[:1],
        neuron_xyz=scan.neuron_xyz[:1],
    )
    NWB.save(one, tmp_path / "one.nwb")
    assert same(NWB.load(tmp_path / "one.nwb"), one)


def test_same_scan_same_bytes(scan, saved, tmp_path):
    NWB.save(scan, tmp_path / "again.nwb")
    assert (tmp_path / "again.nwb").read_bytes() == saved.read_bytes()
    NWB.save(dataclasses.replace(scan, name="other"), tmp_path / "again.nwb")
    assert (tmp_path / "again.nwb").read_bytes() != saved.read_bytes()


def test_the_layout_is_allens_and_valid(scan, saved):
    import pynwb

    with pynwb.NWBHDF5IO(str(saved), mode="r") as io:
        assert not pynwb.validate(io=io)
    with h5py.File(saved) as file:
        np.testing.assert_array_equal(file[f"{STACK}/data"][:], scan.stimuli.pixels)
        np.testing.assert_array_equal(file[f"{TABLE}/frame"][:], scan.trial_image)
        np.testing.assert_array_equal(file[f"{TABLE}/start_time"][:], file[f"{SERIES}/timestamps"][:])
        np.testing.assert_array_equal(np.diff(file[f"{TABLE}/start_time"][:]), 0.5)
        np.testing.assert_array_equal(file[f"{SERIES}/data"][:], scan.responses)
        np.testing.assert_array_equal(file[f"{RUNNING}/data"][:], scan.behavior[:, 0])
        np.testing.assert_array_equal(file[f"{PUPIL}/data"][:], scan.pupil_center)
        np.testing.assert_array_equal(file[f"{REGIONS}/z"][:], scan.neuron_xyz[:, 2])
        assert file["session_start_time"][()].decode().startswith("1970-01-01T00:00:00")


def test_without_pynwb_its_extra_is_named(scan, saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    assert refused(saved) == "reading NWB needs pynwb: pip install 'neuroprior[nwb]'"
    with pytest.raises(InputError, match=r"a\.nwb: writing NWB needs pynwb: pip install 'neuroprior\[nwb\]'"):
        NWB.save(scan, tmp_path / "a.nwb")


def test_what_could_not_be_read_again_is_not_written(scan, tmp_path, monkeypatch):
    lost = dataclasses.replace(scan, pupil_center=spoiled(scan.pupil_center, (2, 0), np.inf))
    with pytest.raises(InputError, match=r"a\.nwb: field 'pupil_center' is inf in row 2, column 0"):
        NWB.save(lost, tmp_path / "a.nwb")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuroprior.recordings.formats.nwb_write._fix_object_ids", full)
    with pytest.raises(InputError, match=r"a\.nwb: cannot be written \(No space left on device\); name another place"):
        NWB.save(scan, tmp_path / "a.nwb")
    assert not os.listdir(tmp_path)
