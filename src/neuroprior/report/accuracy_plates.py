"""Accuracy under noise and under attack, and what the noise looks like: the run to `Plate`s."""

import numpy as np

from neuroprior.experiment.campaign_results import UNFOOLED
from neuroprior.experiment.results import Measurements, RunResults
from neuroprior.report.accuracy_drawing import accuracy_curves
from neuroprior.report.image_drawings import noisy_images
from neuroprior.report.perturbations import NORMS
from neuroprior.report.plate import Panel, Plate, lines_of, seeds_behind, spread_phrase
from neuroprior.report.tables import range_phrase

_EXAMPLES = 4


def noise_plate(results: Measurements) -> Plate:
    """Accuracy against noise (the paper's Figure 4)."""
    return _accuracy_plate(
        results,
        "noise",
        "Accuracy under Gaussian noise",
        "noise_accuracy",
        ("noise σ", "σ", "with Gaussian noise of standard deviation σ added to the pixels"),
        absent="No noise measurement is finished.",
    )


def attack_plate(results: Measurements) -> Plate:
    """Accuracy that an attack left, against its radius."""
    return _accuracy_plate(
        results,
        "attack",
        "Accuracy under attack (Linf, fixed radius)",
        "linf_accuracy",
        ("radius ε", "ε", "after projected gradient ascent on the margin moved each pixel by at most ε"),
        absent="No attack is finished.",
    )


def unfooled_plate(results: Measurements, norm: str) -> Plate:
    """The share of images that no perturbation up to a size fools."""
    said = NORMS[norm]
    return _accuracy_plate(
        results,
        f"unfooled-{norm}",
        f"Images that no {said} perturbation of a size fools",
        f"{UNFOOLED}_{norm}",
        (f"{said} size", "size", f"that are classified rightly under every perturbation found up to this {said} size"),
        absent="Nothing was attacked.",
    )


def _accuracy_plate(
    results: Measurements, name: str, heading: str, metric: str, words: tuple[str, str, str], absent: str
) -> Plate:
    axis, symbol, what = words
    lines = lines_of(results, metric)
    if not lines:
        return Plate(heading, absent=absent)
    n = seeds_behind([line.curve for line in lines])
    tested = range_phrase([count for line in lines for count in line.curve.counts])
    chance = None if results.n_classes is None else 1 / results.n_classes
    caption = (
        f"Accuracy on {tested} test images {what}. {spread_phrase(n, 'bands')}{' Dotted: chance.' if chance else ''}"
    )
    last = [
        f"{line.label} {100 * line.curve.estimates[-1].mean:.1f} % at {symbol} = {line.curve.x[-1]:g}" for line in lines
    ]
    alt = f"Line chart of test accuracy against {axis}, {len(lines)} conditions; at the right end: {', '.join(last)}."
    return Plate(heading, (Panel(name, accuracy_curves(lines, axis, chance), alt),), caption)


def examples_plate(results: RunResults) -> Plate:
    """What the noise looks like."""
    heading = "What the noise looks like"
    levels = sorted(set(results.noise_levels))
    if not len(results.examples.images) or not levels:
        return Plate(heading, absent="The run keeps no example images.")
    chosen = [levels[k] for k in sorted({round(k) for k in np.linspace(0, len(levels) - 1, min(5, len(levels)))})]
    images = results.examples.images[:_EXAMPLES]
    figure = noisy_images(images, results.examples.labels, chosen)
    caption = (
        f"{len(images)} test images x + σ n at {len(chosen)} of the {len(levels)} noise levels; n is the same along a "
        f"row. Clipped to [0, 1] for display only. Drawn for this page: the measurement's own noise is another draw."
    )
    alt = f"Grid of {len(images)} test images, noise growing from σ = {chosen[0]:g} to σ = {chosen[-1]:g}."
    return Plate(heading, (Panel("noise-examples", figure, alt),), caption)
