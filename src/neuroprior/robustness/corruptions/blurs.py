"""Blur of CIFAR-10-C: by lens, glass, motion and zoom."""

from functools import cache
from typing import NamedTuple

import numpy as np

from neuroprior.robustness.corruptions.filters import enlarging, rounded, smeared, smooth, truncated
from neuroprior.types import Float64


class Disk(NamedTuple):
    """A lens out of focus: its disk's radius, and the sigma of the Gaussian that softens it, in pixels."""

    radius: float
    rim: float


class Glass(NamedTuple):
    """Glass: a Gaussian's sigma, how far a pixel is shifted at most, in pixels; and how often."""

    sigma: float
    shift: int
    times: int


class Motion(NamedTuple):
    """Motion: how far it reaches at least, and the sigma of its half Gaussian, in pixels."""

    radius: int
    sigma: float


DEFOCUS_BLUR = (Disk(0.3, 0.4), Disk(0.4, 0.5), Disk(0.5, 0.6), Disk(1.0, 0.2), Disk(1.5, 0.1))
GLASS_BLUR = (Glass(0.05, 1, 1), Glass(0.25, 1, 1), Glass(0.4, 1, 1), Glass(0.25, 1, 2), Glass(0.4, 1, 2))
MOTION_BLUR = (Motion(6, 1.0), Motion(6, 1.5), Motion(6, 2.0), Motion(8, 2.0), Motion(9, 2.5))
ZOOM_BLUR = (1.06, 1.11, 1.16, 1.21, 1.26)  # where the magnifications 1, 1.01, 1.02, ... end
GAUSSIAN_BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)  # sigma in pixels


def defocus_blur(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """x * disk * Gaussian of 3x3 pixels, mirrored at the border. No draw."""
    from scipy.ndimage import correlate  # type: ignore[import-untyped]

    blurred: np.ndarray = correlate(image, _disk(DEFOCUS_BLUR[severity - 1])[None], mode="mirror")
    return blurred


def glass_blur(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """G * (pixels that changed places) * G, of 8 bits between the two Gaussians.

    Each pixel but a rim takes the value of itself or of its neighbour above, to the left, or both. The published code
    means to swap the two; its swap of two views of one array copies, and so do the published images.
    """
    sigma, shift, times = GLASS_BLUR[severity - 1]
    x = truncated(smooth(image, sigma)) / 255
    h, w = x.shape[1:]
    rows, columns = np.arange(shift + 1, h)[:, None], np.arange(shift + 1, w)
    for _ in range(times):
        down, across = random.integers(-shift, shift, (2, len(rows), len(columns)))
        # sources lie before their targets, which the published loop visits last to first: none is read when changed
        x[:, rows, columns] = x[:, rows + down, columns + across]
    return smooth(x, sigma)


def motion_blur(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """Half a Gaussian along a direction drawn from -45 to 45 degrees."""
    radius, sigma = MOTION_BLUR[severity - 1]
    return rounded(smeared(image, radius, sigma, random.uniform(-45, 45)))


def zoom_blur(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """(x + sum_z zoom_z(x)) / (n + 1) over n magnifications z. No draw."""
    down, across = (_zooms(size, ZOOM_BLUR[severity - 1]) for size in image.shape[1:])
    zoomed = down @ image[:, None] @ across.transpose(0, 2, 1)
    blurred: np.ndarray = (image + zoomed.sum(1)) / (len(down) + 1)
    return blurred


def gaussian_blur(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """G_sigma * x. No draw."""
    return smooth(image, GAUSSIAN_BLUR[severity - 1])


@cache
def _zooms(size: int, end: float) -> np.ndarray:
    return np.stack([enlarging(size, factor) for factor in np.arange(1, end, 0.01).tolist()])


@cache
def _disk(lens: Disk) -> np.ndarray:
    from scipy.ndimage import correlate

    across = np.arange(-3, 4)
    disk = (across**2 + across[:, None] ** 2 <= lens.radius**2).astype(np.float64)
    rim = np.exp(-np.array([1.0, 0.0, 1.0]) / (2 * lens.rim**2))
    softened: np.ndarray = correlate(disk / disk.sum(), np.outer(rim, rim) / rim.sum() ** 2, mode="constant")
    return softened
