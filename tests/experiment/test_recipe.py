"""Recipes: what is refused, in one line that names key and mend, and how overrides work."""

from pathlib import Path

import pytest

from neuroprior.experiment import Recipe, load_recipe, packaged_recipe
from neuroprior.experiment.recipe import parse_recipe
from neuroprior.types import InputError

RECIPES = Path(__file__).parents[2] / "recipes"
GOOD = """
name: try
stimuli: {source: photographs}
target: {kind: simulated_mouse}
task: {source: digits}
conditions: [none, neural_data]
tiny: {training: {epochs: 1}, noise: {sigmas: [0]}}
"""


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid_at_both_scales(path):
    full, tiny = load_recipe(path), load_recipe(path, ["scale=tiny"])
    assert (full.scale, tiny.scale) == ("full", "tiny")
    assert tiny.training.epochs <= full.training.epochs
    assert path.read_text().startswith("#")  # command, cost and expectation
    assert f"neuroprior run recipes/{path.name}" in path.read_text()


def test_the_demo_is_packaged():
    assert "neural_model" in packaged_recipe("demo").conditions


def test_defaults_are_the_papers():
    recipe = parse_recipe(GOOD, "r")
    assert (recipe.training.epochs, recipe.training.batch_size, recipe.training.weight_decay) == (40, 64, 0)
    assert (recipe.regularizer.alpha, recipe.regularizer.scale, recipe.regularizer.mean) == (20, "printed", "lineage")
    assert (recipe.regularizer.pairs, recipe.regularizer.stimuli_per_step) == ("disjoint", 64)
    assert recipe.noise.sigmas == tuple(round(k / 100, 2) for k in range(16))


def test_yaml_round_trip():
    recipe = parse_recipe(GOOD, "r", ["seeds=[0, 1]", "training.epochs=3"])
    assert parse_recipe(recipe.to_yaml(), "again") == recipe


def test_overrides_are_yaml_and_win_over_tiny():
    recipe = parse_recipe(GOOD, "r", ["training.epochs=7", "scale=tiny", "regularizer.taps=[stem, stage1]"])
    assert recipe.training.epochs == 7
    assert recipe.noise.sigmas == (0,)
    assert recipe.regularizer.taps == ("stem", "stage1")
    assert parse_recipe(GOOD, "r").training.epochs == 40  # tiny changes nothing unless asked


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("", [], "r: is empty; a recipe is a mapping"),
        ("{}", [], "r: is empty"),
        ("- a\n- b", [], "r: is a list"),
        ("just words", [], "r: is a str"),
        ("a: [", [], "r: not YAML"),
        (GOOD + "sedes: [1]", [], "unknown key 'sedes'; did you mean 'seeds'?"),
        (GOOD, ["training.epoch=2"], "unknown key 'training.epoch'; did you mean 'epochs'?"),
        (GOOD, ["regularizer.alfa=2"], "unknown key 'regularizer.alfa'; did you mean 'alpha'?"),
        (GOOD, ["target.n_neuron=2"], "unknown key 'target.n_neuron'; did you mean 'n_neurons'?"),
        (GOOD, ["target={kind: twin, path: x, n_neurons: 2}"], "unknown key 'target.n_neurons'; did you mean 'neur"),
        (
            GOOD,
            ["compute.xyzzy=2"],
            "unknown key 'compute.xyzzy'; there are: checkpoint_seconds, cluster, cuda_graphs, device, precision, r",
        ),
        (GOOD, ["regularizer.alpha=-1"], "regularizer.alpha: Input should be greater than or equal to 0"),
        (GOOD, ["conditions=[none, neural_modle]"], "'neural_modle' is unknown; did you mean 'neural_model'?"),
        (GOOD, ["conditions=[]"], "conditions"),
        (GOOD, ["seeds=[1, 1]"], "names one twice"),
        (
            GOOD,
            ["conditions=[user_matrix]"],
            "condition 'user_matrix' needs target.kind matrix, not simulated_mouse",
        ),
        (GOOD, ["target.kind=mouse"], "target"),
        (GOOD, ["stimuli={source: npz}"], "source npz needs a path"),
        (GOOD, ["task={source: parquet}"], "source parquet needs train and test"),
        (GOOD, ["training.learning_rate=0"], "learning_rate is 0"),
        (GOOD, ["noise.sigmas=[-0.1]"], "noise.sigmas.0"),
        (GOOD, ["training.epochs"], "--set 'training.epochs' is not key=value"),
        (GOOD.replace("name: try", ""), [], "'name' is missing"),
    ],
)
def test_what_is_refused(text, overrides, says):
    with pytest.raises(InputError) as caught:
        parse_recipe(text, "r", overrides)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_recipe(tmp_path):
    with pytest.raises(InputError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")


def test_recipes_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        parse_recipe(GOOD, "r").seeds = (1,)
    assert isinstance(parse_recipe(GOOD, "r"), Recipe)


SCANS = """
name: try
stimuli: {source: scans}
target: {kind: scans, paths: [a.npz], neurons: "top-v:0.5"}
task: {source: parquet, train: a.parquet, test: b.parquet, n_train: 50}
conditions: [none, neural_data]
"""


@pytest.mark.parametrize("kind_first", [True, False])
def test_another_kind_keeps_what_it_takes_and_drops_what_only_the_old_one_took(kind_first):
    changes = ["target.kind=fitted_twins", "target.twins=tw"]
    target = parse_recipe(SCANS, "r", changes if kind_first else changes[::-1]).target
    assert (target.kind, target.paths, target.twins) == ("fitted_twins", ("a.npz",), "tw")
    folders = parse_recipe(SCANS, "r", ["task.source=image_folder"]).task
    assert (folders.train, folders.test, folders.n_train) == ("a.parquet", "b.parquet", 50)
    cifar = parse_recipe(SCANS, "r", ["task.source=cifar_binary", "task.folder=c"]).task
    assert (cifar.folder, cifar.train, cifar.n_train) == ("c", None, 50)


def test_a_target_given_as_a_whole_keeps_nothing_of_another_kind():
    target = parse_recipe(SCANS, "r", ["target={kind: twin, path: t.pth}", "stimuli={source: photographs}"]).target
    assert (target.path, target.neurons) == ("t.pth", None)
    same = parse_recipe(SCANS, "r", ["target={kind: scans, paths: [b.npz]}"]).target
    assert (same.paths, same.neurons) == (("b.npz",), "top-v:0.5")


def test_null_takes_away_what_stood_there_before_the_next_change():
    text = GOOD.replace("{kind: simulated_mouse}", "{kind: simulated_mouse, n_neurons: 50, seed: 7}")
    target = parse_recipe(text, "r", ["target=null", "target.kind=simulated_mouse"]).target
    assert (target.n_neurons, target.seed) == (500, 0)


def test_what_is_said_of_the_wrong_kind_is_refused_though_the_old_one_took_it():
    with pytest.raises(InputError, match=r"unknown key 'target\.paths'"):
        parse_recipe(SCANS, "r", ["target.kind=twin", "target.path=t.pth", "target.paths=[c.npz]", "conditions=[none]"])


def test_tiny_may_have_another_source():
    text = SCANS + "tiny: {task: {source: digits}}\n"
    assert parse_recipe(text, "r", ["scale=tiny"]).task.train is None
