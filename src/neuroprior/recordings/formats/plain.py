"""The plain format: one .npz file with the fields of `Scan`, to be written from any language that knows NumPy's files.

| field | type | what |
| --- | --- | --- |
| `name` | one string | what messages and results call the recording |
| `images` | uint8 (image, height, width) | what was shown: gray, 0 black to 255 white |
| `image_names` | string (image) | unique ids of the images, one for each picture; of numbers, `ids.astype(str)` |
| `trial_image` | integer (trial) | row of `images` shown on each trial, from 0; every image is shown |
| `responses` | float (trial, neuron) | any non-negative activity measure, one unit for the whole scan, finite |
| `tier` | string (trial) | "train", "validation", "oracle" (repeated): one per trial; all trials of an image the same |
| `behavior` | float (trial, channel) | optional: running speed, pupil size, ...; NaN where not tracked |
| `behavior_names` | string (channel) | their names, unique; needed where `behavior` is there |
| `pupil_center` | float (trial, 2) | optional: x, y in the tracker's pixels; NaN where the eye was not found |
| `neuron_xyz` | float (neuron, 3) | optional: cortical coordinates in micrometres, finite |
| `notes` | string (note) | optional: what was done to the recording on its way |

Floats are kept as float32, integers as int64. Strings are NumPy's unicode arrays, never objects: nothing is unpickled.
"""

import zipfile
from pathlib import Path

from neuroprior.recordings.archive import archive_fields, read_archive, write_archive
from neuroprior.recordings.formats.fields import NEEDED, OPTIONAL, Fields, not_read, scan_fields
from neuroprior.recordings.formats.scan_format import ScanFormat
from neuroprior.types import InputError, Scan

__all__ = ["PLAIN", "read_plain", "write_plain"]

_MEND = (
    "write it with neuroprior.recordings.save_scan, or numpy.savez and the fields that docs/recordings.md lists (texts "
    "as np.asarray(names, str))"
)


def read_plain(file: Path) -> Scan:
    """Read a plain .npz recording. Raises `InputError`, one line naming file, field and what it must be."""
    held = archive_fields(file, _MEND)
    if {"images", "names"} <= {*held} and not {"responses", "trial_image"} & {*held}:
        raise InputError(f"{file}: stimuli, not a recording (no responses); use it as --stimuli, or load_stimuli(path)")
    values = read_archive(file, NEEDED, OPTIONAL, mend=_MEND)
    return Fields(file, values, notes=not_read("field", held)).scan()


def write_plain(scan: Scan, file: Path) -> None:
    """Write what `read_plain` reads; `InputError` for a scan that it would refuse."""
    fields = scan_fields(scan)
    Fields(file, fields).scan()
    write_archive(file, fields)


def _recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            return "trial_image.npy" in names or (path.suffix == ".npz" and "istim_sp.npy" not in names)
    except Exception:  # what is raised depends on the bytes that are damaged
        return path.suffix == ".npz"  # damaged: its reader says so


PLAIN = ScanFormat(
    "plain", "one .npz file with the fields of neuroprior.Scan", _recognises, read_plain, write_plain, suffix=".npz"
)
