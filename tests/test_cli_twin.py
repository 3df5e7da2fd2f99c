"""`neuroprior twin`: from recordings to twins, scores and files, each command as a person would type it."""

import inspect
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from command_line import call
from neuroprior.cli import main
from neuroprior.cli.twin import fit
from neuroprior.recordings import load_scan, packaged_photographs, save_scan, simulate_scan
from neuroprior.twin import FitDivergedError, FitSettings, TwinArchitecture, fit_in_folder
from neuroprior.twin.fit.fitting import _Fit
from neuroprior.types import InputError, load_target

SMALL = ["--channels", "4", "--first-kernel", "5", "--kernel", "3", "--layers", "2", "--max-epochs", "2"]
TINY = TwinArchitecture(channels=4, first_kernel=5, kernel=3, n_layers=2)


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
    assert not {"checkpoint.safetensors", "begun.json"} & there
    said = json.loads((twins / "fit.json").read_text())
    assert set(said["scans"]) == {"mouse0", "mouse1"}
    assert len(said["history"]) == len((twins / "log.jsonl").read_text().splitlines()) == 2
    assert said["made"]["torch"] == torch.__version__
    assert said["made"]["threads"] == [1]


def test_what_is_fitted_is_not_fitted_again_and_another_fit_is_refused(mice, twins, capsys):
    before = (twins / "twin.safetensors").stat().st_mtime_ns
    status, out, _ = call(capsys, "twin", "fit", *mice, "--out", twins, *SMALL, "--json")
    assert status == 0
    assert set(json.loads(out)["scores"]) == {"mouse0", "mouse1"}
    assert (twins / "twin.safetensors").stat().st_mtime_ns == before
    status, _, err = call(capsys, "twin", "fit", *mice, "--out", twins, *SMALL, "--seed", "1")
    assert status == 2
    assert "holds twins of another fit" in err
    assert [line.partition(":")[0] for line in err.splitlines()] == ["recordings", "neuroprior"]
    status, _, err = call(capsys, "twin", "fit", *mice[::-1], "--out", twins, *SMALL)
    assert status == 2
    assert "the order of the scans counts, too" in err


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
    assert not list(out.glob("*.safetensors"))


def _lost_after_an_epoch(monkeypatch):
    step = _Fit._step

    def lost(self, images, where):
        if self.so_far.epoch:
            raise FloatingPointError(f"twin fit: the loss is nan at {where}, learning rate 0.005; lower it")
        step(self, images, where)

    monkeypatch.setattr(_Fit, "_step", lost)


def test_twins_of_an_epoch_before_the_loss_was_lost_are_kept_but_are_no_fit(mice, tmp_path, capsys, monkeypatch):
    out = tmp_path / "twins"
    _lost_after_an_epoch(monkeypatch)
    status, _, err = call(capsys, "twin", "fit", mice[0], "--out", out, *SMALL)
    assert status == 1
    assert "the loss is nan at epoch 2, step 1" in err
    assert {path.name for path in out.iterdir()} == {"twin.safetensors", "fit.json", "log.jsonl"}
    assert "the loss is nan" in json.loads((out / "fit.json").read_text())["failed"]
    status, _, err = call(capsys, "twin", "score", out, mice[0])
    assert status == 2
    assert "the fit failed (twin fit: the loss is nan" in err
    assert call(capsys, "twin", "score", out / "twin.safetensors", mice[0])[0] == 0


