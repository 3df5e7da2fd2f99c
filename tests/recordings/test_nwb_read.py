"""NWB 2 files of a lab: Allen's two layouts are understood, of several series the one that is meant is taken."""

import h5py
import numpy as np
import pytest
from nwb_files import PUPIL, REGIONS, RUNNING, SERIES, STACK, TABLE, drop, other, put, refused
from small_scan import NEURONS, TRIALS, same

import neuroprior.recordings.formats.nwb as nwb
from neuroprior.recordings.formats.nwb import NWB, read_nwb


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
