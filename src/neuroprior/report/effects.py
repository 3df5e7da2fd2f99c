"""How large the differences are: neural conditions against every control, bootstrap and t interval side by side."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neuroprior.experiment.results import ConditionCard, Measurements
from neuroprior.report.paired import PairedDifference, paired_difference
from neuroprior.report.tables import NOT_MEASURED, Curve, Table, minus, noise_curve, over_seeds, shown_levels
from neuroprior.types import Float64

REPLICATES = 10_000
_BRAIN = ("neural_model", "neural_data", "user_matrix", "regression")
_LEAST = 3  # seeds; of two, the expected d_z is infinite and its corrected value always 0


@dataclass(frozen=True, slots=True)
class Effect:
    """Accuracy of `card` minus that of `control` at noise `sigma` (0: clean), over the `n` seeds that both have.

    `paired`: the mean difference and its t interval; `bootstrap`: the 95 % interval of `hierarchical_bootstrap`, None
    for one seed; `size`: `effect_size`. `images`: the fewest test images behind one accuracy.
    """

    card: ConditionCard
    control: ConditionCard
    sigma: float
    paired: PairedDifference
    bootstrap: tuple[float, float] | None
    size: float | None
    images: int


def hierarchical_bootstrap(
    a: Float64[np.ndarray, " seed"],
    b: Float64[np.ndarray, " seed"],
    images: int,
    *,
    key: int,
    replicates: int = REPLICATES,
) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of mean_s(d*_s) over replicates.

    In each replicate seeds are drawn with replacement, as many as there are, and each draw's difference is
    d*_s ~ Normal(a_s - b_s, (a_s (1 - a_s) + b_s (1 - b_s)) / images), the binomial error of two accuracies in [0, 1].

    Outcomes of single images are not stored, so the two networks' errors are taken as independent. On the same images
    they go together, which makes the image part too wide for a difference; the part that all seeds share, having the
    same test images, is averaged as if each had its own, which makes it too narrow for other images. Resampling n
    seeds understates their variance by (n - 1) / n and has no t quantile, so it is too narrow for few: where images add
    little, a nominal 95 % covers about 75 % of 3 seeds, 84 % of 5, 90 % of 10. Trust the t interval there. `key` makes
    it reproducible.
    """
    rng = np.random.default_rng(key)
    spread = np.sqrt((a * (1 - a) + b * (1 - b)) / images)
    drawn = rng.integers(len(a), size=(replicates, len(a)))
    means = ((a - b)[drawn] + spread[drawn] * rng.standard_normal(drawn.shape)).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def effect_size(d: Float64[np.ndarray, " seed"]) -> float | None:
    """Return g_z = J(n - 1) mean(d) / s(d), J(m) = Γ(m / 2) / (sqrt(m / 2) Γ((m - 1) / 2)) (Hedges 1981).

    Cohen's d_z of paired differences without its bias. None for fewer than three seeds, or where all d are equal.
    """
    estimate = over_seeds(d.tolist())
    if estimate.n < _LEAST or estimate.sem is None or not estimate.sem > 1e-12:  # what rounding leaves is no spread
        return None
    m = estimate.n - 1
    correction = math.exp(math.lgamma(m / 2) - math.lgamma((m - 1) / 2)) / math.sqrt(m / 2)
    return correction * estimate.mean / (estimate.sem * math.sqrt(estimate.n))


def effects(results: Measurements) -> list[Effect]:
    """Return every neural_model and variant against every condition without a brain, clean and at each shown level."""
    curves = {card.name: noise_curve(results, card.name) for card in results.conditions}
    levels = (0.0, *shown_levels(results))
    pairs = [
        (card, control)
        for card in results.conditions
        if card.base == "neural_model"
        for control in results.conditions
        if control.base not in _BRAIN
    ]
    found = [
        _effect(card, control, curves[card.name], curves[control.name], sigma)
        for card, control in pairs
        for sigma in levels
    ]
    return [one for one in found if one is not None]


def _effect(card: ConditionCard, control: ConditionCard, ours: Curve, theirs: Curve, sigma: float) -> Effect | None:
    a, b = ours.seeds_at(sigma), theirs.seeds_at(sigma)
    paired = paired_difference(a, b)
    if paired is None:
        return None
    images = min(_images(ours, sigma), _images(theirs, sigma))
    if paired.n < 2 or not math.isfinite(paired.mean):
        return Effect(card, control, sigma, paired, None, None, images)
    values = _common(a, b)
    # A key of its own for each comparison: other conditions in the run do not change it.
    named = f"{card.name} | {control.name} | {sigma!r}".encode()
    key = int.from_bytes(hashlib.sha256(named).digest()[:8], "big")
    interval = hierarchical_bootstrap(*values, images, key=key)
    return Effect(card, control, sigma, paired, interval, effect_size(values[0] - values[1]), images)


