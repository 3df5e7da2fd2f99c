"""`neuroprior robustness`: what any saved network withstands."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import neuroprior as npr
from neuroprior.cli.further import Further, finite, radii_of
from neuroprior.cli.options import Json
from neuroprior.cli.progress import Progress
from neuroprior.cli.searches import (
    Asked,
    Search,
    attacks_of,
    cost_line,
    cost_of,
    ledger_of,
    norms_of,
    print_found,
    withstood,
)
from neuroprior.cli.tables import duration, print_table

if TYPE_CHECKING:
    from neuroprior.classifier.datasets import Samples
    from neuroprior.robustness import Audit, Clip, Cost, NoiseCurve, NoiseKind, Withstood


_INTERRUPTED = 130


def robustness(
    model: Annotated[
        str,
        typer.Argument(
            help="package.module:factory, a TorchScript file, a torch.export program (.pt2), or an exported folder."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(help="Test images: .parquet, .npz (images, labels), a folder with one a class, CIFAR's, digits."),
    ],
    weights: Annotated[Path | None, typer.Option(help="Of an import: its safetensors or state dict.")] = None,
    labels: Annotated[Path | None, typer.Option(help="An .npy of labels, for .npz or .npy images.")] = None,
    color: Annotated[
        Literal["gray", "rgb"] | None, typer.Option(help="How pictures are read: rgb unless given (digits: gray).")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="H,W", help="Scale and crop a folder's images to so many pixels, e.g. 64,64.")
    ] = None,
    n: Annotated[int, typer.Option("--n", help="So many images; all, if there are fewer.")] = 200,
    norm: Annotated[
        list[str] | None, typer.Option(help="l0, l1, l2 (unless given) or linf; may be given again.")
    ] = None,
    attacks: Annotated[
        str | None,
        typer.Option(
            help="Names with commas, e.g. ddn,brendel_bethge. Every norm: brendel_bethge, fmn; l0: jsma, sigma_zero; "
            "l1: jsma, sparse_fool; l2: ddn, cw; l2 and linf: pgd, apgd, boundary; linf: adam_pgd."
        ),
    ] = None,
    repetitions: Annotated[int, typer.Option(help="Times that each setting runs, from another start.")] = 1,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="The paper's full grids, every attempt by itself. Says its cost first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --exhaustive: do not ask.")] = False,
    seed: Annotated[int, typer.Option(help="Of random starts and noise.")] = 0,
    bounds: Annotated[
        str, typer.Option(metavar="LOW,HIGH", help="The pixel range that the network takes, e.g. 0,255.")
    ] = "0,1",
    mean: Annotated[
        str | None, typer.Option(help="Subtracted then, a value or one a channel, e.g. 0.49,0.48,0.45.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Divided by then, e.g. 0.2,0.2,0.2.")] = None,
    outputs: Annotated[Literal["logits", "probabilities"], typer.Option(help="What the network gives.")] = "logits",
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 64,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    max_gradients: Annotated[int | None, typer.Option(help="So many gradients an image at most, in each norm.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="No further images are begun after that, in each norm.")
    ] = None,
    sigmas: Annotated[
        str | None,
        typer.Option(
            help="Accuracy under noise of these levels, in units of the pixel range (salt and pepper: the share of "
            "values), e.g. 0,0.05,0.1."
        ),
    ] = None,
    noise: Annotated[
        Literal["gaussian", "uniform", "salt_and_pepper"], typer.Option(help="With --sigmas: which noise.")
    ] = "gaussian",
    clip: Annotated[
        Literal["none", "unit", "image_range"], typer.Option(help="With --sigmas: what noisy pixels are cut to.")
    ] = "none",
    radii: Annotated[
        str | None,
        typer.Option(
            metavar="[NORM:]RADIUS,...",
            help="Accuracy under attacks of AutoAttack's strength, e.g. linf:0.0078,l2:0.5 (norm: the one of --norm).",
        ),
    ] = None,
    strength: Annotated[
        Literal["quick", "standard"], typer.Option(help="With --radii: how long those attacks go on.")
    ] = "standard",
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Accuracy under the corruptions of CIFAR-10-C (32x32 images).")
    ] = False,
    masking: Annotated[
        float | None,
        typer.Option(metavar="RADIUS", help="Are its gradients masked? Asked at this radius, in linf or l2."),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Keep every attempt in this folder (NORM.parquet; of one norm also a .parquet) and resume."),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure any saved network: the smallest perturbations that fool it, and accuracy under noise.

    With --radii, --corruptions or --masking beside it: accuracy under attack, corruptions, and whether to believe it.
    Lengths are of pixels in [0, 1]; --bounds, --mean and --std say what the network does with them.

    Example: neuroprior robustness net.pt2 --data test.npz --norm l2 --norm linf --sigmas 0,0.1 --ledger attacks
    """
    from neuroprior.robustness import audit

    norms = norms_of(norm or ["l2"])
    searches = [
        Search(
            norm=one,
            attacks=attacks_of(one, norms, attacks),
            repetitions=repetitions,
            exhaustive=exhaustive,
            seed=seed,
            max_gradients=max_gradients,
            max_seconds=max_seconds,
            ledger=ledger_of(ledger, one, norms),
        )
        for one in norms
    ]
    levels = None if sigmas is None else _numbers("sigmas", sigmas)
    further = Further(
        radii=radii_of(radii, norms),
        strength=strength,
        corruptions=corruptions,
        masking=masking,
        seed=seed,
    )
    low, high = _numbers("bounds", bounds, 2)
    before = {"mean": _optional("mean", mean), "std": _optional("std", std)}
    cut = None if size is None else _numbers("size", size, 2)
    with Progress() as progress:
        progress.update("data", "reading", 0.0)
        samples = _samples(data, labels, color, cut, n)
        progress.update("data", "read", 1.0)
        asked = _asked(model, weights, samples, (low, high), before, outputs, batch_size, device)
        further.check(norms, asked.images)
        progress.update("network", "audit", 0.0)
        seen = audit(asked.victim, asked.images, asked.labels)
        progress.update("network", "audited", 1.0)
    asked.network.channels = asked.victim.channels
    out = sys.stderr if json_ else sys.stdout
    for line in _audit_lines(seen):
        print(line, file=out, flush=True)
    costs = [cost_of(asked, search) for search in searches]
    for search, cost in zip(searches, costs, strict=True):
        print(cost_line(search, cost), file=out, flush=True)
    if exhaustive and not yes:
        _confirm(sum(cost.seconds for cost in costs))
    if ledger is None:
        print("No --ledger: interrupted, this starts anew.", file=sys.stderr)
    with _stopping(ledger):
        curve = None if levels is None else _noise(asked, levels, noise, clip, seed)
        if curve is not None and not json_:
            print()
            rows = [(f"{s:g}", f"{100 * a:.1f} %") for s, a in zip(curve.sigmas, curve.accuracy, strict=True)]
            print_table(("sigma", f"accuracy of {curve.n}"), rows)
        found = [withstood(asked, search) for search in searches]
        measured = further.measure(asked.name, asked.network, asked.victim, asked.images, asked.labels, norms)
    if json_:
        whole = _whole(asked, searches, seen, costs, curve, (noise, clip), found)
        print(json.dumps(whole | measured.as_json()))
    else:
        print_found(searches, found)
        measured.show()
    for search, one in zip(searches, found, strict=True):
        if one.n < len(samples):
            more = "starts anew" if search.ledger is None else "goes on from here"
            print(
                f"{search.norm}: {one.n} of {len(samples)} images in --max-seconds {max_seconds:g}; "
                f"the same command {more}",
                file=sys.stderr,
            )


