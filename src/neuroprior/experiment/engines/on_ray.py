"""The ray engine: each step a task of a ray cluster, which places it, queues it, and tries again what died."""

import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from neuroprior.experiment.engine import POLL, Answer, Do, Engine, Failure, News
from neuroprior.experiment.engines.far_away import another_try, at_work, last_line, rooted, rooted_inputs
from neuroprior.experiment.progress import forget_progress, log_tail
from neuroprior.experiment.sections import ComputeSection
from neuroprior.experiment.store import Step, Store, code_version
from neuroprior.experiment.worker import work_far_away, worker_environment
from neuroprior.types import InputError

_COLOURS = re.compile(r"\x1b\[\d*m")


class RayEngine(Engine):
    """Tasks of the cluster that RAY_ADDRESS or `compute.cluster.address` names, else of one started on this machine.

    A task asks for `threads` CPUs, a GPU where the recipe computes on one, and `compute.cluster.memory_gb`.
    """

    def __init__(self, store: Store, do: Do, compute: ComputeSection, *, gpu: bool) -> None:
        self._ray = _ray()
        self._store, self._do, self._compute, self._gpu = rooted(store), do, compute, gpu
        self._mine = False
        self._running: dict[Any, tuple[Step, Mapping[str, Path]]] = {}
        self._vain: Counter[str] = Counter()
        self._task: Any = None

    def __enter__(self) -> "RayEngine":
        ray, compute = self._ray, self._compute
        assert isinstance(compute.workers, int) and isinstance(compute.threads, int)  # noqa: PT018 - settled
        address = compute.cluster.address or os.environ.get("RAY_ADDRESS")
        if not ray.is_initialized():
            start: dict[str, Any] = dict(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
            if address is None:
                start |= dict(address="local", num_cpus=compute.workers * compute.threads)
            else:
                start |= dict(address=address)
                start.pop("include_dashboard")  # of a cluster that is there, others decided
            try:
                if address is not None:
                    _knock(address)  # ray itself would try for a minute
                ray.init(**start)
            except (OSError, RuntimeError, ValueError) as error:
                why = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
                raise InputError(
                    f"--engine ray: no ray cluster at {address or 'this machine'} ({why}); start one (`ray start "
                    "--head`), name it in RAY_ADDRESS, or unset that to have one started here"
                ) from None
            self._mine = True
        asks: dict[str, Any] = dict(num_cpus=compute.threads, num_gpus=1 if self._gpu else 0)
        if compute.cluster.memory_gb is not None:
            asks["memory"] = int(compute.cluster.memory_gb * 2**30)
        # A worker's death is the cluster's to mend; what the step itself raises comes back as a value. The environment
        # is the task's, not the connection's: that may be somebody else's, and be there already.
        begun_with = {"env_vars": worker_environment()}
        self._task = ray.remote(max_retries=compute.retries, retry_exceptions=False, runtime_env=begun_with, **asks)(
            work_far_away
        )
        try:
            self._refuse_impossible(asks)
        except InputError:
            self.__exit__()
            raise
        return self

    def _refuse_impossible(self, asks: Mapping[str, int]) -> None:
        """A task that no node could ever run would wait for ever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        if not any(all(node.get(names[what], 0) >= count for what, count in asks.items()) for node in nodes):
            wants = ", ".join(f"{count:g} {names[what]}" for what, count in asks.items() if count)
            raise InputError(
                f"--engine ray: none of the cluster's {len(nodes)} nodes has what a step asks for ({wants}); "
                "lower compute.threads or compute.cluster.memory_gb, or add a node"
            )

    def __exit__(self, *why: object) -> None:
        for task in self._running:
            with suppress(Exception):  # a cluster that is gone has nothing left to cancel
                self._ray.cancel(task, force=True)
        self._running.clear()
        if self._mine:
            self._ray.shutdown()

    @property
    def busy(self) -> bool:
        """Whether any task is not over."""
        return bool(self._running)

    @property
    def has_room(self) -> bool:
        """Always: the cluster has the queue."""
        return True

    def give(self, step: Step, inputs: Mapping[str, Path]) -> None:
        """Submit the step."""
        task = self._task.options(name=step.label).remote(
            step, self._store.root, rooted_inputs(inputs), self._do, worker_environment(), code_version()
        )
        self._running[task] = (step, inputs)

    def news(self) -> Iterator[News]:
        """What the tasks say in the store, and which are over."""
        if not self._running:
            return
        over, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=POLL)
        for task in over:
            step, inputs = self._running.pop(task)
            answer = self._end_of(task, step)
            if isinstance(answer, Failure) and answer.elsewhere:
                again = another_try(self._vain, step, self._compute.retries)
                if again is not None:
                    yield News(step, f"{answer.reason}; {again}", 0.0)
                    self.give(step, inputs)
                    continue
            yield News(step, answer)
        yield from at_work(self._store, {step.key: step for step, _ in self._running.values()})

    def _end_of(self, task: Any, step: Step) -> Answer:
        try:
            answer: Answer = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:  # it raised before it came to the step
            return Failure(step, f"its worker failed ({last_line(error)})", log_tail(self._store, step.name))
        except self._ray.exceptions.RayError as error:  # the worker, its node or what holds them
            self._store.tidy(step)
            forget_progress(self._store, step.name)
            why = " ".join(_COLOURS.sub("", str(error)).split())[:160]
            reason = f"its worker was lost {self._compute.retries + 1} times ({type(error).__name__}: {why}); "
            return Failure(step, reason + "the same command resumes", log_tail(self._store, step.name))
        return answer


def _ray() -> Any:
    """Import ray, which need not be there."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what ray will do anyway; unsaid, it warns
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    import ray

    return ray


def _knock(address: str) -> None:
    """Raise `OSError` where nothing listens at a HOST:PORT or ray://HOST:PORT; other addresses are ray's to find."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()
