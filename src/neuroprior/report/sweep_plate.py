"""Accuracy against alpha: the run to a `Plate`."""

from neuroprior.experiment.results import RunResults
from neuroprior.report.palette import looks_of
from neuroprior.report.plate import Panel, Plate, spread_phrase
from neuroprior.report.sweep import alpha_series
from neuroprior.report.sweep_drawing import against_alpha
from neuroprior.report.tables import noise_curve
from neuroprior.report.tradeoff import main_level


def sweep_plate(results: RunResults) -> Plate:
    """Accuracy against alpha (the paper's Figure 6)."""
    heading = "How much of the prior: accuracy against α"
    absent = Plate(heading, absent="No condition has a noise measurement at two values of α.")
    sigma, series = main_level(results), alpha_series(results)
    if sigma is None or not series:
        return absent
    without = noise_curve(results, "none").at(sigma)
    alphas = sorted({*([] if without is None else [0.0]), *(alpha for one in series for alpha in one.alphas)})
    looks, lines, n = looks_of(results.conditions), [], []
    for one in series:
        at = {
            alpha: noise_curve(results, card.name).at(sigma) for alpha, card in zip(one.alphas, one.cards, strict=True)
        }
        if not one.head.adversarial:  # `none` was not trained on attacked images
            at.setdefault(0.0, without)
        estimates = [at.get(alpha) for alpha in alphas]
        if any(estimates):
            lines.append((one.label, looks[one.head.name], estimates))
            n += [estimate.n for estimate in estimates if estimate is not None]
    if not lines:
        return absent
    caption = (
        f"Accuracy at σ = {sigma:g}. {spread_phrase(n, 'bars')} α = 0 is the condition without a prior, one point for "
        f"every line without attacks in training. Values of α stand at equal distances. A larger α also costs clean "
        f"accuracy: see the figure above."
    )
    alt = f"Line chart of accuracy at σ = {sigma:g} against α = {', '.join(f'{alpha:g}' for alpha in alphas)}."
    return Plate(heading, (Panel("sweep", against_alpha(alphas, lines), alt),), caption)
