"""Targets made from targets: the mean over scans, and the shuffled control."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuroprior.types import InputError, SimilarityTarget


def average_targets(targets: Sequence[SimilarityTarget]) -> SimilarityTarget:
    """S = E_h S^h, the mean over scans of matrices on the *same* images in the same order.

    Raises `InputError` when there is no target or when two are of different stimuli.
    """
    if not targets:
        raise InputError("average_targets: no target given; pass at least one")
    first = targets[0]
    for k, other in enumerate(targets[1:], start=1):
        if other.stimuli_digest != first.stimuli_digest:
            raise InputError(
                f"average_targets: target {k} is of other stimuli than target 0 "
                f"({len(other)} and {len(first)} images); predict one image set with every scan's twin"
            )
    total = np.zeros(first.matrix.shape, dtype=np.float64)
    for target in targets:
        total += target.matrix
    matrix = (total / len(targets)).astype(np.float32)
    sources = {target.source for target in targets}
    return replace(
        first,
        matrix=matrix,
        source=first.source if len(sources) == 1 else "user",
        n_scans=sum(target.n_scans for target in targets),
        details={
            # What differs between scans (their names, neurons, digests) is true of none of them alone.
            **{k: v for k, v in first.details.items() if all(t.details.get(k) == v for t in targets)},
            "averaged_targets": len(targets),
        },
    )


def shuffle_target(target: SimilarityTarget, seed: int) -> SimilarityTarget:
    """S[p][:, p] with one random permutation p: every value and eigenvalue stays, the images lose them (`shuffle`)."""
    p = np.random.default_rng(seed).permutation(len(target))
    return replace(
        target,
        matrix=np.ascontiguousarray(target.matrix[np.ix_(p, p)]),
        details={**target.details, "shuffled_with_seed": seed},
    )
