"""Eq. 3: the closed form is the mean over pairs of trials, and what does and does not change it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroprior.reliability import scan_reliability, snr_weights
from neuroprior.similarity import (
    centered_cosine,
    oracle_similarity,
    oracle_trials,
    single_trial_similarity,
    split_half_similarity,
    unit,
)
from neuroprior.types import InputError, Scan, Stimuli
from reference import similarity as slow

SEEDS = st.integers(0, 2**32 - 1)


def recording(seed: int, repeats=(2, 5, 3, 8, 4), neurons: int = 30, noise: float = 1.0):
    """Trials of images named out of order, shuffled, with a weight a neuron."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat([f"image-{9 - k}" for k in range(len(repeats))], repeats))
    signal = rng.gamma(2.0, size=(10, neurons))
    image = np.array([int(name[-1]) for name in ids])
    return signal[image] + noise * rng.gamma(1.0, size=(len(ids), neurons)), ids, rng.gamma(1.0, size=neurons)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.lists(st.integers(1, 5), min_size=2, max_size=6).filter(lambda r: sum(t >= 2 for t in r) >= 2))
def test_the_closed_form_is_the_mean_over_pairs_of_trials(seed, repeats):
    r, ids, w = recording(seed, tuple(repeats))
    expected_ids, expected = slow.oracle(r, ids.tolist(), w)
    found_ids, found = oracle_similarity(r, ids, w)
    assert found_ids.tolist() == expected_ids == sorted(i for i in set(ids.tolist()) if (ids == i).sum() > 1)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    single = oracle_similarity(r.astype(np.float32), ids, w)[1]
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-5)


def test_blocks_change_nothing(monkeypatch):
    r, ids, w = recording(0)
    whole = oracle_similarity(r, ids, w)[1]
    for rows in (1, 3, 7):
        monkeypatch.setattr(unit, "_BLOCK", rows * r.shape[1])
        np.testing.assert_allclose(oracle_similarity(r, ids, w)[1], whole, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_invariances_and_what_breaks_them(seed):
    r, ids, w = recording(seed)
    s = oracle_similarity(r, ids, w)[1]
    rng = np.random.default_rng(seed)
    neurons, trials = rng.permutation(r.shape[1]), rng.permutation(len(r))
    assert np.allclose(oracle_similarity(r[:, neurons], ids, w[neurons])[1], s)
    assert np.allclose(oracle_similarity(r[trials], ids[trials], w)[1], s)
    assert np.allclose(oracle_similarity(r, ids, 1e-30 * w)[1], s)
    assert np.allclose(oracle_similarity(7 * r + rng.standard_normal(r.shape[1]), ids, w)[1], s)
    # the weights matter, and which neuron has which
    assert not np.allclose(oracle_similarity(r, ids, np.ones_like(w))[1], s, atol=1e-2)
    assert not np.allclose(oracle_similarity(r, ids, snr_weights(r, ids))[1], s, atol=1e-3)
    assert not np.allclose(oracle_similarity(r[:, neurons], ids, w)[1], s, atol=1e-2)
    # and which trial is of which image
    assert not np.allclose(oracle_similarity(r[trials], ids, w)[1], s, atol=1e-2)


def test_without_noise_it_is_eq_2_if_every_image_counts_alike_and_only_then():
    even, ids, w = recording(1, (4, 4, 4, 4, 4), noise=0.0)
    _, first = np.unique(ids, return_index=True)
    s = oracle_similarity(even, ids, w)[1]
    assert np.allclose(np.diag(s), 1)
    assert np.allclose(s, centered_cosine(even[first] * w))
    uneven, ids, w = recording(1, (2, 9, 4, 4, 4), noise=0.0)
    _, first = np.unique(ids, return_index=True)
    s = oracle_similarity(uneven, ids, w)[1]
    assert np.allclose(np.diag(s), 1)  # the mean is over trials, so it moves towards what was shown often
    assert not np.allclose(s, centered_cosine(uneven[first] * w), atol=1e-2)


def test_noise_lowers_the_diagonal_and_averages_out_of_the_rest():
    clean = oracle_similarity(*recording(2, (20,) * 8, 1000, noise=0.0))[1]
    noisy = oracle_similarity(*recording(2, (20,) * 8, 1000, noise=1.5))[1]
    assert (np.diag(noisy) < 0.8).all()
    off = np.triu_indices(8, 1)
    assert np.corrcoef(clean[off], noisy[off])[0, 1] > 0.9
    assert np.std(noisy[off]) < np.std(clean[off])  # unit vectors of noisy trials: every product shrinks


def test_pure_noise_has_a_diagonal_of_zero_on_average_and_not_of_one_over_t():
    rng = np.random.default_rng(0)
    r, ids = rng.standard_normal((600, 300)), np.repeat(np.arange(200), 3)
    diagonal = np.diag(oracle_similarity(r, ids, np.ones(300))[1])
    assert abs(diagonal.mean()) < 0.01  # with the pairs t = t' it would be 1/3


def test_an_image_shown_once_is_left_out_of_everything():
    r, ids, w = recording(3)
    kept_ids, s = oracle_similarity(r, ids, w)
    more = np.vstack([r, 1e3 + r[:1]])
    ids_more, s_more = oracle_similarity(more, np.append(ids, "image-0"), w)
    assert ids_more.tolist() == kept_ids.tolist()
    np.testing.assert_array_equal(s_more, s)
    assert "image-0" in oracle_similarity(np.vstack([more, r[1:2]]), np.append(ids, ["image-0"] * 2), w)[0]


def test_same_kind_back():
    r, ids, w = recording(4)
    number = np.unique(ids, return_inverse=True)[1]
    expected_ids, expected = oracle_similarity(r, number, w)
    assert expected_ids.dtype == number.dtype
    tensor_ids, found = oracle_similarity(torch.from_numpy(r).requires_grad_(), torch.from_numpy(number), w)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float64
    assert isinstance(tensor_ids, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), expected)
    for given_ids in (ids, ids.tolist()):
        names, again = oracle_similarity(r, given_ids, torch.from_numpy(w))
        assert names.dtype.kind == "U"
        np.testing.assert_array_equal(again, expected)
    counts = np.round(100 * r).astype(np.int64)
    assert oracle_similarity(counts, ids, w)[1].dtype == np.float64
    np.testing.assert_array_equal(oracle_similarity(counts, ids, w)[1], oracle_similarity(1.0 * counts, ids, w)[1])


