"""Where a boundary attack begins: a misclassified point for each sample, and a next best where one way fails."""

import numpy as np
import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import Norm, linear_length, over, steepest

_ASCENT_STEPS = 24
_DRAWS = 10


def starting_points(attempt: Attempt) -> tuple[torch.Tensor, torch.Tensor]:
    """A point on the wrong side of the boundary, near it, for each sample; and whether there is one.

    In this order, each for the samples that the ones before have failed: an adversarial already known; steps along the
    steepest ascent of the margin, growing until it is crossed; uniform noise drawn for that image; black, white
    and gray; the image's negative. Repetitions after the first take the first two last. What is found is then
    brought to the boundary by bisection.
    """
    clean = attempt.images
    found = clean.clone()
    lacking = torch.ones(len(clean), dtype=torch.bool, device=clean.device)
    if attempt.repetition == 0:
        _nearby(attempt, found, lacking)
    for k in range(_DRAWS):
        rows = torch.nonzero(lacking).squeeze(1)
        if not len(rows):
            break
        noise = attempt.drawn(rows, f"blend/{k}", lambda random: random.random(clean.shape[1:], dtype=np.float32))
        _try(attempt, noise, rows, found, lacking)
    for flat in (0.0, 1.0, 0.5, None):
        rows = torch.nonzero(lacking).squeeze(1)
        point = 1 - clean[rows] if flat is None else torch.full_like(clean[rows], flat)
        _try(attempt, point, rows, found, lacking)
    if attempt.repetition > 0:
        _nearby(attempt, found, lacking)
    ready = torch.nonzero(~lacking).squeeze(1)
    found[ready] = attempt.bisect(ready, found[ready], steps=7)  # to 1 % of the way: the attack itself does the rest
    return found, ~lacking


def _nearby(attempt: Attempt, found: torch.Tensor, lacking: torch.Tensor) -> None:
    known = lacking & (attempt.known_length < torch.inf)
    found[known] = attempt.known[known]
    lacking &= ~known
    _ascend(attempt, found, lacking)


def _ascend(attempt: Attempt, found: torch.Tensor, lacking: torch.Tensor) -> None:
    clean = attempt.images
    # Few pixels that go far are no way to a boundary near by: sparse attacks begin with all pixels, a little.
    norm: Norm = "linf" if attempt.norm == "linf" else "l2"
    rows = torch.nonzero(lacking).squeeze(1)
    x, stride = clean[rows], torch.zeros(len(rows), device=clean.device)
    for k in range(_ASCENT_STEPS):
        if not len(rows):
            return
        value, gradient = attempt.climb(x, rows)
        if k == 0:
            stride = 0.5 * linear_length(value, gradient, norm)
        wrong = value > 0
        found[rows[wrong]] = x[wrong]
        lacking[rows[wrong]] = False
        on = ~wrong & attempt.may_go_on(rows)
        rows, x, gradient, stride = rows[on], x[on], gradient[on], 1.2 * stride[on]
        x = (x + over(stride, x) * steepest(gradient, norm)).clamp(0, 1)


def _try(attempt: Attempt, point: torch.Tensor, rows: torch.Tensor, found: torch.Tensor, lacking: torch.Tensor) -> None:
    wrong = attempt.look(point, rows) > 0
    found[rows[wrong]] = point[wrong]
    lacking[rows[wrong]] = False
