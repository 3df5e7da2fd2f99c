"""Every kind of input, from real files to a finished run: scans, a matrix of one's own, colour, official binaries."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from neuroprior import SimilarityTarget, packaged_photographs, save_scan, simulate_scan, target_from_scan
from neuroprior.experiment import load_run, run_recipe
from neuroprior.experiment.inputs import count_images, scans_of
from neuroprior.experiment.plan import plan
from neuroprior.experiment.recipe import parse_recipe
from neuroprior.reliability import scan_reliability
from neuroprior.report import write_report
from neuroprior.similarity import average_targets
from neuroprior.types import InputError

SMALL = {
    "name": "small",
    "task": {"source": "digits", "n_train": 60, "n_test": 40},
    "network": {"width": 2},
    "training": {"epochs": 1, "batch_size": 20, "augmentation": "none", "validation_fraction": 0.1},
    "regularizer": {"stimuli_per_step": 8, "pairs": "all"},
    "noise": {"sigmas": [0, 0.2]},
    "compute": {"device": "cpu", "precision": "float32", "threads": 1, "workers": 1},
}
PHOTOGRAPHS = packaged_photographs(n_train=30, n_oracle=12)
ORACLE = [name for name in PHOTOGRAPHS.ids.tolist() if "oracle" in name]
MOUSE = {"stimuli": {"source": "photographs"}, "target": {"kind": "simulated_mouse", "n_neurons": 30, "n_repeats": 3}}


def recipe(**parts):
    return parse_recipe(yaml.safe_dump({**SMALL, **parts}), "r")


def go(tmp_path: Path, **parts):
    out = tmp_path / "run"
    assert run_recipe(recipe(**parts), out, command=["test"], watch=lambda *_: None) == []
    results = load_run(out)
    assert write_report(results).stat().st_size > 10_000
    return results, pq.read_table(out / "metrics.parquet").to_pylist()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NEUROPRIOR_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def scans(folder) -> list:
    made = [simulate_scan(PHOTOGRAPHS, ORACLE, n_neurons=30, n_repeats=3, seed=seed).scan for seed in (0, 1)]
    for k, scan in enumerate(made):
        save_scan(dataclasses.replace(scan, name=f"scan{k}"), folder / f"scan{k}.npz")
    return made


def test_recordings_are_the_target_and_shuffle_permutes_it(folder, scans):
    results, rows = go(
        folder,
        stimuli={"source": "scans"},
        target={"kind": "scans", "paths": ["scan0.npz", "scan1.npz"]},
        conditions=["none", "neural_data", "shuffle"],
    )
    target = results.targets["neural_data"]
    assert (target.source, target.n_scans, len(target)) == ("recorded", 2, 30)
    expected = average_targets([target_from_scan(scan, tier="train") for scan in scans]).matrix
    assert np.allclose(target.matrix, expected, atol=1e-6)
    shuffled = results.targets["shuffle"].matrix
    assert np.allclose(np.sort(shuffled.ravel()), np.sort(target.matrix.ravel()))
    assert not np.allclose(shuffled, target.matrix)
    assert {r["n"] for r in rows if r["metric"] == "similarity_correlation"} == {12 * 11 // 2}


def test_a_part_of_the_neurons_is_the_target(folder, scans):
    """Their file goes into the step's key, and what was chosen is said with the target."""
    chosen = [3, 4, 20]
    (folder / "chosen.txt").write_text("\n".join(map(str, chosen)) + "\n")
    parts = {"stimuli": {"source": "scans"}, "conditions": ["neural_data"]}
    asked = recipe(target={"kind": "scans", "paths": ["scan0.npz"], "neurons": "chosen.txt"}, **parts)
    made = scans_of(asked.target)[0]
    assert np.array_equal(made.responses, scans[0].responses[:, chosen])
    best = scans_of(asked.target.model_copy(update={"neurons": "top-v:0.1"}))[0]
    w = scan_reliability(scans[0]).weights.snr
    assert np.array_equal(best.responses, scans[0].responses[:, np.sort(np.argsort(-w)[:3])])
    assert "chosen.txt" in [name for name, _ in plan(asked, {})[0].files]
    with pytest.raises(InputError, match="no such rule or file"):
        scans_of(asked.target.model_copy(update={"neurons": "best"}))


