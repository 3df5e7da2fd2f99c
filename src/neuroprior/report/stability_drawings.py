"""Figure 1 C and D: distributions of fluctuations, single trials and others against averages, growth with repeats."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from neuroprior.report.drawing import GREY, legend, legend_height, name_axes, panel, words
from neuroprior.report.palette import LOOKS

_MOST = 3000  # dots
_RANGE = (0.0005, 0.9995)  # quantiles between which distributions are drawn


def fluctuations(values: Sequence[tuple[str, str, np.ndarray]]) -> Figure:
    """Density of each set of differences of S; `values`: label, condition whose look it takes, numbers."""
    figure, axes = panel(2.8 + legend_height([label for label, _, _ in values]))
    low = min(float(np.quantile(numbers, _RANGE[0])) for _, _, numbers in values)
    high = max(float(np.quantile(numbers, _RANGE[1])) for _, _, numbers in values)
    edges = np.linspace(low, max(high, low + 1e-6), 81)
    for label, look, numbers in values:
        density, _ = np.histogram(numbers, bins=edges, density=True)
        axes.stairs(density, edges, color=LOOKS[look].color, linestyle=LOOKS[look].line, linewidth=1.5, label=label)
    name_axes(axes, "difference of S", "density")
    legend(figure, axes)
    return figure


def against_average(
    label: str, look: str, x: np.ndarray, y: np.ndarray, limits: tuple[tuple[float, float], tuple[float, float]]
) -> Figure:
    """S of one kind against Eq. 3, a dot a pair, with the line of identity; `limits` of both axes.

    A figure for each kind: drawn over one another, dense dots hide wide ones.
    """
    figure, axes = panel(3.4, 4.2)
    shown = np.arange(len(x))
    if len(x) > _MOST:
        shown = np.random.default_rng(0).choice(len(x), _MOST, replace=False)
    axes.scatter(x[shown], y[shown], s=5, color=LOOKS[look].color, alpha=0.4, linewidths=0, rasterized=True)
    axes.plot(limits[0], limits[0], color=GREY, linewidth=1, linestyle="--")
    axes.set(xlim=limits[0], ylim=limits[1])
    name_axes(axes, "S, average over trials (Eq. 3)", words(f"S, {label}"))
    return figure


def growth(curves: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> Figure:
    """Correlation with the true similarity against the number of trials of each image, a line and a look a scan."""
    figure, axes = panel(2.6 + legend_height([name for name, _ in curves]))
    for (name, points), look in zip(curves, cycle(LOOKS.values()), strict=False):
        axes.plot(
            *zip(*points, strict=True),
            color=look.color,
            linestyle=look.line,
            marker=look.marker,
            markersize=4,
            linewidth=1.2,
            label=name,
        )
    axes.set_ylim(0, 1)
    name_axes(axes, "trials of each image", "r with the true S")
    legend(figure, axes)
    return figure
