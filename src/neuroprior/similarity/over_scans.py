"""How much nearer one matrix comes to the recorded ones than another, with an interval over scans and images."""

from collections.abc import Sequence

import numpy as np

from neuroprior.types import Float, Float64, InputError

__all__ = ["bootstrap_over_scans"]

REPLICATES = 2000

Matrices = Float[np.ndarray, "_ _ _"]  # (scan, image, image), as `_checked` says where they are not


def bootstrap_over_scans(
    pairs: Sequence[tuple[Matrices, Matrices]], *, seed: int = 0, replicates: int = REPLICATES
) -> Float64[np.ndarray, "replicate comparison"]:
    """Mean over scans of r, of each comparison `(recorded, compared)`, in replicates that draw scans and images.

    In each replicate as many scans as there are are drawn with replacement, and as many images; r_s of a drawn scan is
    over pairs of two different images, an image drawn c times counting c times:

        w_ij = c_i c_j,  i < j,   r* = sum_s d_s r_s(w) / sum_s d_s

    Scans and images are crossed, not nested: all scans show the same images, so a replicate draws the images once, for
    all its scans. (Were they drawn anew in each scan, what they share would be averaged away, and the interval be too
    narrow for other images.) All comparisons see the same draws: the difference of two columns is paired, and its
    percentiles are the interval of the difference. For few scans it is too narrow: resampling k understates their
    variance by (k - 1) / k, and there is no t quantile; of one scan it is over images alone. Replicates in which a
    matrix does not vary, as of very few images, are NaN.

    Raises `InputError` where matrices are not of the same scans and images, or of fewer than 3 images.
    """
    shapes = {_checked(*pair) for pair in pairs}
    if len(shapes) != 1:
        raise InputError(
            f"bootstrap over scans: comparisons of {len(shapes)} sizes; give all the same scans and images"
        )
    ((n_scans, n_images),) = shapes
    rng = np.random.default_rng(seed)
    scans = rng.multinomial(n_scans, np.full(n_scans, 1 / n_scans), size=replicates) / n_scans
    images = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=replicates).astype(np.float64)
    means = np.empty((replicates, len(pairs)))
    for k, (recorded, compared) in enumerate(pairs):
        r = _drawn_correlations(recorded, compared, images)
        means[:, k] = np.where(scans > 0, r * scans, 0.0).sum(axis=1)  # a scan that is not drawn may be undefined
    return means


def _checked(recorded: Matrices, compared: Matrices) -> tuple[int, int]:
    n_scans, n_images = recorded.shape[:2]
    if recorded.shape != (n_scans, n_images, n_images) or compared.shape != recorded.shape or n_images < 3:
        raise InputError(
            f"bootstrap over scans: recorded {recorded.shape} and compared {compared.shape} matrices; give both as "
            "(scan, image, image), of the same scans and the same 3 or more images"
        )
    return n_scans, n_images


def _drawn_correlations(
    recorded: Matrices, compared: Matrices, counts: Float64[np.ndarray, "replicate image"]
) -> Float64[np.ndarray, "replicate scan"]:
    """r of each scan over pairs weighted by the product of their images' counts."""
    weight = counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1)
    r = np.empty((len(counts), len(recorded)))

    def mean(matrix: np.ndarray) -> np.ndarray:
        means: np.ndarray = ((counts @ matrix) * counts).sum(axis=1) / weight  # both triangles: symmetric
        return means

    with np.errstate(invalid="ignore", divide="ignore"):
        for s, (a, b) in enumerate(zip(recorded, compared, strict=True)):
            x, y = _centred(a), _centred(b)
            mx, my = mean(x), mean(y)
            vx, vy = mean(x * x) - mx**2, mean(y * y) - my**2
            varies = (vx > 1e-12) & (vy > 1e-12)
            r[:, s] = np.where(varies, (mean(x * y) - mx * my) / np.sqrt(vx * vy), np.nan)
    return r


def _centred(matrix: np.ndarray) -> np.ndarray:
    """Pairs less their mean and over their standard deviation, the diagonal 0: sums then lose no digits."""
    off = ~np.eye(len(matrix), dtype=bool)
    values = matrix[off].astype(np.float64)
    spread = values.std()
    out = np.zeros(matrix.shape)
    out[off] = (values - values.mean()) / (spread if spread > 0 else 1.0)
    return out
