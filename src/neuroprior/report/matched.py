"""Robustness at matched clean accuracy, seed by seed: what a condition keeps beyond a blur that costs as much."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuroprior.experiment.results import ConditionCard, RunResults
from neuroprior.report.paired import PairedDifference, paired_difference
from neuroprior.report.sweep import blur_row
from neuroprior.report.tables import NOT_MEASURED, Curve, Table, minus, noise_curve, shown_levels
from neuroprior.report.tradeoff import on_hull, upper_hull


@dataclass(frozen=True, slots=True)
class Gain:
    """Accuracy at noise `sigma` beyond the line's at the same clean accuracy, paired over the seeds inside its range.

    `below`, `above`: how many seeds have a clean accuracy below or above the line's range, and are left out.
    """

    card: ConditionCard
    sigma: float
    gain: PairedDifference | None
    below: int
    above: int


def expected_at(line: Sequence[tuple[float, float]], clean: float) -> float | None:
    """Return the noisy accuracy that the line gives at this clean accuracy; None outside its range.

    `line`: (clean, noisy) of `none` and the blurs of one seed; where it bends down, its upper concave hull counts.
    """
    return on_hull(upper_hull(line), clean)


def gains(results: RunResults) -> list[Gain]:
    """Return a value a condition off the line and shown noise level, in the run's order; none without a blur."""
    on_line = {card.name: noise_curve(results, card.name) for card in blur_row(results)}
    if "none" not in on_line or len(on_line) < 2:
        return []
    others = [card for card in results.conditions if card.name not in on_line]
    curves = [(card, curve) for card in others if (curve := noise_curve(results, card.name))]
    return [_gain(card, curve, on_line, sigma) for card, curve in curves for sigma in shown_levels(results)]


def _gain(card: ConditionCard, curve: Curve, on_line: Mapping[str, Curve], sigma: float) -> Gain:
    clean, noisy = curve.seeds_at(0.0), curve.seeds_at(sigma)
    expected: dict[int, float] = {}
    below = above = 0
    for seed in sorted(set(clean) & set(noisy)):
        points = [(one.seeds_at(0.0).get(seed), one.seeds_at(sigma).get(seed)) for one in on_line.values()]
        line = [(x, y) for x, y in points if x is not None and y is not None]
        if len(line) < 2:
            continue
        height = expected_at(line, clean[seed])
        if height is not None:
            expected[seed] = height
        elif clean[seed] < min(x for x, _ in line):
            below += 1
        else:
            above += 1
    return Gain(card, sigma, paired_difference(noisy, expected), below, above)


def matched_table(results: RunResults) -> Table | None:
    """Return the gains in points, a row a condition and a column a noise level; None where nothing can be matched."""
    found = gains(results)
    if not any(one.gain is not None or one.below or one.above for one in found):
        return None
    levels = sorted({one.sigma for one in found})
    names = [card.label for card in blur_row(results)]
    seeds = [one.gain.n for one in found if one.gain is not None]
    n = f"n = {_range(seeds)} seed{'' if max(seeds) == 1 else 's'} inside it" if seeds else "no seed is inside it"
    spread = "in brackets the paired 95 % t interval" if max(seeds, default=0) > 1 else "one seed has no interval"
    by_card: dict[str, list[Gain]] = {}
    for one in found:
        by_card.setdefault(one.card.label, []).append(one)
    return Table(
        caption=f"Accuracy with noise minus what is expected at matched clean accuracy, in points; 0: no better than a "
        f"blur that costs as much. Expected: of the same seed, the line through (clean, noisy) of {', '.join(names)}, "
        f"straight between neighbours, its upper concave hull where it bends down (which favours blur), read at the "
        f"condition's own clean accuracy. Mean over seeds, {spread}; {n}. Nothing is extrapolated: a seed whose clean "
        f"accuracy is below or above the line's range is left out and counted. Not corrected for the number of "
        f"comparisons, and the line's own error is that of its networks.",
        header=("Condition", *(f"σ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{x:g}, points" for x in levels)),
        rows=tuple((label, *(_cell(one) for one in row)) for label, row in by_card.items()),
    )


def _range(n: Sequence[int]) -> str:
    return str(min(n)) if min(n) == max(n) else f"{min(n)} to {max(n)}"


def _cell(one: Gain) -> str:
    outside = [f"{count} {where}" for count, where in ((one.below, "below"), (one.above, "above")) if count]
    said = f"outside the range ({', '.join(outside)})" if outside else NOT_MEASURED
    if one.gain is None:
        return said
    if not math.isfinite(one.gain.mean):
        return "not finite"
    text = minus(f"{100 * one.gain.mean:+z.1f}")
    if one.gain.low is not None and one.gain.high is not None:
        text += minus(f" [{100 * one.gain.low:+z.1f},\N{NO-BREAK SPACE}{100 * one.gain.high:+z.1f}]")
    return f"{text} (n = {one.gain.n}; {', '.join(outside)})" if outside else text


def matched_csv(results: RunResults) -> list[list[str]]:
    """Return matched.csv: header, then a row a condition and noise level; no number where no seed is in range."""
    names = ["gain_mean", "ci95_low", "ci95_high", "n_seeds", "n_seeds_below_range", "n_seeds_above_range"]
    rows = [["condition", "label", "sigma", *names]]
    for one in gains(results):
        gain = one.gain
        numbers = [None, None, None, 0] if gain is None else [gain.mean, gain.low, gain.high, gain.n]
        cells = ["" if number is None else repr(number) for number in numbers]
        rows.append([one.card.name, one.card.label, repr(one.sigma), *cells, str(one.below), str(one.above)])
    return rows
