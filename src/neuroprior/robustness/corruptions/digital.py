"""What processing does to a picture in CIFAR-10-C: contrast, saturation, elastic transforms, pixels, JPEG."""

from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neuroprior.robustness.corruptions.filters import smooth, truncated
from neuroprior.types import Float64

if TYPE_CHECKING:
    from PIL import Image


class Elastic(NamedTuple):
    """In pixels: how far local displacements go, the sigma that smooths them, and how far three corners are drawn."""

    alpha: float
    sigma: float
    corners: float


class Saturation(NamedTuple):
    """What HSV's saturation is multiplied by, and what is added."""

    times: float
    plus: float


CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # what is left of it
ELASTIC_TRANSFORM = (  # 32 pixels times the published shares
    Elastic(0.0, 0.0, 32 * 0.08),
    Elastic(32 * 0.05, 32 * 0.2, 32 * 0.07),
    Elastic(32 * 0.08, 32 * 0.06, 32 * 0.06),
    Elastic(32 * 0.1, 32 * 0.04, 32 * 0.05),
    Elastic(32 * 0.1, 32 * 0.03, 32 * 0.03),
)
PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)  # of the sides
JPEG_COMPRESSION = (80, 65, 58, 50, 40)  # quality
SATURATE = (
    Saturation(0.3, 0.0),
    Saturation(0.1, 0.0),
    Saturation(1.5, 0.0),
    Saturation(2.0, 0.1),
    Saturation(2.5, 0.2),
)


def contrast(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """c (x - mean) + mean, of each channel. No draw."""
    mean = image.mean((1, 2), keepdims=True)
    flatter: np.ndarray = CONTRAST[severity - 1] * (image - mean) + mean
    return flatter


def saturate(
    image: Float64[np.ndarray, "3 h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "3 h w"]:
    """v - (v - x) s' / s in HSV: value v, saturation s = 1 - min(x) / v, s' = min(a s + b, 1). No draw.

    Gray has no hue and counts as red, as scikit-image has it: where b > 0, it turns reddish.
    """
    times, plus = SATURATE[severity - 1]
    value = image.max(0)
    depth = value - image.min(0)
    saturation = depth / np.where(value > 0, value, 1)
    gray = depth == 0
    # how far each channel lies below the largest, 0 to 1: that of pure red for gray
    below = np.where(gray, np.array([0.0, 1.0, 1.0])[:, None, None], (value - image) / np.where(gray, 1, depth))
    saturated: np.ndarray = value - below * value * np.minimum(times * saturation + plus, 1)
    return saturated


def elastic_transform(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """x(A p + alpha G_sigma * U(-1, 1)): three points of a right angle are moved by U(-c, c), A undoes that.

    Two bilinear interpolations, one after the other: the affine one mirrors at the border pixels' middle, the other at
    their rim.
    """
    from scipy.ndimage import map_coordinates  # type: ignore[import-untyped]

    alpha, sigma, corners = ELASTIC_TRANSFORM[severity - 1]
    h, w = image.shape[1:]
    leg = min(h, w) // 3
    middle = np.array([h // 2, w // 2])
    before = middle + leg * np.array([[1, 1], [-1, 1], [-1, -1]])
    after = before + random.uniform(-corners, corners, before.shape)
    # rows [y, x, 1] -> [y, x]; the transform takes `before` to `after`, so pixels come from the other way
    affine = np.linalg.solve(np.c_[after, np.ones(3)], before)
    places = np.indices((h, w)).astype(np.float64)
    origins = np.einsum("ahw,ab->bhw", np.stack([*places, np.ones((h, w))]), affine)
    shifts = alpha * smooth(random.uniform(-1, 1, (2, h, w)), sigma, "reflect", 3.0) if alpha > 0 else np.zeros(1)
    moved = [map_coordinates(channel, origins, order=1, mode="mirror") for channel in image]
    if alpha > 0:
        moved = [map_coordinates(channel, places + shifts, order=1, mode="reflect") for channel in moved]
    return np.stack(moved)


def pixelate(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """Shrunk to int(c side) by Pillow's box filter, and enlarged again by it. No draw."""
    from PIL import Image

    share = PIXELATE[severity - 1]
    h, w = image.shape[1:]
    small = _picture(image).resize((int(share * w), int(share * h)), Image.Resampling.BOX)
    return _values(small.resize((w, h), Image.Resampling.BOX))


def jpeg_compression(
    image: Float64[np.ndarray, "channel h w"], severity: int, random: np.random.Generator
) -> Float64[np.ndarray, "channel h w"]:
    """Through Pillow's JPEG of quality c: a gray image as gray, colour at half the resolution. No draw."""
    from PIL import Image

    file = BytesIO()
    _picture(image).save(file, "JPEG", quality=JPEG_COMPRESSION[severity - 1])
    with Image.open(file) as picture:
        return _values(picture)


def _picture(image: np.ndarray) -> "Image.Image":
    from PIL import Image

    pixels = truncated(image)
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def _values(picture: "Image.Image") -> np.ndarray:
    pixels = np.asarray(picture) / 255
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
