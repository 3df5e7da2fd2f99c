"""What the units of each tap are tuned to: numbers and tables of a run."""

from collections.abc import Callable
from dataclasses import dataclass

from neuroprior.experiment.results import Measurements
from neuroprior.report.further import long_csv, with_n
from neuroprior.report.perturbations import three_digits
from neuroprior.report.tables import Estimate, Table, curve_of, percent, range_phrase, seeds_phrase, taps_of


@dataclass(frozen=True, slots=True)
class TuningMeasure:
    """A number a tap: `axis` names it with its unit; `shown`: the figure has a panel of it."""

    metric: str
    heading: str
    axis: str
    said: Callable[[Estimate | None], str]
    of: str = "responsive units"
    share: bool = False
    shown: bool = False


def _share(estimate: Estimate | None) -> str:
    return percent(estimate, "")


MEASURES = (
    TuningMeasure(
        "preferred_frequency",
        "Preferred spatial frequency, median, in cycles per pixel",
        "preferred frequency (cycles/pixel)",
        three_digits,
        shown=True,
    ),
    TuningMeasure("low_pass_units", "Low-pass units, in %", "low-pass units", _share, share=True, shown=True),
    TuningMeasure(
        "orientation_selectivity",
        "Orientation selectivity, median (1 − circular variance)",
        "orientation selectivity",
        three_digits,
        shown=True,
    ),
    TuningMeasure("simple_units", "Simple units (F1/F0 above 1), in %", "simple units", _share, share=True),
    TuningMeasure("responsive_units", "Responsive units, in %", "responsive units", _share, of="units", share=True),
)


def tuned_taps(results: Measurements) -> tuple[str, ...]:
    """The taps whose units were asked, in the network's order."""
    asked = [
        taps_of(results.metrics, card.name, measure.metric)
        for measure in reversed(MEASURES)  # the share of responsive units stands for every tap
        for card in results.conditions
    ]
    return tuple(dict.fromkeys(tap for taps in asked for tap in taps))


def tuning_table(results: Measurements, measure: TuningMeasure) -> Table | None:
    """A row a condition and a column a tap; None where it was not measured."""
    taps = tuned_taps(results)
    rows, n, counts = [], [], []
    for card in results.conditions:
        curves = [curve_of(results.metrics, card.name, measure.metric, tap) for tap in taps]
        if not any(curves):
            continue
        estimates = [curve.only() for curve in curves]
        seeds = max(len(curve.seeds) for curve in curves)
        rows.append((card.label, *(with_n(measure.said(one), one, seeds) for one in estimates), str(seeds)))
        n.append(seeds)
        counts += [count for curve in curves for count in curve.counts]
    if not rows:
        return None
    return Table(
        caption=f"{measure.heading}, over {range_phrase(counts)} {measure.of} a tap. "
        f"{'Mean ± SEM over seeds (ddof 1), ' if max(n) > 1 else ''}{seeds_phrase(n)}. A dash: no unit answered.",
        header=("Condition", *taps, "Seeds"),
        rows=tuple(rows),
    )


def tuning_csv(results: Measurements) -> list[list[str]]:
    """Return tuning.csv: header, then a row a condition, measure and tap."""
    rows = long_csv(results, [measure.metric for measure in MEASURES], "x", "units", by_tap=True)
    unused = rows[0].index("x")  # a single number a tap
    return [[*row[:unused], *row[unused + 1 :]] for row in rows]