def test_the_callers_arrays_are_left_alone():
    r, ids, w = recording(5)
    before = r.copy(), w.copy()
    r.flags.writeable = w.flags.writeable = False
    for make in (oracle_similarity, lambda *a: single_trial_similarity(*a, seed=0)):
        make(r, ids, w)
        make(torch.from_numpy(before[0]), ids, torch.from_numpy(before[1]))
    np.testing.assert_array_equal(r, before[0])
    np.testing.assert_array_equal(w, before[1])


def test_large_offsets_do_not_cost_the_digits():
    r, ids, w = recording(6, neurons=300)
    r = (r + 1000).astype(np.float32)
    np.testing.assert_allclose(oracle_similarity(r, ids, w)[1], slow.oracle(r, ids.tolist(), w)[1], atol=1e-5)


def test_halves_share_no_trial_and_are_each_eq_3():
    r, ids, w = recording(7, (4, 7, 5, 3, 6))
    # trials that can be told apart: every half must be the Eq. 3 of some choice of them
    found_ids, one, two = split_half_similarity(r, ids, w, seed=1)
    assert found_ids.tolist() == sorted(name for name in set(ids.tolist()) if (ids == name).sum() >= 4)
    assert not np.allclose(one, two, atol=1e-2)
    again = split_half_similarity(r, ids, w, seed=1)
    np.testing.assert_array_equal(one, again[1])
    assert not np.allclose(split_half_similarity(r, ids, w, seed=2)[1], one, atol=1e-3)
    spoilt, alone = r.copy(), 0
    spoilt[np.flatnonzero(ids == found_ids[0])[0]] += 50 * w  # one trial changes one half, and all of it
    for before, after in zip((one, two), split_half_similarity(spoilt, ids, w, seed=1)[1:], strict=True):
        alone += np.array_equal(before, after)
    assert alone == 1


def test_halves_of_repeated_trials_are_those_of_the_whole():
    r, ids, w = recording(8, (3, 3, 3))
    # every trial twice: a half of 3 of the 6 has repeats, so only Eq. 3 with 2 and 2 trials of 4 identical ones is sure
    even = np.repeat(np.unique(ids), 4)
    clean = r[np.repeat([np.flatnonzero(ids == name)[0] for name in np.unique(ids)], 4)]
    whole = oracle_similarity(clean, even, w)[1]
    for half in split_half_similarity(clean, even, w, seed=0)[1:]:
        np.testing.assert_allclose(half, whole, atol=1e-12)


def test_a_single_trial_is_eq_2_of_one_trial_an_image_and_the_others_hold_none_of_it():
    r, ids, w = recording(9, (3, 4, 5, 3))
    found_ids, data, others = single_trial_similarity(r, ids, w, seed=3)
    choices = np.stack(np.meshgrid(*[np.flatnonzero(ids == name) for name in found_ids]), axis=-1).reshape(-1, 4)
    drawn = [rows for rows in choices if np.allclose(centered_cosine(r[rows] * w), data)]
    assert len(drawn) == 1
    rest = np.setdiff1d(np.arange(len(r)), drawn[0])
    np.testing.assert_allclose(others, oracle_similarity(r[rest], ids[rest], w)[1], atol=1e-12)
    assert (np.diag(data) == 1).all()


