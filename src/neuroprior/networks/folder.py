"""A trained network as a folder: its program, what it was, and the digests that say whether all of it arrived."""

import hashlib
import json
import os
import re
from pathlib import Path

from neuroprior.types import InputError, NetworkCard

__all__ = ["CARD", "NETWORK_FOLDER", "PROGRAM", "SUMS", "check_sums", "network_in", "write_sums"]

NETWORK_FOLDER = "neuroprior.network_folder/1"
"""What `card.json` of such a folder has as its `format`."""
PROGRAM, CARD, SUMS = "network.pt2", "card.json", "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  ([^/\\\n]+)")  # a file of the folder itself: a path could lead out of it


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` of all files in a folder, as `sha256sum --check` reads it."""
    lines = [f"{_digest(file)}  {file.name}\n" for file in sorted(folder.iterdir()) if file.name != SUMS]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> frozenset[str]:
    """Return the names of the files that `SHA256SUMS` lists; raise `InputError` where one is missing or another.

    It tells damage and edits, and not who wrote the folder. What it does not list is left alone: hubs add files.
    """
    sums = folder / SUMS
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{folder}: no {SUMS} to check it by; give a folder that `neuroprior export` wrote, with all its files"
        ) from None
    listed = dict[str, str]()
    for number, line in enumerate(lines, start=1):
        read = _LINE.fullmatch(line)
        if read is None or read[2] in (".", ".."):
            raise InputError(f"{sums}: line {number} is no digest and name of a file; copy the folder again")
        listed[read[2]] = read[1]
    for name, digest in listed.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing; copy the folder again, with all its files")
        if _digest(folder / name) != digest:
            raise InputError(
                f"{folder / name}: edited or damaged since it was exported (its SHA-256 is not that of {SUMS}); copy "
                "the folder again"
            )
    return frozenset(listed)


def network_in(folder: str | os.PathLike[str]) -> tuple[Path, NetworkCard]:
    """Return the program of a folder that `neuroprior export` wrote, and its card, once all digests are right.

    Raises `InputError` for a folder that is not whole, or of something else.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{place}: no such folder; name one that `neuroprior export` wrote")
    if (place / "plan.json").exists() and not (place / SUMS).exists():
        raise InputError(f"{place}: a run, of many networks; take one out with `neuroprior export {place} --condition`")
    listed = check_sums(place)
    try:
        said = json.loads((place / CARD).read_text(encoding="utf-8"))
        kind = said["format"]
        if kind != NETWORK_FOLDER:
            raise InputError(f"{place}: holds {kind!r}, not {NETWORK_FOLDER!r}; give the folder of a network")
        scores = {str(name): float(value) for name, value in said["scores"].items()}
        card = NetworkCard(str(said["condition"]), int(said["seed"]), str(said["recipe_digest"]), scores)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place / CARD}: no card of a network ({error!r}); export the network again") from None
    for name in (CARD, PROGRAM):
        if name not in listed:
            raise InputError(f"{place / SUMS}: does not list {name}, so that it may be anybody's; export it again")
    return place / PROGRAM, card


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
