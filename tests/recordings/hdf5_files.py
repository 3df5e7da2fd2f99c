"""Both HDF5 formats, and changes to a file of one."""

import pytest

from neuroprior.recordings.formats.plain_h5 import PLAIN_H5
from neuroprior.recordings.formats.sensorium_h5 import SENSORIUM_H5

BOTH = pytest.mark.parametrize("form", [PLAIN_H5, SENSORIUM_H5], ids=lambda form: form.name)