def test_a_single_trial_says_less_of_the_others_than_of_an_average_that_holds_it():
    r, ids, w = recording(10, (6,) * 9, 60, noise=3.0)
    off = np.triu_indices(9, 1)
    held, apart = [], []
    for seed in range(30):
        _, data, others = single_trial_similarity(r, ids, w, seed)
        apart.append(np.corrcoef(data[off], others[off])[0, 1])
        held.append(np.corrcoef(data[off], oracle_similarity(r, ids, w)[1][off])[0, 1])
    assert np.mean(held) > np.mean(apart) + 0.05


@pytest.fixture
def scan() -> Scan:
    rng = np.random.default_rng(0)
    shown = Stimuli(np.array(["c", "a", "b"]), rng.integers(0, 256, (3, 4, 4)).astype(np.uint8))
    image = np.tile([0, 1, 2], 4)
    tier = np.where(image == 1, "train", "oracle")
    responses = (rng.gamma(2.0, size=(3, 20))[image] + rng.gamma(1.0, size=(12, 20))).astype(np.float32)
    return Scan("monday", shown, image, responses, tier)


def test_a_scan_gives_its_oracle_trials(scan):
    ids, s = oracle_similarity(*oracle_trials(scan))
    assert ids.tolist() == ["b", "c"]
    oracle = scan.tier == "oracle"
    w = scan_reliability(scan).weights.snr
    np.testing.assert_array_equal(s, oracle_similarity(scan.responses[oracle], scan.trial_ids[oracle], w)[1])
    # standardised units undo gains, raw ones do not
    gains = (2.0 ** np.arange(-10, 10)).astype(np.float32)
    louder = Scan("loud", scan.stimuli, scan.trial_image, scan.responses * gains, scan.tier)
    same = [oracle_similarity(*oracle_trials(one, units="standardised"))[1] for one in (scan, louder)]
    np.testing.assert_allclose(*same, atol=1e-5)
    assert not np.allclose(oracle_similarity(*oracle_trials(louder))[1], s, atol=1e-3)
    assert not np.allclose(oracle_trials(scan, "unbiased").weights, w)


def test_a_scan_without_repeats_is_named(scan):
    once = Scan("tuesday", scan.stimuli, scan.trial_image[:3], scan.responses[:3], scan.tier[:3])
    with pytest.raises(InputError, match="scan tuesday, oracle trials: reliability: 0 of 2 images"):
        oracle_trials(once)


def test_what_cannot_be_used_is_said_in_one_line(shapes_unchecked):
    r, ids, w = recording(11)
    at_mean = np.vstack([r[:4], 2 * r[:4].mean(0) - r[:4], r[:8].mean(0)[None] * 0])
    at_mean[-1] = at_mean[:-1].mean(0)
    cases = [
        ((r[:0], [], w), "0 of 0 images have 2 or more trials"),
        ((r[:3], ["a", "b", "c"], w), "0 of 3 images have 2 or more trials; at least 2 such images are needed"),
        ((r[:3], ["a", "a", "c"], w), "1 of 2 images have 2 or more trials"),
        ((r, ids[1:], w), f"image_ids is ({len(r) - 1},) for {len(r)} trials"),
        ((r, ids, w[1:]), "weights are (29,) for 30 neurons"),
        ((r, ids, 0 * w), "all weights are 0"),
        ((r, ids, np.where(w == w[4], np.nan, w)), "weight of neuron 4 is nan"),
        ((r[:, 0], ids, w), "responses must be (trial, neuron), got (22,)"),
        ((r[:, :0], ids, w[:0]), "responses must be (trial, neuron), got (22, 0)"),
        ((at_mean, ["a"] * 4 + ["b"] * 5, w), "trial 8 of image 'b' equals the mean over images"),
        ((at_mean, [3] * 4 + [7] * 5, w), "trial 8 of image 7 equals the mean"),
    ]
    for bad in (np.nan, np.inf):
        spoilt = r.copy()
        spoilt[4, 2] = bad
        cases.append(((spoilt, ids, w), f"response to trial 4 of image {str(ids[4])!r} is not finite"))
    for arguments, message in cases:
        for make in (oracle_similarity, lambda *a: oracle_similarity(torch.as_tensor(a[0]), *a[1:])):
            with pytest.raises(InputError) as error:
                make(*arguments)
            assert message in str(error.value)
            assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="0 of 2 images have 4 or more trials"):
        split_half_similarity(r[:6], [1, 2] * 3, w, seed=0)
    with pytest.raises(InputError, match="0 of 2 images have 3 or more trials"):
        single_trial_similarity(r[:4], [1, 2] * 2, w, seed=0)
