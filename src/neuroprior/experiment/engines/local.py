"""The local engine: worker processes on this machine, one for each GPU where there are several."""

import multiprocessing
import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from neuroprior.experiment.engine import POLL, Do, Engine, Failure, News
from neuroprior.experiment.progress import forget_progress, log_tail
from neuroprior.experiment.store import Step, Store
from neuroprior.experiment.worker import starting_workers, work_on, worker_environment

_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_KILLED = -9
"""Exit code of a process that was killed; SIGKILL has no name on Windows."""
Pipe = Any
"""An end of a pipe: a `Connection`, and on Windows a `PipeConnection`, which is no kind of it."""


def warm_up(*modules: str) -> None:
    """Begin to import what steps need, in the server that workers fork from, while this process does something else."""
    if _FORKS:
        from multiprocessing import forkserver

        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, *modules])
        with starting_workers():
            forkserver.ensure_running()


class LocalEngine(Engine):
    """Worker processes that take one step after another. They end when this process stops or dies.

    `devices`: of several GPUs, each worker sees one, in turn. A step whose worker dies is tried `retries` times more.
    """

    def __init__(self, store: Store, do: Do, *, workers: int, devices: int = 0, retries: int = 2) -> None:
        # Where it can be, workers fork from a server that has imported all once: they start in milliseconds.
        self._context: Any = multiprocessing.get_context("forkserver" if _FORKS else "spawn")
        self._store, self._do = store, do
        self._size, self._retries = workers, retries
        self._devices = _visible(devices) if devices > 1 else []
        self._idle: list[_Worker] = []
        self._busy: dict[Pipe, tuple[_Worker, Step, Mapping[str, Path]]] = {}
        self._deaths: Counter[str] = Counter()

    def __enter__(self) -> "LocalEngine":
        warm_up()
        return self

    def __exit__(self, *why: object) -> None:
        for worker in [*self._idle, *(worker for worker, _, _ in self._busy.values())]:
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
            worker = self._another()
            worker.pipe.send((step, inputs))
        self._busy[worker.pipe] = (worker, step, inputs)

    def _another(self) -> "_Worker":
        taken = {worker.slot for worker in [*self._idle, *(worker for worker, _, _ in self._busy.values())]}
        slot = next(k for k in range(self._size + 1) if k not in taken)
        own = {"CUDA_VISIBLE_DEVICES": self._devices[slot % len(self._devices)]} if self._devices else {}
        return _Worker(self._context, self._store, self._do, slot, {**os.environ, **worker_environment(), **own})

    def news(self) -> Iterator[News]:
        """What workers say; one that died is replaced."""
        ready: list[Pipe] = list(wait(list(self._busy), timeout=POLL)) if self._busy else []
        for pipe in ready:
            worker, step, inputs = self._busy[pipe]
            try:
                what, part = pipe.recv()
            except (EOFError, OSError):
                del self._busy[pipe]
                why = worker.last_words()
                self._store.tidy(step)
                forget_progress(self._store, step.name)
                self._deaths[step.key] += 1
                times = self._deaths[step.key]
                if times <= self._retries:
                    yield News(step, f"its process died, trying again ({times} of {self._retries})", 0.0)
                    self.give(step, inputs)
                else:
                    often = f" ({times} times)" if times > 1 else ""
                    yield News(step, Failure(step, why.format(often=often), log_tail(self._store, step.name)))
                continue
            if not isinstance(what, str):  # the step is over
                del self._busy[pipe]
                self._idle.append(worker)
            yield News(step, what, part)


def _visible(devices: int) -> list[str]:
    """The GPUs that this process may use, by the names that CUDA knows them by."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:devices] if named else [str(k) for k in range(devices)]


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self, context: Any, store: Store, do: Do, slot: int, environment: Mapping[str, str]) -> None:
        self.slot = slot
        self.pipe, theirs = context.Pipe()
        # The server was started with the environment of then: what was set since is told.
        arguments = (theirs, store, do, dict(environment))
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        with starting_workers():
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
        """Why it is gone; `{often}` stands where the number of times goes."""
        self.end()
        code = self._process.exitcode
        if code == _KILLED:
            return (
                "its process was killed{often}, most likely for want of memory; free some (compute.workers=1), "
                "then the same command resumes"
            )
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        return f"its process died{{often}} ({how}); the same command resumes"


def _serve(pipe: Pipe, store: Store, do: Do, environment: dict[str, str]) -> None:
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
        answer = work_on(step, store, inputs, do, lambda what, part: pipe.send((what, part)))
        with suppress(OSError):
            pipe.send((answer, 1.0))
