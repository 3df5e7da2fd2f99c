"""Eq. 1: what the SNR weights must do, whoever computes them."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroprior.recordings import STILL, Noise, packaged_photographs, simulate_scan
from neuroprior.reliability import (
    measure_reliability,
    neuron_weights,
    oracle_correlation,
    scan_reliability,
    snr_weights,
)
from neuroprior.types import InputError, Scan, Stimuli
from reference.reliability import slow_oracle_correlation, slow_snr, slow_variances

CORRECTIONS = ("none", "unbiased")


def recording(seed: int = 0, repeats: tuple[int, ...] = (2, 5, 3, 8, 4), neurons: int = 6):
    """Unequal repeats, shuffled trials, neurons that differ in scale and reliability."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat([f"image-{i}" for i in range(len(repeats))], repeats))
    _, image = np.unique(ids, return_inverse=True)
    signal = rng.gamma(1.0, 1.0, (len(repeats), neurons))
    noise = rng.standard_normal((len(ids), neurons)) * np.linspace(0.2, 2.0, neurons)
    return ((signal[image] + noise) * 10.0 ** rng.integers(-2, 3, neurons)).astype(np.float32), ids


def test_a_case_worked_by_hand():
    # image a: 1, 3 (mean 2, variance 1); image b: 4, 8 (mean 6, variance 4): sigma^2 = 4, eta^2 = 2.5
    responses = np.array([[1.0], [4.0], [3.0], [8.0]])
    ids = np.array(["a", "b", "a", "b"])
    np.testing.assert_allclose(snr_weights(responses, ids), [np.sqrt(4 / 2.5)])
    # ddof 1: sigma^2 = 8 - 5 / 2, eta^2 = 5
    np.testing.assert_allclose(snr_weights(responses, ids, "unbiased"), [np.sqrt(5.5 / 5)])


@settings(max_examples=60, deadline=None)
@given(
    repeats=st.lists(st.integers(1, 5), min_size=2, max_size=7).filter(lambda r: sum(t >= 2 for t in r) >= 2),
    neurons=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    correction=st.sampled_from(CORRECTIONS),
)
def test_agrees_with_the_slow_reference(repeats, neurons, seed, correction):
    responses, ids = recording(seed, tuple(repeats), neurons)
    found = measure_reliability(responses, ids, correction)
    signal, noise = slow_variances(responses, ids.tolist(), correction)
    np.testing.assert_allclose(found.weights.signal_variance, signal, rtol=1e-9, atol=1e-12 * np.max(noise))
    np.testing.assert_allclose(found.weights.noise_variance, noise, rtol=1e-9)
    # a clipped variance may be 0 in one and a rounding error in the other: hence the absolute tolerance
    np.testing.assert_allclose(
        snr_weights(responses, ids, correction), slow_snr(responses, ids.tolist(), correction), rtol=1e-8, atol=1e-5
    )
    assert found.n_left_out == sum(t == 1 for t in repeats)
    assert found.n_images == sum(t >= 2 for t in repeats)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_what_the_weights_do_not_depend_on(correction):
    responses, ids = recording()
    weights = snr_weights(responses, ids, correction)
    rng = np.random.default_rng(1)
    trials = rng.permutation(len(ids))
    neurons = rng.permutation(responses.shape[1])
    np.testing.assert_allclose(snr_weights(responses[trials], ids[trials], correction), weights, rtol=1e-12)
    np.testing.assert_allclose(snr_weights(responses[:, neurons], ids, correction), weights[neurons], rtol=1e-12)
    gains = 10.0 ** rng.uniform(-6, 6, responses.shape[1])
    np.testing.assert_allclose(snr_weights(responses * gains, ids, correction), weights, rtol=1e-9)
    np.testing.assert_allclose(snr_weights(responses.astype(np.float64) + 7, ids, correction), weights, rtol=1e-6)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_what_they_do_depend_on(correction):
    responses, ids = recording(repeats=(10,) * 20)
    weights = snr_weights(responses, ids, correction)
    # trials handed to other images: the signal goes, what is left is the weight of pure noise
    mixed = snr_weights(responses, np.random.default_rng(1).permutation(ids), correction)
    assert mixed.mean() < 0.6 * weights.mean()
    # one neuron's trials alone say nothing of the others
    louder = responses.copy()
    louder[:, 0] += np.random.default_rng(2).standard_normal(len(ids)).astype(np.float32) * responses[:, 0].std() * 3
    changed = snr_weights(louder, ids, correction)
    assert changed[0] < weights[0]
    np.testing.assert_array_equal(changed[1:], weights[1:])


