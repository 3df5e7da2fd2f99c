"""`neuroprior twin`: from recordings to twins, scores and files, each command as a person would type it."""

import inspect
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from neuroprior.cli import main
from neuroprior.cli.twin import fit
from neuroprior.recordings import load_scan, packaged_photographs, save_scan, simulate_scan
from neuroprior.twin import FitSettings, TwinArchitecture
from neuroprior.types import load_target
from test_cli_target import call

SMALL = ["--channels", "4", "--first-kernel", "5", "--kernel", "3", "--layers", "2", "--max-epochs", "2"]


@pytest.fixture(scope="module")
def mice(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("mice")
    shown = packaged_photographs(n_train=80, n_oracle=12)
    paths = []
    for animal in range(2):
        name = f"mouse{animal}"
        made = simulate_scan(shown, shown.ids[80:], n_neurons=20, n_repeats=4, animal=animal, name=name)
        paths.append(folder / f"{name}.npz")
        save_scan(made.scan, paths[-1], "plain")
    np.savez(
        folder / "stimuli.npz", images=shown.pixels, names=shown.ids, tier=np.repeat(["train", "oracle"], [80, 12])
    )
    return paths


@pytest.fixture(scope="module")
def twins(mice, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "twins"
    with pytest.raises(SystemExit) as ended:
        main(["twin", "fit", *map(str, mice), "--out", str(out), *SMALL])
    assert not ended.value.code
    return out


def test_defaults_are_the_librarys():
    """The command does not import torch to say its help, so it spells out what the two classes say."""
    own = {name: parameter.default for name, parameter in inspect.signature(fit).parameters.items()}
    own["n_layers"] = own.pop("layers")
    for settings in (TwinArchitecture(), FitSettings()):
        for name, value in asdict(settings).items():
            if name not in ("first_spread", "decay", "validation_fraction"):  # no options of the command
                assert own[name] == value, name


def test_a_fit_leaves_twins_what_made_them_and_a_page(twins):
    there = {path.name for path in twins.iterdir()}
    assert {"twin.safetensors", "fit.json", "log.jsonl", "index.html"} <= there
    assert "checkpoint.safetensors" not in there
    said = json.loads((twins / "fit.json").read_text())
    assert set(said["scans"]) == {"mouse0", "mouse1"}
    assert len(said["history"]) == len((twins / "log.jsonl").read_text().splitlines()) == 2


def test_what_is_fitted_is_not_fitted_again_and_another_fit_is_refused(mice, twins, capsys):
    before = (twins / "twin.safetensors").stat().st_mtime_ns
    status, out, _ = call(capsys, "twin", "fit", *mice, "--out", twins, *SMALL, "--json")
    assert status == 0
    assert set(json.loads(out)["scores"]) == {"mouse0", "mouse1"}
    assert (twins / "twin.safetensors").stat().st_mtime_ns == before
    status, _, err = call(capsys, "twin", "fit", *mice, "--out", twins, *SMALL, "--seed", "1")
    assert status == 2
    assert "holds twins of another fit" in err
    assert err.count("\n") == 1


def test_scores_are_matched_by_name(mice, twins, capsys):
    _, out, _ = call(capsys, "twin", "score", twins, mice[1], mice[0], "--json")
    both = json.loads(out)["scores"]
    assert list(both) == ["mouse1", "mouse0"]
    _, out, _ = call(capsys, "twin", "score", twins, mice[0], "--json")
    assert json.loads(out)["scores"]["mouse0"] == both["mouse0"]
    assert both["mouse0"]["single_trial"]["neurons"] == 20


def test_what_training_was_stopped_by_is_scored_as_training_scored_it(mice, twins, capsys):
    """The images held out of tier train, in a recording that has no tier validation."""
    _, out, _ = call(capsys, "twin", "score", twins, *mice, "--tier", "validation", "--json")
    scores = json.loads(out)["scores"]
    mean = np.average([one["single_trial"]["mean"] for one in scores.values()], weights=[20, 20])
    best = max(epoch["validation_correlation"] for epoch in json.loads((twins / "fit.json").read_text())["history"])
    assert mean == pytest.approx(best, abs=1e-3)


def test_another_recording_under_the_same_name_is_noted(mice, twins, tmp_path, capsys):
    _, _, err = call(capsys, "twin", "score", twins, mice[0])
    assert "note" not in err
    scan = load_scan(mice[0])
    other = replace(scan, responses=scan.responses[::-1].copy())
    save_scan(other, tmp_path / "mouse0.npz", "plain")
    status, _, err = call(capsys, "twin", "score", twins, tmp_path / "mouse0.npz")
    assert status == 0
    assert "mouse0: not the recording" in err


def test_a_fit_becomes_a_target_and_its_weights_matter(mice, twins, tmp_path, capsys):
    stimuli = mice[0].parent / "stimuli.npz"
    targets = {}
    for name, options in {"whole": [], "sharp": ["--v-power", "3"], "alike": ["--weighting", "none"]}.items():
        out = tmp_path / f"{name}.safetensors"
        given = ["target", "build", "--twin", twins, "--stimuli", stimuli, "--out", out, *options]
        status, _, err = call(capsys, *given)
        assert status == 0, err
        targets[name] = load_target(out)
    assert targets["whole"].n_scans == 2
    assert targets["whole"].details["weights"] == "w v (Eq. 1, 6)"
    assert not np.allclose(targets["whole"].matrix, targets["sharp"].matrix, atol=1e-3)
    assert not np.allclose(targets["whole"].matrix, targets["alike"].matrix, atol=1e-3)


def test_a_crossfit_is_a_folder_of_folds(mice, tmp_path, capsys):
    out = tmp_path / "crossed"
    status, said, err = call(capsys, "twin", "fit", mice[0], "--out", out, "--crossfit", "2", *SMALL)
    assert status == 0, err
    assert said.count("fold ") == 2
    assert (out / "fold-1" / "twin.safetensors").is_file()
    target = tmp_path / "target.safetensors"
    stimuli = mice[0].parent / "stimuli.npz"
    status, _, err = call(capsys, "target", "build", "--twin", out, "--stimuli", stimuli, "--out", target)
    assert status == 0, err
    assert "2 folds" in str(load_target(target).details["crossfit"])
    status, _, err = call(capsys, "twin", "export", out, "--out", tmp_path / "twin.pt2")
    assert status == 2
    assert "a crossfit is several models" in err


def test_one_folder_holds_twins_or_a_crossfit(mice, tmp_path, capsys):
    for first, second in ((["--crossfit", "2"], []), ([], ["--crossfit", "2"])):
        out = tmp_path / f"twins{len(first)}"
        assert call(capsys, "twin", "fit", mice[0], "--out", out, *SMALL, *first)[0] == 0
        kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        status, _, err = call(capsys, "twin", "fit", mice[0], "--out", out, *SMALL, *second)
        assert status == 2
        assert "name another --out" in err
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept


def test_a_full_disk_is_one_line(mice, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("neuroprior.checkpoint.save_file", full)
    monkeypatch.setattr("neuroprior.twin.folder._SECONDS", 0.0)
    status, _, err = call(capsys, "twin", "fit", mice[0], "--out", tmp_path / "twins", *SMALL)
    assert status == 2
    assert "no space left on the disk" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--channels", "0"], "channels is 0"),
        (["--kernel", "4"], "give an odd one"),
        (["--crossfit", "1"], "2 or more folds"),
        (["--learning-rate", "0"], "learning_rate is 0"),
        (["--max-epochs", "0"], "max_epochs is 0"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_line(mice, tmp_path, options, said, capsys):
    status, _, err = call(capsys, "twin", "fit", mice[0], "--out", tmp_path / "twins", *options)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "twins").exists()


def test_a_loss_that_is_lost_ends_with_1_and_keeps_the_best_twins(mice, tmp_path, capsys):
    out = tmp_path / "twins"
    lost = [*SMALL, "--learning-rate", "1e8", "--max-epochs", "20"]
    status, _, err = call(capsys, "twin", "fit", mice[0], "--out", out, *lost)
    assert status == 1
    assert "learning rate 1e+08" in err.splitlines()[-1]
    if (out / "twin.safetensors").exists():  # where an epoch was finished before
        assert json.loads((out / "fit.json").read_text())["failed"]
        assert call(capsys, "twin", "score", out, mice[0])[0] == 2


def test_one_of_several_scans_is_exported(twins, tmp_path, capsys):
    status, _, err = call(capsys, "twin", "export", twins, "--out", tmp_path / "twin.pt2")
    assert status == 2
    assert "choose one with --scan" in err
    status, _, err = call(capsys, "twin", "export", twins, "--scan", "mouse7", "--out", tmp_path / "twin.pt2")
    assert status == 2
    assert "no scan 'mouse7'" in err
    status, _, err = call(capsys, "twin", "export", twins, "--scan", "mouse1", "--out", tmp_path / "twin.txt")
    assert status == 2
    assert "name it .pt2" in err
