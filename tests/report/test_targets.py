"""Pairs are those of the upper triangle, the extreme ones greedy, and an order of images brings clusters together."""

import itertools

import numpy as np
import pytest

from neuroprior.report.targets import extreme_pairs, leaf_order, pairs_of
from neuroprior.similarity import pair_correlation

from .conftest import cosine


def _similarity(n: int, seed: int = 0) -> np.ndarray:
    return cosine(np.random.default_rng(seed).standard_normal((n, 6)))


def test_pairs_are_the_upper_triangle_and_never_the_diagonal() -> None:
    s = _similarity(7)
    assert np.array_equal(pairs_of(s), s[np.triu_indices(7, 1)])
    assert len(pairs_of(s[:1, :1])) == 0


@pytest.mark.parametrize("most", [True, False])
def test_extreme_pairs_are_those_of_a_greedy_search_over_all_pairs(most: bool) -> None:
    s = _similarity(12, seed=5)
    left = sorted(itertools.combinations(range(12), 2), key=lambda pair: s[pair], reverse=most)
    wanted = []
    while len(wanted) < 4:
        i, j = left[0]
        wanted.append((i, j, pytest.approx(float(s[i, j]))))
        left = [pair for pair in left if not {i, j} & set(pair)]
    assert extreme_pairs(s, 4, most=most) == wanted


def test_extreme_pairs_stop_when_images_run_out() -> None:
    assert len(extreme_pairs(_similarity(5), 4, most=True)) == 2


def test_leaf_order_is_a_permutation_that_brings_clusters_together() -> None:
    rng = np.random.default_rng(1)
    cluster = np.arange(20) % 2
    s = cosine(np.where(cluster[:, None] == 0, 1.0, -1.0) + 0.1 * rng.standard_normal((20, 5)))
    order = leaf_order(s)
    assert sorted(order) == list(range(20))
    assert np.count_nonzero(np.diff(cluster[order])) == 1
    assert np.count_nonzero(np.diff(cluster)) == 19


def test_correlation_is_pearsons_on_pairs_and_undefined_without_variation() -> None:
    a, b = pairs_of(_similarity(9, 1)), pairs_of(_similarity(9, 2))
    assert pair_correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-6)
    assert np.isnan(pair_correlation(a, np.ones_like(a)))
