"""What a step needs, and the stopwatch that short trials are timed with."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

MB = 2**20
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Needs:
    """Seconds, bytes of memory at the peak, bytes left on disk."""

    seconds: float
    memory: float
    disk: float


def median_seconds(what: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Median of how long `what` takes, done `repeats` times."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
