"""Figure 1 for anyone's scans: the averages are stabler than single trials, and nearer the truth with every repeat."""

import dataclasses

import numpy as np
import pytest

from neuroprior.recordings import growth_with_repeats, packaged_photographs, scan_stability, simulate_scan
from neuroprior.similarity import target_from_population
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
    np.testing.assert_allclose(with_model.models["twin"], found.truths[0], atol=1e-5)
    train = target_from_population(mice[0].truth_for("train"), SHOWN)
    with pytest.raises(InputError, match=r"twin: .* 30 of 30 images are not among .* \(--tier oracle\)"):
        scan_stability([mice[0].scan], {"twin": train})


def test_scans_of_other_images(mice):
    other = simulate_scan(SHOWN, ORACLE[:-3], n_neurons=60, n_repeats=4, seed=2, name="fewer").scan
    with pytest.raises(InputError, match="lacks 3 of the 30 images"):
        scan_stability([mice[0].scan, other])
    common = scan_stability([mice[0].scan, other], missing="intersection")
    assert len(common.stimuli) == 27


def test_faults_name_the_scan(mice):
    scan = mice[0].scan
    with pytest.raises(InputError, match="no scan given"):
        scan_stability([])
    with pytest.raises(InputError, match="1 truths for 2 scans"):
        scan_stability([scan, scan], truths=[mice[0].truth])
    trained = dataclasses.replace(scan, tier=np.full(len(scan.tier), "train"), name="untested")
    with pytest.raises(InputError, match="scan untested"):
        scan_stability([trained])
