"""The formats of recordings that there are, and the way in and out."""

import os
from pathlib import Path

from neuroprior.recordings.formats.nat60k import NAT60K
from neuroprior.recordings.formats.nwb import NWB
from neuroprior.recordings.formats.plain import PLAIN
from neuroprior.recordings.formats.plain_h5 import PLAIN_H5
from neuroprior.recordings.formats.scan_format import ScanFormat
from neuroprior.recordings.formats.sensorium import SENSORIUM
from neuroprior.recordings.formats.sensorium_h5 import SENSORIUM_H5
from neuroprior.types import InputError, Scan
from neuroprior.types.given import refuse_other

__all__ = ["SCAN_FORMATS", "load_scan", "save_scan"]

SCAN_FORMATS: tuple[ScanFormat, ...] = (PLAIN, PLAIN_H5, SENSORIUM, SENSORIUM_H5, NWB, NAT60K)


def load_scan(
    path: str | os.PathLike[str], format: str | None = None, *, module: str | None = None, series: str | None = None
) -> Scan:
    """Read a recording; its format is found by looking at it, or forced by name.

    `module`, `series`: of the responses, where a file (NWB) holds several.

    Raises `InputError` where nothing is there, for a format that is not known, and as the format's reader does.
    """
    place = Path(path)
    known = _known()
    if format is not None and format not in [entry.name for entry in SCAN_FORMATS]:
        raise InputError(f"{place}: format {format!r} is not one of {known}")
    if not place.exists():
        raise InputError(f"{place}: no such file or folder; give the path of a recording")
    found = [e for e in SCAN_FORMATS if (e.name == format if format is not None else e.recognises(place))]
    if not found:
        raise InputError(f"{place}: no known format of recordings; the formats are {known}")
    if len(found) > 1:
        could = " or ".join(entry.name for entry in found)
        raise InputError(f"{place}: could be {could}; say which one with format= (--format on the command line)")
    if module is None and series is None:
        return found[0].load(place)
    if found[0].choose is None:
        raise InputError(f"{place}: format {found[0].name} has one set of responses; leave out module and series")
    return found[0].choose(place, module, series)


def save_scan(scan: Scan, path: str | os.PathLike[str], format: str = "plain") -> None:
    """Write a recording; the file or folder appears whole or not at all, and `load_scan` reads it.

    Raises `InputError` for a format that is not known, and for a scan that it could not hold or read again.
    """
    refuse_other("save_scan", scan, Scan)
    place = Path(path)
    if not place.name:
        raise InputError(f"{place}: no name for a file or folder; give it one")
    for entry in SCAN_FORMATS:
        if entry.name == format:
            return entry.save(scan, place)
    raise InputError(f"{place}: format {format!r} is not one of {_known()}")


def _known() -> str:
    return ", ".join(f"{entry.name} ({entry.about})" for entry in SCAN_FORMATS)
