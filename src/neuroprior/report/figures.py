"""Data to matplotlib `Figure`s: pure functions, no pyplot, no state, no files. One panel a figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox, BboxBase

from neuroprior.report.palette import Look
from neuroprior.report.tables import Curve, Estimate, minus
from neuroprior.types import Float32, Float64, UInt8

_WIDTH = 5.0  # inches; with 9 point type this stays legible when a phone shrinks it to 330 px
_SMALL = 9
_MANY = 8  # lines; a legend of more is set smaller, so that it still goes into two columns
_GRID = "#dddddd"
_INK = "#333333"


@dataclass(frozen=True, slots=True)
class Line:
    """A curve, its words in the legend and how it looks."""

    label: str
    curve: Curve
    look: Look


def _panel(height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(labelsize=_SMALL, color="#888888", labelcolor=_INK)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _words(text: str) -> str:
    """Keep matplotlib from reading a `$` in somebody's label as the start of a formula."""
    return text.replace("$", r"\$")


def _name_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=_SMALL, color=_INK)
    axes.set_ylabel(y, fontsize=_SMALL, color=_INK)


def _columns(labels: Sequence[str]) -> int:
    longest = max(map(len, labels), default=0)
    return 1 if longest > (32 if len(labels) > _MANY else 26) else 2 if longest > 12 else 3


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        [_words(label if len(label) <= 56 else f"{label[:55]}…") for label in labels],
        loc="outside lower center",
        ncols=_columns(labels),
        fontsize=8 if len(labels) > _MANY else _SMALL,
        frameon=False,
        handlelength=3,
        columnspacing=1.2,
    )


def _legend_height(labels: Sequence[str]) -> float:
    return 0.2 * math.ceil(len(labels) / _columns(labels))


def _arrays(estimates: Sequence[Estimate]) -> tuple[Float64[np.ndarray, " x"], Float64[np.ndarray, " x"]]:
    means = np.array([estimate.mean for estimate in estimates], dtype=np.float64)
    sems = np.array([math.nan if e.sem is None else e.sem for e in estimates], dtype=np.float64)
    return means, sems


def _draw(axes: Axes, line: Line, *, markers: bool, scale: float = 1.0) -> None:
    x = np.array(line.curve.x)
    mean, sem = _arrays(line.curve.estimates)
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


def accuracy_curves(lines: Sequence[Line], x: str, chance: float | None) -> Figure:
    """Accuracy against the size of a disturbance, SEM bands from two seeds on, chance as a dotted line."""
    figure, axes = _panel(3.2 + _legend_height([line.label for line in lines]))
    for line in lines:
        _draw(axes, line, markers=True, scale=100.0)
    if chance is not None:
        axes.axhline(100 * chance, color="#888888", linewidth=1, linestyle=":")
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
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    _name_axes(axes, f"{x} (pixels in [0, 1])", "test accuracy")
    _legend(figure, axes)
    return figure


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
        figure, axes = _panel(3.6 + _legend_height([spots[k].label for k in listed]))
        _draw_spots(axes, spots, joined, frontier, listed)
        _name_axes(axes, x, y)
        if listed:
            _legend(figure, axes)
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
    axes.plot(
        [100 * u for u, _ in frontier], [100 * v for _, v in frontier], color="#888888", linewidth=1, linestyle=":"
    )
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
        axis.set_major_formatter(PercentFormatter(decimals=0))
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
                _words(spot.label),
                (100 * spot.x.mean, 100 * spot.y.mean),
                xytext=(across, up),
                textcoords="offset points",
                ha=side,
                va=height,
                fontsize=8,
                color=_INK,
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


def against_alpha(alphas: Sequence[float], lines: Sequence[tuple[str, Look, Sequence[Estimate | None]]]) -> Figure:
    """Accuracy against alpha, a line a base with SEM bars; alphas stand at equal distances, whatever they are."""
    figure, axes = _panel(2.8 + _legend_height([label for label, _, _ in lines]))
    for label, look, estimates in lines:
        there = [(k, estimate) for k, estimate in enumerate(estimates) if estimate is not None]
        mean, sem = _arrays([estimate for _, estimate in there])
        axes.errorbar(
            [k for k, _ in there],
            100 * mean,
            yerr=100 * sem if np.isfinite(sem).any() else None,
            color=look.color,
            marker=look.marker,
            markerfacecolor=look.face,
            markersize=5,
            linestyle=look.line,
            linewidth=1.5,
            elinewidth=1,
            label=label,
        )
    axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    _name_axes(axes, "α (0: trained on the task alone)", "test accuracy")
    _legend(figure, axes)
    return figure


def _count_epochs(axes: Axes, lines: Sequence[Line]) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    epochs = {x for line in lines for x in line.curve.x}
    if len(epochs) == 1:
        only = epochs.pop()
        axes.set_xlim(only - 1, only + 1)


