"""Similarity targets as a matrix, as a histogram and against the truth: pairs to matplotlib `Figure`s."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from neuroprior.report.drawing import (
    GREY,
    INK,
    SMALL,
    WIDTH,
    legend,
    legend_height,
    name_axes,
    panel,
    set_title,
    words,
)
from neuroprior.report.palette import Look
from neuroprior.types import Float32


def similarity_matrix(title: str, similarity: Float32[np.ndarray, "image image"], limit: float) -> Figure:
    """The matrix as it stands, blue -limit, white 0, red +limit; the diagonal is 1 and saturates."""
    figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(similarity, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(GREY)
    set_title(axes, title)
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("S", fontsize=SMALL, color=INK)
    bar.ax.tick_params(labelsize=SMALL, labelcolor=INK)
    bar.solids.set_rasterized(True)  # type: ignore[union-attr]
    return figure


def similarity_histogram(values: Sequence[tuple[str, Look, Float32[np.ndarray, " pair"]]]) -> Figure:
    """Distribution of off-diagonal S of every target, as steps of equal bins, each of area 1."""
    figure, axes = panel(2.8 + legend_height([label for label, _, _ in values]))
    low = min(float(pairs.min()) for _, _, pairs in values)
    high = max(float(pairs.max()) for _, _, pairs in values)
    edges = np.linspace(low, max(high, low + 1e-6), 61)
    for label, look, pairs in values:
        density, _ = np.histogram(pairs, bins=edges, density=True)
        axes.stairs(density, edges, color=look.color, linestyle=look.line, linewidth=1.5, label=label)
    name_axes(axes, "similarity S of two images (i ≠ j)", "density")
    legend(figure, axes)
    return figure


def against_truth(
    label: str,
    look: Look,
    truth: Float32[np.ndarray, " pair"],
    estimate: Float32[np.ndarray, " pair"],
    most: int = 3000,
) -> Figure:
    """Estimated against true similarity, a dot a pair (a random `most` of them), with the line of identity."""
    figure, axes = panel(3.6, 4.2)
    shown = np.arange(len(truth))
    if len(truth) > most:
        shown = np.random.default_rng(0).choice(len(truth), most, replace=False)
    axes.scatter(truth[shown], estimate[shown], s=6, color=look.color, alpha=0.45, linewidths=0, rasterized=True)
    ends = [float(truth.min()), float(truth.max())]
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--")
    name_axes(axes, "true S (noise-free)", f"S, {words(label)}")
    return figure
