"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import neuroprior as npr

if TYPE_CHECKING:
    from neuroprior.recordings import ScanFormat

# As in neuroprior.types, without what importing that costs: `--help` needs no NumPy. A test holds them equal.
Tier = Literal["train", "validation", "oracle"]
Weighting = Literal["snr-v", "snr", "v", "none"]

Out = Annotated[Path, typer.Option(help="Folder of the run; what is finished in it is not done again.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. scale=tiny.")]
Engine = Annotated[
    Literal["local", "ray", "slurm"],
    typer.Option(help="Where steps run: processes on this machine, tasks of a ray cluster, jobs of slurm."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")]
Format = Annotated[str | None, typer.Option("--format", help="How the recordings are kept; found by looking without.")]
Module = Annotated[str | None, typer.Option(help="Of an NWB file with several: processing module of the responses.")]
Series = Annotated[str | None, typer.Option(help="Of an NWB file with several: series of the responses.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there already.")]


def check_file(out: Path) -> None:
    """Raise `InputError` where a command could not write its file in the end."""
    if out.is_dir() or any(parent.is_file() for parent in out.parents):
        raise npr.InputError(f"--out {out}: is a folder, or lies below a file; name a file that can be written")


def format_named(name: str, option: str) -> "ScanFormat":
    """Return the format of that name. Raises `InputError`, naming the option, where there is none."""
    from neuroprior.recordings import SCAN_FORMATS

    for entry in SCAN_FORMATS:
        if entry.name == name:
            return entry
    raise npr.InputError(f"{option} {name}: not one of {', '.join(entry.name for entry in SCAN_FORMATS)}")


def check_free(out: Path, force: bool) -> None:
    """Raise `InputError` where something would be overwritten that nobody asked to."""
    if out.exists() and not force:
        raise npr.InputError(f"{out}: is there already; name another place, or give --force to replace it")
    if out.is_dir():
        raise npr.InputError(f"{out}: a folder, which is never replaced; remove it, or name another place")


def check_format(format: str | None) -> None:
    """Raise `InputError` for a format that there is none of."""
    if format is not None:
        format_named(format, "--format")
