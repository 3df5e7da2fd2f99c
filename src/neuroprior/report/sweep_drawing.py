"""Accuracy against alpha: estimates to a matplotlib `Figure`."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from neuroprior.report.drawing import draw_error_bars, in_percent, legend, legend_height, name_axes, panel
from neuroprior.report.palette import Look
from neuroprior.report.tables import Estimate


def against_alpha(alphas: Sequence[float], lines: Sequence[tuple[str, Look, Sequence[Estimate | None]]]) -> Figure:
    """Accuracy against alpha, a line a base with SEM bars; alphas stand at equal distances, whatever they are."""
    figure, axes = panel(2.8 + legend_height([label for label, _, _ in lines]))
    for label, look, estimates in lines:
        there = [(float(k), estimate) for k, estimate in enumerate(estimates) if estimate is not None]
        draw_error_bars(axes, there, label, look, joined=True, scale=100.0)
    axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    axes.set_ylim(bottom=0)
    in_percent(axes.yaxis)
    name_axes(axes, "α (0: trained on the task alone)", "test accuracy")
    legend(figure, axes)
    return figure
