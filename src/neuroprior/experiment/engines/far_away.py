"""What engines share whose workers may be on another machine: paths from the root, what is said in the store."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from neuroprior.experiment.engine import News
from neuroprior.experiment.progress import read_progress
from neuroprior.experiment.store import Step, Store


def rooted(store: Store) -> Store:
    """The same store, by a path that means the same in every folder."""
    return Store(store.root.absolute())


def rooted_inputs(inputs: Mapping[str, Path]) -> dict[str, Path]:
    """The same folders, by paths that mean the same in every folder."""
    return {name: folder.absolute() for name, folder in inputs.items()}


def last_line(error: Exception) -> str:
    """What an error that came from elsewhere ends with: its own words, after the traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:200]


def another_try(vain: Counter[str], step: Step, retries: int) -> str | None:
    """Count one more vain try of a step; say that it is made again, or return None where `retries` are used up."""
    vain[step.key] += 1
    often = vain[step.key]
    return f"submitting it again ({often} of {retries})" if often <= retries else None


def at_work(store: Store, steps: Mapping[str, Step]) -> Iterator[News]:
    """What these steps, by key, last said in the store."""
    for step in steps.values():
        said = read_progress(store, step.name)
        if said is not None:
            yield News(step, said.what, said.part)
