"""NWB 2 files: natural scenes, and what regions of interest answered, as the Allen Brain Observatory has them.

| what | where |
| --- | --- |
| presentations | table of intervals `natural_scenes_presentations`: `start_time`, `stop_time`, `frame` (-1: blank) |
| ... otherwise | another with "natural" in its name and a column of frames; or such an IndexSeries of onsets |
| pictures | `stimulus/templates`: an ImageSeries (frame, height, width), also with the frames last, or Images |
| responses | a RoiResponseSeries of a module in `processing`: events before dF/F before any other |
| behaviour | time series named after running speed and pupil area, wherever they are |
| pupil | a time series of two columns named after a pupil's location |
| positions | x, y, z of the regions' table (micrometres), or the centroids of their masks (pixels, z 0) |

What is sampled in time becomes one number a presentation: the mean over `start <= t < stop`, a microsecond early being
on time; for behaviour and pupil, of the samples that are not NaN. Optional columns of the table of presentations:
`image_name` (ids of the images; a presentation of "omitted" is left out) and `tier`. Without `tier`, images shown twice
or more are oracle, the others train.

`save` writes the table, an ImageSeries and dF/F, with presentations of 0.5 s and one sample at the onset of each.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from neuroprior.recordings.formats.fields import Fields
from neuroprior.recordings.formats.nwb_file import NwbFile, Windows, opened_nwb
from neuroprior.recordings.formats.nwb_scenes import Presentations, pictures_of, presentations_of
from neuroprior.recordings.formats.nwb_write import CHANNEL, NOTE, write_nwb
from neuroprior.recordings.formats.scan_format import ScanFormat
from neuroprior.types import Scan, Shaped

__all__ = ["NWB", "read_nwb"]

_PREFERRED = (r"event|deconv|spike|spks", r"dff|df_?over_?f|df_f")
_LAST = r"neuropil|demixed|corrected|background"
_RUNNING = r"(run|locomotion).*(speed|velocity)"
_PUPIL_SIZE = r"pupil.*(area|size|diameter|radius)"
_PUPIL_CENTER = r"pupil.*(location|position|cent|tracking)"
_AT_ONCE = 1 << 28  # bytes of responses


def read_nwb(
    path: str | os.PathLike[str],
    module: str | None = None,
    series: str | None = None,
    window: tuple[float, float | None] = (0.0, None),
    *,
    presentations: str | None = None,
    templates: str | None = None,
) -> Scan:
    """Read a recording of natural scenes; what there are two of can be named.

    `module`, `series`: of the responses. A series is known by its name, its container's, or the end of its path.
    `window`: seconds after the onset, from and to; to None is to the end of the presentation.
    `presentations`, `templates`: names of the table of intervals (or IndexSeries), and of the pictures.

    Raises `InputError`, one line naming file and dataset, for whatever is wrong, and where pynwb is not installed.
    """
    file = Path(path)
    with opened_nwb(file) as nwb:
        shown = presentations_of(nwb, presentations, window)
        source = _response_series(nwb, module, series)
        responses, notes = _responses(nwb, source, shown)
        pictures = pictures_of(nwb, shown, templates)
        _, trial_image, counts = np.unique(shown.frames, return_inverse=True, return_counts=True)
        fields = {
            "name": np.array(str(nwb.root.session_id or nwb.root.identifier)),
            "images": pictures.pixels,
            "image_names": np.array(pictures.names) if shown.names is None else _given_names(nwb, shown, trial_image),
            "trial_image": trial_image.astype(np.int64),
            "responses": responses,
            "tier": np.where(counts > 1, "oracle", "train")[trial_image] if shown.tier is None else shown.tier,
        }
        ours = [line.removeprefix(NOTE) for line in str(nwb.root.notes or "").splitlines() if line.startswith(NOTE)]
        if ours:
            fields["notes"] = np.array(ours)
        where = {
            "name": "general/session_id",
            "images": pictures.path,
            "image_names": pictures.path if shown.names is None else f"{shown.path}/image_name",
            "trial_image": shown.frames_path,
            "responses": f"{nwb.path(source)}/data",
            "tier": f"{shown.path}/tier",
            "notes": "general/notes",
        }
        notes = [*shown.notes, *pictures.notes, *notes, *_behavior(nwb, shown.windows, fields, where)]
        notes += _positions(nwb, source, fields, where)
        return Fields(file, fields, where, "dataset", notes).scan()


def _given_names(nwb: NwbFile, shown: Presentations, trial_image: np.ndarray) -> Shaped[np.ndarray, " image"]:
    """The ids that the table gives the images, in the order of their frames."""
    assert shown.names is not None
    _, first = np.unique(trial_image, return_index=True)
    given: np.ndarray = shown.names[first]
    differs = np.flatnonzero(shown.names != given[trial_image])
    if len(differs):
        trial = differs[0]
        other = first[trial_image[trial]]
        raise nwb.fault(
            f"{shown.path}/image_name",
            f"is {str(shown.names[other])!r} in row {shown.rows[other]} and {str(shown.names[trial])!r} in row "
            f"{shown.rows[trial]}, which both show frame {shown.frames[trial]}; give a frame one name",
        )
    return given


def _response_series(nwb: NwbFile, module: str | None, series: str | None) -> Any:
    """The series of responses: the one named, otherwise the one whose path says the best kind of activity."""
    modules = list(nwb.root.processing or {})
    if module is not None and module not in modules:
        raise nwb.missing(f"processing module {module!r}", modules, "name one of them")
    place = "processing/" if module is None else f"processing/{module}/"
    found = {nwb.path(s): s for s in nwb.all_of("RoiResponseSeries") if nwb.path(s).startswith(place)}
    if not found:
        raise nwb.missing(f"RoiResponseSeries in {place!r}", modules, "add the responses of the regions to a module")
    kept = found
    if series is not None:
        kept = {p: s for p, s in found.items() if f"/{p}".endswith(f"/{series}") or p.split("/")[-2] == series}
        if not kept:
            raise nwb.missing(f"series {series!r} of responses", list(found), "name one of them")
    best = min(_rank(path) for path in kept)
    kept = {path: s for path, s in kept.items() if _rank(path) == best}
    if len(kept) > 1:
        raise nwb.ambiguous("responses", list(kept), "module=..., series")
    return next(iter(kept.values()))


def _rank(path: str) -> int:
    name = path.split("/", 2)[2].lower()  # without processing and the module
    for rank, pattern in enumerate(_PREFERRED):
        if re.search(pattern, name):
            return rank
    return len(_PREFERRED) + bool(re.search(_LAST, name))


def _responses(nwb: NwbFile, series: Any, shown: Presentations) -> tuple[np.ndarray, list[str]]:
    """Mean response of each region in the window of each presentation, and what is to be said of it."""
    path = f"{nwb.path(series)}/data"
    data = nwb.stored.dataset(path)
    if data.dtype.kind not in "fiu" or data.ndim not in (1, 2) or 0 in data.shape:
        raise nwb.fault(path, f"is {data.dtype} {data.shape}, not real numbers (time, region); write it as numbers")
    regions = len(nwb.stored.dataset(f"{nwb.path(series)}/rois"))
    columns = data.shape[1] if data.ndim == 2 else 1
    turned = data.ndim == 2 and columns != regions == data.shape[0]
    if columns != regions and not turned:
        raise nwb.fault(path, f"is of shape {data.shape}, but names {regions} regions; give it one column for each")
    times = nwb.times(series, data.shape[1 if turned else 0])
    begin, end = shown.windows.samples(times)
    _refuse_uncovered(nwb, path, times, shown, begin == end)
    sums = np.zeros((len(begin), regions))
    at_once = max(1, _AT_ONCE // (8 * regions))
    for at in range(int(begin.min()), int(end.max()), at_once):
        block = np.asarray(data[:, at : at + at_once].T if turned else data[at : at + at_once], dtype=np.float64)
        block = block.reshape(len(block), regions)
        for trial in np.flatnonzero((begin < at + at_once) & (end > at)):
            with np.errstate(invalid="ignore"):  # inf - inf
                sums[trial] += block[max(0, begin[trial] - at) : max(0, end[trial] - at)].sum(axis=0)
    means = nwb.in_units(series, sums / (end - begin)[:, None])
    with np.errstate(over="ignore"):
        single = means.astype(np.float32)
    broken = np.argwhere(~np.isfinite(single))
    if len(broken):
        trial, region = broken[0]
        raise nwb.fault(
            path,
            f"is {means[trial, region]} for region {region} in presentation {shown.rows[trial]} (mean of samples "
            f"{begin[trial]} to {end[trial] - 1}); drop the region or the presentation, or mend the value",
        )
    notes = [f"{path}: {data.shape} read as (region, time)"] if turned else []
    fewest, most = int((end - begin).min()), int((end - begin).max())
    if most > 1:
        each = str(most) if fewest == most else f"{fewest} to {most}"
        notes.append(f"{path}: a response is the mean of {each} samples")
    if single.min() < 0:
        notes.append(f"{path}: as low as {single.min():.3g}, kept; events (deconvolved) would not be negative")
    return single, notes


def _refuse_uncovered(nwb: NwbFile, path: str, times: np.ndarray, shown: Presentations, empty: np.ndarray) -> None:
    """A presentation that the series does not reach is no response of zero; one sample's length is let pass."""
    slack = float(np.median(np.diff(times))) * 1.01 if len(times) > 1 else np.inf
    for uncovered, says in (
        (shown.windows.stop > times[-1] + slack, f"ends at {times[-1]:.6g} s"),
        (shown.windows.start < times[0] - slack, f"begins at {times[0]:.6g} s"),
        (empty, "has no sample there"),
    ):
        if uncovered.any():
            trial = int(np.argmax(uncovered))
            start, stop = shown.windows.start[trial], shown.windows.stop[trial]
            raise nwb.fault(
                path,
                f"{says}, but presentation {shown.rows[trial]} is from {start:.6g} s to {stop:.6g} s; drop it, or "
                "choose the seconds after the onset: read_nwb(path, window=(from, to))",
            )