def _common(
    a: Mapping[int, float], b: Mapping[int, float]
) -> tuple[Float64[np.ndarray, " seed"], Float64[np.ndarray, " seed"]]:
    seeds = sorted(set(a) & set(b))
    return np.array([a[s] for s in seeds], dtype=np.float64), np.array([b[s] for s in seeds], dtype=np.float64)


def _images(curve: Curve, sigma: float) -> int:
    return next(n for x, n in zip(curve.x, curve.counts, strict=True) if math.isclose(x, sigma, abs_tol=1e-9))


def effects_tables(results: Measurements) -> list[tuple[str, Table]]:
    """Return (label of the neural condition, table), one each; none where it shares no seed with a control."""
    by_card: dict[str, list[Effect]] = {}
    for one in effects(results):
        by_card.setdefault(one.card.label, []).append(one)
    return [(label, _table(label, found)) for label, found in by_card.items()]


def _table(label: str, found: list[Effect]) -> Table:
    n = sorted({one.paired.n for one in found})
    seeds = f"n = {n[0]} seed{'' if n[0] == 1 else 's'}" if len(n) == 1 else f"n = {n[0]} to {n[-1]} seeds"
    images = min(one.images for one in found)
    if n[-1] == 1:
        said = f"Accuracy of {label} minus the control's, {seeds}: no interval, no effect size."
    else:
        narrow = " With so few seeds the bootstrap is too narrow; the t interval is the one to trust." * (n[0] < 10)
        said = (
            f"Accuracy of {label} minus the control's, mean over seeds that both have ({seeds}), in points, with two "
            f"95 % intervals. Bootstrap: percentiles of {REPLICATES:,} replicates that draw seeds with replacement and "
            f"for each drawn seed, the image error of both accuracies from a normal approximation of the binomial with "
            f"{images:,} test images, as if independent (outcomes of single images are not stored).{narrow} t: paired, "
            f"n − 1 degrees of freedom. g_z: mean over standard deviation of the paired differences (Cohen's d_z) with "
            f"Hedges' correction; it grows where seeds vary little, and says nothing of how much a difference matters. "
            f"A dash: undefined, for intervals below two seeds, for g_z below three or without spread. Not corrected "
            f"for the number of comparisons."
        )
    body = tuple(
        (
            one.control.label,
            "clean" if one.sigma == 0 else f"{one.sigma:g}",
            _points(one.paired.mean),
            _interval(one.bootstrap),
            _interval(_both_ends(one.paired)),
            NOT_MEASURED if one.size is None else minus(f"{one.size:+z.2f}"),
            str(one.paired.n),
        )
        for one in found
    )
    header = (
        "Against",
        "σ",
        "Difference, points",
        "Bootstrap 95\N{NO-BREAK SPACE}%",
        "t 95\N{NO-BREAK SPACE}%",
        "g_z",
        "Seeds",
    )
    return Table(said, header, body)


def _both_ends(gap: PairedDifference) -> tuple[float, float] | None:
    return None if gap.low is None or gap.high is None else (gap.low, gap.high)


def _points(value: float) -> str:
    return minus(f"{100 * value:+z.1f}") if math.isfinite(value) else "not finite"


def _interval(ends: tuple[float, float] | None) -> str:
    if ends is None or not all(map(math.isfinite, ends)):
        return NOT_MEASURED
    return f"[{_points(ends[0])},\N{NO-BREAK SPACE}{_points(ends[1])}]"


def effects_csv(results: Measurements) -> list[list[str]]:
    """Return effects.csv: header, then a row a condition, control and sigma; empty where it is undefined."""
    names = ["difference_mean", "bootstrap95_low", "bootstrap95_high", "t95_low", "t95_high", "hedges_g_z"]
    rows = [["condition", "control", "sigma", *names, "n_seeds", "n_images"]]
    for one in effects(results):
        numbers = [one.paired.mean, *(one.bootstrap or (None, None)), *(_both_ends(one.paired) or (None, None))]
        cells = ["" if number is None else repr(number) for number in (*numbers, one.size)]
        rows.append([one.card.name, one.control.name, repr(one.sigma), *cells, str(one.paired.n), str(one.images)])
    return rows
