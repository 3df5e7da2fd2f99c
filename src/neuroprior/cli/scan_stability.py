"""`neuroprior scan stability`: how alike scans of the same images find them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import neuroprior as npr
from neuroprior.cli.options import Format, Json, Module, Series, check_format
from neuroprior.cli.progress import Progress


def stability(
    paths: Annotated[list[Path], typer.Argument(help="Scans that repeated the same images.")],
    out: Annotated[Path, typer.Option(help="Folder for the page and its figures.")] = Path("scan-stability"),
    model: Annotated[
        list[Path] | None, typer.Option(help="Targets of the oracle images, e.g. of twins: Figure 1 B and D.")
    ] = None,
    truth: Annotated[
        bool, typer.Option("--truth", help="Show the truth that `scan simulate` wrote beside each scan.")
    ] = False,
    intersection: Annotated[bool, typer.Option("--intersection", help="Keep the images all scans repeated.")] = False,
    format: Format = None,
    module: Module = None,
    series: Series = None,
    json_: Json = False,
) -> None:
    """Show how stable similarities are, as Figures 1 and 2 do.

    Over scans and over repeats, from single trials to averages, as in the paper, for your recordings.

    Example: neuroprior scan stability mice/*.npz --truth
    """
    import numpy as np

    from neuroprior.recordings import growth_with_repeats, load_scan, load_truth, scan_stability
    from neuroprior.report.stability_page import stability_json, write_stability

    check_format(format)
    if len({path.resolve() for path in paths}) < len(paths):
        raise npr.InputError("scan stability: names a recording twice; it would agree with itself")
    scans = [load_scan(path, format, module=module, series=series) for path in paths]
    given = model or []
    models = dict(zip(_numbered([path.stem for path in given]), map(_matrix, given), strict=True))
    truths = [load_truth(_truth_beside(path)).population for path in paths] if truth else None
    with Progress() as progress:
        found = scan_stability(
            scans,
            models,
            truths,
            missing="intersection" if intersection else "error",
            progress=lambda done, of: progress.update("stability", "comparing trials", done / of),
        )
    grown = {}
    if found.truths is not None:
        for name, scan, known in zip(_numbered(found.names), scans, found.truths, strict=True):
            grown[name] = growth_with_repeats(scan, known, found.stimuli.ids)
    written = write_stability(found, out, grown)
    said = stability_json(found, grown)
    if json_:
        print(json.dumps({**said, "page": str(written[0])}))
        return
    print(f"{len(scans)} scan{'s' if len(scans) > 1 else ''}, {said['images']} oracle images")
    for name, rs in said["r"].items():
        what = "true S of these very neurons" if name == "truth" and truths is not None else name
        known = [r for r in rs if r is not None]
        print(f"r, {what}: {f'{np.mean(known):.3f}{said_range(known)}' if known else 'not defined (it does not vary)'}")
    for name, sd in said["sd"].items():
        print(f"standard deviation {name}: {sd:.4f}")
    for ceiling in said["noise_ceiling"]:
        print(
            f"reliability of {ceiling['scan']}: {ceiling['mean']:.3f} (95 % interval {ceiling['low']:.3f} to "
            f"{ceiling['high']:.3f}); "
            f"the best model reaches {ceiling['best_model']:.3f}"
        )
    if said["not_computed"]:
        print(f"left out: {'; '.join(said['not_computed'])}")
    print(f"page: {written[0]}")


def said_range(rs: Sequence[float]) -> str:
    """Return ', scans from ... to ...', or nothing where that is one number."""
    low, high = f"{min(rs):.3f}", f"{max(rs):.3f}"
    return f", scans from {low} to {high}" if low != high else ""


def _truth_beside(path: Path) -> Path:
    """Where `scan simulate` puts the truth of a scan."""
    for folder in (path.with_name(f"{path.name}-truth"), path.with_name(f"{path.stem}-truth")):
        if folder.is_dir():
            return folder
    raise npr.InputError(f"{path}: no truth beside it ({path.stem}-truth); only `scan simulate` writes one")


def _matrix(path: Path) -> "npr.SimilarityTarget":
    target = npr.load_target(path)
    if not isinstance(target, npr.SimilarityTarget):
        raise npr.InputError(f"{path}: holds coordinates, not a matrix; make the target without --factored")
    return target


def _numbered(names: Sequence[str]) -> list[str]:
    """Return the names, numbered where two are alike."""
    return [f"{name}-{names[:k].count(name) + 1}" if names.count(name) > 1 else name for k, name in enumerate(names)]
