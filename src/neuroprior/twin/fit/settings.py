"""How a twin is trained."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from neuroprior.types import InputError, Precision

__all__ = ["FitSettings"]

_STRENGTHS = ("least_gain", "smoothness", "group_sparsity", "readout_l1")
_FRACTIONS = ("decay", "validation_fraction")


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Training of a twin: Adam on the mean Poisson loss and three penalties, stopped by the validation correlation.

    `batch_images`: images a step; all training trials of these, in all scans, are its batch. They pass the core 32 at a
    time, each 32 with their own batch statistics, so memory does not grow with them. `patience`: epochs in
    which the validation correlation gains less than `least_gain`, after which the best weights are restored and the
    learning rate is multiplied by `decay`; after `decays` of these the training ends. `validation_fraction`: of the
    training images, held out where a scan has no trials of tier validation. `missing_behavior`: trials whose behaviour
    or pupil position is NaN are left out ("drop") or get its mean ("mean"). Penalties (`penalties.py`) are added to the
    mean loss of one response, so their strengths do not depend on batch or neuron count. `precision`: of the core's
    layers in training; the rest, and all of validation, is float32.
    Raises `InputError` for numbers out of range and names that are unknown.
    """

    batch_images: int = 32
    learning_rate: float = 5e-3
    max_epochs: int = 100
    patience: int = 3
    least_gain: float = 1e-3
    decays: int = 3
    decay: float = 0.3
    smoothness: float = 1e-2
    group_sparsity: float = 0.0
    readout_l1: float = 3e-3
    validation_fraction: float = 0.1
    missing_behavior: Literal["drop", "mean"] = "drop"
    precision: Precision = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batch_images", 1), ("max_epochs", 1), ("patience", 1), ("decays", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise InputError(f"fit: {name} is {value!r}; give a whole number")
            if value < least:
                raise InputError(f"fit: {name} is {value}; it must be {least} or more")
        if self.seed >= 2**63:  # more than torch takes
            raise InputError(f"fit: seed is {self.seed}; it must be below 2^63")
        for name in _STRENGTHS + _FRACTIONS + ("learning_rate",):
            if not isinstance(getattr(self, name), int | float):
                raise InputError(f"fit: {name} is {getattr(self, name)!r}; give a number")
        for name in _STRENGTHS:
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"fit: {name} is {getattr(self, name)}; it must be 0 or more, and finite")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"fit: learning_rate is {self.learning_rate}; it must be above 0, and finite")
        for name in _FRACTIONS:
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"fit: {name} is {getattr(self, name)}; it must be between 0 and 1")
        for name, choices in (("missing_behavior", ("drop", "mean")), ("precision", get_args(Precision))):
            if getattr(self, name) not in choices:
                raise InputError(f"fit: {name} is {getattr(self, name)!r}; choose {' or '.join(choices)}")