def _behavior(nwb: NwbFile, windows: Windows, fields: dict[str, np.ndarray], where: dict[str, str]) -> list[str]:
    """Put running speed, pupil area and pupil centre, where they are there, into `fields`."""
    series = [s for s in nwb.all_of("TimeSeries") if not nwb.path(s).startswith("stimulus/")]
    flat = [s for s in series if _columns(s) == 1]
    ours = [(int(m[1]), s) for s in flat if (m := re.fullmatch(CHANNEL.format(r"(\d+)"), str(s.comments)))]
    if ours:
        found = [(str(s.description), s, "data") for _, s in sorted(ours, key=lambda pair: pair[0])]
    else:
        best = [_best(nwb, flat, pattern) for pattern in (_RUNNING, _PUPIL_SIZE)]
        found = [(str(s.name), s, "data") for s in best if s is not None]
    pupil = _best(nwb, [s for s in series if _columns(s) == 2], _PUPIL_CENTER)
    area = getattr(pupil, "area", None)  # of an ellipse, in an extension of NWB
    if area is not None and np.ndim(area) == 1 and not any(re.search(_PUPIL_SIZE, name) for name, _, _ in found):
        found.append(("pupil_area", pupil, "area"))
    if found:
        paths = [f"{nwb.path(s)}/{dataset}" for _, s, dataset in found]
        means = [nwb.means(s, path, windows) for (_, s, _), path in zip(found, paths, strict=True)]
        fields["behavior"] = np.concatenate(means, axis=1)
        fields["behavior_names"] = np.array([name for name, _, _ in found], dtype=np.str_)
        where["behavior"] = where["behavior_names"] = ", ".join(paths)
    if pupil is None:
        return []
    path = nwb.path(pupil)
    fields["pupil_center"] = nwb.means(pupil, f"{path}/data", windows)
    where["pupil_center"] = f"{path}/data"
    return [] if "pixel" in str(pupil.unit).lower() else [f"pupil_center: {path} is in {pupil.unit}, not in pixels"]


