"""Spatter of CIFAR-10-C: drops of water, or of mud, on the lens."""

from typing import NamedTuple

import numpy as np

from neuroprior.robustness.corruptions.filters import smooth
from neuroprior.types import Float64


class Spatter(NamedTuple):
    """Liquid: noise (mean, spread) smoothed by `sigma` pixels, drops where it is at least `least`.

    `depth`: how strong water is, or what smooths mud, in pixels.
    """

    mean: float
    spread: float
    sigma: float
    least: float
    depth: float
    mud: bool


SPATTER = (
    Spatter(0.62, 0.1, 0.7, 0.7, 0.5, False),
    Spatter(0.65, 0.1, 0.8, 0.7, 0.5, False),
    Spatter(0.65, 0.3, 1.0, 0.69, 0.5, False),
    Spatter(0.65, 0.1, 0.7, 0.69, 0.6, True),
    Spatter(0.65, 0.1, 0.5, 0.68, 0.6, True),
)

WATER = np.array([175, 238, 238])[:, None, None] / 255  # pale turquoise
MUD = np.array([63, 42, 20])[:, None, None] / 255  # brown

_FAR = 20  # pixels from an edge, beyond which all is alike
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


def spatter(
    image: Float64[np.ndarray, "3 h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "3 h w"]:
    """Water: x + c m water, m = liquid times its embossed distance from the drops' edges, 1 at most; or mud:
    (1 - m) x + m mud, m = G * (where liquid is), 0 below 0.8.

    Canny's edges, distances and histogram are OpenCV's of the published code, written out.
    """
    drops = SPATTER[severity - 1]
    noise = random.normal(drops.mean, drops.spread, image.shape[1:])
    liquid = smooth(noise, drops.sigma)
    liquid = np.where(liquid < drops.least, 0, liquid)
    if drops.mud:
        cover = smooth((liquid > drops.least).astype(np.float64), drops.depth)
        cover = np.where(cover < 0.8, 0, cover)
        dirty: np.ndarray = (1 - cover) * image + cover * MUD
        return dirty
    levels = np.floor(255 * liquid) % 256  # above 1 it starts at black again: the published cast to 8 bits
    shine = levels * _embossed(levels)
    highest = shine.max()
    return image + drops.depth * shine / highest * WATER if highest > 0 else image


def _embossed(levels: np.ndarray) -> np.ndarray:
    from scipy.ndimage import correlate  # type: ignore[import-untyped]

    distance = np.minimum(_distance(_edges(levels, 50, 150)), _FAR)
    equalised = _equalised(np.floor(_box(distance)).astype(np.uint8))
    embossed: np.ndarray = np.rint(_box(correlate(equalised, _EMBOSS, mode="mirror").clip(0, 255)))
    return embossed


def _distance(edges: np.ndarray) -> np.ndarray:
    """To the nearest edge by king's and knight's moves of 1, 1.4 and 2.1969 (Borgefors 1986)."""
    from scipy.ndimage import distance_transform_edt

    if not edges.any():
        return np.full(edges.shape, np.inf)
    nearest = distance_transform_edt(~edges, return_distances=False, return_indices=True)
    short, long = np.sort(np.abs(nearest - np.indices(edges.shape)), axis=0)
    flat, steep = long - 2 * short + 2.1969 * short, 2.1969 * (long - short) + 1.4 * (2 * short - long)
    distance: np.ndarray = np.where(2 * short <= long, flat, steep)
    return distance


def _box(values: np.ndarray) -> np.ndarray:
    from scipy.ndimage import uniform_filter

    mean: np.ndarray = uniform_filter(values.astype(np.float64), 3, mode="mirror")
    return mean + 1e-9  # what is whole stays whole when cut


def _equalised(levels: np.ndarray) -> np.ndarray:
    """255 (N(<= level) - N(lowest)) / (N - N(lowest)), N counting pixels: levels spread by their histogram."""
    below = np.bincount(levels.ravel(), minlength=256).cumsum()
    lowest = below[levels.min()]
    if lowest == levels.size:
        return levels.astype(np.float64)
    spread: np.ndarray = np.rint(255 * (below - lowest) / (levels.size - lowest))[levels]
    return spread


def _edges(levels: np.ndarray, low: int, high: int) -> np.ndarray:
    """Canny (1986): |dx| + |dy| of Sobel largest across the edge, above `low`, and joined to some above `high`."""
    from scipy.ndimage import label, sobel

    dx, dy = (sobel(levels, axis, mode="nearest") for axis in (1, 0))
    size = np.abs(dx) + np.abs(dy)
    around = np.pad(size, 1)
    h, w = size.shape

    def at(down: int, right: int) -> np.ndarray:
        there: np.ndarray = around[1 + down : 1 + down + h, 1 + right : 1 + right + w]
        return there

    flat, steep = np.tan(np.pi / 8) * np.abs(dx), np.tan(3 * np.pi / 8) * np.abs(dx)
    across = (size > at(0, -1)) & (size >= at(0, 1))
    along = (size > at(-1, 0)) & (size >= at(1, 0))
    falling = (size > at(-1, -1)) & (size > at(1, 1))
    rising = (size > at(-1, 1)) & (size > at(1, -1))
    slanting = np.where(np.sign(dx) * np.sign(dy) < 0, rising, falling)
    largest = np.where(np.abs(dy) < flat, across, np.where(np.abs(dy) > steep, along, slanting))
    candidates = largest & (size > low)
    pieces, _ = label(candidates, np.ones((3, 3)))
    strong = np.unique(pieces[candidates & (size > high)])
    kept: np.ndarray = np.isin(pieces, strong[strong > 0])
    return kept
