"""An NWB 2 file that is open: what stands in it by pynwb, its values by the HDF5 file, its samples by their times."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neuroprior.recordings.formats.hdf5 import Hdf5, opened_hdf5
from neuroprior.types import Float64, InputError, Int64

__all__ = ["NEEDS_PYNWB", "NwbFile", "Windows", "is_natural", "opened_nwb"]

NEEDS_PYNWB = "needs pynwb: pip install 'neuroprior[nwb]'"

_EARLY = 1e-6  # seconds: clocks are written with rounding
_MEND = "copy the file again, or see what pynwb-validate says of it"


@dataclass(frozen=True, slots=True)
class Windows:
    """From when to when each presentation is listened to, in seconds."""

    start: Float64[np.ndarray, " trial"]
    stop: Float64[np.ndarray, " trial"]

    def samples(
        self, times: Float64[np.ndarray, " sample"]
    ) -> tuple[Int64[np.ndarray, " trial"], Int64[np.ndarray, " trial"]]:
        """First sample of `start <= t < stop`, and the one after the last; a microsecond early is on time."""
        begin = np.searchsorted(times, self.start - _EARLY)
        return begin, np.maximum(begin, np.searchsorted(times, self.stop - _EARLY))


@dataclass(frozen=True, slots=True)
class NwbFile:
    """An open file; its methods raise `InputError` naming file and dataset."""

    file: Path
    root: Any
    manager: Any
    stored: Hdf5

    def path(self, container: Any) -> str:
        """Where in the file it stands."""
        return str(self.manager.get_builder(container).path).removeprefix("root/")

    def fault(self, dataset: str, said: str) -> InputError:
        """Return the error that names file and dataset, and says this of it."""
        return self.stored.fault(dataset, said)

    def missing(self, what: str, held: list[str], mend: str) -> InputError:
        """Return the error for what is not there, which says what is."""
        return InputError(f"{self.file}: no {what} (there are: {', '.join(held) or 'none'}); {mend}")

    def ambiguous(self, what: str, found: list[str], argument: str) -> InputError:
        """Return the error for one of several, which says how to name it."""
        which = " or ".join(found)
        return InputError(f"{self.file}: {what} could be {which}; say which: read_nwb(path, {argument}=...)")

    def all_of(self, kind: Literal["IndexSeries", "RoiResponseSeries", "TimeIntervals", "TimeSeries"]) -> list[Any]:
        """Everything of one of pynwb's classes in the file, by path."""
        from pynwb import TimeSeries  # type: ignore[import-untyped]  # an extra, and seconds to load
        from pynwb.epoch import TimeIntervals  # type: ignore[import-untyped]
        from pynwb.image import IndexSeries  # type: ignore[import-untyped]
        from pynwb.ophys import RoiResponseSeries  # type: ignore[import-untyped]

        classes = {c.__name__: c for c in (IndexSeries, RoiResponseSeries, TimeIntervals, TimeSeries)}
        return sorted((c for c in _within(self.root) if isinstance(c, classes[kind])), key=self.path)

    def numbers(self, dataset: str) -> np.ndarray:
        """A whole dataset of real numbers."""
        value = self.stored.array(dataset)
        if value.dtype.kind not in "fiu":
            raise self.fault(dataset, f"is {value.dtype} {value.shape}, not real numbers; write it as numbers")
        return value

    def times(self, series: Any, samples: int) -> Float64[np.ndarray, " sample"]:
        """When each sample of a series was taken, in seconds."""
        path = self.path(series)
        if series.rate is not None and series.timestamps is None:
            if not (series.rate > 0 and np.isfinite(series.rate)):
                raise self.fault(f"{path}/starting_time", f"has the rate {series.rate}; give the samples a second")
            regular: np.ndarray = float(series.starting_time or 0.0) + np.arange(samples) / float(series.rate)
            return regular
        times = self.numbers(f"{path}/timestamps").astype(np.float64)
        if times.shape != (samples,):
            raise self.fault(f"{path}/timestamps", f"is of shape {times.shape} for {samples} samples; give each a time")
        back = np.flatnonzero(~(np.diff(times) >= 0))
        if len(back):
            raise self.fault(f"{path}/timestamps", f"goes back at sample {back[0] + 1}; sort the samples by time")
        return times

    def means(self, series: Any, dataset: str, windows: Windows) -> Float64[np.ndarray, "trial column"]:
        """Mean over the samples that are not NaN; NaN where there are none."""
        values = self.numbers(dataset).astype(np.float64)
        values = values.reshape(len(values), -1)
        begin, end = windows.samples(self.times(series, len(values)))
        means = np.full((len(begin), values.shape[1]), np.nan)
        for trial, (first, last) in enumerate(zip(begin, end, strict=True)):
            there = ~np.isnan(values[first:last])
            total = np.where(there, values[first:last], 0.0).sum(axis=0)
            np.divide(total, there.sum(axis=0), out=means[trial], where=there.any(axis=0))
        return self.in_units(series, means)

    def in_units(self, series: Any, values: np.ndarray) -> np.ndarray:
        """Values of a series in the unit that it names; older files say NaN where they mean no conversion."""
        conversion, offset = (float(v) if v is not None else np.nan for v in (series.conversion, series.offset))
        scale = conversion if np.isfinite(conversion) else 1.0
        shift = offset if np.isfinite(offset) else 0.0
        return values if (scale, shift) == (1.0, 0.0) else values * scale + shift


