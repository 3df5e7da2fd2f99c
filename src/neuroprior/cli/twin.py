"""`neuroprior twin`: fit digital twins to recordings, score them, bring them in and take them out."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import neuroprior as npr
from neuroprior.cli.options import Format, Json, Module, Series, Tier, check_file
from neuroprior.cli.progress import Progress
from neuroprior.cli.tables import duration, print_table

if TYPE_CHECKING:
    import numpy as np

    from neuroprior.twin import Denoiser, FitProgress, TwinScores

app = typer.Typer(help="Digital twins: fit, score, import and export them.", no_args_is_help=True)


@app.command("fit")
def fit(
    paths: Annotated[list[Path], typer.Argument(help="Recordings, in any of the formats; one core for all.")],
    out: Annotated[Path, typer.Option(help="Folder for the twins; the same command goes on from what is there.")],
    core: Annotated[str, typer.Option(help="separable (Sensorium 2022's), stacked (that of 2019), or one added.")] = (
        "separable"
    ),
    channels: Annotated[int, typer.Option(help="Of every layer of the core.")] = 64,
    layers: Annotated[int, typer.Option(help="Of the core.")] = 3,
    first_kernel: Annotated[int, typer.Option(help="Side of the first layer's filters, in pixels.")] = 15,
    kernel: Annotated[int, typer.Option(help="Side of the others'; odd.")] = 7,
    padded: Annotated[
        bool, typer.Option(help="The first layer sees gray beyond the image, so that neurons can look at its margin.")
    ] = True,
    linear: Annotated[bool, typer.Option("--linear", help="No nonlinearity in the core (an ablation).")] = False,
    readout: Annotated[Literal["gaussian", "factorised"], typer.Option(help="One point a neuron, or a mask.")] = (
        "gaussian"
    ),
    positions: Annotated[
        Literal["free", "cortical"], typer.Option(help="Of the points: free, or a map of cortical coordinates.")
    ] = "free",
    covariance: Annotated[
        Literal["full", "isotropic"], typer.Option(help="Of the points as they are sampled in training.")
    ] = "full",
    shifter: Annotated[Literal["mlp", "none"], typer.Option(help="Gaze shifts the receptive fields, or not.")] = "mlp",
    behavior: Annotated[
        Literal["gain", "modulator", "channels", "none"],
        typer.Option(help="Scales each neuron's rate, or its drive, enters the core beside the image, or is left out."),
    ] = "gain",
    crossfit: Annotated[
        int, typer.Option(help="Folds: each image is predicted by a model that did not see it; 0 is one model.")
    ] = 0,
    batch_images: Annotated[int, typer.Option(help="Images a step, with all their trials in all scans.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of Adam, to begin with.")] = 5e-3,
    max_epochs: Annotated[int, typer.Option(help="At most so many.")] = 100,
    patience: Annotated[int, typer.Option(help="Epochs with little gain in validation correlation to wait for.")] = 3,
    least_gain: Annotated[float, typer.Option(help="Of the validation correlation: less is little.")] = 1e-3,
    decays: Annotated[int, typer.Option(help="How often the best is restored and the learning rate lowered.")] = 3,
    smoothness: Annotated[float, typer.Option(help="Weight of the first filters' roughness (Laplacian).")] = 1e-2,
    group_sparsity: Annotated[float, typer.Option(help="Weight of the later layers' group sparsity.")] = 0.0,
    readout_l1: Annotated[float, typer.Option(help="Weight of the L1 norm of the readout's features.")] = 3e-3,
    missing_behavior: Annotated[
        Literal["drop", "mean"],
        typer.Option(help="Trials of which behaviour or pupil is NaN: left out, or the mean."),
    ] = "drop",
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of the core's layers in training.")
    ] = "float32",
    seed: Annotated[int, typer.Option(help="The same seed gives the same twins, on one machine.")] = 0,
    format: Format = None,
    module: Module = None,
    series: Series = None,
    json_: Json = False,
) -> None:
    """Fit one twin a recording, with a common core, and say how well they predict.

    Example: neuroprior twin fit mice/*.npz --out twins
    """
    from neuroprior.recordings import load_scan
    from neuroprior.twin import FitSettings, TwinArchitecture, fit_in_folder

    architecture = TwinArchitecture(
        core=core, channels=channels, n_layers=layers, first_kernel=first_kernel, kernel=kernel, padded=padded,
        linear=linear,
        readout=readout, positions=positions, covariance=covariance, shifter=shifter, behavior=behavior,
    )  # fmt: skip
    settings = FitSettings(
        batch_images=batch_images, learning_rate=learning_rate, max_epochs=max_epochs, patience=patience,
        least_gain=least_gain, decays=decays, smoothness=smoothness, group_sparsity=group_sparsity,
        readout_l1=readout_l1, missing_behavior=missing_behavior, precision=precision, seed=seed,
    )  # fmt: skip
    if crossfit < 0 or crossfit == 1:
        raise npr.InputError(f"--crossfit {crossfit}: give 2 or more folds, or 0 for one model")
    if out.exists() and not out.is_dir():
        raise npr.InputError(f"--out {out}: is a file; name a folder")
    scans = [load_scan(path, format, module=module, series=series) for path in paths]
    with Progress() as progress:
        progress.update("recordings", "reading", 0.0)
        try:
            made = fit_in_folder(
                scans, out, architecture, settings, n_folds=crossfit,
                progress=lambda fold, at: _tell(progress, f"fold {fold + 1} of {crossfit}" if crossfit else "fit", at),
            )  # fmt: skip
        except FloatingPointError as error:
            print(f"neuroprior: {out}: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        scores = _scores(made.twins, scans, progress)
        progress.update("page", "drawing", 0.0)
        page = _write_page(made, scans, scores, out, {**asdict(architecture), **asdict(settings)})
    if json_:
        history = [[asdict(epoch) for epoch in fold] for fold in made.history]
        said = {"out": str(out), "page": str(page), "notes": list(made.notes), "history": history}
        print(json.dumps({**said, "scores": _scores_json(scores)}))
        return
    for note in made.notes:
        print(f"note: {note}")
    for k, fold in enumerate(made.history):
        best = max(fold, key=lambda epoch: epoch.validation_correlation)
        of = f"fold {k + 1}: " if crossfit else ""
        print(f"{of}{len(fold)} epochs; validation correlation {best.validation_correlation:.3f} at epoch {best.epoch}")
    _print_scores(scores)
    if crossfit:
        print("filters, positions and exciting images: of the first fold's models; v is the mean over folds")
    print(f"twins: {out}; page: {page}")


@app.command("score")
def score(
    twin: Annotated[Path, typer.Argument(help="A fit's folder, a file of twins, or a Sensorium checkpoint.")],
    paths: Annotated[list[Path], typer.Argument(help="The recordings that they were fitted to, matched by name.")],
    tier: Annotated[
        Tier, typer.Option(help="Trials to score on; of a fit's folder, validation is what it held out for that.")
    ] = "oracle",
    format: Format = None,
    module: Module = None,
    series: Series = None,
    json_: Json = False,
) -> None:
    """Say how well twins predict trials that they were not trained on.

    Example: neuroprior twin score twins mice/*.npz
    """
    from neuroprior.recordings import load_scan
    from neuroprior.twin import load_denoisers, load_fit

    fit = load_fit(twin) if twin.is_dir() else None
    twins = load_denoisers(twin) if fit is None else fit.twins
    scans = [load_scan(path, format, module=module, series=series) for path in paths]
    matched = _matched(twins, scans, twin)
    held = {}
    if fit is not None:
        for scan in scans:
            if not fit.knows(scan):
                print(f"note: {scan.name}: not the recording that {twin} was fitted to", file=sys.stderr)
        if tier == "validation":
            held = {scan.name: fit.validation_trials(scan) for scan in scans}
    with Progress() as progress:
        scores = _scores(matched, scans, progress, tier, held)
    if json_:
        print(json.dumps({"twin": str(twin), "scores": _scores_json(scores)}))
        return
    _print_scores(scores)


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A Sensorium 2022 checkpoint.")],
    out: Annotated[Path, typer.Option(help="File to write, e.g. twin.safetensors.")],
    scan: Annotated[str | None, typer.Option(help="Of several mice in it, which one.")] = None,
    neutral_behavior: Annotated[
        list[float] | None, typer.Option(help="Mean of each behaviour channel, in the model's units; once a channel.")
    ] = None,
) -> None:
    """Bring a Sensorium checkpoint into this package's own file (safetensors and JSON).

    Example: neuroprior twin import sensorium_sota_model.pth --out twin.safetensors
    """
    from neuroprior.twin import load_twin, save_twins

    check_file(out)
    neutral = None if neutral_behavior is None else tuple(neutral_behavior)
    made = load_twin(checkpoint, scan=scan, neutral_behavior=neutral)
    save_twins([made], out)
    print(f"{out}: twin {made.name}, {made.n_neurons} neurons")


@app.command("export")
def export(
    twin: Annotated[
        Path, typer.Argument(help="A fit's folder (not of a crossfit), a file of twins, or a Sensorium checkpoint.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .pt2 is a torch.export program, .pth a Sensorium file. That has no place for padding "
            "or a gain: fit with --no-padded --behavior channels (or none), gaussian readout and no --linear."
        ),
    ],
    scan: Annotated[str | None, typer.Option(help="Of several scans, which one.")] = None,
    conditions: Annotated[
        Literal["neutral", "given"],
        typer.Option(help="Of a program: neutral behaviour and gaze, or both given beside the images."),
    ] = "neutral",
    pixel_scale: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Of a program: mean and standard deviation of pixels (0..255), where the twin has none."),
    ] = None,
    own_units: Annotated[
        bool, typer.Option("--own-units", help="Of a Sensorium file: responses in each neuron's standard deviations.")
    ] = False,
) -> None:
    """Take a twin out: a program that predicts without this package, or a Sensorium state dict.

    Example: neuroprior twin export twins --scan mouse0-scan0 --out twin.pt2
    """
    from neuroprior.twin import Twin, load_denoisers, save_sensorium, twin_program

    check_file(out)
    if own_units and out.suffix == ".pt2":
        raise npr.InputError(f"--own-units: is of a Sensorium file, not of {out}; leave it out, or name a .pth")
    if out.suffix == ".pth" and (conditions != "neutral" or pixel_scale is not None):
        given = "--conditions" if conditions != "neutral" else "--pixel-scale"
        raise npr.InputError(f"{given}: is of a program, not of {out}; leave it out, or name a .pt2")
    found = load_denoisers(twin, scan=scan)
    if len(found) > 1:
        raise npr.InputError(f"{twin}: holds {', '.join(one.name for one in found)}; choose one with --scan")
    (one,) = found
    if not isinstance(one, Twin):
        raise npr.InputError(f"{twin}: a crossfit is several models; export one, e.g. {twin}/fold-0/twin.safetensors")
    match out.suffix:
        case ".pt2":
            twin_program(one, out, conditions=conditions, pixel_scale=pixel_scale)
        case ".pth":
            for line in save_sensorium(one, out, own_units=own_units):
                print(f"lost: {line}", file=sys.stderr)
        case _:
            raise npr.InputError(f"--out {out}: name it .pt2 (a torch.export program) or .pth (a Sensorium state dict)")
    print(f"{out}: twin {one.name}, {one.n_neurons} neurons")


Scored = Mapping[str, "TwinScores | None"]


def _scores(
    twins: Sequence["Denoiser"],
    scans: Sequence["npr.Scan"],
    progress: Progress,
    tier: Tier = "oracle",
    trials: "Mapping[str, np.ndarray] | None" = None,
) -> Scored:
    """Scores of every scan, of a crossfit out of sample. None where a scan has no trials to score.

    `trials`: by name of the scan, in place of all those of the tier.
    """
    import numpy as np

    from neuroprior.twin import score_denoiser

    found: dict[str, TwinScores | None] = {}
    for k, (twin, scan) in enumerate(zip(twins, scans, strict=True)):
        progress.update("scores", f"predicting {scan.name}", k / len(scans))
        some = (trials or {}).get(scan.name, np.flatnonzero(scan.tier == tier))
        found[scan.name] = score_denoiser(twin, scan, tier, trials=some) if len(some) > 1 else None
    return found


def _matched(twins: Sequence["Denoiser"], scans: Sequence["npr.Scan"], path: Path) -> "list[Denoiser]":
    """Return the twin of every scan, by name; a single twin is held against a single scan whatever they are called."""
    if len(twins) == len(scans) == 1:
        return [twins[0]]
    by_name = {twin.name: twin for twin in twins}
    for scan in scans:
        if scan.name not in by_name:
            raise npr.InputError(f"{path}: no twin of scan {scan.name!r}; it holds {', '.join(by_name)}")
    return [by_name[scan.name] for scan in scans]


def _write_page(made: Any, scans: Sequence["npr.Scan"], scores: Scored, out: Path, settings: Mapping[str, Any]) -> Path:
    from neuroprior.report.twin_page import write_twin_page
    from neuroprior.twin import Twin

    twins = [twin if isinstance(twin, Twin) else twin.folds[0] for twin in made.twins]
    known = {name: score for name, score in scores.items() if score is not None}
    page: Path = write_twin_page(
        twins, out, history=made.history[0], scores=known, scans={scan.name: scan for scan in scans},
        notes=made.notes, settings=settings,
    )[0]  # fmt: skip
    return page


def _scores_json(scores: Scored) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, score in scores.items():
        if score is None:
            said[name] = None
            continue
        said[name] = {"tier": score.tier, "trials": score.n_trials, "images": score.n_images}
        for key, values in _values(score).items():
            said[name][key] = None if values is None else _spread(values)
        said[name] |= {"oracle_fraction": score.oracle_fraction, "fev_threshold": score.fev_threshold}
    return said


def _values(score: "TwinScores") -> "dict[str, np.ndarray | None]":
    return {
        "single_trial": score.single_trial,
        "to_average": score.to_average,
        "feve": score.feve,
        "oracle": score.oracle,
        "v": score.accuracy,
    }


def _spread(values: "np.ndarray") -> dict[str, Any]:
    import numpy as np

    known = values[np.isfinite(values)]
    if not len(known):
        return {"neurons": 0}
    quantiles = {str(q): round(float(np.quantile(known, q)), 4) for q in (0.05, 0.5, 0.95)}
    return {"neurons": len(known), "mean": round(float(known.mean()), 4), "quantiles": quantiles}


def _print_scores(scores: Scored) -> None:
    import numpy as np

    rows = []
    thresholds: set[float] = set()
    for name, score in scores.items():
        if score is None:
            print(f"{name}: no such trials to score on")
            continue
        thresholds.add(score.fev_threshold)
        cells = [name, str(len(score.single_trial)), str(score.n_trials)]
        for key in ("single_trial", "to_average", "feve", "oracle"):
            values = _values(score)[key]
            known = np.array([]) if values is None else values[np.isfinite(values)]
            middle = np.median if key == "feve" else np.mean
            cells.append(f"{middle(known):.3f} (n {len(known)})" if len(known) else "-")
        cells.append("-" if score.oracle_fraction is None else f"{score.oracle_fraction:.2f}")
        rows.append(cells)
    if rows:
        print_table(
            ["scan", "neurons", "trials", "single trial r", "r to average", "median FEVE", "oracle r", "of oracle"],
            rows,
        )
        part = ", ".join(f"{100 * threshold:g} %" for threshold in thresholds)
        print(f"r are means over neurons; FEVE is of neurons of whose variance {part} or more is explainable")


def _tell(progress: Progress, label: str, at: "FitProgress") -> None:
    best = "" if at.best_correlation == -math.inf else f", best r {at.best_correlation:.3f}"
    left = ""
    if at.seconds_at_least is not None and at.seconds_at_most is not None:
        left = f"{duration(at.seconds_at_least)} to {duration(at.seconds_at_most)} left"
        left += " of this fold" if label.startswith("fold") else ""
    progress.update(label, f"epoch {at.epoch}, decay {at.decays}{best}", at.part, note=left)
