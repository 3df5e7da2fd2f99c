"""How little it takes to fool each condition's networks: curves and tables of a run's ledger."""

from collections.abc import Mapping, Sequence

import numpy as np

from neuroprior.experiment.results import Measurements
from neuroprior.experiment.steps.attacking import attacked_name
from neuroprior.report.tables import (
    NOT_MEASURED,
    Curve,
    Estimate,
    Table,
    curve_of,
    range_phrase,
    seeds_phrase,
)
from neuroprior.robustness.ledger import Count, Ledger, median

NORMS = {"l0": "L0 (pixels changed)", "l1": "L1", "l2": "L2", "linf": "L∞"}
UNIT = {"l0": "each channel of a colour image counts by itself"}
"""What a norm's lengths are in, where it is not the pixels' range [0, 1]."""
_POINTS = 24


def norms_attacked(results: Measurements) -> tuple[str, ...]:
    """The norms that anything was attacked in."""
    return () if results.attacks is None else tuple(norm for norm in NORMS if norm in results.attacks.norms)


def descent_of(results: Measurements, condition: str, norm: str, queries: Sequence[int]) -> Curve:
    """The median over images of the nearest adversarial after so many gradients, of each seed (Fig. 5)."""
    assert results.attacks is not None  # norms_attacked says so
    names = {seed: attacked_name(condition, seed) for seed in results.seeds}
    there = set(results.attacks.models)
    return descent(
        {seed: results.attacks.of(model=name, norm=norm) for seed, name in names.items() if name in there}, queries
    )


def descent(ledgers: Mapping[int, Ledger], queries: Sequence[int], count: Count = "gradients") -> Curve:
    """The median over images of the nearest adversarial after so many queries, of each ledger (by seed).

    Queries after which half of the images of some seed had none are left out.
    """
    by_seed: dict[int, np.ndarray] = {}
    counts = []
    for seed, ledger in ledgers.items():
        found = ledger.best_so_far(queries, count)
        found = found[~np.isnan(found).any(axis=1)]
        by_seed[seed] = np.array([median(column) for column in found.T])
        counts.append(len(found))
    shown = [k for k in range(len(queries)) if by_seed and all(np.isfinite(values[k]) for values in by_seed.values())]
    return Curve(
        x=tuple(float(queries[k]) for k in shown),
        by_seed=tuple({seed: float(values[k]) for seed, values in by_seed.items()} for k in shown),
        counts=tuple(min(counts) for _ in shown),
    )


def queries_of(ledger: Ledger, count: Count = "gradients") -> list[int]:
    """Numbers of queries to show, evenly spaced in their logarithm, up to the most that an image cost."""
    spent = ledger.table.group_by(["model", "sample", "norm"]).aggregate([(count, "sum")])[f"{count}_sum"].to_numpy()
    most = max(2, int(spent.max()))
    return sorted({round(x) for x in np.geomspace(1, most, _POINTS)})


def perturbation_table(results: Measurements, norm: str) -> Table | None:
    """A row a condition: median over all images, over the rightly classified, the counts; None without a ledger."""
    rows, seeds, images = [], [], []
    for card in results.conditions:
        measured = {what: curve_of(results.metrics, card.name, f"{what}_{norm}") for what in _MEASURES}
        if not measured["already_wrong"]:
            continue
        estimates = {what: curve.only() for what, curve in measured.items()}
        counted = measured["already_wrong"]
        images += list(counted.counts)
        seeds.append(len(counted.seeds))
        rows.append(
            (
                card.label,
                *(three_digits(estimates[what]) for what in ("median", "median_of_right", "mean")),
                *(_count(estimates[what]) for what in ("already_wrong", "not_found", "quarantined", "gradients")),
                str(len(counted.seeds)),
            )
        )
    if not rows:
        return None
    spread = "Mean ± SEM over seeds (ddof 1). " if max(seeds) > 1 else ""
    return Table(
        caption=f"Smallest {NORMS[norm]} perturbation that fools a network, {UNIT.get(norm, 'pixels in [0, 1]')}, over "
        f"{range_phrase(images)} test images; each was checked again at another batch size. In the median over all "
        f"images one that is already misclassified counts 0, one that nothing fooled infinity; the mean leaves "
        f"infinity out. {spread}Counts are of images, gradients a mean over them; {seeds_phrase(seeds)}.",
        header=(
            "Condition",
            "Median",
            "Median of those right",
            "Mean",
            "Already wrong",
            "Not found",
            "Quarantined",
            "Gradients an image",
            "Seeds",
        ),
        rows=tuple(rows),
    )


_MEASURES = ("median", "median_of_right", "mean", "already_wrong", "not_found", "quarantined", "gradients")


def perturbation_csv(results: Measurements) -> list[list[str]]:
    """Return perturbations.csv: header, then a row a condition, norm and seed."""
    rows = [["condition", "label", "norm", "seed", "n_images", *_MEASURES]]
    for card in results.conditions:
        for norm in norms_attacked(results):
            measured = {what: curve_of(results.metrics, card.name, f"{what}_{norm}") for what in _MEASURES}
            counted = measured["already_wrong"]
            for seed in counted.seeds:
                values = [dict(curve.by_seed[0]).get(seed) if curve else None for curve in measured.values()]
                cells = ["" if value is None else repr(value) for value in values]
                rows.append([card.name, card.label, norm, str(seed), str(counted.counts[0]), *cells])
    return rows


def three_digits(estimate: Estimate | None) -> str:
    """Write what has no fixed scale, as a length: `0.105 ± 0.005`; one seed as `0.105`."""
    if estimate is None:
        return NOT_MEASURED
    if not np.isfinite(estimate.mean):
        return "∞"
    spread = "" if estimate.sem is None else f" ± {estimate.sem:.2g}"
    return f"{estimate.mean:.3g}{spread}"


def _count(estimate: Estimate | None) -> str:
    return NOT_MEASURED if estimate is None else f"{estimate.mean:.4g}"
