"""Where things stand in an NWB file of ours, and changes to a copy of one."""

import h5py
import numpy as np
import pytest

from neuroprior.recordings.formats.nwb import read_nwb
from neuroprior.types import InputError

TABLE = "intervals/natural_scenes_presentations"
STACK = "stimulus/templates/natural_scenes_image_stack"
SERIES = "processing/ophys/DfOverF/RoiResponseSeries"
REGIONS = "processing/ophys/ImageSegmentation/PlaneSegmentation"
RUNNING = "processing/behavior/BehavioralTimeSeries/running speed"
PUPIL = "processing/behavior/EyeTracking/pupil_location"


def put(name, data, dtype=None):
    """A change: other values under a name, with the attributes that were there."""

    def change(file):
        attrs = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=data, dtype=dtype).attrs.update(attrs)

    return change


def drop(name):
    def change(file):
        del file[name]
        group, _, last = name.rpartition("/")
        if group and "colnames" in file[group].attrs:
            kept = [c for c in file[group].attrs["colnames"] if c != last]
            file[group].attrs["colnames"] = np.array(kept, dtype=h5py.string_dtype())

    return change


def refused(file, **how) -> str:
    with pytest.raises(InputError) as error:
        read_nwb(file, **how)
    said = str(error.value)
    assert said.startswith(f"{file}: ")
    assert "\n" not in said
    return said.removeprefix(f"{file}: ")


def other(values):
    return put(f"{SERIES}/data", values)
