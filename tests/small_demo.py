"""The packaged demo at a size that a test can wait for."""

from pathlib import Path

from neuroprior.experiment import Recipe, packaged_recipe, run_recipe

SMALL = [
    "scale=tiny",
    "task.n_train=150",
    "task.n_test=60",
    "network.width=2",
    "compute={device: cpu, precision: float32, threads: 1, workers: 1}",
]


def small(*more: str) -> Recipe:
    return packaged_recipe("demo", [*SMALL, *more])


def go(out: Path, *more: str, said: list | None = None) -> list:
    """Run it; return what failed, and append to `said` what was told on the way."""
    return run_recipe(
        small(*more), out, command=["test"], watch=lambda *a: said.append(a) if said is not None else None
    )
