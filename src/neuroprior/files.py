"""Files that appear whole or not at all, and what is wrong with a disk, in words."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Give a name to write to; `path` is replaced by it when the block ends well, and untouched otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
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
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def disk_fault(error: Exception, place: Path) -> str | None:
    """Say what is wrong with the disk at `place` and how to mend it; None where the error is of another kind."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "(os error 28)" in str(error):  # the second is safetensors' way
        free = f"{shutil.disk_usage(place).free / 2**20:.0f} MB free" if place.exists() else "full"
        return f"no space left on the disk ({free}); free some, then the same command resumes"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        why = os.strerror(number) if number is not None else ""
        return f"cannot be written ({why}); make it writable, or name another place in --out or NEUROPRIOR_STORE"
    return None
