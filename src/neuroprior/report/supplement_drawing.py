"""Mean smallest perturbations as dots in rows: estimates to a matplotlib `Figure`."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator

from neuroprior.report.drawing import GREY, SMALL, legend, legend_height, name_axes, panel, set_title, words
from neuroprior.report.palette import Look
from neuroprior.report.tables import Estimate

_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "d", "p")
_WIDE = 8.0  # greatest over least; beyond it the axis is logarithmic


@dataclass(frozen=True, slots=True)
class Alone:
    """What one attack found: `number` chooses its marker; `complete`: on every image on which any attack did."""

    name: str
    number: int
    mean: float
    complete: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A condition: what all attacks together found, and what single ones did."""

    label: str
    look: Look
    best: Estimate
    alone: tuple[Alone, ...] = ()


def smallest_rows(rows: Sequence[Row], norm: str, unit: str) -> Figure:
    """A condition a row, first above; a dot with its SEM, single attacks as small gray marks below it.

    `unit`: what the axis says after its name.
    """
    marks = {one.name: one.number for row in rows for one in row.alone}
    figure, axes = panel(1.1 + (0.38 if marks else 0.3) * len(rows) + (legend_height([*marks]) if marks else 0))
    for k, row in enumerate(rows):
        for one in row.alone:
            axes.plot(
                [one.mean],
                [k + 0.32],
                color=GREY,
                marker=_MARKERS[one.number % len(_MARKERS)],
                markersize=4,
                markerfacecolor=GREY if one.complete else "#ffffff",
                markeredgewidth=0.8,
                linestyle="none",
            )
        axes.errorbar(
            [row.best.mean],
            [k],
            xerr=None if row.best.sem is None else [row.best.sem],
            color=row.look.color,
            marker=row.look.marker,
            markerfacecolor=row.look.face,
            markersize=6,
            linestyle="none",
            elinewidth=1.5,
            capsize=2,
        )
    values = [mean for row in rows for mean in (row.best.mean, *(one.mean for one in row.alone))]
    wide = min(values) > 0 and max(values) > _WIDE * min(values)
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter("")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        farthest = max(*(row.best.mean + (row.best.sem or 0) for row in rows), *values)
        axes.set_xlim(0, 1.06 * farthest or 1.0)  # of networks that are wrong without any perturbation
    axes.set_yticks(
        range(len(rows)), [words(row.label if len(row.label) <= 30 else f"{row.label[:29]}…") for row in rows]
    )
    axes.tick_params(axis="y", length=0, labelsize=SMALL)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    set_title(axes, norm)
    name_axes(axes, f"mean smallest perturbation{unit}{', logarithmic' if wide else ''}", "")
    if marks:
        for name, number in marks.items():
            marker = _MARKERS[number % len(_MARKERS)]
            axes.add_line(Line2D([], [], color=GREY, marker=marker, markersize=4, linestyle="none", label=name))
        legend(figure, axes)
    return figure
