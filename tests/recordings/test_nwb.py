"""NWB 2 files: what is saved is loaded, Allen's two layouts are understood, whatever is wrong is one line."""

import dataclasses
import fcntl
import os
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_scan import NEURONS, TRIALS, same, small_scan, spoiled

import neuroprior.recordings.formats.nwb as nwb
from neuroprior.recordings.formats.nwb import NWB, read_nwb
from neuroprior.types import InputError

TABLE = "intervals/natural_scenes_presentations"
STACK = "stimulus/templates/natural_scenes_image_stack"
SERIES = "processing/ophys/DfOverF/RoiResponseSeries"
REGIONS = "processing/ophys/ImageSegmentation/PlaneSegmentation"
RUNNING = "processing/behavior/BehavioralTimeSeries/running speed"
PUPIL = "processing/behavior/EyeTracking/pupil_location"


@pytest.fixture
def scan():
    return small_scan()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    file = tmp_path_factory.mktemp("nwb") / "whole.nwb"
    NWB.save(small_scan(), file)
    return file


@pytest.fixture
def edited(saved, tmp_path):
    """Return a function that gives a copy of the saved file, changed with h5py."""

    def edit(*changes) -> Path:
        file = tmp_path / "edited.nwb"
        shutil.copy(saved, file)
        with h5py.File(file, "r+") as opened:
            for change in changes:
                change(opened)
        return file

    return edit


def test_a_labs_own_notes_are_not_the_scans(edited):
    def annotate(file):
        file["general"]["notes"] = "bright room\nneuroprior: 7 trials left out"

    assert read_nwb(edited(annotate)).notes == ("7 trials left out",)


def put(name, data, dtype=None):
    """A change: other values under a name, with the attributes that were there."""

    def change(file):
        attrs = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=data, dtype=dtype).attrs.update(attrs)

    return change


def drop(name):
    def change(file):
        del file[name]
        group, _, last = name.rpartition("/")
        if group and "colnames" in file[group].attrs:
            kept = [c for c in file[group].attrs["colnames"] if c != last]
            file[group].attrs["colnames"] = np.array(kept, dtype=h5py.string_dtype())

    return change


def copy(name, to):
    def change(file):
        file.require_group(to.rpartition("/")[0])
        file.copy(name, to)
        if f"{to}/rois" in file:  # a copied reference leads nowhere
            file[f"{to}/rois"].attrs["table"] = file[REGIONS].ref

    return change


def typed(name, kind, **datasets):
    """A change: a group of one of NWB's types, with datasets (or links, as h5py has them)."""

    def change(file):
        group = file.create_group(name)
        group.attrs.update({"namespace": "core", "neurodata_type": kind, "object_id": name, "description": "test"})
        for key, value in datasets.items():
            if isinstance(value, h5py.SoftLink):
                group[key] = value
            else:
                group.create_dataset(key, data=value)
        if "data" in datasets:
            group["data"].attrs.update({"unit": "n.a.", "conversion": 1.0, "resolution": -1.0, "offset": 0.0})
        if "timestamps" in datasets:
            group["timestamps"].attrs.update({"unit": "seconds", "interval": 1})

    return change


def refused(file, **how) -> str:
    with pytest.raises(InputError) as error:
        read_nwb(file, **how)
    said = str(error.value)
    assert said.startswith(f"{file}: ")
    assert "\n" not in said
    return said.removeprefix(f"{file}: ")


def test_what_is_saved_is_loaded(scan, saved, tmp_path):
    assert same(NWB.load(saved), scan)
    bare = dataclasses.replace(scan, behavior=None, behavior_names=(), pupil_center=None, neuron_xyz=None)
    NWB.save(bare, tmp_path / "new" / "bare")
    assert same(NWB.load(tmp_path / "new" / "bare"), bare)
    assert not same(bare, scan)
    assert NWB.drops == ()


