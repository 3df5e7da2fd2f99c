"""Runs: the whole graph on a few images, finished steps kept, failures told, nothing half-written."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from neuroprior import Ledger, SimilarityRegularizer, SimilarityTarget
from neuroprior.classifier import ResNet
from neuroprior.experiment import load_run, measured_in, packaged_recipe, run_recipe
from neuroprior.experiment.inputs import task_images
from neuroprior.experiment.plan import plan
from neuroprior.experiment.recipe import load_recipe
from neuroprior.experiment.run import store_of
from neuroprior.experiment.sections import ClusterSection
from neuroprior.experiment.steps import do_work
from neuroprior.experiment.steps.measuring import similarity_rows
from neuroprior.experiment.steps.training import new_network
from neuroprior.experiment.store import Step
from neuroprior.report import write_report
from neuroprior.similarity import shuffle_target
from neuroprior.types import InputError

SMALL = [
    "scale=tiny",
    "task.n_train=150",
    "task.n_test=60",
    "network.width=2",
    "compute={device: cpu, precision: float32, threads: 1, workers: 1}",
]


def small(*more: str):
    return packaged_recipe("demo", [*SMALL, *more])


def go(out: Path, *more: str, said: list | None = None) -> list:
    return run_recipe(
        small(*more), out, command=["test"], watch=lambda *a: said.append(a) if said is not None else None
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "demo"
    assert go(out) == []
    return out


def test_a_run_is_a_folder(finished):
    assert {p.name for p in finished.iterdir()} == {
        "recipe.yaml",
        "provenance.json",
        "plan.json",
        "steps",
        "metrics.parquet",
    }
    labels = [entry["label"] for entry in json.loads((finished / "plan.json").read_text())["steps"]]
    conditions = ["none", "neural_model", "neural_data", "shuffle", "blur"]
    assert labels == ["target", *(f"{kind}-{c}-seed0" for c in conditions for kind in ("train", "measure"))]
    assert len([p for p in (finished / "steps").iterdir() if p.is_dir() and p.name[0] != "."]) == len(labels)


def test_metrics_hold_every_number_and_no_time(finished):
    table = pq.read_table(finished / "metrics.parquet")
    rows = table.to_pylist()
    assert table.column_names == ["condition", "seed", "metric", "tap", "x", "value", "n"]
    noise = [r for r in rows if r["metric"] == "noise_accuracy"]
    assert len(noise) == 5 * 2
    assert {r["n"] for r in noise} == {60}
    assert all(0 <= r["value"] <= 1 for r in noise)
    correlations = [r for r in rows if r["metric"] == "similarity_correlation"]
    assert len(correlations) == 5 * (1 + 5)
    assert {r["n"] for r in correlations} == {100 * 99 // 2}
    gamma = [r for r in rows if r["metric"] == "gamma"]
    assert {r["condition"] for r in gamma} == {"neural_model", "neural_data", "shuffle"}
    assert sum(r["value"] for r in gamma if r["condition"] == "shuffle") == pytest.approx(1)
    assert {r["condition"] for r in rows if r["metric"] == "similarity_loss"} == {r["condition"] for r in gamma}


def test_attacks_are_run_where_the_recipe_asks_for_them_and_a_stopped_search_goes_on(tmp_path):
    out = tmp_path / "run"
    more = [
        "conditions=[none]",
        "robustness={radii: [0, 0.02, 0.1], n_images: 40, steps: 5}",
        "perturbations={l2: [ddn], linf: [brendel_bethge], n_images: 10, max_gradients: 30}",
        "noise.kinds=[gaussian, uniform, salt_and_pepper]",
    ]
    assert go(out, *more) == []
    rows = pq.read_table(out / "metrics.parquet").to_pylist()
    left = [(r["x"], r["value"], r["n"]) for r in rows if r["metric"] == "linf_accuracy"]
    assert [x for x, _, _ in left] == [0, 0.02, 0.1]
    assert [value for _, value, _ in left] == sorted((value for _, value, _ in left), reverse=True)
    assert {n for _, _, n in left} == {40}
    ledger = Ledger.load(out / "attacks.parquet")
    assert ledger.models == ("none seed 0",)
    assert ledger.norms == ("l2", "linf")
    of_metric = {r["metric"]: r["value"] for r in rows if r["x"] is None and r["tap"] is None}
    for line in ledger.withstood():
        assert of_metric[f"median_{line.norm}"] == line.median
        assert of_metric[f"already_wrong_{line.norm}"] == line.already_wrong
    assert {"uniform_noise_accuracy", "salt_and_pepper_noise_accuracy"} <= {r["metric"] for r in rows}
    page = write_report(load_run(out)).read_text()
    assert "Accuracy under attack" in page
    assert "Smallest perturbation found" in page

    kept, store = (out / "attacks.parquet").read_bytes(), store_of(out)
    steps = {step.label: step for step in plan(load_recipe(out / "recipe.yaml"), {})}
    step = steps["attack-none-seed0"]
    shutil.rmtree(store.folder(step))
    (out / "attacks.parquet").unlink()

    def say(what: str, part: float) -> None:
        if what.startswith("linf"):
            raise KeyboardInterrupt

    def stopped() -> None:
        with store.writing(step) as folder:
            do_work(step.work, {"network": store.folder(steps["train-none-seed0"])}, folder, say)

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [path.name for path in store.unfinished(step.name).iterdir()] == ["ledgers"]
    assert go(out, *more) == []
    assert (out / "attacks.parquet").read_bytes() == kept
    assert not list(store.folder(step).glob("ledgers"))


def test_the_report_shows_what_the_recipe_asks_for(tmp_path, finished, monkeypatch):
    shown = "report={title: A title, levels: [0.2], figures: [noise, gamma]}"
    monkeypatch.setenv("NEUROPRIOR_STORE", str(finished / "steps"))
    assert go(tmp_path / "run", shown) == []
    page = write_report(load_run(tmp_path / "run")).read_text()
    monkeypatch.delenv("NEUROPRIOR_STORE")
    assert "<h1>A title</h1>" in page
    assert page.count("<figure") < write_report(load_run(finished)).read_text().count("<figure")


def test_provenance(finished):
    origin = json.loads((finished / "provenance.json").read_text())
    assert origin["command"] == "test"
    assert origin["seeds"] == [0]
    settled = {
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
        "workers": 1,
        "checkpoint_seconds": 30.0,
        "cuda_graphs": True,
        "tensorboard": False,
        "retries": 2,
        "cluster": ClusterSection().model_dump(mode="json"),
    }
    assert origin["compute"] == settled
    assert {"commit", "versions", "device", "python", "data"} <= set(origin)


def test_the_same_command_again_does_nothing_and_changes_nothing(finished):
    before = (finished / "metrics.parquet").read_bytes()
    said: list = []
    assert go(finished, said=said) == []
    assert {what for _, what, _ in said} == {"already there"}
    assert (finished / "metrics.parquet").read_bytes() == before


def test_lost_steps_are_done_again_to_the_byte(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for folder in (out / "steps").glob("*neural_model*"):
        shutil.rmtree(folder)
    (out / "metrics.parquet").unlink()
    said: list = []
    assert go(out, said=said) == []
    assert (out / "metrics.parquet").read_bytes() == (finished / "metrics.parquet").read_bytes()
    assert {label for label, what, _ in said if what == "done"} == {
        "train-neural_model-seed0",
        "measure-neural_model-seed0",
    }


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(finished, tmp_path):
    more = ["conditions=[none, shuffle]"]
    assert go(tmp_path / "one", *more) == []
    assert go(tmp_path / "two", *more, "compute.workers=2") == []
    one, two = (pq.read_table(tmp_path / name / "metrics.parquet").to_pylist() for name in ("one", "two"))
    assert one == two
    whole = pq.read_table(finished / "metrics.parquet").to_pylist()
    assert one == [r for r in whole if r["condition"] in ("none", "shuffle")]


def test_steps_are_shared_between_recipes_in_one_store(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROPRIOR_STORE", str(finished / "steps"))
    said: list = []
    assert go(tmp_path / "other", "name=other", "conditions=[blur]", said=said) == []
    assert {what for _, what, _ in said} == {"already there"}


def test_what_goes_into_a_key():
    def keys(*more: str) -> dict[str, str]:
        return {step.label: step.key for step in plan(small(*more), {})}

    base = keys()
    assert keys("name=other", "description=x", "conditions=[none]").items() <= base.items()
    noise = keys("noise.seed=3")
    changed = {label for label in base if noise[label] != base[label]}
    assert changed == {label for label in base if label.startswith("measure")}
    mouse = keys("target.seed=9")
    assert "train-none-seed0" not in {label for label in base if mouse[label] != base[label]}
    assert mouse["train-shuffle-seed0"] != base["train-shuffle-seed0"]
    assert keys("training.epochs=2")["target"] == base["target"]
    alpha = keys("regularizer.alpha=3")
    assert {label for label in base if alpha[label] != base[label]} == {
        f"{kind}-{condition}-seed0"
        for kind in ("train", "measure")
        for condition in ("neural_model", "neural_data", "shuffle")
    }
    blur = keys("blur_sigma=2")
    assert {label for label in base if blur[label] != base[label]} == {"train-blur-seed0", "measure-blur-seed0"}


def test_the_code_goes_into_a_key(monkeypatch):
    base = plan(small(), {})[0].key
    monkeypatch.setattr("neuroprior.experiment.store.code_version", lambda: {"source": "edited"})
    assert plan(small(), {})[0].key != base


def test_a_run_whose_code_or_data_changed_is_not_mixed_with_the_old_one(finished, monkeypatch):
    monkeypatch.setattr("neuroprior.experiment.store.code_version", lambda: {"source": "edited"})
    before = (finished / "metrics.parquet").read_bytes()
    with pytest.raises(InputError, match="changed since that run was made"):
        go(finished)
    assert (finished / "metrics.parquet").read_bytes() == before


@pytest.mark.parametrize("kept", [["recipe.yaml"], ["recipe.yaml", "provenance.json"]])
def test_a_run_killed_while_it_was_created_goes_on(finished, tmp_path, kept):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".plan.json.123").write_text("half")
    for name in kept:
        shutil.copy(finished / name, out)
    shutil.copytree(finished / "steps", out / "steps")
    assert go(out) == []
    assert (out / "metrics.parquet").read_bytes() == (finished / "metrics.parquet").read_bytes()


def test_all_conditions_of_a_seed_begin_alike():
    """The comparison is paired: equal first weights, whatever the condition adds (order and crops: see `train`)."""
    steps = {step.label: step for step in plan(small("conditions=[none, shuffle, blur]", "seeds=[0, 1]"), {})}
    images = task_images(small().task, "train")

    def first_weights(label: str) -> dict:
        return new_network(steps[label].work, images).state_dict()

    none = first_weights("train-none-seed0")
    for other in ("train-shuffle-seed0", "train-blur-seed0", "measure-none-seed0"):
        assert all(torch.equal(none[name], value) for name, value in first_weights(other).items())
    assert not torch.equal(none["head.weight"], first_weights("train-none-seed1")["head.weight"])


def test_heldout_correlation_is_one_for_the_networks_own_similarity(finished, tmp_path):
    """A target made of a network's own tap: r = 1 there; permuted, about 0; and the card's gamma mixes the taps."""
    step = next(s for s in plan(small(), {}) if s.label == "measure-none-seed0")
    network = new_network(step.work, task_images(small().task, "test")).eval()
    heldout = SimilarityTarget.load(next((finished / "steps").glob("target-*")) / "heldout.safetensors")
    stimuli = load_run(finished).stimuli.select(heldout.image_ids)
    probe = SimilarityRegularizer(network, heldout, stimuli, ["stage2"], alpha=0.0, stimuli_per_step=2)
    own = probe.similarity(torch.from_numpy(stimuli.pixels.copy())[:, None].float() / 255).clamp(-1, 1).numpy()
    own_target = dataclasses.replace(heldout, matrix=own, source="network")
    folders = {"target": tmp_path / "target", "network": tmp_path / "network"}
    for folder in folders.values():
        folder.mkdir()
    np.savez(folders["target"] / "stimuli.npz", images=stimuli.pixels, names=stimuli.ids)
    gamma = {f"gamma.{name}": float(name == "stage2") for name in ResNet.stages}
    (folders["network"] / "card.json").write_text(json.dumps({"scores": gamma}))

    def correlations(target: SimilarityTarget) -> dict:
        target.save(folders["target"] / "heldout.safetensors")
        return {row["tap"]: row["value"] for row in similarity_rows(step.work, network, folders)}

    found = correlations(own_target)
    assert found["stage2"] == pytest.approx(1)
    assert found[None] == pytest.approx(1)  # all of gamma lies on that tap
    assert found["stem"] < 0.999
    assert abs(correlations(shuffle_target(own_target, seed=0))["stage2"]) < 0.2


@pytest.mark.slow
def killed_in_training(out, *more: str) -> tuple[list, list]:
    """Kill the first worker that trains, once; return what failed and what was said."""
    recipe = small("conditions=[none, blur]", "compute.workers=2", "training.epochs=25", *more)
    said: list = []

    def watch(label: str, what: str, part: float) -> None:
        if label.startswith("train") and "epoch" in what and not any("epoch" in before for _, before, _ in said):
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        said.append((label, what, part))

    return run_recipe(recipe, out, command=["test"], watch=watch), said


def test_a_worker_that_dies_is_replaced(tmp_path):
    failures, said = killed_in_training(tmp_path / "run")
    assert failures == []
    assert any(what == "its process died, trying again (1 of 2)" for _, what, _ in said)
    assert not list((tmp_path / "run" / "steps" / ".unfinished").iterdir())


def test_a_worker_that_dies_is_told_where_nothing_is_tried_again(tmp_path):
    failures, _ = killed_in_training(tmp_path / "run", "compute.retries=0")
    assert failures
    assert all("its process was killed" in failure.reason for failure in failures)
    assert not list((tmp_path / "run" / "steps" / ".unfinished").iterdir())
    assert (tmp_path / "run" / "metrics.parquet").exists()


def test_a_step_that_fails_is_told_and_the_rest_goes_on(tmp_path):
    said: list = []
    failures = go(tmp_path / "run", "training.learning_rate=1e30", "conditions=[none]", said=said)
    assert [f.step.label for f in failures] == ["train-none-seed0"]
    assert "no longer finite" in failures[0].reason
    steps = [p.name.rsplit("-", 1)[0] for p in (tmp_path / "run" / "steps").glob("[a-z]*-*")]
    assert steps == ["target"]  # the failed step left nothing, its measurement was not tried
    assert load_run(tmp_path / "run").missing == ("train-none-seed0", "measure-none-seed0")


def test_one_folder_holds_one_recipe(finished):
    with pytest.raises(InputError, match="another recipe \\(training differs\\)"):
        go(finished, "training.epochs=2")
    with pytest.raises(InputError, match=r"compute\.threads=1, not 2"):
        go(finished, "compute.threads=2")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds other files"):
        go(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_missing_data_file_stops_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz: no such file"):
        go(tmp_path / "run", "stimuli={source: npz, path: none.npz}")
    assert not (tmp_path / "run").exists()


def test_a_step_interrupted_leaves_no_folder(tmp_path):
    store = store_of(tmp_path)
    step: Step = plan(small(), {})[0]

    def interrupted() -> None:
        with store.writing(step) as folder:
            (folder / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not store.has(step)
    assert list((store.root / ".unfinished").iterdir()) == []


def test_load_run_gives_a_report_all_it_needs(finished):
    results = load_run(finished)
    assert [c.name for c in results.conditions] == ["none", "neural_model", "neural_data", "shuffle", "blur"]
    assert set(results.targets) == {"neural_model", "neural_data", "shuffle"}
    assert results.truth is not None
    assert np.array_equal(results.truth.matrix, results.targets["neural_model"].matrix)
    assert results.missing == ()
    assert results.examples.images.shape == (3, 32, 32)
    assert results.examples.labels == ("0", "1", "2")
    for target in results.targets.values():
        assert results.stimuli.select(target.image_ids).digest == target.stimuli_digest


def test_a_stopped_run_can_be_reported(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "metrics.parquet").unlink()
    shutil.rmtree(next((out / "steps").glob("measure-blur*")))
    results = load_run(out)
    assert results.missing == ("measure-blur-seed0",)
    assert "shuffle" in results.metrics["condition"].to_pylist()


def test_load_run_of_nothing(tmp_path):
    with pytest.raises(InputError, match=r"no run in it \(recipe\.yaml is missing\)"):
        load_run(tmp_path)


def test_the_real_recipe_at_tiny_scale(data, tmp_path, monkeypatch):
    """CIFAR-10, the real twin, natural photographs: `recipes/quick.yaml --set scale=tiny`, with fewer images still."""
    from neuroprior.experiment import load_recipe

    for name in ("stimuli/tiny_imagenet_36x64.npz", "twins/sensorium2022_26872-17-20_sota.pth"):
        monkeypatch.setenv("NEUROPRIOR_DATA", str(data(name).parents[1]))
    compute = "compute={device: cpu, precision: float32, threads: 1, workers: 1}"
    changes = ["scale=tiny", "stimuli.n_train=60", "task.n_train=150", "conditions=[none, neural_model]", compute]
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "quick.yaml", changes)
    assert run_recipe(recipe, tmp_path / "run", command=["test"], watch=lambda *_: None) == []
    results = load_run(tmp_path / "run")
    target = results.targets["neural_model"]
    assert (len(target), target.source, target.details["neurons"]) == (60, "twin", 7776)
    assert "ready-made twin" in target.details["weights"]
    assert results.truth is None


@pytest.mark.parametrize("how", ["kill", pytest.param("interrupt", marks=pytest.mark.slow)])
def test_a_stopped_run_leaves_no_process_and_resumes(finished, tmp_path, how):
    """SIGKILL or Ctrl-C in the middle: the workers end too, what was half-written goes, and the bytes are the same."""
    out = tmp_path / "run"
    # Where tests run in the background, SIGINT comes ignored and stays so: a person's terminal has it.
    begin = "import signal as s; s.signal(s.SIGINT, s.default_int_handler); import neuroprior.cli as c; c.main()"
    command = [sys.executable, "-c", begin, "demo", "--out", str(out)]
    for setting in (*SMALL, "compute.workers=2"):
        command += ["--set", setting]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("train-") and "starting" in line:
            break
    if how == "kill":
        run.kill()
    else:
        os.killpg(run.pid, signal.SIGINT)
    said = run.stderr.read()
    run.stderr.close()
    run.wait()
    if how == "interrupt":
        assert run.returncode == 130
        assert said.splitlines()[-1] == "neuroprior: stopped; the same command goes on from here"
        assert "Traceback" not in said
    deadline = time.monotonic() + 20
    while (left := _processes_of_group(run.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    assert go(out, "compute.workers=2") == []
    assert not list((out / "steps" / ".unfinished").iterdir())
    assert pq.read_table(out / "metrics.parquet") == pq.read_table(finished / "metrics.parquet")


def _processes_of_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def test_reading_a_run_whose_store_is_elsewhere_leaves_its_metrics(tmp_path, finished, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("steps"))
    kept = (out / "metrics.parquet").read_bytes()
    monkeypatch.setenv("NEUROPRIOR_STORE", str(tmp_path / "another"))
    assert measured_in(out).measurements.metrics.num_rows == pq.read_metadata(out / "metrics.parquet").num_rows
    with pytest.raises(InputError, match="its target is not made yet"):
        load_run(out)
    assert (out / "metrics.parquet").read_bytes() == kept
