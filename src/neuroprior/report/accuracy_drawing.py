"""Accuracy against the size of a disturbance: curves to a matplotlib `Figure`."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuroprior.report.drawing import Line, draw_line, in_percent, legend, legend_height, mark_chance, name_axes, panel


def accuracy_curves(lines: Sequence[Line], x: str, chance: float | None) -> Figure:
    """Accuracy against the size of a disturbance, SEM bands from two seeds on, chance as a dotted line."""
    figure, axes = panel(3.2 + legend_height([line.label for line in lines]))
    for line in lines:
        draw_line(axes, line, markers=True, scale=100.0)
    if chance is not None:
        mark_chance(axes, chance)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    in_percent(axes.yaxis)
    name_axes(axes, f"{x} (pixels in [0, 1])", "test accuracy")
    legend(figure, axes)
    return figure