def _columns(series: Any) -> int:
    """How many numbers a sample has; 0 for what is no series of numbers."""
    shape = np.shape(series.data) if series.data is not None else ()
    if getattr(getattr(series.data, "dtype", None), "kind", "") not in ("f", "i", "u") or 0 in shape:
        return 0
    return {1: 1, 2: shape[-1]}.get(len(shape), 0) if shape else 0


def _best(nwb: NwbFile, series: list[Any], pattern: str) -> Any:
    """The one with the shortest name of those whose path speaks of it: running_speed before running_speed_end_times."""
    found = [s for s in series if re.search(pattern, nwb.path(s).lower())]
    return min(found, key=lambda s: (len(s.name), nwb.path(s)), default=None)


def _positions(nwb: NwbFile, series: Any, fields: dict[str, np.ndarray], where: dict[str, str]) -> list[str]:
    """Put the regions' positions, where they are there, into `fields`."""
    table, path = series.rois.table, nwb.path(series.rois.table)
    rows = nwb.numbers(f"{nwb.path(series)}/rois")
    outside = np.flatnonzero((rows < 0) | (rows >= len(table)))
    if len(outside):
        said = f"is {rows[outside[0]]} for region {outside[0]}, but {path!r} has {len(table)} rows; mend it"
        raise nwb.fault(f"{nwb.path(series)}/rois", said)
    if {"x", "y", "z"} <= set(table.colnames):
        fields["neuron_xyz"] = np.stack([nwb.numbers(f"{path}/{name}")[rows] for name in "xyz"], axis=1)
        where["neuron_xyz"] = path
        return []
    mask = next((n for n in ("image_mask", "pixel_mask", "voxel_mask") if n in table.colnames), None)
    if mask is None:
        return []
    nwb.stored.dataset(f"{path}/{mask}")
    centers = np.array([_centroid(table[mask][int(row)], mask) for row in rows])
    empty = np.isnan(centers).any(axis=1)
    if empty.all():  # nobody knew where they are
        return []
    if empty.any():
        return [f"{path}/{mask}: {int(empty.sum())} of {len(empty)} masks are empty: no positions"]
    fields["neuron_xyz"] = centers
    where["neuron_xyz"] = f"{path}/{mask}"
    return [f"neuron_xyz: centroids of {path}/{mask}, in pixels, not micrometres{'' if 'vox' in mask else '; z is 0'}"]


