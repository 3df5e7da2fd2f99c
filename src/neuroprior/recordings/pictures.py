"""Picture files of any kind -> 8-bit pixels: found, decoded, made opaque."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Mode", "eight_bit", "find_pictures", "reason"]

Mode = Literal["L", "RGB"]
"""Pillow's names for gray and for colour."""

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_BEHIND = 128  # gray level under transparent pixels: that of the screen between two images


def find_pictures(folder: Path) -> list[Path]:
    """All picture files in `folder` and the folders inside it, sorted by path; what is hidden is passed over."""
    found = []
    for file in folder.rglob("*"):
        part = file.relative_to(folder)
        if file.suffix.lower() in _SUFFIXES and not any(p.startswith(".") for p in part.parts) and file.is_file():
            found.append((part.parts, file))
    return [file for _, file in sorted(found)]


def eight_bit(image: "Image.Image", mode: Mode) -> "Image.Image":
    """Pillow's `convert(mode)`, with three kinds of pixels that it would spoil made right first.

    16-bit gray is divided by 257 and rounded (Pillow clips at 255). Transparent pixels show mid-gray (Pillow shows what
    is hidden there). CIELAB goes through RGB. Gray is ITU-R 601 luma. Raises `ValueError` for 32-bit pixels, whose
    range no file tells.
    """
    from PIL import Image

    if image.mode == mode and not image.has_transparency_data:
        return image
    # Pillow before 11 opens a 16-bit PNG as 32-bit integers
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8)).convert(mode)
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels of unknown range: save it as 8-bit")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        opaque = with_alpha.convert("RGB").convert(mode)
        behind = Image.new(mode, opaque.size, _BEHIND if mode == "L" else (_BEHIND,) * 3)
        return Image.composite(opaque, behind, with_alpha.getchannel("A"))
    return (image.convert("RGB") if image.mode == "LAB" else image).convert(mode)


def reason(error: Exception) -> str:
    """The first line of what a decoder said, for a message that names the file itself."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its text repeats the path
        return "not an image"
    return (str(error).splitlines() or [type(error).__name__])[0]
