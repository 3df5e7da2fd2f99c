"""What a format of recordings is, to the registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from neuroprior.types import Scan

__all__ = ["ScanFormat"]


@dataclass(frozen=True, slots=True)
class ScanFormat:
    """One format of recordings."""

    name: str
    """What `load_scan(path, format=...)` calls it."""
    about: str
    """What such a file or folder is, in a few words, for messages."""
    recognises: Callable[[Path], bool]
    """Whether an existing path looks like it. Quick, and never raises."""
    load: Callable[[Path], Scan]
    """Read it; `InputError` naming file and field for whatever is wrong."""
    save: Callable[[Scan, Path], None]
    """Write what `load` reads, whole or not at all; `InputError` for a scan that it cannot hold."""
    drops: tuple[str, ...] = ()
    """Fields of `Scan` that such a file has no place for."""
    suffix: str = ""
    """What the name of such a file ends in; a folder's name ends in nothing."""
    choose: Callable[[Path, str | None, str | None], Scan] | None = None
    """`load` with the processing module and the series of responses named, for files that hold several."""