@contextmanager
def opened_nwb(file: Path) -> Iterator[NwbFile]:
    """Open a file, and close it after the block; whatever is raised on a damaged one, there too, is one line.

    Raises `InputError` for what is no NWB 2 file, and where pynwb is not installed.
    """
    try:
        import pynwb
    except ImportError:
        raise InputError(f"{file}: reading NWB {NEEDS_PYNWB}") from None
    with opened_hdf5(file, "give an NWB 2 file, which is one of HDF5") as stored:
        try:
            _refuse_another(file, stored.handle)
            _refuse_ragged(stored)
            with warnings.catch_warnings(action="ignore"), pynwb.NWBHDF5IO(str(file), mode="r") as io:
                yield NwbFile(file, io.read(), io.manager, Hdf5(file, stored.handle, _MEND))
        except InputError:
            raise
        except Exception as error:  # h5py's, hdmf's and pynwb's are of many kinds
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise InputError(f"{file}: cannot be read as NWB 2 ({said}); {_MEND}") from None


def _refuse_ragged(stored: Hdf5) -> None:
    """Raise `InputError` for a table whose columns differ in length, of which pynwb would only say what it was at."""
    import h5py  # type: ignore[import-untyped]  # here, so that other formats do without

    tables: list[Any] = []
    stored.handle.visititems(lambda _, one: tables.append(one) if isinstance(one, h5py.Group) else None)
    for table in tables:
        if "colnames" not in table.attrs:
            continue
        names = [
            name for name in ("id", *map(str, table.attrs["colnames"])) if isinstance(table.get(name), h5py.Dataset)
        ]
        rows = {name: len(table[_with_rows(table, name)]) for name in names}
        for name, held in rows.items():
            first = names[0]
            if held != rows[first]:
                place = table.name.strip("/")
                said = f"has {held} rows, but {first!r} of its table has {rows[first]}; give every row of it a value"
                raise stored.fault(f"{place}/{name}", said)


def _with_rows(table: Any, column: str) -> str:
    """The dataset that has a value for each row: of a column of lists, its index (or that one's)."""
    while f"{column}_index" in table:
        column = f"{column}_index"
    return column


def _within(container: Any) -> Iterator[Any]:
    """Everything in a container. Its own list of objects goes by their ids, which in a copied group are not unique."""
    for child in container.children:
        yield child
        yield from _within(child)


def _refuse_another(file: Path, handle: Any) -> None:
    if "nwb_version" in handle:
        raise InputError(
            f"{file}: is NWB 1, which pynwb does not read; take the NWB 2 file of the recording (the Allen Brain "
            "Observatory's are dandiset 000728)"
        )
    if "nwb_version" not in handle.attrs:
        raise InputError(f"{file}: not an NWB file (no 'nwb_version'); load it as what it is, with format=")


def is_natural(name: str) -> bool:
    """Whether a name is that of natural images; a natural movie's frames are no presentations."""
    return "natural" in name.lower() and "movie" not in name.lower()
