"""Projected gradient ascent with a search for the smallest radius: `pgd` (linf and l2) and `adam_pgd` (linf)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import (
    Norm,
    into_ball,
    largest_length,
    length,
    linear_length,
    over,
    steepest,
)
from neuroprior.robustness.attacks.setting import setting_of


@dataclass(frozen=True, slots=True)
class PGD:
    """x <- P(x + step eps d), d = sign(g) (linf) or g / |g|_2 (l2), g the margin's gradient, P onto ball and [0, 1].

    eps is searched for each sample by itself: it begins where the margin's linear model says, is doubled or halved
    until one radius fails and a larger one succeeds, and then bisected (geometrically) until they are `tolerance`
    apart. A radius succeeds at its first misclassified iterate, whose own length becomes the upper end; it fails after
    `steps` steps. Each radius goes on from the iterate that the last one ended with, brought into the new ball. Where
    an adversarial is known, the first question is whether anything lies `tolerance` nearer.
    `step`: relative to eps. `adam`: d is Adam's (0.9, 0.999), begun anew at each radius.
    Madry et al. 2018; the search as Foolbox 2's, which the paper used.
    """

    name: ClassVar[str] = "pgd"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    step: float = 0.1
    steps: int = 30
    tolerance: float = 0.01
    adam: ClassVar[bool] = False

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        return setting_of(self, "step", "steps")

    @property
    def most_gradients(self) -> int:
        """What a sample costs at worst: 24 radii from the largest to the least, eight inside a bracket of two.

        Six or seven are usual.
        """
        inside = math.ceil(math.log2(math.log(2) / math.log1p(self.tolerance)))
        return (24 + max(1, inside)) * (self.steps + 1) + 1

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        rows, norm = attempt.rows, attempt.norm
        clean = attempt.images
        largest = largest_length(clean, norm)
        least = 1e-7 * largest
        low = torch.zeros(len(clean), device=clean.device)
        high = attempt.bound.clone()
        warm = high < torch.inf  # these ask for a little less, and for less and less while they succeed
        stride = torch.full_like(low, self.tolerance)
        value, gradient = attempt.climb(clean, rows)
        linear = linear_length(value, gradient, norm)
        radius = torch.where(warm, high * (1 - stride), 1.5 * linear).clamp(least, largest)
        x = self._start(attempt, rows, radius)
        taken = torch.zeros_like(rows)
        first, second = torch.zeros_like(clean), torch.zeros_like(clean)  # Adam's moments
        rows = rows[attempt.may_go_on(rows)]
        while len(rows):
            value, gradient = attempt.climb(x[rows], rows)
            far = length(x[rows] - clean[rows], norm)
            # Near the resolution of float32 an iterate may lie outside its ball: no nearer, so no success.
            reached = (value > 0) & (far < high[rows])
            failed = ~reached & ((taken[rows] >= self.steps) | (value > 0))
            high[rows] = torch.where(reached, far, high[rows])
            low[rows] = torch.where(failed, torch.maximum(low[rows], radius[rows]), low[rows])

            ended = reached | failed
            stride[rows] = torch.where(reached, (2 * stride[rows]).clamp_max(0.5), stride[rows])
            asked = self._next_radius(low[rows], high[rows], stride[rows], warm[rows]).clamp(least, largest)
            done = ended & (
                (high[rows] <= low[rows] * (1 + self.tolerance) / (1 - 1e-6))
                | (low[rows] >= largest)
                | (high[rows] <= least)
            )
            radius[rows] = torch.where(ended, asked, radius[rows])
            taken[rows] = torch.where(ended, 0, taken[rows] + 1)
            if self.adam:
                direction = self._adam(first, second, gradient, rows, ended, taken)
            else:
                direction = steepest(gradient, norm)
            moved = x[rows] + over(self.step * radius[rows] * ~ended, clean) * direction - clean[rows]
            x[rows] = (clean[rows] + into_ball(moved, radius[rows], norm)).clamp(0, 1)
            rows = rows[~done & attempt.may_go_on(rows)]

    def _start(self, attempt: Attempt, rows: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        clean = attempt.images[rows]
        if attempt.repetition == 0:
            return clean.clone()
        noise = attempt.drawn(rows, "start", lambda random: random.uniform(-1, 1, clean.shape[1:]))
        inside = over(radius, clean) * noise
        return (clean + into_ball(inside, radius, attempt.norm)).clamp(0, 1)

    def _next_radius(
        self, low: torch.Tensor, high: torch.Tensor, stride: torch.Tensor, warm: torch.Tensor
    ) -> torch.Tensor:
        between = torch.where(high < torch.inf, (low * high).sqrt(), 2 * low)
        below = torch.where(warm, high * (1 - stride), high / 2)
        return torch.where(low > 0, between, below)

    def _adam(
        self,
        first: torch.Tensor,
        second: torch.Tensor,
        gradient: torch.Tensor,
        rows: torch.Tensor,
        ended: torch.Tensor,
        taken: torch.Tensor,
    ) -> torch.Tensor:
        going = over((~ended).to(gradient.dtype), gradient)
        first[rows] = going * (0.9 * first[rows] + 0.1 * gradient)
        second[rows] = going * (0.999 * second[rows] + 0.001 * gradient.square())
        count = over(taken[rows].clamp_min(1).to(gradient.dtype), gradient)
        mean, square = first[rows] / (1 - 0.9**count), second[rows] / (1 - 0.999**count)
        # In units of the gradient's own size: without them a margin with small gradients would not move at all.
        return mean / (square.sqrt() + 1e-12)


@dataclass(frozen=True, slots=True)
class AdamPGD(PGD):
    """`PGD` whose direction is Adam's (Kingma & Ba 2015): linf only."""

    name: ClassVar[str] = "adam_pgd"
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    adam: ClassVar[bool] = True
