"""Conditions that differ in alpha alone: the paper's Figure 6 and Table 1."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from neuroprior.experiment.results import ConditionCard, RunResults
from neuroprior.report.tables import NOT_MEASURED, Table, curve_of, seeds_phrase, taps_of


@dataclass(frozen=True, slots=True)
class Series:
    """One condition at several alphas, ascending; all else is the same.

    `label` is theirs without the alpha; `head` the one that does not name its alpha, else the first of them.
    """

    label: str
    head: ConditionCard
    alphas: tuple[float, ...]
    cards: tuple[ConditionCard, ...]


def alpha_series(results: RunResults) -> list[Series]:
    """Return every condition that the run has at two alphas or more; of two at one alpha, the first counts."""
    groups: dict[tuple[object, ...], dict[float, ConditionCard]] = {}
    for card in results.conditions:
        if card.alpha is not None:
            rest = sorted((key, repr(value)) for key, value in dict(card.options).items() if key != "alpha")
            groups.setdefault((card.base, card.adversarial, *rest), {}).setdefault(card.alpha, card)
    return [_series(cards) for cards in groups.values() if len(cards) > 1]


def _series(cards: Mapping[float, ConditionCard]) -> Series:
    alphas = tuple(sorted(cards))
    ordered = tuple(cards[alpha] for alpha in alphas)
    labels = [card.label.replace(f" α {dict(card.options).get('alpha')}", "") for card in ordered]
    heads = [card for card, label in zip(ordered, labels, strict=True) if card.label == label]
    return Series(labels[0], (heads or ordered)[0], alphas, ordered)


def blur_row(results: RunResults) -> list[ConditionCard]:
    """Return `none` and the blurs in order of the blur's sigma: the line that a condition must rise above."""
    usual = recipe_of(results).get("blur_sigma", 1.0)
    sigmas = [(0.0, card) for card in results.conditions if card.name == "none"]
    sigmas += [
        (float(dict(card.options).get("sigma", usual)), card)
        for card in results.conditions
        if card.base == "blur" and not card.adversarial
    ]
    return [card for _, card in sorted(sigmas, key=lambda pair: pair[0])]


def recipe_of(results: RunResults) -> Mapping[str, Any]:
    """Return the run's recipe as a mapping, every value spelt out; empty where it is none."""
    recipe = yaml.safe_load(results.recipe_yaml)
    return recipe if isinstance(recipe, dict) else {}


def gamma_table(results: RunResults) -> Table | None:
    """Return the final gamma of every tap at every alpha (Table 1); None without a sweep or without a gamma."""
    metrics, series = results.metrics, alpha_series(results)
    own = [dict.fromkeys(tap for card in one.cards for tap in taps_of(metrics, card.name, "gamma")) for one in series]
    taps = dict.fromkeys(tap for some in own for tap in some)
    if not taps:
        return None
    rows, n = [], []
    for one in itertools.compress(series, own):
        for alpha, card in zip(one.alphas, one.cards, strict=True):
            curves = [curve_of(metrics, card.name, "gamma", tap) for tap in taps]
            last = [curve.estimates[-1] if curve else None for curve in curves]
            seeds = sorted({estimate.n for estimate in last if estimate is not None})
            shares = [NOT_MEASURED if estimate is None else f"{estimate.mean:.2f}" for estimate in last]
            rows.append((one.label, f"{alpha:g}", *shares, " or ".join(map(str, seeds)) or NOT_MEASURED))
            n += seeds
    return Table(
        caption=f"γ = softmax(θ) after the last epoch, mean over seeds: {seeds_phrase(n)}. A mean of .5 can be two "
        f"seeds that chose different layers; the figure of γ shows every seed. A dash: not measured.",
        header=("Condition", "α", *taps, "Seeds"),
        rows=tuple(rows),
    )
