"""The `static*.h5` files that came before the Sensorium folders (Walker et al. 2019): the same arrays in one HDF5 file.

`images`, `responses`, `behavior`, `pupil_center` and `tiers` stand at the root, what is known of trials in `item_info`,
of neurons in `neurons`, and in `statistics` the mean, std, min, max and median of each kind of data over the training
trials. `static_scan` says what each of them is. Responses that are float32, neither chunked nor compressed, stay in the
file and are read as they are needed.
"""

from pathlib import Path

import numpy as np

from neuroprior.recordings.formats.hdf5 import Hdf5, hdf5_root, opened_hdf5, write_hdf5
from neuroprior.recordings.formats.scan_format import ScanFormat
from neuroprior.recordings.formats.static_scan import (
    NEURONS,
    OURS,
    TRIALS,
    StaticScan,
    gray_pictures,
    named_after,
    statistics,
    tables_of,
)
from neuroprior.types import Scan

__all__ = ["SENSORIUM_H5", "read_sensorium_h5", "write_sensorium_h5"]

_MEND = "write it again, or take another copy of the recording"
_DATA = ("images", "responses", "behavior", "pupil_center")
_PLACES = (
    {name: name for name in (*_DATA, *OURS)}
    | {name: f"item_info/{name}" for name in TRIALS}
    | {name: f"neurons/{name}" for name in NEURONS}
    | {"tiers": "tiers"}
)


def read_sensorium_h5(file: Path) -> Scan:
    """Read a `static*.h5` recording. Raises `InputError`, one line naming file, dataset and what it must be."""
    with opened_hdf5(file, _MEND) as source:
        for name in ("images", "responses", "tiers"):
            if not source.holds(name):
                raise source.missing(name)
        source.refuse_growth(_PLACES.values())
        values = {"name": np.array(named_after(file))}
        for name in (*TRIALS, *NEURONS, *OURS):
            if source.holds(_PLACES[name]):
                values[name] = source.array(_PLACES[name])
        for name in ("responses", "behavior", "pupil_center"):
            if source.holds(name):
                values[name] = source.single(name)
        values["images"], notes = _images(source)
    return StaticScan(file, values, _PLACES, {}, notes).scan()


def _images(source: Hdf5) -> tuple[np.ndarray, tuple[str, ...]]:
    shape = source.dataset("images").shape
    if len(shape) != 4 or shape[1] != 1 or 0 in shape:
        raise source.fault("images", f"is {shape}, not (trial, 1, height, width); convert colour to gray")
    trials, _, height, width = shape
    mapped = source.mapped("images", np.uint8)
    if mapped is not None:
        return mapped.reshape(trials, height, width), ()
    gray = np.empty((trials, height, width), dtype=np.uint8)
    blocks = ((start, block[:, 0]) for start, block in source.blocks("images"))
    return gray, gray_pictures(blocks, gray, lambda trial, said: source.fault("images", said))


def write_sensorium_h5(scan: Scan, file: Path) -> None:
    """Write what `read_sensorium_h5` reads; `InputError` for a scan that it would refuse."""
    tables = tables_of(scan, file)
    datasets = {"responses": scan.responses, "tiers": np.char.encode(tables.trials.pop("tiers"), "utf-8")}
    if scan.behavior is not None:
        datasets["behavior"] = scan.behavior
    if scan.pupil_center is not None:
        datasets["pupil_center"] = scan.pupil_center
    for name in ("frame_image_class", "condition_hash"):
        tables.trials[name] = np.char.encode(tables.trials[name], "utf-8")
    datasets |= {f"item_info/{name}": value for name, value in tables.trials.items()}
    datasets |= {f"neurons/{name}": value for name, value in tables.neurons.items()}
    for name, value in statistics(scan).items():
        kind, measure = name.split("/")
        datasets |= {f"statistics/{kind}/{over}/{measure}": value for over in ("all", "stimulus.Frame")}
    datasets["images"] = scan.stimuli.pixels[scan.trial_image][:, None]
    write_hdf5(file, datasets | tables.ours)


def _recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    root = hdf5_root(path)
    return root is not None and {"images", "responses"} <= root and "trial_image" not in root


SENSORIUM_H5 = ScanFormat(
    "sensorium-h5",
    "one static*.h5 file of Walker et al. 2019",
    _recognises,
    read_sensorium_h5,
    write_sensorium_h5,
    suffix=".h5",
)
