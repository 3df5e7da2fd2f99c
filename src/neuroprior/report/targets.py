"""The run's similarity targets as numbers: which leads, which are one and the same, their pairs. Nothing here draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuroprior.experiment.results import ConditionCard, RunResults
from neuroprior.types import Float32, SimilarityTarget


def main_target(results: RunResults) -> str | None:
    """Name the condition whose target leads the similarity figures: neural_model, neural_data, else the first."""
    for name in ("neural_model", "neural_data", *(card.name for card in results.conditions)):
        if name in results.targets and len(results.targets[name]) > 1:
            return name
    return None


@dataclass(frozen=True, slots=True)
class Shared:
    """A target, the first condition that has it, and the labels of the others that do."""

    card: ConditionCard
    target: SimilarityTarget
    others: tuple[str, ...] = ()


def distinct_targets(results: RunResults) -> list[Shared]:
    """Return every target of the run once: variants that differ in alpha alone train on one matrix."""
    found: list[Shared] = []
    for card in results.conditions:
        target = results.targets.get(card.name)
        if target is None or len(target) < 2:
            continue
        for k, known in enumerate(found):
            if _same(known.target, target):
                found[k] = replace(known, others=(*known.others, card.label))
                break
        else:
            found.append(Shared(card, target))
    return found


def _same(a: SimilarityTarget, b: SimilarityTarget) -> bool:
    # One row tells nearly all that differ apart, without reading two large matrices.
    if a.stimuli_digest != b.stimuli_digest or not np.array_equal(a.matrix[0], b.matrix[0]):
        return False
    return np.array_equal(a.image_ids, b.image_ids) and np.array_equal(a.matrix, b.matrix)


def part_of(target: SimilarityTarget, ids: Sequence[str]) -> Float32[np.ndarray, "image image"] | None:
    """S of these images, or None where one is not in the target. Never re-centred."""
    row = {name: i for i, name in enumerate(target.image_ids.tolist())}
    if any(name not in row for name in ids):
        return None
    rows = np.array([row[name] for name in ids], dtype=np.int64)
    part: np.ndarray = target.matrix[np.ix_(rows, rows)]
    return part


def pairs_of(similarity: Float32[np.ndarray, "image image"]) -> Float32[np.ndarray, " pair"]:
    """Return S_ij for i < j, row after row."""
    n = len(similarity)
    if n < 2:
        return np.empty(0, dtype=np.float32)
    pairs: np.ndarray = np.concatenate([similarity[i, i + 1 :] for i in range(n - 1)])
    return pairs


def leaf_order(similarity: Float32[np.ndarray, "image image"]) -> list[int]:
    """Order images by the leaves of average-linkage clustering on 1 - S, neighbouring leaves made alike."""
    if len(similarity) < 3:
        return list(range(len(similarity)))
    from scipy.cluster.hierarchy import leaves_list, linkage  # type: ignore[import-untyped]

    distances = 1.0 - pairs_of(similarity).astype(np.float64)
    order: list[int] = leaves_list(linkage(distances, method="average", optimal_ordering=True)).tolist()
    return order


def extreme_pairs(
    similarity: Float32[np.ndarray, "image image"], count: int, *, most: bool
) -> list[tuple[int, int, float]]:
    """Return the `count` pairs i < j with the largest (or smallest) S, no image in two of them, extreme first."""
    sign = 1.0 if most else -1.0
    free = np.ones(len(similarity), dtype=bool)
    found: list[tuple[int, int, float]] = []
    while len(found) < count and int(free.sum()) >= 2:
        best, pair = -math.inf, (0, 0)
        for i in np.flatnonzero(free)[:-1]:
            row = np.where(free[i + 1 :], sign * similarity[i, i + 1 :], -np.inf)
            j = int(row.argmax())
            if row[j] > best:
                best, pair = float(row[j]), (int(i), int(i) + 1 + j)
        found.append((*pair, sign * best))
        free[list(pair)] = False
    return found
