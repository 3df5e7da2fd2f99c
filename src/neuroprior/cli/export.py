"""`neuroprior export`: a trained network or a target as a folder to pass on."""

from pathlib import Path
from typing import Annotated, Literal

import typer

import neuroprior as npr
from neuroprior.cli.options import Force
from neuroprior.cli.progress import Progress


def export(
    source: Annotated[Path, typer.Argument(help="Folder of a run, or a target file (.safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    condition: Annotated[str | None, typer.Option(help="Of a run: which condition's network, e.g. none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of a run: which seed's; 0 unless given.")] = None,
    licence: Annotated[
        str, typer.Option("--license", help="What the page says: an identifier of Hugging Face's, e.g. cc-by-4.0.")
    ] = "other",
    push: Annotated[
        str | None, typer.Option(metavar="REPO_ID", help="Also upload it to the Hugging Face hub, e.g. you/net.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With --push: of a repository that is made, let no one else see it.")
    ] = False,
    force: Force = False,
) -> None:
    """Write a trained network, or a target, as a folder that needs nothing of this package.

    Of a network: a torch.export program, its weights, card, model page, recipe and provenance, and SHA256SUMS.

    Example: neuroprior export runs/quick --condition neural_model --seed 0 --out networks/neural_model
    """
    from neuroprior.experiment.exchange import check_out, require_hub

    if private and push is None:
        raise npr.InputError("--private: is of --push; give that too, or leave it out")
    if source.is_file() and (condition is not None or seed is not None):
        raise npr.InputError(
            f"{source}: a file; --condition and --seed are of a run, leave them out or name its folder"
        )
    check_out(out, force)
    if push is not None:
        require_hub()
    kind: Literal["model", "dataset"] = "dataset" if source.is_file() else "model"
    with Progress() as progress:
        progress.update("export", "reading", 0.0)
        if source.is_file():
            files = _target(source, out, licence, force)
        else:
            files = _network(source, out, condition, 0 if seed is None else seed, licence, force)
        progress.update("export", "written", 1.0)
    print(f"Wrote {len(files)} files in {out}")
    if push is not None:
        from neuroprior.experiment.exchange import push_folder

        print(f"Uploaded: {push_folder(out, push, kind=kind, private=private)}")


def _network(run: Path, out: Path, condition: str | None, seed: int, licence: str, force: bool) -> list[Path]:
    from neuroprior.experiment import load_run
    from neuroprior.experiment.exchange import network_of_run, write_network
    from neuroprior.report.excerpt import network_page

    results = load_run(run)
    if condition is None:
        names = " or ".join(card.name for card in results.conditions)
        raise npr.InputError(f"{run}: a run of several networks; say which one: --condition {names}")
    one = network_of_run(results, condition, seed)
    return write_network(one, out, readme=network_page(one, licence=licence), licence=licence, replace=force)


def _target(file: Path, out: Path, licence: str, force: bool) -> list[Path]:
    from neuroprior.experiment.exchange import write_target
    from neuroprior.report.excerpt import target_page

    page = target_page(npr.load_target(file), file.stem, licence=licence)
    return write_target(file, out, readme=page, licence=licence, replace=force)
