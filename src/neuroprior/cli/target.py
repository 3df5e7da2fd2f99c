"""`neuroprior target`: make a similarity target, look at one, compare two."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast, get_args

import typer

import neuroprior as npr
from neuroprior.cli.options import (
    Force,
    Format,
    Json,
    Module,
    Series,
    Tier,
    Weighting,
    check_file,
    check_format,
    check_free,
)
from neuroprior.cli.progress import Progress
from neuroprior.cli.target_sources import (
    Kind,
    Weighing,
    target_of_network,
    target_of_scans,
    target_of_twins,
    target_of_vgg,
)

if TYPE_CHECKING:
    import numpy as np

    from neuroprior.types import AnyTarget, SimilarityTarget, Stimuli

app = typer.Typer(help="Similarity targets: make one, look at one, compare two.", no_args_is_help=True)

_SOURCES = ("twin", "scan", "network", "vgg", "matrix", "pixel", "lowpass")
_GOES_WITH = {  # an option, and what makes sense of it
    "stimuli": tuple(source for source in _SOURCES if source != "scan"),
    "layer": ("network",),
    "weights": ("network",),
    "size": ("network",),
    "ids": ("matrix",),
    "neurons": ("twin", "scan"),
    "precision": ("twin",),
    "weighting": ("twin",),
    "v-power": ("twin",),
    "intersection": ("scan",),
    "format": ("scan",),
    "module": ("scan",),
    "series": ("scan",),
    "tolerance": ("factored",),
    "max-rank": ("factored",),
}
_WHOLE = 8192  # images up to which a matrix's statistics are of all pairs
_SHOWN = 2000  # images that those of a larger or factored target are of
_FEW, _PERMUTED = 500, 10  # images up to which chance is the mean over so many permutations; of more, one tells
_Given = TypeVar("_Given")


@app.command("build")
def target_build(
    out: Annotated[Path, typer.Option(help="File to write, e.g. target.safetensors.")],
    twin: Annotated[
        list[Path] | None,
        typer.Option(help="A fit's folder, a file of twins or a Sensorium checkpoint; of several scans, their mean."),
    ] = None,
    scan: Annotated[
        list[Path] | None, typer.Option(help="A recording, in any format; of several, the mean over the scans.")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="package.module:factory, a TorchScript file, a torch.export program (.pt2), or an exported folder."
        ),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="With --network: name of the module to read.")] = None,
    weights: Annotated[Path | None, typer.Option(help="With --network: its safetensors or state dict.")] = None,
    size: Annotated[
        str | None, typer.Option(help="With --network: height,width that it takes, where the stimuli have another.")
    ] = None,
    vgg: Annotated[
        Path | None, typer.Option(help="VGG-19's weights, torchvision's or normalised ones; conv3_1 is read.")
    ] = None,
    matrix: Annotated[Path | None, typer.Option(help="A .npy file with the similarity of each pair.")] = None,
    ids: Annotated[Path | None, typer.Option(help="With --matrix: its images' names, one a line.")] = None,
    pixel: Annotated[
        str | None, typer.Option(help="Pixel control: threshold above which images count as alike, or raw.")
    ] = None,
    lowpass: Annotated[
        float | None, typer.Option(help="Blurred pixels control: sigma in pixels of a stimulus.")
    ] = None,
    stimuli: Annotated[
        Path | None, typer.Option(help="An .npz with images, names and tier; a scan brings its own.")
    ] = None,
    tier: Annotated[str, typer.Option(help="Which stimuli: train, validation, oracle, or all.")] = "train",
    neurons: Annotated[
        str | None, typer.Option(help="Of a twin or scan: top-v:0.5, random:0.5[:SEED], or a file of indices.")
    ] = None,
    intersection: Annotated[
        bool, typer.Option("--intersection", help="Of scans: keep the images that all of them showed.")
    ] = False,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(help="Of a twin: float32; bfloat16 is for a quick look, too coarse for results."),
    ] = None,
    weighting: Annotated[
        Weighting | None,
        typer.Option(help="Of a twin's neurons: by w and v (Eq. 1, 6; so unless given), one of them, or none."),
    ] = None,
    v_power: Annotated[
        float | None, typer.Option(help="Of a twin's neurons: their weight is w v^n; n is 1 unless given.")
    ] = None,
    factored: Annotated[bool, typer.Option("--factored", help="Keep coordinates, not the matrix.")] = False,
    tolerance: Annotated[
        float | None, typer.Option(help="With --factored: no similarity is off by more; 0.01 unless given.")
    ] = None,
    max_rank: Annotated[int | None, typer.Option(help="With --factored: at most so many coordinates.")] = None,
    format: Format = None,
    module: Module = None,
    series: Series = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Make a similarity target from one source.

    That is Eq. 2 of twins, scans, a network's layer, a matrix or pixels.

    Example: neuroprior target build --twin twin.pth --stimuli stimuli.npz --out target.safetensors
    """
    from neuroprior.recordings import load_scan
    from neuroprior.similarity import load_matrix, lowpass_target, pixel_target

    check_file(out)
    check_format(format)
    sources = {"twin": twin, "scan": scan, "network": network, "vgg": vgg}
    controls = {"matrix": matrix, "pixel": pixel, "lowpass": lowpass}
    companions = {"stimuli": stimuli, "layer": layer, "weights": weights, "size": size, "ids": ids, "neurons": neurons}
    ways = {"intersection": intersection or None, "precision": precision, "tolerance": tolerance, "max-rank": max_rank}
    weighed = {"weighting": weighting, "v-power": v_power}
    of_scans = {"format": format, "module": module, "series": series}
    given = {
        k
        for options in (sources, controls, companions, ways, weighed, of_scans)
        for k, v in options.items()
        if v not in (None, [])
    }
    source = _only_source(given, factored)
    for files in (twin or [], scan or []):
        if len({file.resolve() for file in files}) < len(files):
            raise npr.InputError(f"--{source}: names a file twice; it would count twice in the mean")
    check_free(out, force)
    kind = Kind(factored, 0.01 if tolerance is None else tolerance, max_rank)
    made: "AnyTarget"
    with Progress() as progress:
        if scan:
            tier_asked = _tier_of_scans(tier)
            scans = [load_scan(file, format, module=module, series=series) for file in scan]
            made = kind.of_target(target_of_scans(scan, scans, tier_asked, neurons, intersection))
        else:
            shown = _stimuli(_needed(stimuli, source, "stimuli"), tier)
            if twin:
                power = 1.0 if v_power is None else v_power
                how = Weighing(weighting=weighting, v_power=power, precision=precision or "float32")
                made = target_of_twins(twin, shown, how, neurons, kind, progress)
            elif network is not None:
                made = target_of_network(
                    network, weights, _needed(layer, source, "layer"), _size(size), shown, kind, progress
                )
            elif vgg is not None:
                made = target_of_vgg(vgg, shown, kind, progress)
            elif matrix is not None:
                made = kind.of_target(load_matrix(matrix, _needed(ids, source, "ids"), shown))
            elif pixel is not None:
                made = kind.of_target(pixel_target(shown, threshold=_threshold(pixel)))
            else:
                made = kind.of_target(lowpass_target(shown, sigma=_needed(lowpass, source, "lowpass")))
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
    _describe(_target(path), json_)