@pytest.mark.parametrize("heldout", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_matrix_of_ones_own(folder, heldout):
    ids = PHOTOGRAPHS.ids if heldout else PHOTOGRAPHS.ids[~np.isin(PHOTOGRAPHS.ids, ORACLE)]
    points = np.random.default_rng(0).standard_normal((len(ids), 5))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    matrix = (points @ points.T).astype(np.float32)
    np.save(folder / "S.npy", matrix)
    (folder / "ids.txt").write_text("\n".join(ids.tolist()) + "\n")
    tier = np.where(np.isin(PHOTOGRAPHS.ids, ORACLE), "oracle", "train")
    np.savez(folder / "stimuli.npz", images=PHOTOGRAPHS.pixels, names=PHOTOGRAPHS.ids, tier=tier)
    results, rows = go(
        folder,
        stimuli={"source": "npz", "path": "stimuli.npz"},
        target={"kind": "matrix", "path": "S.npy", "ids": "ids.txt"},
        conditions=["none", "user_matrix", "shuffle"],
    )
    target = results.targets["user_matrix"]
    rows_of = [ids.tolist().index(name) for name in target.image_ids.tolist()]
    assert target.source == "user"
    assert np.allclose(target.matrix, matrix[np.ix_(rows_of, rows_of)], atol=1e-6)
    assert any(r["metric"] == "similarity_correlation" for r in rows) == heldout


def cifar_binary(root: Path, n: int = 40) -> None:
    """The official CIFAR-10 layout, with `n` images a file."""
    rng = np.random.default_rng(0)
    root.mkdir()
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        records = rng.integers(0, 256, (n, 3073)).astype(np.uint8)
        records[:, 0] = np.arange(n) % 10
        (root / f"{name}.bin").write_bytes(records.tobytes())


@pytest.mark.parametrize("color", [pytest.param("gray", marks=pytest.mark.slow), "rgb"])
def test_official_binaries_in_gray_and_colour(folder, color):
    cifar_binary(folder / "cifar-10-batches-bin")
    task = {"source": "cifar_binary", "folder": "cifar-10-batches-bin", "color": color, "n_test": 40}
    assert count_images(recipe(**MOUSE, conditions=["none"], task=task).task, "train") == 200
    results, rows = go(folder, **MOUSE, conditions=["none", "neural_model", "blur"], task=task)
    assert results.n_classes == 10
    assert results.examples.images.shape[1:] == (32, 32)
    assert {r["n"] for r in rows if r["metric"] == "noise_accuracy"} == {40}
    assert any(r["metric"] == "similarity_correlation" and r["condition"] == "neural_model" for r in rows)
    kept = next((folder / "run" / "steps").glob("train-neural_model*")) / "card.json"
    assert any(name.startswith("gamma.") for name in json.loads(kept.read_text())["scores"])


def test_a_folder_of_images_of_many_sizes(folder):
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), ("test", 6)):
        for label in ("cat", "dog"):
            (folder / part / label).mkdir(parents=True)
            for k in range(n):
                size = (40 + k, 33 + k)
                Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(
                    folder / part / label / f"{k}.png"
                )
    task = {"source": "image_folder", "train": "train", "test": "test", "color": "rgb"}
    with pytest.raises(InputError, match="size"):
        go(folder, **MOUSE, conditions=["none"], task=task)
    results, rows = go(folder, **MOUSE, conditions=["none"], task={**task, "size": [32, 32]})
    assert results.n_classes == 2
    assert {r["n"] for r in rows if r["metric"] == "noise_accuracy"} == {12}