def test_the_checkpoint_of_a_lost_fit_stays_until_its_best_twins_are_on_the_disk(mice, tmp_path, monkeypatch):
    _lost_after_an_epoch(monkeypatch)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("neuroprior.twin.folder.save_twins", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_in_folder([load_scan(mice[0])], tmp_path / "twins", TINY, FitSettings(max_epochs=2), seconds=0.0)
    assert (tmp_path / "twins" / "checkpoint.safetensors").is_file()
    monkeypatch.undo()
    _lost_after_an_epoch(monkeypatch)
    with pytest.raises(FitDivergedError, match="best epoch, 1, are kept"):
        fit_in_folder([load_scan(mice[0])], tmp_path / "twins", TINY, FitSettings(max_epochs=2), seconds=0.0)
    assert {path.name for path in (tmp_path / "twins").iterdir()} == {"twin.safetensors", "fit.json", "log.jsonl"}


@pytest.mark.parametrize("threads", [1, 2])
def test_going_on_at_another_thread_count_is_noted(mice, tmp_path, threads):
    """Sums over threads differ in their last bits; a fit that was only stopped is the undisturbed one."""

    def go(out: str, stop: bool = False):
        def tell(_, at):
            if stop and at.epoch == 2:
                raise KeyboardInterrupt

        scans = [load_scan(mice[0])]
        return fit_in_folder(scans, tmp_path / out, TINY, FitSettings(max_epochs=2), progress=tell, seconds=0.0)

    whole = go("whole")
    with pytest.raises(KeyboardInterrupt):
        go("stopped", stop=True)
    torch.set_num_threads(3)
    with pytest.raises(InputError, match="checkpoint is of another fit"):  # and that leaves no trace in this one
        fit_in_folder([load_scan(mice[0])], tmp_path / "stopped", TINY, FitSettings(max_epochs=3))
    torch.set_num_threads(threads)
    resumed = go("stopped")
    assert resumed.said[0]["made"]["threads"] == [1, 2][:threads]
    notes = [note for note in resumed.notes if "threads" in note]
    if threads == 1:
        assert not notes
        assert (tmp_path / "stopped/fit.json").read_bytes() == (tmp_path / "whole/fit.json").read_bytes()
    else:
        assert notes == ["began on 1 threads, went on with 2: the last bits are not those of an undisturbed fit"]
        assert whole.notes == tuple(note for note in resumed.notes if note not in notes)
    assert not (tmp_path / "stopped/begun.json").exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda said: {"digest": "1"}, "fit.json: architecture is missing; copy the file again, or delete"),
        (lambda said: {**said, "scans": ["mouse0"]}, "fit.json: scans is ['mouse0'] (Input should be a valid dict"),
        (lambda said: {**said, "history": [{"epoch": 1}]}, "fit.json: history.0.loss is missing"),
        (lambda said: {**said, "settings": {"decay": 2.0}}, "fit: decay is 2.0"),
        (lambda said: {"folds": 2}, "fit.json: seed is missing"),
        (lambda said: {"folds": "two", "seed": 0}, "fit.json: folds is 'two'"),
        (lambda said: {"folds": 2, "seed": 0}, "fold-0/fit.json: missing; copy the file again"),
    ],
)
def test_a_damaged_record_of_a_fit_is_said_in_one_line(mice, twins, tmp_path, capsys, spoil, says):
    out = tmp_path / "twins"
    shutil.copytree(twins, out)
    said = json.loads((out / "fit.json").read_text())
    (out / "fit.json").write_text(json.dumps(spoil(said)))
    status, _, err = call(capsys, "twin", "score", out, mice[0])
    assert status == 2
    assert says in err
    assert err.count("\n") == 1


def test_a_record_of_an_older_version_is_read_with_todays_defaults(mice, twins, tmp_path, capsys):
    out = tmp_path / "twins"
    shutil.copytree(twins, out)
    said = json.loads((out / "fit.json").read_text())
    del said["made"], said["architecture"]["behavior"], said["architecture"]["shifter"], said["settings"]["precision"]
    (out / "fit.json").write_text(json.dumps(said))
    scores = [call(capsys, "twin", "score", at, mice[0], "--tier", "validation", "--json")[1] for at in (out, twins)]
    assert json.loads(scores[0])["scores"] == json.loads(scores[1])["scores"]


def test_twins_whose_record_is_missing_are_not_called_another_fits(mice, twins, tmp_path, capsys):
    shutil.copytree(twins, tmp_path / "twins")
    (tmp_path / "twins/fit.json").unlink()
    status, _, err = call(capsys, "twin", "fit", *mice, "--out", tmp_path / "twins", *SMALL)
    assert status == 2
    assert "fit.json: missing; copy the file again, or delete the twin.safetensors beside it and fit again" in err


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


def test_a_twin_as_fits_make_it_by_default_is_told_how_to_become_a_sensorium_file(mice, twins, tmp_path, capsys):
    """The options that are named do it, once the units are given up."""
    where = tmp_path / "twin.pth"
    status, _, err = call(capsys, "twin", "export", twins, "--scan", "mouse1", "--out", where)
    assert status == 2
    assert "fit with --no-padded and --behavior channels (or none), or keep it as .safetensors" in err
    assert err.count("\n") == 1
    again = tmp_path / "again"
    fitted = [*SMALL, "--no-padded", "--behavior", "channels"]
    assert call(capsys, "twin", "fit", mice[1], "--out", again, *fitted)[0] == 0
    assert call(capsys, "twin", "export", again, "--out", where)[0] == 2
    assert call(capsys, "twin", "export", again, "--out", where, "--own-units")[0] == 0


def test_each_kind_of_export_has_options_of_its_own(twins, tmp_path, capsys):
    given = ["twin", "export", twins, "--scan", "mouse1", "--out", tmp_path / "twin.pt2", "--own-units"]
    status, _, err = call(capsys, *given)
    assert status == 2
    assert "--own-units: " in err
    assert "leave it out, or name a .pth" in err
    given = ["twin", "export", twins, "--scan", "mouse1", "--out", tmp_path / "twin.pth", "--conditions", "given"]
    status, _, err = call(capsys, *given)
    assert status == 2
    assert "--conditions: is of a program" in err
    assert not (tmp_path / "twin.pt2").exists()
