"""The report's figures, each with its caption, in the order of the page: `RunResults` to `Plate`s."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure

from neuroprior.experiment.results import ConditionCard, RunResults
from neuroprior.report import figures
from neuroprior.report.palette import Look, looks_of
from neuroprior.report.sweep import alpha_series, blur_row
from neuroprior.report.tables import (
    WEIGHTED,
    Curve,
    curve_of,
    minus,
    noise_curve,
    seeds_phrase,
    taps_of,
)
from neuroprior.report.tradeoff import frontier_sentence, main_level, tradeoff
from neuroprior.types import Float32, SimilarityTarget

_MATRIX_IMAGES = 100
_MATRICES = 6
_PAIRS = 4
_EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing: `name` for files and ids, `alt` for who cannot see it."""

    name: str
    figure: Figure
    alt: str


@dataclass(frozen=True, slots=True)
class Plate:
    """One figure of the page, of one or more panels; `absent` says in one line why there is none."""

    heading: str
    panels: tuple[Panel, ...] = ()
    caption: str = ""
    absent: str = ""


def _looks(results: RunResults) -> dict[str, Look]:
    return looks_of(results.conditions)


def _lines(results: RunResults, curve_for: Callable[[str], Curve]) -> list[figures.Line]:
    looks = _looks(results)
    found = [(card, curve) for card in results.conditions if (curve := curve_for(card.name))]
    return [figures.Line(card.label, curve, looks[card.name]) for card, curve in found]


def _seeds(curves: Sequence[Curve]) -> list[int]:
    return [estimate.n for curve in curves for estimate in curve.estimates]


def _bands(n: Sequence[int]) -> str:
    return f"{'Mean, bands ± SEM (ddof 1), ' if max(n) > 1 else ''}{seeds_phrase(n)}."


def noise_plate(results: RunResults) -> Plate:
    """Accuracy against noise (the paper's Figure 4)."""
    return _accuracy_plate(
        results,
        "noise",
        "Accuracy under Gaussian noise",
        "noise_accuracy",
        ("noise σ", "σ", "with Gaussian noise of standard deviation σ added to the pixels"),
        absent="No noise measurement is finished.",
    )


def attack_plate(results: RunResults) -> Plate:
    """Accuracy that an attack left, against its radius."""
    return _accuracy_plate(
        results,
        "attack",
        "Accuracy under attack (Linf, fixed radius)",
        "linf_accuracy",
        ("radius ε", "ε", "after projected gradient ascent on the margin moved each pixel by at most ε"),
        absent="No attack is finished.",
    )


def _accuracy_plate(
    results: RunResults, name: str, heading: str, metric: str, words: tuple[str, str, str], absent: str
) -> Plate:
    axis, symbol, what = words
    lines = _lines(results, lambda condition: curve_of(results.metrics, condition, metric))
    if not lines:
        return Plate(heading, absent=absent)
    n = _seeds([line.curve for line in lines])
    images = {count for line in lines for count in line.curve.counts}
    tested = f"{min(images):,}" if len(images) == 1 else f"{min(images):,} to {max(images):,}"
    chance = None if results.n_classes is None else 1 / results.n_classes
    caption = f"Accuracy on {tested} test images {what}. {_bands(n)}{' Dotted: chance.' if chance else ''}"
    last = [
        f"{line.label} {100 * line.curve.estimates[-1].mean:.1f} % at {symbol} = {line.curve.x[-1]:g}" for line in lines
    ]
    alt = f"Line chart of test accuracy against {axis}, {len(lines)} conditions; at the right end: {', '.join(last)}."
    return Plate(heading, (Panel(name, figures.accuracy_curves(lines, axis, chance), alt),), caption)