@pytest.mark.slow
def test_a_changed_image_in_a_folder_is_another_run(folder):
    cifar_binary(folder / "cifar")
    task = {"source": "cifar_binary", "folder": "cifar", "n_train": 60, "n_test": 20}
    go(folder, **MOUSE, conditions=["none"], task=task)
    batch = folder / "cifar" / "data_batch_1.bin"
    batch.write_bytes(batch.read_bytes()[::-1][:-1] + b"\x00")
    batch.write_bytes(np.roll(np.frombuffer(batch.read_bytes(), np.uint8), 1).tobytes())
    with pytest.raises(InputError, match=r"must lie in|label|changed since that run was made"):
        go(folder, **MOUSE, conditions=["none"], task=task)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({**MOUSE, "conditions": ["user_matrix"]}, "'user_matrix' needs target.kind matrix, not simulated_mouse"),
        ({**MOUSE, "stimuli": {"source": "scans"}, "conditions": ["none"]}, "goes with target.kind scans"),
        (
            {"stimuli": {"source": "photographs"}, "target": {"kind": "scans", "paths": ["a"]}, "conditions": ["none"]},
            "goes with target.kind scans",
        ),
        (
            {
                "stimuli": {"source": "scans"},
                "target": {"kind": "scans", "paths": ["a", "a"]},
                "conditions": ["none"],
            },
            "names a scan twice",
        ),
        ({**MOUSE, "conditions": ["none"], "seeds": [-1]}, "greater than or equal to 0"),
        ({**MOUSE, "conditions": ["none"], "noise": {"sigmas": []}}, "at least 1 item"),
        ({**MOUSE, "conditions": ["none"], "noise": {"sigmas": [0.1, 0.1]}}, "noise.sigmas: .* names one twice"),
        ({**MOUSE, "conditions": ["none"], "training": {"momentum": -1}}, "momentum is -1"),
        ({**MOUSE, "conditions": ["none"], "task": {"source": "cifar_binary"}}, "needs folder, not nothing"),
        (
            {**MOUSE, "conditions": ["none"], "task": {"source": "parquet", "train": "a"}},
            "source parquet needs train and test, not train",
        ),
        (
            {**MOUSE, "conditions": ["none"], "task": {"source": "digits", "size": [3, 3]}},
            "size is for source image_folder",
        ),
    ],
)
def test_what_does_not_go_together(parts, says):
    with pytest.raises(InputError, match=says):
        recipe(**parts)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("cifar-10-batches-bin", "bring it with `neuroprior data fetch cifar10`, put it there"),
        ("elsewhere", "put it there, or name the data folder in NEUROPRIOR_DATA"),
    ],
)
def test_what_is_missing_says_how_to_get_it(folder, path, says):
    with pytest.raises(InputError, match=says):
        go(folder, **MOUSE, conditions=["none"], task={"source": "cifar_binary", "folder": path})
    assert not (folder / "run").exists()


def test_a_half_copied_dataset_is_named(folder):
    cifar_binary(folder / "cifar")
    batch = folder / "cifar" / "data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"data_batch_2\.bin"):
        go(folder, **MOUSE, conditions=["none"], task={"source": "cifar_binary", "folder": "cifar"})


@pytest.mark.slow
def test_classes_are_those_of_the_whole_file(folder):
    """Sorted by label, the first images show few classes: training and measurement must still agree."""
    import io

    import pyarrow as pa

    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        images = []
        for _ in range(150):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (32, 32)).astype(np.uint8)).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"img": images, "label": np.repeat(np.arange(15), 10)})
        pq.write_table(table, folder / f"{part}.parquet")
    task = {"source": "parquet", "train": "train.parquet", "test": "test.parquet", "n_test": 40}
    results, _ = go(folder, **MOUSE, conditions=["none"], task=task)
    assert results.n_classes == 15


def test_a_batch_larger_than_the_data_is_told_at_once(folder):
    with pytest.raises(InputError, match=r"batch_size is 60, but 60 training images less 6 for validation"):
        go(folder, **MOUSE, conditions=["none"], training={**SMALL["training"], "batch_size": 60})
    assert not (folder / "run").exists()


def test_a_target_can_be_cut_and_is_not_centred_again(target, stimuli):
    few = stimuli.select(stimuli.ids[[5, 2, 9]])
    part = target.select(few)
    assert np.array_equal(part.matrix, target.matrix[np.ix_([5, 2, 9], [5, 2, 9])])
    assert part.stimuli_digest == few.digest
    assert part.image_ids.tolist() == few.ids.tolist()
    assert isinstance(part, SimilarityTarget)
    with pytest.raises(InputError, match="not among these"):
        target.select(PHOTOGRAPHS)
