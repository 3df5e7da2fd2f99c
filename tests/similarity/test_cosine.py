"""Eq. 2: what leaves it alone, what must not, and the real twin against the slow form."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroprior.similarity import average_targets, centered_cosine, shuffle_target, target_from_population
from neuroprior.types import InputError, Population
from reference.similarity import centered_cosine as slow

SEEDS = st.integers(0, 2**32 - 1)


def responses(seed: int, images: int = 12, neurons: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, size=(images, neurons))


@given(SEEDS, st.integers(2, 15), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_agrees_with_the_printed_equation(seed, images, neurons):
    r = responses(seed, images, neurons)
    assert np.abs(centered_cosine(r) - slow(r)).max() < 1e-7  # cosines of near-zero vectors lose half the digits


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_invariances_and_what_breaks_them(seed):
    r = responses(seed)
    rng = np.random.default_rng(seed)
    s = centered_cosine(r)
    rotation, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    assert np.allclose(centered_cosine(r[:, rng.permutation(20)]), s, atol=1e-9)
    assert np.allclose(centered_cosine(3.7 * r), s, atol=1e-9)
    assert np.allclose(centered_cosine(r + rng.standard_normal(20)), s, atol=1e-9)
    assert np.allclose(centered_cosine(r @ rotation), s, atol=1e-9)
    # and not by weights, nor by a part of the images
    assert not np.allclose(centered_cosine(r * rng.gamma(1.0, size=20)), s, atol=1e-3)
    assert not np.allclose(centered_cosine(r[:6]), s[:6, :6], atol=1e-3)


def test_symmetric_bounded_unit_diagonal_and_same_kind_back():
    r = responses(0).astype(np.float32)
    s = centered_cosine(r)
    assert s.dtype == np.float32
    assert np.array_equal(s, s.T)
    assert (np.diag(s) == 1).all()
    assert np.abs(s).max() <= 1
    t = centered_cosine(torch.from_numpy(r))
    assert isinstance(t, torch.Tensor)
    assert np.array_equal(t.numpy(), s)


def test_large_offsets_do_not_cost_the_digits():
    r = responses(1, 3000, 5).astype(np.float32) + np.float32(1000)
    assert np.abs(centered_cosine(r)[:30, :30] - _rows(r, 30)).max() < 1e-3


def _rows(r: np.ndarray, n: int) -> np.ndarray:
    d = r.astype(np.float64) - r.astype(np.float64).mean(0)
    e = d / np.linalg.norm(d, axis=1, keepdims=True)
    return e[:n] @ e[:n].T


def test_an_image_at_the_mean_is_named():
    r = np.array([[1.0, 2.0], [3.0, 6.0], [2.0, 4.0]])
    with pytest.raises(InputError, match="'c' equals the mean"):
        centered_cosine(r, ["a", "b", "c"])
    with pytest.raises(InputError, match="image 1 is not finite"):
        centered_cosine(np.array([[1.0, 2.0], [np.inf, 6.0]]))
    with pytest.raises(InputError, match="at least 2 images"):
        centered_cosine(np.ones((1, 3)))


def test_the_input_is_left_as_it_was():
    r = responses(2)
    before = r.copy()
    centered_cosine(r)
    r.flags.writeable = False
    centered_cosine(r)
    assert np.array_equal(r, before)


def test_weights_enter_before_the_cosine(stimuli):
    r = responses(3, len(stimuli)).astype(np.float32)
    w = np.random.default_rng(0).gamma(1.0, size=20).astype(np.float32)
    target = target_from_population(Population(stimuli.ids, r, w, "twin"), stimuli)
    assert np.abs(target.matrix - slow(r * w)).max() < 1e-5
    assert target.source == "twin"
    assert target.stimuli_digest == stimuli.digest


def test_a_target_is_bound_to_the_pixels_of_its_own_images(stimuli):
    r = responses(3, 10).astype(np.float32)
    some = Population(stimuli.ids[5:15], r, np.ones(20, np.float32), "recorded")
    assert target_from_population(some, stimuli).stimuli_digest == stimuli.select(stimuli.ids[5:15]).digest


def test_shuffling_keeps_values_and_spectrum_and_moves_them(target):
    shuffled = shuffle_target(target, seed=3)
    assert np.array_equal(np.sort(shuffled.matrix, axis=None), np.sort(target.matrix, axis=None))
    spectra = [np.linalg.eigvalsh(t.matrix.astype(np.float64)) for t in (target, shuffled)]
    assert np.allclose(*spectra, atol=1e-6)
    assert (np.diag(shuffled.matrix) == 1).all()
    off = np.triu_indices(len(target), 1)
    assert abs(np.corrcoef(shuffled.matrix[off], target.matrix[off])[0, 1]) < 0.2
    assert np.array_equal(shuffle_target(target, seed=3).matrix, shuffled.matrix)
    assert not np.array_equal(shuffle_target(target, seed=4).matrix, shuffled.matrix)


def test_average_over_scans(target):
    other = shuffle_target(target, seed=0)
    mean = average_targets([target, other])
    assert np.allclose(mean.matrix, (target.matrix + other.matrix) / 2)
    assert mean.n_scans == 2
    assert np.array_equal(average_targets([target]).matrix, target.matrix)
    assert mean.details["neurons"] == 30
    assert "shuffled_with_seed" not in mean.details  # true of one of them only
    with pytest.raises(InputError, match="target 1 is of other stimuli"):
        average_targets([target, dataclasses.replace(target, stimuli_digest="x")])
    with pytest.raises(InputError, match="no target"):
        average_targets([])
