"""Decoupled direction and norm (Rony et al. 2019): l2."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import Norm, length, linear_length, over, steepest
from neuroprior.robustness.attacks.setting import setting_of


@dataclass(frozen=True, slots=True)
class DDN:
    """delta <- delta + a_k g / |g|_2, then delta <- eps delta / |delta|_2; eps falls by `gamma` at a wrong x + delta.

    a_k falls along a cosine from 1 to 0.01. Two departures from what is published: g is the gradient of the margin, not
    of the cross-entropy, which where logits are small points between classes (18 % too far on a linear network of ten);
    and lengths are in units of a sample's own scale, where its margin's linear model crosses zero (or where an
    adversarial is known), not of 1 pixel range for all, which is far too long where images are lost at a tenth of it.
    """

    name: ClassVar[str] = "ddn"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    steps: int = 100
    gamma: float = 0.05

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        return setting_of(self, "steps", "gamma")

    @property
    def most_gradients(self) -> int:
        """What a sample costs at most."""
        return self.steps + 1

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        rows, clean = attempt.rows, attempt.images
        value, gradient = attempt.climb(clean, rows)
        worst = length(torch.maximum(clean, 1 - clean), "l2")
        linear = 1.5 * linear_length(value, gradient, "l2")
        scale = torch.minimum(torch.where(attempt.bound < torch.inf, attempt.bound, linear), worst)
        scale = scale.clamp_min(1e-6)
        radius = scale.clone()
        delta = attempt.random_offset(rows, 0.1 * scale) if attempt.repetition else torch.zeros_like(clean)
        for k in range(self.steps):
            rows = rows[attempt.may_go_on(rows)]
            if not len(rows):
                return
            value, gradient = attempt.climb(clean[rows] + delta[rows], rows)
            pace = 0.01 + 0.99 * (1 + math.cos(math.pi * k / self.steps)) / 2
            moved = delta[rows] + over(pace * scale[rows], clean) * steepest(gradient, "l2")
            radius[rows] *= torch.where(value > 0, 1 - self.gamma, 1 + self.gamma)
            radius[rows] = torch.minimum(radius[rows], worst[rows])
            moved = moved * over(radius[rows] / length(moved, "l2").clamp_min(1e-30), clean)
            delta[rows] = (clean[rows] + moved).clamp(0, 1) - clean[rows]
