"""Eq. 4 and 5: how far similarities move from scan to scan, and from one pair of trials to the next (Figure 1C).

Eq. 4 is about averages over trials, of different images; Eq. 5 about single pairs of trials, of the same image: they
differ by construction. The matched comparison is of single trials and different images on both sides:
`scan_fluctuation` of each scan's S_data (`single_trial_similarity`) against `pair_fluctuation`.
"""

from collections.abc import Sequence

import numpy as np
import torch

from neuroprior.reliability import ImageIds
from neuroprior.similarity.oracle import oracle_of, same_kind, trial_namer, used_trials
from neuroprior.similarity.unit import Responses, as_weights, unit_vectors
from neuroprior.types import Float, InputError, Shaped

__all__ = ["pair_fluctuation", "repeat_fluctuation", "scan_fluctuation"]


def scan_fluctuation(
    matrices: Sequence[Responses] | Float[Responses, "scan image image"],
) -> Float[Responses, "scan pair"]:
    """`S^h_ij - E_h S^h_ij` (Eq. 4), one row a scan `h`, one column a pair `i < j` in the order of `np.triu_indices`.

    `matrices`: two or more, symmetric, of the same images in the same order (`align_matrices` brings them there); the
    diagonal is not looked at. Of the kind and dtype given. Raises `InputError` where they do not fit or are not finite.
    """
    if len(matrices) < 2:
        raise InputError(f"scan_fluctuation: {len(matrices)} matrices given; pass one a scan, of at least 2 scans")
    n = len(matrices[0])
    above = np.triu_indices(n, 1)
    pairs = []
    for h, matrix in enumerate(matrices):
        if tuple(matrix.shape) != (n, n) or n < 2:
            raise InputError(
                f"scan_fluctuation: matrix {h} is {tuple(matrix.shape)}, the first one of {n} images; pass square "
                "matrices of the same 2 or more images"
            )
        values = torch.as_tensor(matrix[above].copy() if isinstance(matrix, np.ndarray) else matrix.detach()[above])
        if not bool(torch.isfinite(values).all()):
            at = int((~torch.isfinite(values)).nonzero()[0, 0])
            raise InputError(
                f"scan_fluctuation: similarity of images {above[0][at]} and {above[1][at]} in matrix {h} is "
                f"{float(values[at])}; drop the image"
            )
        pairs.append(values)
    s = torch.stack(pairs)
    # deviations from one scan first: scans that agree exactly then fluctuate by exactly 0
    deviation = (s - s[0]).to(torch.float64)
    return same_kind(matrices[0], (deviation - deviation.mean(dim=0)).to(s.dtype))


def repeat_fluctuation(
    responses: Shaped[Responses, "trial neuron"], image_ids: ImageIds, weights: Shaped[Responses, " neuron"]
) -> Float[Responses, " pair"]:
    """`e_it1 . e_it2 - S^oracle_ii` (Eq. 5) for the trials `t1 < t2` of each image.

    Images in the order of `oracle_similarity`'s ids, and of each the pairs of its trials, as these came, in the order
    of `np.triu_indices`; an image's values sum to 0. Arguments, kinds and errors as in `oracle_similarity`.
    """
    trials = used_trials(responses, image_ids)
    w = as_weights(weights, responses, "repeat_fluctuation")
    e = unit_vectors(responses, w, trial_namer(trials), trials.order)
    deviations = []
    for one in e.split_with_sizes(trials.repeats.tolist()):
        first, second = torch.triu_indices(len(one), len(one), 1, device=e.device)
        values = (one @ one.T)[first, second].clamp_(-1, 1)
        deviations.append(values - values.mean())  # the mean over pairs of different trials is S^oracle_ii
    return same_kind(responses, torch.cat(deviations))


def pair_fluctuation(
    responses: Shaped[Responses, "trial neuron"], image_ids: ImageIds, weights: Shaped[Responses, " neuron"]
) -> Float[Responses, " pair"]:
    """`e_it . e_jt' - S^oracle_ij` for all pairs of trials of *different* images `i < j`: Eq. 5 matched to Eq. 4.

    For each image `i`, in the order of the ids, its trials in turn, each with all trials of the later images. Values
    grow with the square of the number of trials. Arguments, kinds and errors as in `oracle_similarity`.
    """
    trials = used_trials(responses, image_ids)
    w = as_weights(weights, responses, "pair_fluctuation")
    e = unit_vectors(responses, w, trial_namer(trials), trials.order)
    oracle = oracle_of(responses, w, trials).repeat_interleave(torch.from_numpy(trials.repeats).to(e.device), dim=1)
    deviations = []
    for i, (start, t) in enumerate(zip(trials.starts.tolist(), trials.repeats.tolist(), strict=True)):
        later = start + t
        deviations.append(((e[start:later] @ e[later:].T).clamp_(-1, 1) - oracle[i, later:]).flatten())
    return same_kind(responses, torch.cat(deviations))
