"""Figure 3: the method in one drawing, with a run's own images, matrix and sizes in it."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from neuroprior.report.drawing import GREY, INK, SMALL, WIDTH, words
from neuroprior.report.palette import LOOKS
from neuroprior.types import Float32, UInt8

_HEIGHT = 3.5
_FILL = "#f4f4f4"
_LAYERS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What is written into the drawing; pictures and matrix may be missing.

    `stimuli`, `brain`, `task`, `network`: two short lines each; `taps`: how many layers are compared; `loss`: the sum
    that is trained on. `matrix`: S_neural of a few images.
    """

    stimuli: str
    brain: str
    task: str
    network: str
    taps: str
    loss: str
    stimulus: UInt8[np.ndarray, "height width"] | None = None
    example: Float32[np.ndarray, "rows columns"] | None = None
    matrix: Float32[np.ndarray, "image image"] | None = None


def schematic(parts: Parts) -> Figure:
    """Images to a brain and to a network, their similarity matrices compared, and labelled images to the task."""
    figure = Figure(figsize=(WIDTH, _HEIGHT))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, WIDTH), ylim=(0, _HEIGHT))
    axes.set_axis_off()
    brain, plain = LOOKS["neural_model"].color, LOOKS["none"].color

    _picture(axes, parts.stimulus, (0.62, 2.28), parts.stimuli)
    _picture(axes, parts.example, (0.62, 0.78), parts.task)
    _box(axes, (1.95, 2.95), (1.25, 0.62), parts.brain, brain)
    _matrix(axes, (3.3, 2.95), parts.matrix, brain)
    _layers(axes, (1.95, 1.45), brain)
    axes.text(1.95, 0.83, words(parts.network), fontsize=7.5, color=INK, ha="center", va="top")
    _box(axes, (3.3, 1.72), (0.8, 0.42), r"$S_\mathrm{CNN}$", brain, fontsize=float(SMALL))
    axes.text(3.3, 1.47, words(parts.taps), fontsize=7, color=INK, ha="center", va="top")
    _box(axes, (3.3, 0.62), (0.8, 0.36), "classes", plain)
    _box(axes, (4.42, 2.33), (0.92, 0.5), "similarity\nloss", brain)
    _box(axes, (4.42, 0.62), (0.92, 0.36), "task loss", plain)
    axes.text(4.42, 1.46, words(parts.loss), fontsize=7.5, color=INK, ha="center", va="center")

    _arrow(axes, (1.0, 2.5), (1.32, 2.85), brain)
    _arrow(axes, (2.58, 2.95), (2.93, 2.95), brain)
    _arrow(axes, (1.0, 2.1), (1.4, 1.75), brain)
    _arrow(axes, (2.5, 1.6), (2.89, 1.7), brain)
    _arrow(axes, (3.67, 2.85), (3.95, 2.5), brain)
    _arrow(axes, (3.71, 1.8), (3.97, 2.1), brain)
    _arrow(axes, (1.0, 0.95), (1.4, 1.25), plain)
    _arrow(axes, (2.5, 1.25), (2.89, 0.74), plain)
    _arrow(axes, (3.71, 0.62), (3.95, 0.62), plain)
    _arrow(axes, (4.42, 2.06), (4.42, 1.68), brain)
    _arrow(axes, (4.42, 0.82), (4.42, 1.24), plain)
    return figure


def _box(
    axes: Axes, at: tuple[float, float], size: tuple[float, float], text: str, color: str, fontsize: float = 7.5
) -> None:
    left, low = at[0] - size[0] / 2, at[1] - size[1] / 2
    axes.add_patch(
        FancyBboxPatch((left, low), *size, boxstyle="round,pad=0.02,rounding_size=0.06", fc=_FILL, ec=color, lw=1.2)
    )
    shown = text if text.startswith("$S") else words(text)
    axes.text(*at, shown, fontsize=fontsize, color=INK, ha="center", va="center")


def _picture(axes: Axes, image: np.ndarray | None, at: tuple[float, float], text: str) -> None:
    """An image with its words below it; of a published run, which has no images, an empty frame."""
    height, width = (1, 1) if image is None else image.shape
    scale = min(0.86 / width, 0.5 / height)
    half = width * scale / 2, height * scale / 2
    extent = (at[0] - half[0], at[0] + half[0], at[1] - half[1], at[1] + half[1])
    if image is not None:
        axes.imshow(image, cmap="gray", extent=extent, aspect="auto", interpolation="nearest", zorder=2)
    axes.add_patch(
        FancyBboxPatch(
            (extent[0], extent[2]), 2 * half[0], 2 * half[1], boxstyle="square,pad=0.0", fc=_FILL, ec=GREY, lw=0.8
        )
    )
    axes.text(at[0], extent[2] - 0.05, words(text), fontsize=7.5, color=INK, ha="center", va="top")


def _matrix(axes: Axes, at: tuple[float, float], matrix: np.ndarray | None, color: str) -> None:
    if matrix is None:
        _box(axes, at, (0.7, 0.7), r"$S_\mathrm{neural}$", color, fontsize=float(SMALL))
        return
    limit = max(float(np.quantile(np.abs(matrix[~np.eye(len(matrix), dtype=bool)]), 0.99)), 1e-3)
    extent = (at[0] - 0.33, at[0] + 0.33, at[1] - 0.26, at[1] + 0.4)
    axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent, aspect="auto", interpolation="nearest")
    axes.text(at[0], at[1] - 0.29, r"$S_\mathrm{neural}$", fontsize=SMALL, color=INK, ha="center", va="top")


def _layers(axes: Axes, at: tuple[float, float], color: str) -> None:
    """A network as layers that shrink in space and grow in channels."""
    for k in range(_LAYERS):
        width, height = 0.1 + 0.03 * k, 0.95 - 0.15 * k
        left = at[0] - 0.5 + 0.21 * k
        axes.add_patch(
            FancyBboxPatch(
                (left, at[1] - height / 2),
                width,
                height,
                boxstyle="round,pad=0.0,rounding_size=0.03",
                fc=_FILL,
                ec=INK,
                lw=1,
            )
        )


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, color=color, lw=1.2))
