"""How training went, which layers it used and whether it took: the run to `Plate`s."""

from neuroprior.experiment.results import RunResults
from neuroprior.report.palette import looks_of
from neuroprior.report.plate import Panel, Plate, lines_of, seeds_behind, spread_phrase
from neuroprior.report.tables import WEIGHTED, curve_of, seeds_phrase, taps_of
from neuroprior.report.training_drawings import correlation_per_tap, gamma_over_epochs, over_epochs


def training_plate(results: RunResults) -> Plate:
    """Losses and validation accuracy over epochs."""
    heading = "Training"
    panels, n = [], []
    for metric, words in (
        ("task_loss", "task loss"),
        ("similarity_loss", "similarity loss"),
        ("validation_accuracy", "validation accuracy"),
    ):
        lines = lines_of(results, metric)
        if not lines:
            continue
        drawn = over_epochs(lines, words, as_percent=metric == "validation_accuracy")
        last = [f"{line.label} {line.curve.estimates[-1].mean:.3g}" for line in lines]
        alt = f"Line chart of {words} over epochs; at the end: {', '.join(last)}."
        panels.append(Panel(f"training-{metric.replace('_', '-')}", drawn, alt))
        n += seeds_behind([line.curve for line in lines])
    if not panels:
        return Plate(heading, absent="No training curve is finished.")
    caption = (
        f"Per epoch. {spread_phrase(n, 'bands')} The similarity loss is before its factor α, and only regularised "
        f"conditions have one."
    )
    return Plate(heading, tuple(panels), caption)


def gamma_plate(results: RunResults) -> Plate:
    """Which taps the similarity loss came to use."""
    heading = "Which layers carry the similarity (γ)"
    panels: list[Panel] = []
    n: list[int] = []
    for card in results.conditions:
        taps = taps_of(results.metrics, card.name, "gamma")
        curves = {tap: curve_of(results.metrics, card.name, "gamma", tap) for tap in taps}
        if not curves:
            continue
        last = ", ".join(f"{tap} {curve.estimates[-1].mean:.2f}" for tap, curve in curves.items())
        drawn = gamma_over_epochs(card.label, curves)
        panels.append(Panel(f"gamma-{len(panels)}", drawn, f"γ over epochs, {card.label}; at the end: {last}."))
        n += seeds_behind([*curves.values()])
    if not panels:
        return Plate(heading, absent="No γ is recorded: no regularised condition is finished.")
    drawn_as = "Thick: mean over seeds; thin: each seed" if max(n) > 1 else "One line a tap"
    caption = f"γ = softmax(θ), the share of each tap in S_cnn, by epoch. {drawn_as}; {seeds_phrase(n)}."
    return Plate(heading, tuple(panels), caption)


def taps_plate(results: RunResults) -> Plate:
    """Whether the regularisation took, tap by tap."""
    heading = "Held-out similarity, tap by tap"
    metric = "similarity_correlation"
    taps = [*dict.fromkeys(tap for card in results.conditions for tap in taps_of(results.metrics, card.name, metric))]
    looks, lines, n, cards = looks_of(results.conditions), [], [], []
    for card in results.conditions:
        curves = [curve_of(results.metrics, card.name, metric, tap) for tap in (*taps, None)]
        if taps and any(curves):
            lines.append((card.label, looks[card.name], [curve.only() for curve in curves]))
            n += seeds_behind(curves)
            cards.append(card)
    if not lines:
        return Plate(heading, absent="No similarity correlation per tap is measured.")
    pairs = [
        count for card in cards for tap in taps for count in curve_of(results.metrics, card.name, metric, tap).counts
    ]
    caption = (
        f"Pearson correlation of S_cnn with S_neural on stimuli held out from training, i < j, {min(pairs):,} pairs. "
        f"{spread_phrase(n, 'bars')} S_neural is the first table's, the same for every condition. Without a "
        f"regulariser there is no γ: its taps then weigh the same."
    )
    alt = f"Correlation of network and neural similarity at {len(taps)} taps and γ-weighted, {len(lines)} conditions."
    drawn = correlation_per_tap([*taps, WEIGHTED], lines)
    return Plate(heading, (Panel("similarity-taps", drawn, alt),), caption)
