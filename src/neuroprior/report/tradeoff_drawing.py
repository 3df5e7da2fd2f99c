"""Robustness against clean accuracy: a plane of named points to a matplotlib `Figure`, each name in a free place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, BboxBase

from neuroprior.report.drawing import GREY, INK, in_percent, legend, legend_height, name_axes, panel, words
from neuroprior.report.palette import Look
from neuroprior.report.tables import Estimate
from neuroprior.types import Float64


@dataclass(frozen=True, slots=True)
class Spot:
    """A condition in a plane: `x` and `y` over seeds, and (x, y) of each seed."""

    label: str
    look: Look
    x: Estimate
    y: Estimate
    by_seed: tuple[tuple[float, float], ...]


def labelled_spots(
    spots: Sequence[Spot],
    joined: Sequence[Sequence[int]],
    frontier: Sequence[tuple[float, float]],
    x: str,
    y: str,
) -> Figure:
    """A point a condition with SEM cross-bars, small dots for seeds; accuracies as percent.

    `joined` are rows of spots to be joined in this order, `frontier` a dotted line. A name stands beside its point
    where it covers nothing, else in the legend below.
    """
    listed: list[int] = []
    while True:
        figure, axes = panel(3.6 + legend_height([spots[k].label for k in listed]))
        _draw_spots(axes, spots, joined, frontier, listed)
        name_axes(axes, x, y)
        if listed:
            legend(figure, axes)
        crowded = _label_beside(figure, axes, spots, listed)
        if not crowded:
            return figure
        listed = sorted({*listed, *crowded})  # the legend changes the axes, so all is laid out again


def _draw_spots(
    axes: Axes,
    spots: Sequence[Spot],
    joined: Sequence[Sequence[int]],
    frontier: Sequence[tuple[float, float]],
    listed: Sequence[int],
) -> None:
    axes.plot([100 * u for u, _ in frontier], [100 * v for _, v in frontier], color=GREY, linewidth=1, linestyle=":")
    for row in joined:
        across, up = [100 * spots[k].x.mean for k in row], [100 * spots[k].y.mean for k in row]
        axes.plot(across, up, color=spots[row[-1]].look.color, linewidth=1, alpha=0.6)
    for k, spot in enumerate(spots):
        if len(spot.by_seed) > 1:
            dots = np.array(spot.by_seed)
            axes.scatter(100 * dots[:, 0], 100 * dots[:, 1], s=5, color=spot.look.color, alpha=0.4, linewidths=0)
        axes.errorbar(
            100 * spot.x.mean,
            100 * spot.y.mean,
            xerr=None if spot.x.sem is None else 100 * spot.x.sem,
            yerr=None if spot.y.sem is None else 100 * spot.y.sem,
            color=spot.look.color,
            marker=spot.look.marker,
            markerfacecolor=spot.look.face,
            markersize=6,
            linestyle="none",
            elinewidth=1,
            label=spot.label if k in listed else "_",
        )
    for axis in (axes.xaxis, axes.yaxis):
        in_percent(axis)
    axes.margins(0.12)


def _label_beside(figure: Figure, axes: Axes, spots: Sequence[Spot], listed: Sequence[int]) -> list[int]:
    """Write the names that are not `listed` beside their points; return those that found no free place."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()
    inside = axes.get_window_extent(renderer)
    places = [axes.transData.transform((100 * spot.x.mean, 100 * spot.y.mean)) for spot in spots]
    point = figure.dpi / 72
    marks = [Bbox.from_extents(u - 5 * point, v - 5 * point, u + 5 * point, v + 5 * point) for u, v in places]
    taken = [bar for spot in spots for bar in _bars(axes, spot)]
    crowded = []
    for k, spot in enumerate(spots):
        if k in listed:
            continue
        for across, up, side, height in _BESIDE:
            text = axes.annotate(
                words(spot.label),
                (100 * spot.x.mean, 100 * spot.y.mean),
                xytext=(across, up),
                textcoords="offset points",
                ha=side,
                va=height,
                fontsize=8,
                color=INK,
            )
            text.set_in_layout(False)
            box = text.get_window_extent(renderer)
            obstacles = [*taken, *marks[:k], *marks[k + 1 :]]
            near = [_distance(box, place) for place in places]
            plain = all(other > 1.5 * near[k] for other in near[:k] + near[k + 1 :])  # whose name it is
            if plain and _within(box, inside) and not any(box.overlaps(other) for other in obstacles):
                taken.append(box)
                break
            text.remove()
        else:
            crowded.append(k)
    return crowded


_BESIDE: tuple[tuple[int, int, Literal["left", "center", "right"], Literal["bottom", "center", "top"]], ...] = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    (5, 5, "left", "bottom"),
    (5, -5, "left", "top"),
    (-5, 5, "right", "bottom"),
    (-5, -5, "right", "top"),
)


def _bars(axes: Axes, spot: Spot) -> list[Bbox]:
    """Return where the cross-bars are, on the screen."""
    x, y = 100 * spot.x.mean, 100 * spot.y.mean
    across, up = 100 * (spot.x.sem or 0.0), 100 * (spot.y.sem or 0.0)
    corners = ((x - across, y), (x + across, y)), ((x, y - up), (x, y + up))
    return [Bbox(axes.transData.transform(ends)).padded(0.5) for ends in corners]


def _distance(box: BboxBase, place: Float64[np.ndarray, "2"]) -> float:
    """Return how far the nearest point of the box is."""
    return float(np.hypot(*(place - np.clip(place, box.min, box.max))))


def _within(box: BboxBase, outer: BboxBase) -> bool:
    return bool(np.all(box.min >= outer.min) and np.all(box.max <= outer.max))
