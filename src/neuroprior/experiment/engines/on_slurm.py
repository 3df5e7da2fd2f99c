"""The slurm engine: each step a job, through submitit; the cluster queues, places and requeues it."""

import math
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from neuroprior.experiment.engine import POLL, Answer, Do, Engine, Failure, News
from neuroprior.experiment.engines.far_away import another_try, at_work, last_line, rooted, rooted_inputs
from neuroprior.experiment.progress import forget_progress
from neuroprior.experiment.sections import ComputeSection
from neuroprior.experiment.store import Step, Store, code_version
from neuroprior.experiment.worker import starting_workers, work_far_away, worker_environment
from neuroprior.types import InputError

_AGAIN = 10.0
"""Seconds between tries of a job that slurm refused."""
_STILL_COUNTED = 120.0
"""Seconds after its end for which slurm may count a job towards what a user may have."""


class SlurmEngine(Engine):
    """Jobs of `threads` CPUs, a GPU where the recipe computes on one, and what `compute.cluster` says.

    `compute.cluster.debug`: submitit's processes on this machine in place of jobs, `compute.workers` at a time.
    """

    def __init__(self, store: Store, do: Do, compute: ComputeSection, *, gpu: bool) -> None:
        self._submitit = _submitit()
        self._store, self._do, self._compute, self._gpu = rooted(store), do, compute, gpu
        self._running: dict[str, tuple[Any, Step, Mapping[str, Path]]] = {}
        self._vain: Counter[str] = Counter()
        self._refused: list[tuple[Step, Mapping[str, Path]]] = []
        self._tried = self._last_over = -math.inf
        self._executor: Any = None

    def __enter__(self) -> "SlurmEngine":
        asked = self._compute.cluster
        # submitit leaves each job's call and answer here, for the job and this process alone.
        folder = self._store.root / ".jobs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # pickles, which nobody else may write
        self._executor = self._submitit.AutoExecutor(folder, cluster="local" if asked.debug else "slurm")
        wants: dict[str, Any] = dict(cpus_per_task=self._compute.threads, timeout_min=asked.minutes)
        if asked.memory_gb is not None:
            wants["mem_gb"] = asked.memory_gb
        if self._gpu:
            wants["gpus_per_node"] = 1
        if not asked.debug:
            # Not left to what sbatch hands on, which a cluster may restrict.
            wants["slurm_setup"] = [f"export {name}={shlex.quote(v)}" for name, v in worker_environment().items()]
            named = {"partition": asked.partition, "account": asked.account, "qos": asked.qos}
            wants |= {f"slurm_{name}": value for name, value in named.items() if value is not None}
            if asked.extra:
                wants["slurm_additional_parameters"] = dict(asked.extra)
        self._executor.update_parameters(name="neuroprior", **wants)
        return self

    def __exit__(self, *why: object) -> None:
        for job, *_ in self._running.values():
            with suppress(Exception):  # one that just ended cannot be cancelled
                job.cancel()
        self._running.clear()

    @property
    def busy(self) -> bool:
        """Whether any job is not over."""
        return bool(self._running or self._refused)

    @property
    def has_room(self) -> bool:
        """Up to `compute.cluster.jobs`; submitit's own processes, which nobody queues, up to `compute.workers`."""
        assert isinstance(self._compute.workers, int)  # settled
        asked = self._compute.cluster
        most = self._compute.workers if asked.debug else asked.jobs
        return not self._refused and (most is None or len(self._running) < most)

    def give(self, step: Step, inputs: Mapping[str, Path]) -> None:
        """Submit the step; one that is refused while others run, or just did, waits and is tried again."""
        self._executor.update_parameters(name=step.label)
        arguments = (step, self._store.root, rooted_inputs(inputs), self._do, worker_environment(), code_version())
        try:
            with starting_workers():
                job = self._executor.submit(_Job(), *arguments)
        except self._submitit.core.utils.FailedJobError as error:  # a partition that is none, a quota
            if self._running or time.monotonic() - self._last_over < _STILL_COUNTED:
                self._refused.append((step, inputs))
                self._tried = time.monotonic()
                return
            why = " ".join(str(error).split())[:200]
            raise InputError(f"--engine slurm: the job was refused ({why}); mend compute.cluster") from None
        self._running[step.key] = (job, step, inputs)

    def news(self) -> Iterator[News]:
        """What the jobs say in the store, and which are over."""
        if self.busy:
            time.sleep(POLL)
        if time.monotonic() - self._tried > _AGAIN:
            self._try_refused()
        for key, (job, step, inputs) in list(self._running.items()):
            if not job.done():
                continue
            del self._running[key]
            self._last_over = time.monotonic()
            self._try_refused()
            answer: Answer
            lost = None
            try:
                answer = job.result()
                self._forget(job)
            except self._submitit.core.utils.FailedJobError as error:  # it raised before it came to the step
                answer = Failure(step, f"job {job.job_id}: {last_line(error)}", self._said(job))
            except Exception as error:  # killed, out of time or memory, or its node is gone
                self._store.tidy(step)
                forget_progress(self._store, step.name)
                lost = f"job {job.job_id} was lost"
                why = f"{lost} {self._compute.retries + 1} times (state {job.state}, {type(error).__name__})"
                answer = Failure(step, f"{why}; the same command resumes", self._said(job))
            else:
                if isinstance(answer, Failure) and answer.elsewhere:
                    lost = f"job {job.job_id}: {answer.reason}"
            again = another_try(self._vain, step, self._compute.retries) if lost is not None else None
            if again is not None:
                yield News(step, f"{lost}; {again}", 0.0)
                self.give(step, inputs)
                continue
            yield News(step, answer)
        yield from at_work(self._store, {key: step for key, (_, step, _) in self._running.items()})

    def _try_refused(self) -> None:
        waiting, self._refused = self._refused, []
        for one in waiting:
            self.give(*one)

    def _said(self, job: Any) -> tuple[str, ...]:
        """The last lines of a job's stderr: what slurm says of memory and time is there."""
        with suppress(Exception):  # a file that was never written, or not yet seen from here
            return tuple(line for line in (job.stderr() or "").splitlines() if line.strip())[-5:]
        return ()

    def _forget(self, job: Any) -> None:
        """Remove a good job's call, answer and prints: nobody reads them again."""
        for file in Path(job.paths.folder).glob(f"{job.job_id}_*"):
            with suppress(OSError):
                file.unlink()


class _Job:
    """What a job calls. A job that is preempted or out of time is put into the queue again, and goes on there."""

    def __call__(self, *arguments: Any) -> Answer:
        return work_far_away(*arguments)

    def checkpoint(self, *arguments: Any) -> Any:
        """Asked by submitit when slurm warns the job."""
        return _submitit().helpers.DelayedSubmission(self, *arguments)


def _submitit() -> Any:
    """Import submitit, which need not be there."""
    import submitit

    return submitit
