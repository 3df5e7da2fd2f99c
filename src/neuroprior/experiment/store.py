"""The store: one folder a finished step, named by the hash of all that went into it. What exists is complete.

store/store.json               format of the store
store/LABEL-KEY/               a finished step: its files, and step.json with their digests
store/.unfinished/LABEL-KEY/   a step at work, or one that was stopped, with the checkpoint to go on from
store/.locks/LABEL-KEY         held by whoever is at work on that step; the system lets go when a process dies
store/.runs/                   which runs use the store, so that nothing of theirs is thrown away
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel

import neuroprior
from neuroprior.files import read_json, write_json
from neuroprior.types import InputError

FORMAT = 1
CHECKPOINT = "checkpoint.safetensors"
LEDGERS = "ledgers"
"""What an unfinished step goes on from: a training's state, an attack's rows. A log outlives the process too, the rest
is done again."""
LOG = "log.jsonl"
TENSORBOARD = "tensorboard"

_GOES_ON = (CHECKPOINT, LEDGERS)
_CONTINUED = (*_GOES_ON, LOG, TENSORBOARD)

_LIBRARIES = (
    "torch",
    "numpy",
    "numba",
    "scipy",
    "h5py",
    "pillow",
    "pyarrow",
    "scikit-image",
    "mlxtend",
    "safetensors",
)
_NOT_IN_KEYS = ("report", "cli", "sources", "__main__.py")
_MANIFEST = "step.json"


class TakenError(Exception):
    """Another process is at work on a step."""


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work. `inputs` names the steps it reads, by key; `files` are digests of the files it reads.

    Paths in `work` are as the recipe gives them, so moving the data folder changes no key.
    """

    kind: str
    label: str
    work: BaseModel
    inputs: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    cost: float = 1.0
    """Expected relative duration with all that waits for it: the engine starts the longest first."""
    key: str = field(init=False)
    """SHA-256 over kind, settings, inputs, file contents, this package's code and the libraries that compute.

    Taken when the step is planned, so that it stays the same in every process, whatever is edited meanwhile."""

    def __post_init__(self) -> None:
        whole: dict[str, Any] = {
            "kind": self.kind,
            "work": self.work.model_dump(mode="json"),
            "inputs": self.inputs,
            "files": self.files,
            "code": code_version(),
        }
        key = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        object.__setattr__(self, "key", key)

    @property
    def name(self) -> str:
        """Name of its folder: readable first, then enough of the key to be unique."""
        return folder_name(self.label, self.key)


