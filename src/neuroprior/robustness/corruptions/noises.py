"""Noise of CIFAR-10-C: of the camera (gaussian, shot, speckle), of the wire (impulse)."""

import numpy as np

from neuroprior.types import Float64

GAUSSIAN_NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)  # standard deviation
SHOT_NOISE = (500, 250, 100, 75, 50)  # photons at white
IMPULSE_NOISE = (0.01, 0.02, 0.03, 0.05, 0.07)  # share of values
SPECKLE_NOISE = (0.06, 0.10, 0.12, 0.16, 0.20)  # standard deviation at white


def gaussian_noise(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """x + N(0, c^2), each value its own."""
    return image + random.normal(0, GAUSSIAN_NOISE[severity - 1], image.shape)


def shot_noise(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """Poisson(c x) / c."""
    photons = SHOT_NOISE[severity - 1]
    return random.poisson(photons * image) / photons


def impulse_noise(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """A share c of the values turns to 0 or 1, either as likely."""
    struck = random.random(image.shape) < IMPULSE_NOISE[severity - 1]
    return np.where(struck, random.random(image.shape) < 0.5, image)


def speckle_noise(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """x + x N(0, c^2)."""
    return image + image * random.normal(0, SPECKLE_NOISE[severity - 1], image.shape)
