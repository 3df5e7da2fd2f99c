"""Recordings and the twins fitted to them as one target: what single trials teach, and what twins make of them."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from neuroprior import SimilarityTarget, load_stimuli, save_scan
from neuroprior.experiment import load_run, run_recipe
from neuroprior.experiment.forecast import forecast
from neuroprior.experiment.inputs import check_inputs, fit_of
from neuroprior.experiment.plan import plan
from neuroprior.experiment.recipe import load_recipe, parse_recipe
from neuroprior.experiment.steps import do_work
from neuroprior.experiment.steps.targets import load_responses, untrained_twins
from neuroprior.recordings import load_scan, target_from_scans
from neuroprior.report import write_report
from neuroprior.similarity import average_targets, target_from_population
from neuroprior.twin import (
    CrossfitTwin,
    FitSettings,
    TwinArchitecture,
    fit_in_folder,
    predict_denoised,
    predict_population,
)
from neuroprior.types import InputError
from twin.fit.small_mouse import small_mouse

RECIPE = Path(__file__).parents[2] / "recipes" / "twin-comparison.yaml"
SHOWN = small_mouse(n_images=40, n_oracle=12).stimuli
ORACLE = [name for name in SHOWN.ids.tolist() if "oracle" in name]
NAMES = ("mouse0-scan0", "mouse1-scan0")
PATHS = tuple(f"twin-mice/{name}.npz" for name in NAMES)
SMALL = {"channels": 4, "n_layers": 2}
COMPUTE = "compute={device: cpu, precision: float32, threads: 1, workers: 1}"
# Packaged digits in place of CIFAR-10, which is not at hand everywhere.
QUICK = [
    "scale=tiny",
    "task={source: digits, train: null, test: null, n_train: 60, n_test: 40}",
    "training={batch_size: 20, augmentation: none, validation_fraction: 0.1}",
    "network.width=2",
    "regularizer.taps=2",
    "stimuli.n_train=30",
    "report.figures=[matrix]",
    COMPUTE,
]


def mouse_called(name: str, seed: int):
    return small_mouse(name, n_neurons=30, n_images=40, n_oracle=12, repeats=4, seed=seed)


@pytest.fixture(scope="module")
def mice(tmp_path_factory) -> Path:
    """A data folder with two scans, their twins, and those of a crossfit."""
    folder = tmp_path_factory.mktemp("data")
    scans = []
    for k, name in enumerate(NAMES):
        save_scan(mouse_called(name, seed=k), folder / PATHS[k])
        scans.append(load_scan(folder / PATHS[k]))
    architecture, settings = TwinArchitecture(**SMALL), FitSettings(max_epochs=2, validation_fraction=0.3)
    fit_in_folder(scans, folder / "twin-mice-twins", architecture, settings)
    fit_in_folder(scans, folder / "crossed", architecture, settings, n_folds=2)
    return folder


@pytest.fixture
def folder(mice, monkeypatch) -> Path:
    monkeypatch.setenv("NEUROPRIOR_DATA", str(mice))
    return mice


@pytest.fixture
def changed(mice, monkeypatch, tmp_path) -> Path:
    """A copy of the data folder, to spoil."""
    shutil.copytree(mice, tmp_path / "data")
    monkeypatch.setenv("NEUROPRIOR_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def recipe(*more: str):
    return load_recipe(RECIPE, [*QUICK, *more])


def made_by(asked, label: str, out: Path) -> dict[str, Path]:
    """Do the target step, and the step of this label; return their folders."""
    steps = {step.label: step for step in plan(asked, {})}
    made = {"target": out / "target", label: out / label}
    for name, place in made.items():
        place.mkdir()
        do_work(steps[name].work, {"target": made["target"]} if name != "target" else {}, place, lambda *_: None)
    return made


def test_the_recipe_runs_and_both_targets_are_of_the_same_scans(folder, tmp_path):
    asked, out = recipe(), tmp_path / "run"
    assert run_recipe(asked, out, command=["test"], watch=lambda *_: None) == []
    results = load_run(out)
    assert write_report(results).stat().st_size > 10_000
    scans, twins = fit_of(asked.target)
    shown = SHOWN.select(results.targets["neural_model"].image_ids)
    train = SHOWN.select([name for name in scans[0].stimuli.ids.tolist() if name not in ORACLE])
    assert (len(shown), len(train)) == (30, 40)

    def mean_of(images) -> SimilarityTarget:
        """Eq. 2 of each twin's predictions, neurons weighted by w v; then the mean over scans."""
        parts = []
        for twin in twins:
            population = predict_population(twin, images, weighting="none")
            weighted = dataclasses.replace(population, weights=twin.snr * twin.accuracy)
            parts.append(target_from_population(weighted, images))
        return average_targets(parts)

    taught = results.targets
    assert np.allclose(taught["neural_model"].matrix, mean_of(train).select(shown).matrix, atol=1e-6)
    assert np.allclose(taught["neural_data"].matrix, target_from_scans(scans).select(shown).matrix, atol=1e-6)
    assert not np.allclose(taught["neural_data"].matrix, taught["neural_model"].matrix, atol=0.05)
    assert (taught["neural_model"].source, taught["neural_data"].source) == ("twin", "recorded")
    assert {taught[name].n_scans for name in ("neural_model", "neural_data")} == {2}
    assert taught["neural_model"].stimuli_digest == taught["neural_data"].stimuli_digest == shown.digest
    # what is permuted is the model's, as it is the target that the recipe leads with
    assert np.array_equal(np.sort(taught["shuffle"].matrix.ravel()), np.sort(taught["neural_model"].matrix.ravel()))
    said = {card.name: (card.target, card.label) for card in results.conditions}
    assert said["neural_model"][0] == "predictions of the twins fitted to the recordings"
    assert said["neural_data"] == ("recorded responses", "Neural (data)")
    assert said["shuffle"][0] == "predictions of the twins fitted to the recordings, images permuted"
    made = next((out / "steps").glob("target-*"))
    heldout = SimilarityTarget.load(made / "heldout.safetensors")
    oracle = load_stimuli(made / "stimuli.npz", tier="oracle")
    assert sorted(heldout.image_ids.tolist()) == sorted(ORACLE)
    assert np.allclose(heldout.matrix, mean_of(oracle).matrix, atol=1e-6)
    rows = pq.read_table(out / "metrics.parquet").to_pylist()
    assert {r["n"] for r in rows if r["metric"] == "similarity_correlation"} == {12 * 11 // 2}


def test_weights_are_the_recipes(folder, tmp_path):
    """Other powers of v and other weights give another model, and leave the data as they are."""
    matrices = {}
    for name, more in {
        "usual": {},
        "v2": {"v_power": 2.0},
        "snr": {"weighting": "snr"},
        "v0": {"v_power": 0.0},
    }.items():
        asked = recipe("conditions=[neural_data]", f"target={yaml.safe_dump(more, default_flow_style=True)}")
        (tmp_path / name).mkdir()
        made = made_by(asked, "target", tmp_path / name)["target"]
        matrices[name] = {
            of: SimilarityTarget.load(made / f"{of}.safetensors").matrix for of in ("model", "data", "heldout")
        }
    usual = matrices["usual"]
    for name, others in matrices.items():
        assert np.array_equal(others["data"], usual["data"])
        for of in ("model", "heldout"):
            assert np.allclose(others[of], usual[of], atol=1e-4) == (name == "usual")
            assert np.array_equal(others[of], matrices["snr"][of]) == (name in ("snr", "v0"))  # w v^0 is w


def test_twins_of_a_crossfit_predict_what_they_did_not_see(folder, tmp_path):
    asked = recipe("target.twins=crossed", "conditions=[neural_model]", "stimuli.n_train=null")
    check_inputs(asked)
    _, twins = fit_of(asked.target)
    assert all(isinstance(twin, CrossfitTwin) for twin in twins)
    made = SimilarityTarget.load(made_by(asked, "target", tmp_path)["target"] / "model.safetensors")
    shown = SHOWN.select(made.image_ids)
    crossed = [target_from_population(predict_denoised(twin, shown), shown) for twin in twins]
    assert np.allclose(made.matrix, average_targets(crossed).matrix, atol=1e-6)
    first = [target_from_population(predict_denoised(twin.folds[0], shown), shown) for twin in twins]
    assert not np.allclose(made.matrix, average_targets(first).matrix, atol=1e-3)


def test_untrained_twins_are_a_control(folder, tmp_path):
    """One core for all, as in a fit, and other neurons in each scan and for each seed."""
    asked = recipe("conditions=[neural_model, random_twin]", "seeds=[0, 1]")
    check_inputs(asked)
    _, twins = fit_of(asked.target)
    shown = SHOWN.select([name for name in SHOWN.ids.tolist() if name not in ORACLE])
    drawn = [one for seed in asked.seeds for one in untrained_twins(twins, seed, shown)]
    assert drawn[0].model.core is drawn[1].model.core is not drawn[2].model.core
    features = [one.model.readout.features.detach() for one in drawn]
    assert all(not np.allclose(features[i], features[j]) for i in range(4) for j in range(i))
    before = [predict_population(twin, shown).mean for twin in fit_of(asked.target)[1]]
    assert all(np.array_equal(predict_population(t, shown).mean, b) for t, b in zip(twins, before, strict=True))
    made = made_by(asked, "control-random_twin-seed1", tmp_path)
    control = SimilarityTarget.load(made["control-random_twin-seed1"] / "target.safetensors")
    model = SimilarityTarget.load(made["target"] / "model.safetensors")
    assert (control.n_scans, control.details["weights"]) == (2, "1 for every neuron (untrained twin)")
    assert control.stimuli_digest == model.stimuli_digest
    assert not np.allclose(control.matrix, model.matrix, atol=0.05)


def test_regression_is_to_what_the_twins_predict(folder, tmp_path):
    asked = recipe("conditions=[regression]", "target.v_power=2.0")
    made = made_by(asked, "control-responses", tmp_path)
    responses = load_responses(made["control-responses"])
    assert (responses.mean.shape, responses.source) == ((30, 60), "twin")
    _, twins = fit_of(asked.target)
    shown = SHOWN.select(responses.image_ids)
    for k, twin in enumerate(twins):
        mine = slice(30 * k, 30 * (k + 1))
        assert np.allclose(responses.mean[:, mine], predict_population(twin, shown).mean, atol=1e-6)
        assert np.allclose(responses.weights[mine], twin.snr * twin.accuracy**2)


@pytest.mark.parametrize("twins", ["twin-mice-twins", "crossed"])
def test_steps_depend_on_weights_and_scans_alone(changed, twins):
    """A log, a page or a checkpoint in the fit's folder changes no key; a weight, or a trial, does."""
    asked = recipe(f"target.twins={twins}", "conditions=[none, neural_model]")
    files = dict(plan(asked, {})[0].files)
    weights = ["twin.safetensors"] if twins != "crossed" else [f"fold-{k}/twin.safetensors" for k in (0, 1)]
    beside = ["fit.json"] if twins == "crossed" else []  # which images the folds left out
    assert list(files) == [*PATHS, *(f"{twins}/{name}" for name in weights + beside)]

    def keys() -> dict[str, str]:
        return {step.label: step.key for step in plan(asked, {})}

    before = keys()
    (changed / twins / "index.html").write_text("a page")
    for log in (changed / twins).rglob("log.jsonl"):
        log.write_text("")
    assert keys() == before
    for spoiled in (f"{twins}/{weights[-1]}", PATHS[1]):
        kept = (changed / spoiled).read_bytes()
        (changed / spoiled).write_bytes(kept + b"\0")
        after = keys()
        assert after["target"] != before["target"]
        assert after["train-neural_model-seed0"] != before["train-neural_model-seed0"]
        assert after["train-none-seed0"] == before["train-none-seed0"]
        (changed / spoiled).write_bytes(kept)
    assert keys() == before


def test_what_it_will_cost_is_said(folder):
    asked = recipe("conditions=[none, neural_model, random_twin, regression]")
    cost = forecast(asked, plan(asked, {}), lambda _: False)
    assert {c.step.kind for c in cost.costs} == {"target", "control", "train", "measure", "stability"}
    assert all(c.seconds > 0 and c.memory_mb > 0 for c in cost.costs)


def test_a_scan_without_a_twin(changed):
    save_scan(mouse_called("mouse7-scan0", seed=7), changed / "twin-mice/mouse7-scan0.npz")
    with pytest.raises(InputError, match=r"twin-mice-twins: no twin of scan 'mouse7-scan0' \(.*it holds mouse0-scan0"):
        check_inputs(recipe(f"target.paths=[{PATHS[0]}, twin-mice/mouse7-scan0.npz]"))


def test_twins_of_fewer_scans_than_were_fitted(folder):
    asked = recipe(f"target.paths=[{PATHS[1]}]")
    check_inputs(asked)
    assert [twin.name for twin in fit_of(asked.target)[1]] == ["mouse1-scan0"]
    turned = recipe(f"target.paths=[{PATHS[1]}, {PATHS[0]}]")
    assert [twin.name for twin in fit_of(turned.target)[1]] == ["mouse1-scan0", "mouse0-scan0"]


@pytest.mark.parametrize("what", ["responses", "pixels", "size", "neurons"])
def test_a_recording_that_the_twin_was_not_fitted_to(changed, what):
    """The name alone proves nothing: simulated scans are called alike each time."""
    scan = load_scan(changed / PATHS[1])
    stimuli, responses = scan.stimuli, scan.responses
    match what:
        case "responses":
            responses = responses[::-1].copy()
        case "pixels":
            stimuli = dataclasses.replace(stimuli, pixels=255 - stimuli.pixels)
        case "size":
            stimuli = dataclasses.replace(stimuli, pixels=stimuli.pixels[:, ::2, ::2].copy())
        case "neurons":
            responses = np.concatenate([responses, responses[:, :1]], axis=1)
            scan = dataclasses.replace(scan, neuron_xyz=None, responses=responses)
    other = dataclasses.replace(scan, stimuli=stimuli, responses=np.ascontiguousarray(responses))
    (changed / PATHS[1]).unlink()
    save_scan(other, changed / PATHS[1])
    with pytest.raises(InputError, match="its twin of scan 'mouse1-scan0' was fitted to another recording than twin-m"):
        check_inputs(recipe())


def test_two_recordings_of_one_name(changed):
    shutil.copy(changed / PATHS[0], changed / "twin-mice/copy.npz")
    with pytest.raises(InputError, match=r"another of target\.paths is called 'mouse0-scan0' too"):
        check_inputs(recipe(f"target.paths=[{PATHS[0]}, twin-mice/copy.npz]"))


def test_a_recording_without_repeats_is_refused_before_anything_runs(changed, tmp_path):
    """w and v need them, for the data as for the model."""
    scan = load_scan(changed / PATHS[0])
    once = np.sort(np.unique(scan.trial_image, return_index=True)[1])
    kept = {
        name: getattr(scan, name)[once] for name in ("trial_image", "responses", "tier", "behavior", "pupil_center")
    }
    single = dataclasses.replace(scan, name="once", **kept)
    save_scan(single, changed / "twin-mice/once.npz")
    read = load_scan(changed / "twin-mice/once.npz")
    fit_in_folder(
        [read], changed / "single", TwinArchitecture(**SMALL), FitSettings(max_epochs=1, validation_fraction=0.3)
    )
    with pytest.raises(InputError, match=r"scan once, oracle trials: .*show the oracle images repeatedly"):
        run_recipe(
            recipe("target.paths=[twin-mice/once.npz]", "target.twins=single"),
            tmp_path / "run",
            command=["test"],
            watch=lambda *_: None,
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        (PATHS[1], r"mouse1-scan0\.npz: no such file; simulate these scans with the commands at the head of"),
        ("twin-mice-twins", r"twin-mice-twins: no such file; fit these twins with the commands at the head of"),
        ("twin-mice-twins/fit.json", r"no finished fit \(fit\.json is missing or damaged\); `neuroprior twin fit` mak"),
        ("twin-mice-twins/twin.safetensors", r"twin-mice-twins/twin\.safetensors"),
    ],
)
def test_what_is_missing(changed, gone, says):
    place = changed / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(InputError, match=says):
        check_inputs(recipe())


