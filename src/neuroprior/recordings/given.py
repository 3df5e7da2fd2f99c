"""What is given in the place of recordings: one stands for itself, and what is none is said at once."""

from collections.abc import Sequence
from typing import Any

from neuroprior.types import InputError, Scan
from neuroprior.types.given import refuse_other

__all__ = ["given_scans", "refuse_other"]


def given_scans(what: str, scans: object) -> Sequence[Scan]:
    """Return the scans, one alone as a list of one; `InputError`, begun by `what`, for none, or what is no `Scan`."""
    if isinstance(scans, Scan):
        return [scans]
    given: Sequence[Any] = scans if isinstance(scans, Sequence) and not isinstance(scans, str) else (scans,)
    if not given:
        raise InputError(f"{what}: no scan given; pass at least one")
    for scan in given:
        refuse_other(what, scan, Scan)
    return given
