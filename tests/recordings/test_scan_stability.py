"""Figure 1 for anyone's scans: the averages are stabler than single trials, and nearer the truth with every repeat."""

import dataclasses

import numpy as np
import pytest

from neuroprior.recordings import growth_with_repeats, packaged_photographs, scan_stability, simulate_scan
from neuroprior.similarity import (
    oracle_similarity,
    oracle_trials,
    repeat_fluctuation,
    scan_fluctuation,
    target_from_population,
)
from neuroprior.types import InputError

SHOWN = packaged_photographs(n_train=2, n_oracle=30)
ORACLE = SHOWN.ids[2:]


@pytest.fixture(scope="module")
def mice():
    return [
        simulate_scan(SHOWN, ORACLE, n_neurons=150, n_repeats=6, seed=2, animal=k, name=f"mouse{k}") for k in range(3)
    ]


@pytest.fixture(scope="module")
def found(mice):
    return scan_stability([mouse.scan for mouse in mice], truths=[mouse.truth for mouse in mice])


def test_scans_are_matched_by_image(mice, found):
    assert found.names == ("mouse0", "mouse1", "mouse2")
    assert set(found.stimuli.ids.tolist()) == set(ORACLE.tolist())
    assert found.oracle.shape == (3, 30, 30)
    assert found.over_scans.shape == (3, 30 * 29 // 2)
    np.testing.assert_allclose(found.over_scans.mean(axis=0), 0, atol=1e-6)


def test_averages_move_less_than_single_trials(found):
    assert found.over_scans.std() < found.single_over_scans.std()
    assert found.over_scans.std() < found.over_repeats.std()


def test_truth_is_nearer_than_another_mouse_and_a_trial_inside_seems_better_than_it_is(found):
    r = {name: np.mean(values) for name, values in found.correlations().items()}
    assert r["truth"] > r["mean of the other scans"]
    assert r["truth"] > r["single trial, inside the average"] > r["single trial, apart from the average"]


def test_a_model_is_one_of_all_scans_or_one_of_each(mice, found):
    scans = [mouse.scan for mouse in mice]
    own = [target_from_population(mouse.truth.select(ORACLE), SHOWN.select(ORACLE)) for mouse in mice]
    both = scan_stability(scans, {"each": own, "first": own[0]})
    assert both.models["each"].shape == both.models["first"].shape == (3, 30, 30)
    r = both.correlations()
    assert r["each"] == pytest.approx(found.correlations()["truth"], abs=1e-6)
    assert r["first"][0] == pytest.approx(r["each"][0])
    assert r["first"][1] < r["each"][1]
    with pytest.raises(InputError, match="each: 2 targets for 3 scans; give one for all, or one a scan"):
        scan_stability(scans, {"each": own[:2]})


@pytest.mark.parametrize("name", ["truth", "mean of the other scans", "single trial, inside the average"])
def test_a_model_takes_no_name_of_what_is_always_compared(mice, name):
    target = target_from_population(mice[0].truth.select(ORACLE), SHOWN.select(ORACLE))
    with pytest.raises(InputError, match=f"a model is called '{name}', as what is always compared; rename it"):
        scan_stability([mice[0].scan], {name: target})


def test_the_spread_over_repeats_is_said_of_each_scan(mice, found):
    for mouse, sd in zip(mice, found.repeats_sd, strict=True):
        assert sd == pytest.approx(np.asarray(repeat_fluctuation(*oracle_trials(mouse.scan))).std(), rel=1e-5)


def test_more_repeats_come_nearer_the_truth(mice, found):
    grown = growth_with_repeats(mice[0].scan, found.truths[0], found.stimuli.ids)
    assert [t for t, _ in grown] == [1, 2, 3, 4, 5, 6]
    r = [r for _, r in grown]
    assert r[-1] > r[2] > r[0]
    assert r[-1] == pytest.approx(found.correlations()["truth"][0], abs=1e-6)


def test_models_are_asked_for_the_same_images(mice, found):
    target = target_from_population(mice[0].truth_for("oracle"), SHOWN)
    with_model = scan_stability([mice[0].scan], {"twin": target})
    assert with_model.over_scans is None
    np.testing.assert_allclose(with_model.models["twin"], found.truths[:1], atol=1e-5)
    train = target_from_population(mice[0].truth_for("train"), SHOWN)
    with pytest.raises(InputError, match=r"twin: .* 30 of 30 images are not among .* \(--tier oracle\)"):
        scan_stability([mice[0].scan], {"twin": train})


def test_scans_of_other_images(mice):
    other = simulate_scan(SHOWN, ORACLE[:-3], n_neurons=60, n_repeats=4, seed=2, name="fewer").scan
    with pytest.raises(InputError, match="lacks 3 of the 30 images"):
        scan_stability([mice[0].scan, other])
    common = scan_stability([mice[0].scan, other], missing="intersection")
    assert len(common.stimuli) == 27


def shown_so_often(scan, repeats, image=None):
    """The scan with the first trials of each oracle image, or of one, alone."""
    nth = np.zeros(len(scan.tier), dtype=int)
    for one in np.unique(scan.trial_image):
        trials = scan.trial_image == one
        nth[trials] = np.arange(trials.sum())
    fewer = np.ones(len(nth), dtype=bool) if image is None else scan.trial_ids == image
    kept = np.flatnonzero(~(fewer & (scan.tier == "oracle") & (nth >= repeats)))
    rows = {
        name: getattr(scan, name)[kept] for name in ("trial_image", "responses", "tier", "behavior", "pupil_center")
    }
    return dataclasses.replace(scan, **rows)


@pytest.mark.parametrize("repeats", [2, 3, 4])
def test_what_few_repeats_do_not_say_is_left_out_and_the_rest_is_as_ever(mice, found, repeats):
    scans = [shown_so_often(mouse.scan, repeats) for mouse in mice]
    few = scan_stability(scans, truths=[mouse.truth for mouse in mice])
    given = [oracle_trials(scan) for scan in scans]
    for scan, matrix in zip(given, few.oracle, strict=True):
        np.testing.assert_allclose(matrix, oracle_similarity(*scan)[1], atol=1e-6)
    np.testing.assert_allclose(few.over_scans, scan_fluctuation(few.oracle), atol=1e-6)
    fluctuations = np.concatenate([repeat_fluctuation(*scan) for scan in given])
    if repeats == 2:
        assert not fluctuations.any()  # so that a distribution of them would seem perfect repeats
        assert few.over_repeats is None
    else:
        np.testing.assert_allclose(few.over_repeats, fluctuations, atol=1e-6)
    assert (few.single is None) == (few.others is None) == (few.single_over_scans is None) == (repeats < 3)
    assert ("single trial, inside the average" in few.correlations()) == (repeats >= 3)
    assert all((ceiling is None) == (repeats < 4) for ceiling in few.ceilings)
    assert len(few.not_computed) == {2: 3, 3: 1, 4: 0}[repeats]
    assert ("noise ceiling of mouse0, mouse1, mouse2 (needs 3 images with 4 trials)" in few.not_computed) == (
        repeats < 4
    )
    assert np.mean(few.correlations()["truth"]) < np.mean(found.correlations()["truth"])


def test_one_image_shown_twice_is_named_and_costs_single_trials_alone(mice, found):
    scans = [mouse.scan for mouse in mice]
    scans[1] = shown_so_often(scans[1], 2, str(ORACLE[7]))
    few = scan_stability(scans)
    assert few.single is few.others is few.single_over_scans is None
    (said,) = few.not_computed
    assert said.endswith(f"need 3 trials of an image; mouse1 has 2 of {str(ORACLE[7])!r})")
    assert len(found.over_repeats) - len(few.over_repeats) == 6 * 5 / 2  # its one pair says nothing
    assert None not in few.ceilings


@pytest.mark.parametrize("repeats", [0, 1])
def test_without_repeats_there_is_no_stability(mice, repeats):
    if repeats:
        scan = shown_so_often(mice[0].scan, repeats)
    else:
        scan = dataclasses.replace(mice[0].scan, tier=np.full(len(mice[0].scan.tier), "train"))
    with pytest.raises(
        InputError, match=r"scan mouse0, oracle trials: reliability: 0 of .* images have 2 or more trials"
    ):
        scan_stability([scan])


def test_faults_name_the_scan(mice):
    scan = mice[0].scan
    with pytest.raises(InputError, match="no scan given"):
        scan_stability([])
    with pytest.raises(InputError, match="1 truths for 2 scans"):
        scan_stability([scan, scan], truths=[mice[0].truth])
    trained = dataclasses.replace(scan, tier=np.full(len(scan.tier), "train"), name="untested")
    with pytest.raises(InputError, match="scan untested"):
        scan_stability([trained])
