"""Files that appear whole or not at all, and what is wrong with a disk, in words."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def said_of(path: Path, written_as: Path | None = None) -> Iterator[None]:
    """Give `path` to an `OSError` of a disk that names no file: open files fail so when they are written or closed.

    One that names `written_as`, a passing name of `path`, gets `path` too.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            if error.errno in _OF_A_DISK:  # others may be of a network, and of no file
                error.filename = str(path)
        elif written_as is not None and str(error.filename) == str(written_as):
            error.filename = str(path)
        raise


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Give a name to write to; `path` is replaced by it when the block ends well, and untouched otherwise.

    An `OSError` of the disk names `path`, also where the writing itself failed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with said_of(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # on a read-only disk there is nothing to remove
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file that appears whole or not at all; return its path."""
    with appearing_whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write JSON that appears whole or not at all."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where the file is missing, damaged or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def disk_fault(error: Exception, place: Path | None) -> str | None:
    """Say what is wrong with the disk at `place` and how to mend it; None where the error is of another kind.

    `place`: None where nobody knows; what is free on some other disk is then not said.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "(os error 28)" in str(error):  # the second is safetensors' way
        free = "full"
        if place is not None and place.exists():
            free = f"{shutil.disk_usage(place).free / 2**20:.0f} MB free"
        return f"no space left on the disk ({free}); free some, then the same command resumes"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        why = os.strerror(number) if number is not None else ""
        return f"cannot be written ({why}); make it writable, or name another place in --out or NEUROPRIOR_STORE"
    return None