def test_whatever_a_scan_may_hold_is_held(scan, tmp_path):
    lost = scan.pupil_center.copy()
    lost[2, 0] = np.nan
    odd = dataclasses.replace(
        scan,
        behavior=np.concatenate([scan.behavior, lost[:, :1], lost[:, 1:]], axis=1),
        behavior_names=("pupil/size", "pupil:size", "..", ""),
        pupil_center=lost,
        responses=-scan.responses,
    )
    NWB.save(odd, tmp_path / "odd.nwb")
    loaded = NWB.load(tmp_path / "odd.nwb")
    assert loaded.notes == (
        f"{SERIES}/data: as low as {odd.responses.min():.3g}, kept; events (deconvolved) would not be negative",
    )
    assert same(dataclasses.replace(loaded, notes=()), odd)
    one = dataclasses.replace(
        scan,
        stimuli=scan.stimuli.select(scan.stimuli.ids[:1]),
        trial_image=np.array([0]),
        responses=scan.responses[:1, :1],
        tier=np.array(["train"]),
        behavior=scan.behavior[:1],
        pupil_center=scan.pupil_center[:1],
        neuron_xyz=scan.neuron_xyz[:1],
    )
    NWB.save(one, tmp_path / "one.nwb")
    assert same(NWB.load(tmp_path / "one.nwb"), one)


def test_same_scan_same_bytes(scan, saved, tmp_path):
    NWB.save(scan, tmp_path / "again.nwb")
    assert (tmp_path / "again.nwb").read_bytes() == saved.read_bytes()
    NWB.save(dataclasses.replace(scan, name="other"), tmp_path / "again.nwb")
    assert (tmp_path / "again.nwb").read_bytes() != saved.read_bytes()


def test_the_layout_is_allens_and_valid(scan, saved):
    import pynwb

    with pynwb.NWBHDF5IO(str(saved), mode="r") as io:
        assert not pynwb.validate(io=io)
    with h5py.File(saved) as file:
        np.testing.assert_array_equal(file[f"{STACK}/data"][:], scan.stimuli.pixels)
        np.testing.assert_array_equal(file[f"{TABLE}/frame"][:], scan.trial_image)
        np.testing.assert_array_equal(file[f"{TABLE}/start_time"][:], file[f"{SERIES}/timestamps"][:])
        np.testing.assert_array_equal(np.diff(file[f"{TABLE}/start_time"][:]), 0.5)
        np.testing.assert_array_equal(file[f"{SERIES}/data"][:], scan.responses)
        np.testing.assert_array_equal(file[f"{RUNNING}/data"][:], scan.behavior[:, 0])
        np.testing.assert_array_equal(file[f"{PUPIL}/data"][:], scan.pupil_center)
        np.testing.assert_array_equal(file[f"{REGIONS}/z"][:], scan.neuron_xyz[:, 2])
        assert file["session_start_time"][()].decode().startswith("1970-01-01T00:00:00")


def slow_mean(times, values, start, stop):
    """Mean over the samples of start <= t < stop that are not NaN."""
    columns = []
    for column in values.T:
        inside = [v for t, v in zip(times, column, strict=True) if start <= t < stop and not np.isnan(v)]
        columns.append(sum(inside) / len(inside) if inside else np.nan)
    return columns


