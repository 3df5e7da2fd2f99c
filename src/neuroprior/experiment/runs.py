"""What runs there are, how far each is, and what a store holds that no run needs any more."""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from neuroprior.experiment.store import CHECKPOINT, Store, folder_name, manifest
from neuroprior.files import read_json, write_json
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


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step as `plan.json` names it."""

    label: str
    kind: str
    key: str

    @property
    def name(self) -> str:
        """Name of its folder in the store."""
        return folder_name(self.label, self.key)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What `plan.json` holds: the steps of a run, and the store they lie in where that is not the run's own."""

    steps: tuple[PlannedStep, ...]
    store: str | None

    @classmethod
    def read(cls, out: Path) -> "RunPlan":
        """Read a run's. Raises `InputError` where there is none, or a damaged one."""
        try:
            said = json.loads((out / "plan.json").read_text(encoding="utf-8"))
            steps = tuple(PlannedStep(e["label"], e["kind"], e["key"]) for e in said["steps"])
            return cls(steps, said["store"])
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{out}: no run in it (plan.json is missing); `neuroprior run` makes one") from None
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{out / 'plan.json'}: damaged; delete it and give the run's command again") from None

    def write(self, out: Path) -> None:
        """Write it into a run's folder."""
        write_json(out / "plan.json", asdict(self))


def named_store() -> str | None:
    """The store that NEUROPRIOR_STORE names, as an absolute path: a run must find it from any folder."""
    named = os.environ.get("NEUROPRIOR_STORE")
    return str(Path(named).absolute()) if named else None


def store_of(out: Path) -> Store:
    """The store that NEUROPRIOR_STORE names, else the one the run was made with, else the run's own."""
    named = named_store()
    if not named and (out / "plan.json").exists():
        named = RunPlan.read(out).store
    return Store(Path(named or out / "steps"))


