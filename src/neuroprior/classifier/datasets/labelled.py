"""The value that every layout is read into."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from neuroprior.recordings.pictures import Mode
from neuroprior.types import InputError, Int64, UInt8

__all__ = ["CIFAR10", "Color", "LabelledImages", "mode_of"]

Color = Literal["gray", "rgb"]
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """Images and what they show. `pixels`: uint8 `(image, channel, height, width)`; `labels`: rows of `classes`."""

    pixels: UInt8[np.ndarray, "image channel height width"]
    labels: Int64[np.ndarray, " image"]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise InputError(f"labelled images: {len(self.labels)} labels for {len(self.pixels)} images")
        if len(self.labels) and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise InputError(
                f"labelled images: labels span {self.labels.min()}..{self.labels.max()} "
                f"for {len(self.classes)} classes; they must lie in 0..{len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: np.ndarray | slice) -> "LabelledImages":
        """Return these rows, in this order."""
        return LabelledImages(self.pixels[rows], self.labels[rows], self.classes)


def mode_of(color: str) -> Mode:
    """Return Pillow's name for `color`; `InputError` for any but gray and rgb."""
    if color not in get_args(Color):
        raise InputError(f"color {color!r} is not one of {', '.join(get_args(Color))}")
    return "L" if color == "gray" else "RGB"
