"""Accuracy under common corruptions, group by group: the run to a `Plate`."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuroprior.experiment.results import Measurements
from neuroprior.report.corruptions import GROUPS, corrupted_conditions, group_curve, kind_said
from neuroprior.report.drawing import (
    Line,
    draw_line,
    in_percent,
    legend,
    legend_height,
    mark_chance,
    name_axes,
    panel,
    set_title,
)
from neuroprior.report.palette import looks_of
from neuroprior.report.plate import Panel, Plate, seeds_behind, spread_phrase
from neuroprior.report.tables import range_phrase


def corruption_plate(results: Measurements) -> Plate:
    """A panel a group of corruptions: mean accuracy over its kinds against severity."""
    heading = "Accuracy under common corruptions, by severity"
    looks = looks_of(results.conditions)
    found = corrupted_conditions(results)
    drawn = []
    for group, kinds in GROUPS.items():
        lines = [
            Line(card.label, curve, looks[card.name]) for card, curves in found if (curve := group_curve(curves, kinds))
        ]
        if lines:
            measured = [kind for kind in kinds if any(kind in one.kinds for _, of in found for one in of.values())]
            drawn.append((group, measured, lines))
    if not drawn:
        return Plate(heading, absent="No usual corruption is measured.")
    # one scale for all panels, so that groups can be compared
    top = 100 * max(e.mean + (e.sem or 0) for _, _, lines in drawn for line in lines for e in line.curve.estimates)
    chance = None if results.n_classes is None else 1 / results.n_classes
    panels, n, images = [], list[int](), list[int]()
    for group, measured, lines in drawn:
        n += seeds_behind([line.curve for line in lines])
        images += [count for line in lines for count in line.curve.counts]
        last = [f"{line.label} {100 * line.curve.estimates[-1].mean:.1f} %" for line in lines]
        alt = (
            f"Line chart of test accuracy against severity, mean over {', '.join(map(kind_said, measured))}; at "
            f"severity {lines[0].curve.x[-1]:g}: {', '.join(last)}."
        )
        panels.append(Panel(f"corruption-{group.lower()}", _against_severity(group, lines, top, chance), alt))
    said = "; ".join(f"{group}: {', '.join(map(kind_said, measured))}" for group, measured, _ in drawn)
    caption = (
        f"Mean accuracy on {range_phrase(images)} test images over the kinds of a group. {said}. Made as CIFAR-10-C "
        f"was (Hendrycks & Dietterich 2019), the same corrupted images for every network. {spread_phrase(n, 'bands')}"
        f"{' Dotted: chance.' if chance else ''}"
    )
    return Plate(heading, tuple(panels), caption)


def _against_severity(title: str, lines: list[Line], top: float, chance: float | None) -> Figure:
    figure, axes = panel(2.8 + legend_height([line.label for line in lines]))
    for line in lines:
        draw_line(axes, line, markers=True, scale=100.0)
    if chance is not None:
        mark_chance(axes, chance)
    # Nothing right at all is no reason to fail, and chance is written beside the axes: it has to lie within.
    axes.set_ylim(0, 1.05 * max(top, 1.0, 100 * (chance or 0.0)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    severities = {x for line in lines for x in line.curve.x}
    axes.set_xlim(min(severities) - 0.3, max(severities) + 0.3)
    in_percent(axes.yaxis)
    set_title(axes, title)
    name_axes(axes, "severity", "test accuracy")
    legend(figure, axes)
    return figure
