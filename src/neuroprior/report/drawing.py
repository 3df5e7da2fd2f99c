"""What all drawings share: one panel, its axes and legend, a line with a band, marks with bars.

A drawing turns data into a matplotlib `Figure`: a pure function, no pyplot, no state, no files, one panel a figure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from neuroprior.report.palette import Look
from neuroprior.report.tables import Curve, Estimate
from neuroprior.types import Float64

WIDTH = 5.0  # inches; with 9 point type this stays legible when a phone shrinks it to 330 px
SMALL = 9
INK = "#333333"
GREY = "#888888"
_MANY = 8  # lines; a legend of more is set smaller, so that it still goes into two columns
_GRID = "#dddddd"


@dataclass(frozen=True, slots=True)
class Line:
    """A curve, its words in the legend and how it looks."""

    label: str
    curve: Curve
    look: Look


def panel(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Return an empty figure of one panel, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=SMALL, color=GREY, labelcolor=INK)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def words(text: str) -> str:
    """Keep matplotlib from reading a `$` in somebody's label as the start of a formula."""
    return text.replace("$", r"\$")


def set_title(axes: Axes, title: str) -> None:
    """Name the panel above its left end."""
    axes.set_title(words(title), fontsize=10, color=INK, loc="left")


def in_percent(axis: Axis) -> None:
    """Write the axis' numbers, 0 to 100, as percent: whole ones, which is how they are written."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axis.set_major_formatter(PercentFormatter(decimals=0))


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Say what the axes are, with units."""
    axes.set_xlabel(x, fontsize=SMALL, color=INK)
    axes.set_ylabel(y, fontsize=SMALL, color=INK)


def _columns(labels: Sequence[str]) -> int:
    longest = max(map(len, labels), default=0)
    return 1 if longest > (32 if len(labels) > _MANY else 26) else 2 if longest > 12 else 3


def legend(figure: Figure, axes: Axes) -> None:
    """Set the labels below the panel, in as many columns as they leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        [words(label if len(label) <= 56 else f"{label[:55]}…") for label in labels],
        loc="outside lower center",
        ncols=_columns(labels),
        fontsize=8 if len(labels) > _MANY else SMALL,
        frameon=False,
        handlelength=3,
        columnspacing=1.2,
    )


def legend_height(labels: Sequence[str]) -> float:
    """Return the inches that `legend` takes for these labels."""
    return 0.2 * math.ceil(len(labels) / _columns(labels))


def arrays(estimates: Sequence[Estimate]) -> tuple[Float64[np.ndarray, " x"], Float64[np.ndarray, " x"]]:
    """Return means and SEMs, nan where there is one seed."""
    means = np.array([estimate.mean for estimate in estimates], dtype=np.float64)
    sems = np.array([math.nan if e.sem is None else e.sem for e in estimates], dtype=np.float64)
    return means, sems


def draw_line(axes: Axes, line: Line, *, markers: bool, scale: float = 1.0) -> None:
    """Draw mean times `scale` with a band of ± SEM; markers on every x, else on a lone one."""
    x = np.array(line.curve.x)
    mean, sem = arrays(line.curve.estimates)
    mean, sem = scale * mean, scale * sem
    if np.isfinite(sem).any():  # one seed draws no band at all
        axes.fill_between(x, mean - sem, mean + sem, color=line.look.color, alpha=0.2, linewidth=0)
    axes.plot(
        x,
        mean,
        color=line.look.color,
        linestyle=line.look.line,
        marker=line.look.marker if markers or len(x) == 1 else None,
        markerfacecolor=line.look.face,
        markersize=4,
        linewidth=1.5,
        label=line.label,
    )


def mark_chance(axes: Axes, chance: float) -> None:
    """Draw the level of chance, 0 to 1, as a dotted line on an axis of percent, named beside the axes."""
    axes.axhline(100 * chance, color=GREY, linewidth=1, linestyle=":")
    axes.annotate(
        "chance",
        (1.0, 100 * chance),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),  # beside the axes: curves that end at chance would run through it
        textcoords="offset points",
        va="center",
        fontsize=8,
        color="#666666",
    )


def draw_error_bars(
    axes: Axes,
    marks: Sequence[tuple[float, Estimate]],
    label: str,
    look: Look,
    *,
    joined: bool,
    scale: float = 1.0,
    bar_width: float = 1.0,
) -> None:
    """Draw mean times `scale` at each x with a bar of ± SEM; `joined` by the look's line."""
    mean, sem = arrays([estimate for _, estimate in marks])
    axes.errorbar(
        [x for x, _ in marks],
        scale * mean,
        yerr=scale * sem if np.isfinite(sem).any() else None,
        color=look.color,
        marker=look.marker,
        markerfacecolor=look.face,
        markersize=5,
        linestyle=look.line if joined else "none",
        linewidth=1.5,
        elinewidth=bar_width,
        label=label,
    )
