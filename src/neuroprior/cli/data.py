"""`neuroprior data`: what can be downloaded, and the download."""

import json
from pathlib import Path
from typing import Annotated

import typer

from neuroprior.cli.options import Json
from neuroprior.cli.progress import Progress
from neuroprior.cli.tables import print_table, size

app = typer.Typer(help="Data: what can be downloaded, and the download.", no_args_is_help=True)

To = Annotated[Path | None, typer.Option(help="The data folder: NEUROPRIOR_DATA, or ./data, where it is not given.")]


@app.command("list")
def list_(to: To = None, json_: Json = False) -> None:
    """List what can be fetched, and what of it is in the data folder.

    Example: neuroprior data list
    """
    from neuroprior.sources import data_folder, listing

    folder = to or data_folder()
    states = listing(folder)
    if json_:
        said = [
            {
                "name": state.source.name,
                "state": state.state,
                "bytes": sum(file.size for file in state.source.files),
                "bytes_here": state.bytes_here,
                "paths": [str(path) for path in state.paths],
                "licence": state.source.licence,
            }
            for state in states
        ]
        print(json.dumps({"folder": str(folder), "sources": said}))
        return
    print(f"Data folder: {folder}")
    rows = []
    for state in states:
        whole = sum(file.size for file in state.source.files) / 2**20
        here = f"{size(state.bytes_here / 2**20)} of {size(whole)}" if state.state == "part" else size(whole)
        rows.append((state.source.name, state.state, here, ", ".join(_within(path, folder) for path in state.paths)))
    print_table(("name", "state", "download", "as"), rows)
    for state in states:
        print(f"{state.source.name}: {state.source.about} Licence: {state.source.licence}")


def _within(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


@app.command("fetch")
def fetch(
    names: Annotated[list[str], typer.Argument(help="What to bring: names that `neuroprior data list` shows.")],
    to: To = None,
    mirror: Annotated[
        list[str] | None, typer.Option(help="Try this address first; NEUROPRIOR_MIRROR does the same.")
    ] = None,
) -> None:
    """Download data, check it (SHA-256) and unpack it; an interrupted download goes on where it stopped.

    Example: neuroprior data fetch cifar10 --to data
    """
    from neuroprior.sources import data_folder, find_source
    from neuroprior.sources import fetch as bring

    sources = [find_source(name) for name in names]  # a misspelt last name stops before the first download
    folder = to or data_folder()
    for source in sources:
        with Progress() as bars:

            def progress(what: str, done: int, of: int, bars: Progress = bars) -> None:
                bars.update(what, "fetching", done / of)

            paths = bring(source, folder, base_urls=mirror or (), progress=progress)
        for path in paths:
            print(f"{source.name}: {path}")
