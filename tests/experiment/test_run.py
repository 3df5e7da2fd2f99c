"""Runs: the whole graph on a few images; what a finished one holds, what it shares and what goes into a key."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from neuroprior import Ledger, SimilarityRegularizer, SimilarityTarget
from neuroprior.classifier import ResNet
from neuroprior.experiment import load_run, run_recipe
from neuroprior.experiment.inputs import task_images
from neuroprior.experiment.plan import plan
from neuroprior.experiment.recipe import load_recipe
from neuroprior.experiment.results import OF_RECORDINGS
from neuroprior.experiment.run import store_of
from neuroprior.experiment.sections import ClusterSection
from neuroprior.experiment.steps import do_work
from neuroprior.experiment.steps.measuring import similarity_rows
from neuroprior.experiment.steps.training import new_network
from neuroprior.report import write_report
from neuroprior.similarity import shuffle_target
from small_demo import go, small


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
    assert labels == [
        "target",
        *(f"{kind}-{c}-seed0" for c in conditions for kind in ("train", "measure")),
        "stability",
    ]
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


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(finished, tmp_path):
    more = ["conditions=[none, shuffle]"]
    assert go(tmp_path / "one", *more) == []
    assert go(tmp_path / "two", *more, "compute.workers=2") == []
    one, two = (pq.read_table(tmp_path / name / "metrics.parquet").to_pylist() for name in ("one", "two"))
    assert one == two
    whole = pq.read_table(finished / "metrics.parquet").to_pylist()
    shared = [r for r in whole if r["condition"] in ("none", "shuffle") or r["metric"] in OF_RECORDINGS]
    assert one == shared


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
