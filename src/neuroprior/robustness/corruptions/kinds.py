"""The corruptions of CIFAR-10-C by name (Hendrycks & Dietterich 2019), at CIFAR's severities."""

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch

from neuroprior.robustness.corruptions import blurs, digital, noises, weather
from neuroprior.robustness.corruptions.filters import truncated
from neuroprior.robustness.corruptions.spatter import spatter
from neuroprior.robustness.images import Images, checked_images, random_of
from neuroprior.types import Float, InputError

UsualCorruption = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]
ExtraCorruption = Literal["speckle_noise", "gaussian_blur", "spatter", "saturate"]
CorruptionKind: TypeAlias = UsualCorruption | ExtraCorruption

USUAL_CORRUPTIONS: tuple[UsualCorruption, ...] = get_args(UsualCorruption)
EXTRA_CORRUPTIONS: tuple[ExtraCorruption, ...] = get_args(ExtraCorruption)
SEVERITIES = (1, 2, 3, 4, 5)

_SMALLEST = 16  # pixels a side: below it the published constants, in pixels, leave little of an image

_OF_KIND: dict[CorruptionKind, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": noises.gaussian_noise,
    "shot_noise": noises.shot_noise,
    "impulse_noise": noises.impulse_noise,
    "defocus_blur": blurs.defocus_blur,
    "glass_blur": blurs.glass_blur,
    "motion_blur": blurs.motion_blur,
    "zoom_blur": blurs.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "speckle_noise": noises.speckle_noise,
    "gaussian_blur": blurs.gaussian_blur,
    "spatter": spatter,
    "saturate": digital.saturate,
}
_COLOURED = ("frost", "spatter", "saturate")  # have a colour of their own: gray images are gray again only after them


def corrupted(
    images: Images, kind: CorruptionKind, severity: int, seed: int = 0
) -> Float[torch.Tensor, "image channel h w"]:
    """floor(255 f(x, severity, draw)) / 255, x in 8 bits: as CIFAR-10-C was made, with its constants for CIFAR.

    Images in [0, 1], gray (1 channel) or RGB (3), of 16 pixels a side or more; all lengths are in pixels, meant for
    32x32. Each draw comes from a generator seeded by the image's own pixels, the kind, the severity and `seed`. What
    differs from the published images: the draws; `frost` takes a generated texture in place of photographs.
    A gray image counts as three equal channels where the corruption has a colour (`frost`, `spatter`, `saturate`) and
    is turned gray again by luma; so `saturate` leaves it as it is at severities 1 to 3, and darkens it by 7 and 14 % at
    4 and 5. Noise is drawn once for its one channel, and JPEG stores it as gray.
    Raises `InputError` for other images, kinds or severities.
    """
    images, _ = checked_images("corruptions", images, np.zeros(len(images), dtype=np.int64))
    check_kinds((kind,), (severity,))
    return corrupted_pixels(eight_bit(images), kind, severity, seed)


def check_kinds(kinds: tuple[str, ...], severities: tuple[int, ...]) -> None:
    """Raise `InputError` for a corruption or a severity that there is not, for none, and for one named twice."""
    for kind in kinds:
        if kind not in _OF_KIND:
            raise InputError(f"corruptions: kind={kind!r} is not one of {', '.join(_OF_KIND)}")
    for severity in severities:
        if not isinstance(severity, int | np.integer) or isinstance(severity, bool) or severity not in SEVERITIES:
            raise InputError(f"corruptions: severity {severity!r}; give whole numbers, 1 to 5")
    for name, given in (("kinds", kinds), ("severities", severities)):
        if not given or len(set(given)) < len(given):
            raise InputError(f"corruptions: {name} are {list(given)}; give at least one, each once")


def eight_bit(images: torch.Tensor) -> np.ndarray:
    """Return the nearest of 256 levels. Raises `InputError` for images that are neither gray nor RGB, or too small."""
    channels, h, w = images.shape[1:]
    if channels not in (1, 3) or min(h, w) < _SMALLEST:
        raise InputError(
            f"corruptions: images are {(channels, h, w)}; give 1 or 3 channels and {_SMALLEST} pixels a side or more"
        )
    levels: np.ndarray = (255 * images.double().cpu()).round().to(torch.uint8).numpy()
    return levels


def corrupted_pixels(pixels: np.ndarray, kind: CorruptionKind, severity: int, seed: int) -> torch.Tensor:
    """`corrupted` of images that have been checked, and have 8 bits already."""
    gray = pixels.shape[1] == 1
    out = np.empty_like(pixels)
    for row, image in enumerate(pixels):
        random = random_of(image, f"{seed}/{kind}/{severity}")
        x = image / 255
        if gray and kind in _COLOURED:
            coloured = _OF_KIND[kind](np.repeat(x, 3, 0), severity, random).clip(0, 1)
            out[row] = truncated(np.tensordot(weather.LUMA, coloured, 1)[None])
        else:
            out[row] = truncated(_OF_KIND[kind](x, severity, random))
    return torch.from_numpy(out).float() / 255
