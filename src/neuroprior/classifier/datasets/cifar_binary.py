"""CIFAR-10 and CIFAR-100 in the binary version of their makers: records of label bytes and 3,072 pixel bytes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from neuroprior.classifier.datasets.labelled import CIFAR10, Color, LabelledImages, mode_of
from neuroprior.types import InputError, UInt8

__all__ = ["Part", "load_cifar_binary"]

Part = Literal["train", "test"]
_PIXELS = 3 * 32 * 32  # all of red, then green, then blue, each row by row
_RECORDS = 10_000  # converted at a time, so that the wide integers of the luma stay small


@dataclass(frozen=True, slots=True)
class _Layout:
    name: str
    files: dict[str, tuple[str, ...]]
    label_sizes: tuple[int, ...]
    """How many values each label byte of a record may take; the last is the one that is read."""
    class_file: str
    classes: tuple[str, ...]
    """What the classes are called where the file with their names is not there."""

    @property
    def record(self) -> int:
        return len(self.label_sizes) + _PIXELS


_LAYOUTS = (
    _Layout(
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)},
        (10,),
        "batches.meta.txt",
        CIFAR10,
    ),
    _Layout(
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        (20, 100),  # coarse, fine
        "fine_label_names.txt",
        tuple(str(k) for k in range(100)),
    ),
)


def load_cifar_binary(
    folder: str | os.PathLike[str], part: Part, color: Color = "gray", n: int | None = None
) -> LabelledImages:
    """Read `cifar-10-batches-bin` or `cifar-100-binary`, whichever `folder` is, in the files' order; fine labels.

    `gray` is ITU-R 601 luma in 16-bit fixed point, `(19595 R + 38470 G + 7471 B + 32768) >> 16`, to the bit what
    Pillow's `convert("L")` gives. `n`: only the first so many images. Classes bear the names that stand in
    `batches.meta.txt` or `fine_label_names.txt`, and where that file is missing the known ones (CIFAR-100: numbers).
    Raises `InputError` for a folder of neither layout, a missing or half-copied file, and labels out of range.
    """
    root = Path(folder)
    mode = mode_of(color)
    if part not in get_args(Part):
        raise InputError(f"{root}: part {part!r} is not one of {', '.join(get_args(Part))}")
    if n is not None and n < 1:
        raise InputError(f"{root}: n is {n}; it must be 1 or more")
    layout = _layout(root)
    files = [root / name for name in layout.files[part]]
    counts = [_records(file, layout) for file in files]  # all of them first: a missing batch is said at once
    wanted = sum(counts) if n is None else min(n, sum(counts))
    pixels = np.empty((wanted, 1 if mode == "L" else 3, 32, 32), dtype=np.uint8)
    labels = np.empty(wanted, dtype=np.int64)
    done = 0
    for file, count in zip(files, counts, strict=True):
        for start in range(0, min(count, wanted - done), _RECORDS):
            records = min(_RECORDS, count - start, wanted - done)
            block = np.fromfile(file, np.uint8, records * layout.record, offset=start * layout.record)
            block = block.reshape(records, layout.record)
            labels[done : done + records] = _labels(file, block, layout, start)
            rgb = block[:, -_PIXELS:].reshape(records, 3, 32, 32)
            pixels[done : done + records] = _luma(rgb) if mode == "L" else rgb
            done += records
    return LabelledImages(pixels, labels, _classes(root, layout))


def count_cifar_binary(folder: str | os.PathLike[str], part: Part) -> int:
    """Return how many images a part has, from the sizes of its files."""
    layout = _layout(Path(folder))
    return sum(_records(Path(folder) / name, layout) for name in layout.files[part])


def _layout(root: Path) -> _Layout:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the one that holds CIFAR's .bin files")
    found = [
        layout for layout in _LAYOUTS if any((root / f).is_file() for files in layout.files.values() for f in files)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{root}: holds the files of both CIFAR-10 and CIFAR-100; keep each in its own folder")
    raise InputError(
        f"{root}: neither {' nor '.join(layout.name for layout in _LAYOUTS)} (no data_batch_1.bin, no train.bin); "
        "give the folder that holds the .bin files of CIFAR's binary version"
    )


def _records(file: Path, layout: _Layout) -> int:
    if not file.is_file():
        raise InputError(f"{file}: no such file, but others of {layout.name} are there; unpack the archive again")
    size = file.stat().st_size
    if size == 0 or size % layout.record:
        raise InputError(
            f"{file}: {size} bytes are not a whole number of records of {layout.record} bytes (half-copied?); "
            "unpack the archive again"
        )
    return size // layout.record


def _labels(file: Path, block: UInt8[np.ndarray, "image byte"], layout: _Layout, start: int) -> np.ndarray:
    for column, values in enumerate(layout.label_sizes):
        wrong = np.flatnonzero(block[:, column] >= values)
        if len(wrong):
            raise InputError(
                f"{file}: label of record {start + wrong[0]} is {block[wrong[0], column]}, not below {values}; "
                "not a file of this layout, or damaged: unpack the archive again"
            )
    fine: np.ndarray = block[:, len(layout.label_sizes) - 1]
    return fine


def _luma(rgb: UInt8[np.ndarray, "image 3 height width"]) -> UInt8[np.ndarray, "image 1 height width"]:
    """(19595 R + 38470 G + 7471 B + 2^15) >> 16: 0.299, 0.587 and 0.114 in 16-bit fixed point, rounded."""
    red, green, blue = (rgb[:, k : k + 1].astype(np.uint32) for k in range(3))
    luma: np.ndarray = ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)
    return luma


def _classes(root: Path, layout: _Layout) -> tuple[str, ...]:
    file = root / layout.class_file
    if not file.is_file():
        return layout.classes
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text file; unpack the archive again") from None
    if len(names) != len(layout.classes):
        raise InputError(
            f"{file}: {len(names)} class names, not {len(layout.classes)}; unpack the archive again or remove the file"
        )
    return names
