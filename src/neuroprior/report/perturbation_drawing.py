"""The nearest adversarial against the queries it took: curves to a matplotlib `Figure`."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator

from neuroprior.report.drawing import Line, draw_line, legend, legend_height, name_axes, panel
from neuroprior.robustness.ledger import Count


def descent_curves(lines: Sequence[Line], norm: str, count: Count = "gradients") -> Figure:
    """Length of the best perturbation so far against queries; SEM bands from two seeds on."""
    figure, axes = panel(3.2 + legend_height([line.label for line in lines]))
    for line in lines:
        draw_line(axes, line, markers=False)
    axes.set_xscale("log")
    if min(estimate.mean for line in lines for estimate in line.curve.estimates) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter("")
    else:  # half of some network's images are misclassified as they are
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    unit = "" if norm.startswith("L0") else " (pixels in [0, 1])"
    name_axes(axes, f"{count} of an image", f"median {norm} perturbation{unit}")
    legend(figure, axes)
    return figure
