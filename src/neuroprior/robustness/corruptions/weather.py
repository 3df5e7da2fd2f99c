"""Weather of CIFAR-10-C: snow, frost, fog and brightness."""

import math
from typing import NamedTuple

import numpy as np

from neuroprior.robustness.corruptions.filters import enlarging, rounded, smeared, truncated
from neuroprior.types import Float64

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601


class Snow(NamedTuple):
    """Flakes: Gaussian noise (mean, spread), enlarged, what is below `least` gone, blown along; and what x keeps."""

    mean: float
    spread: float
    zoom: float
    least: float
    radius: int
    sigma: float
    kept: float


class Frost(NamedTuple):
    """How much stays of the image, and how much frost comes to it."""

    kept: float
    frost: float


class Fog(NamedTuple):
    """The fog's height, and how much less its detail varies each time it is half as large."""

    height: float
    decay: float


class Plate(NamedTuple):
    """What patches of one photograph of frost look like, shrunk to a fifth: their mean colour, how far a patch's mean
    brightness is from it, the standard deviation within a patch, and the power of frequency that its spectrum falls by.
    """

    red: float
    green: float
    blue: float
    patches: float
    contrast: float
    slope: float


SNOW = (
    Snow(0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
    Snow(0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
    Snow(0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
    Snow(0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
    Snow(0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
)
FROST = (Frost(1.0, 0.2), Frost(1.0, 0.3), Frost(0.9, 0.4), Frost(0.85, 0.4), Frost(0.75, 0.45))
FOG = (Fog(0.2, 3.0), Fog(0.5, 3.0), Fog(0.75, 2.5), Fog(1.0, 2.0), Fog(1.5, 1.75))
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)  # of the pixel range

PLATES = (  # measured on the five photographs that CIFAR-10-C draws from; the third is the second
    Plate(0.305, 0.582, 0.647, 0.043, 0.057, -1.69),
    Plate(0.776, 0.794, 0.830, 0.033, 0.071, -1.33),
    Plate(0.776, 0.794, 0.830, 0.033, 0.071, -1.33),
    Plate(0.559, 0.617, 0.667, 0.041, 0.101, -1.02),
    Plate(0.407, 0.451, 0.497, 0.066, 0.133, -1.22),
)


def snow(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """k x + (1 - k) max(x, 1.5 luma(x) + 0.5) + flakes + flakes turned by 180 degrees.

    Flakes are blown along a direction drawn from -135 to -45 degrees.
    """
    fall = SNOW[severity - 1]
    h, w = image.shape[1:]
    flakes = enlarging(h, fall.zoom) @ random.normal(fall.mean, fall.spread, (h, w)) @ enlarging(w, fall.zoom).T
    flakes = truncated(np.where(flakes < fall.least, 0, flakes)) / 255
    flakes = rounded(smeared(flakes, fall.radius, fall.sigma, random.uniform(-135, -45)))
    luma = image if len(image) == 1 else np.tensordot(LUMA, image, 1)[None]
    whitened = np.maximum(image, 1.5 * luma + 0.5)
    snowy: np.ndarray = fall.kept * image + (1 - fall.kept) * whitened + flakes + flakes[::-1, ::-1]
    return snowy


def frost(
    image: Float64[np.ndarray, "3 h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "3 h w"]:
    """k x + c frost, the frost a generated texture (`frost_texture`), where CIFAR-10-C has photographs."""
    kept, covered = FROST[severity - 1]
    return kept * image + covered * frost_texture((image.shape[1], image.shape[2]), random)


def frost_texture(size: tuple[int, int], random: np.random.Generator) -> Float64[np.ndarray, "3 h w"]:
    """A Gaussian random field of power |f|^slope, with the colour, contrast and slope of a photograph drawn of five.

    It has the photographs' first two moments, but none of their crystals.
    """
    plate = PLATES[random.integers(len(PLATES))]
    h, w = size
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w))
    frequency[0, 0] = 1
    amplitude = frequency ** (plate.slope / 2)
    amplitude[0, 0] = 0
    field = np.fft.ifft2(amplitude * np.fft.fft2(random.standard_normal(size))).real
    field = plate.contrast * field / math.sqrt((amplitude**2).mean()) + random.normal(0, plate.patches)
    colour = np.array([plate.red, plate.green, plate.blue])
    texture: np.ndarray = (colour[:, None, None] + field).clip(0, 1)
    return texture


def fog(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """(x + c plasma) max(x) / (max(x) + c), plasma from 0 to 1 by midpoint displacement."""
    height, decay = FOG[severity - 1]
    h, w = image.shape[1:]
    brightest = image.max()
    foggy: np.ndarray = (image + height * _plasma(max(h, w), decay, random)[:h, :w]) * brightest / (brightest + height)
    return foggy


def _plasma(size: int, decay: float, random: np.random.Generator) -> np.ndarray:
    """Diamonds and squares on a torus (Fournier et al. 1982): a new point is its four neighbours' mean + U(-s^2, s^2).

    s is 100 at first, and is divided by `decay` each time that the grid is doubled.
    """
    heights, spread = np.zeros((1, 1)), 100.0
    while len(heights) < size:
        n = len(heights)
        below, right = np.roll(heights, -1, 0), np.roll(heights, -1, 1)
        moved = random.uniform(-(spread**2), spread**2, (3, n, n))
        middle = (heights + below + right + np.roll(below, -1, 1)) / 4 + moved[0]
        doubled = np.empty((2 * n, 2 * n))
        doubled[::2, ::2], doubled[1::2, 1::2] = heights, middle
        doubled[::2, 1::2] = (heights + right + middle + np.roll(middle, 1, 0)) / 4 + moved[1]
        doubled[1::2, ::2] = (heights + below + middle + np.roll(middle, 1, 1)) / 4 + moved[2]
        heights, spread = doubled, spread / decay
    heights -= heights.min()
    plasma: np.ndarray = heights / heights.max()
    return plasma


def brightness(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """x min(v + c, 1) / v, v the largest channel (HSV's value); black becomes gray of c. No draw."""
    value = image.max(0)
    brighter = np.minimum(value + BRIGHTNESS[severity - 1], 1)
    black = value == 0
    bright: np.ndarray = np.where(black, brighter, image * (brighter / np.where(black, 1, value)))
    return bright
