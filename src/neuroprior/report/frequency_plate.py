"""Which spatial frequencies networks go by, and which fool them (Li et al. 2023): the run to a `Plate`."""

from neuroprior.experiment.results import Measurements
from neuroprior.report.drawing import Line
from neuroprior.report.frequencies import HALF_POWER, SPECTRUM
from neuroprior.report.frequency_drawing import against_cutoff, difference, hybrid_difference, radial_shares
from neuroprior.report.perturbations import NORMS
from neuroprior.report.plate import Panel, Plate, lines_of, seeds_behind, spread_phrase
from neuroprior.report.tables import curve_of, range_phrase


def frequency_plate(results: Measurements) -> Plate:
    """Panels: accuracy after a low-pass, after a high-pass, hybrids, and the spectrum of what fools, a norm each."""
    heading = "Spatial frequencies: what networks go by, and what fools them"
    chance = None if results.n_classes is None else 1 / results.n_classes
    panels, said, n = [], [], list[int]()
    images = list[int]()
    for keep, where in (("low", "up to"), ("high", "above")):
        lines = lines_of(results, f"{keep}_pass_accuracy")
        if not lines:
            continue
        n += seeds_behind([line.curve for line in lines])
        images += [count for line in lines for count in line.curve.counts]
        shown = f"{keep.capitalize()}-passed images"
        middle = lines[0].curve.x[len(lines[0].curve.x) // 2]
        at = [
            f"{line.label} {100 * estimate.mean:.1f} %"
            for line in lines
            if (estimate := line.curve.at(middle)) is not None
        ]
        alt = (
            f"Line chart of accuracy on {keep}-passed test images against the cutoff; at {middle:g} cycles per image: "
            f"{', '.join(at)}."
        )
        panels.append(
            Panel(f"frequency-{keep}-pass", against_cutoff(lines, f"{shown}: {where} the cutoff", chance), alt)
        )
    if panels:
        said.append(
            f"Accuracy on {range_phrase(images)} test images of which only the frequencies up to the cutoff "
            f"(low-passed) or above it (high-passed, their mean kept) are left, by a filter that passes all or nothing."
            f"{' Dotted: chance.' if chance else ''}"
        )
    if (hybrids := _hybrids(results)) is not None:
        hybrid_panel, sentence, seeds = hybrids
        panels.append(hybrid_panel)
        said.append(sentence)
        n += seeds
    counts = list[int]()
    for norm, words in NORMS.items():
        found = _by_condition(results, f"{SPECTRUM}_{norm}")
        lines = [*found.values()]
        if not lines:
            continue
        n += seeds_behind([line.curve for line in lines])
        counts += [count for line in lines for count in line.curve.counts]
        halves = [curve_of(results.metrics, name, f"{HALF_POWER}_{norm}").only() for name in found]
        drawn = radial_shares(lines, halves, f"Smallest {words} perturbations")
        at = [f"{line.label} {half.mean:.3g}" for line, half in zip(lines, halves, strict=True) if half is not None]
        alt = (
            f"Line chart of the share of power of the smallest {words} perturbations against spatial frequency; half "
            f"of it lies below, in cycles per image: {', '.join(at)}."
        )
        panels.append(Panel(f"frequency-spectrum-{norm}", drawn, alt))
    if counts:
        said.append(
            f"Perturbations: mean share of a perturbation's power in rings one cycle per image wide, over "
            f"{range_phrase(counts)} perturbations a network; marks: below them lies half of the power. White noise "
            f"would rise in proportion to the radius up to half of the image's side, where the rings are cut."
        )
    if not panels:
        return Plate(heading, absent="Nothing about frequencies is measured.")
    return Plate(heading, tuple(panels), f"{' '.join(said)} {spread_phrase(n, 'bands')}")


def _hybrids(results: Measurements) -> tuple[Panel, str, list[int]] | None:
    """The panel of hybrid images, its part of the caption, and the seeds behind it."""
    low, high = _by_condition(results, "hybrid_low"), _by_condition(results, "hybrid_high")
    found = {name: difference(line, high[name]) for name, line in low.items() if name in high}
    found = {name: line for name, line in found.items() if line.curve}
    lines = [*found.values()]
    if not lines:
        return None
    crossovers = [curve_of(results.metrics, name, "hybrid_crossover").only() for name in found]
    pairs = [count for line in lines for count in line.curve.counts]
    without = [line.label for line, crossover in zip(lines, crossovers, strict=True) if crossover is None]
    none = f" No crossover: {', '.join(without)}." if without else ""
    sentence = (
        f"Hybrids, {range_phrase(pairs)} a network, have one image's frequencies up to the cutoff and those above it "
        f"of another class's image: share of answers that name the low image's class, less the share that name the "
        f"high one's. Marks on the line of 0: the crossover, where both are named equally often"
        f"{' (bars ± SEM)' if any(one is not None and one.sem is not None for one in crossovers) else ''}; the lower, "
        f"the more low frequencies count.{none}"
    )
    at = [
        f"{line.label} {'none' if crossover is None else f'{crossover.mean:.3g}'}"
        for line, crossover in zip(lines, crossovers, strict=True)
    ]
    alt = f"Line chart of which half of hybrid images is named; crossover in cycles per image: {', '.join(at)}."
    drawn = hybrid_difference(lines, crossovers)
    return Panel("frequency-hybrids", drawn, alt), sentence, seeds_behind([line.curve for line in lines])


def _by_condition(results: Measurements, metric: str) -> dict[str, Line]:
    """The curve of every condition in which the metric was measured, by its name."""
    measured = [card.name for card in results.conditions if curve_of(results.metrics, card.name, metric)]
    return dict(zip(measured, lines_of(results, metric), strict=True))
