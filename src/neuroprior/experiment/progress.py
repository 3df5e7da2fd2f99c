"""What is known of a step at work, for whoever looks on: the store keeps what it says and what it prints.

store/.progress/LABEL-KEY.json   what the step is doing, the part done, since when, on which machine
store/.logs/LABEL-KEY.log        what it printed; gone where that is nothing
"""

import math
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from neuroprior.experiment.store import Store
from neuroprior.files import read_json, write_json

FAILED = "failed"
_TAIL = 5  # lines
_BYTES = 4096  # of the end of a log
_EVERY, _MOMENT = 1.0, 0.2  # seconds


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step says of itself. `part`: 0 to 1; `started`, `said`: seconds since 1970 of that machine's clock.

    `since`, `before`: when it first said how far it is, and how far that was: one that is resumed begins in the middle.
    """

    what: str
    part: float
    started: float
    said: float
    since: float
    before: float
    host: str
    pid: int

    @property
    def seconds_left(self) -> float | None:
        """What is left at the pace so far; None while too little is done to tell."""
        done = self.part - self.before
        return None if done < 0.01 else (self.said - self.since) * (1 - self.part) / done


def log_file(store: Store, name: str) -> Path:
    """Where the printed lines of the step of this name go."""
    return store.root / ".logs" / f"{name}.log"


def log_tail(store: Store, name: str) -> tuple[str, ...]:
    """The last lines that a step printed; none where it printed nothing."""
    try:
        with log_file(store, name).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line.rstrip() for line in lines if line.strip())[-_TAIL:]


class Reporter:
    """Keeps in the store what a step is doing, now and then, and in the end that it is over.

    A disk that refuses stops nothing: only the look-on is lost.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._file = _progress_file(store, name)
        self._started = self._since = time.time()
        self._before = 0.0
        self._last, self._what = -math.inf, ""
        self._failed = False

    def __enter__(self) -> "Reporter":
        self._write("starting", 0.0)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            if not self._failed:
                self._file.unlink(missing_ok=True)

    def say(self, what: str, part: float) -> None:
        """Keep this, unless the same was kept within the last second, or anything a moment ago."""
        if time.monotonic() - self._last < (_EVERY if what == self._what else _MOMENT):
            return
        if self._what == "" and part > 0.05:  # resumed: its pace is told from here
            self._since, self._before = time.time(), part
        self._last, self._what = time.monotonic(), what
        self._write(what, part)

    def failed(self, reason: str) -> None:
        """Leave word that the step failed; the next try of it takes that away."""
        self._failed = True
        self._write(f"{FAILED}: {reason}", 0.0)

    def _write(self, what: str, part: float) -> None:
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            said = {"what": what, "part": part, "started": self._started, "said": time.time()}
            said |= {"since": self._since, "before": self._before}
            write_json(self._file, {**said, "host": platform.node(), "pid": os.getpid()})


def forget_progress(store: Store, name: str) -> None:
    """Drop what a worker said that is dead now."""
    with suppress(OSError):
        _progress_file(store, name).unlink(missing_ok=True)


def _progress_file(store: Store, name: str) -> Path:
    return store.root / ".progress" / f"{name}.json"


def read_progress(store: Store, name: str) -> Progress | None:
    """What the step of this name said last; None where it said nothing, or is over."""
    said = read_json(_progress_file(store, name))
    try:
        return Progress(
            what=str(said["what"]),
            part=float(said["part"]),
            started=float(said["started"]),
            said=float(said["said"]),
            since=float(said["since"]),
            before=float(said["before"]),
            host=str(said["host"]),
            pid=int(said["pid"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
