"""The plain format as HDF5: one .h5 file, whose datasets are the fields that `plain` lists.

Strings are UTF-8, of variable or fixed length; `name` is a scalar. Numbers are of the same types. Responses written as
float32, neither chunked nor compressed, stay in the file and are read as they are needed.
"""

from pathlib import Path

import numpy as np

from neuroprior.recordings.formats.fields import NEEDED, OPTIONAL, Fields, not_read, scan_fields
from neuroprior.recordings.formats.hdf5 import Hdf5, hdf5_root, opened_hdf5, write_hdf5
from neuroprior.recordings.formats.scan_format import ScanFormat
from neuroprior.types import Scan

__all__ = ["PLAIN_H5", "read_plain_h5", "write_plain_h5"]

_MEND = "write it with neuroprior.recordings.save_scan, or with h5py and the fields that docs/recordings.md lists"


def read_plain_h5(file: Path) -> Scan:
    """Read a plain .h5 recording. Raises `InputError`, one line naming file, dataset and what it must be."""
    with opened_hdf5(file, _MEND) as source:
        for name in NEEDED:
            if not source.holds(name):
                raise source.missing(name)
        source.refuse_growth((*NEEDED, *OPTIONAL))
        values = {name: _values(source, name) for name in (*NEEDED, *OPTIONAL) if source.holds(name)}
        return Fields(file, values, kind="dataset", notes=not_read("dataset", source.names())).scan()


def _values(source: Hdf5, name: str) -> np.ndarray:
    if name == "responses":
        return source.single(name)
    mapped = source.mapped(name, np.uint8) if name == "images" else None
    return source.array(name) if mapped is None else mapped


def write_plain_h5(scan: Scan, file: Path) -> None:
    """Write what `read_plain_h5` reads; `InputError` for a scan that it would refuse."""
    fields = scan_fields(scan)
    Fields(file, fields, kind="dataset").scan()
    write_hdf5(file, fields)


def _recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    root = hdf5_root(path)
    if root is None:
        return path.suffix in (".h5", ".hdf5")  # damaged, or held by another process: its reader says so
    return "trial_image" in root


PLAIN_H5 = ScanFormat(
    "plain-h5",
    "one .h5 file with the fields of neuroprior.Scan",
    _recognises,
    read_plain_h5,
    write_plain_h5,
    suffix=".h5",
)