def over_epochs(lines: Sequence[Line], y: str, *, as_percent: bool = False) -> Figure:
    """One quantity against the epoch, a line a condition."""
    figure, axes = _panel(2.5 + _legend_height([line.label for line in lines]))
    for line in lines:
        _draw(axes, line, markers=False, scale=100.0 if as_percent else 1.0)
    if as_percent:
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    _count_epochs(axes, lines)
    _name_axes(axes, "epoch", y)
    _legend(figure, axes)
    return figure


def tap_looks(taps: Sequence[str]) -> list[Look]:
    """Give the taps, shallow to deep, an ordered colour scale (dark to light) and markers of their own."""
    markers, styles = "osD^vPX", ("-", "--", "-.", ":")
    shades = colormaps["viridis"](np.linspace(0.0, 0.88, max(len(taps), 2)))
    return [Look(to_hex(shades[k]), markers[k % 7], styles[k % 4]) for k in range(len(taps))]


def gamma_over_epochs(title: str, curves: Mapping[str, Curve]) -> Figure:
    """Layer mix gamma against the epoch: every seed as a thin line (the mean hides a collapse), the mean thick."""
    lines = [Line(tap, curve, look) for (tap, curve), look in zip(curves.items(), tap_looks([*curves]), strict=True)]
    figure, axes = _panel(2.5 + _legend_height([line.label for line in lines]))
    for line in lines:
        if len(line.curve.seeds) > 1:
            for seed in line.curve.seeds:
                y = [values.get(seed, math.nan) for values in line.curve.by_seed]
                axes.plot(line.curve.x, y, color=line.look.color, linewidth=0.6, alpha=0.7)
        mean, _ = _arrays(line.curve.estimates)
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
    axes.set_title(_words(title), fontsize=10, color=_INK, loc="left")
    _count_epochs(axes, lines)
    _name_axes(axes, "epoch", "γ (share of the tap)")
    _legend(figure, axes)
    return figure


def correlation_per_tap(taps: Sequence[str], lines: Sequence[tuple[str, Look, Sequence[Estimate | None]]]) -> Figure:
    """Held-out correlation of S_cnn and target a tap, a marker a condition side by side, SEM as bars."""
    figure, axes = _panel(2.8 + _legend_height([label for label, _, _ in lines]))
    half = min(0.38, 0.06 * len(lines))
    spread = np.linspace(-half, half, len(lines)) if len(lines) > 1 else np.zeros(1)
    for offset, (label, look, estimates) in zip(spread, lines, strict=True):
        there = [(k + float(offset), e) for k, e in enumerate(estimates) if e is not None]
        mean, sem = _arrays([e for _, e in there])
        axes.errorbar(
            [x for x, _ in there],
            mean,
            yerr=sem if np.isfinite(sem).any() else None,
            color=look.color,
            marker=look.marker,
            markerfacecolor=look.face,
            markersize=5,
            linestyle="none",
            elinewidth=1.2,
            label=label,
        )
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.set_xticks(range(len(taps)), [_words(tap) for tap in taps])
    if max(map(len, taps), default=0) * len(taps) > 55:
        axes.tick_params(axis="x", rotation=25)
    axes.set_xlim(-0.5, len(taps) - 0.5)
    _name_axes(axes, "tap", "held-out similarity r")
    _legend(figure, axes)
    return figure


def noisy_images(
    images: Float32[np.ndarray, "image height width"], labels: Sequence[str], sigmas: Sequence[float]
) -> Figure:
    """x + sigma n, a row an image, a column a sigma, the same n along a row. Clipped to [0, 1] for display."""
    n, height, width = images.shape
    columns = max(len(sigmas), 5)  # few levels are not blown up
    cell = _WIDTH / (columns + 0.4)
    figure = Figure(figsize=(_WIDTH, n * cell * height / width + 0.3), layout="constrained")
    grid = figure.subplots(n, columns, squeeze=False)
    for axes in grid[:, len(sigmas) :].flat:
        axes.remove()
    for i in range(n):
        noise = np.random.default_rng(i).standard_normal((height, width))
        for j, sigma in enumerate(sigmas):
            axes = grid[i, j]
            shown = np.clip(images[i] + sigma * noise, 0, 1)
            _picture(axes, np.round(255 * shown).astype(np.uint8))
            if i == 0:
                axes.set_title(f"σ = {sigma:g}", fontsize=_SMALL, color=_INK)
            if j == 0 and i < len(labels):
                axes.set_ylabel(_words(labels[i]), fontsize=_SMALL, color=_INK)
    return figure


def _picture(axes: Axes, pixels: UInt8[np.ndarray, "height width"]) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def leaf_order(similarity: Float32[np.ndarray, "image image"]) -> list[int]:
    """Order images by the leaves of average-linkage clustering on 1 - S, neighbouring leaves made alike."""
    if len(similarity) < 3:
        return list(range(len(similarity)))
    from scipy.cluster.hierarchy import leaves_list, linkage  # type: ignore[import-untyped]

    distances = 1.0 - pairs_of(similarity).astype(np.float64)
    order: list[int] = leaves_list(linkage(distances, method="average", optimal_ordering=True)).tolist()
    return order


