"""The store: one folder a finished step, named by the hash of all that went into it. What exists is complete."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import neuroprior

_LIBRARIES = ("torch", "numpy", "pillow", "pyarrow", "scikit-image", "mlxtend", "safetensors")
_NOT_IN_KEYS = ("report", "cli.py", "__main__.py")
# Other machines may share the store: only this one's process numbers mean anything here.
_UNFINISHED = f".unfinished-{platform.node()}-"


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work. `inputs` are keys of the steps it reads; `files` are digests of the files it reads.

    Paths in `work` are as the recipe gives them, so moving the data folder changes no key.
    """

    kind: str
    label: str
    work: BaseModel
    inputs: tuple[str, ...] = ()
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


class Store:
    """A folder of finished steps. A step is written under a temporary name and renamed when it is whole."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, step: Step) -> Path:
        """Where the step is, or would be."""
        return self.root / folder_name(step.label, step.key)

    def has(self, step: Step) -> bool:
        """Whether the step is finished."""
        return self.folder(step).is_dir()

    @contextmanager
    def writing(self, step: Step) -> Iterator[Path]:
        """Give a fresh folder to write into; it becomes the step's own when the block ends well, and goes otherwise."""
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{os.getpid()}-", dir=self.root))
        try:
            yield temporary
            manifest = {
                "kind": step.kind,
                "label": step.label,
                "key": step.key,
                "inputs": list(step.inputs),
                "code": code_version(),
            }
            (temporary / "step.json").write_text(json.dumps(manifest, indent=2) + "\n")
            temporary.chmod(0o755)
            try:
                os.replace(temporary, self.folder(step))
            except OSError:
                if not self.has(step):  # another process was quicker: its folder holds the same
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what processes of this machine left unfinished when they were killed."""
        for folder in self.root.glob(f"{_UNFINISHED}*"):
            if not _is_alive(int(folder.name.removeprefix(_UNFINISHED).partition("-")[0])):
                shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@cache
def code_version() -> dict[str, str]:
    """Digest of the package's own source, less what only prints and draws, and versions of the libraries it uses."""
    package = Path(neuroprior.__file__).parent
    source = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        part = file.relative_to(package)
        if part.parts[0] not in _NOT_IN_KEYS:
            source.update(f"{part.as_posix()}\n".encode() + file.read_bytes())
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"neuroprior": neuroprior.__version__, "source": source.hexdigest(), **versions}


def folder_name(label: str, key: str) -> str:
    """Name a step's folder: readable first, then enough of the key to be unique."""
    return f"{label}-{key[:16]}"


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write JSON that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)
