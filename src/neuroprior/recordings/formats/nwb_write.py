"""Writing a recording as an NWB 2 file."""

import hashlib
import re
import uuid
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from neuroprior.files import appearing_whole
from neuroprior.recordings.formats.fields import Fields, scan_fields
from neuroprior.recordings.formats.nwb_file import NEEDS_PYNWB
from neuroprior.recordings.formats.nwb_scenes import PRESENTATIONS, TEMPLATES
from neuroprior.types import InputError, Scan

__all__ = ["CHANNEL", "NOTE", "write_nwb"]

CHANNEL = "neuroprior: channel {} of behavior"  # the comment by which a reader knows their order
NOTE = "neuroprior: "  # before each note of ours among a lab's

_SECONDS = 0.5  # of a presentation


def write_nwb(scan: Scan, file: Path) -> None:
    """Write what `read_nwb` reads: each trial half a second after the one before, with one sample at its onset.

    The same scan gives the same bytes: the session starts at the epoch, and the file's identifier is the scan's digest.
    Raises `InputError` for a scan that could not be read again, and where pynwb is not installed.
    """
    try:
        import pynwb  # type: ignore[import-untyped]
    except ImportError:
        raise InputError(f"{file}: writing NWB {NEEDS_PYNWB}") from None
    fields = scan_fields(scan)
    Fields(file, fields).scan()
    sha = hashlib.sha256()
    for name, value in fields.items():
        sha.update(f"{name} {value.dtype} {value.shape}".encode())
        sha.update(value.tobytes() if value.dtype.kind == "U" else np.ascontiguousarray(value).data)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with appearing_whole(file) as temporary, warnings.catch_warnings(action="ignore"):
            with pynwb.NWBHDF5IO(str(temporary), mode="w") as io:
                io.write(_container(scan, sha.hexdigest()))
            _fix_object_ids(temporary, sha.hexdigest())
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror or error}); name another place") from None
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: cannot be written as NWB ({said}); save the scan in another format") from None


def _container(scan: Scan, identifier: str) -> Any:
    from hdmf.common import VectorData, VectorIndex  # type: ignore[import-untyped]
    from pynwb import NWBFile, TimeSeries, behavior, ophys
    from pynwb.epoch import TimeIntervals  # type: ignore[import-untyped]
    from pynwb.image import ImageSeries  # type: ignore[import-untyped]

    def column(name: str, about: str, data: Any) -> Any:
        return VectorData(name=name, description=about, data=data)

    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    root = NWBFile(
        session_description="Responses to natural images, one sample a presentation",
        identifier=identifier,
        session_id=scan.name,
        notes="\n".join(NOTE + " ".join(note.splitlines()) for note in scan.notes) or None,
        session_start_time=epoch,
        file_create_date=epoch,
    )
    onset = np.arange(len(scan.trial_image)) * _SECONDS
    _, height, width = scan.stimuli.pixels.shape
    root.add_stimulus_template(
        ImageSeries(
            name=TEMPLATES,
            description="Gray pictures (frame, height, width), 0 black to 255 white",
            data=scan.stimuli.pixels,
            unit="n.a.",
            format="raw",
            dimension=[width, height],
            rate=1 / _SECONDS,
        )
    )
    root.add_time_intervals(
        TimeIntervals(
            name=PRESENTATIONS,
            description="Each presentation of a natural image",
            id=np.arange(len(onset)),
            columns=[
                column("start_time", "onset, in seconds", onset),
                column("stop_time", "end, in seconds", onset + _SECONDS),
                column("frame", f"row of stimulus/templates/{TEMPLATES}", scan.trial_image),
                column("image_name", "id of the image", scan.trial_ids.tolist()),
                column("tier", "train, validation or oracle (shown repeatedly)", scan.tier.tolist()),
            ],
        )
    )
    device = root.create_device(name="microscope")
    plane = root.create_imaging_plane(
        name="imaging_plane",
        description="unknown",
        optical_channel=ophys.OpticalChannel(name="channel", description="unknown", emission_lambda=np.nan),
        device=device,
        excitation_lambda=np.nan,
        indicator="unknown",
        location="unknown",
    )
    module = root.create_processing_module("ophys", "Regions of interest and their responses")
    neurons = scan.responses.shape[1]
    no_pixel = np.zeros(neurons, dtype=[("x", "u4"), ("y", "u4"), ("weight", "f4")])
    masks = column("pixel_mask", "unknown: one pixel without weight", no_pixel)
    columns = [VectorIndex(name="pixel_mask_index", data=np.arange(1, neurons + 1), target=masks), masks]
    if scan.neuron_xyz is not None:
        columns += [
            column(name, f"cortical {name}, in micrometres", np.ascontiguousarray(values))
            for name, values in zip("xyz", scan.neuron_xyz.T, strict=True)
        ]
    regions = ophys.PlaneSegmentation(
        name="PlaneSegmentation", description="Neurons", imaging_plane=plane, id=np.arange(neurons), columns=columns
    )
    module.add(ophys.ImageSegmentation(plane_segmentations=[regions]))
    activity = ophys.DfOverF()
    module.add(activity)
    activity.add_roi_response_series(
        ophys.RoiResponseSeries(
            name="RoiResponseSeries",
            description="Response of each neuron to each presentation",
            data=scan.responses,
            rois=regions.create_roi_table_region("all neurons", region=list(range(neurons))),
            unit="n.a.",
            timestamps=onset,
        )
    )
    if scan.behavior is not None or scan.pupil_center is not None:
        module = root.create_processing_module("behavior", "Behaviour during each presentation")
    if scan.behavior is not None:
        channels = behavior.BehavioralTimeSeries()
        module.add(channels)
        taken: set[str] = set()
        for k, (name, values) in enumerate(zip(scan.behavior_names, scan.behavior.T, strict=True)):
            allowed = re.sub(r"[/:.]", "_", name)
            allowed = f"channel {k} {allowed}" if allowed in taken or not allowed else allowed
            taken.add(allowed)
            channels.add_timeseries(
                TimeSeries(
                    name=allowed,
                    description=name,
                    comments=CHANNEL.format(k),
                    data=np.ascontiguousarray(values),
                    unit="n.a.",
                    timestamps=onset,
                )
            )
    if scan.pupil_center is not None:
        eye = behavior.EyeTracking()
        module.add(eye)
        eye.add_spatial_series(
            behavior.SpatialSeries(
                name="pupil_location",
                description="Pupil centre: x, y",
                data=scan.pupil_center,
                unit="pixels",
                reference_frame="the tracker's image",
                timestamps=onset,
            )
        )
    return root


def _fix_object_ids(file: Path, identifier: str) -> None:
    """Replace the ids that pynwb draws at random for every object by ones that follow from the scan and its place."""
    import h5py  # type: ignore[import-untyped]

    def fix(name: str, item: Any) -> None:
        if "object_id" in item.attrs:
            item.attrs.modify("object_id", str(uuid.uuid5(uuid.NAMESPACE_OID, f"{identifier}/{name}")))

    with h5py.File(file, "r+") as opened:
        fix("", opened)
        opened.visititems(fix)