def tradeoff_plate(results: RunResults) -> Plate:
    """Robustness against what it costs on clean images."""
    heading = "Robustness at matched clean accuracy"
    found = tradeoff(results)
    if found is None:
        return Plate(heading, absent="No condition has both a clean and a noisy accuracy yet.")
    looks = _looks(results)
    spots = [
        figures.Spot(point.card.label, looks[point.card.name], point.clean, point.noisy, point.by_seed)
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
    drawn = figures.labelled_spots(
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


def sweep_plate(results: RunResults) -> Plate:
    """Accuracy against alpha (the paper's Figure 6)."""
    heading = "How much of the prior: accuracy against α"
    sigma, series = main_level(results), alpha_series(results)
    if sigma is None or not series:
        return Plate(heading, absent="No condition has a noise measurement at two values of α.")
    without = noise_curve(results, "none").at(sigma)
    alphas = sorted({*([] if without is None else [0.0]), *(alpha for one in series for alpha in one.alphas)})
    looks, lines, n = _looks(results), [], []
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
        return Plate(heading, absent="No condition has a noise measurement at two values of α.")
    spread = "Mean, bars ± SEM (ddof 1), " if max(n) > 1 else ""
    caption = (
        f"Accuracy at σ = {sigma:g}. {spread}{seeds_phrase(n)}. α = 0 is the condition without a prior, one point for "
        f"every line without attacks in training. Values of α stand at equal distances. A larger α also costs clean "
        f"accuracy: see the figure above."
    )
    alt = f"Line chart of accuracy at σ = {sigma:g} against α = {', '.join(f'{alpha:g}' for alpha in alphas)}."
    return Plate(heading, (Panel("sweep", figures.against_alpha(alphas, lines), alt),), caption)


def examples_plate(results: RunResults) -> Plate:
    """What the noise looks like."""
    heading = "What the noise looks like"
    levels = sorted(set(results.noise_levels))
    if not len(results.examples.images) or not levels:
        return Plate(heading, absent="The run keeps no example images.")
    chosen = [levels[k] for k in sorted({round(k) for k in np.linspace(0, len(levels) - 1, min(5, len(levels)))})]
    images = results.examples.images[:_EXAMPLES]
    figure = figures.noisy_images(images, results.examples.labels, chosen)
    caption = (
        f"{len(images)} test images x + σ n at {len(chosen)} of the {len(levels)} noise levels; n is the same along a "
        f"row. Clipped to [0, 1] for display only. Drawn for this page: the measurement's own noise is another draw."
    )
    alt = f"Grid of {len(images)} test images, noise growing from σ = {chosen[0]:g} to σ = {chosen[-1]:g}."
    return Plate(heading, (Panel("noise-examples", figure, alt),), caption)


def main_target(results: RunResults) -> str | None:
    """Name the condition whose target leads the similarity figures: neural_model, neural_data, else the first."""
    for name in ("neural_model", "neural_data", *(card.name for card in results.conditions)):
        if name in results.targets and len(results.targets[name]) > 1:
            return name
    return None


def _part(target: SimilarityTarget, ids: Sequence[str]) -> Float32[np.ndarray, "image image"] | None:
    """S of these images, or None where one is not in the target. Never re-centred."""
    row = {name: i for i, name in enumerate(target.image_ids.tolist())}
    if any(name not in row for name in ids):
        return None
    rows = np.array([row[name] for name in ids], dtype=np.int64)
    part: np.ndarray = target.matrix[np.ix_(rows, rows)]
    return part


@dataclass(frozen=True, slots=True)
class _Shared:
    """A target, the first condition that has it, and the labels of the others that do."""

    card: ConditionCard
    target: SimilarityTarget
    others: tuple[str, ...] = ()


def _distinct(results: RunResults) -> list[_Shared]:
    """Return every target of the run once: variants that differ in alpha alone train on one matrix."""
    found: list[_Shared] = []
    for card in results.conditions:
        target = results.targets.get(card.name)
        if target is None or len(target) < 2:
            continue
        for k, known in enumerate(found):
            if _same(known.target, target):
                found[k] = replace(known, others=(*known.others, card.label))
                break
        else:
            found.append(_Shared(card, target))
    return found


def _same(a: SimilarityTarget, b: SimilarityTarget) -> bool:
    # One row tells nearly all that differ apart, without reading two large matrices.
    if a.stimuli_digest != b.stimuli_digest or not np.array_equal(a.matrix[0], b.matrix[0]):
        return False
    return np.array_equal(a.image_ids, b.image_ids) and np.array_equal(a.matrix, b.matrix)


def _sharing(shared: Sequence[_Shared]) -> str:
    said = [f"{one.card.label} (also of {', '.join(one.others)})" for one in shared if one.others]
    return f" One target for several conditions, drawn once: {'; '.join(said)}." if said else ""


_NO_TARGET = "No condition of this run has a similarity target."


def matrix_plate(results: RunResults) -> Plate:
    """The targets as matrices, images in one order for all (the paper's Figure 1A, B)."""
    heading = "Similarity targets"
    main = main_target(results)
    if main is None:
        return Plate(heading, absent=_NO_TARGET)
    target = results.targets[main]
    rows = np.unique(np.linspace(0, len(target) - 1, min(_MATRIX_IMAGES, len(target))).round().astype(np.int64))
    order = figures.leaf_order(np.ascontiguousarray(target.matrix[np.ix_(rows, rows)]))
    ids: list[str] = target.image_ids[rows][order].tolist()
    shared = sorted(_distinct(results), key=lambda one: not np.array_equal(one.target.matrix, target.matrix))
    parts = [(one, part) for one in shared if (part := _part(one.target, ids)) is not None]
    left_out = [one.card.label for one in shared if one.card not in [drawn.card for drawn, _ in parts[:_MATRICES]]]
    parts = parts[:_MATRICES]
    limit = max(float(np.quantile(np.abs(figures.pairs_of(parts[0][1])), 0.99)), 1e-3)
    panels = tuple(
        Panel(
            f"similarity-matrix-{k}",
            figures.similarity_matrix(one.card.label, part, limit),
            f"Similarity matrix of {len(ids)} images, target of {one.card.label}; off-diagonal S from "
            f"{minus(f'{figures.pairs_of(part).min():.2f} to {figures.pairs_of(part).max():.2f}')}.",
        )
        for k, (one, part) in enumerate(parts)
    )
    label = parts[0][0].card.label
    caption = (
        f"n = {len(ids)} of {len(target):,} images, ordered by average-linkage clustering of {label}'s target, the "
        f"same order in every panel; colour saturates at |S| = {limit:.2f}, the 99th percentile off its diagonal. "
        f"Targets are fixed: no spread.{_sharing([one for one, _ in parts])}"
    )
    for one, _ in parts[1:]:
        seed = one.target.details.get("shuffled_with_seed")
        if seed is not None:
            caption += f" {one.card.label}: one of its permutations (seed {seed}); every network seed has its own."
    if left_out:
        caption += f" Not drawn: {', '.join(left_out)}."
    return Plate(heading, panels, caption)


def histogram_plate(results: RunResults) -> Plate:
    """How the values of the targets are distributed."""
    heading = "Distribution of the target's values"
    shared = _distinct(results)
    if not shared:
        return Plate(heading, absent=_NO_TARGET)
    looks = _looks(results)
    values = [(one.card.label, looks[one.card.name], figures.pairs_of(one.target.matrix)) for one in shared]
    said = [
        f"{label}: mean {minus(f'{pairs.mean():z.3f}')}, standard deviation {pairs.std():.3f}"
        for label, _, pairs in values
    ]
    counts = {len(pairs) for _, _, pairs in values}
    caption = (
        f"All off-diagonal values of the targets, n = {' or '.join(f'{n:,}' for n in sorted(counts))} image pairs "
        f"i < j. Over pairs, {'; '.join(said)}. Shuffling moves values between pairs and keeps their "
        f"distribution.{_sharing(shared)}"
    )
    alt = f"Histogram of off-diagonal similarity. {'; '.join(said)}."
    return Plate(heading, (Panel("similarity-histogram", figures.similarity_histogram(values), alt),), caption)


def truth_plate(results: RunResults) -> Plate:
    """How near the targets are to the noise-free similarity (the paper's Figure 1D, where truth is known)."""
    heading = "Targets against the truth"
    if results.truth is None:
        return Plate(heading, absent="The noise-free similarity is not known here: a scatter needs a simulated mouse.")
    names = [name for name in ("neural_data", "neural_model") if name in results.targets]
    names = names or [name for name in (main_target(results),) if name is not None]
    looks = _looks(results)
    panels: list[Panel] = []
    said = []
    for card in (card for card in results.conditions if card.name in names):
        target = results.targets[card.name]
        here = set(target.image_ids.tolist())
        ids = [name for name in results.truth.image_ids.tolist() if name in here]
        truth, part = _part(results.truth, ids), _part(target, ids)
        if truth is None or part is None or len(ids) < 3:
            continue
        x, y = figures.pairs_of(truth), figures.pairs_of(part)
        if np.array_equal(x, y):
            said.append(f"{card.label}'s target is the truth itself, so it is not drawn")
            continue
        r = figures.correlation(x, y)
        words = (
            f"{card.label}: r = {minus(f'{r:z.2f}')}"
            if math.isfinite(r)
            else f"{card.label}: r is not defined (no variation)"
        )
        said.append(f"{words}, n = {len(x):,} pairs")
        drawn = figures.against_truth(card.label, looks[card.name], x, y)
        alt = f"Scatter of the target of {card.label} against true similarity. {said[-1]}."
        panels.append(Panel(f"similarity-truth-{len(panels)}", drawn, alt))
    if not panels:
        no_target = "No target shares three images with the known truth"
        return Plate(heading, absent=f"{'; '.join(said) or no_target}.")
    caption = (
        f"Off-diagonal pairs only. {'; '.join(said)} (r over all of them; at most 3,000 drawn). Dashed: identity. One "
        f"simulated recording, no spread."
    )
    return Plate(heading, tuple(panels), caption)


def pairs_plate(results: RunResults) -> Plate:
    """Most and least alike images (the paper's Figure 2)."""
    heading = "Most and least similar images"
    main = main_target(results)
    if main is None:
        return Plate(heading, absent=_NO_TARGET)
    target = results.targets[main]
    pixels = dict(zip(results.stimuli.ids.tolist(), results.stimuli.pixels, strict=True))
    if any(name not in pixels for name in target.image_ids.tolist()):
        return Plate(heading, absent="The run does not keep the stimuli of its main target.")
    panels = []
    for name, most in (("Most", True), ("Least", False)):
        pairs = figures.extreme_pairs(target.matrix, _PAIRS, most=most)
        shown = [
            (np.stack([pixels[str(target.image_ids[i])], pixels[str(target.image_ids[j])]]), value)
            for i, j, value in pairs
        ]
        values = ", ".join(minus(f"{value:z.2f}") for _, value in shown)
        alt = f"{name} similar image pairs, S = {values}."
        panels.append(Panel(f"pairs-{name.lower()}", figures.image_pairs(f"{name} similar", shown), alt))
    label = next(card.label for card in results.conditions if card.name == main)
    caption = (
        f"The {len(shown)} pairs with the largest and the smallest S of n = {len(target):,} images in the target of "
        f"{label}, no image in two pairs of one kind. Single values of a fixed target: no spread."
    )
    return Plate(heading, tuple(panels), caption)


def training_plate(results: RunResults) -> Plate:
    """Losses and validation accuracy over epochs."""
    heading = "Training"
    panels, n = [], []
    for metric, words in (
        ("task_loss", "task loss"),
        ("similarity_loss", "similarity loss"),
        ("validation_accuracy", "validation accuracy"),
    ):
        lines = _lines(results, lambda name, metric=metric: curve_of(results.metrics, name, metric))  # type: ignore[misc]
        if not lines:
            continue
        drawn = figures.over_epochs(lines, words, as_percent=metric == "validation_accuracy")
        last = [f"{line.label} {line.curve.estimates[-1].mean:.3g}" for line in lines]
        alt = f"Line chart of {words} over epochs; at the end: {', '.join(last)}."
        panels.append(Panel(f"training-{metric.replace('_', '-')}", drawn, alt))
        n += _seeds([line.curve for line in lines])
    if not panels:
        return Plate(heading, absent="No training curve is finished.")
    caption = (
        f"Per epoch. {_bands(n)} The similarity loss is before its factor α, and only regularised conditions have one."
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
        drawn = figures.gamma_over_epochs(card.label, curves)
        panels.append(Panel(f"gamma-{len(panels)}", drawn, f"γ over epochs, {card.label}; at the end: {last}."))
        n += _seeds([*curves.values()])
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
    looks, lines, n, cards = _looks(results), [], [], []
    for card in results.conditions:
        curves = [curve_of(results.metrics, card.name, metric, tap) for tap in (*taps, None)]
        if taps and any(curves):
            lines.append((card.label, looks[card.name], [curve.only() for curve in curves]))
            n += _seeds(curves)
            cards.append(card)
    if not lines:
        return Plate(heading, absent="No similarity correlation per tap is measured.")
    spread = "Mean, bars ± SEM (ddof 1), " if max(n) > 1 else ""
    pairs = [
        count for card in cards for tap in taps for count in curve_of(results.metrics, card.name, metric, tap).counts
    ]
    caption = (
        f"Pearson correlation of S_cnn with S_neural on stimuli held out from training, i < j, {min(pairs):,} pairs. "
        f"{spread}{seeds_phrase(n)}. S_neural is the first table's, the same for every condition. Without a "
        f"regulariser there is no γ: its taps then weigh the same."
    )
    alt = f"Correlation of network and neural similarity at {len(taps)} taps and γ-weighted, {len(lines)} conditions."
    drawn = figures.correlation_per_tap([*taps, WEIGHTED], lines)
    return Plate(heading, (Panel("similarity-taps", drawn, alt),), caption)
