"""What runs there are, how far each is, and what a store holds that no run needs any more."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from neuroprior.experiment.store import CHECKPOINT, Store, folder_name, manifest, write_json
from neuroprior.types import InputError


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run's folder. `created` is the clock's word of then (ISO 8601), and `from_future` that it is ahead of now."""

    folder: Path
    name: str
    created: str
    from_future: bool
    steps: int
    done: int
    disk_mb: float


@dataclass(frozen=True, slots=True)
class StepState:
    """One step of a run. `stopped`: begun, and a checkpoint to go on from. Times and memory are of when it was made."""

    label: str
    kind: str
    state: Literal["done", "at work", "stopped", "to do"]
    seconds: float | None
    peak_memory_mb: int | None
    disk_mb: float
    folder: Path


@dataclass(frozen=True, slots=True)
class Garbage:
    """A folder of a store that can go, and why."""

    folder: Path
    why: str
    disk_mb: float


def read_plan(out: Path) -> dict[str, Any]:
    """Return `plan.json` of a run. Raises `InputError` where there is none, or a damaged one."""
    try:
        planned = json.loads((out / "plan.json").read_text())
        _ = [(entry["label"], entry["kind"], entry["key"]) for entry in planned["steps"]], planned["store"]
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{out}: no run in it (plan.json is missing); `neuroprior run` makes one") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{out / 'plan.json'}: damaged; delete it and give the run's command again") from None
    return dict(planned)


def store_of(out: Path) -> Store:
    """The store that NEUROPRIOR_STORE names, else the one the run was made with, else the run's own."""
    named = os.environ.get("NEUROPRIOR_STORE")
    if not named and (out / "plan.json").exists():
        named = read_plan(out)["store"]
    return Store(Path(named or out / "steps"))


def list_runs(folder: Path) -> list[RunSummary]:
    """Return the runs that lie in `folder` (or are it), by name of their folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one that holds runs")
    places = [folder] if (folder / "plan.json").exists() else sorted(p.parent for p in folder.glob("*/plan.json"))
    return [_summary(out) for out in places]


def _summary(out: Path) -> RunSummary:
    states = show_run(out)
    created = str(_json(out / "provenance.json").get("created", "unknown"))
    try:
        from_future = datetime.fromisoformat(created) > datetime.now(UTC)
    except (ValueError, TypeError):
        from_future = False
    recipe = out / "recipe.yaml"
    first = recipe.read_text().partition("\n")[0] if recipe.exists() else ""
    return RunSummary(
        folder=out,
        name=first.removeprefix("name: ") if first.startswith("name: ") else out.name,
        created=created,
        from_future=from_future,
        steps=len(states),
        done=sum(state.state == "done" for state in states),
        disk_mb=sum(state.disk_mb for state in states),
    )


def show_run(out: Path) -> list[StepState]:
    """Return each step of a run, in the order of its plan."""
    planned, store = read_plan(out), store_of(out)
    return [_state(store, entry) for entry in planned["steps"]]


def _state(store: Store, entry: Mapping[str, str]) -> StepState:
    name = folder_name(entry["label"], entry["key"])
    folder, unfinished = store.root / name, store.unfinished(name)
    said = manifest(folder)
    state: Literal["done", "at work", "stopped", "to do"] = "to do"
    if folder.is_dir():
        state = "done"
    elif unfinished.is_dir():
        state = "at work" if store.is_taken(name) else "stopped" if (unfinished / CHECKPOINT).exists() else "to do"
    return StepState(
        label=entry["label"],
        kind=entry["kind"],
        state=state,
        seconds=said.get("seconds"),
        peak_memory_mb=said.get("peak_memory_mb"),
        disk_mb=size_mb(folder if state == "done" else unfinished),
        folder=folder,
    )


def register_run(out: Path, store: Store, names: Iterable[str]) -> None:
    """Write down in the store which of its steps this run needs, so that `find_garbage` leaves them."""
    # Relative, so that a run and its own store may be moved together.
    place = os.path.relpath(out.resolve(), store.root.resolve())
    known = store.root / ".runs" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"
    known.parent.mkdir(exist_ok=True)
    write_json(known, {"run": place, "steps": sorted(names)})


def find_garbage(store: Store) -> list[Garbage]:
    """Return what no run needs: steps of runs that are gone, and what stopped processes left of such steps.

    A step that some process is at work on is never among them.
    """
    if not (store.root / "store.json").exists():
        raise InputError(f"{store.root}: not a store; name a run's folder, or a store")
    store.check()
    needed: set[str] = set()
    gone: dict[str, str] = {}
    for known in sorted((store.root / ".runs").glob("*.json")):
        said = _json(known)
        names = [str(name) for name in said.get("steps", ())]
        if (store.root / str(said.get("run")) / "plan.json").exists():
            needed.update(names)
        else:
            gone.update(dict.fromkeys(names, str(said.get("run"))))
    return [
        Garbage(folder, f"of {gone[name]}, which is gone" if name in gone else "of no run", size_mb(folder))
        for name, folder in sorted(_step_folders(store))
        if name not in needed and not store.is_taken(name)
    ]


def _step_folders(store: Store) -> Iterator[tuple[str, Path]]:
    unfinished = store.root / ".unfinished"
    for folder in [*store.root.iterdir(), *(unfinished.iterdir() if unfinished.is_dir() else ())]:
        if folder.is_dir() and not folder.name.startswith(".") and (manifest(folder) or folder.parent == unfinished):
            yield folder.name, folder


def remove_garbage(store: Store, found: Iterable[Garbage]) -> None:
    """Remove what `find_garbage` found, and the entries of runs that are gone."""
    for garbage in found:
        # Out of sight first: a folder half removed must not be taken for a finished step.
        doomed = garbage.folder.with_name(f".removed-{garbage.folder.name}")
        garbage.folder.rename(doomed)
        shutil.rmtree(doomed)
    for known in (store.root / ".runs").glob("*.json"):
        if not (store.root / str(_json(known).get("run")) / "plan.json").exists():
            known.unlink()


def size_mb(folder: Path) -> float:
    """Megabytes of the files in a folder; 0 where there is none."""
    sizes = (file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else ()
    return sum(sizes) / 2**20


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
