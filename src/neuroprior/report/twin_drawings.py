"""What a twin has learnt and how well: filters, receptive fields, exciting images, learning curves, scores."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuroprior.report.drawing import GREY, INK, SMALL, WIDTH, legend, name_axes, panel, set_title, words
from neuroprior.report.tables import minus
from neuroprior.twin import FitEpoch
from neuroprior.types import Float32, Float64

_COLOR, _ACCENT = "#0072B2", "#D55E00"
_GAP = 0.06  # inches between pictures
_LEAST = -0.5  # scores below are drawn there


def filters_figure(filters: Float32[np.ndarray, "filter height width"]) -> Figure:
    """The first layer's filters, each from black (-its largest absolute weight) over gray (0) to white (+it)."""
    largest = np.abs(filters).max(axis=(1, 2), keepdims=True)
    scaled = filters / np.where(largest > 0, largest, 1)
    figure, grid = _grid(len(filters), filters.shape[2] / filters.shape[1], columns=12 if len(filters) > 32 else 8)
    for axes, one in zip(grid, scaled, strict=True):
        _picture(axes, one, -1.0, 1.0)
    return figure


def exciting_figure(
    images: Float32[np.ndarray, "unit height width"],
    titles: Sequence[str],
    grays: tuple[float, float] = (0.0, 255.0),
    heading: str = "",
) -> Figure:
    """Images, 0..255, each under its title, as they are shown: or from black to white within these `grays`."""
    figure, grid = _grid(
        len(images), images.shape[2] / images.shape[1], columns=4, title=0.2, above=0.2 if heading else 0.0
    )
    if heading:
        figure.text(_GAP / WIDTH, 1, words(heading), fontsize=10, color=INK, va="top")
    fits = 72 * WIDTH / 4 / (0.6 * max(map(len, titles), default=1))  # points: a letter is about 0.6 of its size wide
    for axes, one, title in zip(grid, images, titles, strict=True):
        _picture(axes, one, *grays)
        axes.set_title(words(title), fontsize=min(SMALL, fits), color=INK, pad=2)
    return figure


def positions_figure(
    centres: Float64[np.ndarray, "neuron 2"],
    size: tuple[int, int],
    cortex: Float64[np.ndarray, " neuron"] | None = None,
    *,
    along: str = "along the cortex",
    title: str = "",
) -> Figure:
    """Where in the image (x right, y down, in pixels; height and width are the `size`) each neuron looks.

    `cortex`: the neurons' place along one axis of the cortex (µm), as colour; `along`: which axis.
    """
    height, width = size
    figure, axes = panel((WIDTH - (0.5 if cortex is None else 1.3)) * height / width + (0.75 if title else 0.5))
    axes.set_aspect("equal")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(GREY)
    area = float(np.clip(8000 / max(len(centres), 1), 1.5, 16))
    dots = axes.scatter(
        centres[:, 0],
        centres[:, 1],
        s=area,
        c=_COLOR if cortex is None else cortex,
        cmap=None if cortex is None else "viridis",
        alpha=0.6,
        linewidths=0,
        rasterized=True,
        clip_on=False,
    )
    if cortex is not None:
        bar = figure.colorbar(dots, ax=axes, shrink=0.8, pad=0.02)
        bar.set_label(f"{along}, µm", fontsize=SMALL, color=INK)
        bar.ax.tick_params(labelsize=SMALL, labelcolor=INK)
        bar.solids.set(alpha=1.0, rasterized=True)  # type: ignore[union-attr]
    name_axes(axes, "x, pixels", "y, pixels")
    if title:
        set_title(axes, title)
    return figure


def learning_figure(history: Sequence[FitEpoch]) -> Figure:
    """Training loss and validation correlation over epochs; a dot at the best, a line where the learning rate fell."""
    epochs = np.array([row.epoch for row in history])
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    loss = [row.loss for row in history]
    correlation = np.array([row.validation_correlation for row in history])
    for axes, values, name in ((upper, loss, "training loss"), (lower, correlation, "validation r")):
        _plain(axes)
        axes.plot(epochs, values, color=_COLOR, linewidth=1.5, marker="o" if len(history) == 1 else None, markersize=4)
        for before, row in pairwise(history):
            if row.learning_rate < before.learning_rate:
                axes.axvline(row.epoch, color=GREY, linewidth=0.8, linestyle="--")
        name_axes(axes, "", name)
    if np.isfinite(correlation).any():
        best = int(np.nanargmax(correlation))
        said = f"best: {minus(f'{correlation[best]:z.3f}')}, epoch {epochs[best]}"
        lower.plot(epochs[best], correlation[best], color=_ACCENT, marker="o", markersize=5)
        set_title(lower, said)
    rates = list(dict.fromkeys(row.learning_rate for row in history))
    set_title(upper, f"learning rate {' → '.join(f'{rate:.2g}' for rate in rates)}")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    name_axes(lower, "epoch", "validation r")
    return figure


