"""The spectrum control: the eigenvalues stay, everything else goes."""

import subprocess
import sys

import numpy as np
import pytest

from neuroprior.similarity import shuffle_target, spectrum_target
from neuroprior.types import SimilarityTarget


def eigenvalues(target):
    return np.linalg.eigvalsh(target.matrix.astype(np.float64))


def test_eigenvalues_stay_and_pairs_go(target):
    made = spectrum_target(target, seed=1)
    assert np.allclose(eigenvalues(made), eigenvalues(target), atol=1e-5)
    assert (np.diag(made.matrix) == 1).all()
    assert np.array_equal(made.matrix, made.matrix.T)
    assert np.abs(made.matrix).max() <= 1
    off = np.triu_indices(len(target), 1)
    assert abs(np.corrcoef(made.matrix[off], target.matrix[off])[0, 1]) < 0.2
    # a shuffled target keeps its values as well, this one does not
    assert np.array_equal(np.sort(shuffle_target(target, 1).matrix, axis=None), np.sort(target.matrix, axis=None))
    assert not np.allclose(np.sort(made.matrix[off]), np.sort(target.matrix[off]), atol=1e-3)


def test_same_seed_same_matrix(target):
    assert np.array_equal(spectrum_target(target, 2).matrix, spectrum_target(target, 2).matrix)
    assert not np.array_equal(spectrum_target(target, 2).matrix, spectrum_target(target, 3).matrix)


def test_it_says_what_it_is(target):
    made = spectrum_target(target, 5)
    assert made.details == {**target.details, "spectrum_with_seed": 5}
    assert made.stimuli_digest == target.stimuli_digest
    assert made.source == target.source


@pytest.mark.parametrize("negative", [1e-6, 0.5])
def test_negative_eigenvalues_become_0_and_the_rest_is_scaled(target, negative):
    n = len(target)
    matrix = np.full((n, n), -(1 + negative) / (n - 1), dtype=np.float32)  # one eigenvalue of about -negative
    np.fill_diagonal(matrix, 1)
    given = SimilarityTarget(matrix, target.image_ids, target.stimuli_digest, "user")
    expected = np.maximum(eigenvalues(given), 0)
    assert np.allclose(eigenvalues(spectrum_target(given, 0)), expected * n / expected.sum(), atol=1e-5)


def test_scipy_is_imported_when_it_is_asked_for():
    code = "import neuroprior.similarity, sys; assert not any(m.split('.')[0] == 'scipy' for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
