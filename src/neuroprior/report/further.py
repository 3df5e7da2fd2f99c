"""Measures that a run may or may not have: accuracy under attack and other noise, few-shot, a linear probe's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow.compute as pc

from neuroprior.experiment.results import Measurements, RunResults
from neuroprior.report.sweep import recipe_of
from neuroprior.report.tables import Estimate, Table, csv_cells, curve_of, percent, range_phrase, seeds_phrase, taps_of


@dataclass(frozen=True, slots=True)
class Measure:
    """An accuracy of `metrics.parquet`: `what` says it, `x` names the axis (none for a single number), `of` its n."""

    metric: str
    heading: str
    what: str
    x: str | None
    of: str
    column: Callable[[float], str]


ATTACK = Measure(
    "linf_accuracy",
    "Accuracy under attack as a table",
    "after projected gradient ascent moved each pixel by at most ε",
    "radius",
    "test images",
    lambda x: f"ε\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{x:.3g}",
)
UNIFORM = Measure(
    "uniform_noise_accuracy",
    "Accuracy under uniform noise",
    "with uniform noise of standard deviation σ added to the pixels",
    "sigma",
    "test images",
    lambda x: f"σ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{x:.3g}",
)
SALT_AND_PEPPER = Measure(
    "salt_and_pepper_noise_accuracy",
    "Accuracy under salt and pepper",
    "with a share p of the pixels black or white",
    "share",
    "test images",
    lambda x: f"p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{x:.3g}",
)
FEW_SHOT = Measure(
    "few_shot_accuracy",
    "Few-shot accuracy",
    "where the nearest class mean of a few labelled images' features decides",
    "shots",
    "episodes",
    lambda x: f"{x:g}\N{NO-BREAK SPACE}shot{'' if x == 1 else 's'}",
)
LINEAR_PROBE = Measure(
    "linear_probe_accuracy",
    "Linear probe",
    "of a linear classifier trained on the network's features",
    None,
    "test images",
    lambda x: "Accuracy",
)
ATTACKED = tuple(
    Measure(
        f"attacked_accuracy_{norm}",
        f"Accuracy under an ensemble of attacks ({said})",
        f"after attacks of AutoAttack's kinds, one after the other, looked for a misclassified image within an {said} "
        f"radius ε, verified (an upper bound of what stronger ones would leave)",
        "radius",
        "test images",
        column,
    )
    for norm, said, column in (
        ("linf", "L∞", lambda x: f"ε\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{_of_255(x)}"),
        ("l2", "L2", lambda x: f"ε\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{x:.3g}"),
    )
)
"""Of the ensemble of attacks, a measure a norm."""


_STRENGTHS = {
    "quick": "Strength: quick, with fewer steps than AutoAttack and no attack without gradients.",
    "standard": "Strength: standard, AutoAttack's.",
}


def ensemble_table(results: RunResults, measure: Measure) -> Table | None:
    """Return the table of one of `ATTACKED`; its caption says the strength, and what was wrong or did not hold."""
    table = measure_table(results, measure)
    if table is None:
        return None
    norm = measure.metric.removeprefix("attacked_accuracy_")
    said = [_STRENGTHS.get((recipe_of(results).get("ensemble") or {}).get("strength", ""), "")]
    for metric, phrase in (
        (f"attacked_already_wrong_{norm}", "Misclassified before any attack, of each network's images: {}."),
        (f"attacked_failed_checks_{norm}", "Adversarials that did not hold when checked again, and do not count: {}."),
    ):
        rows = results.metrics.filter(pc.field("metric") == metric)
        if rows.num_rows:
            values = [round(value) for value in rows["value"].to_pylist()]
            said.append(phrase.format(range_phrase(values)))
    return replace(table, caption=" ".join([table.caption, *filter(None, said)]))


def _of_255(x: float) -> str:
    """Write whole levels of eight bits as such: `8/255`."""
    levels = round(255 * x)
    return f"{levels}/255" if levels and abs(255 * x - levels) < 0.005 else f"{x:.3g}"


def measure_table(results: Measurements, measure: Measure) -> Table | None:
    """Return a row a condition and a column an x; None where nothing of it was measured."""
    curves = [
        (card, curve) for card in results.conditions if (curve := curve_of(results.metrics, card.name, measure.metric))
    ]
    if not curves:
        return None
    columns: Mapping[float | None, str] = {
        _key(measure, x): measure.column(x) for x in sorted({x for _, curve in curves for x in curve.x})
    }
    rows = []
    for card, curve in curves:
        found: Mapping[float | None, Estimate] = {
            _key(measure, x): estimate for x, estimate in zip(curve.x, curve.estimates, strict=True)
        }
        rows.append((card.label, *(percent(found.get(key), "") for key in columns), str(len(curve.seeds))))
    n = [estimate.n for _, curve in curves for estimate in curve.estimates]
    counts = [count for _, curve in curves for count in curve.counts]
    spread = ", mean ± SEM over seeds (ddof 1)" if max(n) > 1 else ""
    return Table(
        caption=f"Accuracy in % {measure.what}, on {range_phrase(counts)} {measure.of}{spread}; {seeds_phrase(n)}.",
        header=("Condition", *columns.values(), "Seeds"),
        rows=tuple(rows),
    )


def _key(measure: Measure, x: float) -> float | None:
    """A single number's x is nan, which equals nothing, itself included."""
    return None if measure.x is None else x


def long_csv(
    results: Measurements, metrics: Sequence[str], axis: str, counted: str, *, by_tap: bool = False
) -> list[list[str]]:
    """Return a CSV of several metrics: header, then a row a condition, metric (tap) and x; an empty x where is none.

    `axis` names x, `counted` what n counts.
    """
    tap_column = ["tap"] if by_tap else []
    rows = [["condition", "label", "measure", *tap_column, axis, "mean", "sem", "n_seeds", f"n_{counted}"]]
    for card in results.conditions:
        for metric in metrics:
            taps = taps_of(results.metrics, card.name, metric) if by_tap else (None,)
            for tap in taps:
                curve = curve_of(results.metrics, card.name, metric, tap)
                for x, estimate, count in zip(curve.x, curve.estimates, curve.counts, strict=True):
                    at = "" if math.isnan(x) else repr(x)
                    named = [card.name, card.label, metric, *([] if tap is None else [tap])]
                    rows.append([*named, at, *csv_cells(estimate), str(count)])
    return rows


def with_n(text: str, estimate: Estimate | None, seeds: int) -> str:
    """Add n to a cell that fewer seeds are behind than behind its row."""
    return text if estimate is None or estimate.n == seeds else f"{text} (n = {estimate.n})"


def measure_csv(results: Measurements, measure: Measure) -> list[list[str]]:
    """Return the measure's CSV: header, then a row a condition and x; an empty SEM for one seed."""
    axis = [] if measure.x is None else [measure.x]
    rows: list[list[str]] = [
        ["condition", "label", *axis, "accuracy_mean", "accuracy_sem", "n_seeds", f"n_{measure.of.replace(' ', '_')}"]
    ]
    for card in results.conditions:
        curve = curve_of(results.metrics, card.name, measure.metric)
        for x, estimate, count in zip(curve.x, curve.estimates, curve.counts, strict=True):
            at: Sequence[str] = [] if measure.x is None else [repr(x)]
            sem = "" if estimate.sem is None else repr(estimate.sem)
            rows.append([card.name, card.label, *at, repr(estimate.mean), sem, str(estimate.n), str(count)])
    return rows
