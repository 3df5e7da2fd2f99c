"""Linear filters that several corruptions share: of one axis, as a matrix; along one direction, as ImageMagick's."""

import math
from functools import cache

import numpy as np

from neuroprior.types import Float64

_ROUNDING = 1e-6  # in gray levels: what falls short of a whole one by so little is that one


def truncated(image: np.ndarray) -> np.ndarray:
    """floor(255 x), x cut to [0, 1]: how CIFAR-10-C comes to its 8 bits."""
    return np.floor(255 * image.clip(0, 1) + _ROUNDING).astype(np.uint8)


def rounded(image: np.ndarray) -> np.ndarray:
    """x cut to [0, 1], at the nearest of the 256 levels."""
    nearest: np.ndarray = np.rint(255 * image.clip(0, 1)) / 255
    return nearest


@cache
def smoothing(size: int, sigma: float, mode: str = "nearest", truncate: float = 4.0) -> np.ndarray:
    """Return the matrix that smooths `size` pixels by a Gaussian; `mode` as `scipy.ndimage`'s, at the border."""
    from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]

    matrix: np.ndarray = gaussian_filter1d(np.eye(size), sigma, axis=0, mode=mode, truncate=truncate)
    return matrix


def smooth(
    image: Float64[np.ndarray, "... h w"], sigma: float, mode: str = "nearest", truncate: float = 4.0
) -> Float64[np.ndarray, "... h w"]:
    """G_sigma * x, cut off at `truncate` sigma."""
    down, across = (smoothing(size, sigma, mode, truncate) for size in image.shape[-2:])
    smoothed: np.ndarray = down @ image @ across.T
    return smoothed


@cache
def enlarging(size: int, factor: float) -> np.ndarray:
    """Return the matrix that enlarges the middle of `size` pixels by `factor`, linearly, to `size` pixels."""
    from scipy.ndimage import zoom

    kept = math.ceil(size / factor)
    first = (size - kept) // 2
    enlarged = zoom(np.eye(size)[first : first + kept], (factor, 1), order=1)
    trim = (len(enlarged) - size) // 2
    matrix: np.ndarray = enlarged[trim : trim + size]
    return matrix


def smeared(
    image: Float64[np.ndarray, "... h w"], radius: int, sigma: float, degrees: float
) -> Float64[np.ndarray, "... h w"]:
    """sum_i k_i x(p + round(i u)), k_i ~ exp(-i^2 / 2 sigma^2), i = 0 ... 2 radius, u the direction of `degrees`.

    ImageMagick's motion blur: half a Gaussian, whole pixels, beyond the border the pixel at the border.
    """
    h, w = image.shape[-2:]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    down, across = (
        np.ceil(steps * part - 0.5).astype(int)
        for part in (math.sin(math.radians(degrees)), math.cos(math.radians(degrees)))
    )
    out = np.zeros_like(image)
    for weight, dy, dx in zip(weights, down, across, strict=True):
        rows, columns = (np.arange(h) + dy).clip(0, h - 1), (np.arange(w) + dx).clip(0, w - 1)
        out += weight * image[..., rows[:, None], columns]
    return out