def test_pure_noise_is_worth_one_over_root_t_minus_one_as_printed_and_next_to_nothing_unbiased():
    rng = np.random.default_rng(0)
    responses = rng.gamma(2.0, 1.0, (100 * 10, 400))
    ids = np.repeat(np.arange(100), 10)
    assert snr_weights(responses, ids).mean() == pytest.approx(1 / 3, rel=0.02)
    unbiased = snr_weights(responses, ids, "unbiased")
    assert np.square(unbiased).mean() < 0.012  # zero but for the clipping at 0 of an estimate with spread 0.015
    assert np.mean(unbiased == 0) == pytest.approx(0.5, abs=0.1)


def oracle_session(n_repeats: int, seed: int = 0, snr_median: float = 0.5):
    shown = packaged_photographs("oracle", n_oracle=60)
    # private noise alone: true weights are then exactly as log-normal as drawn, which the inflation below rests on
    private = {"behaviour": STILL, "noise": Noise(shared=0.0)}
    return simulate_scan(
        shown, shown.ids, n_neurons=200, n_repeats=n_repeats, seed=seed, snr_median=snr_median, **private
    )


def test_the_weights_tend_to_the_truth_as_repeats_grow():
    error = {}
    for n_repeats in (5, 40, 640):
        session = oracle_session(n_repeats)
        measured = scan_reliability(session.scan).weights.snr
        error[n_repeats] = np.median(np.abs(np.log(measured / session.true_weights.snr)))
    assert error[5] > 3 * error[40] > 6 * error[640]
    assert error[640] < 0.03


def test_unbiased_variances_are_unbiased_at_ten_repeats_and_the_printed_ones_are_not():
    n, repeats = 60, 10
    signal: dict[str, list[float]] = {"none": [], "unbiased": []}
    noise: dict[str, list[float]] = {"none": [], "unbiased": []}
    for seed in range(8):
        session = oracle_session(repeats, seed, snr_median=1.0)  # reliable enough that clipping at 0 is rare
        truth = session.true_weights
        for correction in CORRECTIONS:
            found = scan_reliability(session.scan, correction).weights
            signal[correction].append(np.mean(found.signal_variance / truth.signal_variance))
            noise[correction].append(np.mean(found.noise_variance / truth.noise_variance))
    # ddof 1 estimates the variance of all images that might have been shown: n / (n - 1) of these images' own
    assert np.mean(signal["unbiased"]) == pytest.approx(n / (n - 1), rel=0.03)
    assert np.mean(noise["unbiased"]) == pytest.approx(1, rel=0.03)
    # as printed: the noise of the means is taken for signal, mean(1 / w^2) / T of it, and noise lacks 1 / T
    inflation = np.exp(2 * 0.6**2) / repeats
    assert np.mean(signal["none"]) == pytest.approx(1 + inflation, rel=0.05)
    assert np.mean(noise["none"]) == pytest.approx(1 - 1 / repeats, rel=0.03)


def test_silent_and_constant_neurons_weigh_nothing_and_are_counted():
    responses, ids = recording()
    silent = np.zeros_like(responses[:, :1])
    constant = np.full(silent.shape, 0.1)  # its float64 mean over 3 trials is not 0.1 exactly
    noiseless = np.array([float(name[-1]) for name in ids])[:, None] / 3
    found = measure_reliability(np.hstack([responses, silent, constant, noiseless]), ids)
    np.testing.assert_array_equal(found.weights.snr[-3:], 0.0)
    assert found.n_silent == 3
    assert (found.weights.snr[:-3] > 0).all()
    assert measure_reliability(responses, ids).n_silent == 0