def _numbers(option: str, given: str, count: int | None = None) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in given.split(","))
    except ValueError:
        values = ()
    if not values or len(values) != (count or len(values)) or not all(abs(value) < float("inf") for value in values):
        raise npr.InputError(f"--{option} {given}: give {count or 'some'} numbers with commas between them")
    return values


def _optional(option: str, given: str | None) -> tuple[float, ...] | None:
    return None if given is None else _numbers(option, given)


def _samples(
    data: Path,
    labels: Path | None,
    color: Literal["gray", "rgb"] | None,
    size: tuple[float, ...] | None,
    n: int,
) -> "Samples":
    from neuroprior.classifier.datasets import load_samples

    shape = None if size is None else (int(size[0]), int(size[1]))
    return load_samples(data, labels=labels, color=color, size=shape, n=n)


def _asked(
    model: str,
    weights: Path | None,
    samples: "Samples",
    bounds: tuple[float, float],
    before: dict[str, tuple[float, ...] | None],
    outputs: Literal["logits", "probabilities"],
    batch_size: int,
    device: str,
) -> Asked:
    import torch

    from neuroprior.networks import load_network
    from neuroprior.networks.prepared import Prepared
    from neuroprior.robustness import Victim

    loaded = load_network(model, weights=weights)
    network = Prepared(loaded, bounds=bounds, mean=before["mean"], std=before["std"])
    try:
        network.to(device)
    except (RuntimeError, AssertionError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise npr.InputError(f"--device {device}: {said}; name one that this machine has, e.g. cpu") from None
    return Asked(
        name=Path(model).name if Path(model).is_file() else model,
        network=network.eval(),
        victim=Victim(network, outputs=outputs, batch_size=batch_size),
        samples=samples,
        images=torch.from_numpy(samples.images),
        labels=torch.from_numpy(samples.labels),
    )


def _audit_lines(seen: "Audit") -> list[str]:
    channels = "1 channel" if seen.channels == 1 else f"{seen.channels} channels"
    return [
        f"audit of {seen.n} images: {seen.classes} classes, {channels}, {100 * seen.accuracy:.1f} % right; "
        f"answers repeat to {seen.repeatable:.1g} of their spread, alone and in a batch to {seen.batch_invariance:.1g}",
        *(f"audit: {remark}" for remark in seen.remarks),
        *(
            ["audit: no better than guessing; do labels count from 0, and do --bounds, --mean and --std fit?"]
            if seen.accuracy <= 1 / seen.classes
            else []
        ),
    ]


def _confirm(seconds: float) -> None:
    """Raise `InputError` unless somebody agrees."""
    if not sys.stdin.isatty():
        raise npr.InputError(f"--exhaustive: up to {duration(seconds)}, nothing was attacked yet; add --yes to go on")
    if not typer.confirm("Go on?", err=True):
        raise npr.InputError("--exhaustive: nothing was attacked; leave it out for the quick settings")


@contextmanager
def _stopping(ledger: Path | None) -> Iterator[None]:
    """What Ctrl-C says without a ledger: not that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt:
        if ledger is not None:
            raise
        print("neuroprior: stopped; without --ledger the same command starts anew", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None


def _noise(asked: Asked, levels: tuple[float, ...], kind: "NoiseKind", clip: "Clip", seed: int) -> "NoiseCurve":
    from neuroprior.robustness import noise_accuracy

    with Progress() as progress:
        return noise_accuracy(
            asked.network,
            asked.images,
            asked.labels,
            levels,
            kind=kind,
            clip=clip,
            seed=seed,
            batch_size=asked.victim.batch_size,
            progress=lambda done, of: progress.update("noise", "measuring", done / of),
        )


def _whole(
    asked: Asked,
    searches: Sequence[Search],
    seen: "Audit",
    costs: Sequence["Cost"],
    curve: "NoiseCurve | None",
    noise: tuple[str, str],
    found: Sequence["Withstood"],
) -> dict[str, object]:
    kind, clip = noise
    under_noise = None
    if curve is not None:
        measured = {"sigmas": list(curve.sigmas), "accuracy": curve.accuracy.tolist(), "n": curve.n}
        under_noise = {"kind": kind, "clip": clip, **measured}
    rows = []
    for search, line in zip(searches, found, strict=True):
        kept = None if search.ledger is None else str(search.ledger)
        rows.append(
            {**finite(asdict(line)), "asked": len(asked.samples), "attacks": list(search.attacks), "ledger": kept}
        )
    return {
        "model": asked.name,
        "audit": asdict(seen),
        "cost": [{"norm": search.norm, **asdict(cost)} for search, cost in zip(searches, costs, strict=True)],
        "noise": under_noise,
        "withstood": rows,
    }