def scaled(**parts) -> str:
    whole = {"name": "r", "task": {"source": "digits"}, "conditions": ["none"], "stimuli": {"source": "scans"}}
    return yaml.safe_dump({**whole, "target": {"kind": "fitted_twins", "paths": ["a"], "twins": "t"}, **parts})


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"stimuli": {"source": "photographs"}}, "stimuli.source scans goes with target.kind scans or fitted_twins"),
        ({"target": {"kind": "fitted_twins", "paths": ["a"]}}, "'target.twins' is missing"),
        ({"target": {"kind": "fitted_twins", "paths": ["a", "a"], "twins": "t"}}, "paths names a scan twice"),
        ({"target": {"kind": "fitted_twins", "paths": ["a"], "twins": "t", "v_power": -1}}, "target.v_power: "),
        ({"target": {"kind": "fitted_twins", "paths": ["a"], "twins": "t", "weighting": "w"}}, "target.weighting: "),
        (
            {"target": {"kind": "fitted_twins", "paths": ["a"], "twins": "t", "neurons": "x"}},
            "unknown key 'target.neurons'",
        ),
        ({"conditions": ["user_matrix"]}, "'user_matrix' needs target.kind matrix, not fitted_twins"),
    ],
)
def test_what_does_not_go_together(parts, says):
    parse_recipe(scaled(conditions=["none", "neural_data", "neural_model", "random_twin", "regression"]), "r")
    with pytest.raises(InputError, match=says):
        parse_recipe(scaled(**parts), "r")
