"""What every format's reader ends in: arrays under the names of the plain format, checked once, to a `Scan`."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

import numpy as np

from neuroprior.types import Float32, InputError, Int64, Scan, Shaped, Stimuli, Tier, UInt8
from neuroprior.types.recordings import two_tiers

__all__ = ["NEEDED", "OPTIONAL", "Fields", "Unsound", "not_read", "scan_fields", "stimuli_of_trials", "unsound"]

NEEDED = ("name", "images", "image_names", "trial_image", "responses", "tier")
OPTIONAL = ("behavior", "behavior_names", "pupil_center", "neuron_xyz", "notes")

_PASSED_OVER = 8  # fields that are named
_ROWS = 256  # of a large array looked at together, so that one in a file is never held whole


def scan_fields(scan: Scan) -> dict[str, np.ndarray]:
    """Return the arrays of a scan under the names that `Fields` knows; those that it does not have are absent."""
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
    if scan.notes:
        fields["notes"] = np.array(scan.notes, dtype=np.str_)
    return fields


def not_read(kind: str, held: Iterable[str]) -> list[str]:
    """Return a note for each name in a plain file that is no field, with the field that may have been meant."""
    known, names = (*NEEDED, *OPTIONAL), list(held)
    others = [name for name in names if name not in known]
    absent = [name for name in known if name not in names]
    notes = []
    for name in others[:_PASSED_OVER]:
        meant = get_close_matches(name, absent, n=1)
        notes.append(f"{kind} {name!r} is not read{f' (did you mean {meant[0]!r}?)' if meant else ''}")
    if len(others) > _PASSED_OVER:
        notes.append(f"{len(others) - _PASSED_OVER} more are not read")
    return notes


@dataclass(frozen=True, slots=True)
class Unsound:
    """Values that are not finite: where the first stands, and how many there are, on how many rows and columns.

    `throughout`: columns of which every value is so.
    """

    row: int
    column: int
    values: int
    rows: int
    columns: int
    throughout: tuple[int, ...]

    def spread(self, row: str, column: str) -> str:
        """Return ', the first of ...', or nothing for a single value."""
        if self.values == 1:
            return ""
        counts = ((self.rows, row), (self.columns, column))
        of = " and ".join(f"{n:,} {what}{'s' * (n > 1)}" for n, what in counts)
        return f", the first of {self.values:,} such values on {of}"

    def mend(self, row: str) -> str:
        """Return what to do about them."""
        return f"drop the {row}{'s' * (self.rows > 1)} or mend the value{'s' * (self.values > 1)}"


def unsound(values: np.ndarray, rows: Int64[np.ndarray, " row"], *, may_miss: bool = False) -> Unsound | None:
    """Return what is not finite in these rows, None where all is; NaN passes where it `may_miss`.

    A large array is looked at a few rows at a time, so that one in a file is never held whole.
    """
    first: tuple[int, int] | None = None
    bad_values = bad_rows = 0
    bad_columns = np.zeros(values.shape[1], dtype=np.int64)
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        block = values[part]
        bad = np.isinf(block) if may_miss else ~np.isfinite(block)
        if not bad.any():
            continue
        if first is None:
            row, column = np.argwhere(bad)[0]
            first = int(part[row]), int(column)
        bad_values += int(np.count_nonzero(bad))
        bad_rows += int(bad.any(axis=1).sum())
        bad_columns += bad.sum(axis=0)
    if first is None:
        return None
    throughout = tuple(np.flatnonzero(bad_columns == len(rows)).tolist())
    return Unsound(*first, bad_values, bad_rows, int(np.count_nonzero(bad_columns)), throughout)


def stimuli_of_trials(
    images: UInt8[np.ndarray, "trial height width"],
    image_ids: Shaped[np.ndarray, " trial"],
    fault: "Fields",
) -> dict[str, np.ndarray]:
    """Return `images`, `image_names` and `trial_image` of a file that holds the picture of every trial.

    Images stand in the order in which they were first shown. Raises `InputError` where one id has two pictures.
    """
    names, first, trial_image = np.unique(image_ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    trial_image = place[trial_image]
    first = first[order]
    for start in range(0, len(images), _ROWS):
        shown = slice(start, start + _ROWS)
        differs = (images[shown] != images[first[trial_image[shown]]]).any(axis=(1, 2))
        if differs.any():
            trial = start + int(np.argmax(differs))
            other = int(first[trial_image[trial]])
            raise fault.fault(
                "image_names",
                f"is {str(image_ids[trial])!r} on trials {other} and {trial}, whose pictures differ; give each its own",
            )
    return {"images": images[first], "image_names": names[order], "trial_image": trial_image}


@dataclass(frozen=True, slots=True)
class Fields:
    """The arrays of one recording under the plain format's names; each method returns one, checked and converted.

    `where`: what the file itself calls each of them, for messages. Raises `InputError` naming file, dataset and mend.
    """

    file: Path
    values: Mapping[str, np.ndarray]
    where: Mapping[str, str] = field(default_factory=dict)
    kind: str = "field"
    notes: Sequence[str] = ()

    def scan(self) -> Scan:
        """Check everything, and return it as a `Scan`."""
        images = self.images("images", "image_names")
        ids = self.unique("image_names", len(images), "image")
        self._each_image_once(images, ids)
        trial_image = self.rows_of("trial_image", len(images))
        self._each_image_shown(trial_image, ids)
        trials = len(trial_image)
        responses = self.reals("responses", trials, "trial", None, column="neuron")
        behavior = None
        if self.both("behavior", "behavior_names"):
            behavior = self.reals("behavior", trials, "trial", None, may_miss=True)
        channels = 0 if behavior is None else behavior.shape[1]
        return Scan(
            name=self.text("name"),
            stimuli=Stimuli(ids, images),
            trial_image=trial_image,
            responses=responses,
            tier=self.tiers("tier", trial_image, ids),
            behavior=behavior,
            behavior_names=tuple(self.unique("behavior_names", channels, "channel").tolist()) if channels else (),
            pupil_center=self.reals("pupil_center", trials, "trial", 2, may_miss=True)
            if "pupil_center" in self.values
            else None,
            neuron_xyz=self.reals("neuron_xyz", responses.shape[1], "neuron", 3)
            if "neuron_xyz" in self.values
            else None,
            notes=self._all_notes(),
        )

    def fault(self, field: str, said: str) -> InputError:
        """Return the error that names file and dataset, and says this of it."""
        return InputError(f"{self.file}: {self.kind} {self.where.get(field, field)!r} {said}")

    def no(self, field: str, wanted: str, mend: str) -> InputError:
        """Return the error for an array of another kind or shape than wanted."""
        value = self.values[field]
        return self.fault(field, f"is {value.dtype} {value.shape}, not {wanted}; {mend}")

    def both(self, field: str, names: str) -> bool:
        """Whether two fields that belong together are there."""
        for there, missing in ((field, names), (names, field)):
            if there in self.values and missing not in self.values:
                raise self.fault(missing, f"is missing while {there!r} is there; give both or none")
        return field in self.values

    def text(self, field: str) -> str:
        """One string that is not empty."""
        value = self.values[field]
        if value.dtype.kind != "U" or value.ndim != 0 or not str(value):
            raise self.no(field, "one string", "give the recording a name")
        return str(value)

    def images(self, field: str, names: str) -> UInt8[np.ndarray, "image height width"]:
        """Gray pictures of 8 bits, along the axis of the images that have these names."""
        value, named = self.values[field], self.values[names].shape
        if value.ndim == 3 and named != (len(value),) and named == value.shape[2:]:
            raise self.fault(
                field,
                f"is {value.dtype} {value.shape} for {named[0]} names; looks like (height, width, image): use "
                f"np.moveaxis({field}, 2, 0)",
            )
        if value.dtype != np.uint8 or value.ndim != 3 or not value.size:
            raise self.no(field, "uint8 (image, height, width)", "convert colour to gray and scale to 0..255")
        return value

    def rows_of(self, field: str, n: int) -> Int64[np.ndarray, " trial"]:
        """Rows of `n` images."""
        value = self.values[field]
        if value.dtype.kind not in "iu" or value.ndim != 1 or not len(value):
            raise self.no(field, "integers (trial)", "give each trial its row of 'images'")
        outside = np.flatnonzero((value < 0) | (value >= n))
        if len(outside):
            trial = outside[0]
            raise self.fault(field, f"is {value[trial]} on trial {trial}, but of {n} images; rows count from 0")
        return value.astype(np.int64)

    def strings(self, field: str, n: int, what: str) -> Shaped[np.ndarray, " row"]:
        """One string for each of `n`."""
        value = self.values[field]
        if value.dtype.kind in "iuS" and value.shape == (n,):
            raise self.no(field, f"{n} strings", f"give one for each {what}: {field}.astype(str)")
        if value.dtype.kind != "U" or value.shape != (n,):
            raise self.no(field, f"{n} strings", f"give one for each {what}")
        return value

    def unique(self, field: str, n: int, what: str) -> Shaped[np.ndarray, " row"]:
        """One string for each of `n`, no two alike."""
        value = self.strings(field, n, what)
        names, counts = np.unique(value, return_counts=True)
        if (counts > 1).any():
            twice = names[counts > 1][0]
            first, second = np.flatnonzero(value == twice)[:2]
            raise self.fault(field, f"is {str(twice)!r} in rows {first} and {second}; give each {what} its own")
        return value

    def tiers(self, field: str, trial_image: np.ndarray, ids: np.ndarray) -> Shaped[np.ndarray, " trial"]:
        """A known tier for each trial, the same on every trial of an image."""
        value = self.strings(field, len(trial_image), "trial")
        unknown = np.flatnonzero(~np.isin(value, get_args(Tier)))
        if len(unknown):
            named, known = str(value[unknown[0]]), ", ".join(get_args(Tier))
            raise self.fault(field, f"is {named!r} on trial {unknown[0]}; use only {known}")
        two = two_tiers(trial_image, value)
        if two is not None:
            other, trial = two
            raise self.fault(
                field,
                f"is {str(value[other])!r} on trial {other} and {str(value[trial])!r} on trial {trial}, which show the "
                f"same image {str(ids[trial_image[trial]])!r}; give an image one tier",
            )
        return value

    def reals(
        self, field: str, n: int, what: str, columns: int | None, *, column: str = "column", may_miss: bool = False
    ) -> Float32[np.ndarray, "row column"]:
        """Real numbers as float32, one row for each of `n`, finite; NaN where it `may_miss` says so."""
        value = self.values[field]
        table = value.dtype.kind in "fiu" and value.ndim == 2 and bool(value.size)
        if table and len(value) != n and value.shape[1] == n and len(value) == (columns or len(value)):
            said = f"is {value.dtype} {value.shape} for {n} {what}s; looks transposed: use {field}.T"
            raise self.fault(field, said)
        if table and len(value) != n and value.shape[1] == (columns or value.shape[1]):
            said = f"has {len(value)} rows, but there are {n} {what}s in {self._counted(what)!r}"
            raise self.fault(field, f"{said}; give one row for each {what}")
        if not table or value.shape != (n, columns or value.shape[1]):
            raise self.no(field, f"real numbers ({n}, {columns or '1 or more'})", f"give one row for each {what}")
        with np.errstate(over="ignore"):  # what is too large for float32 becomes inf, and is said below
            single = value.astype(np.float32, copy=False)
        found = unsound(single, np.arange(n), may_miss=may_miss)
        if found is None:
            return single
        if found.throughout:
            first, *others = found.throughout
            more, them = (f" (and of {len(others)} more)", "columns") if others else ("", "column")
            raise self.fault(field, f"is {value[0, first]} in all of column {first}{more}; drop the {them}")
        first_value = f"is {value[found.row, found.column]} in row {found.row}, column {found.column}"
        raise self.fault(field, f"{first_value}{found.spread(what, column)}; {found.mend(what)}")

    def _counted(self, what: str) -> str:
        """What the file calls the field by which these are counted."""
        by = {"trial": "trial_image", "neuron": "responses"}[what]
        return self.where.get(by, by)

    def _all_notes(self) -> tuple[str, ...]:
        """What the file was written with, then what its reader did; a note that came before is not said again."""
        written = self.strings("notes", self.values["notes"].size, "note").tolist() if "notes" in self.values else ()
        return tuple(dict.fromkeys((*written, *self.notes)))

    def _each_image_once(self, images: np.ndarray, ids: np.ndarray) -> None:
        seen: dict[bytes, int] = {}
        for row, picture in enumerate(images):
            first = seen.setdefault(hashlib.sha256(np.ascontiguousarray(picture).data).digest(), row)
            if first != row:
                raise self.fault(
                    "image_names",
                    f"gives one picture two ids, {str(ids[first])!r} and {str(ids[row])!r} (rows {first} and {row} of "
                    f"{self.where.get('images', 'images')!r}); keep one of them for all of its trials",
                )

    def _each_image_shown(self, trial_image: np.ndarray, ids: np.ndarray) -> None:
        never = np.flatnonzero(np.bincount(trial_image, minlength=len(ids)) == 0)
        if len(never):
            raise self.fault(
                "trial_image",
                f"shows {len(never)} of {len(ids)} images on no trial (first: {str(ids[never[0]])!r}); leave them out",
            )
