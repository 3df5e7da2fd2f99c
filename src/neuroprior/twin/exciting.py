"""Maximally exciting images of a twin's neurons: what each one would most like to see."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuroprior.exciting import ExcitingImages, most_exciting_images
from neuroprior.twin.model import Twin
from neuroprior.twin.predict import at_neutral, known_scale
from neuroprior.types import InputError

__all__ = ["exciting_images"]


def exciting_images(
    twin: Twin,
    neurons: int | Sequence[int],
    *,
    pixel_scale: tuple[float, float] | None = None,
    contrast: float = 0.2,
    seed: int = 0,
    steps: int = 40,
    learning_rate: float = 0.3,
    blur: tuple[float, float] = (4.0, 1.5),
    progress: Callable[[int, int], None] | None = None,
) -> ExcitingImages:
    """The image, 0..255, that excites each of these neurons (or the one given) most, at neutral behaviour and gaze.

    Every image has the mean that the twin z-scores pixels with, and `contrast` (standard deviation over its pixels) in
    units of the one that it z-scores with. Low contrast makes the neuron choose where to spend it: at 1, as photographs
    have, all of the screen fills up with what hardly matters. `pixel_scale`: that mean and standard deviation, for a
    twin whose file does not hold them. Other arguments as in `most_exciting_images`; activities are the twin's rates.
    Raises `InputError` for neurons that are not the twin's, a scale that is neither in the twin nor given, and as
    `most_exciting_images`.
    """
    asked = np.atleast_1d(neurons)
    if not asked.size:
        raise InputError(f"twin {twin.name}: no neurons named; give at least one")
    if asked.dtype.kind not in "iu" or asked.ndim != 1:
        raise InputError(f"twin {twin.name}: neurons={neurons!r}; give a whole number, or several")
    strange = [n for n in asked.tolist() if not 0 <= n < twin.n_neurons]
    if strange:
        raise InputError(f"twin {twin.name}: no neuron {strange[0]}; it has {twin.n_neurons}, counted from 0")
    mean, std = known_scale(twin, pixel_scale)
    height, width = twin.input_size
    return most_exciting_images(
        _Rates(twin, torch.tensor(asked.tolist()), mean, std),
        len(asked),
        (1, height, width),
        norm=contrast * std * (height * width) ** 0.5,
        middle=mean,
        bounds=(0.0, 255.0),
        seed=seed,
        steps=steps,
        learning_rate=learning_rate,
        blur=blur,
        progress=progress,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Rates:
    """The rate of one neuron to each image, of pixels (0..255) z-scored with these numbers."""

    twin: Twin
    neurons: torch.Tensor
    mean: float
    std: float

    def __call__(self, images: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        n = len(images)
        seen = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        rates: torch.Tensor = self.twin.model(seen, *at_neutral(self.twin, n))
        return rates[torch.arange(n), self.neurons[units]]
