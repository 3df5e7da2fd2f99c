"""The local engine: runs the graph in worker processes, longest first, skipping what the store already has."""

import heapq
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from neuroprior.experiment.store import Step, Store
from neuroprior.files import disk_fault
from neuroprior.types import InputError

Watch = Callable[[str, str, float], None]
"""Told of progress: the step's label, what it is doing, and the part done (1 when it is finished)."""
Say = Callable[[str, float], None]
"""Report progress: what is going on, and the part of the step that is done (0 to 1)."""
Do = Callable[[Any, Mapping[str, Path], Path, Say], None]
"""Do a step's work: settings, the folders of its inputs by name, the folder to write into, progress."""

_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_POLL = 0.2  # seconds between looks at what other processes and Ctrl-C did


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that failed, and why in one line."""

    step: Step
    reason: str


def warm_up(*modules: str) -> None:
    """Begin to import what steps need, in the server that workers fork from, while this process does something else."""
    if _FORKS:
        context: Any = multiprocessing.get_context("forkserver")
        # Threads of a waiting process must sleep, not spin: the other workers need the cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        context.set_forkserver_preload([__name__, *modules])
        forkserver.ensure_running()


def run_steps(steps: Sequence[Step], store: Store, do: Do, *, workers: int, watch: Watch) -> list[Failure]:
    """Run what is not in the store yet; return what failed. Steps that wait for a failed one are not started.

    `steps` are in an order in which each comes after its inputs. They run in `workers` processes; one that another
    run of the same store is at work on is waited for, not done twice.
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
    team = _Team(min(workers, len(todo)), store, do)
    with _interrupt_noted() as interrupted, team:
        while todo.ready or elsewhere or team.busy:
            if interrupted.is_set():
                raise KeyboardInterrupt
            while todo.ready and team.has_room:
                step = todo.next()
                if store.is_taken(step.name):
                    elsewhere.append(step)
                    watch(step.label, "another process is at work on it", 0.0)
                else:
                    team.give(step, {name: store.folder(todo.by_key[key]) for name, key in step.inputs})
            for step, what, part in team.news():
                match what:
                    case str():
                        watch(step.label, what, min(part, 0.99))
                    case Failure():
                        failures.append(what)
                    case None:
                        todo.finish(step)
                        watch(step.label, "done", 1.0)
            for step in list(elsewhere):
                if not store.is_taken(step.name):
                    elsewhere.remove(step)
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


class _Team:
    """Worker processes that take one step after another. They end when this process stops or dies."""

    def __init__(self, size: int, store: Store, do: Do) -> None:
        # Where it can be, workers fork from a server that has imported all once: they start in milliseconds.
        self._context: Any = multiprocessing.get_context("forkserver" if _FORKS else "spawn")
        warm_up()
        self._store, self._do = store, do
        self._size = size
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, Step]] = {}

    def __enter__(self) -> "_Team":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.end()

    @property
    def busy(self) -> bool:
        """Whether any step is running."""
        return bool(self._busy)

    @property
    def has_room(self) -> bool:
        """Whether another step can be given."""
        return len(self._busy) < self._size

    def give(self, step: Step, inputs: Mapping[str, Path]) -> None:
        """Start a step, in a worker that is waiting or in a new one."""
        while self._idle:
            worker = self._idle.pop()
            try:
                worker.pipe.send((step, inputs))
            except OSError:  # it died while it had nothing to do
                worker.end()
                continue
            break
        else:
            worker = _Worker(self._context, self._store, self._do)
            worker.pipe.send((step, inputs))
        self._busy[worker.pipe] = (worker, step)

    def news(self) -> Iterator[tuple[Step, str | Failure | None, float]]:
        """Wait a moment for what workers say: what a step is doing and the part done, or a `Failure`, or None: done."""
        if not self._busy:
            time.sleep(_POLL)
        for pipe in wait(list(self._busy), timeout=_POLL):
            assert isinstance(pipe, Connection)
            worker, step = self._busy[pipe]
            try:
                what, part = pipe.recv()
            except (EOFError, OSError):
                del self._busy[pipe]
                why = worker.last_words()
                self._store.tidy(step)
                yield step, Failure(step, why), 1.0
                continue
            if not isinstance(what, str):  # the step is over
                del self._busy[pipe]
                self._idle.append(worker)
            yield step, what, part


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self, context: Any, store: Store, do: Do) -> None:
        self.pipe, theirs = context.Pipe()
        # The server was started with the environment of then: what was set since is told.
        arguments = (theirs, store, do, dict(os.environ))
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def end(self) -> None:
        """End it, whatever it is doing."""
        self.pipe.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def last_words(self) -> str:
        """Why it is gone."""
        self.end()
        code = self._process.exitcode
        if code == -signal.SIGKILL:
            return "its process was killed, most likely for want of memory; free some (compute.workers=1), then resume"
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        return f"its process died ({how}); the same command resumes"


def _serve(pipe: Connection, store: Store, do: Do, environment: dict[str, str]) -> None:
    """Be a worker: take steps from the pipe until the process at its other end stops or dies; then end at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one alone decides
    os.environ.update(environment)
    given: queue.SimpleQueue[tuple[Step, Mapping[str, Path]]] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                given.put(pipe.recv())
        except BaseException:  # the other end is gone, or what came cannot be read: nobody must wait for this process
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        step, inputs = given.get()
        last = [-1.0]

        def say(what: str, part: float, last: list[float] = last) -> None:
            if time.monotonic() - last[0] > _POLL:
                last[0] = time.monotonic()
                pipe.send((what, part))

        try:
            run_step(step, store, inputs, do, say)
            answer = None
        except Exception as error:  # the step's own fault is told; the rest of the graph goes on
            answer = Failure(step, _reason(error, store))
        with suppress(OSError):
            pipe.send((answer, 1.0))


def run_step(step: Step, store: Store, inputs: Mapping[str, Path], do: Do, say: Say) -> None:
    """Run one step and put its folder into the store."""
    say("starting", 0.0)
    with store.writing(step) as out:
        if out is not None:
            do(step.work, inputs, out, say)


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


def _reason(error: Exception, store: Store) -> str:
    """Say in one line what went wrong, and what to do where the machine is at fault and not the step."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if (fault := disk_fault(error, store.root)) is not None:
        return f"{store.root}: {fault}"
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return f"out of memory ({lines[-1][:120]}); free some (compute.workers=1), then the same command resumes"
    known = isinstance(error, InputError | ValueError | FloatingPointError)
    return lines[-1] if known else f"{type(error).__name__}: {lines[-1]}"
