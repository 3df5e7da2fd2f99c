"""What the Sensorium folder and the same lab's HDF5 files share: arrays under the lab's names, to and from a `Scan`.

Both hold one picture a trial, and of each trial what was shown, to what end, and how the neurons answered:

| array | type | what |
| --- | --- | --- |
| `images` | (trial, 1, height, width) | gray, 0 to 255, of 8 bits or real |
| `responses` | (trial, neuron) | deconvolved activity |
| `behavior` | (trial, 3) | optional: pupil dilation, its derivative, running speed |
| `pupil_center` | (trial, 2) | optional |
| `tiers` | string (trial) | train, validation; test and final_test, both repeated and often withheld |
| `frame_image_id`, `frame_image_class` | integer, string (trial) | together they name the picture: "imagenet-1234" |
| `unit_ids`, `cell_motor_coordinates` | (neuron), (neuron, 3) | optional |

Four arrays are ours, written only by us and passed over by other readers: `name` of the recording, `image_name`
(trial) where ids are not of the lab's form, `behavior_names` where the columns are not those three, and `notes`.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroprior.recordings.formats.fields import Fields, scan_fields, stimuli_of_trials, unsound
from neuroprior.types import InputError, Scan

__all__ = [
    "BEHAVIOR",
    "NEURONS",
    "OURS",
    "TRIALS",
    "StaticScan",
    "StaticTables",
    "gray_pictures",
    "named_after",
    "statistics",
    "tables_of",
]

BEHAVIOR = ("pupil_dilation", "d_pupil_dilation", "running_speed")
_PICTURES = ("frame_image", "colorframeprojector_image", "image")  # each with _id and _class; the first that is there
TRIALS = ("tiers", "image_name", *(f"{picture}_{part}" for picture in _PICTURES for part in ("id", "class")))
NEURONS = ("unit_ids", "cell_motor_coordinates")
OURS = ("name", "behavior_names", "notes")

_TIERS = {"train": "train", "validation": "validation", "test": "oracle", "final_test": "oracle"}
_WITHHELD = ("test", "final_test")  # the tiers whose responses a competition keeps to itself
_ROWS = 256  # trials looked at together


@dataclass(frozen=True, slots=True)
class StaticScan:
    """The arrays of one recording under the lab's names; `images` are uint8 (trial, height, width).

    `places`: what the file calls each of them. `trial_places`: the same of one trial's part, `{}` for its number.
    """

    file: Path
    values: Mapping[str, np.ndarray]
    places: Mapping[str, str]
    trial_places: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def scan(self) -> Scan:
        """Check everything, and return it as a `Scan`, without the trials whose responses are withheld.

        Images stand in the order in which they were first shown. Raises `InputError` naming file, dataset and mend.
        """
        self._one_row_a_trial()
        words, tier = self._tiers()
        where = dict(self.places) | {"tier": self.places["tiers"], "image_names": self._picture_place()}
        where |= {"trial_image": where["image_names"], "neuron_xyz": self.places["cell_motor_coordinates"]}
        whole = Fields(self.file, {"tier": tier}, where, "dataset")
        shown = stimuli_of_trials(self.values["images"], self._image_ids(), whole)
        whole.tiers("tier", shown["trial_image"], shown["image_names"])
        kept, notes = self._not_withheld(words)
        for name in ("responses", "behavior", "pupil_center"):
            if name in self.values:
                self._finite(name, kept, may_miss=name != "responses")
        seen, trial_image = np.unique(shown["trial_image"][kept], return_inverse=True)
        values = {
            "name": self._decoded("name"),
            "images": _rows(shown["images"], seen),
            "image_names": shown["image_names"][seen],
            "trial_image": trial_image,
            "responses": _rows(self.values["responses"], kept),
            "tier": tier[kept],
        }
        if "behavior" in self.values:
            values |= {"behavior": self.values["behavior"][kept], "behavior_names": self._behavior_names()}
        if "pupil_center" in self.values:
            values["pupil_center"] = self.values["pupil_center"][kept]
        if "notes" in self.values:
            values["notes"] = self._decoded("notes")
        if "cell_motor_coordinates" in self.values:
            values["neuron_xyz"] = self.values["cell_motor_coordinates"]
        return Fields(self.file, values, where, "dataset", (*self.notes, *notes)).scan()

    def fault(self, name: str, said: str, trial: int | None = None) -> InputError:
        """Return the error that names file and dataset (of one trial, where it has its own), and says this of it."""
        place = self.places[name]
        if trial is not None:
            place = self.trial_places.get(name, place).format(trial)
        return InputError(f"{self.file}: dataset {place!r} {said}")

    def _one_row_a_trial(self) -> None:
        responses = self.values["responses"]
        if responses.dtype.kind not in "fiu" or responses.ndim != 2 or not responses.size:
            said = f"is {responses.dtype} {responses.shape}, not real numbers (trial, neuron)"
            raise self.fault("responses", f"{said}; give every trial one number for each neuron")
        trials, neurons = responses.shape
        for name in ("images", "behavior", "pupil_center", *TRIALS):
            value = self.values.get(name)
            if value is not None and (not value.ndim or len(value) != trials):
                held = len(value) if value.ndim else "no"
                said = f"has {held} rows for {trials} trials in {self.places['responses']!r}"
                raise self.fault(name, f"{said}; give each trial one")
        units = self.values.get("unit_ids")
        if units is not None and units.shape != (neurons,):
            said = f"is {units.dtype} {units.shape} for {neurons} neurons in {self.places['responses']!r}"
            raise self.fault("unit_ids", f"{said}; give each neuron one")

    def _decoded(self, name: str) -> np.ndarray:
        value = self.values[name]
        if value.dtype.kind != "S":
            return value
        try:
            return np.char.decode(value, "utf-8")
        except UnicodeDecodeError:
            raise self.fault(name, "is text that is not UTF-8; write it as UTF-8") from None

    def _text(self, name: str) -> np.ndarray:
        value = self._decoded(name)
        if value.dtype.kind != "U" or value.ndim != 1:
            raise self.fault(name, f"is {value.dtype} {value.shape}, not strings (trial); give each trial one string")
        return value

    def _tiers(self) -> tuple[np.ndarray, np.ndarray]:
        """The tier of each trial, in the lab's words and in ours."""
        words = self._text("tiers")
        unknown = np.flatnonzero(~np.isin(words, list(_TIERS)))
        if len(unknown):
            said = f"is {str(words[unknown[0]])!r} on trial {unknown[0]}; use only {', '.join(_TIERS)}"
            raise self.fault("tiers", said)
        known, place = np.unique(words, return_inverse=True)
        return words, np.array([_TIERS[word] for word in known.tolist()])[place]

    def _picture_place(self) -> str:
        names = ("image_name", *(f"{picture}_id" for picture in _PICTURES))
        return self.places[next((name for name in names if name in self.values), "frame_image_id")]

    def _image_ids(self) -> np.ndarray:
        if "image_name" in self.values:
            return self._text("image_name")
        picture = next((picture for picture in _PICTURES if f"{picture}_id" in self.values), None)
        if picture is None:
            raise self.fault("frame_image_id", "is missing; give each trial the number of the picture that it shows")
        number = self.values[f"{picture}_id"]
        if number.dtype.kind not in "iuUS" or number.ndim != 1:
            said = f"is {number.dtype} {number.shape}, not integers (trial); give each trial its picture's number"
            raise self.fault(f"{picture}_id", said)
        ids = self._text(f"{picture}_id") if number.dtype.kind in "US" else number.astype(np.str_)
        if f"{picture}_class" not in self.values:
            return ids
        classes = self._text(f"{picture}_class")
        return np.array([f"{c}-{i}" if c else i for c, i in zip(classes.tolist(), ids.tolist(), strict=True)])

    def _behavior_names(self) -> np.ndarray:
        if "behavior_names" in self.values:
            return self._decoded("behavior_names")
        behavior = self.values["behavior"]
        channels = behavior.shape[1] if behavior.ndim == 2 else 0
        return np.array(BEHAVIOR if channels == len(BEHAVIOR) else [f"behavior_{k}" for k in range(channels)])

    def _not_withheld(self, words: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """The trials to keep, and a note for each test tier whose responses are 0 or NaN throughout."""
        keep, notes = np.ones(len(words), dtype=np.bool_), []
        for word in _WITHHELD:
            trials = np.flatnonzero(words == word)
            if len(trials) and all(_blank(self.values["responses"][part]) for part in _parts(trials)):
                keep[trials] = False
                notes.append(f"{len(trials)} trials of tier {word!r} left out: their responses are withheld (0 or NaN)")
        if not keep.any():
            raise self.fault("responses", "is 0 or NaN on every trial: withheld; ask for a recording with responses")
        return np.flatnonzero(keep), tuple(notes)

    def _finite(self, name: str, trials: np.ndarray, *, may_miss: bool) -> None:
        values = self.values[name]
        if values.dtype.kind not in "fiu" or values.ndim != 2:
            said = f"is {values.dtype} {values.shape}, not real numbers (trial, channel); give one row for each trial"
            raise self.fault(name, said)
        found = unsound(values, trials, may_miss=may_miss)
        if found is not None:
            what = "neuron" if name == "responses" else "column"
            said = f"is {values[found.row, found.column]} on trial {found.row}, column {found.column}"
            raise self.fault(name, f"{said}{found.spread('trial', what)}; {found.mend('trial')}", found.row)


def _rows(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows in ascending order; all of them without a copy, so that what lies in a file stays there."""
    return values if len(rows) == len(values) else values[rows]


def _parts(trials: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(trials), _ROWS):
        yield trials[start : start + _ROWS]


def _blank(responses: np.ndarray) -> bool:
    return bool(((responses == 0) | np.isnan(responses)).all())


def gray_pictures(
    blocks: Iterable[tuple[int, np.ndarray]], gray: np.ndarray, fault: Callable[[int, str], InputError]
) -> tuple[str, ...]:
    """Fill `gray`, uint8 (trial, height, width), from blocks of trials, and return notes on what that changed.

    `fault(trial, said)` makes the error for a trial. Raises it for numbers outside 0 to 255, and where pictures of
    real numbers go from 0 to 1 only: they would all be black.
    """
    change, brightest = 0.0, None
    for start, block in blocks:
        rows = gray[start : start + len(block)]
        if block.dtype == np.uint8:
            rows[...] = block
            brightest = 255.0
            continue
        if block.dtype.kind not in "fiu":
            raise fault(start, f"is {block.dtype}, not numbers from 0 (black) to 255 (white); write uint8")
        outside = ~((block >= 0) & (block <= 255))
        if outside.any():
            at = tuple(np.argwhere(outside)[0])
            said = f"is {block[at]} at row {at[1]}, column {at[2]} of trial {start + at[0]}"
            raise fault(start + int(at[0]), f"{said}; scale pictures to 0 (black) to 255 (white)")
        rows[...] = np.rint(block)
        if block.dtype.kind == "f":
            change = max(change, float(np.abs(block - rows).max()))
        brightest = max(brightest or 0.0, float(block.max()))
    if brightest is not None and brightest <= 1:
        raise fault(0, "goes from 0 to 1 on every trial; multiply pictures by 255")
    return (f"pictures rounded to 8 bits, by {change:.2g} at most",) if change else ()


def named_after(path: Path) -> str:
    """Return the recording's name in a file's or folder's: without suffix, and up to '-GrayImageNet'."""
    place = Path.cwd() / path
    stem = place.stem if place.suffix in (".zip", ".h5", ".hdf5") else place.name
    return stem.split("-GrayImageNet")[0]


@dataclass(frozen=True, slots=True)
class StaticTables:
    """What a file of the lab holds beside the data: of each trial, of each neuron, and ours of the whole."""

    trials: dict[str, np.ndarray]
    neurons: dict[str, np.ndarray]
    ours: dict[str, np.ndarray]


def tables_of(scan: Scan, file: Path) -> StaticTables:
    """Return the tables of a scan; `InputError` for one that could not be read again.

    The lab's numbers of animal, session and scan are taken from a name such as static26872-17-20, else 0.
    """
    fields = Fields(file, scan_fields(scan))
    fields.scan()
    oracle = np.flatnonzero(scan.tier == "oracle")
    if len(oracle) and all(_blank(scan.responses[part]) for part in _parts(oracle)):
        raise fields.fault("responses", "is 0 on every oracle trial, which here means withheld; leave the trials out")
    trials, neurons = scan.responses.shape
    numbers = re.search(r"(\d{1,9})-(\d{1,9})-(\d{1,9})", scan.name)
    animal, session, scan_idx = (int(number) for number in numbers.groups()) if numbers else (0, 0, 0)
    classes, picture, named = _lab_ids(scan.stimuli.ids)
    condition = np.array([hashlib.sha256(pixels.tobytes()).hexdigest()[:20] for pixels in scan.stimuli.pixels])
    of_trials = {
        "tiers": np.where(scan.tier == "oracle", "test", scan.tier),
        "frame_image_id": picture[scan.trial_image],
        "frame_image_class": classes[scan.trial_image],
        "condition_hash": condition[scan.trial_image],
        "trial_idx": np.arange(trials),
        "animal_id": np.full(trials, animal),
        "session": np.full(trials, session),
        "scan_idx": np.full(trials, scan_idx),
    }
    if not named:
        of_trials["image_name"] = scan.trial_ids
    of_neurons = {
        "unit_ids": np.arange(1, neurons + 1),
        "animal_ids": np.full(neurons, animal),
        "sessions": np.full(neurons, session),
        "scan_idx": np.full(neurons, scan_idx),
    }
    if scan.neuron_xyz is not None:
        of_neurons["cell_motor_coordinates"] = scan.neuron_xyz
    ours = {"name": np.array(scan.name)}
    if scan.behavior is not None and scan.behavior_names != BEHAVIOR:
        ours["behavior_names"] = np.array(scan.behavior_names, dtype=np.str_)
    if scan.notes:
        ours["notes"] = np.array(scan.notes)
    return StaticTables(of_trials, of_neurons, ours)


def _lab_ids(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Class and number of every id, and whether they say it all; rows of one class where an id is of another form."""
    classes, numbers = [], []
    for name in ids.tolist():
        lab_class, _, number = name.rpartition("-")
        if not (number.isascii() and number.isdecimal() and str(int(number)) == number and int(number) < 2**63):
            return np.full(len(ids), "image"), np.arange(len(ids)), False
        if name != (f"{lab_class}-{number}" if lab_class else number):  # "-12" is neither
            return np.full(len(ids), "image"), np.arange(len(ids)), False
        classes.append(lab_class)
        numbers.append(int(number))
    return np.array(classes, dtype=np.str_), np.array(numbers, dtype=np.int64), True


def statistics(scan: Scan) -> dict[str, np.ndarray]:
    """Return mean, std, min, max and median of each kind of data over the training trials, as 'images/mean' and so on.

    Of images one number; else one a column, values that are NaN left out. Where no trial is for training, over all.
    """
    trials = np.flatnonzero(scan.tier == "train")
    trials = trials if len(trials) else np.arange(len(scan.tier))
    found = {f"images/{name}": value for name, value in _of_pictures(scan, trials).items()}
    for kind, values in (
        ("responses", scan.responses),
        ("behavior", scan.behavior),
        ("pupil_center", scan.pupil_center),
    ):
        if values is not None:
            found |= {f"{kind}/{name}": value for name, value in _of_columns(values, trials).items()}
    return found


def _of_pictures(scan: Scan, trials: np.ndarray) -> dict[str, np.ndarray]:
    """By counting how often each of the 256 grays was shown, which is exact."""
    shown = np.bincount(scan.trial_image[trials], minlength=len(scan.stimuli))
    counts = np.zeros(256, dtype=np.int64)
    for row in np.flatnonzero(shown):
        counts += shown[row] * np.bincount(scan.stimuli.pixels[row].ravel(), minlength=256)
    gray, total, up_to = np.arange(256.0), int(counts.sum()), np.cumsum(counts)
    mean = float(counts @ gray) / total
    middle = [int(np.searchsorted(up_to, place, side="right")) for place in ((total - 1) // 2, total // 2)]
    return {
        "mean": np.array(mean),
        "std": np.array(np.sqrt(float(counts @ (gray - mean) ** 2) / total)),
        "min": np.array(gray[counts > 0][0]),
        "max": np.array(gray[counts > 0][-1]),
        "median": np.array(sum(middle) / 2),
    }


def _of_columns(values: np.ndarray, trials: np.ndarray) -> dict[str, np.ndarray]:
    """A few columns at a time, so that responses in a file are never held whole."""
    parts = []
    for start in range(0, values.shape[1], _ROWS):
        block = values[trials, start : start + _ROWS].astype(np.float64)
        measured = np.isfinite(block)
        columns = [block[:, k] if measured[:, k].all() else block[measured[:, k], k] for k in range(block.shape[1])]
        if measured.all():
            parts.append([f(block, axis=0) for f in _MEASURES])
        else:
            parts.append([np.array([f(c) if len(c) else np.nan for c in columns]) for f in _MEASURES])
    return dict(zip(_MEASURE_NAMES, (np.concatenate(part) for part in zip(*parts, strict=True)), strict=True))


_MEASURES: tuple[Callable[..., np.ndarray], ...] = (np.mean, np.std, np.min, np.max, np.median)
_MEASURE_NAMES = ("mean", "std", "min", "max", "median")
