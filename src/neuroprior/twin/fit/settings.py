"""How a twin is trained."""

import math
from dataclasses import dataclass
from typing import Literal

from neuroprior.types import InputError, Precision

__all__ = ["FitSettings"]


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Training of a twin: Adam on the mean Poisson loss and three penalties, stopped by the validation correlation.

    `batch_images`: images a step; all training trials of these, in all scans, are its batch. They pass the core 32 at a
    time, each 32 with their own batch statistics, so memory does not grow with them. `patience`: epochs in
    which the validation correlation gains less than `least_gain`, after which the best weights are restored and the
    learning rate is multiplied by `decay`; after `decays` of these the training ends. `validation_fraction`: of the
    training images, held out where a scan has no trials of tier validation. `missing_behavior`: trials whose behaviour
    or pupil position is NaN are left out ("drop") or get its mean ("mean"). Penalties (`penalties.py`) are added to the
    mean loss of one response, so their strengths do not depend on batch or neuron count.
    Raises `InputError` for numbers out of range.
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
        for name in ("batch_images", "max_epochs", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"fit: {name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("least_gain", "smoothness", "group_sparsity", "readout_l1", "decays", "seed"):
            if not getattr(self, name) >= 0:
                raise InputError(f"fit: {name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"fit: learning_rate is {self.learning_rate}; it must be above 0, and finite")
        for name in ("decay", "validation_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"fit: {name} is {getattr(self, name)}; it must be between 0 and 1")
        if self.missing_behavior not in ("drop", "mean"):
            raise InputError(f"fit: missing_behavior is {self.missing_behavior!r}; choose drop or mean")
