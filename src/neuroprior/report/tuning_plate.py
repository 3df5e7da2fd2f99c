"""What units prefer, tap by tap: the run to a `Plate`."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from neuroprior.experiment.results import Measurements
from neuroprior.report.drawing import (
    draw_error_bars,
    in_percent,
    legend,
    legend_height,
    name_axes,
    panel,
    set_title,
    words,
)
from neuroprior.report.palette import Look, looks_of
from neuroprior.report.plate import Panel, Plate, seeds_behind, spread_phrase
from neuroprior.report.tables import Estimate, curve_of, range_phrase
from neuroprior.report.tuning import MEASURES, TuningMeasure, tuned_taps

_Line = tuple[str, Look, Sequence[Estimate | None]]


def tuning_plate(results: Measurements) -> Plate:
    """A panel a measure: preferred frequency, share of low-pass units, orientation selectivity, by tap."""
    heading = "What units are tuned to, tap by tap"
    taps, looks = tuned_taps(results), looks_of(results.conditions)
    panels, n, units = [], list[int](), list[int]()
    for measure in (measure for measure in MEASURES if measure.shown):
        lines: list[_Line] = []
        for card in results.conditions:
            curves = [curve_of(results.metrics, card.name, measure.metric, tap) for tap in taps]
            if any(curves):
                lines.append((card.label, looks[card.name], [curve.only() for curve in curves]))
                n += seeds_behind(curves)
                units += [count for curve in curves for count in curve.counts]
        if not lines:
            continue
        told = [f"{label} {', '.join(map(measure.said, estimates))}" for label, _, estimates in lines]
        alt = f"{measure.heading}, at {', '.join(taps)}: {'; '.join(told)}."
        panels.append(Panel(f"tuning-{measure.metric.replace('_', '-')}", _by_tap(taps, lines, measure), alt))
    if not panels:
        return Plate(heading, absent="No unit's tuning is measured.")
    caption = (
        f"Units asked with full-field sine gratings of many frequencies, orientations and phases; median, or share, of "
        f"the units that answer, {range_phrase(units)} a tap, shallow taps left. Low-pass unit: at the lowest "
        f"frequency asked it still answers more than half as much as at its best. Orientation selectivity: 1 − "
        f"circular variance at the preferred frequency, 0 none, 1 one orientation only. {spread_phrase(n, 'bars')}"
    )
    return Plate(heading, tuple(panels), caption)


def _by_tap(taps: Sequence[str], lines: Sequence[_Line], measure: TuningMeasure) -> Figure:
    """A line a condition over the taps, SEM as bars; not side by side, which would tilt one line against another."""
    figure, axes = panel(2.8 + legend_height([label for label, _, _ in lines]))
    for label, look, estimates in lines:
        there = [(float(k), e) for k, e in enumerate(estimates) if e is not None]
        draw_error_bars(axes, there, label, look, joined=True, scale=100.0 if measure.share else 1.0)
    axes.set_xticks(range(len(taps)), [words(tap) for tap in taps])
    if max(map(len, taps), default=0) * len(taps) > 55:
        axes.tick_params(axis="x", rotation=25)
    axes.set_xlim(-0.5, len(taps) - 0.5)
    axes.set_ylim(bottom=0)
    if measure.share:
        in_percent(axes.yaxis)
    set_title(axes, measure.heading.partition(",")[0].partition(" (")[0])
    name_axes(axes, "tap", measure.axis)
    legend(figure, axes)
    return figure
