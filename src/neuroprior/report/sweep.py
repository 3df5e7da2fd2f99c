"""Conditions that differ in alpha alone: the paper's Figure 6 and Table 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from neuroprior.experiment.results import ConditionCard, RunResults
from neuroprior.report.naming import parsed
from neuroprior.report.tables import NOT_MEASURED, Table, curve_of, seeds_phrase, taps_of


@dataclass(frozen=True, slots=True)
class Series:
    """One base at several alphas, ascending; all other options are the same. `name` is a condition's, less alpha."""

    name: str
    label: str
    alphas: tuple[float, ...]
    cards: tuple[ConditionCard, ...]


def alpha_series(results: RunResults) -> list[Series]:
    """Return every base that the run has at two alphas or more; a name without `alpha` has the recipe's."""
    usual = _usual_alpha(results)
    groups: dict[str, dict[float, ConditionCard]] = {}
    for card in results.conditions:
        name = parsed(card.name)
        rest = ",".join(f"{key}={value}" for key, value in name.options.items() if key != "alpha")
        alpha = float(name.options["alpha"]) if "alpha" in name.options else usual
        if alpha is not None:
            groups.setdefault(f"{name.base}@{rest}".removesuffix("@"), {})[alpha] = card
    labels = {card.name: card.label for card in results.conditions}
    return [
        Series(name, labels.get(name, name), tuple(sorted(cards)), tuple(cards[alpha] for alpha in sorted(cards)))
        for name, cards in groups.items()
        if len(cards) > 1
    ]


def _usual_alpha(results: RunResults) -> float | None:
    section = recipe_of(results).get("regularizer")
    return float(section["alpha"]) if isinstance(section, dict) and "alpha" in section else None


def blur_row(results: RunResults) -> list[ConditionCard]:
    """Return `none` and the blurs in order of the blur's sigma: the line that a condition must rise above."""
    usual = recipe_of(results).get("blur_sigma", 1.0)
    sigmas: list[tuple[float, ConditionCard]] = []
    for card in results.conditions:
        name = parsed(card.name)
        if card.name == "none":
            sigmas.append((0.0, card))
        elif name.base == "blur":
            sigmas.append((float(name.options.get("sigma", usual)), card))
    return [card for _, card in sorted(sigmas, key=lambda pair: pair[0])]


def recipe_of(results: RunResults) -> Mapping[str, Any]:
    """Return the run's recipe as a mapping, every value spelt out; empty where it is none."""
    recipe = yaml.safe_load(results.recipe_yaml)
    return recipe if isinstance(recipe, dict) else {}


def gamma_table(results: RunResults) -> Table | None:
    """Return the final gamma of every tap at every alpha (Table 1); None without a sweep or without a gamma."""
    series = alpha_series(results)
    names = [card.name for one in series for card in one.cards]
    taps = dict.fromkeys(tap for name in names for tap in taps_of(results.metrics, name, "gamma"))
    if not taps:
        return None
    rows, n = [], []
    for one in series:
        for alpha, card in zip(one.alphas, one.cards, strict=True):
            curves = [curve_of(results.metrics, card.name, "gamma", tap) for tap in taps]
            last = [curve.estimates[-1] if curve else None for curve in curves]
            seeds = {estimate.n for estimate in last if estimate is not None}
            if not seeds:
                continue
            shares = [NOT_MEASURED if estimate is None else f"{estimate.mean:.2f}" for estimate in last]
            rows.append((one.label, f"{alpha:g}", *shares, " or ".join(map(str, sorted(seeds)))))
            n += sorted(seeds)
    return Table(
        caption=f"γ = softmax(θ) after the last epoch, mean over seeds: {seeds_phrase(n)}. A mean of .5 can be two "
        f"seeds that chose different layers; the figure of γ shows every seed.",
        header=("Condition", "α", *taps, "Seeds"),
        rows=tuple(rows),
    )
