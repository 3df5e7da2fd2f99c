"""Robustness at matched clean accuracy: every condition against what the plain controls give for the same cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from neuroprior.experiment.results import ConditionCard, Measurements
from neuroprior.report.tables import (
    NOT_MEASURED,
    Estimate,
    Table,
    minus,
    noise_curve,
    over_seeds,
    percent,
    seeds_phrase,
    shown_levels,
)


@dataclass(frozen=True, slots=True)
class TradeoffPoint:
    """One condition: accuracy on clean images and at one noise level, over the seeds that have both.

    `frontier` is the plain controls' accuracy at the same clean accuracy; None outside the range of theirs.
    """

    card: ConditionCard
    clean: Estimate
    noisy: Estimate
    by_seed: tuple[tuple[float, float], ...]
    frontier: float | None


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """The points at noise `sigma` and the plain controls' frontier: vertices (clean, noisy), clean ascending."""

    sigma: float
    points: tuple[TradeoffPoint, ...]
    hull: tuple[tuple[float, float], ...]


def upper_hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the vertices of the least concave function on or above every (x, y), x ascending (monotone chain)."""
    hull: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if hull and hull[-1][0] == x:  # sorted: the later one of two above each other is the higher
            hull.pop()
        while len(hull) > 1 and _cross(hull[-2], hull[-1], (x, y)) >= 0:
            hull.pop()
        hull.append((x, y))
    return hull


def _cross(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def on_hull(hull: Sequence[tuple[float, float]], x: float) -> float | None:
    """Return the hull's height at x, linear between neighbouring vertices; None outside its range."""
    for (x0, y0), (x1, y1) in zip(hull, [*hull[1:], *hull[-1:]], strict=True):
        if x == x0:
            return y0
        if x0 < x < x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return None


def main_level(results: Measurements) -> float | None:
    """Return the largest of the recipe's shown noise levels that was measured, else the largest of `shown_levels`."""
    nearest = shown_levels(results)
    measured = [sigma for sigma in nearest if any(math.isclose(sigma, s, abs_tol=1e-9) for s in results.shown_levels)]
    return max(measured or nearest, default=None)


def tradeoff(results: Measurements) -> Tradeoff | None:
    """Return the conditions that have clean and noisy accuracy; None where no condition has both."""
    sigma = main_level(results)
    if sigma is None:
        return None
    found = []
    for card in results.conditions:
        curve = noise_curve(results, card.name)
        clean, noisy = curve.seeds_at(0.0), curve.seeds_at(sigma)
        pairs = tuple((clean[seed], noisy[seed]) for seed in sorted(set(clean) & set(noisy)))
        if pairs:
            estimates = over_seeds([x for x, _ in pairs]), over_seeds([y for _, y in pairs])
            found.append((card, *estimates, pairs))
    hull = upper_hull([(clean.mean, noisy.mean) for card, clean, noisy, _ in found if card.plain])
    points = [TradeoffPoint(*point, on_hull(hull, point[1].mean)) for point in found]
    return Tradeoff(sigma, tuple(points), tuple(hull)) if points else None


def frontier_sentence(found: Tradeoff) -> str:
    """Say exactly what is interpolated."""
    labels = [point.card.label for point in found.points if point.card.plain]
    if len(found.hull) < 2:
        return "There is no frontier: fewer than two plain controls differ in clean accuracy."
    return (
        f"The frontier is the upper concave hull of the plain controls' means (clean, noisy), straight between "
        f"neighbouring vertices, over {', '.join(labels)}; nothing is extrapolated, and none of these is above it."
    )


def tradeoff_table(results: Measurements) -> Table | None:
    """Return noise accuracy beside the frontier's at the same clean accuracy; None where there are no two points."""
    found = tradeoff(results)
    if found is None or len(found.points) < 2:
        return None
    n = [point.noisy.n for point in found.points]
    sems = "Mean ± SEM over seeds (ddof 1), " if max(n) > 1 else ""
    rows = []
    for point in found.points:
        gap = _gap(point)
        rows.append(
            (
                point.card.label,
                percent(point.clean, ""),
                percent(point.noisy, ""),
                NOT_MEASURED if point.frontier is None else f"{100 * point.frontier:.1f}",
                NOT_MEASURED if gap is None else minus(f"{100 * gap:+z.1f}"),
            )
        )
    return Table(
        caption=f"Accuracy in %, noise at σ = {found.sigma:g}. {sems}{seeds_phrase(n)}. {frontier_sentence(found)} The "
        f"frontier is made of means and has no interval here. A dash: outside its range.",
        header=("Condition", "Clean", "With noise", "Frontier there", "Difference, points"),
        rows=tuple(rows),
    )


def _gap(point: TradeoffPoint) -> float | None:
    return None if point.frontier is None else point.noisy.mean - point.frontier


def tradeoff_csv(results: Measurements) -> list[list[str]]:
    """Return tradeoff.csv: header, then a row a condition; empty where the frontier does not reach."""
    names = ["clean_mean", "clean_sem", "noisy_mean", "noisy_sem", "frontier_noisy", "difference"]
    rows = [["condition", "label", "sigma", "in_frontier_set", "n_seeds", *names]]
    found = tradeoff(results)
    for point in found.points if found else ():
        numbers = [point.clean.mean, point.clean.sem, point.noisy.mean, point.noisy.sem, point.frontier, _gap(point)]
        assert found is not None
        rows.append(
            [point.card.name, point.card.label, repr(found.sigma), str(int(point.card.plain)), str(point.noisy.n)]
            + ["" if number is None else repr(number) for number in numbers]
        )
    return rows
