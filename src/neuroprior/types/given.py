"""What is given in the place of a value, and is none: said before anything is asked of it."""

import os

from neuroprior.types.arrays import InputError
from neuroprior.types.recordings import Scan, Stimuli
from neuroprior.types.targets import FactoredTarget, SimilarityTarget

__all__ = ["refuse_other", "said"]

_MENDS: dict[type, str] = {
    Scan: "load_scan(path), or the .scan of a simulated one",
    Stimuli: "load_stimuli(path), or the .stimuli of a scan",
    SimilarityTarget: "load_target(path)",
}


def refuse_other(
    what: str, given: object, kind: type[Scan] | type[Stimuli] | type[SimilarityTarget], *, factored: bool = False
) -> None:
    """Raise `InputError`, begun by `what`, for anything but a value of `kind`, such as a path.

    `factored`: a `FactoredTarget` will do as well.
    """
    if isinstance(given, kind) or (factored and isinstance(given, FactoredTarget)):
        return
    raise InputError(f"{what}: got {said(given)}, not a {kind.__name__}; pass a {kind.__name__}: {_MENDS[kind]}")


def said(given: object) -> str:
    """Say what was given: its type, and a path as it stands."""
    path = f" {os.fspath(given)!r}" if isinstance(given, str | os.PathLike) else ""
    return f"a {type(given).__name__}{path}"