def test_an_image_shown_once_is_left_out_and_counted():
    responses, ids = recording()
    outlier = np.full_like(responses[:1], 1e6)
    found = measure_reliability(np.vstack([responses, outlier]), np.append(ids, "once"))
    assert (found.n_images, found.n_left_out) == (5, 1)
    np.testing.assert_array_equal(found.weights.snr, snr_weights(responses, ids))


def test_every_image_counts_once_however_often_it_was_shown():
    # two images of noise variance 1 and 4: their mean is 2.5, not pulled to the one with ten times the trials
    trials = np.concatenate([np.tile([1.0, 3.0], 10), [4.0, 8.0]])[:, None]
    ids = ["a"] * 20 + ["b"] * 2
    assert neuron_weights(trials, ids).noise_variance[0] == pytest.approx(2.5)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_torch_in_torch_out(correction):
    responses, ids = recording()
    expected = snr_weights(responses, ids, correction)
    assert isinstance(expected, np.ndarray)
    number = np.unique(ids, return_inverse=True)[1]
    for given_ids in (ids, ids.tolist(), number, torch.from_numpy(number)):
        found = snr_weights(torch.from_numpy(responses).requires_grad_(), given_ids, correction)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == torch.float64
        np.testing.assert_array_equal(found.numpy(), expected)
        np.testing.assert_array_equal(snr_weights(responses, given_ids, correction), expected)


def test_the_callers_array_is_left_alone():
    responses, ids = recording()
    responses = responses.astype(np.float64)
    kept = responses.copy()
    snr_weights(responses, ids)
    np.testing.assert_array_equal(responses, kept)


def test_a_scan_is_judged_by_its_oracle_trials_only():
    session = simulate_scan(
        packaged_photographs(n_train=30, n_oracle=8), packaged_photographs("oracle", n_oracle=8).ids
    )
    scan = session.scan
    oracle = scan.tier == "oracle"
    expected = snr_weights(scan.responses[oracle], scan.trial_ids[oracle])
    np.testing.assert_array_equal(scan_reliability(scan).weights.snr, expected)
    louder = scan.responses.copy()
    louder[~oracle] *= 100
    other = Scan("louder", scan.stimuli, scan.trial_image, louder, scan.tier)
    np.testing.assert_array_equal(scan_reliability(other).weights.snr, expected)


def unwrapped_call(*arguments):
    # the shape checker of the tests would see these first; a user's process has none
    return inspect.unwrap(measure_reliability)(*arguments)


def test_what_cannot_be_used_is_said_in_one_line():
    responses, ids = recording()
    cases = [
        ((responses[:3], ["a", "b", "c"]), "0 of 3 images have 2 or more trials"),
        ((responses[:3], ["a", "a", "c"]), "1 of 2 images have 2 or more trials"),
        ((responses[:3], ["a", "a", "a"]), "1 of 1 images have 2 or more trials"),
        ((responses[:0], []), "0 of 0 images have 2 or more trials"),
        ((responses, ids[:-1]), f"image_ids is ({len(ids) - 1},) for {len(ids)} trials"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError) as error:
            measure_reliability(*arguments)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    for bad in (np.nan, np.inf):
        spoilt = responses.copy()
        spoilt[4, 2] = bad
        with pytest.raises(InputError, match="neuron 2 on trial 4 is not finite"):
            snr_weights(spoilt, ids)
    with pytest.raises(InputError, match="correction 'biased' is not one of none, unbiased"):
        unwrapped_call(responses, ids, "biased")
    with pytest.raises(InputError, match=r"must be real numbers \(trial, neuron\), got float32 \(22,\)"):
        unwrapped_call(responses[:, 0], ids)
    with pytest.raises(InputError, match="must be real numbers"):
        unwrapped_call(responses.astype(np.complex64), ids)


def test_a_scan_without_repeats_is_named():
    shown = Stimuli(np.array(["a", "b"]), np.zeros((2, 2, 2), np.uint8))
    scan = Scan("monday", shown, np.array([0, 1]), np.ones((2, 3), np.float32), np.array(["oracle", "oracle"]))
    with pytest.raises(InputError, match="scan monday, oracle trials: reliability: 0 of 2 images have 2 or more"):
        scan_reliability(scan)


@settings(max_examples=40, deadline=None)
@given(
    repeats=st.lists(st.integers(1, 5), min_size=2, max_size=7).filter(lambda r: sum(t >= 2 for t in r) >= 2),
    seed=st.integers(0, 10_000),
)
def test_oracle_correlation_agrees_with_the_slow_reference(repeats, seed):
    responses, ids = recording(seed, tuple(repeats))
    found = oracle_correlation(responses, ids)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, slow_oracle_correlation(responses, ids.tolist()), atol=1e-6)


