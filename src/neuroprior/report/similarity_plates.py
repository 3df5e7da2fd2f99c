"""What the targets are like and how near they come to the truth: the run to `Plate`s."""

import math
from collections.abc import Sequence

import numpy as np

from neuroprior.experiment.results import RunResults
from neuroprior.report.image_drawings import image_pairs
from neuroprior.report.palette import looks_of
from neuroprior.report.plate import Panel, Plate
from neuroprior.report.similarity_drawings import against_truth, similarity_histogram, similarity_matrix
from neuroprior.report.tables import minus
from neuroprior.report.targets import (
    Shared,
    distinct_targets,
    extreme_pairs,
    leaf_order,
    main_target,
    pairs_of,
    part_of,
)
from neuroprior.similarity import pair_correlation

_MATRIX_IMAGES = 100
_MATRICES = 6
_PAIRS = 4
_NO_TARGET = "No condition of this run has a similarity target."


def matrix_plate(results: RunResults) -> Plate:
    """The targets as matrices, images in one order for all (the paper's Figure 1A, B)."""
    heading = "Similarity targets"
    main = main_target(results)
    if main is None:
        return Plate(heading, absent=_NO_TARGET)
    target = results.targets[main]
    rows = np.unique(np.linspace(0, len(target) - 1, min(_MATRIX_IMAGES, len(target))).round().astype(np.int64))
    order = leaf_order(np.ascontiguousarray(target.matrix[np.ix_(rows, rows)]))
    ids: list[str] = target.image_ids[rows][order].tolist()
    shared = sorted(distinct_targets(results), key=lambda one: not np.array_equal(one.target.matrix, target.matrix))
    parts = [(one, part) for one in shared if (part := part_of(one.target, ids)) is not None]
    left_out = [one.card.label for one in shared if one.card not in [drawn.card for drawn, _ in parts[:_MATRICES]]]
    parts = parts[:_MATRICES]
    limit = max(float(np.quantile(np.abs(pairs_of(parts[0][1])), 0.99)), 1e-3)
    panels = tuple(
        Panel(
            f"similarity-matrix-{k}",
            similarity_matrix(one.card.label, part, limit),
            f"Similarity matrix of {len(ids)} images, target of {one.card.label}; off-diagonal S from "
            f"{minus(f'{pairs_of(part).min():.2f} to {pairs_of(part).max():.2f}')}.",
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
    shared = distinct_targets(results)
    if not shared:
        return Plate(heading, absent=_NO_TARGET)
    looks = looks_of(results.conditions)
    values = [(one.card.label, looks[one.card.name], pairs_of(one.target.matrix)) for one in shared]
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
    return Plate(heading, (Panel("similarity-histogram", similarity_histogram(values), alt),), caption)


def truth_plate(results: RunResults) -> Plate:
    """How near the targets are to the noise-free similarity (the paper's Figure 1D, where truth is known)."""
    heading = "Targets against the truth"
    if results.truth is None:
        return Plate(heading, absent="The noise-free similarity is not known here: a scatter needs a simulated mouse.")
    names = [name for name in ("neural_data", "neural_model") if name in results.targets]
    names = names or [name for name in (main_target(results),) if name is not None]
    looks = looks_of(results.conditions)
    panels: list[Panel] = []
    said = []
    for card in (card for card in results.conditions if card.name in names):
        target = results.targets[card.name]
        here = set(target.image_ids.tolist())
        ids = [name for name in results.truth.image_ids.tolist() if name in here]
        truth, part = part_of(results.truth, ids), part_of(target, ids)
        if truth is None or part is None or len(ids) < 3:
            continue
        x, y = pairs_of(truth), pairs_of(part)
        if np.array_equal(x, y):
            said.append(f"{card.label}'s target is the truth itself, so it is not drawn")
            continue
        r = pair_correlation(x, y)
        words = (
            f"{card.label}: r = {minus(f'{r:z.2f}')}"
            if math.isfinite(r)
            else f"{card.label}: r is not defined (no variation)"
        )
        said.append(f"{words}, n = {len(x):,} pairs")
        drawn = against_truth(card.label, looks[card.name], x, y)
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
        pairs = extreme_pairs(target.matrix, _PAIRS, most=most)
        shown = [
            (np.stack([pixels[str(target.image_ids[i])], pixels[str(target.image_ids[j])]]), value)
            for i, j, value in pairs
        ]
        values = ", ".join(minus(f"{value:z.2f}") for _, value in shown)
        alt = f"{name} similar image pairs, S = {values}."
        panels.append(Panel(f"pairs-{name.lower()}", image_pairs(f"{name} similar", shown), alt))
    label = next(card.label for card in results.conditions if card.name == main)
    caption = (
        f"The {len(shown)} pairs with the largest and the smallest S of n = {len(target):,} images in the target of "
        f"{label}, no image in two pairs of one kind. Single values of a fixed target: no spread."
    )
    return Plate(heading, tuple(panels), caption)


def _sharing(shared: Sequence[Shared]) -> str:
    said = [f"{one.card.label} (also of {', '.join(one.others)})" for one in shared if one.others]
    return f" One target for several conditions, drawn once: {'; '.join(said)}." if said else ""
