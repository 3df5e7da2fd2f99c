"""Targets made from targets: the mean over scans, and the shuffled control."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from neuroprior.similarity.match import Missing, matched_rows
from neuroprior.types import AnyTarget, FactoredTarget, InputError, SimilarityTarget, Stimuli
from neuroprior.types.given import refuse_other

_Target = TypeVar("_Target", SimilarityTarget, FactoredTarget)


def average_targets(
    targets: SimilarityTarget | Sequence[SimilarityTarget],
    *,
    missing: Missing = "error",
    stimuli: Stimuli | None = None,
) -> SimilarityTarget:
    """S = E_h S^h, the mean over scans of matrices on the same images, in the order of the first.

    Targets whose stimuli are the same in the same order need nothing else. Otherwise pass `stimuli`, which hold every
    image of every target: each target's digest is compared with theirs, as a digest cannot say of which images it is,
    and the matrices are matched by id. `missing`: "error" where targets hold different images, or "intersection" for
    those that all hold: of each matrix that part, never centred again.

    Raises `InputError` when there is no target, or that says how many images are missing from which, or whose pixels
    are not those of `stimuli`.
    """
    targets = [targets] if isinstance(targets, SimilarityTarget) else targets
    for target in targets:
        refuse_other("average_targets", target, SimilarityTarget)
    if len({target.stimuli_digest for target in targets}) > 1:
        targets = _matched(targets, missing, stimuli)
    shared = shared_fields("average_targets", targets)
    total = np.zeros(targets[0].matrix.shape, dtype=np.float64)
    for target in targets:
        total += target.matrix
    total /= len(targets)
    return replace(targets[0], matrix=total.astype(np.float32), **shared)


def _matched(
    targets: Sequence[SimilarityTarget], missing: Missing, stimuli: Stimuli | None
) -> Sequence[SimilarityTarget]:
    """Return the parts on common images, in the order of the first, once their pixels are known to be the same."""
    ids = [target.image_ids for target in targets]
    rows = matched_rows(
        "average_targets",
        {f"target {k}": one for k, one in enumerate(ids)},
        missing,
        "predict one image set with every scan's twin, or pass missing='intersection' and the stimuli of all",
    )
    if stimuli is None:
        k = next(k for k, target in enumerate(targets) if target.stimuli_digest != targets[0].stimuli_digest)
        raise InputError(
            f"average_targets: target {k} is of other stimuli than target 0 ({len(ids[k])} and {len(ids[0])} images): "
            "others, other pixels or another order; pass the stimuli of all, so that they can be matched"
        )
    for k, target in enumerate(targets):
        try:
            same = stimuli.select(target.image_ids).digest == target.stimuli_digest
        except InputError as error:
            raise InputError(f"average_targets, target {k}: {error}") from None
        if not same:
            raise InputError(
                f"average_targets: target {k} was made from other pixels than the stimuli given; pass those that every "
                "target was made from"
            )
    shown = stimuli.select(ids[0][rows[0]])
    every = len(set().union(*(one.tolist() for one in ids)))
    said = {"images_left_out": every - len(shown)} if every > len(shown) else {}
    return [replace(part, details={**part.details, **said}) for part in (target.select(shown) for target in targets)]


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


def shuffle_target(target: _Target, seed: int = 0) -> _Target:
    """S[p][:, p] with one random permutation p: every value and eigenvalue stays, the images lose them (`shuffle`)."""
    refuse_other("shuffle_target", target, SimilarityTarget, factored=True)
    p = np.random.default_rng(seed).permutation(len(target))
    details = {**target.details, "shuffled_with_seed": seed}
    if isinstance(target, FactoredTarget):
        return replace(target, coordinates=target.coordinates[p], details=details)
    return replace(target, matrix=np.ascontiguousarray(target.matrix[np.ix_(p, p)]), details=details)
