"""Test images from wherever they lie, ready to be measured with: named, in [0, 1], all classes early."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroprior.classifier.datasets.cifar_binary import load_cifar_binary
from neuroprior.classifier.datasets.digits import load_packaged_digits
from neuroprior.classifier.datasets.image_folder import Size, load_image_folder
from neuroprior.classifier.datasets.labelled import Color, LabelledImages
from neuroprior.classifier.datasets.parquet import load_parquet_images
from neuroprior.recordings.archive import read_archive
from neuroprior.types import Float32, InputError, Int64

__all__ = ["Samples", "load_samples"]

_DIGITS = "digits"
_MAKE = "write it with numpy.savez(file, images=..., labels=...)"


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """`images` in [0, 1] and their labels. `ids`: names that stay an image's own when more of them are read."""

    ids: tuple[str, ...]
    images: Float32[np.ndarray, "image channel height width"]
    labels: Int64[np.ndarray, " image"]

    def __len__(self) -> int:
        return len(self.ids)


def load_samples(
    path: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    color: Color | None = None,
    size: Size | None = None,
    n: int | None = None,
) -> Samples:
    """Read test images of any layout: what `path` is decides.

    A parquet file of the Hugging Face image layout or a folder of CIFAR's .bin files: the first `n`. A folder of
    folders, an .npz with `images` and `labels`, an .npy with its `labels` in another, or the word `digits`: the first
    of every class in turn. So the images of a smaller `n` are among those of a larger one, under the same ids: rows of
    the file, `CLASS/number` in folders. `color`: `rgb` unless given, of digits `gray`; arrays are taken as they are.
    `size`: of a folder's images, as `load_image_folder`. Arrays are (n, h, w), (n, h, w, c) or (n, c, h, w), c being 1
    or 3, uint8 or floats in [0, 1]. Raises `InputError` for what is none of these, or an option that does not fit.
    """
    file = Path(path)
    kind = _kind(file)
    if n is not None and n < 1:
        raise InputError(f"{file}: n is {n}; it must be 1 or more")
    for option, value, fits in (
        ("labels", labels, kind == "array"),
        ("color", color, kind != "array"),
        ("size", size, kind == "image_folder"),
    ):
        if value is not None and not fits:
            meant = {"labels": ".npz and .npy files", "color": "all but arrays", "size": "folders of images"}[option]
            raise InputError(f"{file}: {option} has no use with it; leave --{option} out (it is for {meant})")
    match kind:
        case "array":
            return _of_array(file, None if labels is None else Path(labels), n)
        case "digits":
            digits = load_packaged_digits(color or "gray")[1]
            return _of_pixels(digits, _in_turn(digits.labels)[:n])
        case "cifar":
            return _of_pixels(load_cifar_binary(file, "test", color or "rgb", n))
        case "image_folder":
            return _of_folder(load_image_folder(file, color or "rgb", n, size))
        case _:
            return _of_pixels(load_parquet_images(file, color or "rgb", n))


def _kind(file: Path) -> str:
    if file.is_dir():
        return "cifar" if any(file.glob("*.bin")) else "image_folder"
    if file.suffix in (".npz", ".npy"):
        return "array"
    if file.is_file():
        return "parquet"
    if str(file) == _DIGITS:
        return "digits"
    raise InputError(
        f"{file}: no such file or folder; give a parquet file of images, a folder with one folder a class, CIFAR's "
        f".bin files, an .npz with images and labels, or {_DIGITS}"
    )


def _of_pixels(held: LabelledImages, rows: np.ndarray | None = None) -> Samples:
    rows = np.arange(len(held)) if rows is None else rows
    return Samples(tuple(map(str, rows.tolist())), _unit(held.pixels[rows]), held.labels[rows])


def _of_folder(held: LabelledImages) -> Samples:
    rows = _in_turn(held.labels)
    ranks = _ranks(held.labels)[rows].tolist()
    names = (held.classes[label] for label in held.labels[rows])
    ids = tuple(f"{name}/{rank}" for name, rank in zip(names, ranks, strict=True))
    return Samples(ids, _unit(held.pixels[rows]), held.labels[rows])


def _of_array(file: Path, labels_file: Path | None, n: int | None) -> Samples:
    if file.suffix == ".npz":
        fields = read_archive(file, ("images",) if labels_file else ("images", "labels"), mend=_MAKE)
    elif labels_file is None:
        raise InputError(f"{file}: holds images alone; give their labels, an .npy of whole numbers")
    else:
        fields = {"images": _array(file)}
    images = fields["images"]
    where = f"{labels_file}: the array" if labels_file else f"{file}: field 'labels'"
    labels = _array(labels_file) if labels_file else fields["labels"]
    images = _channels_first(file, images)
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise InputError(f"{where} is {labels.dtype} {labels.shape}; give {len(images)} whole numbers, one an image")
    if not images.size:
        raise InputError(f"{file}: holds no images; {_MAKE}")
    labels = labels.astype(np.int64)
    if labels.min() < 0:
        raise InputError(f"{where} has {labels.min()} in it; labels are classes of the network, from 0")
    rows = _in_turn(labels)[:n]
    return Samples(tuple(map(str, rows.tolist())), _floats(file, images[rows]), labels[rows])


def _array(file: Path) -> np.ndarray:
    if not file.is_file():
        raise InputError(f"{file}: no such file; write it with numpy.save")
    try:
        with file.open("rb") as handle:
            value = np.load(handle, allow_pickle=False)
    except Exception:  # what numpy raises depends on the first bytes
        raise InputError(f"{file}: not an .npy file, or damaged; write it with numpy.save") from None
    if not isinstance(value, np.ndarray):
        raise InputError(f"{file}: not a single array; write it with numpy.save")
    return value


def _channels_first(file: Path, images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4:
        first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
        if first != last:
            return images if first else images.transpose(0, 3, 1, 2)
    raise InputError(
        f"{file}: images are {images.shape}; give (n, h, w), (n, h, w, c) or (n, c, h, w), where c alone is 1 or 3"
    )


def _floats(file: Path, images: np.ndarray) -> np.ndarray:
    if images.dtype == np.uint8:
        return _unit(images)
    if images.dtype.kind != "f":
        raise InputError(f"{file}: images are {images.dtype}; give uint8, or floats in [0, 1]")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"{file}: images span [{low:.3g}, {high:.3g}]; floats must lie in [0, 1]: divide by 255 or save "
            "uint8; the range and normalisation of the network are said beside (--bounds, --mean, --std)"
        )
    return np.ascontiguousarray(images, dtype=np.float32)


def _unit(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels, dtype=np.float32) / np.float32(255)


def _in_turn(labels: np.ndarray) -> np.ndarray:
    """Rows, the first of every class, then the second of every class, and so on."""
    rows: np.ndarray = np.lexsort((labels, _ranks(labels)))
    return rows


def _ranks(labels: np.ndarray) -> np.ndarray:
    """How many of its class stand before each."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return ranks