def list_runs(folder: Path) -> list[RunSummary]:
    """Return the runs that lie in `folder` (or are it), by name of their folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one that holds runs")
    places = [folder] if (folder / "plan.json").exists() else sorted(p.parent for p in folder.glob("*/plan.json"))
    return [_summary(out) for out in places]


def _summary(out: Path) -> RunSummary:
    try:
        states = show_run(out)
    except InputError:  # one damaged run must not hide the others
        return RunSummary(out, out.name, "damaged", from_future=False, steps=0, done=0, disk_mb=0.0)
    created = str(read_json(out / "provenance.json").get("created", "unknown"))
    try:
        from_future = datetime.fromisoformat(created) > datetime.now(UTC)
    except (ValueError, TypeError):
        from_future = False
    recipe = out / "recipe.yaml"
    first = recipe.read_text(encoding="utf-8").partition("\n")[0] if recipe.exists() else ""
    return RunSummary(
        folder=out,
        name=first.removeprefix("name: ") if first.startswith("name: ") else out.name,
        created=created,
        from_future=from_future,
        steps=len(states),
        done=sum(state.state == "done" for state in states),
        disk_mb=sum(state.disk_mb for state in states),
    )


def show_run(out: Path, *, sizes: bool = True) -> list[StepState]:
    """Return each step of a run, in the order of its plan; without `sizes` all of 0 MB, and much faster."""
    planned, store = RunPlan.read(out), store_of(out)
    return [_state(store, step, sizes) for step in planned.steps]


def _state(store: Store, step: PlannedStep, sizes: bool) -> StepState:
    folder, unfinished = store.root / step.name, store.unfinished(step.name)
    said = manifest(folder)
    state: Literal["done", "at work", "stopped", "to do"] = "to do"
    if folder.is_dir():
        state = "done"
    elif unfinished.is_dir():
        state = "at work" if store.is_taken(step.name) else "stopped" if (unfinished / CHECKPOINT).exists() else "to do"
    return StepState(
        label=step.label,
        kind=step.kind,
        state=state,
        seconds=said.get("seconds"),
        peak_memory_mb=said.get("peak_memory_mb"),
        disk_mb=size_mb(folder if state == "done" else unfinished) if sizes else 0.0,
        folder=folder,
    )


def driver_name(out: Path) -> str:
    """The name of the lock in the store that a command holds while it drives the run in this folder."""
    return f"driver-{hashlib.sha256(f'{platform.node()}:{out.resolve()}'.encode()).hexdigest()[:16]}"


def register_run(out: Path, store: Store, names: Iterable[str]) -> None:
    """Write down in the store which of its steps this run needs, so that `find_garbage` leaves them."""
    # Relative, so that a run and its own store may be moved together.
    place = os.path.relpath(out.resolve(), store.root.resolve())
    host = platform.node()
    known = store.root / ".runs" / f"{hashlib.sha256(f'{host}:{place}'.encode()).hexdigest()[:16]}.json"
    known.parent.mkdir(exist_ok=True)
    write_json(known, {"run": place, "host": host, "steps": sorted(names)})


def find_garbage(store: Store, *alive: Path) -> list[Garbage]:
    """Return what no run needs: steps of runs that are gone, and what stopped processes left of such steps.

    Runs of other machines count as there, and those of `alive` wherever the store believes them to be; a step that
    some process is at work on is never among them. Raises `InputError` for a folder that is no store, and where the
    store's note of a run cannot be read.
    """
    if not (store.root / "store.json").exists():
        raise InputError(f"{store.root}: not a store; name a run's folder, or a store")
    store.check()
    needed, gone = _needed(store, alive)
    return [
        Garbage(folder, f"of {gone[name]}, which is gone" if name in gone else "of no run", size_mb(folder))
        for name, folder in sorted(_step_folders(store))
        if name not in needed and not store.is_taken(name)
    ]


def _needed(store: Store, alive: Iterable[Path]) -> tuple[set[str], dict[str, str]]:
    """Return the names of steps that runs need, and for those of lost runs which run it was."""
    needed = {step.name for out in alive for step in RunPlan.read(out).steps}
    gone: dict[str, str] = {}
    for known in sorted((store.root / ".runs").glob("*.json")):
        said = read_json(known)
        if not said.keys() >= {"run", "host", "steps"}:
            raise InputError(f"{known}: damaged; delete it, and give the command of the run that it was of once more")
        if _is_there(store, said):
            needed.update(said["steps"])
        else:
            gone.update(dict.fromkeys(said["steps"], str(said["run"])))
    return needed, gone


def _is_there(store: Store, said: Mapping[str, Any]) -> bool:
    return bool(said["host"] != platform.node()) or (store.root / said["run"] / "plan.json").exists()


def _step_folders(store: Store) -> Iterator[tuple[str, Path]]:
    unfinished = store.root / ".unfinished"
    for folder in [*store.root.iterdir(), *(unfinished.iterdir() if unfinished.is_dir() else ())]:
        if folder.is_dir() and not folder.name.startswith(".") and (manifest(folder) or folder.parent == unfinished):
            yield folder.name, folder


def remove_garbage(store: Store, found: Iterable[Garbage], *alive: Path) -> None:
    """Remove what `find_garbage` found and no run has asked for since, and the notes of runs that are gone."""
    for doomed in [*store.root.glob(".removed-*"), *(store.root / ".unfinished").glob(".removed-*")]:
        shutil.rmtree(doomed)  # of a removal that was killed
    for garbage in found:
        with suppress(Timeout), store.lock(garbage.folder.name, timeout=0.0):
            if garbage.folder.name in _needed(store, alive)[0]:
                continue
            if garbage.folder.is_symlink():
                garbage.folder.unlink()
                continue
            # Out of sight first: a folder half removed must not be taken for a finished step.
            doomed = garbage.folder.with_name(f".removed-{garbage.folder.name}")
            garbage.folder.rename(doomed)
            shutil.rmtree(doomed)
    for known in (store.root / ".runs").glob("*.json"):
        if not _is_there(store, read_json(known)):
            known.unlink()


def size_mb(folder: Path) -> float:
    """Megabytes of the files in a folder; 0 where there is none."""
    total = 0
    with suppress(FileNotFoundError):  # of a step at work: renamed or replaced meanwhile
        for file in folder.rglob("*") if folder.is_dir() else ():
            with suppress(FileNotFoundError):
                total += file.stat().st_size if file.is_file() else 0
    return total / 2**20
