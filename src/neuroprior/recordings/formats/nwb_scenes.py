"""Natural scenes in an NWB file: which pictures were shown, when, and which those are."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neuroprior.recordings.formats.nwb_file import NwbFile, Windows, is_natural
from neuroprior.types import Int64, Shaped

__all__ = ["PRESENTATIONS", "TEMPLATES", "Pictures", "Presentations", "pictures_of", "presentations_of"]

PRESENTATIONS, TEMPLATES = "natural_scenes_presentations", "natural_scenes_image_stack"

_FRAMES = ("frame", "frame_index", "stimulus_index", "image_index")
_BLANKS = (-1, 2**32 - 1)  # the second: -1 in a file that has no place for a sign
_OMITTED = "omitted"


@dataclass(frozen=True, slots=True)
class Presentations:
    """Presentations of pictures: the row of each in its table, its frame and its window of time."""

    path: str
    frames_path: str
    rows: Int64[np.ndarray, " trial"]
    frames: Int64[np.ndarray, " trial"]
    windows: Windows
    names: Shaped[np.ndarray, " trial"] | None = None
    tier: Shaped[np.ndarray, " trial"] | None = None
    templates: Any = None
    notes: tuple[str, ...] = ()

    def only(self, kept: Shaped[np.ndarray, " trial"]) -> "Presentations":
        """Return those of a mask."""
        return replace(
            self,
            rows=self.rows[kept],
            frames=self.frames[kept],
            windows=Windows(self.windows.start[kept], self.windows.stop[kept]),
            names=None if self.names is None else self.names[kept],
            tier=None if self.tier is None else self.tier[kept],
        )


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures shown, by ascending frame, as the file has them; ids that the templates give them."""

    path: str
    pixels: Shaped[np.ndarray, "image height width"]
    names: list[str]
    notes: tuple[str, ...]


def presentations_of(nwb: NwbFile, forced: str | None, window: tuple[float, float | None]) -> Presentations:
    """Find the presentations; blanks are left out. `window`: seconds after the onset; to None is to their end."""
    tables = {t.name: t for t in nwb.all_of("TimeIntervals")}
    series = {s.name: s for s in nwb.all_of("IndexSeries")}
    usable = {n: t for n, t in tables.items() if is_natural(n) and any(c in t.colnames for c in _FRAMES)}
    indexed = {n: s for n, s in series.items() if is_natural(n)}
    if forced is not None:
        usable, indexed = ({forced: d[forced]} if forced in d else {} for d in (tables, series))
    elif PRESENTATIONS in usable:
        usable = {PRESENTATIONS: usable[PRESENTATIONS]}
    found = usable or indexed
    if not found:
        what = repr(forced) if forced is not None else f"{PRESENTATIONS!r}, nor others of natural images with frames"
        raise nwb.missing(f"presentations {what}", [*tables, *series], "add the table to 'intervals'")
    if len(found) > 1:
        raise nwb.ambiguous("presentations", list(found), "presentations")
    shown = _from_table(nwb, usable) if usable else _from_index(nwb, indexed, window)
    onset, end = shown.windows.start, shown.windows.stop
    windows = Windows(onset + window[0], end if window[1] is None else onset + window[1])
    backward = np.flatnonzero(~(windows.stop > windows.start) | ~np.isfinite(windows.stop - windows.start))
    if len(backward):
        at = backward[0]
        said = f"gives row {shown.rows[at]} no time ({windows.start[at]} s to {windows.stop[at]} s); drop or mend it"
        raise nwb.fault(shown.path, said)
    shown = replace(shown, windows=windows)
    blank = np.isin(shown.frames, _BLANKS)
    if shown.names is not None:
        blank |= shown.names == _OMITTED
    if blank.all():
        raise nwb.fault(shown.frames_path, "shows no image (only blanks); name other presentations")
    if blank.any():
        said = f"{shown.path}: {int(blank.sum())} of {len(blank)} presentations are blank: left out"
        shown = replace(shown.only(~blank), notes=(*shown.notes, said))
    return shown