@app.command("compare")
def target_compare(
    a: Annotated[Path, typer.Argument(help="A target file.")],
    b: Annotated[Path, typer.Argument(help="Another; images are matched by name.")],
    images: Annotated[int, typer.Option(help="Of more common images, so many are drawn.")] = _SHOWN,
    seed: Annotated[int, typer.Option(help="Of that draw.")] = 0,
    json_: Json = False,
) -> None:
    """Say how alike two targets are.

    By their pairs (Pearson, Spearman), and as geometries (CKA, Procrustes). The latter two are not 0 for unrelated
    targets: beside them stands what they are with the images permuted.

    Example: neuroprior target compare twin.safetensors vgg.safetensors
    """
    from neuroprior.similarity import compare_targets

    one, other = _target(a), _target(b)
    compared = {
        k.replace("n_images", "images"): v
        for k, v in asdict(compare_targets(one, other, images=images, seed=seed)).items()
    }
    compared |= _by_chance(one, other, images, seed)
    # JSON has no NaN: a correlation that is not defined is null
    _say({k: None if v != v else v for k, v in compared.items()}, json_)


def _by_chance(one: "AnyTarget", other: "AnyTarget", images: int, seed: int) -> dict[str, float]:
    """CKA and Procrustes with the images of one permuted, which is not 0, the less so the fewer the images."""
    import numpy as np

    from neuroprior.similarity import compare_targets

    common = np.intersect1d(one.image_ids, other.image_ids)
    random = np.random.default_rng(seed)
    drawn = np.sort(random.choice(common, size=min(images, len(common)), replace=False))
    first, second = (_part(target, drawn) for target in (one, other))
    permuted = [
        compare_targets(first, replace(second, image_ids=random.permutation(drawn)))
        for _ in range(_PERMUTED if len(drawn) <= _FEW else 1)
    ]
    return {
        f"{measure}, images permuted": float(np.mean([getattr(found, measure) for found in permuted]))
        for measure in ("cka", "procrustes")
    }


