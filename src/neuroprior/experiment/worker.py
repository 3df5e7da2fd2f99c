"""What a worker is started with and does with a step, wherever it runs: what it says is kept in the store."""

import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from neuroprior.experiment.engine import POLL, Answer, Do, Failure, Held, Say
from neuroprior.experiment.progress import Reporter, log_file, log_tail
from neuroprior.experiment.store import Step, Store, TakenError, code_version
from neuroprior.files import disk_fault
from neuroprior.sources import data_folder
from neuroprior.types import InputError

_THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_PATIENCE = 60.0
"""Seconds that a worker elsewhere holds its place for what may yet come: a shared disk shows a new folder that late."""


def worker_environment() -> dict[str, str]:
    """What every engine starts its workers with: where data lies, and what is said here of threads.

    Threads that wait must sleep, not spin: other workers need the cores. Libraries read all this when they are loaded,
    so it must be there when a worker's process starts.
    """
    said = {name: os.environ[name] for name in _THREADS if name in os.environ}
    return {"OMP_WAIT_POLICY": "PASSIVE", **said, "NEUROPRIOR_DATA": str(data_folder().absolute())}


@contextmanager
def starting_workers() -> Iterator[None]:
    """Give processes that start meanwhile `worker_environment`; this one's own is as before afterwards."""
    before = dict(os.environ)
    os.environ.update(given := worker_environment())
    try:
        yield
    finally:
        for name in given:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


def work_on(
    step: Step,
    store: Store,
    inputs: Mapping[str, Path],
    do: Do,
    tell: Say | None = None,
    patience: float = -1.0,
) -> Answer:
    """Run one step and put its folder into the store; return why it failed, or None.

    What it prints goes to the store's log of it, the traceback of a failure too; `tell` and the store are told of
    progress, now and then. Whatever process this is, only this step may print meanwhile. `Held` where another process
    is at work on the step, after `patience` seconds; where that is negative it is waited for.
    """
    last = -1.0

    def say(what: str, part: float) -> None:
        nonlocal last
        if time.monotonic() - last > POLL:
            last = time.monotonic()
            reporter.say(what, part)
            if tell is not None:
                tell(what, part)

    if tell is not None:
        tell("starting", 0.0)
    try:
        # What another process says of the step while this one waits for it is that one's.
        with store.writing(step, patience) as out:
            if out is not None:
                with Reporter(store, step.name) as reporter, _printing_to(log_file(store, step.name)):
                    try:
                        do(step.work, inputs, out, say)
                    except Exception as error:
                        reporter.failed(_reason(error, store))
                        if not isinstance(error, InputError):
                            with suppress(OSError):  # a full disk has no room for it either
                                traceback.print_exc()
                        raise
    except TakenError:
        return Held(step)
    except Exception as error:  # the step's own fault is told; the rest of the graph goes on
        return Failure(step, _reason(error, store), log_tail(store, step.name))
    return None


def work_far_away(
    step: Step,
    root: Path,
    inputs: Mapping[str, Path],
    do: Do,
    environment: Mapping[str, str],
    code: Mapping[str, str],
    patience: float = _PATIENCE,
) -> Answer:
    """`work_on`, perhaps on another machine: in the driver's environment, and where store and software are the same.

    Its place on the cluster is held while it waits, so it waits `patience` seconds at most, for folders that it does
    not see yet as for another process that is at work on the step.
    """
    os.environ.update(environment)
    host = platform.node() or "this node"
    store = Store(root)
    until = time.monotonic() + patience
    while unseen := [path for path in (root, root / "store.json", *inputs.values()) if not path.exists()]:
        if time.monotonic() > until:
            return Failure(
                step,
                f"node {host} does not see {unseen[0]}; put the store on a disk that all nodes share "
                "(NEUROPRIOR_STORE)",
                elsewhere=True,
            )
        time.sleep(POLL)
    here = code_version()
    differing = [
        "another state of neuroprior's source" if name == "source" else f"{name} {here.get(name)} for {value}"
        for name, value in code.items()
        if here.get(name) != value
    ]
    if differing:
        return Failure(
            step, f"node {host} has other software than the driver ({differing[0]}); install the same on every node"
        )
    return work_on(step, store, inputs, do, patience=patience)


@contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Send what this process prints, compiled libraries too, to a file that is new each time; an empty one goes."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        to = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    except OSError:  # nothing can be written there: the step itself will say so
        yield
        return
    before = [os.dup(1), os.dup(2)]
    os.dup2(to, 1)
    os.dup2(to, 2)
    os.close(to)
    try:
        yield
    finally:
        for printed in (sys.stdout, sys.stderr):
            with suppress(OSError):
                printed.flush()
        for stream, was in zip((1, 2), before, strict=True):
            os.dup2(was, stream)
            os.close(was)
        with suppress(OSError):
            if not log.stat().st_size:
                log.unlink()


def _reason(error: Exception, store: Store) -> str:
    """Say in one line what went wrong, and what to do where the machine is at fault and not the step."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if (fault := disk_fault(error, store.root)) is not None:
        return f"{store.root}: {fault}"
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return f"out of memory ({lines[-1][:120]}); free some (compute.workers=1), then the same command resumes"
    known = isinstance(error, InputError | ValueError | FloatingPointError)
    return lines[-1] if known else f"{type(error).__name__}: {lines[-1]}"
