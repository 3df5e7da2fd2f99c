"""`neuroprior scan`: recordings in any format, and whether they are sound."""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

import neuroprior as npr
from neuroprior.cli.options import Force, Format, Json, Module, Series, check_format, check_free, format_named
from neuroprior.cli.progress import Progress
from neuroprior.cli.scan_stability import stability
from neuroprior.cli.tables import print_table

app = typer.Typer(help="Recordings: check, convert, simulate, compare and plan them.", no_args_is_help=True)


@app.command("check")
def check(
    paths: Annotated[list[Path], typer.Argument(help="Recordings, in any of the formats.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the report cards; scan-cards unless given.")] = None,
    format: Format = None,
    module: Module = None,
    series: Series = None,
    json_: Json = False,
) -> None:
    """Say what is in a recording, and whether it is sound.

    Exits with 1, and the list, where something is wrong. The cards are named after folder and file.

    Example: neuroprior scan check recordings/static26872-17-20
    """
    from neuroprior.recordings import check_scan, load_scan
    from neuroprior.report.scan_card import card_json, write_card

    check_format(format)
    said, sound = [], True
    folder = out or (None if json_ else Path("scan-cards"))
    for path, card_name in zip(paths, card_names(paths), strict=True):
        if beside := _stands_beside(path):
            if not json_:
                print(f"{path}: left out, {beside}")
            continue
        try:
            scan = load_scan(path, format, module=module, series=series)
        except npr.InputError as error:
            sound = False
            said.append({"path": str(path), "sound": False, "faults": [str(error)]})
            if not json_:
                print(f"{path}: cannot be read\n  fault: {error}")
            continue
        found = check_scan(scan)
        sound &= found.sound
        card = None if folder is None else write_card(found, folder / f"{card_name}.html")
        said.append({"path": str(path), **card_json(found), "card": None if card is None else str(card)})
        if not json_:
            _print_check(path, said[-1])
    if json_:
        print(json.dumps({"scans": said}))
    if not sound:
        raise typer.Exit(1)


