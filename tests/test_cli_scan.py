"""`neuroprior scan`: simulate, check, convert, stability and plan, as a person calls them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command_line import call
from neuroprior.cli.scan import card_names
from neuroprior.cli.scan_stability import said_range
from neuroprior.recordings import SCAN_FORMATS, check_scan, load_scan, load_truth, save_scan, target_from_scans
from neuroprior.types import Stimuli, load_target


@pytest.fixture(scope="module")
def mice(tmp_path_factory):
    """Two small scans of two mice with their truth, and the stimuli they saw."""
    from neuroprior.cli import main
    from neuroprior.recordings import packaged_photographs

    folder = tmp_path_factory.mktemp("mice")
    shown = packaged_photographs(n_train=30, n_oracle=20)
    tier = np.array(["train"] * 30 + ["oracle"] * 20)
    np.savez(folder / "stimuli.npz", images=shown.pixels, names=shown.ids, tier=tier)
    arguments = ["scan", "simulate", "--out", str(folder), "--stimuli", str(folder / "stimuli.npz")]
    arguments += ["--scans", "2", "--animals", "2", "--neurons", "90", "--repeats", "6", "--validation", "5"]
    arguments += ["--snr", "1.5"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    return folder


def test_simulated_scans_and_their_truth_are_written(mice):
    scan = load_scan(mice / "mouse0-scan0.npz")
    assert scan.name == "mouse0-scan0"
    assert scan.responses.shape == (30 + 20 * 6, 90)
    assert (scan.tier == "validation").sum() == 5
    truth = load_truth(mice / "mouse0-scan0-truth")
    assert truth.population.mean.shape == (50, 90)
    assert not np.array_equal(scan.responses, load_scan(mice / "mouse1-scan0.npz").responses)


@pytest.mark.parametrize("to", [entry.name for entry in SCAN_FORMATS])
def test_a_scan_goes_through_every_format_and_back(mice, tmp_path, capsys, to):
    entry = next(entry for entry in SCAN_FORMATS if entry.name == to)
    there, back = tmp_path / f"there{entry.suffix}", tmp_path / "back.npz"
    status, _, err = call(capsys, "scan", "convert", mice / "mouse0-scan0.npz", there, "--to", to)
    assert status == 0, err
    for field in entry.drops:
        assert field in err
    status, _, err = call(capsys, "scan", "convert", there, back, "--to", "plain")
    assert status == 0, err
    first, second = load_scan(mice / "mouse0-scan0.npz"), load_scan(back)
    # trials may come in another order, as in files that keep repeats apart
    of_first = np.lexsort((first.responses[:, 1], first.responses[:, 0]))
    of_second = np.lexsort((second.responses[:, 1], second.responses[:, 0]))
    np.testing.assert_array_equal(first.responses[of_first], second.responses[of_second])
    pictures = [scan.stimuli.pixels[scan.trial_image] for scan in (first, second)]
    np.testing.assert_array_equal(pictures[0][of_first], pictures[1][of_second])
    status, _, _ = call(capsys, "scan", "check", there, "--out", tmp_path / "cards")
    assert status == 0


def test_check_says_what_is_in_it_and_exits_with_1_where_something_is_wrong(mice, tmp_path, capsys):
    good = mice / "mouse0-scan0.npz"
    scan = load_scan(good)
    save_scan(replace(scan, responses=np.roll(scan.responses, 1, axis=0)), tmp_path / "slipped.npz")
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:5000])
    cards = tmp_path / "cards"
    status, out, _ = call(capsys, "scan", "check", good, "--out", cards)
    assert status == 0
    assert "150 trials, 90 neurons; 25 train images x 1, 5 validation images x 1, 20 oracle images x 6" in out
    assert "\n  sound\n" in out
    page = (cards / f"{mice.name}-mouse0-scan0.npz.html").read_text()
    assert "Sound: nothing was found wrong" in page
    assert "<script" not in page
    paths = [good, tmp_path / "slipped.npz", tmp_path / "cut.npz"]
    status, out, _ = call(capsys, "scan", "check", *paths, "--json")
    assert status == 1
    said = json.loads(out)["scans"]
    assert [one["sound"] for one in said] == [True, False, False]
    assert said[0]["faults"] == []
    assert list(check_scan(load_scan(paths[1])).faults) == said[1]["faults"]
    assert "responses come 1 trial after their images" in said[1]["faults"][0]
    assert said[2]["faults"][0].startswith(f"{paths[2]}: stops before its end, as after a copy that was cut off")
    assert said[0]["tiers"]["oracle"] == {"images": 20, "trials": 120, "repeats": [6, 6]}


def test_stability_shows_figure_1_with_the_truth(mice, tmp_path, capsys):
    scans = [mice / "mouse0-scan0.npz", mice / "mouse1-scan0.npz"]
    status, out, err = call(capsys, "scan", "stability", *scans, "--truth", "--out", tmp_path / "page", "--json")
    assert status == 0, err
    said = json.loads(out)
    assert said["scans"] == ["mouse0-scan0", "mouse1-scan0"]
    assert len(said["r"]["truth"]) == 2
    assert list(said["r_with_truth_by_repeats"]["mouse0-scan0"]) == ["1", "2", "3", "4", "5", "6"]
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("<svg") == 8  # two matrices, fluctuations, single trials, truth, growth, two columns of pairs
    assert (tmp_path / "page" / "fluctuations.svg").exists()
    (tmp_path / "alone.npz").write_bytes(scans[0].read_bytes())
    status, _, err = call(capsys, "scan", "stability", tmp_path / "alone.npz", "--truth", "--out", tmp_path / "page")
    assert status == 2
    assert "no truth beside it (alone-truth); only `scan simulate` writes one" in err


def test_stability_of_two_repeats_says_what_it_leaves_out(tmp_path, capsys):
    made = ["--neurons", "40", "--repeats", "2", "--scans", "2"]
    status, _, err = call(capsys, "scan", "simulate", "--out", tmp_path, *made)
    assert status == 0, err
    scans = sorted(tmp_path.glob("*.npz"))
    status, out, _ = call(capsys, "scan", "stability", *scans, "--truth", "--out", tmp_path / "page")
    assert status == 0
    assert "standard deviation over scans (Eq. 4): " in out
    assert "\nr, true S of these very neurons: " in out  # not of all such neurons, as a plan's
    (line,) = [line for line in out.splitlines() if line.startswith("left out: ")]
    for what in ("noise ceiling of", "Eq. 5 of", "single trials beside averages"):
        assert what in line


def test_a_target_of_a_scan_that_the_check_condemns_is_built_with_a_warning(mice, tmp_path, capsys):
    scan = load_scan(mice / "mouse0-scan0.npz")
    responses = np.roll(scan.responses, 1, axis=0)
    responses[:, 3] = 0
    save_scan(replace(scan, responses=responses), tmp_path / "slipped.npz")
    slipped, out = load_scan(tmp_path / "slipped.npz"), tmp_path / "target.safetensors"
    files = ["--scan", tmp_path / "slipped.npz", "--scan", mice / "mouse1-scan0.npz"]
    status, _, err = call(capsys, "target", "build", *files, "--out", out)
    assert status == 0, err
    (warning,) = [line for line in err.splitlines() if line.startswith("warning: ")]
    first, *more = check_scan(slipped).faults
    assert more
    assert (
        warning == f"warning: {tmp_path / 'slipped.npz'}: {first} (and {len(more)} more); see `neuroprior scan check`"
    )
    expected = target_from_scans([slipped, load_scan(mice / "mouse1-scan0.npz")])
    np.testing.assert_array_equal(load_target(out).matrix, expected.matrix)


def test_a_plan_from_a_pilot(mice, capsys):
    asked = ["--neurons", "90", "--neurons", "1000", "--repeats", "10", "--aim", "0.8"]
    status, out, _ = call(capsys, "scan", "plan", mice / "mouse0-scan0.npz", *asked, "--json")
    assert status == 0
    few, many = json.loads(out)["plan"]
    assert few["r"]["1"] < many["r"]["1"] < many["r"]["8"] < 1
    assert few["scans_for_aim"] >= many["scans_for_aim"] >= 1
    assert (few["extrapolated"], many["extrapolated"]) == (False, True)
    status, out, _ = call(capsys, "scan", "plan", mice / "mouse0-scan0.npz", *asked)
    assert "scans for 0.8" in out
    assert "expected correlation with S of all such neurons, free of noise" in out
    marked = [line for line in out.splitlines() if line.lstrip().startswith(("90", "1000"))]
    assert [" * " in line for line in marked] == [False, True]
    assert "* more than 4 times the pilot's 90 neurons" in out
    said = " ".join(call(capsys, "scan", "plan", "--help")[1].split())
    assert "80 neurons or more with weight above 0, 10 images or more with 4 repeats or more" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["simulate", "--out", "x", "--to", "tiff"], "--to tiff: not one of plain"),
        (["simulate", "--out", "x", "--scans", "1", "--animals", "2"], "n_scans"),
        (["convert", "none.npz", "out.npz", "--to", "plain"], "none.npz: no such file or folder"),
        (["stability", "none.npz", "--format", "tiff"], "--format tiff: not one of plain"),
        (["plan", "none.npz", "--format", "tiff"], "--format tiff: not one of plain"),
        (["stability", "none.npz"], "none.npz: no such file or folder"),
        (["plan", "none.npz"], "none.npz: no such file or folder"),
        (["plan", "none.npz", "--aim", "2"], "aim is 2.0; a correlation to reach"),
        (["plan", "none.npz", "--neurons", "0"], "--neurons 0: must be 1 or more"),
        (["simulate", "--out", "x", "--neurons", "0"], "--neurons 0: must be 1 or more"),
        (["check", "none.npz", "--format", "tiff"], "--format tiff: not one of plain"),
        (["convert", "none.npz", "out.h5", "--to", "plain"], "out.h5: a file of format plain ends in .npz"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(capsys, "scan", *arguments)
    assert status == 2
    assert says in err
    assert "Traceback" not in err


def test_nothing_is_written_over_unless_asked(mice, tmp_path, capsys):
    scan, there = mice / "mouse0-scan0.npz", tmp_path / "there.npz"
    there.write_text("mine")
    status, _, err = call(capsys, "scan", "convert", scan, there, "--to", "plain")
    assert status == 2
    assert "is there already; name another place, or give --force" in err
    status, _, err = call(capsys, "scan", "simulate", "--out", mice)
    assert status == 2
    assert "mouse0-scan0.npz: is there already" in err
    status, _, _ = call(capsys, "scan", "convert", scan, there, "--to", "plain", "--force")
    assert status == 0
    assert load_scan(there).name == "mouse0-scan0"


def test_what_stands_beside_recordings_is_left_out(mice, tmp_path, capsys):
    status, out, _ = call(capsys, "scan", "check", *sorted(mice.glob("mouse*")), "--out", tmp_path)
    assert status == 0
    assert "mouse0-scan0-truth: left out, the truth of a simulated scan" in out


def test_a_scan_is_not_written_over_itself(mice, capsys):
    scan = mice / "mouse0-scan0.npz"
    status, _, err = call(capsys, "scan", "convert", scan, scan, "--to", "plain")
    assert status == 2
    assert "is the recording itself; name another file" in err


def test_a_file_that_is_not_there_is_said_in_few_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, out, _ = call(capsys, "scan", "check", "nothere.npz")
    assert status == 1
    assert out.splitlines()[1] == ("  fault: nothere.npz: no such file or folder; give the path of a recording")


def test_a_card_keeps_its_name_whatever_else_is_checked():
    one, same_folder, other = (Path("/data") / folder / "s.npz" for folder in ("a/x", "b/x", "b/y"))
    assert card_names([one]) == ["x-s.npz"]
    assert card_names([other, one]) == ["y-s.npz", "x-s.npz"]  # in whatever place of the call
    assert card_names([one, same_folder]) == ["a-x-s.npz", "b-x-s.npz"]
    assert card_names([one, one]) == ["x-s.npz", "x-s.npz"]  # one recording, one card
    assert card_names([Path("/s.npz"), Path("/a/s.npz")]) == ["s.npz", "a-s.npz"]


def test_options_of_a_file_with_several_series_reach_the_reader(mice, tmp_path, capsys):
    scan, out = mice / "mouse0-scan0.npz", tmp_path / "t.safetensors"
    for command in (
        ["scan", "stability", scan],
        ["scan", "plan", scan],
        ["target", "build", "--scan", scan, "--out", out],
    ):
        status, _, err = call(capsys, *command, "--module", "ophys")
        assert status == 2
        assert "format plain has one set of responses; leave out module and series" in err
        status, _, err = call(capsys, *command, "--format", "nat60k")
        assert status == 2
        assert "field 'ss_all' is missing" in err


def test_stability_of_scans_without_common_images_is_refused_before_the_work(mice, tmp_path, capsys):
    scan = load_scan(mice / "mouse0-scan0.npz")
    other = Stimuli(np.char.add("other-", scan.stimuli.ids), scan.stimuli.pixels)
    save_scan(replace(scan, stimuli=other, name="stranger"), tmp_path / "stranger.npz")
    files = [mice / "mouse1-scan0.npz", tmp_path / "stranger.npz"]
    for more in ([], ["--intersection"]):
        status, _, err = call(capsys, "scan", "stability", *files, *more, "--out", tmp_path / "page")
        assert status == 2
        assert "scan 0 (mouse1-scan0) and scan 1 (stranger) have no image ids in common" in err
    ids = scan.stimuli.ids.copy()
    ids[-1] = "another"
    save_scan(replace(scan, stimuli=Stimuli(ids, scan.stimuli.pixels), name="near"), tmp_path / "near.npz")
    files = [mice / "mouse1-scan0.npz", tmp_path / "near.npz"]
    status, _, err = call(capsys, "scan", "stability", *files, "--out", tmp_path / "page")
    assert status == 2
    assert "scan 1 (near) lacks 1 of the 20 images of scan 0 (mouse1-scan0)" in err
    assert "--intersection" in err


def test_a_range_that_is_one_number_is_not_said():
    assert said_range([0.4671, 0.4674]) == ""
    assert said_range([0.4671, 0.4684]) == ", scans from 0.467 to 0.468"


def test_neurons_that_noise_leaves_silent_are_counted(tmp_path, capsys):
    made = ["--out", tmp_path, "--neurons", "300", "--repeats", "2", "--snr", "0.02"]
    status, out, _ = call(capsys, "scan", "simulate", *made)
    assert status == 0
    silent = int(np.count_nonzero(~load_scan(tmp_path / "mouse0-scan0.npz").responses.any(axis=0)))
    assert silent > 0
    assert f"note: {silent} neuron" in out


@pytest.mark.parametrize("command", ["scan", "target"])
def test_what_a_command_does_is_not_cut_in_the_list_of_commands(capsys, command):
    listed = call(capsys, command, "--help")[1].partition("Commands:")[2].splitlines()[1:]
    assert len(listed) >= 3
    assert all(line.endswith(".") and not line.endswith("...") for line in listed if line.strip())
    assert "(Eq." not in "".join(listed)