@pytest.mark.parametrize("window", [(0.0, None), (0.13, 0.41)])
def test_a_response_is_the_mean_over_its_window(edited, scan, window, monkeypatch):
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(-0.5, 5.5, 400))
    traces = rng.gamma(2.0, size=(400, NEURONS))
    slower = np.sort(rng.uniform(0, 5, 40))
    speed = np.where(rng.random(40) < 0.3, np.nan, rng.random(40))
    changes = [put(f"{SERIES}/data", traces), put(f"{SERIES}/timestamps", times)]
    for name, values in ((RUNNING, speed), (PUPIL, np.stack([speed, slower], axis=1))):
        changes += [put(f"{name}/data", values), put(f"{name}/timestamps", slower)]
    file = edited(*changes, lambda f: f[f"{SERIES}/data"].attrs.update(conversion=2.0, offset=0.25))
    loaded = read_nwb(file, window=window)
    onset = 0.5 * np.arange(TRIALS)
    edges = [(o + window[0], o + (0.5 if window[1] is None else window[1])) for o in onset]
    expected = 2.0 * np.array([slow_mean(times, traces, *edge) for edge in edges]) + 0.25
    np.testing.assert_allclose(loaded.responses, expected, rtol=1e-6)
    expected = np.array([slow_mean(slower, np.stack([speed, slower], axis=1), *edge) for edge in edges])
    np.testing.assert_allclose(loaded.behavior[:, 0], expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(loaded.pupil_center, expected, rtol=1e-6)
    (note,) = loaded.notes
    assert note.startswith(f"{SERIES}/data: a response is the mean of ")
    monkeypatch.setattr(nwb, "_AT_ONCE", 8 * NEURONS * 7)  # seven samples at a time
    np.testing.assert_allclose(read_nwb(file, window=window).responses, loaded.responses, rtol=1e-6)


def test_a_clock_that_rounds_loses_no_sample(edited, scan):
    def at_a_rate(file):
        group = file[SERIES]
        del group["timestamps"]
        group.create_dataset("starting_time", data=1e-7 - 0.5).attrs.update(rate=2.0, unit="seconds")

    sooner = np.concatenate([scan.responses[:1] + 9.0, scan.responses])
    assert same(NWB.load(edited(at_a_rate, put(f"{SERIES}/data", sooner))), scan)


def test_blanks_are_left_out_and_ids_and_tiers_follow_from_the_frames(edited, scan):
    bare = (drop(f"{TABLE}/tier"), drop(f"{TABLE}/image_name"))
    kept = np.array([1, 2, 5, 7, 8])
    for frames in (
        np.array([-1.0, 3, 2, np.nan, -1, 2, -1, 2, 0]),
        np.array([2**32 - 1, 3, 2, 2**32 - 1, 2**32 - 1, 2, 2**32 - 1, 2, 0], dtype=np.uint32),
        ["-1.0", "3.0", "2.0", "-1.0", "nan", "2.0", "-1.0", "2.0", "0.0"],
    ):
        text = h5py.string_dtype() if isinstance(frames, list) else None
        loaded = NWB.load(edited(*bare, put(f"{TABLE}/frame", frames, text)))
        assert loaded.stimuli.ids.tolist() == [f"natural_scenes_image_stack-{k:03d}" for k in (0, 2, 3)]
        np.testing.assert_array_equal(loaded.stimuli.pixels, scan.stimuli.pixels[[0, 2, 3]])
        np.testing.assert_array_equal(loaded.trial_image, [2, 1, 1, 1, 0])
        np.testing.assert_array_equal(loaded.responses, scan.responses[kept])
        np.testing.assert_array_equal(loaded.behavior, scan.behavior[kept])
        assert loaded.tier.tolist() == ["train", "oracle", "oracle", "oracle", "train"]
        assert loaded.notes == (
            f"{TABLE}: 4 of 9 presentations are blank: left out",
            f"{STACK}/data: 1 of 4 pictures are never shown: left out",
        )
    names = ["image-0", "image-1", "image-2", "image-3", "omitted", "image-2", "image-3", "image-2", "image-0"]
    file = edited(
        put(f"{TABLE}/image_name", names, h5py.string_dtype()), put(f"{TABLE}/frame", [0, 1, 2, 3, 8, 2, 3, 2, 0])
    )
    np.testing.assert_array_equal(NWB.load(file).trial_image, np.delete(scan.trial_image, 4))


def test_frames_may_be_the_last_axis(edited, scan):
    last = np.moveaxis(scan.stimuli.pixels, 0, -1)  # (3, 6, 4)
    for changes in ((), (drop(f"{STACK}/dimension"),)):
        loaded = NWB.load(edited(put(f"{STACK}/data", last), *changes))
        np.testing.assert_array_equal(loaded.stimuli.pixels, scan.stimuli.pixels)
        assert loaded.notes == (f"{STACK}/data: (3, 6, 4) read as (height, width, frame)",)
    many = np.concatenate([scan.stimuli.pixels] * 2)  # eight pictures, of which four are shown
    loaded = NWB.load(edited(put(f"{STACK}/data", many), drop(f"{STACK}/dimension")))
    np.testing.assert_array_equal(loaded.stimuli.pixels, scan.stimuli.pixels)


def test_pictures_kept_as_floats_are_the_same(edited, scan):
    assert same(NWB.load(edited(put(f"{STACK}/data", scan.stimuli.pixels.astype(np.float32)))), scan)


def images(scan, order=None, number=lambda k: f"scene{k}", pixels=None):
    """A change: the templates as Images, whose names a file sorts otherwise than by number."""

    def change(file):
        del file[STACK]
        group = file.create_group("stimulus/templates/natural_scenes_template")
        group.attrs.update({"namespace": "core", "neurodata_type": "Images", "object_id": "i", "description": "test"})
        for k, picture in enumerate(scan.stimuli.pixels if pixels is None else pixels):
            one = group.create_dataset(number(k), data=picture)
            one.attrs.update({"namespace": "core", "neurodata_type": "Image", "object_id": f"i{k}"})
        if order is not None:
            refs = [group[number(k)].ref for k in order]
            listed = group.create_dataset("order_of_images", data=refs, dtype=h5py.ref_dtype)
            listed.attrs.update({"namespace": "core", "neurodata_type": "ImageReferences", "object_id": "o"})

    return change


def test_images_stand_in_their_order(edited, scan):
    bare = (drop(f"{TABLE}/tier"), drop(f"{TABLE}/image_name"))
    loaded = NWB.load(edited(*bare, images(scan, number=lambda k: f"scene{9 + k}")))
    np.testing.assert_array_equal(loaded.stimuli.pixels, scan.stimuli.pixels)
    assert loaded.stimuli.ids.tolist() == ["scene9", "scene10", "scene11", "scene12"]
    assert loaded.notes == (
        "stimulus/templates/natural_scenes_template: states no order; images taken by the numbers that end their names",
    )
    loaded = NWB.load(edited(*bare, images(scan, order=[2, 0, 3, 1])))
    np.testing.assert_array_equal(loaded.stimuli.pixels, scan.stimuli.pixels[[2, 0, 3, 1]])
    assert loaded.stimuli.ids.tolist() == ["scene2", "scene0", "scene3", "scene1"]
    assert loaded.notes == ()
    said = refused(edited(images(scan, number=lambda k: "abcd"[k])))
    assert said == (
        "dataset 'stimulus/templates/natural_scenes_template' does not say the order of its images; add "
        "'order_of_images'"
    )
    mixed = [*scan.stimuli.pixels[:3], np.zeros((4, 6), np.uint8)]
    said = refused(edited(images(scan, pixels=mixed)))
    assert said == (
        "dataset 'stimulus/templates/natural_scenes_template' mixes sizes: 'scene0' is (3, 6), 'scene3' (4, 6); give "
        "one size"
    )


@pytest.mark.parametrize("link", ["indexed_timeseries", "indexed_images"])
def test_an_index_series_of_onsets_is_the_other_layout(edited, scan, link):
    onset = np.array([0, 1, 2, 3, 4, 100, 101, 102, 103.0])  # a pause between two blocks
    frames = np.array([0, 1, -1, 3, 3, 2, 3, 2, 0])
    kept = frames >= 0
    times = np.arange(-10, 1200) / 10.0
    traces = np.random.default_rng(2).gamma(2.0, size=(len(times), NEURONS))
    target = "natural_scenes_image_stack" if link == "indexed_timeseries" else "natural_scenes_template"
    changes = [] if link == "indexed_timeseries" else [images(scan)]
    file = edited(
        drop(TABLE),
        *changes,
        typed(
            "stimulus/presentation/natural_scenes_stimulus",
            "IndexSeries",
            data=frames,
            timestamps=onset,
            **{link: h5py.SoftLink(f"/stimulus/templates/{target}")},
        ),
        put(f"{SERIES}/data", traces),
        put(f"{SERIES}/timestamps", times),
    )
    loaded = NWB.load(file)
    np.testing.assert_array_equal(loaded.stimuli.pixels, scan.stimuli.pixels)
    np.testing.assert_array_equal(loaded.trial_image, frames[kept])
    expected = [slow_mean(times + 1e-9, traces, start, start + 1.0) for start in onset[kept]]
    np.testing.assert_allclose(loaded.responses, expected, rtol=1e-6)
    assert loaded.tier.tolist() == ["oracle", "train", *["oracle"] * 6]
    path = "stimulus/presentation/natural_scenes_stimulus"
    assert loaded.notes[:2] == (
        f"{path}: has onsets alone; presentations taken to last 1 s",
        f"{path}: 1 of 9 presentations are blank: left out",
    )


def other(values):
    return put(f"{SERIES}/data", values)


def test_the_best_series_is_taken_and_any_can_be_forced(edited, scan):
    def named(name, factor):
        path = f"processing/{name}"
        return (copy(SERIES, path), put(f"{path}/data", scan.responses * np.float32(factor)))

    def modules(file):
        file.create_group("processing/events").attrs.update(
            {"namespace": "core", "neurodata_type": "ProcessingModule", "object_id": "m", "description": "test"}
        )

    two = (*named("ophys/corrected", 2), *named("ophys/raw", 4))
    file = edited(*two, modules, *named("events/event_detection", 8), *named("events/other", 16))
    for how, factor in (
        ({}, 8),
        ({"module": "ophys"}, 1),
        ({"series": "corrected"}, 2),
        ({"series": "DfOverF/RoiResponseSeries"}, 1),
        ({"module": "events", "series": "other"}, 16),
    ):
        np.testing.assert_array_equal(read_nwb(file, **how).responses, scan.responses * np.float32(factor))
    assert refused(file, module="ecephys") == (
        "no processing module 'ecephys' (there are: behavior, events, ophys); name one of them"
    )
    assert refused(file, module="behavior") == (
        "no RoiResponseSeries in 'processing/behavior/' (there are: behavior, events, ophys); add the responses of the "
        "regions to a module"
    )
    assert refused(file, module="events", series="raw") == (
        "no series 'raw' of responses (there are: processing/events/event_detection, processing/events/other); name "
        "one of them"
    )
    file = edited(*named("ophys/dff_old", 2))
    assert refused(file) == (
        f"responses could be {SERIES} or processing/ophys/dff_old; say which: read_nwb(path, module=..., series=...)"
    )


def test_other_presentations_and_templates_can_be_named(edited, scan):
    second = "intervals/natural_images_presentations"
    file = edited(copy(TABLE, second), put(f"{second}/frame", np.zeros(9, int)), copy(STACK, f"{STACK}_b"))
    assert same(NWB.load(file), scan)
    named = "natural_images_presentations"
    assert "which both show frame 0" in refused(file, presentations=named)
    loaded = read_nwb(file, presentations="natural_scenes_presentations", templates="natural_scenes_image_stack_b")
    assert same(loaded, scan)
    assert refused(file, presentations="gratings").startswith("no presentations 'gratings' (there are: natural_images")
    assert refused(file, templates="gratings").startswith("no templates 'gratings' (there are: natural_scenes_image_st")
    file = edited(copy(TABLE, second), copy(TABLE, "intervals/natural_b"), drop(TABLE), copy(STACK, f"{STACK}_b"))
    assert refused(file) == (
        "presentations could be natural_b or natural_images_presentations; say which: read_nwb(path, presentations=...)"
    )
    file = edited(copy(STACK, f"{STACK}_a"), copy(STACK, f"{STACK}_b"), drop(STACK))
    assert refused(file) == (
        "templates could be natural_scenes_image_stack_a or natural_scenes_image_stack_b; say which: read_nwb(path, "
        "templates=...)"
    )


def masks(kind, values):
    """A change: masks instead of coordinates."""

    def change(file):
        regions = file[REGIONS]
        index = regions["pixel_mask_index"]
        attrs = dict(regions["x"].attrs)
        for name in ("x", "y", "z", "pixel_mask"):
            del regions[name]
        mask = regions.create_dataset(kind, data=values)
        mask.attrs.update(attrs)
        if kind == "pixel_mask":
            index[:] = 2 * np.arange(1, NEURONS + 1)
            index.attrs["target"] = mask.ref
        else:
            del regions["pixel_mask_index"]
        regions.attrs["colnames"] = np.array([kind], dtype=h5py.string_dtype())

    return change


def test_positions_are_the_centroids_of_masks(edited):
    rng = np.random.default_rng(3)
    weight = rng.random((NEURONS, 7, 9))
    y, x = np.mgrid[:7, :9]
    expected = np.array([[(x * w).sum() / w.sum(), (y * w).sum() / w.sum(), 0.0] for w in weight])
    loaded = NWB.load(edited(masks("image_mask", weight)))
    np.testing.assert_allclose(loaded.neuron_xyz, expected, rtol=1e-5)
    assert loaded.notes == (f"neuron_xyz: centroids of {REGIONS}/image_mask, in pixels, not micrometres; z is 0",)
    pixels = np.zeros(2 * NEURONS, dtype=[("x", "u4"), ("y", "u4"), ("weight", "f4")])
    pixels["x"], pixels["y"], pixels["weight"] = rng.integers(0, 99, 10), rng.integers(0, 99, 10), [1.0, 3.0] * NEURONS
    loaded = NWB.load(edited(masks("pixel_mask", pixels)))
    pairs = np.stack([pixels["x"], pixels["y"]], axis=1).reshape(NEURONS, 2, 2)
    np.testing.assert_allclose(loaded.neuron_xyz[:, :2], (pairs[:, 0] + 3.0 * pairs[:, 1]) / 4.0, rtol=1e-6)
    weight[2] = 0.0
    loaded = NWB.load(edited(masks("image_mask", weight)))
    assert loaded.neuron_xyz is None
    assert loaded.notes == (f"{REGIONS}/image_mask: 1 of 5 masks are empty: no positions",)


def test_running_and_pupil_are_found_by_name(edited, scan):
    onset = 0.5 * np.arange(TRIALS)

    def series(name, column, **attrs):
        return typed(name, "TimeSeries", data=column, timestamps=onset, **attrs)

    def module(file):
        file.create_group("processing/running").attrs.update(
            {"namespace": "core", "neurodata_type": "ProcessingModule", "object_id": "m", "description": "test"}
        )

    file = edited(
        drop("processing/behavior"),
        module,
        series("processing/running/running_speed", scan.behavior[:, 0]),
        series("processing/running/running_speed_end_times", onset),
        series("acquisition/pupil_area", scan.behavior[:, 1]),
        series("acquisition/pupil_location", scan.pupil_center),
        series("acquisition/likely_blink", onset),
    )
    loaded = NWB.load(file)
    assert loaded.behavior_names == ("running_speed", "pupil_area")
    np.testing.assert_array_equal(loaded.behavior, scan.behavior)
    np.testing.assert_array_equal(loaded.pupil_center, scan.pupil_center)
    assert loaded.notes == ("pupil_center: acquisition/pupil_location is in n.a., not in pixels",)


def test_a_series_of_regions_and_time_is_turned(edited, scan):
    loaded = NWB.load(edited(other(scan.responses.T)))
    np.testing.assert_array_equal(loaded.responses, scan.responses)
    assert loaded.notes == (f"{SERIES}/data: (5, 9) read as (region, time)",)


ONSET, NAMES = 0.5 * np.arange(TRIALS), [f"image-{k}" for k in (0, 1, 2, 2, 3, 2, 3, 2, 0)]
FRAMES, RESPONSES, TEXT = small_scan().trial_image, small_scan().responses, h5py.string_dtype()
FAULTS = [
    (
        (drop(TABLE),),
        "no presentations 'natural_scenes_presentations', nor others of natural images with frames (there are: none);",
    ),
    ((drop(STACK),), "no templates of natural images (there are: none); add the pictures to 'stimulus/templates'"),
    ((drop("processing"),), "no RoiResponseSeries in 'processing/' (there are: none); add the responses of the"),
    (
        (put(f"{TABLE}/frame", spoiled(FRAMES, 5, 4)),),
        f"dataset '{TABLE}/frame' is 4 in row 5, but '{STACK}/data' holds 4 pictures; frames count from 0, and -1",
    ),
    ((put(f"{TABLE}/frame", FRAMES + 0.5),), f"dataset '{TABLE}/frame' is 0.5 in row 0, not a whole number; mend"),
    ((put(f"{TABLE}/frame", NAMES, TEXT),), f"dataset '{TABLE}/frame' is not numbers; write the frames as integers"),
    ((put(f"{TABLE}/frame", FRAMES * 0 - 1),), f"dataset '{TABLE}/frame' shows no image (only blanks); name other"),
    ((put(f"{TABLE}/stop_time", ONSET),), f"dataset '{TABLE}' gives row 0 no time (0.0 s to 0.0 s); drop or mend it"),
    (
        (put(f"{TABLE}/start_time", spoiled(ONSET, 3, np.nan)),),
        f"dataset '{TABLE}' gives row 3 no time (nan s to 2.0 s); drop or mend it",
    ),
    (
        (put(f"{TABLE}/image_name", NAMES, TEXT),),
        f"dataset '{TABLE}/image_name' is 'image-2' in row 3 and 'image-3' in row 4, which both show frame 3; give a",
    ),
    (
        (put(f"{TABLE}/tier", ["test"] * TRIALS, TEXT),),
        f"dataset '{TABLE}/tier' is 'test' on trial 0; use only train, validation, oracle",
    ),
    (
        (put(f"{TABLE}/stop_time", ONSET + 0.5 + 2.0 * (ONSET == 4)),),
        f"dataset '{SERIES}/data' ends at 4 s, but presentation 8 is from 4 s to 6.5 s; drop it, or choose the",
    ),
    (
        (put(f"{SERIES}/timestamps", ONSET + 2.0),),
        f"dataset '{SERIES}/data' begins at 2 s, but presentation 0 is from 0 s to 0.5 s; drop it, or choose the",
    ),
    (
        (put(f"{SERIES}/timestamps", spoiled(ONSET, 3, 2.0)),),
        f"dataset '{SERIES}/data' has no sample there, but presentation 3 is from 1.5 s to 2 s; drop it, or choose",
    ),
    ((put(f"{SERIES}/timestamps", ONSET[:-1]),), f"dataset '{SERIES}/timestamps' is of shape (8,) for 9 samples; give"),
    ((put(f"{SERIES}/timestamps", -ONSET),), f"dataset '{SERIES}/timestamps' goes back at sample 1; sort the samples"),
    (
        (other(spoiled(RESPONSES, (3, 2), np.nan)),),
        f"dataset '{SERIES}/data' is nan for region 2 in presentation 3 (mean of samples 3 to 3); drop the region or",
    ),
    ((other(spoiled(RESPONSES, (3, 2), np.inf)),), f"dataset '{SERIES}/data' is inf for region 2 in presentation 3"),
    ((other(RESPONSES[:, 1:]),), f"dataset '{SERIES}/data' is of shape (9, 4), but names 5 regions; give it one"),
    ((other(RESPONSES.astype("S5")),), f"dataset '{SERIES}/data' is |S5 (9, 5), not real numbers (time, region); wri"),
    ((put(f"{SERIES}/rois", np.arange(5) + 1),), f"dataset '{SERIES}/rois' is 5 for region 4, but '{REGIONS}' has 5"),
    (
        (put(f"{STACK}/data", np.zeros((4, 3, 6, 3), np.uint8)),),
        f"dataset '{STACK}/data' is uint8 (4, 3, 6, 3); store gray pictures (frame, height, width)",
    ),
    (
        (put(f"{STACK}/data", np.random.default_rng(0).random((4, 3, 6))),),
        f"dataset '{STACK}/data' is float64 (4, 3, 6), not gray of 0..255; convert colour to gray and scale to 0..255",
    ),
    (
        (put(f"{STACK}/data", np.zeros((4, 3, 6), np.uint8)),),
        f"dataset '{TABLE}/image_name' gives one picture two ids, 'image-0' and 'image-1'",
    ),
    (
        (put(f"{RUNNING}/data", spoiled(ONSET, 2, np.inf)),),
        f"dataset '{RUNNING}/data, {RUNNING[:-13]}pupil size/data' is inf in row 2, column 0; drop the trial",
    ),
]


@pytest.mark.parametrize(("changes", "says"), FAULTS)
def test_what_is_wrong_is_named_with_dataset_and_mend(edited, shapes_unchecked, changes, says):
    quick = () if RUNNING in says else (drop("processing/behavior"),)  # the less there is, the sooner it is read
    said = refused(edited(*quick, *changes))
    assert said.startswith(says)
    assert ";" in said


@pytest.mark.parametrize("column", ["frame", "tier", "stop_time"])
def test_a_column_shorter_than_its_table_is_named(edited, column):
    def shorten(file):
        put(f"{TABLE}/{column}", file[f"{TABLE}/{column}"][:-2])(file)

    assert refused(edited(shorten)) == (
        f"dataset '{TABLE}/{column}' has 7 rows, but 'id' of its table has 9; give every row of it a value"
    )


def test_objects_and_links_out_of_the_file_are_refused(edited):
    def outside(file):
        del file[f"{SERIES}/data"]
        file[f"{SERIES}/data"] = h5py.ExternalLink("elsewhere.h5", "data")

    def references(file):
        del file[f"{SERIES}/data"]
        file.create_dataset(f"{SERIES}/data", data=[file[SERIES].ref] * TRIALS, dtype=h5py.ref_dtype)

    assert refused(edited(outside)) == (
        f"dataset '{SERIES}/data' is a link into another file, 'elsewhere.h5'; copy the data into this one"
    )
    assert refused(edited(references)) == (
        f"dataset '{SERIES}/data' holds objects, not numbers or text; write plain numbers"
    )


def test_a_file_that_is_no_nwb_2_file_is_said_to_be_none(saved, tmp_path):
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["data"] = np.zeros(3)
    assert refused(tmp_path / "plain.h5") == ("not an NWB file (no 'nwb_version'); load it as what it is, with format=")
    with h5py.File(tmp_path / "old.nwb", "w") as file:
        file["nwb_version"] = "NWB-1.0.6"
    assert refused(tmp_path / "old.nwb").startswith("is NWB 1, which pynwb does not read; take the NWB 2 file of the")
    with h5py.File(tmp_path / "hollow.nwb", "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
    assert refused(tmp_path / "hollow.nwb").startswith("cannot be read as NWB 2 (")
    (tmp_path / "text.nwb").write_text("neither")
    assert refused(tmp_path / "text.nwb").startswith("not an HDF5 file, or damaged; give an NWB 2 file")
    assert refused(tmp_path / "none.nwb").startswith("no such file; give an NWB 2 file")
    (tmp_path / "cut.nwb").write_bytes(saved.read_bytes()[:20_000])
    assert refused(tmp_path / "cut.nwb").startswith("stops before its end")
    for name, known in (("plain.h5", False), ("old.nwb", True), ("text.nwb", True), ("cut.nwb", True), (".", False)):
        assert NWB.recognises(tmp_path / name) == known
    assert NWB.recognises(saved)
    shutil.copy(saved, tmp_path / "named otherwise")
    assert NWB.recognises(tmp_path / "named otherwise")
    with (tmp_path / "named otherwise").open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert refused(tmp_path / "named otherwise") == "held by another process; close it there, or copy the file"


def test_a_damaged_file_is_one_line_wherever_the_damage_is(saved, tmp_path):
    whole, rng = saved.read_bytes(), np.random.default_rng(4)
    said = []
    for _ in range(5):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 400):
            damaged[place] ^= int(rng.integers(1, 256))
        (tmp_path / "damaged.nwb").write_bytes(damaged)
        try:
            NWB.load(tmp_path / "damaged.nwb")
        except InputError as error:
            said.append(str(error))
    assert said
    assert not [line for line in said if "\n" in line]


def test_without_pynwb_its_extra_is_named(scan, saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    assert refused(saved) == "reading NWB needs pynwb: pip install 'neuroprior[nwb]'"
    with pytest.raises(InputError, match=r"a\.nwb: writing NWB needs pynwb: pip install 'neuroprior\[nwb\]'"):
        NWB.save(scan, tmp_path / "a.nwb")


def test_what_could_not_be_read_again_is_not_written(scan, tmp_path, monkeypatch):
    lost = dataclasses.replace(scan, pupil_center=spoiled(scan.pupil_center, (2, 0), np.inf))
    with pytest.raises(InputError, match=r"a\.nwb: field 'pupil_center' is inf in row 2, column 0"):
        NWB.save(lost, tmp_path / "a.nwb")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuroprior.recordings.formats.nwb_write._fix_object_ids", full)
    with pytest.raises(InputError, match=r"a\.nwb: cannot be written \(No space left on device\); name another place"):
        NWB.save(scan, tmp_path / "a.nwb")
    assert not os.listdir(tmp_path)
