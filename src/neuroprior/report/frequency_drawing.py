"""Accuracy, hybrids and perturbations against spatial frequency: curves to matplotlib `Figure`s."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuroprior.report.drawing import (
    GREY,
    INK,
    Line,
    arrays,
    draw_line,
    in_percent,
    legend,
    legend_height,
    mark_chance,
    name_axes,
    panel,
    set_title,
)
from neuroprior.report.tables import Estimate


def against_cutoff(lines: Sequence[Line], title: str, chance: float | None) -> Figure:
    """Accuracy on images of one band against its cutoff."""
    figure, axes = panel(2.8 + legend_height([line.label for line in lines]))
    for line in lines:
        draw_line(axes, line, markers=True, scale=100.0)
    if chance is not None:
        mark_chance(axes, chance)
    axes.set_ylim(bottom=0)
    in_percent(axes.yaxis)
    set_title(axes, title)
    name_axes(axes, "cutoff (cycles per image)", "test accuracy")
    legend(figure, axes)
    return figure


def hybrid_difference(lines: Sequence[Line], crossovers: Sequence[Estimate | None]) -> Figure:
    """Share naming the low image less share naming the high one, against the cutoff; a mark at each crossover."""
    figure, axes = panel(3.2 + legend_height([line.label for line in lines]))
    axes.axhline(0, color=GREY, linewidth=0.8)
    for line, crossover in zip(lines, crossovers, strict=True):
        _draw_marked(axes, line, None if crossover is None else (crossover, 0.0))
    axes.set_ylim(-105, 105)
    in_percent(axes.yaxis)
    for x, y, said in ((0.01, 1.0, "low image named"), (0.99, 0.0, "high image named")):
        axes.annotate(
            said,
            (x, y),
            xycoords="axes fraction",
            ha="left" if x < 0.5 else "right",
            va="top" if y > 0.5 else "bottom",
            fontsize=8,
            color=INK,
        )
    set_title(axes, "Hybrid images")
    name_axes(axes, "cutoff (cycles per image)", "answers: low − high image")
    legend(figure, axes)
    return figure


def radial_shares(lines: Sequence[Line], half_powers: Sequence[Estimate | None], title: str) -> Figure:
    """Share of the perturbations' power in each ring; a mark on a curve where half of the power lies below."""
    figure, axes = panel(2.8 + legend_height([line.label for line in lines]))
    for line, half in zip(lines, half_powers, strict=True):
        mean, _ = arrays(line.curve.estimates)
        mark = None if half is None else (half, 100 * float(np.interp(half.mean, line.curve.x, mean)))
        _draw_marked(axes, line, mark)
    axes.set_ylim(bottom=0)
    in_percent(axes.yaxis)
    set_title(axes, title)
    name_axes(axes, "radius (cycles per image)", "share of the power")
    legend(figure, axes)
    return figure


def _draw_marked(axes: Axes, line: Line, mark: tuple[Estimate, float] | None) -> None:
    """Draw a curve in percent with one mark, at an x with a bar of ± SEM and a height; the legend has both."""
    draw_line(axes, replace(line, label="_curve"), markers=False, scale=100.0)  # matplotlib leaves out `_` in legends
    look = line.look
    x, y = ([], []) if mark is None else ([mark[0].mean], [mark[1]])
    axes.plot(
        x,
        y,
        color=look.color,
        linestyle=look.line,
        linewidth=1.5,
        marker=look.marker if mark is not None else None,
        markerfacecolor=look.face,
        markersize=6,
        zorder=3,
        label=line.label,
    )
    if mark is not None and mark[0].sem is not None:
        axes.errorbar(
            [mark[0].mean], [mark[1]], xerr=mark[0].sem, color=look.color, linestyle="none", elinewidth=1.2, zorder=3
        )


def difference(low: Line, high: Line) -> Line:
    """low - high, seed by seed, where both were measured."""
    x, by_seed, counts = [], [], []
    for at, values, count in zip(low.curve.x, low.curve.by_seed, low.curve.counts, strict=True):
        other = high.curve.seeds_at(at)
        both = {seed: value - other[seed] for seed, value in values.items() if seed in other}
        if both:
            x.append(at)
            by_seed.append(both)
            counts.append(count)
    return replace(low, curve=replace(low.curve, x=tuple(x), by_seed=tuple(by_seed), counts=tuple(counts)))
