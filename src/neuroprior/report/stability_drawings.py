"""Figure 1 C and D: distributions of fluctuations, single trials against averages, growth with repeats."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from neuroprior.report.drawing import GREY, legend, legend_height, name_axes, panel
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


def against_average(x_name: str, sets: Sequence[tuple[str, str, np.ndarray, np.ndarray]]) -> Figure:
    """Dots of pairs, y against x, one colour a set: label, look, x, y; with the line of identity."""
    figure, axes = panel(3.4 + legend_height([label for label, _, _, _ in sets]), 4.2)
    for label, look, x, y in sets:
        shown = np.arange(len(x))
        if len(x) > _MOST:
            shown = np.random.default_rng(0).choice(len(x), _MOST, replace=False)
        color = LOOKS[look].color
        axes.scatter(x[shown], y[shown], s=5, color=color, alpha=0.4, linewidths=0, rasterized=True)
        axes.scatter([], [], s=30, color=color, label=label)  # what the legend shows
    ends = [min(float(x.min()) for _, _, x, _ in sets), max(float(x.max()) for _, _, x, _ in sets)]
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--")
    name_axes(axes, x_name, "S")
    legend(figure, axes)
    return figure


def growth(curves: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> Figure:
    """Correlation with the true similarity against the number of trials of each image, a line a scan."""
    figure, axes = panel(2.6)
    for _, points in curves:
        axes.plot(*zip(*points, strict=True), color="#0072B2", alpha=0.6, marker="o", markersize=3, linewidth=1.2)
    axes.set_ylim(0, 1)
    name_axes(axes, "trials of each image", "r with the true S")
    return figure