def test_an_oracle_correlation_worked_by_hand():
    # a: 1, 3; b: 4, 8: each with the other of its image: (1, 3), (3, 1), (4, 8), (8, 4); deviations from 4
    responses = np.array([[1.0], [4.0], [3.0], [8.0]])
    products = [-3 * -1, -1 * -3, 0 * 4, 4 * 0]
    np.testing.assert_allclose(oracle_correlation(responses, ["a", "b", "a", "b"]), [sum(products) / (9 + 1 + 0 + 16)])


def test_what_oracle_correlation_depends_on_and_what_not():
    responses, ids = recording(repeats=(10,) * 20)
    found = oracle_correlation(responses, ids)
    rng = np.random.default_rng(1)
    trials, neurons = rng.permutation(len(ids)), rng.permutation(responses.shape[1])
    np.testing.assert_allclose(oracle_correlation(responses[trials], ids[trials]), found, atol=1e-12)
    np.testing.assert_array_equal(oracle_correlation(responses[:, neurons], ids), found[neurons])
    gains = 10.0 ** rng.uniform(-6, 6, responses.shape[1])
    np.testing.assert_allclose(oracle_correlation(responses * gains + 3 * gains, ids), found, atol=1e-9)
    assert found[0] > found[-1] > 0  # by how little noise they have
    assert np.abs(oracle_correlation(responses, rng.permutation(ids))).max() < 0.4 < found[0]
    once = oracle_correlation(np.vstack([responses, 1e6 + responses[:1]]), np.append(ids, "once"))
    np.testing.assert_allclose(once, found, atol=1e-12)


def test_oracle_correlation_of_noise_is_0_of_none_is_1_and_of_a_constant_0():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(100), 10)
    noise = oracle_correlation(rng.gamma(2.0, 1.0, (1000, 300)), ids)
    assert abs(noise.mean()) < 0.01
    np.testing.assert_allclose(oracle_correlation(rng.gamma(2.0, 1.0, (100, 4))[ids], ids), 1)
    np.testing.assert_array_equal(oracle_correlation(np.full((1000, 2), 0.1), ids), 0.0)
    # signal and noise of variance 1: cov(r, o) = 1, var(r) = 2, var(o) = 1 + 1 / 9
    half = rng.standard_normal((100, 300))[ids] + rng.standard_normal((1000, 300))
    assert oracle_correlation(half, ids).mean() == pytest.approx(1 / np.sqrt(2 * (1 + 1 / 9)), abs=0.01)


def test_oracle_correlation_keeps_the_kind_and_the_callers_array_and_says_what_is_wrong():
    responses, ids = recording()
    responses = responses.astype(np.float64)
    kept = responses.copy()
    found = oracle_correlation(torch.from_numpy(responses), ids)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), oracle_correlation(responses, ids))
    np.testing.assert_array_equal(responses, kept)
    with pytest.raises(InputError, match="1 of 2 images have 2 or more trials; at least 2 such images are needed"):
        oracle_correlation(responses[:3], ["a", "a", "c"])
    kept[4, 2] = np.nan
    with pytest.raises(InputError, match="neuron 2 on trial 4 is not finite"):
        oracle_correlation(kept, ids)
