"""Targets made from targets: the mean over scans, and the shuffled control."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from neuroprior.types import AnyTarget, FactoredTarget, InputError, SimilarityTarget

_Target = TypeVar("_Target", SimilarityTarget, FactoredTarget)


def average_targets(targets: Sequence[SimilarityTarget]) -> SimilarityTarget:
    """S = E_h S^h, the mean over scans of matrices on the *same* images in the same order.

    Raises `InputError` when there is no target or when two are of different stimuli.
    """
    shared = shared_fields("average_targets", targets)
    total = np.zeros(targets[0].matrix.shape, dtype=np.float64)
    for target in targets:
        total += target.matrix
    return replace(targets[0], matrix=(total / len(targets)).astype(np.float32), **shared)


def shared_fields(what: str, targets: Sequence[AnyTarget]) -> dict[str, Any]:
    """Return what a mean of these targets has beside its values: source, number of scans, details.

    Raises `InputError`, which begins with `what`, when there is no target or when two are of different stimuli.
    """
    if not targets:
        raise InputError(f"{what}: no target given; pass at least one")
    first = targets[0]
    for k, other in enumerate(targets[1:], start=1):
        if other.stimuli_digest != first.stimuli_digest:
            raise InputError(
                f"{what}: target {k} is of other stimuli than target 0 ({len(other)} and {len(first)} images); "
                "predict one image set with every scan's twin"
            )
    return {
        "source": first.source if len({target.source for target in targets}) == 1 else "user",
        "n_scans": sum(target.n_scans for target in targets),
        "details": {
            # What differs between scans (their names, neurons, digests) is true of none of them alone.
            **{k: v for k, v in first.details.items() if all(t.details.get(k) == v for t in targets)},
            "averaged_targets": len(targets),
        },
    }


def shuffle_target(target: _Target, seed: int) -> _Target:
    """S[p][:, p] with one random permutation p: every value and eigenvalue stays, the images lose them (`shuffle`)."""
    p = np.random.default_rng(seed).permutation(len(target))
    details = {**target.details, "shuffled_with_seed": seed}
    if isinstance(target, FactoredTarget):
        return replace(target, coordinates=target.coordinates[p], details=details)
    return replace(target, matrix=np.ascontiguousarray(target.matrix[np.ix_(p, p)]), details=details)
