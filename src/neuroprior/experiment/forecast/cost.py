"""What a run will cost, step by step, and how long the engine will take over the graph."""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neuroprior.experiment.compute import torch_settled
from neuroprior.experiment.engine import Graph
from neuroprior.experiment.forecast.needs import MB
from neuroprior.experiment.forecast.trial import Trial
from neuroprior.experiment.recipe import Recipe
from neuroprior.experiment.sections import ComputeSection
from neuroprior.experiment.steps.settings import AttackWork, MaskingWork, MeasureWork, ProbeWork, TrainWork
from neuroprior.experiment.store import Step


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step is expected to take. `memory_mb`: at its peak, the program included; `disk_mb`: what it leaves."""

    step: Step
    seconds: float
    memory_mb: float
    disk_mb: float
    done: bool


@dataclass(frozen=True, slots=True)
class Forecast:
    """The graph with its cost. `seconds`: from start to end, of what is not done yet. `compute` is settled."""

    costs: tuple[Cost, ...]
    compute: ComputeSection
    seconds: float

    @property
    def workers(self) -> int:
        """How many steps run at a time."""
        return int(self.compute.workers)

    @property
    def memory_mb(self) -> float:
        """The largest steps that may run at the same time, together."""
        largest = sorted((cost.memory_mb for cost in self.costs if not cost.done), reverse=True)
        return math.fsum(largest[: self.workers])

    @property
    def disk_mb(self) -> float:
        """What the steps that are not done will leave."""
        return math.fsum(cost.disk_mb for cost in self.costs if not cost.done)

    def groups(self) -> list[list[Cost]]:
        """The steps of each kind and condition together, in the order of the plan: seeds cost alike."""
        grouped: dict[tuple[str, str], list[Cost]] = {}
        for cost in self.costs:
            work = cost.step.work
            of = str(getattr(work, "condition", getattr(work, "control", "")))
            grouped.setdefault((cost.step.kind, of), []).append(cost)
        return list(grouped.values())


@dataclass(frozen=True, slots=True)
class AssumedGPUs:
    """GPUs that are not here: how many, and 10^12 operations a second (2 a multiply-add) that each is taken to do.

    What a network's passes take here is scaled by the ratio of the rates; targets and reading stay as they are here.
    """

    count: int
    teraflops: float


def forecast(
    recipe: Recipe, steps: Sequence[Step], done: Callable[[Step], bool], *, assumed: AssumedGPUs | None = None
) -> Forecast:
    """Predict the cost of each step of a recipe whose `compute` is settled, here or on GPUs that are assumed."""
    compute = recipe.compute
    assert isinstance(compute.workers, int) and isinstance(compute.threads, int)  # noqa: PT018 - settled
    with torch_settled(compute.threads):
        trial = Trial(recipe)
        costs = []
        for step in steps:
            needs = trial.needs(step)
            seconds = needs.seconds
            if assumed is not None and isinstance(step.work, _OF_NETWORKS):
                seconds *= trial.network.rate(training=isinstance(step.work, TrainWork)) / (1e12 * assumed.teraflops)
            costs.append(Cost(step, seconds, needs.memory / MB, needs.disk / MB, done(step)))
    if assumed is not None:
        compute = compute.model_copy(update={"device": "cuda", "workers": assumed.count})
    assert isinstance(compute.workers, int)
    return Forecast(tuple(costs), compute, _duration(costs, compute.workers))


_OF_NETWORKS = (TrainWork, MeasureWork, AttackWork, ProbeWork, MaskingWork)
"""Steps whose time is a classifier's passes."""


def _duration(costs: Sequence[Cost], workers: int) -> float:
    """Play the engine: `workers` take ready steps, longest first; return when the last one ends."""
    todo = Graph([cost.step for cost in costs], {cost.step.key for cost in costs if cost.done})
    seconds = {cost.step.key: cost.seconds for cost in costs}
    running: list[tuple[float, str]] = []
    now = 0.0
    while todo.ready or running:
        while todo.ready and len(running) < workers:
            key = todo.next().key
            heapq.heappush(running, (now + seconds[key], key))
        now, ended = heapq.heappop(running)
        todo.finish(todo.by_key[ended])
    return now
