"""`neuroprior stimuli`: photographs to what a mouse was shown."""

import json
from pathlib import Path
from typing import Annotated

import typer

from neuroprior.cli.options import Json, check_file
from neuroprior.cli.progress import Progress

app = typer.Typer(help="Stimuli: prepare photographs of your own.", no_args_is_help=True)


@app.callback()
def _only_group() -> None:
    """Stimuli: prepare photographs of your own."""


@app.command("prepare")
def prepare(
    folder: Annotated[Path, typer.Argument(help="Photographs, with the folders inside it.")],
    out: Annotated[Path, typer.Option(help="File to write, e.g. stimuli.npz.")],
    n: Annotated[int | None, typer.Option(help="So many images, drawn at random; all without it.")] = None,
    oracle: Annotated[int, typer.Option(help="So many of them are held out, to be shown repeatedly.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    json_: Json = False,
) -> None:
    """Turn photographs gray, crop them to 16:9, scale them to 256x144 and 64x36, as the paper's.

    Example: neuroprior stimuli prepare photographs --out stimuli.npz
    """
    from neuroprior.recordings import prepare_stimuli

    check_file(out)
    with Progress() as progress:
        made = prepare_stimuli(
            folder,
            out,
            n=n,
            n_oracle=oracle,
            seed=seed,
            progress=lambda done, of: progress.update("stimuli", "preparing", done / of),
        )
    said = {
        "out": str(out),
        "images": len(made.stimuli),
        "train": int((made.tier == "train").sum()),
        "oracle": int((made.tier == "oracle").sum()),
        "files": made.n_files,
        "duplicates left out": made.n_duplicates,
        "digest": made.stimuli.digest,
    }
    if json_:
        print(json.dumps(said))
    else:
        for key, value in said.items():
            print(f"{key}: {value}")
