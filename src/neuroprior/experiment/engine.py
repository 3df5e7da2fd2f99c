"""The loop over the graph: what can start is given to an engine, what it finishes lets others start.

Where a step runs, when, and what happens when its worker dies is the engine's own: `engines/`.
"""

import heapq
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroprior.experiment.store import Step, Store

Watch = Callable[[str, str, float], None]
"""Told of progress: the step's label, what it is doing, and the part done (1 when it is finished)."""
Say = Callable[[str, float], None]
"""Report progress: what is going on, and the part of the step that is done (0 to 1)."""
Do = Callable[[Any, Mapping[str, Path], Path, Say], None]
"""Do a step's work: settings, the folders of its inputs by name, the folder to write into, progress."""

POLL = 0.2
"""Seconds between looks at what other processes and Ctrl-C did."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that failed: why in one line, and the last lines of what it printed.

    `elsewhere`: it could not begin where it was placed; at another place or time it may, so the engine tries again.
    """

    step: Step
    reason: str
    log: tuple[str, ...] = ()
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Another process was at work on the step all the while that its worker waited: nothing failed."""

    step: Step


Answer = Failure | Held | None
"""What a worker says when it is through with a step; None: the step is in the store."""


@dataclass(frozen=True, slots=True)
class News:
    """What an engine heard of a step: what it is doing and the part done, or its worker's `Answer`."""

    step: Step
    what: str | Answer
    part: float = 1.0


class Engine(ABC):
    """Where steps run. It places them, queues them, and tries again what died; the loop only says what can start.

    Entered before the first step; left, it ends what still runs.
    """

    @abstractmethod
    def __enter__(self) -> "Engine": ...

    @abstractmethod
    def __exit__(self, *why: object) -> None: ...

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether any step was given and is not over."""

    @property
    @abstractmethod
    def has_room(self) -> bool:
        """Whether another step can be given."""

    @abstractmethod
    def give(self, step: Step, inputs: Mapping[str, Path]) -> None:
        """Take a step whose inputs lie in these folders."""

    @abstractmethod
    def news(self) -> Iterator[News]:
        """Wait a moment, `POLL` at most, and say what happened meanwhile."""


def run_steps(steps: Sequence[Step], store: Store, engine: Engine, *, watch: Watch) -> list[Failure]:
    """Run what is not in the store yet; return what failed. Steps that wait for a failed one are not started.

    `steps` are in an order in which each comes after its inputs. One that another run of the same store is at work on
    is waited for, not done twice.
    """
    store.check()
    there = {step.key for step in steps if store.has(step)}
    for step in steps:
        if step.key in there:
            store.verify(step)
            watch(step.label, "already there", 1.0)
    todo = Graph(steps, there)
    failures: list[Failure] = []
    elsewhere: list[Step] = []
    if not len(todo):
        return failures
    with _interrupt_noted() as interrupted, engine:
        while todo.ready or elsewhere or engine.busy:
            if interrupted.is_set():
                raise KeyboardInterrupt
            while todo.ready and engine.has_room:
                step = todo.next()
                if store.is_taken(step.name):
                    elsewhere.append(step)
                    watch(step.label, "another process is at work on it", 0.0)
                else:
                    engine.give(step, {name: store.folder(todo.by_key[key]) for name, key in step.inputs})
            if not engine.busy:
                time.sleep(POLL)
            for news in engine.news():
                match news.what:
                    case str():
                        watch(news.step.label, news.what, min(news.part, 0.99))
                    case Failure():
                        failures.append(news.what)
                        watch(news.step.label, f"failed: {news.what.reason}", 1.0)
                    case Held():
                        elsewhere.append(news.step)
                        watch(news.step.label, "another process is at work on it", 0.0)
                    case None:
                        todo.finish(news.step)
                        watch(news.step.label, "done", 1.0)
            for step in list(elsewhere):
                if store.is_taken(step.name):
                    continue
                elsewhere.remove(step)
                if store.has(step):
                    todo.finish(step)
                    watch(step.label, "done", 1.0)
                else:
                    todo.let_start(step)
    return failures


class Graph:
    """Which steps can start: those whose inputs are finished, the longest first."""

    def __init__(self, steps: Sequence[Step], finished: set[str]) -> None:
        self.by_key = {step.key: step for step in steps}
        self._order = {step.key: k for k, step in enumerate(steps)}
        self._missing = {s.key: {key for _, key in s.inputs} - finished for s in steps if s.key not in finished}
        self._waiting: dict[str, list[Step]] = {}
        self.ready: list[tuple[float, int, str]] = []
        for key, missing in self._missing.items():
            for needed in missing:
                self._waiting.setdefault(needed, []).append(self.by_key[key])
            if not missing:
                self.let_start(self.by_key[key])

    def __len__(self) -> int:
        return len(self._missing)

    def next(self) -> Step:
        """Take the ready step that is longest with all that waits for it."""
        return self.by_key[heapq.heappop(self.ready)[2]]

    def let_start(self, step: Step) -> None:
        """Put a step among those that are ready."""
        heapq.heappush(self.ready, (-step.cost, self._order[step.key], step.key))

    def finish(self, step: Step) -> None:
        """Note that a step is finished, and let those start that waited for it alone."""
        for waiting in self._waiting.pop(step.key, ()):
            self._missing[waiting.key].discard(step.key)
            if not self._missing[waiting.key]:
                self.let_start(waiting)


@contextmanager
def _interrupt_noted() -> Iterator[threading.Event]:
    """Note Ctrl-C instead of raising at once: raised while a worker starts, it could leave one that nobody knows."""
    noted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield noted  # somebody else handles it, or it is ignored
        return
    signal.signal(signal.SIGINT, lambda *_: noted.set())
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
