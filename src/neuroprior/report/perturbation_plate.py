"""How near the nearest adversarial is, and how soon it is found (the paper's Figure 5): the run to a `Plate`."""

from itertools import cycle

from matplotlib.figure import Figure

from neuroprior.experiment.results import Measurements
from neuroprior.report.drawing import Line
from neuroprior.report.palette import LOOKS, looks_of
from neuroprior.report.perturbation_drawing import descent_curves
from neuroprior.report.perturbations import NORMS, descent, descent_of, norms_attacked, queries_of
from neuroprior.report.plate import Panel, Plate, seeds_behind, spread_phrase
from neuroprior.report.svg import house_style
from neuroprior.report.tables import range_phrase
from neuroprior.robustness.ledger import Count, Ledger
from neuroprior.types import InputError


def perturbation_plate(results: Measurements) -> Plate:
    """A panel a norm: median smallest perturbation so far against the gradients spent on an image."""
    heading = "Smallest perturbation found, by gradients spent"
    looks = looks_of(results.conditions)
    panels, n, images = [], list[int](), list[int]()
    for norm in norms_attacked(results):
        assert results.attacks is not None  # norms_attacked says so
        queries = queries_of(results.attacks.of(norm=norm))
        found = [(card, descent_of(results, card.name, norm, queries)) for card in results.conditions]
        lines = [Line(card.label, curve, looks[card.name]) for card, curve in found if curve]
        if not lines:
            continue
        n += seeds_behind([line.curve for line in lines])
        images += [count for line in lines for count in line.curve.counts]
        last = [f"{line.label} {line.curve.estimates[-1].mean:.3g}" for line in lines]
        alt = f"Line chart of the median {NORMS[norm]} perturbation against gradients; at the end: {', '.join(last)}."
        panels.append(Panel(f"perturbation-{norm}", descent_curves(lines, NORMS[norm]), alt))
    if not panels:
        return Plate(heading, absent="No search for perturbations is finished, or half of the images had none.")
    caption = (
        f"Median over {range_phrase(images)} test images of the nearest adversarial so far; an image that is already "
        f"misclassified counts 0. Attacks run one after another, each from what the ones before found. "
        f"{spread_phrase(n, 'bands')}"
    )
    return Plate(heading, tuple(panels), caption)


def perturbation_figure(ledger: Ledger, *, norm: str | None = None, count: Count = "gradients") -> Figure:
    """Figure 5 of any ledger: median nearest adversarial so far against the queries spent, a line a network.

    `count`: `gradients` or `forwards`. Raises `InputError` for a ledger of several norms where none is named, or one
    that has not what is asked for.
    """
    if norm is None and len(ledger.norms) > 1:
        raise InputError(f"figure: the ledger has norms {', '.join(ledger.norms)}; name one, norm={ledger.norms[0]!r}")
    norm = norm or ledger.norms[0]
    part = ledger.of(norm=norm)
    queries = queries_of(part, count)
    looks = cycle(LOOKS.values())
    lines = [Line(model, descent({0: part.of(model=model)}, queries, count), next(looks)) for model in part.models]
    shown = [line for line in lines if line.curve]
    if not shown:
        raise InputError("figure: of no network is half of the images fooled; nothing to draw")
    with house_style():
        return descent_curves(shown, NORMS.get(norm, norm), count)