class Store:
    """A folder of finished steps. A step is written under another name and renamed when it is whole."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self) -> None:
        """Raise `InputError` where a later version wrote the store: what it means is not known here."""
        kept = self.root / "store.json"
        try:
            found = json.loads(kept.read_text(encoding="utf-8"))["format"]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f'{kept}: damaged; if {self.root} is a store, write {{"format": {FORMAT}}} into it'
            ) from None
        if found != FORMAT:
            age = "a newer" if isinstance(found, int) and found > FORMAT else "another"
            raise InputError(
                f"{self.root}: written by {age} neuroprior (store format {found}, this one knows {FORMAT}); "
                "update neuroprior, or choose another --out or NEUROPRIOR_STORE"
            )

    def folder(self, step: Step) -> Path:
        """Where the step is, or would be."""
        return self.root / step.name

    def has(self, step: Step) -> bool:
        """Whether the step is finished."""
        return self.folder(step).is_dir()

    def unfinished(self, name: str) -> Path:
        """Where the step of this name is while it is at work, and where its checkpoint stays if it is stopped."""
        return self.root / ".unfinished" / name

    def is_taken(self, name: str) -> bool:
        """Whether some process is at work on the step of this name."""
        if not (self.root / ".locks" / name).exists():
            return False
        try:
            with self.lock(name, timeout=0.0):
                return False
        except Timeout:
            return True
        except OSError:
            return False  # nothing can be locked here, nor written: `writing` will say so

    @contextmanager
    def writing(self, step: Step, patience: float = -1.0) -> Iterator[Path | None]:
        """Give the folder to write into; it becomes the step's own when the block ends well, and goes otherwise.

        Whoever comes second waits `patience` seconds, for ever where negative, and is given None when the first has
        finished the step meanwhile. A `CHECKPOINT` from a process that was stopped lies in the folder, and stays there
        if this one is stopped too. Raises `TakenError` where the first is still at work.
        """
        self.create()
        try:
            held = self.lock(step.name, timeout=patience).acquire()
        except Timeout:
            raise TakenError(step.label) from None
        with held:
            if self.has(step):
                yield None
                return
            unfinished = self.unfinished(step.name)
            if not _faults(unfinished):  # killed between its last file and its name: it is whole
                self._publish(step)
                yield None
                return
            unfinished.mkdir(parents=True, exist_ok=True)
            _empty(unfinished)
            started = time.monotonic()
            _reset_peak_memory()
            try:
                yield unfinished
                manifest = {
                    "kind": step.kind,
                    "label": step.label,
                    "key": step.key,
                    "inputs": dict(step.inputs),
                    "code": code_version(),
                    "files": {name: digest_file(unfinished / name) for name in _files(unfinished)},
                    "seconds": round(time.monotonic() - started, 3),
                    "peak_memory_mb": memory_mb("VmHWM"),
                }
                write_json(unfinished / _MANIFEST, manifest)
                self._publish(step)
            except BaseException:
                _tidy(unfinished)
                raise

    def _publish(self, step: Step) -> None:
        unfinished = self.unfinished(step.name)
        (unfinished / CHECKPOINT).unlink(missing_ok=True)
        shutil.rmtree(unfinished / LEDGERS, ignore_errors=True)
        os.replace(unfinished, self.folder(step))

    def tidy(self, step: Step) -> None:
        """Remove what a killed process left half-written, unless another is at work on the step by now."""
        with suppress(Timeout, OSError), self.lock(step.name, timeout=0.0):
            _tidy(self.unfinished(step.name))

    def create(self) -> None:
        """Make the store where there is none."""
        self.check()
        (self.root / ".locks").mkdir(parents=True, exist_ok=True)
        if not (self.root / "store.json").exists():
            written_by = f"neuroprior {neuroprior.__version__}"
            write_json(self.root / "store.json", {"format": FORMAT, "written_by": written_by})

    def verify(self, step: Step) -> None:
        """Raise `InputError` where the files of a finished step are not those that it wrote."""
        if fault := _faults(self.folder(step)):
            raise InputError(fault)

    def lock(self, name: str, timeout: float = -1.0) -> FileLock:
        """Who holds it is at work on the step of this name; seconds to wait for it, for ever where negative."""
        return FileLock(self.root / ".locks" / name, timeout=timeout, poll_interval=0.2)


def _files(folder: Path) -> list[str]:
    """Names of what a step wrote: all but hidden files, which file managers and network disks leave, and our own."""
    names = (path.relative_to(folder).as_posix() for path in _visible_files(folder))
    return sorted(name for name in names if name.split("/")[0] not in (*_GOES_ON, _MANIFEST))


def _faults(folder: Path) -> str | None:
    """Say in one line how a folder differs from what its manifest says; None where it does not."""
    anew = f"delete {folder} and give the same command again to compute it anew"
    digests = manifest(folder).get("files")
    if not isinstance(digests, dict):
        return f"{folder / _MANIFEST}: missing or damaged; {anew}"
    found = set(_files(folder))
    for name in sorted(found - digests.keys()):
        return f"{folder}: {name} was added to the finished step; take it out again"
    for name in sorted(digests.keys() - found):
        return f"{folder}: {name} is missing from the finished step; {anew}"
    for name, digest in digests.items():
        if digest_file(folder / name) != digest:
            return f"{folder / name}: edited since the step was finished (its digest differs); {anew}"
    return None


def manifest(folder: Path) -> dict[str, Any]:
    """What is written about a finished step; empty where that is missing or damaged."""
    return read_json(folder / _MANIFEST)


def _tidy(unfinished: Path) -> None:
    """Leave of a stopped step only what it goes on from."""
    if unfinished.is_dir():
        _empty(unfinished)
        if not _goes_on(unfinished):
            shutil.rmtree(unfinished, ignore_errors=True)


def _empty(folder: Path) -> None:
    """Remove what a stopped process left, but not what it goes on from."""
    goes_on = _goes_on(folder)
    for path in folder.iterdir():
        if goes_on and path.name in _CONTINUED:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _goes_on(folder: Path) -> bool:
    return any((folder / name).exists() for name in _GOES_ON)


def _reset_peak_memory() -> None:
    with suppress(OSError):  # not Linux, or not allowed: the peak is then that of the whole process
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def memory_mb(what: Literal["VmHWM", "VmRSS"]) -> int | None:
    """Resident memory of this process, the largest since the step began or now; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith(what)), None)


@cache
def code_version() -> dict[str, str]:
    """Digest of the package's own source, less what only prints and draws, and versions of the libraries it uses."""
    package = Path(neuroprior.__file__).parent
    source = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        part = file.relative_to(package)
        if part.parts[0] not in _NOT_IN_KEYS:
            source.update(f"{part.as_posix()}\n".encode() + file.read_bytes())
    return {
        "neuroprior": neuroprior.__version__,
        "source": source.hexdigest(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
    }


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # those that only bring the demo's data may be missing


def folder_name(label: str, key: str) -> str:
    """Name a step's folder: readable first, then enough of the key to be unique."""
    return f"{label}-{key[:16]}"


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content; of a folder: of the names and contents of all files in it, hidden ones left out."""
    if path.is_dir():
        whole = hashlib.sha256()
        for file in sorted(_visible_files(path)):
            whole.update(f"{file.relative_to(path).as_posix()}\n{digest_file(file)}\n".encode())
        return whole.hexdigest()
    with path.open("rb") as file_:
        return hashlib.file_digest(file_, "sha256").hexdigest()


def _visible_files(folder: Path) -> Iterable[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent) / name for name in files if not name.startswith("."))
