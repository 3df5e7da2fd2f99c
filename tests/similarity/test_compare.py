"""Comparing targets: 1 with itself, the theorems of each measure, and slow forms from explicit coordinates."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from neuroprior.similarity import compare, compare_targets, factor_target, pixel_target, shuffle_target
from neuroprior.types import InputError, SimilarityTarget
from reference import similarity as slow

SEEDS = st.integers(0, 2**32 - 1)


def of(points: np.ndarray) -> SimilarityTarget:
    """The target whose coordinates, of length 1, are these."""
    e = points / np.linalg.norm(points, axis=1, keepdims=True)
    s = (e @ e.T).clip(-1, 1)
    np.fill_diagonal(s, 1)
    return SimilarityTarget(((s + s.T) / 2).astype(np.float32), np.array([f"{k}" for k in range(len(e))]), "x", "user")


def unit(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@given(SEEDS, st.integers(4, 15), st.integers(2, 20))
@settings(max_examples=40, deadline=None)
def test_agrees_with_slow_forms_from_coordinates(seed, images, dims):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((images, dims)), rng.standard_normal((images, 7))
    y[:, :2] += x[:, :2]
    made = compare_targets(of(x), of(y))
    assert made.cka == pytest.approx(slow.cka(unit(x), unit(y)), abs=1e-5)
    assert made.procrustes == pytest.approx(slow.procrustes(unit(x), unit(y)), abs=1e-4)
    pairs = np.triu_indices(images, 1)
    a, b = of(x).matrix[pairs], of(y).matrix[pairs]
    assert made.pearson == pytest.approx(pearsonr(a, b).statistic, abs=1e-5)
    assert made.spearman == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)
    assert made.n_images == images


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_1_with_itself_however_it_is_turned_and_less_with_another(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, 6))
    rotation, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    for other in (x, x @ rotation, 3 * x, x[:, ::-1]):
        made = compare_targets(of(x), of(other))
        assert np.allclose(dataclasses.astuple(made)[1:], 1, atol=1e-5)
    for other in (x * [5, 1, 1, 1, 1, 0.2], x + rng.standard_normal(x.shape)):
        assert max(dataclasses.astuple(compare_targets(of(x), of(other)))[1:]) < 0.99


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_symmetric_and_in_range(seed):
    rng = np.random.default_rng(seed)
    a, b = (of(rng.standard_normal((10, 5))) for _ in range(2))
    one, two = compare_targets(a, b), compare_targets(b, a)
    assert np.allclose(dataclasses.astuple(one), dataclasses.astuple(two))
    assert 0 <= one.cka <= 1
    assert 0 <= one.procrustes <= 1


def test_kernels_are_invariant_to_scale_and_offset_of_similarity():
    """Isotropic scaling of the coordinates scales a kernel; the centring takes a constant from it."""
    rng = np.random.default_rng(0)
    s = of(rng.standard_normal((12, 5)) + 2).matrix.astype(np.float64)
    assert np.allclose(compare._centred(s + 0.3), compare._centred(s))
    a, b = compare._centred(s), compare._centred(of(rng.standard_normal((12, 4))).matrix.astype(np.float64))
    assert compare._procrustes(9 * a, b) == pytest.approx(compare._procrustes(a, b))
    assert compare._procrustes(a, 9 * a) == pytest.approx(1)


def test_ties_share_a_rank(stimuli):
    a, b = pixel_target(stimuli, threshold=0.05), pixel_target(stimuli, threshold=None)
    pairs = np.triu_indices(40, 1)
    expected = spearmanr(a.matrix[pairs], b.matrix[pairs]).statistic
    assert compare_targets(a, b).spearman == pytest.approx(expected, abs=1e-9)


def test_images_are_matched_by_id(target, stimuli):
    rng = np.random.default_rng(0)
    order = rng.permutation(40)[:25]
    part = target.select(stimuli.select(stimuli.ids[order]))
    assert np.allclose(dataclasses.astuple(compare_targets(target, part)), (25, 1, 1, 1, 1), atol=1e-5)
    renamed = dataclasses.replace(target, image_ids=target.image_ids[::-1])
    assert compare_targets(target, renamed).pearson < 0.5
    assert compare_targets(target, shuffle_target(target, 0)).pearson < 0.5


def test_matrices_and_coordinates_compare_with_each_other(target):
    made = compare_targets(target, factor_target(target, tolerance=1e-4))
    assert np.allclose(dataclasses.astuple(made), (40, 1, 1, 1, 1), atol=1e-3)


def test_more_images_than_asked_for_are_drawn(target, stimuli):
    other = shuffle_target(target, 1)
    made = compare_targets(target, other, images=20)
    assert made.n_images == 20
    assert made == compare_targets(target, other, images=20)
    assert made != compare_targets(target, other, images=20, seed=1)
    turned = target.select(stimuli.select(stimuli.ids[::-1]))  # which are drawn does not hang on either's order
    assert np.allclose(dataclasses.astuple(made), dataclasses.astuple(compare_targets(other, turned, images=20)))
    assert compare_targets(target, other, images=40).n_images == compare_targets(target, other).n_images == 40


def test_what_cannot_be_compared(target):
    others = dataclasses.replace(
        target, image_ids=np.array([f"other-{k}" for k in range(38)] + ["image-00", "image-01"])
    )
    with pytest.raises(InputError, match="of 40 and 40 images have 2 ids in common; at least 3 are needed"):
        compare_targets(target, others)
    with pytest.raises(InputError, match="images is 2"):
        compare_targets(target, target, images=2)


def test_nothing_is_said_where_all_pairs_are_the_same(target):
    n = len(target)
    for off, defined in ((0.0, True), (1.0, False)):
        matrix = np.full((n, n), off, dtype=np.float32)
        np.fill_diagonal(matrix, 1)
        made = compare_targets(target, dataclasses.replace(target, matrix=matrix))
        assert np.isnan(made.pearson)
        assert np.isnan(made.spearman)
        assert (
            np.isfinite([made.cka, made.procrustes]).all() == defined
        )  # all equally unlike is a shape, a point is not
