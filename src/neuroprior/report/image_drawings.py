"""Images themselves, under noise and in pairs: pixels to matplotlib `Figure`s."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuroprior.experiment.results import UnitImages
from neuroprior.report.drawing import INK, SMALL, WIDTH, words
from neuroprior.report.tables import minus
from neuroprior.types import Float32, UInt8


def noisy_images(
    images: Float32[np.ndarray, "image height width"], labels: Sequence[str], sigmas: Sequence[float]
) -> Figure:
    """x + sigma n, a row an image, a column a sigma, the same n along a row. Clipped to [0, 1] for display."""
    n, height, width = images.shape
    columns = max(len(sigmas), 5)  # few levels are not blown up
    cell = WIDTH / (columns + 0.4)
    figure = Figure(figsize=(WIDTH, n * cell * height / width + 0.3), layout="constrained")
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
                axes.set_title(f"σ = {sigma:g}", fontsize=SMALL, color=INK)
            if j == 0 and i < len(labels):
                axes.set_ylabel(words(labels[i]), fontsize=SMALL, color=INK)
    return figure


def image_pairs(title: str, pairs: Sequence[tuple[UInt8[np.ndarray, "2 height width"], float]]) -> Figure:
    """Pairs of images, one pair a row, with their S above."""
    height, width = pairs[0][0].shape[1:]
    side = WIDTH * 0.8
    row = side / 2 * height / width + 0.22
    figure = Figure(figsize=(side, len(pairs) * row + 0.35), layout="constrained")
    figure.suptitle(words(title), fontsize=10, color=INK)
    grid = figure.subplots(len(pairs), 2, squeeze=False)
    for axes, (images, value) in zip(grid, pairs, strict=True):
        for one, pixels in zip(axes, images, strict=True):
            _picture(one, pixels)
        axes[0].set_title(minus(f"S = {value:z.2f}"), fontsize=SMALL, color=INK, loc="left")
    return figure


def unit_pictures(title: str, units: UnitImages) -> Figure:
    """One picture a unit, with its channel above; a row a tap."""
    taps = list(dict.fromkeys(units.layers))
    rows = [[k for k, layer in enumerate(units.layers) if layer == tap] for tap in taps]
    columns = max(max(map(len, rows)), 6)  # few units are not blown up
    height, width = units.images.shape[2:]
    cell = WIDTH / (columns + 0.6)
    figure = Figure(figsize=(WIDTH, len(rows) * (cell * height / width + 0.22) + 0.3), layout="constrained")
    figure.suptitle(words(title), fontsize=10, color=INK)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, tap, own in zip(grid, taps, rows, strict=True):
        for axes in line[len(own) :]:
            axes.remove()
        for axes, k in zip(line, own, strict=False):
            _picture(axes, np.round(255 * units.images[k].mean(0).clip(0, 1)).astype(np.uint8))
            axes.set_title(str(units.channels[k]), fontsize=SMALL, color=INK)
        line[0].set_ylabel(words(tap), fontsize=SMALL, color=INK)
    return figure


def _picture(axes: Axes, pixels: UInt8[np.ndarray, "height width"]) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
