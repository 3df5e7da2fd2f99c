"""Whether what an attack found holds, and how long it is: checked by itself, in float64."""

import numpy as np
import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import length

_CHECK_BATCH = 3  # adversarials are checked in batches of so many, nothing filled up: other kernels, other roundings


def verified_lengths(attempt: Attempt) -> np.ndarray:
    """Check every point found by itself: the float64 length of the image's perturbation, inf where it does not hold.

    It must be finite, in [0, 1], and misclassified at another batch size. A point so near the boundary that rounding
    decides is moved out along its own direction, by 0.01, 0.1 and 1 %, until it holds; `attempt.found` follows.
    """
    exact = np.full(len(attempt.images), np.inf)
    rows = torch.nonzero(attempt.found_length < torch.inf).squeeze(1)
    for factor in (1.0, 1.0001, 1.001, 1.01):
        if not len(rows):
            break
        clean = attempt.images[rows]
        x = attempt.found[rows]
        if factor > 1:
            x = (clean + factor * (x - clean)).clamp(0, 1)
        # The same batches' own answer counts too: what holds only in batches of three is no better.
        wrong = torch.ones(len(rows), dtype=torch.bool, device=x.device)
        for batch_size in (_CHECK_BATCH, None):
            logits = attempt.victim.logits(x, batch_size=batch_size)
            wrong &= (logits.argmax(1) != attempt.labels[rows]) & logits.isfinite().all(1)
        inside = ((x >= 0) & (x <= 1) & x.isfinite()).flatten(1).all(1)
        held = wrong & inside
        attempt.found[rows[held]] = x[held]
        far = length(x.double() - clean.double(), attempt.norm)
        exact[rows[held].cpu().numpy()] = far[held].cpu().numpy()
        rows = rows[~held]
    return exact
