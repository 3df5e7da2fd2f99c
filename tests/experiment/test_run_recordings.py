"""What a run says of the recordings behind its target: the numbers of `scan_stability`, whatever the target's kind."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from neuroprior import save_scan
from neuroprior.experiment.inputs import stimuli_of
from neuroprior.experiment.plan import plan
from neuroprior.experiment.recipe import parse_recipe
from neuroprior.experiment.run import load_run, run_recipe
from neuroprior.experiment.steps import do_work
from neuroprior.experiment.steps.settings import ABSENT_FILE, STABILITY_FILE
from neuroprior.experiment.steps.targets import untrained_twins
from neuroprior.files import read_json
from neuroprior.recordings import ScanStability, load_scan, load_stability, scan_stability
from neuroprior.report import write_report
from neuroprior.similarity import lowpass_target, pixel_target
from neuroprior.twin import FitSettings, TwinArchitecture, fit_in_folder, load_fit, target_from_twin
from twin.fit.small_mouse import small_mouse, trials_of

NAMES = ("mouse0", "mouse1")
RECIPE = {
    "name": "recorded",
    "stimuli": {"source": "scans"},
    "target": {"kind": "scans", "paths": [f"{name}.npz" for name in NAMES]},
    "task": {"source": "digits", "n_train": 60, "n_test": 40},
    "network": {"width": 2},
    "training": {"epochs": 1, "batch_size": 20, "augmentation": "none", "validation_fraction": 0.1},
    "regularizer": {"taps": 2, "stimuli_per_step": 8, "pairs": "all"},
    "controls": {"lowpass_sigma": 1.0},
    "conditions": ["neural_data"],
    "noise": {"sigmas": [0]},
    "seeds": [3],
    "compute": {"device": "cpu", "precision": "float32", "threads": 1, "workers": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two scans of the same images, and the twins fitted to them."""
    folder = tmp_path_factory.mktemp("data")
    for k, name in enumerate(NAMES):
        mouse = small_mouse(name, n_neurons=20, n_images=30, n_oracle=10, repeats=4, seed=k)
        save_scan(mouse, folder / f"{name}.npz")
    scans = [load_scan(folder / f"{name}.npz") for name in NAMES]
    small = TwinArchitecture(channels=4, n_layers=2)
    fit_in_folder(scans, folder / "twins", small, FitSettings(max_epochs=1, validation_fraction=0.3))
    return folder


@pytest.fixture
def at_hand(data, monkeypatch) -> Path:
    monkeypatch.setenv("NEUROPRIOR_DATA", str(data))
    return data


def recipe(**parts):
    return parse_recipe(yaml.safe_dump({**RECIPE, **parts}, sort_keys=False), "recorded")


FITTED = {"kind": "fitted_twins", "paths": RECIPE["target"]["paths"], "twins": "twins"}


def test_a_run_keeps_what_scan_stability_finds_and_its_report_shows_it(at_hand, tmp_path):
    out = tmp_path / "run"
    asked = recipe(target=FITTED, conditions=["neural_model", "random_twin"])
    assert run_recipe(asked, out, command=["test"], watch=lambda *_: None) == []
    results = load_run(out)
    found = results.stability
    assert isinstance(found, ScanStability)
    scans = [load_scan(at_hand / f"{name}.npz") for name in NAMES]
    oracle = found.stimuli
    twins = load_fit(at_hand / "twins").twins
    alone = scan_stability(
        scans,
        {
            "neural_model": [target_from_twin(twin, oracle) for twin in twins],
            "pixel_raw": pixel_target(oracle, threshold=None),
            "lowpass": lowpass_target(oracle, sigma=1.0),
        },
        missing="intersection",
    )
    expected = alone.correlations()
    for name, rs in found.correlations().items():
        if name != "random_twin":
            assert rs == pytest.approx(expected[name], abs=1e-5)
    assert set(found.models) == {"neural_model", "random_twin", "pixel_raw", "lowpass"}
    rows = [row for row in results.metrics.to_pylist() if row["metric"] == "oracle_correlation"]
    by_condition = {
        name: [row["value"] for row in rows if row["condition"] == name] for name in ("neural_model", "vgg")
    }
    assert by_condition["neural_model"] == pytest.approx(expected["neural_model"], abs=1e-5)
    assert by_condition["vgg"] == []
    assert results.seeds == (3,)
    page = write_report(results).read_text(encoding="utf-8")
    assert "The recordings" in page
    assert "Figure 1 D." in page


