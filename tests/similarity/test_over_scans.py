"""The interval over scans and images: drawn as written, paired, and of about the width that new animals would give."""

import itertools

import numpy as np
import pytest

from neuroprior.similarity import bootstrap_over_scans, pair_correlation
from neuroprior.types import InputError


def matrices(rng, n_scans=4, n_images=12, common=None, noise=1.0):
    """Symmetric matrices of ones on the diagonal, whose pairs are `common` and noise of each scan's own."""
    found = []
    for _ in range(n_scans):
        own = rng.standard_normal((n_images, n_images)) * noise
        whole = (own + own.T) / 2 + (0 if common is None else common)
        np.fill_diagonal(whole, 1)
        found.append(whole.astype(np.float32))
    return np.stack(found)


def symmetric(rng, n_images=12):
    one = rng.standard_normal((n_images, n_images))
    return (one + one.T) / 2


def slow_replicate(pairs, scans, images):
    """Mean over the drawn scans of r over pairs of drawn places that hold different images, each pair written out."""
    means = []
    for recorded, compared in pairs:
        rs = []
        for s in scans:
            places = [(i, j) for i, j in itertools.combinations(images, 2) if i != j]
            x = np.array([recorded[s][i, j] for i, j in places], np.float64)
            y = np.array([compared[s][i, j] for i, j in places], np.float64)
            rs.append(pair_correlation(x, y))
        means.append(np.mean(rs))
    return means


def test_replicates_are_what_pairs_written_out_give():
    rng = np.random.default_rng(1)
    recorded = matrices(rng)
    pairs = [(recorded, matrices(rng)), (recorded, recorded + matrices(rng, noise=0.5))]
    fast = bootstrap_over_scans(pairs, seed=3, replicates=8)
    again = np.random.default_rng(3)
    scans = again.multinomial(4, np.full(4, 1 / 4), size=8)
    images = again.multinomial(12, np.full(12, 1 / 12), size=8)
    for row, s, i in zip(fast, scans, images, strict=True):
        slow = slow_replicate(pairs, np.repeat(np.arange(4), s), np.repeat(np.arange(12), i))
        np.testing.assert_allclose(row, slow, atol=1e-12)


def test_what_is_recorded_correlates_with_itself_and_scale_and_offset_change_nothing():
    rng = np.random.default_rng(2)
    recorded, model = matrices(rng), matrices(rng)
    drawn = bootstrap_over_scans([(recorded, recorded), (recorded, model), (recorded, 3 * model - 5)], replicates=50)
    np.testing.assert_allclose(drawn[:, 0], 1, atol=1e-12)
    np.testing.assert_allclose(drawn[:, 1], drawn[:, 2], atol=1e-6)


def test_the_same_seed_draws_the_same_and_comparisons_do_not_change_one_another():
    rng = np.random.default_rng(4)
    recorded, a, b = matrices(rng), matrices(rng), matrices(rng)
    both = bootstrap_over_scans([(recorded, a), (recorded, b)], seed=5, replicates=20)
    np.testing.assert_array_equal(bootstrap_over_scans([(recorded, b)], seed=5, replicates=20)[:, 0], both[:, 1])


def test_the_interval_is_of_the_width_that_other_animals_and_images_give():
    """The spread of the replicates of one experiment against the spread over new experiments: near, if less."""
    rng = np.random.default_rng(6)
    n_scans, n_images = 12, 30
    estimates, spreads = [], []
    for _ in range(60):
        common = symmetric(rng, n_images)
        recorded = matrices(rng, n_scans, n_images, common)
        model = np.repeat((common + symmetric(rng, n_images))[None], n_scans, axis=0)
        estimates.append(np.mean([_r(a, b) for a, b in zip(recorded, model, strict=True)]))
        spreads.append(bootstrap_over_scans([(recorded, model)], replicates=200)[:, 0].std())
    assert 0.6 < np.mean(spreads) / np.std(estimates) < 1.8


def _r(a, b):
    above = np.triu_indices(len(a), 1)
    return pair_correlation(a[above].astype(np.float64), b[above].astype(np.float64))


def test_one_scan_is_drawn_over_images_alone():
    rng = np.random.default_rng(7)
    drawn = bootstrap_over_scans([(matrices(rng, 1), matrices(rng, 1))], replicates=100)
    assert drawn.std() > 0


def test_a_matrix_that_does_not_vary_has_no_correlation():
    rng = np.random.default_rng(8)
    assert np.isnan(bootstrap_over_scans([(matrices(rng), np.ones((4, 12, 12)))], replicates=5)).all()


@pytest.mark.parametrize(
    ("recorded", "compared"), [((4, 12, 12), (3, 12, 12)), ((4, 12, 11), (4, 12, 11)), ((2,) * 3,) * 2]
)
def test_other_sizes_are_refused_in_one_line(recorded, compared):
    with pytest.raises(InputError, match=r"of the same scans and the same 3 or more images") as raised:
        bootstrap_over_scans([(np.zeros(recorded), np.zeros(compared))])
    assert "\n" not in str(raised.value)


def test_comparisons_of_two_sizes_are_refused():
    rng = np.random.default_rng(9)
    with pytest.raises(InputError, match="comparisons of 2 sizes; give all the same scans and images"):
        bootstrap_over_scans([(matrices(rng), matrices(rng)), (matrices(rng, 3), matrices(rng, 3))])
