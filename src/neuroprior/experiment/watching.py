"""How far a run is, for whoever looks on: read from its folder and store, while it runs or afterwards."""

import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuroprior.experiment.progress import FAILED, log_tail, read_progress
from neuroprior.experiment.runs import RunPlan, driver_name, show_run, store_of


@dataclass(frozen=True, slots=True)
class StepView:
    """One step: what it is doing, and the part done (0 to 1).

    `seconds`, `seconds_left`: that it has taken, and probably will; None unknown. `said`: the last lines that it
    printed, of one that is not done.
    """

    label: str
    kind: str
    state: Literal["done", "at work", "stopped", "failed", "to do"]
    what: str
    part: float
    seconds: float | None
    seconds_left: float | None
    host: str
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at one moment. `seconds_left`: from the pace so far of steps of each kind; None while one is unknown."""

    folder: Path
    steps: tuple[StepView, ...]
    seconds_left: float | None
    driven: bool
    """Whether a command is at work on the run, be it that it waits for a queue."""

    def count(self, state: str) -> int:
        """How many steps are in this state."""
        return sum(step.state == state for step in self.steps)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.count("done") == len(self.steps)


def look_on(out: Path) -> RunView:
    """Look at the run in a folder. Raises `InputError` where there is none."""
    planned, store = RunPlan.read(out), store_of(out)
    names = {step.label: step.name for step in planned.steps}
    views = []
    for state in show_run(out, sizes=False):
        told = read_progress(store, names[state.label]) if state.state != "done" else None
        failed = told is not None and told.what.startswith(FAILED) and state.state != "at work"
        said = told if state.state == "at work" else None
        views.append(
            StepView(
                label=state.label,
                kind=state.kind,
                state="failed" if failed else state.state,
                what=told.what if told is not None and (failed or said is not None) else state.state,
                part=float(state.state == "done") if said is None else said.part,
                seconds=state.seconds if said is None else said.said - said.started,
                seconds_left=None if said is None else said.seconds_left,
                host="" if said is None else said.host,
                said=() if state.state == "done" else log_tail(store, names[state.label]),
            )
        )
    return RunView(out, tuple(views), _left(views), store.is_taken(driver_name(out)))


def _left(views: list[StepView]) -> float | None:
    """Seconds until the end, from the median of each kind's finished steps and the pace of those at work."""
    taken = defaultdict[str, list[float]](list)
    for view in views:
        if view.state == "done" and view.seconds is not None:
            taken[view.kind].append(view.seconds)
        elif view.seconds is not None and view.seconds_left is not None:
            taken[view.kind].append(view.seconds + view.seconds_left)
    at_work = [view for view in views if view.state == "at work"]
    total = 0.0
    for view in views:
        if view.state in ("done", "failed"):
            continue
        if view.seconds_left is not None:
            total += view.seconds_left
        elif taken[view.kind]:
            total += statistics.median(taken[view.kind])
        else:
            return None
    return total / max(1, len(at_work))
