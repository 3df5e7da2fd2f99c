"""The plain format: one .npz file with the fields of `Scan`, to be written from any language that knows NumPy's files.

| field | type | what |
| --- | --- | --- |
| `name` | one string | what messages and results call the recording |
| `images` | uint8 (image, height, width) | what was shown: gray, 0 black to 255 white |
| `image_names` | string (image) | unique ids of the images |
| `trial_image` | integer (trial) | row of `images` shown on each trial, from 0 |
| `responses` | float (trial, neuron) | any non-negative activity measure, one unit for the whole scan, finite |
| `tier` | string (trial) | "train", "validation" or "oracle" (images shown repeatedly) |
| `behavior` | float (trial, channel) | optional: running speed, pupil size, ..., finite |
| `behavior_names` | string (channel) | their names, unique; needed where `behavior` is there |
| `pupil_center` | float (trial, 2) | optional: x, y in the tracker's pixels, finite |
| `neuron_xyz` | float (neuron, 3) | optional: cortical coordinates in micrometres, finite |

Floats are kept as float32, integers as int64. Strings are NumPy's unicode arrays, never objects: nothing is unpickled.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from neuroprior.recordings.archive import read_archive, write_archive
from neuroprior.recordings.formats.scan_format import ScanFormat
from neuroprior.types import Float32, InputError, Int64, Scan, Shaped, Stimuli, Tier, UInt8

__all__ = ["PLAIN", "read_plain", "write_plain"]

_NEEDED = ("name", "images", "image_names", "trial_image", "responses", "tier")
_OPTIONAL = ("behavior", "behavior_names", "pupil_center", "neuron_xyz")
_MEND = "write it with neuroprior.recordings.save_scan, or numpy.savez and the fields that its documentation lists"


def read_plain(file: Path) -> Scan:
    """Read a plain .npz recording. Raises `InputError`, one line naming file, field and what it must be."""
    return _scan(file, read_archive(file, _NEEDED, _OPTIONAL, mend=_MEND))


def write_plain(scan: Scan, file: Path) -> None:
    """Write what `read_plain` reads; `InputError` for a scan that it would refuse."""
    fields: dict[str, np.ndarray] = {
        "name": np.array(scan.name),
        "images": scan.stimuli.pixels,
        "image_names": scan.stimuli.ids,
        "trial_image": scan.trial_image,
        "responses": scan.responses,
        "tier": scan.tier,
    }
    if scan.behavior is not None:
        fields |= {"behavior": scan.behavior, "behavior_names": np.array(scan.behavior_names, dtype=np.str_)}
    if scan.pupil_center is not None:
        fields["pupil_center"] = scan.pupil_center
    if scan.neuron_xyz is not None:
        fields["neuron_xyz"] = scan.neuron_xyz
    _scan(file, fields)
    write_archive(file, fields)


def _recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix == ".npz":  # a damaged or incomplete one as well: its reader says what is wrong with it
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return "trial_image.npy" in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


PLAIN = ScanFormat("plain", "one .npz file with the fields of neuroprior.Scan", _recognises, read_plain)


def _scan(file: Path, values: Mapping[str, np.ndarray]) -> Scan:
    given = _Fields(file, values)
    images = given.images("images")
    trial_image = given.rows_of("trial_image", len(images))
    trials = len(trial_image)
    responses = given.reals("responses", trials, "trial", None)
    behavior = given.reals("behavior", trials, "trial", None) if given.both("behavior", "behavior_names") else None
    channels = 0 if behavior is None else behavior.shape[1]
    return Scan(
        name=given.text("name"),
        stimuli=Stimuli(given.unique("image_names", len(images), "image"), images),
        trial_image=trial_image,
        responses=responses,
        tier=given.tiers("tier", trials),
        behavior=behavior,
        behavior_names=tuple(given.unique("behavior_names", channels, "channel").tolist()) if channels else (),
        pupil_center=given.reals("pupil_center", trials, "trial", 2) if "pupil_center" in values else None,
        neuron_xyz=given.reals("neuron_xyz", responses.shape[1], "neuron", 3) if "neuron_xyz" in values else None,
    )


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of one file; each method returns one, or raises `InputError` saying what it must be."""

    file: Path
    values: Mapping[str, np.ndarray]

    def fault(self, field: str, said: str) -> InputError:
        return InputError(f"{self.file}: field {field!r} {said}")

    def no(self, field: str, wanted: str, mend: str) -> InputError:
        value = self.values[field]
        return self.fault(field, f"is {value.dtype} {value.shape}, not {wanted}; {mend}")

    def both(self, field: str, names: str) -> bool:
        for there, missing in ((field, names), (names, field)):
            if there in self.values and missing not in self.values:
                raise self.fault(missing, f"is missing while {there!r} is there; give both or none")
        return field in self.values

    def text(self, field: str) -> str:
        value = self.values[field]
        if value.dtype.kind != "U" or value.ndim != 0 or not str(value):
            raise self.no(field, "one string", "give the recording a name")
        return str(value)

    def images(self, field: str) -> UInt8[np.ndarray, "image height width"]:
        value = self.values[field]
        if value.dtype != np.uint8 or value.ndim != 3 or not value.size:
            raise self.no(field, "uint8 (image, height, width)", "convert colour to gray and scale to 0..255")
        return value

    def rows_of(self, field: str, n: int) -> Int64[np.ndarray, " trial"]:
        value = self.values[field]
        if value.dtype.kind not in "iu" or value.ndim != 1 or not len(value):
            raise self.no(field, "integers (trial)", "give each trial its row of 'images'")
        outside = np.flatnonzero((value < 0) | (value >= n))
        if len(outside):
            trial = outside[0]
            raise self.fault(field, f"is {value[trial]} on trial {trial}, but of {n} images; rows count from 0")
        return value.astype(np.int64)

    def strings(self, field: str, n: int, what: str) -> Shaped[np.ndarray, " row"]:
        value = self.values[field]
        if value.dtype.kind != "U" or value.shape != (n,):
            raise self.no(field, f"{n} strings", f"give one for each {what}")
        return value

    def unique(self, field: str, n: int, what: str) -> Shaped[np.ndarray, " row"]:
        value = self.strings(field, n, what)
        names, counts = np.unique(value, return_counts=True)
        if (counts > 1).any():
            twice = names[counts > 1][0]
            first, second = np.flatnonzero(value == twice)[:2]
            raise self.fault(field, f"is {str(twice)!r} in rows {first} and {second}; give each {what} its own")
        return value

    def tiers(self, field: str, n: int) -> Shaped[np.ndarray, " trial"]:
        value = self.strings(field, n, "trial")
        unknown = np.flatnonzero(~np.isin(value, get_args(Tier)))
        if len(unknown):
            named, known = str(value[unknown[0]]), ", ".join(get_args(Tier))
            raise self.fault(field, f"is {named!r} on trial {unknown[0]}; use only {known}")
        return value

    def reals(self, field: str, n: int, what: str, columns: int | None) -> Float32[np.ndarray, "row column"]:
        value = self.values[field]
        fits = value.ndim == 2 and len(value) == n and value.shape[1] == (columns or max(1, value.shape[1]))
        if value.dtype.kind not in "fiu" or not fits:
            raise self.no(field, f"real numbers ({n}, {columns or '1 or more'})", f"give one row for each {what}")
        with np.errstate(over="ignore"):  # what is too large for float32 becomes inf, and is said below
            single = value.astype(np.float32, copy=False)
        if not np.isfinite(single).all():
            row, column = np.argwhere(~np.isfinite(single))[0]
            said = f"is {value[row, column]} in row {row}, column {column}; drop the {what} or mend the value"
            raise self.fault(field, said)
        return single
