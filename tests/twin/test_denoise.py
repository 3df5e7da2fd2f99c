"""Twins of several scans or folds as one: who predicts what, and what is said of the weights."""

from dataclasses import replace

import numpy as np
import pytest
from test_saved import NEURONS, SIZE, made_twin

from neuroprior.twin import CrossfitTwin, score_denoiser, target_from_twin
from neuroprior.twin.evaluate import correlation, predict_trials
from neuroprior.twin.fit.trials import fold_of
from neuroprior.types import InputError, Scan, Stimuli


@pytest.fixture
def scan() -> Scan:
    rng = np.random.default_rng(0)
    image = np.concatenate([np.arange(30), np.repeat(np.arange(30, 34), 3)])
    return Scan(
        "mouse",
        Stimuli(np.array([f"image-{k:02d}" for k in range(34)]), rng.integers(0, 256, (34, *SIZE), dtype=np.uint8)),
        image,
        rng.gamma(2.0, size=(len(image), NEURONS)).astype(np.float32),
        np.where(image < 30, "train", "oracle"),
        behavior=rng.standard_normal((len(image), 2)).astype(np.float32),
        behavior_names=("pupil size", "speed"),
        pupil_center=rng.standard_normal((len(image), 2)).astype(np.float32),
    )


@pytest.mark.parametrize("tier", ["train", "oracle"])
def test_a_crossfit_is_scored_on_what_its_models_did_not_see(scan, tier):
    folds = CrossfitTwin((made_twin(seed=0), made_twin(seed=1), made_twin(seed=2)), seed=3)
    trials = np.flatnonzero(scan.tier == tier)
    each = np.stack([predict_trials(member, scan, trials) for member in folds.folds])
    fold = fold_of(scan.stimuli.ids, 3, 3)[scan.trial_image[trials]]
    wanted = each.mean(axis=0) if tier == "oracle" else each[fold, np.arange(len(trials))]
    found = score_denoiser(folds, scan, tier)
    assert found.tier == tier
    assert found.n_trials == len(trials)
    responses = scan.responses[trials].astype(np.float64)
    assert np.allclose(found.single_trial, correlation(wanted.astype(np.float64), responses), atol=1e-5)
    with pytest.raises(InputError, match="0 trials of tier validation"):
        score_denoiser(folds, scan, "validation")


def test_a_mean_of_twins_says_whose_neurons_are_weighted(scan):
    both = target_from_twin([made_twin("one"), made_twin("two", weights=False)], scan.stimuli)
    assert both.details["weights"] == (
        "one: w v (Eq. 1, 6); two: 1 for every neuron (ready-made twin: no recording, so no w and v)"
    )
    assert both.details["twins"] == "one, two"
    alike = target_from_twin([made_twin("one"), made_twin("two", seed=1)], scan.stimuli)
    assert alike.details["weights"] == "w v (Eq. 1, 6)"


def test_weights_that_are_all_0_are_refused(scan):
    blind = replace(made_twin("blind"), accuracy=np.zeros(NEURONS, dtype=np.float32))
    with pytest.raises(InputError, match="twin blind: the weights of all neurons are 0"):
        target_from_twin(blind, scan.stimuli)
    assert target_from_twin(blind, scan.stimuli, weighting="snr").n_scans == 1
