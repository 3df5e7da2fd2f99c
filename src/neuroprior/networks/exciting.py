"""Maximally exciting images of a network's units: what a channel of a layer would most like to see."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from neuroprior.exciting import ExcitingImages, most_exciting_images
from neuroprior.modes import evaluating, like
from neuroprior.regularizer import Taps
from neuroprior.types import InputError

__all__ = ["TappedUnit", "exciting_images_of_units"]


def exciting_images_of_units(
    network: nn.Module,
    layer: str,
    channels: int | Sequence[int],
    size: tuple[int, int, int],
    *,
    at: tuple[int, int] | None = None,
    contrast: float = 0.1,
    middle: float = 0.5,
    seed: int = 0,
    steps: int = 100,
    learning_rate: float = 0.1,
    blur: tuple[float, float] = (2.0, 0.5),
    progress: Callable[[int, int], None] | None = None,
) -> ExcitingImages:
    """The image, in [0, 1], that excites each of these channels of the module `layer` most, as it puts it out.

    `channels`: one, or several. A unit is a channel `at` one row and column of its map, by default the middle one; of a
    layer that gives vectors, one of their values. `size`: channel, height, width of what the network takes.
    `contrast`: standard deviation over all pixels and channels, about the gray `middle`. In evaluation mode; the
    network is left as it was found. Units
    after a ReLU may be shut at the start and then have no gradient: name the layer before it. Other arguments as in
    `most_exciting_images`.
    Raises `InputError` for a layer, channel or position that is not there, images that do not fit, and as
    `most_exciting_images`.
    """
    asked = np.atleast_1d(channels)
    if not asked.size:
        raise InputError(f"layer {layer!r}: no channels named; give at least one")
    if asked.dtype.kind not in "iu" or asked.ndim != 1:
        raise InputError(f"layer {layer!r}: channels={channels!r}; give a whole number, or several")
    works_in = like(network)
    unit = TappedUnit(network, Taps(network, [layer]), layer, torch.tensor(asked.tolist()), at)
    with evaluating(network):
        with torch.no_grad():
            unit.check(torch.full((1, *size), middle, dtype=works_in.dtype, device=works_in.device))
        return most_exciting_images(
            unit,
            len(asked),
            size,
            norm=contrast * (size[0] * size[1] * size[2]) ** 0.5,
            middle=middle,
            seed=seed,
            steps=steps,
            learning_rate=learning_rate,
            blur=blur,
            like=works_in,
            progress=progress,
        )


@dataclass(frozen=True, slots=True, eq=False)
class TappedUnit:
    """One feature of the tapped layer for each image."""

    network: nn.Module
    taps: Taps
    layer: str
    channels: torch.Tensor
    at: tuple[int, int] | None

    def __call__(self, images: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        """Return the activity of `channels[units[k]]` to image k."""
        (features,) = self.taps.features(self.network, images)
        rows = torch.arange(len(images), device=features.device)
        channels = self.channels.to(features.device)[units]
        if features.ndim == 2:
            return features[rows, channels]
        row, column = self.at or (features.shape[2] // 2, features.shape[3] // 2)
        return features[rows, channels, row, column]

    def check(self, image: torch.Tensor) -> None:
        """Raise `InputError` unless the layer has these units for this image."""
        try:
            (features,) = self.taps.features(self.network, image)
        except (RuntimeError, AssertionError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise InputError(
                f"layer {self.layer!r}: the network does not take images {tuple(image.shape[1:])}: {said}; give a "
                "size (channel, height, width) that it takes"
            ) from error
        shape = tuple(features.shape[1:])
        if len(shape) not in (1, 3):
            raise InputError(f"layer {self.layer!r}: gives {shape} for an image; name one that gives maps or a vector")
        strange = [c for c in self.channels.tolist() if not 0 <= c < shape[0]]
        if strange:
            raise InputError(f"layer {self.layer!r}: no channel {strange[0]}; it has {shape[0]}, counted from 0")
        if self.at is None:
            return
        if len(shape) == 1:
            raise InputError(f"layer {self.layer!r}: gives vectors, which have no position; leave out at={self.at}")
        if not (0 <= self.at[0] < shape[1] and 0 <= self.at[1] < shape[2]):
            raise InputError(
                f"layer {self.layer!r}: no row, column {self.at}; its maps are {shape[1]}x{shape[2]}, counted from 0"
            )
