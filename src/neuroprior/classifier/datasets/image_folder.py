"""One folder a class: the layout of torchvision's ImageFolder."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuroprior.classifier.datasets.labelled import Color, LabelledImages, mode_of
from neuroprior.recordings.pictures import Mode, eight_bit, find_pictures, reason
from neuroprior.types import InputError

__all__ = ["check_image_folder", "load_image_folder"]

Size = tuple[int, int]


def load_image_folder(
    folder: str | os.PathLike[str], color: Color = "gray", n: int | None = None, size: Size | None = None
) -> LabelledImages:
    """Read `folder/CLASS/*.png`, .jpg and so on (folders inside a class too); classes and files sorted by name.

    `n`: only so many images, the first of every class in turn, so that all classes are alike in number while they
    last. `size` (height, width): each image is scaled to cover it (Lanczos, antialiased) and its centre is kept;
    without it all must be of one size. `gray` is ITU-R 601 luma. Hidden files are passed over; a camera's rotation
    mark is not heeded, as in torchvision. Raises `InputError` naming a file that cannot be decoded or differs in size.
    """
    root, mode = Path(folder), mode_of(color)
    classes, files, labels = _listed(root, n, size)
    pixels: np.ndarray | None = None
    for row, file in enumerate(files):
        decoded = _decoded(file, mode, size)
        if pixels is None:
            pixels = np.empty((len(files), *decoded.shape), dtype=np.uint8)
        _same_size(file, decoded.shape[1:], files[0], pixels.shape[2:])
        pixels[row] = decoded
    assert pixels is not None
    return LabelledImages(pixels, labels, classes)


def check_image_folder(folder: str | os.PathLike[str], n: int | None = None, size: Size | None = None) -> None:
    """Raise `InputError` as `load_image_folder` would, from the images' headers alone."""
    from PIL import Image

    _, files, _ = _listed(Path(folder), n, size)
    first: tuple[int, int] | None = None
    for file in files:
        try:
            with Image.open(file) as image:
                found = (image.height, image.width)
        except Exception as error:  # a damaged file raises whatever its decoder was at
            raise InputError(_undecodable(file, error)) from None
        first = first or found
        if size is None:
            _same_size(file, found, files[0], first)


def count_image_folder(folder: str | os.PathLike[str]) -> int:
    """Return how many images the folder lists; none is opened."""
    return len(_listed(Path(folder), None, None)[1])


def _listed(root: Path, n: int | None, size: Size | None) -> tuple[tuple[str, ...], list[Path], np.ndarray]:
    """Return the classes' names, the files and each one's class."""
    if n is not None and n < 1:
        raise InputError(f"{root}: n is {n}; it must be 1 or more")
    if size is not None and min(size) < 1:
        raise InputError(f"{root}: size is {size[0]}x{size[1]}; height and width must be 1 or more")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give one that holds a folder of images for each class")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise InputError(f"{root}: holds no folders; put the images of each class in a folder of its name")
    of_class = [find_pictures(entry) for entry in folders]
    for entry, found in zip(folders, of_class, strict=True):
        if not found:
            raise InputError(f"{entry}: holds no images; put some there, or remove the folder: each is a class")
    taken = _in_turn([len(found) for found in of_class], n)
    files = [file for found, k in zip(of_class, taken, strict=True) for file in found[:k]]
    labels = np.repeat(np.arange(len(folders), dtype=np.int64), taken)
    return tuple(entry.name for entry in folders), files, labels


def _in_turn(held: Sequence[int], n: int | None) -> np.ndarray:
    """How many of each class, where classes give one image each in turn until there are `n` or none is left."""
    of_class = np.repeat(np.arange(len(held)), held)
    turn = np.concatenate([np.arange(h) for h in held])
    return np.bincount(of_class[np.lexsort((of_class, turn))[:n]], minlength=len(held))


def _decoded(file: Path, mode: Mode, size: Size | None) -> np.ndarray:
    """Return `(channel, height, width)`."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            flat = eight_bit(image, mode)
            if size is not None:
                flat = ImageOps.fit(flat, size[::-1], Image.Resampling.LANCZOS)
            decoded = np.asarray(flat)
    except Exception as error:  # a damaged file raises whatever its decoder was at
        raise InputError(_undecodable(file, error)) from None
    return decoded[None] if mode == "L" else decoded.transpose(2, 0, 1)


def _same_size(file: Path, size: tuple[int, ...], first_file: Path, first: tuple[int, ...]) -> None:
    if size != first:
        raise InputError(
            f"{file}: {size[0]}x{size[1]}, but {first_file.name} is {first[0]}x{first[1]} (height x width); "
            "give `size:` to bring all to one size"
        )


def _undecodable(file: Path, error: Exception) -> str:
    return f"{file}: cannot be decoded ({reason(error)}); replace or remove it"
