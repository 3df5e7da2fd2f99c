"""Stimuli from a file, and the photographs that are always at hand."""

import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from neuroprior.recordings.archive import read_archive
from neuroprior.recordings.formats.hdf5 import hdf5_root
from neuroprior.types import InputError, Stimuli, Tier, UInt8

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["holds_responses", "load_stimuli", "packaged_photographs"]

_MAKE = "write it with numpy.savez(file, images=..., names=np.asarray(names, str), tier=...)"


def load_stimuli(path: str | os.PathLike[str], tier: Tier | None = None) -> Stimuli:
    """Read `images` uint8 `(image, height, width)` and `names` (unique strings) from an .npz file; never unpickles.

    With `tier`, only the images that the file's field `tier` puts there ("train", "validation" or "oracle").
    Raises `InputError`, one line naming file, field and mend, for every file that is not so.
    """
    file = Path(path)
    if tier is not None and tier not in get_args(Tier):
        raise InputError(f"{file}: tier {tier!r} is not one of {', '.join(get_args(Tier))}")
    needed, optional = (("images", "names"), ("tier",)) if tier is None else (("images", "names", "tier"), ())
    try:
        fields = read_archive(file, needed, optional, mend=_MAKE)
    except InputError:
        if holds_responses(file):
            raise InputError(f"{file}: a recording, not stimuli; its images are load_scan(path).stimuli") from None
        raise
    pixels, names, tiers = fields["images"], fields["names"], fields.get("tier")
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise InputError(
            f"{file}: field 'images' is {pixels.dtype} {pixels.shape}, not uint8 (image, height, width); "
            "convert colour to gray and scale to 0..255"
        )
    if names.shape != (len(pixels),) and names.shape == pixels.shape[2:]:
        raise InputError(
            f"{file}: field 'images' is {pixels.dtype} {pixels.shape} for {len(names)} names; looks like (height, "
            "width, image): use np.moveaxis(images, 2, 0)"
        )
    for name, value in (("names", names), ("tier", tiers)):
        if value is not None and (value.dtype.kind != "U" or value.shape != (len(pixels),)):
            raise InputError(
                f"{file}: field {name!r} is {value.dtype} {value.shape}, not {len(pixels)} strings; give one an image"
                f"{f', {name}.astype(str)' if value.dtype.kind in 'iuS' else ''}"
            )
    if tiers is not None:
        unknown = sorted(set(np.unique(tiers).tolist()) - set(get_args(Tier)))
        if unknown:
            raise InputError(f"{file}: field 'tier' holds {unknown[0]!r}; use only {', '.join(get_args(Tier))}")
        if tier is not None:
            pixels, names = pixels[tiers == tier], names[tiers == tier]
    if pixels.size == 0:
        where = "" if tier is None else f" of tier {tier!r}"
        raise InputError(f"{file}: field 'images' holds no pixels{where}; {_MAKE}")
    try:
        return Stimuli(names, pixels)
    except InputError as error:
        raise InputError(f"{file}: field 'names': {error}") from None


def holds_responses(place: Path) -> bool:
    """Whether this is a recording, of whatever format. Quick, and never raises."""
    if place.is_dir():
        return (place / "data" / "responses").is_dir()
    root = hdf5_root(place)
    if root is not None:
        return not root.isdisjoint(("responses", "processing"))  # the latter in NWB
    try:
        with zipfile.ZipFile(place) as archive:
            return any(re.search(r"^(responses|sp)\.npy$|(^|/)data/responses/", name) for name in archive.namelist())
    except Exception:  # what is raised depends on the bytes that are damaged; what is no archive is no recording either
        return False


@dataclass(frozen=True, slots=True)
class _Photograph:
    """A photograph that scikit-image ships, free to use: CC0, public domain, or no known copyright restrictions."""

    name: str
    file: str
    licence: str


# Those of `skimage.data` that are photographs and whose docstring states a licence ('moon' states none).
_PHOTOGRAPHS = (
    _Photograph("astronaut", "astronaut.png", "public domain (NASA)"),
    _Photograph("brick", "brick.png", "CC0 (CC0Textures)"),
    _Photograph("camera", "camera.png", "CC0 (Lav Varshney)"),
    _Photograph("cat", "chelsea.png", "CC0 (Stefan van der Walt)"),
    _Photograph("clock", "clock_motion.png", "public domain (Stefan van der Walt)"),
    _Photograph("coffee", "coffee.png", "CC0 (Rachel Michetti)"),
    _Photograph("coins", "coins.png", "no known copyright restrictions (Brooklyn Museum)"),
    _Photograph("grass", "grass.png", "CC0 (linolafett)"),
    _Photograph("gravel", "gravel.png", "CC0 (CC0Textures)"),
    _Photograph("hubble", "hubble_deep_field.jpg", "public domain (NASA)"),
    _Photograph("retina", "retina.jpg", "CC0 (Mikael Häggström)"),
    _Photograph("rocket", "rocket.jpg", "public domain (SpaceX)"),
)
_HEIGHT, _WIDTH = 36, 64
_HELD_OUT = 1 / 3  # the lowest third of every photograph is for oracle crops only
_LEAST_CONTRAST = 10.0  # gray levels: standard deviation below which a crop shows nothing (sky, black space)
_TRIES_A_CROP = 200  # the worst (the out-of-focus foot of the clock) takes about eight


