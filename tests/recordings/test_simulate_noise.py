"""The simulated noise: private, of the variance asked for, and counts where counts are asked for."""

import numpy as np
import pytest

from neuroprior.recordings import Noise
from neuroprior.recordings.simulate.noise import count_unit, draw_trials, private_noise
from neuroprior.types import InputError

FANO = np.array([0.2, 0.9, 1.0, 3.0, 8.0], dtype=np.float32)


@pytest.mark.parametrize("kind", ["gamma", "negative_binomial"])
def test_trials_have_the_mean_and_a_variance_in_proportion_to_it(kind):
    for rate in (0.5, 4.0):
        rates = np.full((40_000, 5), rate, dtype=np.float32)
        trials = draw_trials(kind, rates, FANO, np.random.default_rng(0)).astype(np.float64)
        assert (rates == rate).all()  # the caller's own array
        np.testing.assert_allclose(trials.mean(axis=0), rate, atol=5 * np.sqrt(8 * rate / 40_000))
        np.testing.assert_allclose(trials.var(axis=0), FANO * rate, rtol=0.12)
        assert (trials >= 0).all()


def test_negative_binomial_responses_are_counts_and_gamma_ones_are_not():
    rates = np.full((1000, 5), 2.0, dtype=np.float32)
    unit = count_unit(FANO)
    np.testing.assert_allclose(unit, [0.2, 0.9, 1, 1, 1])
    counts = draw_trials("negative_binomial", rates, FANO, np.random.default_rng(0)) / unit
    np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    continuous = draw_trials("gamma", rates, FANO, np.random.default_rng(0)) / unit
    assert np.abs(continuous - continuous.round()).mean() > 0.1


def test_private_noise_fills_what_behaviour_leaves_of_the_noise_drawn():
    signal, mean = np.array([1.0, 1.0, 1.0, 0.0]), np.array([2.0, 2.0, 2.0, 2.0])
    outer = np.array([0.0, 3.0, 30.0, 0.5])
    weights, fano = private_noise(signal, outer, mean, np.full(4, 0.5))
    np.testing.assert_allclose(weights.snr[:2], 0.5)  # eta^2 = 4, whoever makes it
    np.testing.assert_allclose(fano[:2], [2.0, 0.5])
    np.testing.assert_allclose(weights.noise_variance[2], 30 + 0.01 * 4)  # a floor, and less than was drawn
    assert weights.snr[2] < 0.2
    np.testing.assert_allclose((weights.snr[3], fano[3]), (0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shared": 1.5}, "shared is 1.5; it must be between 0 and 1"),
        ({"shared_rank": 0}, "shared_rank is 0; it must be 1 or more"),
    ],
)
def test_noise_out_of_range_is_said(options, message):
    with pytest.raises(InputError, match=message):
        Noise(**options)


def test_another_kind_of_noise_is_said(shapes_unchecked):
    with pytest.raises(InputError, match="kind is poisson; it must be gamma or negative_binomial"):
        Noise(kind="poisson")
