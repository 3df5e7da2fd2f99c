"""Losses, accuracy and gamma over epochs, and what came of them tap by tap: curves to matplotlib `Figure`s."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuroprior.report.drawing import (
    GREY,
    Line,
    arrays,
    draw_error_bars,
    draw_line,
    in_percent,
    legend,
    legend_height,
    name_axes,
    panel,
    set_title,
    words,
)
from neuroprior.report.palette import Look
from neuroprior.report.tables import Curve, Estimate


def over_epochs(lines: Sequence[Line], y: str, *, as_percent: bool = False) -> Figure:
    """One quantity against the epoch, a line a condition."""
    figure, axes = panel(2.5 + legend_height([line.label for line in lines]))
    for line in lines:
        draw_line(axes, line, markers=False, scale=100.0 if as_percent else 1.0)
    if as_percent:
        in_percent(axes.yaxis)
    _count_epochs(axes, lines)
    name_axes(axes, "epoch", y)
    legend(figure, axes)
    return figure


def gamma_over_epochs(title: str, curves: Mapping[str, Curve]) -> Figure:
    """Layer mix gamma against the epoch: every seed as a thin line (the mean hides a collapse), the mean thick."""
    lines = [Line(tap, curve, look) for (tap, curve), look in zip(curves.items(), tap_looks([*curves]), strict=True)]
    figure, axes = panel(2.5 + legend_height([line.label for line in lines]))
    for line in lines:
        if len(line.curve.seeds) > 1:
            for seed in line.curve.seeds:
                y = [values.get(seed, math.nan) for values in line.curve.by_seed]
                axes.plot(line.curve.x, y, color=line.look.color, linewidth=0.6, alpha=0.7)
        mean, _ = arrays(line.curve.estimates)
        axes.plot(
            line.curve.x,
            mean,
            color=line.look.color,
            linestyle=line.look.line,
            marker=line.look.marker,
            markevery=max(1, len(mean) // 8),
            markersize=4,
            linewidth=1.8,
            label=line.label,
        )
    axes.set_ylim(-0.03, 1.03)
    set_title(axes, title)
    _count_epochs(axes, lines)
    name_axes(axes, "epoch", "γ (share of the tap)")
    legend(figure, axes)
    return figure


def _count_epochs(axes: Axes, lines: Sequence[Line]) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    epochs = {x for line in lines for x in line.curve.x}
    if len(epochs) == 1:
        only = epochs.pop()
        axes.set_xlim(only - 1, only + 1)


def tap_looks(taps: Sequence[str]) -> list[Look]:
    """Give the taps, shallow to deep, an ordered colour scale (dark to light) and markers of their own."""
    markers, styles = "osD^vPX", ("-", "--", "-.", ":")
    shades = colormaps["viridis"](np.linspace(0.0, 0.88, max(len(taps), 2)))
    return [Look(to_hex(shades[k]), markers[k % 7], styles[k % 4]) for k in range(len(taps))]


def correlation_per_tap(taps: Sequence[str], lines: Sequence[tuple[str, Look, Sequence[Estimate | None]]]) -> Figure:
    """Held-out correlation of S_cnn and target a tap, a marker a condition side by side, SEM as bars."""
    figure, axes = panel(2.8 + legend_height([label for label, _, _ in lines]))
    half = min(0.38, 0.06 * len(lines))
    spread = np.linspace(-half, half, len(lines)) if len(lines) > 1 else np.zeros(1)
    for offset, (label, look, estimates) in zip(spread, lines, strict=True):
        there = [(k + float(offset), e) for k, e in enumerate(estimates) if e is not None]
        draw_error_bars(axes, there, label, look, joined=False, bar_width=1.2)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xticks(range(len(taps)), [words(tap) for tap in taps])
    if max(map(len, taps), default=0) * len(taps) > 55:
        axes.tick_params(axis="x", rotation=25)
    axes.set_xlim(-0.5, len(taps) - 0.5)
    name_axes(axes, "tap", "held-out similarity r")
    legend(figure, axes)
    return figure
