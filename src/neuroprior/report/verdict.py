"""What the numbers allow to be said, and no more: neural_model against its controls at the highest noise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from neuroprior.experiment.results import Measurements
from neuroprior.report.paired import paired_difference, t_quantile
from neuroprior.report.tables import curve_of, minus, noise_curve, over_seeds, percent, plain

CONTROLS = ("none", "shuffle", "blur")
_OPTIONAL_CONTROLS = ("lowpass",)
_CLAIM = "neural_model"


@dataclass(frozen=True, slots=True)
class Difference:
    """a - b with its 95 % interval, `low` and `high` None where there is no spread; `n` says over which seeds."""

    mean: float
    low: float | None
    high: float | None
    n: str
    paired: bool


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """Return a - b, seed to value each: paired over common seeds where two or more are, else Welch's.

    Welch's: mean(a) - mean(b) ± t_{0.975, nu} sqrt(sem_a^2 + sem_b^2), nu by Satterthwaite.
    """
    pairs = paired_difference(a, b)
    if pairs is not None and pairs.n > 1:
        return Difference(pairs.mean, pairs.low, pairs.high, f"n = {pairs.n} seeds, paired", paired=True)
    ours, theirs = over_seeds([*a.values()]), over_seeds([*b.values()])
    mean, n = ours.mean - theirs.mean, f"n = {ours.n} and {theirs.n}"
    if ours.sem is None or theirs.sem is None:
        return Difference(mean, None, None, f"{n}, no spread", paired=False)
    variance = ours.sem**2 + theirs.sem**2
    if variance > 0:
        freedom = variance**2 / (ours.sem**4 / (ours.n - 1) + theirs.sem**4 / (theirs.n - 1))
        half = t_quantile(freedom) * math.sqrt(variance)
    else:
        half = 0.0
    return Difference(mean, mean - half, mean + half, f"{n} seeds", paired=False)


def verdict(results: Measurements) -> list[str]:
    """Return the "What came out" sentences: each a comparison that was made, or says that it was not."""
    labels = {card.name: card.label for card in results.conditions}
    if _CLAIM not in labels:
        if any(card.base == _CLAIM for card in results.conditions):
            return [f"Only variants of `{_CLAIM}` are in this run: the sweep and the paired differences compare them."]
        return [f"No condition `{_CLAIM}` in this run: it cannot speak for or against a neural prior."]
    claim = noise_curve(results, _CLAIM)
    if not claim:
        return [f"{labels[_CLAIM]} has no noise measurement yet, so there is nothing to compare."]
    said = []
    gaps = []
    for control in (*CONTROLS, *(name for name in _OPTIONAL_CONTROLS if name in labels)):
        if control not in labels:
            said.append(f"This run has no {control} control, so nothing can be said against one.")
            continue
        other = noise_curve(results, control)
        shared = sorted(set(claim.x) & set(other.x))
        if not shared:
            said.append(f"{labels[control]} has no measurement at a noise level of {labels[_CLAIM]}'s: not compared.")
            continue
        top = shared[-1]
        gaps.append(gap := difference(claim.seeds_at(top), other.seeds_at(top)))
        reached = f"{labels[_CLAIM]} reaches {percent(claim.at(top))} and {labels[control]} {percent(other.at(top))}"
        said.append(_sentence(f"at σ = {top:g}, {reached}", gap))
        if control == "none" and 0.0 in shared:
            cost = difference(claim.seeds_at(0.0), other.seeds_at(0.0))
            reached = (
                f"{labels[_CLAIM]} reaches {percent(claim.at(0.0))} and {labels[control]} {percent(other.at(0.0))}"
            )
            said.append(_sentence(f"On clean images, {reached}", cost))
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
    if not gaps:
        return said
    if any(gap.low is None for gap in gaps):
        said.insert(
            0, "No verdict where n = 1 seed: a difference between two networks can be the luck of one training."
        )
        said.append(
            f"Besides, {count:,} test images alone leave a standard error of up to {largest_error:.1f} points in each "
            f"accuracy."
        )
    kinds = [
        words
        for words, there in (
            (
                "paired 95 % t intervals over common seeds (one seed is one set of initial weights, one order of "
                "images and one augmentation, whatever the condition)",
                any(gap.paired for gap in gaps),
            ),
            ("Welch's 95 % intervals", any(gap.low is not None and not gap.paired for gap in gaps)),
        )
        if there
    ]
    if kinds:
        said.append(
            f"Intervals are {' or, where fewer than two seeds are common, '.join(kinds)}, not corrected for the number "
            f"of comparisons, and say nothing of other images, architectures or training lengths: all networks saw the "
            f"same test images and noise."
        )
    said = [*_lead(results), *said]
    return [sentence[0].upper() + sentence[1:] for sentence in said]


def _lead(results: Measurements) -> list[str]:
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


def _sentence(where: str, gap: Difference) -> str:
    points = 100 * gap.mean
    if gap.low is None or gap.high is None:
        return f"{where}: {minus(f'{points:+.1f}')} points ({gap.n})."
    interval = minus(f"{points:+.1f} points, 95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f}")
    if gap.low > 0:
        word = "higher"
    elif gap.high < 0:
        word = "lower"
    else:
        return f"{where}: no clear difference ({interval}; {gap.n})."
    return f"{where}: {word} ({interval}; {gap.n})."