@pytest.mark.parametrize(
    ("parts", "has"),
    [
        ({}, True),
        ({"target": FITTED, "conditions": ["neural_model"]}, True),
        ({"target": {"kind": "simulated_mouse", "n_neurons": 20}, "stimuli": {"source": "photographs"}}, True),
        (
            {
                "target": {"kind": "matrix", "path": "s.npy", "ids": "ids.txt"},
                "stimuli": {"source": "photographs"},
                "conditions": ["user_matrix"],
            },
            False,
        ),
    ],
)
def test_only_recordings_are_looked_at(at_hand, parts, has):
    for name in ("s.npy", "ids.txt"):
        (at_hand / name).touch()
    assert any(step.kind == "stability" for step in plan(recipe(**parts), {})) == has


def test_repeats_that_do_not_suffice_are_no_fault(at_hand, tmp_path, monkeypatch):
    """Where each oracle image is shown twice there is no Eq. 5; where the scans share none, one line says so."""
    (step,) = [one for one in plan(recipe(), {}) if one.kind == "stability"]
    do_work(step.work, {}, tmp_path, lambda *_: None)
    assert load_stability(tmp_path / STABILITY_FILE).names == NAMES

    for k, name in enumerate(NAMES):
        save_scan(small_mouse(name, n_images=30, n_oracle=10, repeats=1, seed=k), tmp_path / f"{name}.npz")
    monkeypatch.setenv("NEUROPRIOR_DATA", str(tmp_path))
    (tmp_path / STABILITY_FILE).unlink()
    do_work(step.work, {}, tmp_path, lambda *_: None)
    assert "repeat" in read_json(tmp_path / ABSENT_FILE)["absent"]
    assert not (tmp_path / STABILITY_FILE).exists()


def test_the_same_recordings_give_the_same_bytes(at_hand, tmp_path):
    (step,) = [one for one in plan(recipe(), {}) if one.kind == "stability"]
    kept = []
    for name in "ab":
        (tmp_path / name).mkdir()
        do_work(step.work, {}, tmp_path / name, lambda *_: None)
        found = load_stability(tmp_path / name / STABILITY_FILE)
        kept.append([found.oracle, found.over_trials, found.models["lowpass"]])
    for a, b in zip(*kept, strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_shown_once_change_nothing(at_hand, tmp_path, monkeypatch):
    """Eq. 3 is centred on the images that were repeated, and so is what stands beside it."""
    mouse = small_mouse("once", n_images=30, n_oracle=10, repeats=4)
    oracle = np.flatnonzero(mouse.tier == "oracle")
    images = np.unique(mouse.trial_image[oracle])
    first = [np.flatnonzero((mouse.trial_image == image) & (mouse.tier == "oracle"))[0] for image in images[5:]]
    kept = np.sort(
        [*np.flatnonzero(mouse.tier != "oracle"), *oracle[np.isin(mouse.trial_image[oracle], images[:5])], *first]
    )
    save_scan(trials_of(mouse, kept), tmp_path / "once.npz")
    monkeypatch.setenv("NEUROPRIOR_DATA", str(tmp_path))
    asked = recipe(target={"kind": "scans", "paths": ["once.npz"]})
    (step,) = [one for one in plan(asked, {}) if one.kind == "stability"]
    do_work(step.work, {}, tmp_path, lambda *_: None)
    found = load_stability(tmp_path / STABILITY_FILE)
    assert len(found.stimuli) == 5
    expected = pixel_target(found.stimuli, threshold=None).matrix
    np.testing.assert_allclose(found.models["pixel_raw"][0], expected, atol=1e-6)


def test_untrained_twins_are_those_of_the_control_and_need_no_weights(at_hand, tmp_path):
    asked = recipe(target={**FITTED, "weighting": "snr"}, conditions=["neural_model", "random_twin"])
    steps = {one.label: one for one in plan(asked, {})}
    for name in ("target", "control", "stability"):
        (tmp_path / name).mkdir()
    do_work(steps["stability"].work, {}, tmp_path / "stability", lambda *_: None)
    found = load_stability(tmp_path / "stability" / STABILITY_FILE)
    assert {"neural_model", "random_twin"} <= set(found.models)
    twins = load_fit(at_hand / "twins").twins
    stimuli, tier = stimuli_of(asked.stimuli, asked.target)
    drawn = untrained_twins(twins, 3, stimuli.select(stimuli.ids[tier == "train"]))
    expected = [target_from_twin(one, found.stimuli).matrix for one in drawn]
    np.testing.assert_allclose(found.models["random_twin"], np.stack(expected), atol=1e-6)


def test_a_damaged_file_leaves_the_rest_of_the_report(at_hand, tmp_path):
    out = tmp_path / "run"
    assert run_recipe(recipe(), out, command=["test"], watch=lambda *_: None) == []
    next((out / "steps").glob("stability-*/stability.npz")).write_bytes(b"")
    results = load_run(out)
    assert "not what scan stability keeps" in results.stability
    assert "not what scan stability keeps" in write_report(results).read_text(encoding="utf-8")
