"""What is given in the place of a recording, and is none: said before anything is asked of it."""

import os
from collections.abc import Sequence
from typing import Any

from neuroprior.types import InputError, Scan, SimilarityTarget

__all__ = ["given_scans", "refuse_other"]

_MENDS = {Scan: "load_scan(path), or the .scan of a simulated one", SimilarityTarget: "load_target(path)"}


def refuse_other(what: str, given: object, kind: type[Scan] | type[SimilarityTarget]) -> None:
    """Raise `InputError`, begun by `what`, for anything but a `Scan` (or a `SimilarityTarget`), such as a path."""
    if not isinstance(given, kind):
        path = f" {os.fspath(given)!r}" if isinstance(given, str | os.PathLike) else ""
        raise InputError(
            f"{what}: got a {type(given).__name__}{path}, not a {kind.__name__}; pass a {kind.__name__}: {_MENDS[kind]}"
        )


def given_scans(what: str, scans: object) -> Sequence[Scan]:
    """Return the scans; `InputError`, begun by `what`, where there is none, one stands alone, or one is no `Scan`."""
    if isinstance(scans, Scan):
        raise InputError(f"{what}: got a Scan, not several; pass a list: [scan]")
    given: Sequence[Any] = scans if isinstance(scans, Sequence) and not isinstance(scans, str) else (scans,)
    if not given:
        raise InputError(f"{what}: no scan given; pass at least one")
    for scan in given:
        refuse_other(what, scan, Scan)
    return given
