"""Simulated single trials of a twin's rates: their mean, their noise, their weights."""

from dataclasses import replace

import numpy as np
import pytest

from neuroprior.recordings import load_stimuli, simulated_recording_target, single_trials
from neuroprior.similarity import target_from_population
from neuroprior.types import InputError, Population, Stimuli


@pytest.fixture
def rates() -> Population:
    """Four hundred images, eighty neurons, the first hundred images being the oracle's."""
    random = np.random.default_rng(0)
    mean = random.gamma(1.0, 1.0, (400, 80)) * np.exp(random.standard_normal(80)) + 0.05
    ids = np.array([f"image-{k:03d}" for k in range(400)])
    return Population(ids, mean.astype(np.float32), np.full(80, 7, dtype=np.float32), "twin")


def test_one_neuron_s_trials_have_its_rate_and_variance_in_proportion(rates):
    """E r = rho and Var r = c rho: seen where every image has the same rate, and not where the noise is large."""
    flat = replace(rates, mean=np.tile(rates.mean[:100].mean(axis=0), (4000, 1)).astype(np.float32),
                   image_ids=np.array([f"i{k}" for k in range(4000)]))  # fmt: skip
    two_levels = replace(flat, mean=np.where(np.arange(4000)[:, None] % 2, 2, 1).astype(np.float32) * flat.mean)
    trials = single_trials(two_levels, oracle_ids=two_levels.image_ids[:100], seed=1).mean
    low, high = trials[::2], trials[1::2]
    assert np.allclose(low.mean(axis=0) / flat.mean[0], 1, atol=0.25)
    assert np.median(high.mean(axis=0) / low.mean(axis=0)) == pytest.approx(2, rel=0.03)
    assert np.median(high.var(axis=0) / low.var(axis=0)) == pytest.approx(2, rel=0.1)


def test_weights_are_what_repeats_say_of_the_reliability_asked_for(rates):
    """Log-normal about the median, upwards by the noise that 10 repeats leave in sigma: sqrt(w^2 + 1/10) or so."""
    oracle = rates.image_ids[:100]
    one = single_trials(rates, oracle_ids=oracle, seed=3, snr_median=0.5, snr_spread=0.0).weights
    assert np.median(one) == pytest.approx(np.sqrt((0.25 + 0.1) / 0.9), rel=0.1)  # ddof 0: noise is 9/10 of itself
    spread = single_trials(rates, oracle_ids=oracle, seed=3).weights
    assert np.log(spread).std() > 2 * np.log(one).std()
    better = single_trials(rates, oracle_ids=oracle, seed=3, snr_median=2.0, snr_spread=0.0).weights
    assert np.median(better) == pytest.approx(2, rel=0.15)
    assert set(rates.weights.tolist()) == {7.0}  # what the twin knew plays no part


def test_the_seed_decides_and_the_source_stays(rates):
    one, same, other = (single_trials(rates, oracle_ids=rates.image_ids[:100], seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.mean, same.mean)
    assert not np.array_equal(one.mean, other.mean)
    assert one.source == "twin"
    assert one.mean.dtype == np.float32
    assert (one.mean >= 0).all()


def test_less_noise_brings_the_target_back_to_the_rates(rates):
    stimuli = Stimuli(rates.image_ids[100:], np.random.default_rng(5).integers(0, 256, (300, 4, 4)).astype(np.uint8))
    clean = target_from_population(replace(rates.select(stimuli.ids), weights=np.ones(80, dtype=np.float32)), stimuli)
    pairs = np.triu_indices(300, 1)

    def agreement(snr: float) -> float:
        noisy = simulated_recording_target(
            rates, stimuli, rates.image_ids[:100], seed=0, snr_median=snr, snr_spread=0.0
        )
        return float(np.corrcoef(noisy.matrix[pairs], clean.matrix[pairs])[0, 1])

    at = [agreement(snr) for snr in (0.3, 1.0, 30.0)]
    assert at[0] < 0.5 * at[1]
    assert at[1] < at[2]
    assert at[2] > 0.99


def test_the_target_says_that_it_is_no_recording(rates):
    stimuli = Stimuli(rates.image_ids[100:], np.zeros((300, 4, 4), dtype=np.uint8))
    target = simulated_recording_target(rates, stimuli, rates.image_ids[:100], seed=4)
    assert (len(target), target.source) == (300, "twin")
    assert target.details["responses"] == "simulated single trials of the twin's rates, not a recording"
    assert target.details["noise_seed"] == 4
    assert "10 simulated repeats of 100 images" in target.details["weights"]
    assert target.stimuli_digest == stimuli.digest


def test_bad_numbers_are_said(rates):
    oracle = rates.image_ids[:100]
    for options, says in (
        ({"seed": -1}, "seed is -1"),
        ({"n_repeats": 1}, "n_repeats is 1"),
        ({"snr_median": 0.0}, "snr_median is 0.0"),
        ({"snr_spread": -1.0}, "snr_spread is -1.0"),
        ({"oracle_ids": oracle[:1]}, "oracle_ids is 1"),
        ({"oracle_ids": np.array(["a", "b"])}, "2 of 2 images are not among these 400 (first: 'a')"),
    ):
        with pytest.raises(InputError) as error:
            single_trials(rates, **{"oracle_ids": oracle, "seed": 0, **options})
        assert says in str(error.value)
    silent = replace(rates, mean=np.where(np.arange(80) == 3, 0, rates.mean).astype(np.float32))
    with pytest.raises(InputError, match="the rate of neuron 3 to 'image-000' is 0"):
        single_trials(silent, oracle_ids=oracle, seed=0)


def test_the_real_twin_s_trials_still_know_its_similarities(data):
    """On 100 photographs: weights as in mouse V1 (a median of 0.6), S noisier than the rates' but of the same order."""
    from neuroprior.twin import load_twin, predict_population

    photographs = load_stimuli(data("stimuli/tiny_imagenet_36x64.npz"), tier="oracle")
    rates = predict_population(load_twin(data("twins/sensorium2022_26872-17-20_sota.pth")), photographs)
    trials = single_trials(rates, oracle_ids=photographs.ids, seed=0)
    assert 0.4 < np.median(trials.weights) < 0.8
    noisy = simulated_recording_target(rates, photographs, photographs.ids, seed=0)
    pairs = np.triu_indices(100, 1)
    clean = target_from_population(rates, photographs).matrix[pairs]
    assert 0.5 < np.corrcoef(noisy.matrix[pairs], clean)[0, 1] < 0.99
