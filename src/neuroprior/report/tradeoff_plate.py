"""Robustness against what it costs on clean images: the run to a `Plate`."""

from neuroprior.experiment.results import RunResults
from neuroprior.report.palette import looks_of
from neuroprior.report.plate import Panel, Plate
from neuroprior.report.sweep import alpha_series, blur_row
from neuroprior.report.tables import seeds_phrase
from neuroprior.report.tradeoff import frontier_sentence, tradeoff
from neuroprior.report.tradeoff_drawing import Spot, labelled_spots


def tradeoff_plate(results: RunResults) -> Plate:
    """Robustness against what it costs on clean images."""
    heading = "Robustness at matched clean accuracy"
    found = tradeoff(results)
    if found is None:
        return Plate(heading, absent="No condition has both a clean and a noisy accuracy yet.")
    looks = looks_of(results.conditions)
    spots = [
        Spot(point.card.label, looks[point.card.name], point.clean, point.noisy, point.by_seed)
        for point in found.points
    ]
    where = {point.card.name: k for k, point in enumerate(found.points)}
    rows = [*(series.cards for series in alpha_series(results)), blur_row(results)]
    joined = [row for cards in rows if len(row := [where[card.name] for card in cards if card.name in where]) > 1]
    n = [point.noisy.n for point in found.points]
    crosses = "Cross-bars: ± SEM over seeds (ddof 1); small dots: single seeds; " if max(n) > 1 else ""
    caption = (
        f"Accuracy at σ = {found.sigma:g} against accuracy on clean images. {crosses}{seeds_phrase(n)}. Up and right "
        f"is better. Losing clean accuracy often buys some robustness by itself: a condition on the line of blur buys "
        f"nothing over blur. Dotted: {_lower(frontier_sentence(found))}"
        f"{' Joined: one kind in order of α, or no blur and blur in order of its width.' if joined else ''} "
        f"Clean accuracy is matched by interpolation, not by training to it, and one noise level on one set of test "
        f"images is not robustness at large."
    )
    at = [f"{spot.label} {100 * spot.x.mean:.1f} % clean, {100 * spot.y.mean:.1f} % noisy" for spot in spots]
    drawn = labelled_spots(
        spots,
        joined,
        found.hull,
        "accuracy on clean images",
        f"accuracy at σ = {found.sigma:g}",
    )
    alt = f"Scatter of accuracy at σ = {found.sigma:g} against clean accuracy: {'; '.join(at)}."
    return Plate(heading, (Panel("tradeoff", drawn, alt),), caption)


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
