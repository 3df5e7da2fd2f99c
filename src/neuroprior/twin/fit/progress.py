"""Where a fit is, and how long it will still take."""

import time
from dataclasses import dataclass

import numpy as np

__all__ = ["Clock", "FitProgress"]


@dataclass(frozen=True, slots=True)
class FitProgress:
    """Where a fit is. `seconds_at_least`, `seconds_at_most`: what is left if no, or if every, epoch improves on.

    Steps left times seconds a step, and validations left times seconds a validation. None at the first step, by which
    no step can be measured.
    """

    epoch: int
    part: float
    decays: int
    best_correlation: float
    seconds_at_least: float | None
    seconds_at_most: float | None


class Clock:
    """What a step takes, the last ones counting most, and what a validation takes.

    The first step, in which loops are compiled, does not count.
    """

    def __init__(self) -> None:
        self._last = 0.0
        self._compiled = False
        self._step: float | None = None
        self._validations: list[float] = []

    def start(self) -> None:
        """Time the next step or validation from now."""
        self._last = time.monotonic()

    def stepped(self) -> None:
        """Take note of a step. The next is timed from here, so what is told and kept between them counts too."""
        taken = self._taken()
        if self._compiled:
            self._step = taken if self._step is None else 0.95 * self._step + 0.05 * taken
        self._compiled = True

    def validated(self) -> None:
        """Take note of a validation."""
        self._validations.append(self._taken())

    def seconds(self, steps: int, validations: int, usual: float) -> float | None:
        """Return what so many take; None before a step was timed. `usual`: steps a validation takes, until one was."""
        if self._step is None:
            return None
        each = float(np.mean(self._validations)) if self._validations else usual * self._step
        return steps * self._step + validations * each

    def _taken(self) -> float:
        now = time.monotonic()
        taken, self._last = now - self._last, now
        return taken
