"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from neuroprior.types import InputError

Out = Annotated[Path, typer.Option(help="Folder of the run; what is finished in it is not done again.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. scale=tiny.")]
Engine = Annotated[Literal["local"], typer.Option(help="Where steps run: local, in processes on this machine.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")]


def check_file(out: Path) -> None:
    """Raise `InputError` where a command could not write its file in the end."""
    if out.is_dir() or any(parent.is_file() for parent in out.parents):
        raise InputError(f"--out {out}: is a folder, or lies below a file; name a file that can be written")
