"""What the numbers allow to be said, and no more: neural_model against its controls at the highest noise."""

import math
from dataclasses import dataclass

from neuroprior.experiment.results import RunResults
from neuroprior.report.tables import Estimate, curve_of, minus, noise_curve, percent, plain

CONTROLS = ("none", "shuffle", "blur")
_CLAIM = "neural_model"


@dataclass(frozen=True, slots=True)
class Difference:
    """a - b with Welch's 95 % interval over seeds; `low` and `high` are None where either side has one seed."""

    mean: float
    low: float | None
    high: float | None


def difference(a: Estimate, b: Estimate) -> Difference:
    """Return mean(a) - mean(b) and Welch's interval, t_{0.975, nu} sqrt(sem_a^2 + sem_b^2), nu by Satterthwaite."""
    mean = a.mean - b.mean
    if a.sem is None or b.sem is None:
        return Difference(mean, None, None)
    from scipy.stats import t  # type: ignore[import-untyped]

    variance = a.sem**2 + b.sem**2
    if variance > 0:
        freedom = variance**2 / (a.sem**4 / (a.n - 1) + b.sem**4 / (b.n - 1))
        half = float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    else:
        half = 0.0
    return Difference(mean, mean - half, mean + half)


def verdict(results: RunResults) -> list[str]:
    """Return the "What came out" sentences: each a comparison that was made, or says that it was not."""
    labels = {card.name: card.label for card in results.conditions}
    if _CLAIM not in labels:
        return ["No condition `neural_model` in this run: it cannot speak for or against a neural prior."]
    claim = noise_curve(results, _CLAIM)
    if not claim:
        return [f"{labels[_CLAIM]} has no noise measurement yet, so there is nothing to compare."]
    said = []
    spreads = []
    for control in CONTROLS:
        if control not in labels:
            said.append(f"This run has no {control} control, so nothing can be said against one.")
            continue
        other = noise_curve(results, control)
        shared = sorted(set(claim.x) & set(other.x))
        if not shared:
            said.append(f"{labels[control]} has no measurement at a noise level of {labels[_CLAIM]}'s: not compared.")
            continue
        ours, theirs = claim.at(shared[-1]), other.at(shared[-1])
        assert ours is not None
        assert theirs is not None
        gap = difference(ours, theirs)
        spreads.append(gap.low is not None)
        where = (
            f"at σ = {shared[-1]:g}, {labels[_CLAIM]} reaches {percent(ours)} and {labels[control]} {percent(theirs)}"
        )
        said.append(_sentence(where, gap, ours.n, theirs.n))
        if control == "none" and 0.0 in shared:
            ours, theirs = claim.at(0.0), other.at(0.0)
            assert ours is not None
            assert theirs is not None
            cost = difference(ours, theirs)
            where = f"On clean images, {labels[_CLAIM]} reaches {percent(ours)} and {labels[control]} {percent(theirs)}"
            said.append(_sentence(where, cost, ours.n, theirs.n))
    agreement = [
        f"{labels[name]} r = {plain(found)} (n = {found.n})"
        for name in (_CLAIM, "neural_data", *CONTROLS)
        if name in labels and (found := curve_of(results.metrics, name, "similarity_correlation").only()) is not None
    ]
    if agreement:
        said.append(
            f"Whether the prior took, as agreement of network and brain on held-out stimuli: {', '.join(agreement)}."
        )
    count = min(claim.counts)
    largest_error = 50 / math.sqrt(max(count, 1))  # points; sqrt(p (1 - p) / count) is largest at p = 1/2
    if not spreads:
        return said
    if not all(spreads):
        said.insert(
            0, "No verdict where n = 1 seed: a difference between two networks can be the luck of one training."
        )
        said.append(
            f"Besides, {count:,} test images alone leave a standard error of up to {largest_error:.1f} points in each "
            f"accuracy."
        )
    if any(spreads):
        said.append(
            "Intervals are Welch's 95 % over seeds, not corrected for the number of comparisons, and say nothing of "
            "other images, architectures or training lengths: all networks saw the same test images and noise."
        )
    said = [*_lead(results), *said]
    return [sentence[0].upper() + sentence[1:] for sentence in said]


def _lead(results: RunResults) -> list[str]:
    """Say in one sentence where neural_model's mean stands among the others at the highest noise."""
    curves = {card.name: noise_curve(results, card.name) for card in results.conditions}
    labels = {card.name: card.label for card in results.conditions}
    sigma = curves[_CLAIM].x[-1]
    ours = curves[_CLAIM].at(sigma)
    others = {name: found for name, curve in curves.items() if name != _CLAIM and (found := curve.at(sigma))}
    if ours is None or not others:
        return []
    parts = []
    for word, names in (
        ("more than", [labels[name] for name, other in others.items() if other.mean < ours.mean]),
        ("no more than", [labels[name] for name, other in others.items() if other.mean >= ours.mean]),
    ):
        if names:
            parts.append(f"{word} {', '.join(names[:-1])}{' and ' if names[1:] else ''}{names[-1]}")
    single = " One seed each: this proves nothing yet." if max(ours.n, *(o.n for o in others.values())) == 1 else ""
    return [
        f"In this run, at the highest noise (σ = {sigma:g}), {labels[_CLAIM]} kept {percent(ours)}, "
        f"{'; '.join(parts)}.{single}"
    ]


def _sentence(where: str, gap: Difference, n_ours: int, n_theirs: int) -> str:
    points = 100 * gap.mean
    if gap.low is None or gap.high is None:
        return f"{where}: {minus(f'{points:+.1f}')} points (n = {n_ours} and {n_theirs}, no spread)."
    interval = minus(f"{points:+.1f} points, 95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f}")
    n = f"n = {n_ours} and {n_theirs} seeds"
    if gap.low > 0:
        word = "higher"
    elif gap.high < 0:
        word = "lower"
    else:
        return f"{where}: no clear difference ({interval}; {n})."
    return f"{where}: {word} ({interval}; {n})."
