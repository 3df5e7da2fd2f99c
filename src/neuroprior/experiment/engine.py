"""The local engine: runs the graph in worker processes, longest first, skipping what the store already has."""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from neuroprior.experiment.store import Step, Store
from neuroprior.experiment.work import (
    MeasureWork,
    Say,
    TargetWork,
    TrainWork,
    make_targets,
    measure_network,
    train_network,
)

Watch = Callable[[str, str, float], None]
"""Told of progress: the step's label, what it is doing, and the part done (1 when it is finished)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that failed, and why in one line."""

    step: Step
    reason: str


def run_steps(steps: Sequence[Step], store: Store, *, workers: int, threads: int, watch: Watch) -> list[Failure]:
    """Run what is not in the store yet; return what failed. Steps that wait for a failed one are not started.

    With one worker the steps run in this process, else in `workers` processes of `threads` threads each.
    """
    folders = {step.key: store.folder(step) for step in steps}
    kinds = {step.key: step.kind for step in steps}

    def inputs(step: Step) -> dict[str, Path]:
        # A step names its inputs by what they are to it: the target, or the network it measures.
        return {"network" if kinds[key] == "train" else kinds[key]: folders[key] for key in step.inputs}

    for step in steps:
        if store.has(step):
            watch(step.label, "already there", 1.0)
    waiting = [step for step in steps if not store.has(step)]
    store.sweep()
    try:
        if workers == 1:
            return _run_here(waiting, store, inputs, threads, watch)
        return _run_in_processes(waiting, store, inputs, workers, threads, watch)
    finally:
        store.sweep()


def _run_here(
    waiting: list[Step], store: Store, inputs: Callable[[Step], dict[str, Path]], threads: int, watch: Watch
) -> list[Failure]:
    failures: list[Failure] = []
    for step in waiting:
        if not all(folder.is_dir() for folder in inputs(step).values()):
            continue
        try:
            run_step(step, store, inputs(step), threads, partial(watch, step.label))
            watch(step.label, "done", 1.0)
        except Exception as error:  # the step's own fault is reported; the rest of the graph goes on
            failures.append(Failure(step, _reason(error)))
    return failures


def _run_in_processes(
    waiting: list[Step],
    store: Store,
    inputs: Callable[[Step], dict[str, Path]],
    workers: int,
    threads: int,
    watch: Watch,
) -> list[Failure]:
    failures: list[Failure] = []
    context = multiprocessing.get_context("spawn")
    # Threads of a waiting process must sleep, not spin: the other workers need the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    told: Any = context.Queue()
    # The workers watch this pipe: it closes when this process stops or dies, and no worker outlives it.
    watched, alive = context.Pipe(duplex=False)
    left = sorted(waiting, key=lambda step: -step.cost)
    running: dict[Future[None], Step] = {}
    with (
        _interrupt_noted() as interrupted,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(told, watched)) as pool,
    ):
        try:
            while left or running:
                if interrupted.is_set():
                    raise KeyboardInterrupt
                ready = [s for s in left if all(f.is_dir() for f in inputs(s).values())]
                for step in ready[: workers - len(running)]:
                    left.remove(step)
                    running[pool.submit(_run_remote, step, store, inputs(step), threads)] = step
                if not running:
                    break  # what is left waits for steps that failed
                done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                _pass_on(told, watch)
                for future in done:
                    step = running.pop(future)
                    error = future.exception()
                    if error is None:
                        watch(step.label, "done", 1.0)
                    else:
                        failures.append(Failure(step, _reason(error)))
        except BrokenProcessPool as error:  # a worker died, and the pool takes no more work
            failures += [Failure(step, _reason(error)) for step in running.values()]
        except BaseException:
            alive.close()  # the workers end at once
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            watched.close()
    alive.close()
    return failures


@contextmanager
def _interrupt_noted() -> Iterator[threading.Event]:
    """Note Ctrl-C instead of raising at once: raised inside `concurrent.futures`, it can leave a lock held for ever."""
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


def run_step(step: Step, store: Store, inputs: Mapping[str, Path], threads: int, say: Say) -> None:
    """Run one step and put its folder into the store."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    # The same bytes again: cuDNN would otherwise choose among kernels by timing them.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    try:
        with store.writing(step) as out:
            match step.work:
                case TargetWork():
                    make_targets(step.work, inputs, out, say)
                case TrainWork():
                    train_network(step.work, inputs, out, say)
                case MeasureWork():
                    measure_network(step.work, inputs, out, say)
                case _:
                    raise TypeError(f"no worker for a step of kind {step.kind}")
    finally:
        torch.set_num_threads(before)


_told: Any = None  # the queue of this worker process


def _begin(told: Any, watched: Any) -> None:
    """Begin a worker process: keep the queue, and end at once when the process that started it stops or is gone."""
    global _told
    _told = told

    def end_with_parent() -> None:
        watched.poll(None)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one alone decides
    threading.Thread(target=end_with_parent, daemon=True).start()


def _run_remote(step: Step, store: Store, inputs: Mapping[str, Path], threads: int) -> None:
    last = [0.0]

    def say(what: str, part: float) -> None:
        if time.monotonic() - last[0] > 0.2 or part >= 1:
            last[0] = time.monotonic()
            _told.put((step.label, what, part))

    say("starting", 0.0)
    run_step(step, store, inputs, threads, say)


def _pass_on(told: Any, watch: Watch) -> None:
    while True:
        try:
            label, what, part = told.get_nowait()
        except queue.Empty:
            return
        watch(label, what, min(part, 0.99))


def _reason(error: BaseException) -> str:
    if isinstance(error, BrokenProcessPool):
        return "its process died (out of memory?); the same command resumes"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    known = isinstance(error, (ValueError, FloatingPointError))
    return lines[-1] if known else f"{type(error).__name__}: {lines[-1]}"