def pairs_of(similarity: Float32[np.ndarray, "image image"]) -> Float32[np.ndarray, " pair"]:
    """Return S_ij for i < j, row after row."""
    n = len(similarity)
    if n < 2:
        return np.empty(0, dtype=np.float32)
    pairs: np.ndarray = np.concatenate([similarity[i, i + 1 :] for i in range(n - 1)])
    return pairs


def similarity_matrix(title: str, similarity: Float32[np.ndarray, "image image"], limit: float) -> Figure:
    """The matrix as it stands, blue -limit, white 0, red +limit; the diagonal is 1 and saturates."""
    figure = Figure(figsize=(_WIDTH, 4.3), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(similarity, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#888888")
    axes.set_title(_words(title), fontsize=10, color=_INK, loc="left")
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("S", fontsize=_SMALL, color=_INK)
    bar.ax.tick_params(labelsize=_SMALL, labelcolor=_INK)
    bar.solids.set_rasterized(True)  # type: ignore[union-attr]
    return figure


def similarity_histogram(values: Sequence[tuple[str, Look, Float32[np.ndarray, " pair"]]]) -> Figure:
    """Distribution of off-diagonal S of every target, as steps of equal bins, each of area 1."""
    figure, axes = _panel(2.8 + _legend_height([label for label, _, _ in values]))
    low = min(float(pairs.min()) for _, _, pairs in values)
    high = max(float(pairs.max()) for _, _, pairs in values)
    edges = np.linspace(low, max(high, low + 1e-6), 61)
    for label, look, pairs in values:
        density, _ = np.histogram(pairs, bins=edges, density=True)
        axes.stairs(density, edges, color=look.color, linestyle=look.line, linewidth=1.5, label=label)
    _name_axes(axes, "similarity S of two images (i ≠ j)", "density")
    _legend(figure, axes)
    return figure


def against_truth(
    label: str,
    look: Look,
    truth: Float32[np.ndarray, " pair"],
    estimate: Float32[np.ndarray, " pair"],
    most: int = 3000,
) -> Figure:
    """Estimated against true similarity, a dot a pair (a random `most` of them), with the line of identity."""
    figure, axes = _panel(3.6, 4.2)
    shown = np.arange(len(truth))
    if len(truth) > most:
        shown = np.random.default_rng(0).choice(len(truth), most, replace=False)
    axes.scatter(truth[shown], estimate[shown], s=6, color=look.color, alpha=0.45, linewidths=0, rasterized=True)
    ends = [float(truth.min()), float(truth.max())]
    axes.plot(ends, ends, color="#888888", linewidth=1, linestyle="--")
    _name_axes(axes, "true S (noise-free)", f"S, {_words(label)}")
    return figure


def correlation(a: Float32[np.ndarray, " pair"], b: Float32[np.ndarray, " pair"]) -> float:
    """Pearson's r, in float64; nan where either does not vary."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    x -= x.mean()
    y -= y.mean()
    length = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
    return float(x @ y) / length if length > 0 else math.nan


def extreme_pairs(
    similarity: Float32[np.ndarray, "image image"], count: int, *, most: bool
) -> list[tuple[int, int, float]]:
    """Return the `count` pairs i < j with the largest (or smallest) S, no image in two of them, extreme first."""
    sign = 1.0 if most else -1.0
    free = np.ones(len(similarity), dtype=bool)
    found: list[tuple[int, int, float]] = []
    while len(found) < count and int(free.sum()) >= 2:
        best, pair = -math.inf, (0, 0)
        for i in np.flatnonzero(free)[:-1]:
            row = np.where(free[i + 1 :], sign * similarity[i, i + 1 :], -np.inf)
            j = int(row.argmax())
            if row[j] > best:
                best, pair = float(row[j]), (int(i), int(i) + 1 + j)
        found.append((*pair, sign * best))
        free[list(pair)] = False
    return found


def image_pairs(title: str, pairs: Sequence[tuple[UInt8[np.ndarray, "2 height width"], float]]) -> Figure:
    """Pairs of images, one pair a row, with their S above."""
    height, width = pairs[0][0].shape[1:]
    side = _WIDTH * 0.8
    row = side / 2 * height / width + 0.22
    figure = Figure(figsize=(side, len(pairs) * row + 0.35), layout="constrained")
    figure.suptitle(_words(title), fontsize=10, color=_INK)
    grid = figure.subplots(len(pairs), 2, squeeze=False)
    for axes, (images, value) in zip(grid, pairs, strict=True):
        for one, pixels in zip(axes, images, strict=True):
            _picture(one, pixels)
        axes[0].set_title(minus(f"S = {value:z.2f}"), fontsize=_SMALL, color=_INK, loc="left")
    return figure