def _part(target: "AnyTarget", ids: "np.ndarray") -> "SimilarityTarget":
    from neuroprior.types.arrays import rows_of

    rows = rows_of(target.image_ids, ids, "target")
    return npr.SimilarityTarget(target.block(rows), ids, target.stimuli_digest, target.source)


def _target(path: Path) -> "AnyTarget":
    """Load a target; a recording in its place is said to be one."""
    try:
        return npr.load_target(path)
    except npr.InputError:
        from neuroprior.recordings.stimuli import holds_responses

        if holds_responses(path):
            raise npr.InputError(f"{path}: this is a recording: try `neuroprior scan check {path}`") from None
        raise


def _only_source(given: set[str], factored: bool) -> str:
    """Return the one source that is given. Raises `InputError` unless it is one, and for options without use."""
    sources = [source for source in _SOURCES if source in given]
    if len(sources) != 1:
        found = " and ".join(f"--{source}" for source in sources) or "no source"
        listed = ", ".join(f"--{source}" for source in _SOURCES)
        raise npr.InputError(f"target build: {found} given; choose exactly one of {listed}")
    (source,) = sources
    has = {source, "factored"} if factored else {source}
    for option, needed in _GOES_WITH.items():
        if option in given and not has.intersection(needed):
            meant = ", ".join(f"--{name}" for name in needed)
            raise npr.InputError(f"--{option}: has no use with --{source}; leave it out (it is for {meant})")
    return source


def _needed(value: _Given | None, source: str, option: str) -> _Given:
    if value is None:
        raise npr.InputError(f"--{source}: needs --{option} as well; see `neuroprior target build --help`")
    return value


def _stimuli(path: Path, tier: str) -> "Stimuli":
    from neuroprior.recordings import load_stimuli

    return load_stimuli(path) if tier == "all" else load_stimuli(path, tier=_tier(tier))


def _tier(tier: str) -> Tier:
    for known in get_args(Tier):
        if tier == known:
            return cast(Tier, tier)
    raise npr.InputError(f"--tier {tier}: choose {', '.join(get_args(Tier))}, or, of stimuli, all")


def _tier_of_scans(tier: str) -> Tier:
    if tier == "all":
        raise npr.InputError(f"--tier all: a scan's target is of one tier; choose {', '.join(get_args(Tier))}")
    return _tier(tier)


def _size(given: str | None) -> tuple[int, int] | None:
    if given is None:
        return None
    sides = given.replace("x", ",").split(",")
    if len(sides) != 2 or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise npr.InputError(f"--size {given}: give height,width in pixels, as 32,32")
    return int(sides[0]), int(sides[1])


def _threshold(pixel: str) -> float | None:
    try:
        return None if pixel == "raw" else float(pixel)
    except ValueError:
        raise npr.InputError(f"--pixel {pixel}: give a threshold from 0 to below 1, e.g. 0.8, or raw") from None


def _describe(target: "AnyTarget", as_json: bool) -> None:
    import numpy as np

    n = len(target)
    whole = isinstance(target, npr.SimilarityTarget) and n <= _WHOLE
    rows = np.arange(n) if whole else np.sort(np.random.default_rng(0).permutation(n)[:_SHOWN])
    pairs = target.block(rows)[np.triu_indices(len(rows), k=1)]
    said: dict[str, str | float | int | None] = {
        "images": n,
        "source": target.source,
        "scans": target.n_scans,
        "stimuli digest": target.stimuli_digest,
        "mean off the diagonal": float(pairs.mean()),
        "standard deviation off the diagonal": float(pairs.std()),
        "smallest": float(pairs.min()),
        "largest off the diagonal": float(pairs.max()),
    }
    if len(rows) < n:
        said["these four are of"] = f"{len(rows)} images drawn at random"
    if isinstance(target, npr.FactoredTarget):
        said |= {"rank": target.rank, "tolerance": target.tolerance}
    _say({**said, **target.details}, as_json)


def _say(said: Mapping[str, str | float | int | None], as_json: bool) -> None:
    if as_json:
        print(json.dumps(said))
    else:
        for key, value in said.items():
            print(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}")
