"""alpha as it changes over training."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from neuroprior.types import InputError

Alpha: TypeAlias = float | int | Callable[[int], float]
Shape = Literal["linear", "cosine", "step"]


@dataclass(frozen=True, slots=True)
class Ramp:
    """alpha(k) = start + (end - start) f(k / steps) of step k, and `end` from then on.

    `shape`: `linear` f(t) = t; `cosine` f(t) = (1 - cos pi t) / 2; `step` stays at `start` and then jumps to `end`.
    Raises `InputError` for a negative or infinite weight, or fewer than 1 step.
    """

    start: float | int
    end: float | int
    steps: int
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            checked_alpha(value, name)
        if self.steps < 1:
            raise InputError(f"alpha: a ramp over {self.steps} steps; give 1 or more")
        if self.shape not in get_args(Shape):
            raise InputError(f"alpha: shape {self.shape!r} is not one of {', '.join(get_args(Shape))}")

    def __call__(self, step: int) -> float:
        """Return alpha at this step, counted from 0."""
        t = min(1.0, step / self.steps)
        part = {"linear": t, "cosine": (1 - math.cos(math.pi * t)) / 2, "step": float(t >= 1)}[self.shape]
        return self.start + (self.end - self.start) * part


def checked_alpha(value: float | int, name: str = "alpha") -> float:
    """Return it as a float. Raises `InputError` unless it is 0 or more, and finite."""
    if not 0 <= value < math.inf:
        raise InputError(f"regularizer: {name} is {value}; it must be 0 or more, and finite")
    return float(value)