def _from_table(nwb: NwbFile, tables: dict[str, Any]) -> Presentations:
    table = next(iter(tables.values()))
    path = nwb.path(table)
    column = next((c for c in _FRAMES if c in table.colnames), None)
    if column is None:
        raise nwb.fault(path, f"has no column of frames ({', '.join(_FRAMES)}); add one")
    frames = _whole(nwb, f"{path}/{column}")
    start, stop = (nwb.numbers(f"{path}/{name}").astype(np.float64) for name in ("start_time", "stop_time"))
    texts = {n: nwb.stored.array(f"{path}/{n}").astype(np.str_) for n in ("image_name", "tier") if n in table.colnames}
    for name, values in (("start_time", start), ("stop_time", stop), *texts.items()):
        if values.shape != frames.shape:
            raise nwb.fault(f"{path}/{name}", f"is of shape {values.shape}, but {column!r} of {frames.shape}; mend it")
    return Presentations(
        path,
        f"{path}/{column}",
        np.arange(len(frames)),
        frames,
        Windows(start, stop),
        names=texts.get("image_name"),
        tier=texts.get("tier"),
    )


def _from_index(nwb: NwbFile, series: dict[str, Any], window: tuple[float, float | None]) -> Presentations:
    """Onsets alone: a presentation lasts until the next one, at most the median of these intervals."""
    index = next(iter(series.values()))
    path = nwb.path(index)
    frames = _whole(nwb, f"{path}/data")
    onset = nwb.times(index, len(frames))
    if len(onset) < 2 and window[1] is None:
        raise nwb.fault(
            path, "has one onset, so its length is not known; say it: read_nwb(path, window=(0.0, seconds))"
        )
    between = np.diff(onset)
    usual = float(np.median(between)) if len(between) else 1.0
    notes = () if window[1] is not None else (f"{path}: has onsets alone; presentations taken to last {usual:.3g} s",)
    return Presentations(
        path,
        f"{path}/data",
        np.arange(len(frames)),
        frames,
        Windows(onset, onset + np.minimum(np.append(between, usual), usual)),
        templates=index.indexed_images if index.indexed_images is not None else index.indexed_timeseries,
        notes=notes,
    )


def _whole(nwb: NwbFile, dataset: str) -> Int64[np.ndarray, " row"]:
    """Frames, which files write as integers, floats or text; NaN is a blank."""
    values = nwb.stored.array(dataset)
    if values.ndim != 1 or not len(values):
        raise nwb.fault(dataset, f"is of shape {values.shape}; give one frame for each presentation")
    try:
        frames = values.astype(np.float64)
    except (TypeError, ValueError):
        raise nwb.fault(dataset, "is not numbers; write the frames as integers, -1 for a blank") from None
    frames = np.where(np.isnan(frames), -1.0, frames)
    broken = np.flatnonzero((frames != np.trunc(frames)) | np.isinf(frames))
    if len(broken):
        raise nwb.fault(dataset, f"is {frames[broken[0]]} in row {broken[0]}, not a whole number; mend the row")
    return frames.astype(np.int64)


def pictures_of(nwb: NwbFile, shown: Presentations, forced: str | None) -> Pictures:
    """Read the pictures that were shown, and no others."""
    source = shown.templates if forced is None and shown.templates is not None else _templates(nwb, forced)
    frames = np.unique(shown.frames)
    found = _from_images(nwb, source, shown) if hasattr(source, "images") else _from_stack(nwb, source, shown, frames)
    pixels = found.pixels
    if pixels.dtype.kind in "fiu" and pixels.dtype != np.uint8:  # the oldest files hold such values as floats
        with np.errstate(invalid="ignore"):
            narrow = pixels.astype(np.uint8)
        pixels = narrow if np.array_equal(narrow, pixels) else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        said = f"is {pixels.dtype} {pixels.shape}, not gray of 0..255; convert colour to gray and scale to 0..255"
        raise nwb.fault(found.path, said)
    return replace(found, pixels=pixels)


