"""A recording's reliability and alignment: numbers to matplotlib `Figure`s."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from neuroprior.report.drawing import GREY, name_axes, panel
from neuroprior.types import Float64

_COLOR = "#0072B2"


def neuron_histogram(values: Float64[np.ndarray, " neuron"], what: str) -> Figure:
    """How many neurons have each value; dashed: the median. What lies beyond the 99.5th percentile is drawn there."""
    figure, axes = panel(2.4)
    low, high = float(min(values.min(), 0.0)), float(np.quantile(values, 0.995))
    axes.hist(np.clip(values, low, max(high, low + 1e-6)), bins=60, color=_COLOR, alpha=0.8)
    axes.axvline(float(np.median(values)), color="#222222", linewidth=1, linestyle="--")
    name_axes(axes, what, "neurons")
    return figure


def alignment_by_lag(
    lags: Sequence[int], alignment: Float64[np.ndarray, " lag"], chance: tuple[float, float], clear: float
) -> Figure:
    """How much more alike two trials of one image are at each lag, with what permuted images give as a band."""
    figure, axes = panel(2.4)
    axes.axhspan(chance[0] - clear * chance[1], chance[0] + clear * chance[1], color=GREY, alpha=0.25, linewidth=0)
    axes.plot(lags, alignment, color=_COLOR, marker="o", markersize=4, linewidth=1.5)
    axes.set_xticks(list(lags))
    name_axes(axes, "responses taken this many trials later", "repeats alike, D")
    return figure
