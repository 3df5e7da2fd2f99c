"""What a run costs beside its work: steps that do nothing, and planning a large recipe.

    python benchmarks/run_overhead.py [--json]

1,000 empty steps through the engine and a fresh store (two workers), among them the start of the processes; then the
plan of a recipe of 10,000 steps (5 conditions, 1,000 seeds: keys, order, digests), and the same 1,000 steps again, all
found in the store and verified.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from measured import at_most, show, spread
from pydantic import BaseModel

from neuroprior.experiment import packaged_recipe
from neuroprior.experiment.engine import Say, run_steps
from neuroprior.experiment.plan import plan
from neuroprior.experiment.store import Step, Store

STEPS, PLANNED, REPEATS = 1000, 10_000, 3


class Nothing(BaseModel):
    """Work that is none."""

    number: int


def do_nothing(work: BaseModel, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Do it."""


def timed(what: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()

    chained: list[Step] = []
    for number in range(STEPS):  # each fifth begins anew, the others wait for the one before
        inputs = (("before", chained[-1].key),) if number % 5 else ()
        chained.append(Step("empty", f"empty-{number}", Nothing(number=number), inputs=inputs))
    first, again = [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))

            def run(store: Store = store) -> None:
                assert not run_steps(chained, store, do_nothing, workers=2, watch=lambda *_: None)

            first.append(timed(run))
            again.append(timed(run))
    settled = "compute={device: cpu, precision: float32, threads: 1, workers: 2}"
    recipe = packaged_recipe("demo", [f"seeds={list(range(PLANNED // 10))}", settled])
    planning = [timed(lambda: plan(recipe, {})) for _ in range(REPEATS)]
    show(
        "run_overhead",
        [
            at_most(f"seconds for {STEPS} empty steps", statistics.median(first), 10.0),
            at_most(f"seconds to plan {len(plan(recipe, {}))} steps", statistics.median(planning), 2.0),
        ],
        {
            "seconds, empty steps": spread(first),
            "seconds, the same found in the store": spread(again),
            "seconds, planning": spread(planning),
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