def _centroid(mask: Any, kind: str) -> tuple[float, float, float]:
    """`sum_p w_p (x, y, z)_p / sum_p w_p`; of an image, x along its last axis. NaN for one without weight."""
    if kind == "image_mask":
        weight = np.asarray(mask, dtype=np.float64)
        axes = [*np.indices(weight.shape)[::-1], np.zeros(weight.shape)][:3]
    else:
        voxels = np.array([tuple(voxel) for voxel in mask], dtype=np.float64).reshape(len(mask), -1)
        weight = voxels[:, -1]
        axes = [*voxels.T[:-1], np.zeros(len(voxels))][:3]
    total = weight.sum()
    if not total > 0:
        return np.nan, np.nan, np.nan
    x, y, z = (float((axis * weight).sum() / total) for axis in axes)
    return x, y, z


def _recognises(path: Path) -> bool:
    import h5py  # type: ignore[import-untyped]  # here, so that other formats do without

    if not path.is_file():
        return False
    try:
        with h5py.File(path, "r") as opened:
            return "nwb_version" in opened.attrs or "nwb_version" in opened
    except Exception:  # damaged, or held: its reader says so
        return path.suffix == ".nwb"


NWB = ScanFormat(
    "nwb",
    "an NWB 2 file of natural scenes, as the Allen Brain Observatory's",
    _recognises,
    read_nwb,
    write_nwb,
    suffix=".nwb",
    choose=read_nwb,
)