def _gray(photograph: _Photograph) -> "Image.Image":
    from importlib.resources import files

    from PIL import Image

    # The file itself, not `skimage.data.astronaut()`: that would go to the network where the file is not on disk.
    source = files("skimage").joinpath("data", photograph.file)
    if not source.is_file():
        raise InputError(f"scikit-image does not ship {photograph.file} here; reinstall scikit-image (0.24 or later)")
    with source.open("rb") as file, Image.open(file) as image:
        return image.convert("L")  # ITU-R 601 luma


def _crops(strip: "Image.Image", n: int, rng: np.random.Generator) -> UInt8[np.ndarray, "crop 36 64"]:
    """`n` crops at random places, at scales from 1 to the largest that fits, log-uniform."""
    from PIL import Image

    largest = min(strip.height / _HEIGHT, strip.width / _WIDTH)
    crops = np.empty((n, _HEIGHT, _WIDTH), dtype=np.uint8)
    kept = 0
    for _ in range(_TRIES_A_CROP * n):
        if kept == n:
            break
        at_x, at_y, at_scale = rng.random(3)
        scale = largest**at_scale
        left, upper = at_x * (strip.width - scale * _WIDTH), at_y * (strip.height - scale * _HEIGHT)
        box = (left, upper, min(left + scale * _WIDTH, strip.width), min(upper + scale * _HEIGHT, strip.height))
        crops[kept] = np.asarray(strip.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC, box=box))
        kept += int(crops[kept].std() >= _LEAST_CONTRAST)
    if kept < n:
        raise InputError("packaged photographs: too few crops with contrast; reinstall scikit-image or ask for fewer")
    return crops


def packaged_photographs(
    tier: Tier | None = None, *, n_train: int = 900, n_oracle: int = 100, seed: int = 0
) -> Stimuli:
    """Gray 36x64 crops of the freely usable photographs that scikit-image ships; nothing is downloaded.

    ITU-R 601 luma; scales from native to the whole photograph, antialiased; crops without contrast are passed over.
    Returns `n_train` training images ("cat-003") and `n_oracle` held-out ones ("cat-oracle-003"), or only those of
    `tier`. Oracle crops come from the lowest third of each photograph, training crops from the rest: no pixel is in
    both. Asking for more keeps the crops that one had: an id means the same image whatever the numbers, for one seed.
    Raises `InputError` for negative numbers or where scikit-image's files are missing.
    """
    for what, value in (("n_train", n_train), ("n_oracle", n_oracle), ("seed", seed)):
        if value < 0:
            raise InputError(f"packaged photographs: {what} is {value}; it must be 0 or more")
    if tier not in (None, "train", "oracle"):
        raise InputError(f"packaged photographs: tier {tier!r} is not one of train, oracle")
    wanted = {"train": n_train, "oracle": n_oracle}
    # Dealt round, so that any first few images come from different photographs
    names: list[str] = []
    slots: dict[tuple[str, int], list[int]] = {}
    for tier_name, n in wanted.items():
        if tier in (None, tier_name):
            infix = "oracle-" if tier_name == "oracle" else ""
            for i in range(n):
                turn, photograph = divmod(i, len(_PHOTOGRAPHS))
                slots.setdefault((tier_name, photograph), []).append(len(names))
                names.append(f"{_PHOTOGRAPHS[photograph].name}-{infix}{turn:03d}")
    pixels = np.empty((len(names), _HEIGHT, _WIDTH), dtype=np.uint8)
    images = {photograph: _gray(_PHOTOGRAPHS[photograph]) for _, photograph in slots}
    for (tier_name, photograph), rows in slots.items():
        image = images[photograph]
        border = round(image.height * (1 - _HELD_OUT))
        held_out = tier_name == "oracle"
        # Cut apart before anything is resampled: the antialiasing filter reaches beyond the box that it is given
        strip = image.crop((0, border, image.width, image.height) if held_out else (0, 0, image.width, border))
        pixels[rows] = _crops(strip, len(rows), np.random.default_rng([seed, photograph, held_out]))
    return Stimuli(np.array(names, dtype=np.str_), pixels)
