"""The mean smallest perturbation in each norm (the paper's Figure 7), and what single attacks find: of a ledger."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from neuroprior.experiment.results import ConditionCard, Measurements
from neuroprior.experiment.steps.attacking import attacked_name
from neuroprior.report.perturbations import NORMS, norms_attacked
from neuroprior.report.tables import Estimate, Table, csv_cells, over_seeds
from neuroprior.robustness import Ledger
from neuroprior.types import Float64, InputError

SAID = {
    "pgd": "PGD",
    "adam_pgd": "Adam-PGD",
    "cw": "C&W",
    "ddn": "DDN",
    "brendel_bethge": "Brendel & Bethge",
    "jsma": "JSMA",
    "sparse_fool": "SparseFool",
    "fmn": "FMN",
    "sigma_zero": "σ-zero",
    "apgd": "APGD",
    "boundary": "Boundary",
}
"""Attacks as their authors call them."""


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean over images of one network's (or several seeds') smallest perturbations, and what it counts.

    `estimate`: the mean over seeds with its SEM; of one seed the SEM over its images (`over_images`), s / sqrt(images)
    with ddof 1. None where nothing was found. Over all seeds: `images` asked, `already_wrong` (0 in the mean),
    `not_found` and `quarantined` (left out of it).
    """

    estimate: Estimate | None
    over_images: bool
    images: int
    already_wrong: int
    not_found: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Smallest:
    """One condition in one norm: of all attacks together, and of each that ran by itself."""

    card: ConditionCard
    norm: str
    seeds: int
    best: Mean
    alone: Mapping[str, Mean] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tried:
    """One attack as it ran in one norm: its settings in order, `alone` if every attempt knew of no other."""

    norm: str
    attack: str
    settings: tuple[str, ...]
    repetitions: int
    alone: bool


def smallest_of(results: Measurements, norm: str) -> list[Smallest]:
    """A value a condition that was attacked in the norm, in the run's order."""
    if results.attacks is None or norm not in results.attacks.norms:
        return []
    ledger = results.attacks.of(norm=norm)
    there = set(ledger.models)
    seeds = results.seeds
    found = []
    for card in results.conditions:
        names = [name for seed in seeds if (name := attacked_name(card.name, seed)) in there]
        if not names:
            continue
        parts = [ledger.of(model=name) for name in names]
        attacks = dict.fromkeys(attack for part in parts for attack in part.table["attack"].to_pylist())
        alone = {
            attack: mean_of(by_itself)
            for attack in attacks
            if attack != "clean" and (by_itself := _by_itself(parts, attack)) is not None
        }
        found.append(Smallest(card, norm, len(parts), mean_of([part.distances() for part in parts]), alone))
    return found


def mean_of(distances: Sequence[Float64[np.ndarray, " _"]]) -> Mean:
    """Of each seed the mean over images of |x' - x|: 0 already wrong; not found (inf), quarantined (NaN) left out."""
    finite = [values[np.isfinite(values)] for values in distances]
    means = [float(values.mean()) for values in finite if len(values)]
    estimate, over_images = over_seeds(means) if means else None, False
    if estimate is not None and len(distances) == 1 and len(finite[0]) > 1:
        sem = float(finite[0].std(ddof=1)) / math.sqrt(len(finite[0]))
        estimate, over_images = Estimate(estimate.mean, sem, 1), True
    return Mean(
        estimate=estimate,
        over_images=over_images,
        images=sum(len(values) for values in distances),
        already_wrong=sum(int((values == 0).sum()) for values in distances),
        not_found=sum(int(np.isinf(values).sum()) for values in distances),
        quarantined=sum(int(np.isnan(values).sum()) for values in distances),
    )


def _by_itself(parts: Sequence[Ledger], attack: str) -> list[Float64[np.ndarray, " _"]] | None:
    """What the attack found in every seed; None where it began from what others had found, or not all were asked."""
    try:
        found = [part.of(attacks=[attack]) for part in parts]
    except InputError:
        return None
    if any(set(mine.samples) != set(part.samples) for mine, part in zip(found, parts, strict=True)):
        return None
    return [mine.distances() for mine in found]


def tried(ledger: Ledger) -> list[Tried]:
    """Every attack of every norm, in the order in which they ran."""
    columns = ("norm", "attack", "setting", "repetition", "alone")
    table = ledger.table.select(columns).filter(pc.not_equal(ledger.table["attack"], "clean"))
    settings: dict[tuple[str, str], dict[str, None]] = {}
    most: dict[tuple[str, str], int] = {}
    helped: set[tuple[str, str]] = set()
    for norm, attack, setting, repetition, alone in zip(*(table[name].to_pylist() for name in columns), strict=True):
        settings.setdefault((norm, attack), {})[setting] = None
        most[norm, attack] = max(repetition + 1, most.get((norm, attack), 1))
        if not alone:
            helped.add((norm, attack))
    return [
        Tried(norm, attack, tuple(named), most[norm, attack], (norm, attack) not in helped)
        for (norm, attack), named in settings.items()
    ]


def tried_table(results: Measurements) -> Table | None:
    """A row a norm and attack: whether it ran by itself, its repetitions and settings; None without a ledger."""
    if results.attacks is None:
        return None
    order = [*NORMS]
    ran = sorted(tried(results.attacks), key=lambda one: order.index(one.norm))
    return Table(
        caption="What was run on every image in search of its smallest perturbation, as the ledger has it. Alone: "
        "every attempt knew nothing of the others; otherwise later ones began from what earlier ones had found.",
        header=("Norm and attack", "Alone", "Repetitions", "Settings"),
        rows=tuple(
            (
                f"{NORMS[one.norm].split(' ')[0]}, {SAID.get(one.attack, one.attack)}",
                "yes" if one.alone else "no",
                str(one.repetitions),
                "; ".join(setting.replace(",", ", ") or "as it is" for setting in one.settings),
            )
            for one in ran
        ),
    )


def smallest_csv(results: Measurements) -> list[list[str]]:
    """Return smallest.csv: header, then a row a condition, norm and attack; `best` is the smallest of all together."""
    rows = [["condition", "label", "norm", "attack", "mean", "sem", "n_seeds", "sem_over"]]
    rows[0] += ["n_images", "already_wrong", "not_found", "quarantined"]
    for norm in norms_attacked(results):
        for one in smallest_of(results, norm):
            for attack, mean in {"best": one.best, **one.alone}.items():
                spread = mean.estimate is not None and mean.estimate.sem is not None
                over = ("images" if mean.over_images else "seeds") if spread else ""
                counts = (mean.images, mean.already_wrong, mean.not_found, mean.quarantined)
                named = [one.card.name, one.card.label, norm, attack]
                rows.append([*named, *csv_cells(mean.estimate), over, *map(str, counts)])
    return rows
