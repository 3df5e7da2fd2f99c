"""Simulated scans, twins in variants, and what they teach, in one recipe: each variant beside the truth."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from neuroprior import SimilarityTarget
from neuroprior.experiment import load_run, run_recipe
from neuroprior.experiment.forecast import forecast
from neuroprior.experiment.inputs import check_inputs
from neuroprior.experiment.plan import plan
from neuroprior.experiment.recipe import load_recipe, parse_recipe
from neuroprior.experiment.steps import do_work
from neuroprior.experiment.steps.twins import simulated_mice
from neuroprior.report.twins_table import twins_table
from neuroprior.similarity import pair_correlation, target_from_population
from neuroprior.twin import FitSettings, TwinArchitecture, load_denoisers, target_from_twin
from neuroprior.types import InputError

RECIPE = Path(__file__).parents[2] / "recipes" / "twin-ablation.yaml"
# Packaged photographs and digits in place of data that are not at hand everywhere.
QUICK = {
    "name": "try",
    "stimuli": {"source": "photographs", "n_train": 60},
    "target": {
        "kind": "simulated_twins",
        "mice": {"n_scans": 2, "n_neurons": 20, "n_repeats": 3, "gaze_spread": 2.0},
        "fit": {"channels": 4, "n_layers": 2, "first_kernel": 7, "kernel": 3, "max_epochs": 1},
        "variants": {"full": {}, "no_shifter": {"shifter": "none"}},
    },
    "task": {"source": "digits", "n_train": 60, "n_test": 40},
    "network": {"width": 2},
    "training": {"epochs": 1, "batch_size": 20, "augmentation": "none", "validation_fraction": 0.1},
    "regularizer": {"taps": 2, "stimuli_per_step": 8, "pairs": "all"},
    "conditions": ["neural_data", "neural_model", "neural_model@twin=no_shifter"],
    "noise": {"sigmas": [0]},
    "compute": {"device": "cpu", "precision": "float32", "threads": 1, "workers": 1},
}


def recipe(*more: str):
    return parse_recipe(yaml.safe_dump(QUICK, sort_keys=False), "try", more)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The whole graph of the recipe, done."""
    out = tmp_path_factory.mktemp("ablation") / "run"
    assert run_recipe(recipe(), out, command=["test"], watch=lambda *_: None) == []
    return out


def step(run: Path, label: str) -> Path:
    return next((run / "steps").glob(f"{label}-*"))


def similarity(run: Path) -> dict[tuple[str, str], dict]:
    rows = pq.read_table(run / "metrics.parquet").to_pylist()
    return {(row["condition"], row["metric"]): row for row in rows if row["tap"] is None and row["x"] is None}


