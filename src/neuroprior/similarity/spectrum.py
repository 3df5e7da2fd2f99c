"""The control that keeps a target's eigenvalues and nothing else."""

from dataclasses import replace

import numpy as np

from neuroprior.types import SimilarityTarget


def spectrum_target(target: SimilarityTarget, seed: int) -> SimilarityTarget:
    """S' = R S R^T with a random rotation R: a random correlation matrix with the eigenvalues of S (`spectrum`).

    `scipy.stats.random_correlation` (Davies & Higham 2000): Q diag(lambda) Q^T with Q uniform, then Givens rotations
    that set the diagonal to 1. Negative eigenvalues become 0, and all are scaled to the sum N that the diagonal asks
    for. Same target, seed and versions: same matrix.
    """
    # On first use: the regulariser's way in must not need scipy.
    from scipy.stats import random_correlation  # type: ignore[import-untyped]

    values = np.maximum(np.linalg.eigvalsh(target.matrix.astype(np.float64)), 0)
    values *= len(target) / values.sum()
    # The sum of thousands of eigenvalues rounds by more than scipy's tolerance for a handful.
    drawn = random_correlation.rvs(values, random_state=np.random.default_rng(seed), tol=1e-7)
    matrix = np.clip((drawn + drawn.T) / 2, -1, 1).astype(np.float32)
    np.fill_diagonal(matrix, 1)
    return replace(target, matrix=matrix, details={**target.details, "spectrum_with_seed": seed})
