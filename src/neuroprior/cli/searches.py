"""The smallest perturbations that `neuroprior robustness` is asked for: read from its options, searched, printed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import neuroprior as npr
from neuroprior.cli.progress import Progress
from neuroprior.cli.tables import duration, print_table

if TYPE_CHECKING:
    import torch

    from neuroprior.classifier.datasets import Samples
    from neuroprior.networks.prepared import Prepared
    from neuroprior.robustness import Cost, Victim, Withstood

AttackedNorm = Literal["l0", "l1", "l2", "linf"]

USUAL_ATTACKS: dict[AttackedNorm, tuple[str, ...]] = {
    "l0": ("brendel_bethge", "sigma_zero"),
    "l1": ("brendel_bethge", "fmn"),
    "l2": ("ddn", "brendel_bethge"),
    "linf": ("pgd", "brendel_bethge"),
}


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked in one norm; `ledger`: the file that its rows go to."""

    norm: AttackedNorm
    attacks: tuple[str, ...]
    repetitions: int
    exhaustive: bool
    seed: int
    max_gradients: int | None
    max_seconds: float | None
    ledger: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A network, and the images it is asked about."""

    name: str
    network: "Prepared"
    victim: "Victim"
    samples: "Samples"
    images: "torch.Tensor"
    labels: "torch.Tensor"


def norms_of(given: Sequence[str]) -> tuple[AttackedNorm, ...]:
    """Each norm once, in one order. Raises `InputError` for an unknown one."""
    unknown = [norm for norm in given if norm not in USUAL_ATTACKS]
    if unknown:
        raise npr.InputError(f"--norm {unknown[0]}: choose l0, l1, l2 or linf, and give --norm once for each")
    return tuple(norm for norm in USUAL_ATTACKS if norm in given)


def attacks_of(norm: AttackedNorm, norms: Sequence[AttackedNorm], given: str | None) -> tuple[str, ...]:
    """Those for one of several norms: of the given ones, those that fit it; none may fit nowhere."""
    from neuroprior.robustness import ATTACKS, chosen

    if given is None:
        return USUAL_ATTACKS[norm]
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    fits: dict[str, tuple[str, ...]] = {name: grid.quick[0].norms for name, grid in ATTACKS.items()}
    # One that is unknown, or fits none of the norms, stays in: `chosen` says what is wrong with it.
    mine = tuple(name for name in names if norm in fits.get(name, norms) or not set(norms) & set(fits[name]))
    chosen(mine or names, norm, exhaustive=False)
    return mine


def ledger_of(given: Path | None, norm: str, norms: Sequence[str]) -> Path | None:
    """The file for one of several norms: NORM.parquet in the folder that is given, or a file given for one norm."""
    if given is None:
        return None
    if given.suffix == ".parquet" and not given.is_dir():
        if len(norms) > 1:
            raise npr.InputError(f"--ledger {given}: one file for {' and '.join(norms)}; name a folder")
        return given
    if given.is_file() or any(parent.is_file() for parent in given.parents):
        raise npr.InputError(
            f"--ledger {given}: is a file, or lies below one; name a folder, or a .parquet for one norm"
        )
    return given / f"{norm}.parquet"


def cost_of(asked: Asked, search: Search) -> "Cost":
    """What a search may cost at most, timed on one batch."""
    from neuroprior.robustness import search_cost

    return search_cost(
        asked.victim,
        asked.images,
        asked.labels,
        attacks=search.attacks,
        norm=search.norm,
        repetitions=search.repetitions,
        exhaustive=search.exhaustive,
        max_gradients=search.max_gradients,
    )


def cost_line(search: Search, cost: "Cost") -> str:
    """Say in one line what a search may cost."""
    most = f"{cost.attempts:,} attempts, {cost.gradients:,} gradients, about {duration(cost.seconds)}"
    limit = "" if search.max_seconds is None else f"; stops after {duration(search.max_seconds)}"
    return f"{search.norm} by {', '.join(search.attacks)}: at most {most}{limit}"


def withstood(asked: Asked, search: Search) -> "Withstood":
    """Search, and sum up."""
    from neuroprior.robustness import minimal_perturbations

    if search.ledger is not None:
        search.ledger.parent.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        ledger = minimal_perturbations(
            asked.victim,
            asked.images,
            asked.labels,
            attacks=search.attacks,
            norm=search.norm,
            repetitions=search.repetitions,
            exhaustive=search.exhaustive,
            seed=search.seed,
            ids=asked.samples.ids,
            name=asked.name,
            ledger=search.ledger,
            max_gradients=search.max_gradients,
            max_seconds=search.max_seconds,
            progress=lambda part, _: progress.update(search.norm, f"searching, {10 * int(10 * part)} %", part),
        )
        progress.update(search.norm, "searched", 1.0)
    (line,) = ledger.withstood()
    return line


def print_found(searches: Sequence[Search], found: Sequence["Withstood"]) -> None:
    """Print a table of what was found, and where every attempt is kept."""
    header = (
        "norm",
        "images",
        "wrong already",
        "not found",
        "quarantined",
        "median",
        "of those right",
        "mean",
        "gradients an image",
    )
    rows = []
    for line in found:
        counts = (line.n, line.already_wrong, line.not_found, line.quarantined)
        lengths = (line.median, line.median_of_right, line.mean)
        numbers = (*("-" if math.isnan(x) else f"{x:.4g}" for x in lengths), f"{line.gradients:.0f}")
        rows.append((line.norm, *map(str, counts), *numbers))
    print()
    print_table(header, rows)
    of_l0 = "; of l0 the number of changed values" if any(line.norm == "l0" for line in found) else ""
    print(f"Lengths of pixels in [0, 1]{of_l0}: wrong already counts as 0, not found as inf (not in the mean).")
    for search in searches:
        if search.ledger is not None:
            print(f"Every attempt in {search.norm}: {search.ledger}")