def _templates(nwb: NwbFile, forced: str | None) -> Any:
    held = {t.name: t for t in (nwb.root.stimulus_template or {}).values()}
    if forced is not None:
        found = [forced] if forced in held else []
    elif TEMPLATES in held:
        found = [TEMPLATES]
    else:
        found = [name for name in held if is_natural(name)] or list(held)
    if not found:
        what = repr(forced) if forced is not None else "of natural images"
        raise nwb.missing(f"templates {what}", list(held), "add the pictures to 'stimulus/templates'")
    if len(found) > 1:
        raise nwb.ambiguous("templates", found, "templates")
    return held[found[0]]


def _from_images(nwb: NwbFile, source: Any, shown: Presentations) -> Pictures:
    """Images in their order: the stated one, otherwise by the number that ends each name (a file sorts 10 before 2)."""
    path = nwb.path(source)
    notes = []
    if source.order_of_images is not None:
        ordered = list(source.order_of_images.data[:])
    else:
        numbers = {image.name: re.search(r"\d+$", image.name) for image in source.images.values()}
        last = {name: int(number[0]) for name, number in numbers.items() if number}
        if len(last) < len(numbers):
            raise nwb.fault(path, "does not say the order of its images; add 'order_of_images'")
        ordered = sorted(source.images.values(), key=lambda image: last[image.name])
        notes.append(f"{path}: states no order; images taken by the numbers that end their names")
    _inside(nwb, shown, path, len(ordered))
    images = [ordered[frame] for frame in np.unique(shown.frames)]
    values = [nwb.stored.array(nwb.path(image)) for image in images]
    for image, value in zip(images, values, strict=True):
        if value.shape != values[0].shape:
            said = f"mixes sizes: {images[0].name!r} is {values[0].shape}, {image.name!r} {value.shape}; give one size"
            raise nwb.fault(path, said)
    notes += _never_shown(path, len(images), len(ordered))
    return Pictures(path, np.stack(values), [str(image.name) for image in images], tuple(notes))


def _from_stack(nwb: NwbFile, source: Any, shown: Presentations, frames: np.ndarray) -> Pictures:
    path = f"{nwb.path(source)}/data"
    if getattr(source, "external_file", None) is not None:
        raise nwb.fault(path, "is not there, as its pictures are in external files; store them (frame, height, width)")
    data = nwb.stored.dataset(path)
    if data.ndim != 3 or 0 in data.shape:
        raise nwb.fault(path, f"is {data.dtype} {data.shape}; store gray pictures (frame, height, width)")
    last = _frames_are_last(data.shape, source.dimension, int(shown.frames.max()))
    n = data.shape[2 if last else 0]
    _inside(nwb, shown, path, n)
    pixels = np.ascontiguousarray(np.moveaxis(data[:, :, frames], -1, 0)) if last else data[frames]
    notes = [f"{path}: {data.shape} read as (height, width, frame)"] if last else []
    notes += _never_shown(path, len(frames), n)
    return Pictures(path, pixels, [f"{source.name}-{frame:03d}" for frame in frames.tolist()], tuple(notes))


def _frames_are_last(shape: tuple[int, ...], dimension: Any, highest: int) -> bool:
    """Whether a stack is (height, width, frame), against the standard.

    By its `dimension` (width and height, in either order) where that tells; otherwise where the frames shown do not fit
    into the first axis, or are exactly as many as the last is long and not as the first.
    """
    if dimension is not None:
        size = sorted(np.asarray(dimension[:]).tolist())
        first, last = size == sorted(shape[1:]), size == sorted(shape[:2])
        if first != last:
            return last
    return shape[0] <= highest < shape[2] or (shape[2] == highest + 1 != shape[0])


def _inside(nwb: NwbFile, shown: Presentations, templates: str, n: int) -> None:
    outside = np.flatnonzero((shown.frames < 0) | (shown.frames >= n))
    if len(outside):
        at = outside[0]
        raise nwb.fault(
            shown.frames_path,
            f"is {shown.frames[at]} in row {shown.rows[at]}, but {templates!r} holds {n} pictures; frames count from "
            "0, and -1 is a blank",
        )


def _never_shown(path: str, shown: int, n: int) -> list[str]:
    return [f"{path}: {n - shown} of {n} pictures are never shown: left out"] if shown < n else []
