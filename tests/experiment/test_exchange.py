"""What is passed on is what was trained, whole, usable without this package, and refused where it was touched."""

import hashlib
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from bombs import Bomb
from neuroprior import NetworkCard, SimilarityTarget, load_network_folder, load_target
from neuroprior.experiment import load_run, packaged_recipe, run_recipe
from neuroprior.experiment.exchange import network_of_run, write_network, write_target
from neuroprior.experiment.inputs import task_images
from neuroprior.experiment.plan import plan
from neuroprior.experiment.runs import store_of
from neuroprior.experiment.steps.measuring import trained_network
from neuroprior.networks import load_network
from neuroprior.networks.folder import write_sums
from neuroprior.report.excerpt import controls_sentence, excerpt_table, network_page, target_page
from neuroprior.similarity import factor_target
from neuroprior.types import InputError
from small_demo import SMALL as DEMO

SMALL = [
    *DEMO,
    "conditions=[none, neural_model, blur]",
    "robustness={radii: [0.01], n_images: 20, steps: 2}",
    "perturbations={l2: [ddn], n_images: 10}",
]
FILES = {"weights.safetensors", "network.pt2", "card.json", "recipe.yaml", "provenance.json", "README.md", "SHA256SUMS"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "demo"
    assert run_recipe(packaged_recipe("demo", SMALL), out, command=["test"], watch=lambda *_: None) == []
    return out


def exported(run: Path, condition: str, out: Path, *, replace: bool = False) -> Path:
    one = network_of_run(load_run(run), condition, 0)
    page = network_page(one, licence="cc-by-4.0")
    write_network(one, out, readme=page, licence="cc-by-4.0", replace=replace)
    return out


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    """The network behind a blur: its front must travel with it."""
    return exported(run, "blur", tmp_path_factory.mktemp("passed") / "on")


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def as_trained(run: Path, condition: str) -> torch.nn.Module:
    """The network as the measuring step has it."""
    step = next(s for s in plan(packaged_recipe("demo", SMALL), {}) if s.label == f"measure-{condition}-seed0")
    weights = next(store_of(run).root.glob(f"train-{condition}-seed0-*"))
    return trained_network(step.work, task_images(step.work.task, "test"), {"network": weights})


def listing(page: Path, first: str) -> str:
    return next(code for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if first in code)


def without_neuroprior(code: str, where: Path) -> None:
    """Run lines in a process in which this package cannot be imported."""
    blocked = "import sys; sys.modules['neuroprior'] = None\n"
    done = subprocess.run([sys.executable, "-c", blocked + code], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("condition", ["none", "blur"])
def test_what_is_passed_on_answers_as_what_was_trained(run, tmp_path, condition):
    out = exported(run, condition, tmp_path / "out")
    trained = as_trained(run, condition)
    network, _ = load_network_folder(out)
    assert not network.training
    for n in (1, 2, 7):  # the program was traced with two
        images = torch.rand(n, 1, 32, 32)
        with torch.no_grad():
            expected = trained(images)
            torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(load_network(out)(images), expected, atol=1e-5, rtol=0)
    assert expected.std() > 1e-3  # they differ at all
    with torch.no_grad():
        assert not torch.allclose(as_trained(run, "neural_model")(images), expected, atol=1e-3)


def test_four_lines_of_plain_torch(run, folder, tmp_path):
    code = listing(folder / "README.md", "torch.export.load")
    assert len(code.strip().splitlines()) == 4
    given = torch.rand(5, 1, 32, 32)
    np.save(tmp_path / "given.npy", given.numpy())
    asked = f"import numpy; logits = network(torch.from_numpy(numpy.load({str(tmp_path / 'given.npy')!r})))"
    left = f"numpy.save({str(tmp_path / 'logits.npy')!r}, logits.detach().numpy())"
    without_neuroprior("\n".join([code, "assert logits.shape == (8, 10)", asked, left]), folder)
    with torch.no_grad():
        expected = as_trained(run, "blur")(given).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)


def test_the_card_is_true(run, folder):
    """Its clean accuracy is that of the program; every number is the run's, and none of training."""
    card = json.loads((folder / "card.json").read_text())
    network, read = load_network_folder(folder)
    trained = json.loads(next(store_of(run).root.glob("train-blur-seed0-*/card.json")).read_text())
    assert read == NetworkCard(**trained)
    assert (card["condition"], card["seed"], card["classes"]) == ("blur", 0, [str(k) for k in range(10)])
    assert card["inputs"]["shape"] == ["any number", 1, 32, 32]
    assert card["architecture"] == {"name": "resnet18", "width": 2, "blur_sigma": 1.0}
    assert card["license"] == "cc-by-4.0"
    assert card["versions"]["torch"]
    kept = [r for r in pq.read_table(run / "metrics.parquet").to_pylist() if r["condition"] == "blur"]
    numbers = {(m["metric"], m["tap"], m["x"]): (float(m["value"]), m["n"]) for m in card["metrics"]}
    assert {"noise_accuracy", "linf_accuracy", "median_l2", "similarity_correlation"} <= {key[0] for key in numbers}
    for row in kept:
        if (key := (row["metric"], row["tap"], row["x"])) in numbers:
            assert numbers[key] == (row["value"], row["n"])
    left_out = {row["metric"] for row in kept} - {key[0] for key in numbers}
    assert left_out == {"task_loss", "validation_loss", "validation_accuracy"}
    images = task_images(packaged_recipe("demo", SMALL).task, "test")
    with torch.no_grad():
        right = network(torch.from_numpy(images.pixels).float() / 255).argmax(1).numpy() == images.labels
    assert numbers["noise_accuracy", None, 0.0] == (pytest.approx(right.mean()), 60)


def test_the_folder_is_complete_and_its_digests_are_right(run, folder):
    assert {p.name for p in folder.iterdir()} == FILES
    listed = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert listed == {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in FILES - {"SHA256SUMS"}}
    weights = next(store_of(run).root.glob("train-blur-seed0-*/weights.safetensors"))
    assert (folder / "weights.safetensors").read_bytes() == weights.read_bytes()
    assert (folder / "recipe.yaml").read_text() == (run / "recipe.yaml").read_text()
    assert json.loads((folder / "provenance.json").read_text()) == json.loads((run / "provenance.json").read_text())


def test_the_page_shows_the_numbers_beside_the_controls(run, folder):
    page = (folder / "README.md").read_text()
    front = yaml.safe_load(page.split("---")[1])
    assert front["license"] == "cc-by-4.0"
    assert {"neuroprior", "robustness"} <= set(front["tags"])
    assert front["metrics"] == ["accuracy"]
    results = load_run(run)
    table = excerpt_table(results, "blur", 0)
    assert [row[0] for row in table.rows] == ["None", "Neural (model)", "**Blur**"]
    assert [re.sub("\N{NO-BREAK SPACE}", " ", head) for head in table.header[2:]] == [
        "Clean (n = 60)",
        "Noise σ = 0.2 (n = 60)",
        "PGD, L∞ 0.01 (n = 20)",
        "Median smallest L2 (n = 10)",
    ]
    metrics = {
        (r["condition"], r["metric"], r["x"]): r["value"] for r in results.metrics.to_pylist() if r["tap"] is None
    }
    for name, row in zip(("none", "neural_model", "blur"), table.rows, strict=True):
        assert row[2] == f"{100 * metrics[name, 'noise_accuracy', 0.0]:.1f}"
        assert row[4] == f"{100 * metrics[name, 'linf_accuracy', 0.01]:.1f}"
        assert row[5] == f"{metrics[name, 'median_l2', None]:.3g}"
        assert f"| {' | '.join(row)} |" in page
    said = controls_sentence(results, "blur", 0)
    assert said in page
    assert "another trained network or an attack: None." in said
    assert "over 60 images has a standard error of up to 6.5 %" in said
    assert "**its numbers are no result.**" in page


def test_without_controls_the_page_says_so(run):
    results = load_run(run)
    alone = type(results)(
        **{f: getattr(results, f) for f in results.__dataclass_fields__ if f != "conditions"},
        conditions=results.conditions[:1],
    )
    assert "trained no other condition" in controls_sentence(alone, "none", 0)


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as said:
        load_network_folder(folder)
    assert "\n" not in str(said.value)
    return str(said.value)


@pytest.mark.parametrize("name", sorted(FILES - {"SHA256SUMS"}))
def test_an_edited_or_missing_file_is_refused(copied, name):
    file = copied / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"{file}: edited or damaged since it was exported" in refused(copied)
    file.unlink()
    assert f"{name} is missing" in refused(copied)
    file.write_bytes(content)
    (copied / ".gitattributes").write_text("what hubs add is left alone")
    load_network_folder(copied)


def test_what_is_no_such_folder_is_refused(run, copied, tmp_path):
    assert "no such folder" in refused(tmp_path / "nowhere")
    assert "a run, of many networks; take one out with `neuroprior export" in refused(run)
    with pytest.raises(InputError, match="holds its own weights"):
        load_network(copied, weights=copied / "weights.safetensors")
    sums = (copied / "SHA256SUMS").read_text()
    (copied / "SHA256SUMS").write_text(sums.replace("network.pt2", "../network.pt2"))
    assert "is no digest and name of a file" in refused(copied)
    (copied / "SHA256SUMS").write_text("".join(x for x in sums.splitlines(keepends=True) if "network.pt2" not in x))
    assert "does not list network.pt2" in refused(copied)
    (copied / "card.json").write_text("{}")
    write_sums(copied)
    assert "no card of a network (KeyError('format'))" in refused(copied)
    (copied / "SHA256SUMS").unlink()
    assert "no SHA256SUMS to check it by" in refused(copied)


def test_a_pickle_with_right_digests_is_refused(folder, copied, tmp_path):
    """Digests tell damage, not who wrote it: the program itself is looked at too."""
    left, program = tmp_path / "left", copied / "network.pt2"
    inside = io.BytesIO()
    torch.save((Bomb(left),), inside)
    with zipfile.ZipFile(folder / "network.pt2") as whole, zipfile.ZipFile(program, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, inside.getvalue() if "sample_inputs" in name else whole.read(name))
    write_sums(copied)
    assert "nothing is unpickled" in refused(copied)
    program.write_bytes(pickle.dumps(Bomb(left)))
    write_sums(copied)
    assert "nothing is unpickled" in refused(copied)
    assert not left.exists()


def test_what_the_run_has_not_is_said(run, tmp_path):
    results = load_run(run)
    with pytest.raises(InputError, match="no condition 'vgg' in it; give --condition none or neural_model or blur"):
        network_of_run(results, "vgg", 0)
    with pytest.raises(InputError, match="no seed 3 in it; give --seed 0"):
        network_of_run(results, "none", 3)
    half = tmp_path / "half"
    shutil.copytree(run, half)
    shutil.rmtree(next((half / "steps").glob("measure-neural_model-seed0-*")))  # a control of the one asked for
    with pytest.raises(InputError, match=r"measure-neural_model-seed0 is not finished; give the command of the run"):
        network_of_run(load_run(half), "blur", 0)


def test_weights_edited_since_training_are_not_passed_on(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    weights = next((copy / "steps").glob("train-blur-seed0-*/weights.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="edited since training"):
        network_of_run(load_run(copy), "blur", 0)


def test_what_is_there_stays_unless_it_is_an_earlier_export(run, copied, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is there already; name another place, or give --force"):
        exported(run, "none", copied)
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is no earlier export, so --force leaves it alone"):
        exported(run, "none", thesis, replace=True)
    with pytest.raises(InputError, match="lies below a file"):
        exported(run, "none", thesis / "thesis.tex" / "out")

    def fails(*_: object) -> None:
        raise OSError("the disk went away")

    with monkeypatch.context() as patched:
        patched.setattr("neuroprior.experiment.exchange.write_sums", fails)
        with pytest.raises(OSError, match="went away"):
            exported(run, "none", copied, replace=True)
    assert load_network_folder(copied)[1].condition == "blur"
    exported(run, "none", copied, replace=True)
    assert load_network_folder(copied)[1].condition == "none"
    assert {p.name for p in tmp_path.iterdir()} == {"copied", "thesis"}  # nothing is left beside it


@pytest.mark.parametrize("kind", ["matrix", "factored"])
def test_a_target_is_passed_on_as_it_is(tmp_path, target, kind):
    file, out = tmp_path / "made.safetensors", tmp_path / "out"
    kept = target if kind == "matrix" else factor_target(target)
    kept.save(file)
    write_target(file, out, readme=target_page(kept, "made", licence="mit"), licence="mit")
    assert {p.name for p in out.iterdir()} == {"target.safetensors", "card.json", "README.md", "SHA256SUMS"}
    assert (out / "target.safetensors").read_bytes() == file.read_bytes()
    card = json.loads((out / "card.json").read_text())
    assert (card["kind"], card["images"], card["stimuli_digest"]) == (kind, 40, target.stimuli_digest)
    code = listing(out / "README.md", "safetensors.numpy")
    assert len(code.strip().splitlines()) == 4
    similarity = "similarity" if kind == "matrix" else "e @ e.T"
    left = f"import numpy; numpy.savez({str(tmp_path / 'left.npz')!r}, ids=image_ids, similarity={similarity})"
    without_neuroprior(f"{code}\n{left}", out)
    with np.load(tmp_path / "left.npz") as read:
        assert read["ids"].tolist() == target.image_ids.tolist()
        off = ~np.eye(40, dtype=bool)
        np.testing.assert_allclose(read["similarity"][off], target.matrix[off], atol=0 if kind == "matrix" else 0.011)
    loads = listing(out / "README.md", "load_target").replace("target.safetensors", str(out / "target.safetensors"))
    names: dict = {}
    exec(loads, names)
    assert isinstance(names["target"], SimilarityTarget) == (kind == "matrix")
    assert len(names["target"]) == len(load_target(file))
    assert "give the folder of a network" in refused(out)