def scores_figure(
    single_trial: Float64[np.ndarray, " neuron"],
    to_average: Float64[np.ndarray, " neuron"] | None = None,
    feve: Float64[np.ndarray, " reliable"] | None = None,
    title: str = "",
) -> Figure:
    """How many neurons are predicted how well, by up to three scores, on one scale; dashed: the mean, or median.

    nan: no score (too few repeats, say); such neurons are left out, and n says how many are in. The axis goes from -0.5
    to 1, or to where 99 of 100 values of each score lie below; what lies beyond is drawn at its ends: a fraction of
    explainable variance has no least value, and so no mean worth telling.
    """
    every = (
        ("single-trial correlation", single_trial, "mean", np.mean),
        ("correlation to average", to_average, "mean", np.mean),
        ("fraction of explainable variance", feve, "median", np.median),
    )
    sets = [(name, scores, said, middle) for name, scores, said, middle in every if scores is not None]
    figure = Figure(figsize=(WIDTH, 1.5 * len(sets) + 0.1 + (0.25 if title else 0)), layout="constrained")
    if title:
        figure.suptitle(words(title), x=0.01, ha="left", fontsize=10, color=INK)
    values = [scores[np.isfinite(scores)] for _, scores, _, _ in sets]
    rows = figure.subplots(len(sets), 1, sharex=True, squeeze=False)[:, 0]
    most = max([1.0, *(float(np.quantile(there, 0.99)) for there in values if len(there))])
    edges = np.linspace(_LEAST, most, 31)
    for axes, (name, _, word, middle), there in zip(rows, sets, values, strict=True):
        _plain(axes)
        axes.hist(there.clip(_LEAST, most), bins=edges.tolist(), color=_COLOR, alpha=0.8)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_ylim(bottom=0)
        said = f"n = {len(there)}"
        if len(there):
            at = float(middle(there))
            axes.axvline(min(max(at, _LEAST), most), color="#222222", linewidth=1, linestyle="--")
            said = f"{word} {minus(f'{at:z.2f}')}, {said}"
        set_title(axes, f"{name}: {said}")
        name_axes(axes, "", "neurons")
    rows[-1].set_xlim(_LEAST, most)
    return figure


def oracle_figure(
    oracle: Float64[np.ndarray, " neuron"],
    single_trial: Float64[np.ndarray, " neuron"],
    fraction: float,
    title: str = "",
) -> Figure:
    """Each neuron's single-trial correlation against its oracle correlation, with the line of slope `fraction`.

    Dashed: identity, where the twin predicts a trial as well as the other trials of its image do. Neurons without one
    of the two are left out.
    """
    known = np.isfinite(oracle) & np.isfinite(single_trial)
    x, y = oracle[known], single_trial[known]
    figure, axes = panel(3.8, 4.2)
    axes.set_aspect("equal")
    area = float(np.clip(4000 / max(len(x), 1), 2, 16))
    axes.scatter(x, y, s=area, color=_COLOR, alpha=0.5, linewidths=0, rasterized=True)
    ends = np.array([min([0.0, *x.tolist(), *y.tolist()]), max([0.1, *x.tolist(), *y.tolist()])])
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="identity")
    # the slope is through 0, and of no use below it
    along = np.array([0.0, ends[1] if fraction <= 1 else ends[1] / fraction])
    slope = f"oracle fraction {minus(f'{fraction:z.2f}')}"
    axes.plot(along, fraction * along, color=_ACCENT, linewidth=1.5, label=slope)
    name_axes(axes, "oracle correlation", "single-trial correlation")
    if title:
        set_title(axes, title)
    legend(figure, axes)
    return figure


def _grid(n: int, aspect: float, *, columns: int, title: float = 0.0, above: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Return a figure of `n` cells of this width by height, in at most so many columns.

    `title`: inches above each cell; `above`: above them all.
    """
    columns = min(columns, max(n, columns // 2))  # a few pictures are not blown up
    rows = math.ceil(n / columns)
    cell = (WIDTH - _GAP * (columns + 1)) / columns
    row = cell / aspect + title
    height = rows * (row + _GAP) + _GAP + above
    figure = Figure(figsize=(WIDTH, height))
    cells = []
    for k in range(n):
        left = _GAP + (k % columns) * (cell + _GAP)
        top = above + _GAP + (k // columns) * (row + _GAP) + title
        below = height - top - cell / aspect
        cells.append(figure.add_axes((left / WIDTH, below / height, cell / WIDTH, cell / aspect / height)))
    return figure, cells


def _picture(axes: Axes, pixels: Float32[np.ndarray, "height width"], black: float, white: float) -> None:
    axes.imshow(pixels, cmap="gray", vmin=black, vmax=white, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=SMALL, color=GREY, labelcolor=INK)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
