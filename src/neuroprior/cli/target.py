"""`neuroprior target`: make a similarity target, look at one."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from neuroprior.cli.options import Json
from neuroprior.cli.progress import Progress
from neuroprior.types import InputError, SimilarityTarget

app = typer.Typer(help="Similarity targets: make one, look at one.", no_args_is_help=True)


@app.command("build")
def target_build(
    twin: Annotated[Path, typer.Option(help="A Sensorium 2022 checkpoint.")],
    stimuli: Annotated[Path, typer.Option(help="An .npz with images, names and tier.")],
    out: Annotated[Path, typer.Option(help="File to write, e.g. target.safetensors.")],
    tier: Annotated[str, typer.Option(help="Which stimuli: train, oracle, or all.")] = "train",
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="bfloat16 is for a quick look: too coarse for results.")
    ] = "float32",
    json_: Json = False,
) -> None:
    """Make a similarity target from a digital twin and stimuli (Eq. 2).

    Example: neuroprior target build --twin twin.pth --stimuli stimuli.npz --out target.safetensors
    """
    from neuroprior.recordings import load_stimuli
    from neuroprior.twin import load_twin, target_from_twin

    if out.is_dir() or any(parent.is_file() for parent in out.parents):
        raise InputError(f"--out {out}: is a folder, or lies below a file; name a file that can be written")
    if tier not in ("train", "oracle", "all"):
        raise InputError(f"--tier {tier}: choose train, oracle or all")
    shown = load_stimuli(stimuli) if tier == "all" else load_stimuli(stimuli, tier=tier)  # type: ignore[arg-type]
    with Progress() as progress:
        made = target_from_twin(
            load_twin(twin),
            shown,
            precision=precision,
            progress=lambda done, of: progress.update("twin", "predicting", done / of),
        )
    made.save(out)
    _describe(made, json_)
    print(f"Wrote {out}", file=sys.stderr)


@app.command("show")
def target_show(
    path: Annotated[Path, typer.Argument(help="A target file.")],
    json_: Json = False,
) -> None:
    """Say what a target is.

    Example: neuroprior target show target.safetensors --json
    """
    _describe(SimilarityTarget.load(path), json_)


def _describe(target: SimilarityTarget, as_json: bool) -> None:
    import numpy as np

    pairs = target.matrix[np.triu_indices(len(target), k=1)]
    said: dict[str, str | float | int] = {
        "images": len(target),
        "source": target.source,
        "scans": target.n_scans,
        "stimuli digest": target.stimuli_digest,
        "mean off the diagonal": float(pairs.mean()),
        "standard deviation off the diagonal": float(pairs.std()),
        "smallest": float(pairs.min()),
        "largest off the diagonal": float(pairs.max()),
        **target.details,
    }
    if as_json:
        print(json.dumps(said))
    else:
        for key, value in said.items():
            print(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}")
