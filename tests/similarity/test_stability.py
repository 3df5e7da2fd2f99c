"""Eq. 4 and 5: what must not fluctuate, what must, and that both are as printed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroprior.similarity import (
    align_matrices,
    oracle_similarity,
    pair_fluctuation,
    repeat_fluctuation,
    scan_fluctuation,
    single_trial_similarity,
)
from neuroprior.types import InputError
from reference import similarity as slow

SEEDS = st.integers(0, 2**32 - 1)


def recording(seed: int, repeats=(2, 4, 3, 1, 5), neurons: int = 25, noise: float = 1.0):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(len(repeats)) * 7, repeats))
    signal = np.random.default_rng(5).gamma(2.0, size=(len(repeats), neurons))  # of one population whatever the seed
    return signal[ids // 7] + noise * rng.gamma(1.0, size=(len(ids), neurons)), ids, rng.gamma(1.0, size=neurons)


def matrices(seed: int, scans: int = 4, images: int = 6) -> np.ndarray:
    s = np.random.default_rng(seed).uniform(-1, 1, (scans, images, images))
    return (s + s.transpose(0, 2, 1)) / 2


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_both_forms_of_eq_5_are_as_printed(seed):
    r, ids, w = recording(seed)
    for fast, printed in ((repeat_fluctuation, slow.repeat_fluctuation), (pair_fluctuation, slow.pair_fluctuation)):
        expected = printed(r, ids.tolist(), w)
        np.testing.assert_allclose(fast(r, ids, w), expected, atol=1e-9)
        np.testing.assert_allclose(fast(r.astype(np.float32), ids, w), expected, atol=1e-5)


def test_eq_4_is_as_printed():
    s = matrices(0)
    mean = sum(s) / len(s)
    expected = [[m[i, j] - mean[i, j] for i in range(6) for j in range(i + 1, 6)] for m in s]
    for given_matrices in (s, list(s), tuple(s)):
        found = scan_fluctuation(given_matrices)
        assert found.shape == (4, 15)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-12)


def test_the_diagonal_is_not_looked_at_and_all_else_is():
    s = matrices(1)
    before = scan_fluctuation(s)
    s[2, 3, 3] = 9.0
    np.testing.assert_array_equal(scan_fluctuation(s), before)
    s[2, 3, 4] = s[2, 4, 3] = 9.0
    assert not np.allclose(scan_fluctuation(s), before)


def test_scans_that_agree_do_not_fluctuate_and_others_do():
    one = matrices(2, scans=1)[0].astype(np.float32)
    np.testing.assert_array_equal(scan_fluctuation([one] * 7), 0)  # a mean of sevenths would leave rounding
    other = one.copy()
    other[0, 1] = other[1, 0] = one[0, 1] + 0.5
    found = scan_fluctuation([one, other])
    np.testing.assert_allclose(found[:, 0], [-0.25, 0.25], atol=1e-6)
    np.testing.assert_array_equal(found[:, 1:], 0)


def test_trials_that_agree_do_not_fluctuate_and_others_do():
    clean, noisy = recording(3, noise=0.0), recording(3)
    np.testing.assert_allclose(repeat_fluctuation(*clean), 0, atol=1e-12)
    np.testing.assert_allclose(pair_fluctuation(*clean), 0, atol=1e-12)
    assert np.std(repeat_fluctuation(*noisy)) > 0.02
    assert np.std(pair_fluctuation(*noisy)) > 0.02


def test_values_stand_in_the_order_said():
    r, ids, w = recording(4)
    values = repeat_fluctuation(r, ids, w)
    assert values.shape == (1 + 6 + 3 + 10,)
    for start, stop in ((0, 1), (1, 7), (7, 10), (10, 20)):  # image by image, each with mean 0
        assert abs(values[start:stop].sum()) < 1e-12
    assert abs(values[1:8].sum()) > 1e-6
    assert pair_fluctuation(r, ids, w).shape == (2 * (4 + 3 + 5) + 4 * (3 + 5) + 3 * 5,)


def test_what_does_not_change_them_and_what_does():
    r, ids, w = recording(5)
    neurons = np.random.default_rng(0).permutation(len(w))
    for make in (repeat_fluctuation, pair_fluctuation):
        before = make(r, ids, w)
        np.testing.assert_allclose(make(r[:, neurons], ids, 5 * w[neurons]), before, atol=1e-12)
        assert not np.allclose(make(r, ids, np.ones_like(w)), before, atol=1e-3)


def test_averages_fluctuate_less_than_single_pairs_which_is_why_both_are_matched():
    """Figure 1C at one truth for all scans: what differs between Eq. 4 and 5 is then the averaging alone."""
    scans = [recording(seed, (6,) * 8, 40, noise=2.0) for seed in range(6)]
    ones = [(r, ids, np.ones(40)) for r, ids, _ in scans]
    across = scan_fluctuation(align_matrices([oracle_similarity(*one) for one in ones])[1])
    matched = scan_fluctuation(np.stack([single_trial_similarity(*one, seed=0)[1] for one in ones]))
    within = np.concatenate([repeat_fluctuation(*one) for one in ones])
    matched_within = np.concatenate([pair_fluctuation(*one) for one in ones])
    assert np.std(across) < 0.6 * np.std(within)
    # single trials of different images: across scans of the same neurons as much as within one
    assert np.std(matched) == pytest.approx(np.std(matched_within), rel=0.2)


def test_torch_in_torch_out():
    r, ids, w = recording(6)
    for make in (repeat_fluctuation, pair_fluctuation):
        found = make(torch.from_numpy(r), torch.from_numpy(ids), torch.from_numpy(w))
        assert isinstance(found, torch.Tensor)
        np.testing.assert_array_equal(found.numpy(), make(r, ids, w))
    s = matrices(0).astype(np.float32)
    for given_matrices in (torch.from_numpy(s), list(torch.from_numpy(s))):
        found = scan_fluctuation(given_matrices)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), scan_fluctuation(s))


def test_matrices_are_matched_by_id_and_the_intersection_is_the_part_of_each():
    rng = np.random.default_rng(0)
    s = matrices(3, scans=2, images=6)
    names = np.array(list("abcdef"))
    p = rng.permutation(6)
    ids, both = align_matrices([(names, s[0]), (names[p], s[1][np.ix_(p, p)])])
    assert ids.tolist() == names.tolist()
    np.testing.assert_array_equal(both, s)
    kept = p[p != 2]  # the second has no "c", and the first no "f"
    given_matrices = [(names[:5], s[0][:5, :5]), (names[kept], s[1][np.ix_(kept, kept)])]
    ids, both = align_matrices(given_matrices, "intersection")
    assert ids.tolist() == ["a", "b", "d", "e"]
    rows = np.array([0, 1, 3, 4])
    np.testing.assert_array_equal(both, s[:, rows[:, None], rows])
    tensors = [(torch.arange(6), torch.from_numpy(s[0])), (torch.from_numpy(p), torch.from_numpy(s[1][np.ix_(p, p)]))]
    ids, both = align_matrices(tensors)
    np.testing.assert_array_equal(both.numpy(), s)
    assert ids.tolist() == list(range(6))
    with pytest.raises(
        InputError,
        match=r"matrix 1 lacks 1 of the 5 images of matrix 0 and holds 1 others \(first: 'c'\); pass missing=",
    ):
        align_matrices(given_matrices)


def test_what_cannot_be_used_is_said_in_one_line(shapes_unchecked):
    s = matrices(4)
    names = np.array(list("abcdef"))
    spoilt = s.copy()
    spoilt[2, 1, 3] = np.nan
    cases = [
        (lambda: scan_fluctuation(s[:1]), "1 matrices given; pass one a scan, of at least 2"),
        (lambda: scan_fluctuation([]), "0 matrices given"),
        (lambda: scan_fluctuation([s[0], s[1][:5, :5]]), "matrix 1 is (5, 5), the first one of 6 images"),
        (lambda: scan_fluctuation([s[0][:, :5]] * 2), "matrix 0 is (6, 5)"),
        (lambda: scan_fluctuation(spoilt), "similarity of images 1 and 3 in matrix 2 is nan"),
        (lambda: repeat_fluctuation(np.ones((3, 2)), [1, 2, 3], np.ones(2)), "0 of 3 images have 2 or more trials"),
        (lambda: pair_fluctuation(np.ones((4, 2)), [1, 1, 2, 2], np.ones(2)), "trial 0 of image 1 equals the mean"),
        (lambda: align_matrices([]), "no matrix given"),
        (lambda: align_matrices([(names[:5], s[0])]), "matrix 0 is (6, 6) for 5 ids"),
        (lambda: align_matrices([(np.array(list("aabcde")), s[0])]), "matrix 0 holds an image twice"),
        (lambda: align_matrices([(names, s[0])] * 2, "union"), "missing 'union' is not one of error, intersection"),
        (
            lambda: align_matrices([(names, s[0]), (np.array(list("fghijk")), s[1])], "intersection"),
            "1 images are common to all 2; at least 2 are needed",
        ),
    ]
    for call, message in cases:
        with pytest.raises(InputError) as error:
            call()
        assert message in str(error.value)
        assert "\n" not in str(error.value)
