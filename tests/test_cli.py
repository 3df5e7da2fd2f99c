"""The command line as a person meets it: exit codes, one line on stderr, nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from command_line import call
from neuroprior.types import SimilarityTarget

QUICK = Path(__file__).parents[1] / "recipes" / "quick.yaml"


@pytest.fixture
def stimuli_file(tmp_path, stimuli):
    path = tmp_path / "stimuli.npz"
    np.savez(path, images=stimuli.pixels, names=stimuli.ids, tier=np.array(["train"] * 30 + ["oracle"] * 10))
    return path


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["demo"],
        ["run"],
        ["report"],
        ["target"],
        ["target", "build"],
        ["target", "show"],
        ["watch"],
        ["export"],
        ["runs"],
        ["runs", "ls"],
        ["runs", "show"],
        ["runs", "gc"],
        ["recipe"],
        ["recipe", "schema"],
        ["recipe", "show"],
        ["stimuli"],
        ["stimuli", "prepare"],
        ["data"],
        ["data", "list"],
        ["data", "fetch"],
    ],
)
def test_every_command_explains_itself_with_an_example(capsys, command):
    status, out, _ = call(capsys, *command, "--help")
    assert status == 0
    assert "Usage" in out
    if command and command not in (["target"], ["runs"], ["recipe"], ["stimuli"], ["data"]):
        assert "Example: neuroprior" in out


def test_version(capsys):
    assert call(capsys, "--version")[:2] == (0, "neuroprior 0.1.0\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "none.yaml"], "none.yaml: no such recipe"),
        (["report", "nowhere"], "nowhere: no run in it"),
        (["target", "show", "none.safetensors"], "none.safetensors: no such file"),
        (["target", "build", "--twin", "none.pth", "--stimuli", "STIMULI", "--out", "t"], "none.pth: no such file"),
        (["target", "build", "--twin", "x", "--stimuli", "none.npz", "--out", "t"], "none.npz"),
        (["target", "build", "--twin", "x", "--stimuli", "STIMULI", "--out", "."], "--out .: is a folder"),
        (["report", "stimuli.npz"], "stimuli.npz: is a file; name the folder of a run"),
        (["demo", "--set", "training.epoch=1"], "did you mean 'epochs'?"),
        (["demo", "--set", "regularizer.alpha=-1"], "regularizer.alpha"),
        (["runs", "ls", "nowhere"], "nowhere: no such folder"),
        (["runs", "show", "nowhere"], "nowhere: no run in it"),
        (["watch", "nowhere"], "nowhere: no run in it"),
        (["runs", "gc", "."], "not a store; name a run's folder, or a store"),
        (["recipe", "show", "none.yaml"], "none.yaml: no such recipe"),
        (["stimuli", "prepare", "nowhere", "--out", "s.npz"], "nowhere"),
        (["data", "fetch", "cifar11"], "did you mean 'cifar10'?"),
        (["demo", "--set", "conditions=[user_matrix]"], "needs target.kind matrix"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run"], "Missing argument 'recipe'"),
    ],
)
def test_faults_are_one_line_and_exit_2(capsys, tmp_path, monkeypatch, stimuli_file, arguments, says):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    status, _, err = call(capsys, *[str(stimuli_file) if a == "STIMULI" else a for a in arguments])
    assert status == 2
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("neuroprior: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_debug_shows_the_traceback(capsys):
    status, _, err = call(capsys, "run", "none.yaml", "--debug")
    assert status == 2
    assert "Traceback" in err


def test_a_failing_step_is_exit_1_with_its_reason(capsys, tmp_path):
    settings = ["scale=tiny", "conditions=[none]", "training.learning_rate=1e30", "task.n_train=150"]
    settings.append("compute={device: cpu, precision: float32, threads: 1, workers: 1}")
    status, out, err = call(capsys, "demo", "--out", str(tmp_path / "r"), *[x for s in settings for x in ("--set", s)])
    assert status == 1
    assert "train-none-seed0 failed: the loss is no longer finite" in err
    assert "Report:" in out


def test_bad_input_to_a_run_is_told_before_anything_is_written(capsys, tmp_path, monkeypatch, data):
    """Every fault of a file or setting that a run could meet later is met first: one line, exit 2, no folder."""
    import pyarrow.parquet as pq

    folder = tmp_path / "data"
    for name in (
        "stimuli/tiny_imagenet_36x64.npz",
        "twins/sensorium2022_26872-17-20_sota.pth",
        "cifar10/train-00000-of-00001.parquet",
        "cifar10/test-00000-of-00001.parquet",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(data(name))
    monkeypatch.setenv("NEUROPRIOR_DATA", str(folder))
    (folder / "cut.pth").write_bytes(data("twins/sensorium2022_26872-17-20_sota.pth").read_bytes()[:100_000])
    small = pq.read_table(folder / "cifar10/test-00000-of-00001.parquet").slice(0, 30)
    pq.write_table(small.drop_columns("label"), folder / "unlabelled.parquet")
    with np.load(folder / "stimuli/tiny_imagenet_36x64.npz") as whole:
        np.savez(folder / "square.npz", images=whole["images"][-200:, :, :36], names=whole["names"][-200:],
                 tier=whole["tier"][-200:])  # fmt: skip
    for change, says in (
        ("stimuli.path=none.npz", "none.npz: no such file"),
        ("target.path=cut.pth", "cut.pth: no file of weights, or damaged"),
        ("task.test=unlabelled.parquet", "unlabelled.parquet: no column 'label' or 'fine_label'; it has img"),
        ("task.train=cut.pth", "cut.pth: not a parquet file"),
        ("stimuli.path=square.npz", "takes images of 36x64, the stimuli are 36x36"),
        ("regularizer.taps=[stage7]", "tap 'stage7': no such module; did you mean 'stage4'? there are: front"),
        ("regularizer.taps=40", "40 layers asked"),
        ("regularizer.stimuli_per_step=300", "there are 200 training stimuli"),
        ("regularizer.alpha=-1", "regularizer.alpha"),
    ):
        arguments = ["--set", "scale=tiny", "--set", change, "--out", str(tmp_path / "out")]
        status, _, err = call(capsys, "run", str(QUICK), *arguments)
        assert (status, err.count("\n")) == (2, 1), err
        assert says in err
        assert not (tmp_path / "out").exists()


def test_target_build_and_show(capsys, tmp_path, data):
    twin = data("twins/sensorium2022_26872-17-20_sota.pth")
    photographs = data("stimuli/tiny_imagenet_36x64.npz")
    out = tmp_path / "oracle.safetensors"
    arguments = ["--twin", str(twin), "--stimuli", str(photographs), "--out", str(out)]
    status, said, _ = call(capsys, "target", "build", *arguments, "--tier", "oracle")
    assert status == 0
    assert "images: 100\nsource: twin" in said
    assert "weights: 1 for every neuron" in said
    assert len(SimilarityTarget.load(out)) == 100
    shown = json.loads(call(capsys, "target", "show", str(out), "--json")[1])
    assert (shown["images"], shown["neurons"]) == (100, 7776)
    assert shown["standard deviation off the diagonal"] == pytest.approx(0.18, abs=0.03)


def test_the_command_line_starts_without_torch():
    code = "import sys; import neuroprior.cli; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_a_plan_is_printed_and_nothing_is_run(capsys, tmp_path):
    out = tmp_path / "run"
    settings = ["scale=tiny", "seeds=[0, 1]", "conditions=[none, shuffle]", "network.width=2"]
    settings.append("compute={device: cpu, precision: float32, threads: 1, workers: 2}")
    arguments = ["demo", "--out", str(out), "--plan", *[x for s in settings for x in ("--set", s)]]
    status, said, _ = call(capsys, *arguments)
    assert status == 0
    assert "demo: 10 steps into" in said
    assert "train-shuffle    2 to do   target" in said
    assert said.splitlines()[-1].startswith("All that is to do: about ")
    plan = json.loads(call(capsys, *arguments, "--json")[1])
    assert [step["label"] for step in plan["steps"][:3]] == ["target", "train-none-seed0", "measure-none-seed0"]
    assert plan["steps"][2]["needs"] == ["target", "train-none-seed0"]
    assert not out.exists()


@pytest.mark.slow
def test_runs_are_listed_shown_and_tidied(capsys, tmp_path):
    settings = ["scale=tiny", "conditions=[none]", "task.n_train=150", "network.width=2", "task.n_test=20"]
    settings.append("compute={device: cpu, precision: float32, threads: 1, workers: 1}")
    out = tmp_path / "runs" / "r"
    assert call(capsys, "demo", "--out", str(out), *[x for s in settings for x in ("--set", s)])[0] == 0
    listed = call(capsys, "runs", "ls", str(out.parent))[1]
    assert "4 of 4" in listed
    assert json.loads(call(capsys, "runs", "ls", str(out.parent), "--json")[1])["runs"][0]["done"] == 4
    shown = call(capsys, "runs", "show", str(out))[1]
    assert [line.split()[:2] for line in shown.splitlines()[2:]] == [
        ["target", "done"],
        ["train-none-seed0", "done"],
        ["measure-none-seed0", "done"],
        ["stability", "done"],
    ]
    assert "nothing can go" in call(capsys, "runs", "gc", str(out))[1]
    left = out / "steps" / ".unfinished" / "train-old-0"
    left.mkdir()
    assert "1 folders, 0.0 MB, can go; --yes removes them" in call(capsys, "runs", "gc", str(out))[1]
    assert left.exists()
    assert "removed" in call(capsys, "runs", "gc", str(out), "--yes")[1]
    assert not left.exists()


def test_photographs_to_stimuli(capsys, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for k in range(5):
        Image.fromarray(rng.integers(0, 256, (64, 64)).astype(np.uint8)).save(tmp_path / f"{k}.png")
    out = tmp_path / "stimuli.npz"
    status, said, _ = call(capsys, "stimuli", "prepare", str(tmp_path), "--out", str(out), "--oracle", "2", "--json")
    assert status == 0
    assert json.loads(said)["train"] == 3
    with np.load(out) as made:
        assert made["images"].shape == (5, 36, 64)


def test_data_is_listed(capsys, tmp_path):
    listed = json.loads(call(capsys, "data", "list", "--to", str(tmp_path), "--json")[1])
    assert {"cifar10", "cifar100", "tiny-imagenet", "sensorium", "vgg19"} <= {s["name"] for s in listed["sources"]}
    assert {s["state"] for s in listed["sources"]} == {"absent"}
    assert "cifar-10-batches-bin" in call(capsys, "data", "list", "--to", str(tmp_path))[1]


def test_the_schema_beside_the_recipes_is_the_codes(capsys):
    """`neuroprior recipe schema > recipes/recipe.schema.json` after a change of the recipe."""
    schema = json.loads(call(capsys, "recipe", "schema")[1])
    assert schema == json.loads((QUICK.parent / "recipe.schema.json").read_text())
    assert "neural_model" in schema["properties"]["conditions"]["items"]["anyOf"][0]["enum"]
    for recipe in QUICK.parent.glob("*.yaml"):
        assert recipe.read_text().startswith("# yaml-language-server: $schema=recipe.schema.json")
