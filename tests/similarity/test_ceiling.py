"""The noise ceiling: where it must go, that its interval holds the truth, and what it must not depend on."""

import numpy as np
import pytest
import torch

from neuroprior.similarity import NoiseCeiling, ceiling, noise_ceiling, oracle_similarity
from neuroprior.types import InputError

IMAGES, NEURONS = 14, 20


def recording(seed: int, noise: float, repeats: int = 8, signal_seed: int = 0):
    """Trials of one population that hears few features of the images, as real ones do."""
    few = np.random.default_rng(signal_seed)
    signal = few.standard_normal((IMAGES, 4)) @ few.standard_normal((4, NEURONS))
    ids = np.repeat(np.arange(IMAGES), repeats)
    return signal[ids] + noise * np.random.default_rng(seed).standard_normal((len(ids), NEURONS)), ids, np.ones(NEURONS)


def agreement(noise: float, repeats: int = 8, draws: int = 12, signal_seed: int = 0) -> float:
    """What the ceiling estimates: the correlation of one recording's S with that of as many new trials."""
    off = np.triu_indices(IMAGES, 1)
    s = [oracle_similarity(*recording(1000 + k, noise, repeats, signal_seed))[1][off] for k in range(draws)]
    return float(np.mean(np.corrcoef(s)[np.triu_indices(draws, 1)]))


def test_it_tends_to_1_as_noise_goes_to_0_and_to_0_as_signal_does():
    few = {"n_splits": 4, "n_resamples": 10}
    means = [noise_ceiling(*recording(0, noise), 0, **few).mean for noise in (0.0, 0.3, 3.0, 12.0)]
    assert means[0] == pytest.approx(1, abs=1e-9)
    assert means[0] > means[1] > 0.98 > means[2] > means[3]
    noise_only = [noise_ceiling(*recording(k, 1e6), 0, **few).mean for k in range(10)]
    assert abs(np.mean(noise_only)) < 0.1


@pytest.mark.parametrize("resampled", ["images", "neurons", "both"])
def test_the_interval_holds_the_truth(resampled):
    """A 95 % interval may miss now and then: of 6 recordings of this truth, not more than once."""
    truth = agreement(3.0)
    assert 0.8 < truth < 0.9
    found = [noise_ceiling(*recording(k, 3.0), k, resampled=resampled, n_splits=4, n_resamples=25) for k in range(6)]
    assert sum(one.low <= truth <= one.high for one in found) >= 5
    assert np.mean([one.mean for one in found]) == pytest.approx(truth, abs=0.03)
    for one in found:
        assert one.low < one.mean < one.high
        assert one.high - one.low < 0.7
        assert one.resampled == resampled


def test_more_trials_more_ceiling_and_halving_is_corrected_for():
    four, sixteen = (noise_ceiling(*recording(1, 4.0, t), 0, n_splits=8, n_resamples=4).mean for t in (4, 16))
    assert four < sixteen - 0.1
    # two halves agree as recordings of 8 trials do, and that is less
    truth = {t: agreement(4.0, t) for t in (8, 16)}
    assert truth[8] < truth[16] - 0.05
    estimates = [noise_ceiling(*recording(k, 4.0, 16), 0, n_splits=5, n_resamples=2).mean for k in range(8)]
    assert abs(np.mean(estimates) - truth[16]) < abs(np.mean(estimates) - truth[8])


def test_endless_trials_reach_the_best_model_and_responses_without_noise_need_not():
    off = np.triu_indices(IMAGES, 1)
    best = np.mean([noise_ceiling(*recording(k, 3.0), 0, n_splits=5, n_resamples=2).best_model for k in range(8)])
    endless = oracle_similarity(*recording(99, 3.0, 400))[1][off]
    clean = oracle_similarity(*recording(99, 0.0))[1][off]
    reached = [
        np.mean([np.corrcoef(one, oracle_similarity(*recording(k, 3.0))[1][off])[0, 1] for k in range(8)])
        for one in (endless, clean)
    ]
    assert reached[0] == pytest.approx(best, abs=0.03)
    assert reached[1] < reached[0]  # each trial is made as long as any other: noise shrinks weak images most
    assert NoiseCeiling(-0.1, -0.3, 0.2, "both", 9, 9, 1, 2).best_model == 0


def test_an_image_drawn_twice_counts_twice_and_is_no_pair_with_itself():
    rng = np.random.default_rng(0)
    x, y = (np.round(rng.uniform(-1, 1, (6, 6)), 3) for _ in range(2))
    drawn = np.array([0, 1, 1, 4, 4, 5])
    i, j = np.triu_indices(6, 1)
    different = drawn[i] != drawn[j]
    a, b = (m[np.minimum(drawn[i], drawn[j]), np.maximum(drawn[i], drawn[j])][different] for m in (x, y))
    times = np.bincount(drawn, minlength=6)
    found = ceiling._correlation(x[i, j], y[i, j], times[i] * times[j])
    assert found == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)


def test_a_neuron_drawn_twice_is_one_of_root_two_the_weight():
    r, ids, w = recording(3, 1.0)
    drawn = np.random.default_rng(0).integers(NEURONS, size=NEURONS)
    twice = np.sqrt(np.bincount(drawn, minlength=NEURONS))
    expected = oracle_similarity(r[:, drawn], ids, w)[1]
    np.testing.assert_allclose(oracle_similarity(r, ids, twice)[1], expected, atol=1e-12)


def test_spearman_and_brown():
    assert ceiling._of_all_trials(np.arctanh(0.5)) == pytest.approx(2 / 3)
    assert ceiling._of_all_trials(0.0) == 0
    r = np.linspace(-0.999, 0.999, 50)
    corrected = [ceiling._of_all_trials(z) for z in np.arctanh(r)]
    assert (np.diff(corrected) > 0).all()
    assert np.abs(corrected).max() <= 1


def test_same_seed_same_numbers_same_for_torch():
    r, ids, w = recording(4, 2.0)
    few = {"n_splits": 2, "n_resamples": 5}
    found = noise_ceiling(r, ids, w, 1, **few)
    assert noise_ceiling(torch.from_numpy(r), torch.from_numpy(ids), torch.from_numpy(w), 1, **few) == found
    assert noise_ceiling(r, ids, 9 * w, 1, **few).mean == pytest.approx(found.mean)
    assert noise_ceiling(r, ids, w, 2, **few) != found
    assert (found.n_images, found.n_neurons, found.n_splits, found.n_resamples) == (IMAGES, NEURONS, 2, 5)


def test_what_cannot_be_used_is_said_in_one_line(shapes_unchecked):
    r, ids, w = recording(5, 1.0)
    cases = [
        ({"resampled": "trials"}, (r, ids, w), "resampled 'trials' is not one of images, neurons, both"),
        ({"n_resamples": 1}, (r, ids, w), "20 splits and 1 resamples; give at least 1 and 2"),
        ({}, (r[:16], ids[:16], w), "2 images have 4 or more trials; a correlation of pairs needs 3"),
        ({}, (r[::3], ids[::3], w), "0 of 14 images have 4 or more trials"),
        ({}, (r, ids, 0 * w), "all weights are 0"),
    ]
    for options, arguments, message in cases:
        with pytest.raises(InputError) as error:
            noise_ceiling(*arguments, 0, **options)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
