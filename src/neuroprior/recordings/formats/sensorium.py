"""The Sensorium 2022 recordings: a folder of .npy files, one a trial, or the same as a zip.

    data/images|responses|behavior|pupil_center/0.npy, 1.npy, ...
    meta/trials/tiers.npy, frame_image_id.npy, frame_image_class.npy, ...
    meta/neurons/unit_ids.npy, cell_motor_coordinates.npy, ...
    meta/statistics/<data>/all|stimulus_frame/mean|std|min|max|median.npy

`static_scan` says what each of them is. Statistics are over the training trials; they are written, and never read. The
recording's name is the folder's, up to '-GrayImageNet'. Names of our own stand in `meta`, where no other reader looks.
"""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuroprior.recordings.formats.npy_tree import NpyTree, opened_tree, write_tree
from neuroprior.recordings.formats.scan_format import ScanFormat
from neuroprior.recordings.formats.static_scan import (
    NEURONS,
    OURS,
    TRIALS,
    StaticScan,
    StaticTables,
    gray_pictures,
    named_after,
    statistics,
    tables_of,
)
from neuroprior.types import InputError, Scan

__all__ = ["SENSORIUM", "read_sensorium", "write_sensorium"]

_DATA = ("images", "responses", "behavior", "pupil_center")
_FOLDERS = (*(f"data/{kind}" for kind in _DATA), "meta/trials", "meta/neurons", "meta")
_PLACES = (
    {kind: f"data/{kind}" for kind in _DATA}
    | {name: f"meta/trials/{name}.npy" for name in TRIALS}
    | {name: f"meta/neurons/{name}.npy" for name in NEURONS}
    | {name: f"meta/{name}.npy" for name in OURS}
)
_TRIAL_PLACES = {kind: f"data/{kind}/{{}}.npy" for kind in _DATA}


def read_sensorium(path: Path) -> Scan:
    """Read a Sensorium folder or zip. Raises `InputError`, one line naming the file of the tree and what it must be."""
    with opened_tree(path, _FOLDERS) as tree:
        if not tree.holds(_PLACES["tiers"]):
            held = ", ".join(sorted(tree.listed["meta/trials"])) or "nothing"
            said = f"is missing (meta/trials holds {held}); say train, validation or test of each trial"
            raise tree.fault(_PLACES["tiers"], said)
        kinds = [kind for kind in _DATA if kind in ("images", "responses") or tree.listed[f"data/{kind}"]]
        trials = _trials(tree, kinds)
        values = {"name": np.array(named_after(path))}
        for name in (*TRIALS, *NEURONS, *OURS):
            if tree.holds(_PLACES[name]):
                values[name] = tree.array(_PLACES[name])
        for kind in kinds[1:]:
            values[kind] = _rows(tree, kind, trials)
        values["images"], notes = _images(tree, trials)
    return StaticScan(path, values, _PLACES, _TRIAL_PLACES, notes).scan()


def _trials(tree: NpyTree, kinds: list[str]) -> int:
    """How many trials there are; each must have its file of every kind."""
    last = -1
    for kind in kinds:
        for name in tree.listed[f"data/{kind}"]:
            number = re.fullmatch(r"(0|[1-9]\d{0,8})\.npy", name)
            if number:
                last = max(last, int(number[1]))
            elif name.endswith(".npy"):
                raise tree.fault(f"data/{kind}/{name}", "is no trial's; move it away: trials are 0.npy, 1.npy, ...")
    for trial in range(last + 1):
        for kind in kinds:
            if f"{trial}.npy" not in tree.listed[f"data/{kind}"]:
                others = (other for other in kinds if f"{trial}.npy" in tree.listed[f"data/{other}"])
                there = next((f"{f'data/{other}/{trial}.npy'!r} is there" for other in others), f"trials go to {last}")
                said = f"is missing, while {there}; take another copy of the recording, or leave out the trial"
                raise tree.fault(f"data/{kind}/{trial}.npy", said)
    if last < 0:
        raise tree.fault("data/responses", "holds no trials; take another copy of the recording")
    return last + 1


def _rows(tree: NpyTree, kind: str, trials: int) -> np.ndarray:
    """The numbers of all trials, float32 (trial, column)."""
    rows = None
    for trial, array in enumerate(tree.stacked(f"data/{kind}", trials)):
        if array.dtype.kind not in "fiu" or array.ndim != 1 or not array.size:
            said = f"is {array.dtype} {array.shape}, not real numbers on one axis"
            raise tree.fault(f"data/{kind}/{trial}.npy", f"{said}; give the trial one number a column")
        if rows is None:
            rows = np.empty((trials, len(array)), dtype=np.float32)
        with np.errstate(over="ignore"):  # what is too large for float32 becomes inf, and is refused with its trial
            rows[trial] = array
    assert rows is not None  # there is a trial
    return rows


def _images(tree: NpyTree, trials: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pictures of all trials, uint8 (trial, height, width), and notes on what was done to them."""
    first = tree.array("data/images/0.npy")
    if first.ndim != 3 or first.shape[0] != 1 or not first.size:
        said = f"is {first.dtype} {first.shape}, not (1, height, width); convert colour to gray"
        raise tree.fault("data/images/0.npy", said)
    gray = np.empty((trials, *first.shape[1:]), dtype=np.uint8)

    def fault(trial: int, said: str) -> InputError:
        return tree.fault(f"data/images/{trial}.npy", said)

    return gray, gray_pictures(enumerate(tree.stacked("data/images", trials)), gray, fault)


def write_sensorium(scan: Scan, path: Path) -> None:
    """Write what `read_sensorium` reads: a zip where `path` ends in .zip, else a folder.

    Raises `InputError` for a scan that it would refuse, and for a folder that is there already and not empty.
    """
    write_tree(path, _members(scan, tables_of(scan, path)))


def _members(scan: Scan, tables: StaticTables) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in (tables.trials | tables.ours).items():
        yield (f"meta/{name}.npy" if name in OURS else f"meta/trials/{name}.npy"), value
    for name, value in tables.neurons.items():
        yield f"meta/neurons/{name}.npy", value
    for name, value in statistics(scan).items():
        kind, measure = name.split("/")
        for over in ("all", "stimulus_frame"):
            yield f"meta/statistics/{kind}/{over}/{measure}.npy", value
    for trial, image in enumerate(scan.trial_image):
        yield f"data/images/{trial}.npy", scan.stimuli.pixels[image][None]
        yield f"data/responses/{trial}.npy", np.asarray(scan.responses[trial])
        if scan.behavior is not None:
            yield f"data/behavior/{trial}.npy", scan.behavior[trial]
        if scan.pupil_center is not None:
            yield f"data/pupil_center/{trial}.npy", scan.pupil_center[trial]


def _recognises(path: Path) -> bool:
    try:
        if path.is_dir():
            return (path / "meta").is_dir() and any((path / "data" / kind).is_dir() for kind in ("images", "responses"))
        if not path.is_file():
            return False
        with zipfile.ZipFile(path) as archive:
            return any(re.search(r"(^|/)data/(images|responses)/", name) for name in archive.namelist())
    except Exception:  # what is raised depends on the bytes that are damaged; the reader says what is wrong
        return path.suffix == ".zip"


SENSORIUM = ScanFormat(
    "sensorium",
    "a folder of Sensorium 2022, or its zip",
    _recognises,
    read_sensorium,
    write_sensorium,
)