@app.command("convert")
def convert(
    path: Annotated[Path, typer.Argument(help="A recording, in any of the formats.")],
    out: Annotated[Path, typer.Argument(help="File or folder to write.")],
    to: Annotated[str, typer.Option(help="Format to write: plain, plain-h5, sensorium, sensorium-h5, nwb, nat60k.")],
    format: Format = None,
    module: Module = None,
    series: Series = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Write a recording in another format.

    Says what that format has no place for.

    Example: neuroprior scan convert static26872-17-20.zip scan.npz --to plain
    """
    from neuroprior.recordings import SCAN_FORMATS, load_scan, save_scan

    if path.exists() and out.exists() and path.samefile(out):
        raise npr.InputError(f"{out}: is the recording itself; name another file")
    drops = format_named(to, "--to").drops
    check_free(out, force)
    if to != "sensorium" and not any(out.name.endswith(entry.suffix) for entry in SCAN_FORMATS if entry.name == to):
        raise npr.InputError(f"{out}: a file of format {to} ends in {format_named(to, '--to').suffix}; name it so")
    scan = load_scan(path, format, module=module, series=series)
    save_scan(scan, out, to)
    lost = [field for field in drops if _holds(scan, field)]
    if json_:
        print(json.dumps({"out": str(out), "format": to, "lost": lost, "notes": list(scan.notes)}))
        return
    print(f"{out}: {len(scan.trial_image)} trials of {scan.responses.shape[1]} neurons, format {to}")
    for note in scan.notes:
        print(f"note: {note}")
    if lost:
        print(f"lost, as {to} has no place for it: {', '.join(lost)}", file=sys.stderr)


@app.command("simulate")
def simulate(
    out: Annotated[Path, typer.Option(help="Folder to write the scans and their truth to.")],
    stimuli: Annotated[
        Path | None, typer.Option(help="An .npz with images, names and tier; packaged photographs without.")
    ] = None,
    from_twin: Annotated[
        Path | None,
        typer.Option(help="A file of one twin or a Sensorium checkpoint, for the mean responses; Gabor cells without."),
    ] = None,
    neurons: Annotated[int | None, typer.Option(help="Neurons of a scan; 500, or all of a twin's.")] = None,
    repeats: Annotated[int, typer.Option(help="Trials of each oracle image.")] = 10,
    validation: Annotated[int, typer.Option(help="So many other images are of tier validation.")] = 0,
    scans: Annotated[int, typer.Option(help="How many scans.")] = 1,
    animals: Annotated[int, typer.Option(help="Of how many animals, in turn.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same scans.")] = 0,
    to: Annotated[str, typer.Option(help="Format to write, as in `scan convert`.")] = "plain",
    noise: Annotated[Literal["gamma", "negative_binomial"], typer.Option(help="Private noise.")] = "gamma",
    shared: Annotated[
        float, typer.Option(help="Noise that neurons share: mean standard deviation of a log response.")
    ] = 0.15,
    snr: Annotated[float, typer.Option(help="Median of the true w of Eq. 1.")] = 0.5,
    running: Annotated[
        float,
        typer.Option(help="Mean change of a log response for one standard deviation of log(1 + speed / (1 cm/s))."),
    ] = 0.15,
    pupil: Annotated[
        float, typer.Option(help="Mean change of a log response for one standard deviation of pupil size.")
    ] = 0.1,
    gaze: Annotated[
        float,
        typer.Option(
            help="Standard deviation of the horizontal gaze, in pixels of the images; half of it up and down."
        ),
    ] = 1.0,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Record a simulated mouse whose truth is known.

    The truth is written beside each scan: noise-free responses, SNR, similarity.

    Example: neuroprior scan simulate --out mice --scans 8 --animals 4
    """
    import numpy as np

    from neuroprior.recordings import (
        Behaviour,
        Noise,
        SimulatedScan,
        Viewing,
        load_stimuli,
        packaged_photographs,
        save_scan,
        save_truth,
        sessions,
        simulate_scan,
    )
    from neuroprior.twin import load_twin, simulate_from_twin

    kept = format_named(to, "--to")
    Viewing(n_repeats=repeats, n_validation=validation, seed=seed)  # what cannot be is said before anything is read
    private, moved = Noise(kind=noise, shared=shared), Behaviour(running, pupil, gaze)
    if neurons is not None and neurons < 1:
        raise npr.InputError(f"--neurons {neurons}: must be 1 or more")
    dealt = [(f"mouse{animal}-scan{session}", animal, session) for animal, session in sessions(scans, animals)]
    for name, _, _ in dealt:
        check_free(out / f"{name}{kept.suffix}", force)
    if stimuli is None:
        shown = packaged_photographs()
        oracle = shown.ids[-100:]
    else:
        shown, oracle = load_stimuli(stimuli), load_stimuli(stimuli, "oracle").ids
    record: Callable[..., SimulatedScan]
    if from_twin is None:
        record = partial(simulate_scan, shown, oracle, n_neurons=500 if neurons is None else neurons)
    else:
        record = partial(simulate_from_twin, load_twin(from_twin), shown, oracle, n_neurons=neurons)
    done: list[str] = []
    silent: dict[str, int] = {}
    with Progress() as progress:
        for name, animal, session in dealt:
            made = record(
                n_repeats=repeats,
                n_validation=validation,
                seed=seed,
                animal=animal,
                session=session,
                snr_median=snr,
                noise=private,
                behaviour=moved,
                name=name,
                progress=partial(_tell, progress, name),
            )
            path = out / f"{name}{kept.suffix}"
            progress.update(name, "writing", 1.0)
            save_scan(made.scan, path, to)
            save_truth(made, out / f"{name}-truth")
            done.append(str(path))
            silent[name] = int(np.count_nonzero(~made.scan.responses.any(axis=0)))
    if json_:
        print(
            json.dumps({"scans": done, "trials": len(made.scan.trial_image), "neurons": made.scan.responses.shape[1]})
        )
        return
    for path_said in done:
        print(
            f"{path_said}: {len(made.scan.trial_image)} trials of {made.scan.responses.shape[1]} neurons; truth beside"
        )
    for name, n in silent.items():
        if n:
            print(
                f"note: {n} neuron{'s' * (n > 1)} of {name} never fire{'s' * (n == 1)}, as noise is rare, strong "
                f"responses where --snr is low ({snr:g}); `scan check` will say so"
            )


def _tell(progress: Progress, name: str, done: int, of: int) -> None:
    progress.update(name, "recording", done / of)


app.command("stability")(stability)


@app.command("plan")
def plan(
    pilots: Annotated[
        list[Path],
        typer.Argument(
            help="Pilot scans: 80 neurons or more with weight above 0, 10 images or more with 4 repeats or more."
        ),
    ],
    neurons: Annotated[list[int] | None, typer.Option(help="Numbers of neurons to ask about.")] = None,
    repeats: Annotated[list[int] | None, typer.Option(help="Numbers of trials of each image.")] = None,
    scans: Annotated[list[int] | None, typer.Option(help="Numbers of scans.")] = None,
    aim: Annotated[float, typer.Option(help="Correlation with S of all such neurons to reach.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
    format: Format = None,
    module: Module = None,
    series: Series = None,
    json_: Json = False,
) -> None:
    """Say how many neurons, repeats and scans to record.

    From how a pilot's similarity agrees with itself. Rows of more than 4 times the pilot's neurons are marked: they are
    far from what it can tell.

    Example: neuroprior scan plan pilot.npz --neurons 1000 --neurons 8000 --repeats 10 --aim 0.9
    """
    from neuroprior.recordings import load_scan, plan_recording
    from neuroprior.recordings.pilot import check_aim

    check_aim(aim)
    check_format(format)
    for what, given in (("neurons", neurons), ("repeats", repeats), ("scans", scans)):
        if given and min(given) < 1:
            raise npr.InputError(f"--{what} {min(given)}: must be 1 or more")
    with Progress() as progress:
        progress.update("plan", "comparing halves", 0.0)
        made = plan_recording([load_scan(path, format, module=module, series=series) for path in pilots], seed=seed)
    ns = neurons or sorted({made.n_neurons, 1000, 8000})
    ts = repeats or sorted({1, made.n_repeats, 2 * made.n_repeats})
    hs = scans or [1, 4, 8]
    rows = [
        {
            "neurons": n,
            "repeats": t,
            "r": {str(h): round(made.correlation(n, t, h), 4) for h in hs},
            "interval": {str(h): [round(end, 4) for end in made.interval(n, t, h)] for h in hs},
            "scans_for_aim": made.scans_for(aim, n, t),
            "extrapolated": made.far(n),
        }
        for n in ns
        for t in ts
    ]
    if json_:
        fit = [
            {"neurons": n, "repeats": t, "measured": round(r, 4), "fitted": round(fitted, 4)}
            for (n, t, r), fitted in zip(made.measured, made.fitted, strict=True)
        ]
        print(json.dumps({"aim": aim, "images": made.n_images, "plan": rows, "fit": fit}))
        return
    print(
        f"pilot: {made.n_neurons} neurons, {made.n_repeats} repeats of {made.n_images} images; "
        "expected correlation with S of all such neurons, free of noise (pairs i < j; 95 % interval over images and "
        f"neurons), and scans for r = {aim:g}"
    )
    print_table(
        ["neurons", "repeats", *(f"{h} scan{'s' if h > 1 else ''}" for h in hs), f"scans for {aim:g}"],
        [
            [f"{row['neurons']}{' *' if row['extrapolated'] else ''}", str(row["repeats"])]
            + ["{:.2f} ({:.2f} to {:.2f})".format(made.correlation(n, t, h), *made.interval(n, t, h)) for h in hs]
            + [str(row["scans_for_aim"])]
            for row, (n, t) in zip(rows, ((n, t) for n in ns for t in ts), strict=True)
        ],
    )
    print("S of all such neurons: what more of them average to; what differs from animal to animal is not in it")
    if made.far(max(ns)):
        print(f"* more than 4 times the pilot's {made.n_neurons} neurons: far from what it can tell")


def _holds(scan: "npr.Scan", field: str) -> bool:
    value = getattr(scan, field, None)
    return value is not None and len(value) > 0


def _stands_beside(path: Path) -> str | None:
    """Say what a file is that stands beside recordings and is none."""
    if (path / "truth.npz").is_file():
        return "the truth of a simulated scan"
    if path.suffix == ".mat" and path.stem.endswith("text16"):
        return "a bank of pictures"
    return None


def card_names(paths: Sequence[Path]) -> list[str]:
    """Return 'folder-file' of each path, from further up where two would be alike: the same whatever else is checked.

    Two names of one recording are one card.
    """
    parts = [path.resolve().parts for path in paths]
    distinct, kept = len(set(parts)), 2
    while len({one[-kept:] for one in parts}) < distinct:
        kept += 1
    return ["-".join(part.strip("/\\:") for part in one[-kept:]).lstrip("-") for one in parts]


def _print_check(path: Path, card: dict[str, object]) -> None:
    tiers = card["tiers"]
    assert isinstance(tiers, dict)
    shown = ", ".join(
        f"{tier['images']} {name} images x {'-'.join(map(str, sorted(set(tier['repeats']))))}"
        for name, tier in tiers.items()
    )
    print(f"{path}: {card['name']}")
    print(f"  {card['trials']} trials, {card['neurons']} neurons; {shown}")
    for key, what in (("snr", "SNR (Eq. 1)"), ("oracle_correlation", "oracle correlation")):
        spread = card[key]
        if isinstance(spread, dict):
            low, median, high = (spread["quantiles"][q] for q in ("0.05", "0.5", "0.95"))
            print(f"  {what}: median {median:.2f} (5 to 95 %: {low:.2f} to {high:.2f})")
    if card["signal_dimensions"] is not None:
        print(f"  dimensions: signal {card['signal_dimensions']:.1f}, single trials {card['response_dimensions']:.1f}")
    notes, faults = card["notes"], card["faults"]
    assert isinstance(notes, list)
    assert isinstance(faults, list)
    for word, lines in (("note", notes), ("fault", faults)):
        for line in lines:
            print(f"  {word}: {line}")
    if card["sound"]:
        print("  sound")
    if card["card"]:
        print(f"  report card: {card['card']}")