def test_each_variant_is_measured_against_the_truth(run):
    found = similarity(run)
    for condition in ("neural_data", "neural_model", "neural_model@twin=no_shifter"):
        for metric, n in (("similarity_to_truth", 60 * 59 // 2), ("similarity_to_truth_oracle", 100 * 99 // 2)):
            row = found[condition, metric]
            assert -1 <= row["value"] <= 1
            assert (row["n"], row["seed"]) == (n, 0)
        if condition != "neural_data":
            assert found[condition, "twin_correlation"]["n"] <= 40
            assert np.isfinite(found[condition, "twin_single_trial_correlation"]["value"])
    assert found["neural_model", "similarity_to_truth"] != found["neural_model@twin=no_shifter", "similarity_to_truth"]
    table = twins_table(load_run(run))
    assert [line[0] for line in table.rows][:2] == ["Neural (model)", "Neural (model) twin no_shifter"]


def test_the_numbers_are_those_of_the_files(run):
    """S_model of the kept twins and S of the true rates, made anew from what the steps left."""
    scans, truths = simulated_mice(step(run, "scans"))
    assert [scan.name for scan in scans] == ["mouse0-scan0", "mouse1-scan0"]
    assert not np.array_equal(scans[0].responses, scans[1].responses)
    train = scans[0].stimuli.select(scans[0].stimuli.ids[np.unique(scans[0].trial_image[scans[0].tier == "train"])])
    pairs = np.triu_indices(len(train), k=1)
    truth = np.mean([target_from_population(one.select(train.ids), train).matrix for one in truths], axis=0)
    for label, condition in (("twins-full", "neural_model"), ("twins-no_shifter", "neural_model@twin=no_shifter")):
        model = target_from_twin(load_denoisers(step(run, label) / "twin.safetensors"), train)
        expected = pair_correlation(model.matrix[pairs], truth[pairs])
        assert similarity(run)[condition, "similarity_to_truth"]["value"] == pytest.approx(expected, abs=1e-4)
    kept = SimilarityTarget.load(step(run, "target") / "truth.safetensors")
    assert np.allclose(kept.select(train).matrix, truth, atol=1e-6)


def test_each_condition_is_taught_its_own(run):
    results = load_run(run)
    taught = results.targets
    full, other = (
        SimilarityTarget.load(step(run, f"twins-{name}") / "target.safetensors") for name in ("full", "no_shifter")
    )
    assert np.array_equal(taught["neural_model"].matrix, full.matrix)
    assert np.array_equal(taught["neural_model@twin=no_shifter"].matrix, other.matrix)
    assert not np.allclose(full.matrix, other.matrix, atol=1e-3)
    assert len({one.stimuli_digest for one in taught.values()}) == 1
    assert {one.n_scans for one in taught.values()} == {2}
    assert (taught["neural_model"].source, taught["neural_data"].source) == ("twin", "recorded")
    said = {card.name: (card.target, card.label) for card in results.conditions}
    assert said["neural_model"][0] == "predictions of twins fitted to scans of simulated mice"
    assert said["neural_data"] == ("single trials of simulated mice", "Neural (simulated data)")
    assert said["neural_model@twin=no_shifter"][1] == "Neural (model) twin no_shifter"


def test_the_same_command_again_does_nothing(run):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (run / "steps").rglob("*.safetensors")}
    metrics = (run / "metrics.parquet").read_bytes()
    told: list[tuple[str, str]] = []
    assert run_recipe(recipe(), run, command=["test"], watch=lambda name, what, _: told.append((name, what))) == []
    assert {what for _, what in told} == {"already there"}
    assert (run / "metrics.parquet").read_bytes() == metrics
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before


def test_a_fit_that_was_stopped_goes_on_to_the_same_bytes(run, tmp_path):
    """Stopped in its second epoch, with a checkpoint after every step."""
    asked = recipe("target.fit.max_epochs=2", "target.fit.batch_images=16")
    work = next(step.work for step in plan(asked, {}) if step.label == "twins-full")
    inputs = {"scans": step(run, "scans")}

    class Stopped(Exception):
        pass

    def stop(what: str, part: float) -> None:
        if what.startswith("epoch 2") and part > 0.6:
            raise Stopped

    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    do_work(work, inputs, tmp_path / "whole", lambda *_: None)
    with pytest.raises(Stopped):
        do_work(work, inputs, tmp_path / "stopped", stop, checkpoint_seconds=0.0)
    assert [path.name for path in (tmp_path / "stopped").glob("*.safetensors")] == ["checkpoint.safetensors"]
    epochs: list[str] = []
    do_work(work, inputs, tmp_path / "stopped", lambda what, _: epochs.append(what))
    assert not any(what.startswith("epoch 1") for what in epochs)
    for name in ("twin.safetensors", "target.safetensors", "metrics.json", "log.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_steps_depend_on_what_they_use_alone():
    def keys(*more: str) -> dict[str, str]:
        return {step.label: step.key for step in plan(recipe(*more), {})}

    before = keys()
    assert {"scans", "twins-full", "twins-no_shifter", "target"} <= before.keys()
    other_variant = keys("target.variants.no_shifter.linear=true")
    changed = {label for label in before if before[label] != other_variant[label]}
    assert changed == {
        "twins-no_shifter",
        "train-neural_model.twinno_shifter-seed0",
        "measure-neural_model.twinno_shifter-seed0",
    }
    every = keys("target.fit.seed=1")
    assert {label for label in before if before[label] == every[label]} == {"scans"}
    assert keys("target.mice.seed=1")["scans"] != before["scans"]


def test_what_it_will_cost_is_said():
    asked = recipe()
    cost = forecast(asked, plan(asked, {}), lambda _: False)
    assert {c.step.kind for c in cost.costs} == {"scans", "twins", "target", "train", "measure", "stability"}
    assert all(c.seconds > 0 and c.memory_mb > 0 for c in cost.costs)


def test_options_are_the_fits(run):
    asked = recipe("target.variants.slow={learning_rate: 0.001, behavior: none, padded: false}")
    architecture, settings = asked.target.fitting("slow")
    assert architecture == TwinArchitecture(
        channels=4, n_layers=2, first_kernel=7, kernel=3, behavior="none", padded=False
    )
    assert settings == FitSettings(max_epochs=1, learning_rate=0.001)
    assert parse_recipe(asked.to_yaml(), "again") == asked
    assert json.loads(asked.target.model_dump_json())["variants"]["slow"]["padded"] is False


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("target.variants.x={shiftr: none}", "target: variants.x: 'shiftr' is no option of a twin's fit; did you mean"),
        ("target.variants.x={shifter: big}", "target: variants.x: shifter: Input should be 'mlp' or 'none'"),
        ("target.variants.x={kernel: 4}", "target: variants.x: twin: kernel is 4; give an odd one"),
        ("target.variants.x={n_layers: 1.5}", "target: variants.x: n_layers: "),
        ("target.variants.x={shifter: null}", "target: variants.x: shifter: Input should be 'mlp' or 'none'"),
        ("target.fit.patience=-1", "target: fit: fit: patience is -1; it must be 1 or more"),
        ("target.fit.core=deep", "core is 'deep'; choose separable, stacked"),
        ("target.variants={}", None),
        ("target.mice.n_neuron=3", "unknown key 'target.mice.n_neuron'; did you mean 'n_neurons'?"),
        ("target.mice.gaze_spread=-1", "target.mice.gaze_spread: "),
        (
            "conditions=[neural_model@twin=no_modulator]",
            "condition 'neural_model@twin=no_modulator': no variant 'no_modulator' in target.variants; there are: "
            "full, no_shifter",
        ),
        ("conditions=[neural_data@twin=full]", "'twin' is no option of its second loss"),
        ("conditions=[random_twin]", "needs target.kind twin or fitted_twins, not simulated_twins"),
        ("conditions=[regression]", "'regression' needs target.kind twin or "),
        ("stimuli={source: scans}", "stimuli.source scans goes with target.kind scans or fitted_twins"),
    ],
)
def test_what_is_refused(more, says):
    if says is None:
        assert recipe(more) == recipe()  # an override adds to a mapping, and takes nothing out
        return
    with pytest.raises(InputError) as caught:
        recipe(more)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_smaller_than_a_filter_are_refused_before_anything_runs(tmp_path):
    asked = recipe("target.variants.unpadded={padded: false, first_kernel: 41}")
    with pytest.raises(InputError, match="too small for a first filter of 41"):
        check_inputs(asked)


def test_the_recipe_ablates_what_the_results_do():
    asked = load_recipe(RECIPE)
    assert list(asked.target.variants) == ["full", "no_shifter", "no_modulator", "drive_modulator", "linear_core"]
    made = {name: asked.target.fitting(name)[0] for name in asked.target.variants}
    assert made["full"] == TwinArchitecture()
    assert (made["no_shifter"].shifter, made["no_modulator"].behavior, made["linear_core"].linear) == (
        "none",
        "none",
        True,
    )
