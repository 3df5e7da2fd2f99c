"""How alike two targets are: by their pairs, and as geometries."""

from dataclasses import dataclass

import numpy as np

from neuroprior.types import AnyTarget, Float, Float64, InputError, SimilarityTarget
from neuroprior.types.arrays import rows_of
from neuroprior.types.given import refuse_other


@dataclass(frozen=True, slots=True)
class TargetComparison:
    """How alike two targets are on `n_images` common images; 1 for a target and itself.

    `pearson`, `spearman`: correlation of the pairs i < j, in [-1, 1]. `cka`, `procrustes`: of the centred kernels, in
    [0, 1]. NaN where a target is the same for every pair, so that nothing can be said.
    """

    n_images: int
    pearson: float
    spearman: float
    cka: float
    procrustes: float


def compare_targets(a: AnyTarget, b: AnyTarget, *, images: int = 2000, seed: int = 0) -> TargetComparison:
    """Compare S_a and S_b on the images that both hold, matched by id (their pixels are not seen).

    With A = H S_a H, B = H S_b H, H = 1 - 11^T / n: cka = <A, B> / (|A| |B|) (Kornblith et al. 2019) and
    procrustes = |A^(1/2) B^(1/2)|_* / sqrt(tr A tr B), the cosine of the Procrustes (Bures) angle between the
    configurations behind (Williams et al. 2021); negative eigenvalues, which are rounding, count as 0.

    Of more common images than `images`, that many are drawn with `seed`. Raises `InputError` for fewer than 3.
    """
    if images < 3:
        raise InputError(f"compare_targets: images is {images}; it must be 3 or more")
    for target in (a, b):
        refuse_other("compare_targets", target, SimilarityTarget, factored=True)
    common = np.intersect1d(a.image_ids, b.image_ids)
    if len(common) < 3:
        raise InputError(
            f"compare_targets: the targets of {len(a)} and {len(b)} images have {len(common)} ids in common; at least "
            "3 are needed: make both from the same stimuli"
        )
    if len(common) > images:
        common = common[np.sort(np.random.default_rng(seed).choice(len(common), size=images, replace=False))]
    s_a, s_b = (t.block(rows_of(t.image_ids, common, "target")).astype(np.float64) for t in (a, b))
    pairs = np.triu_indices(len(common), 1)
    x, y = s_a[pairs], s_b[pairs]
    k_a, k_b = _centred(s_a), _centred(s_b)
    return TargetComparison(
        n_images=len(common),
        pearson=pair_correlation(x, y),
        spearman=pair_correlation(_ranks(x), _ranks(y)),
        cka=_share(float((k_a * k_b).sum()), float(np.linalg.norm(k_a) * np.linalg.norm(k_b))),
        procrustes=_procrustes(k_a, k_b),
    )


def _centred(s: Float64[np.ndarray, "image image"]) -> Float64[np.ndarray, "image image"]:
    """H S H."""
    row = s.mean(axis=0)
    centred: np.ndarray = s - row - row[:, None] + row.mean()
    return centred


def _procrustes(a: Float64[np.ndarray, "image image"], b: Float64[np.ndarray, "image image"]) -> float:
    # A = X X^T and B = Y Y^T: |A^(1/2) B^(1/2)|_* = |X^T Y|_*, as both differ by rotations only.
    x, y = _configuration(a), _configuration(b)
    nuclear = float(np.linalg.svd(x.T @ y, compute_uv=False).sum())
    return _share(nuclear, float(np.linalg.norm(x) * np.linalg.norm(y)))


def _configuration(kernel: Float64[np.ndarray, "image image"]) -> Float64[np.ndarray, "image rank"]:
    values, vectors = np.linalg.eigh(kernel)
    real = values > 1e-12 * len(values)
    points: np.ndarray = vectors[:, real] * np.sqrt(values[real])
    return points


def _share(part: float, whole: float) -> float:
    """Return part / whole in [0, 1]; NaN where the whole is rounding."""
    return float(np.clip(part / whole, 0, 1)) if whole > 1e-9 else float("nan")


def pair_correlation(x: Float[np.ndarray, " pair"], y: Float[np.ndarray, " pair"]) -> float:
    """Pearson's r of two sets of similarities, in float64; NaN where either does not vary."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.clip(np.corrcoef(x.astype(np.float64), y.astype(np.float64))[0, 1], -1, 1))


def _ranks(x: Float64[np.ndarray, " pair"]) -> Float64[np.ndarray, " pair"]:
    """Place of each value among all, ties sharing the mean of theirs."""
    _, where, counts = np.unique(x, return_inverse=True, return_counts=True)
    places: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[where]
    return places
