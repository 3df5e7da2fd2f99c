"""Fast minimum-norm attack (Pintor et al. 2021): every norm."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import Norm, dual_length, into_ball, largest_length, length, over
from neuroprior.robustness.attacks.setting import setting_of
from neuroprior.robustness.attacks.trust_region import linear_optimum


@dataclass(frozen=True, slots=True)
class FMN:
    """delta <- P(delta + a_k g / |g|_2), P onto |delta|_p <= eps and [0, 1], g the margin's gradient.

    Before anything is found eps is |delta|_p + (where the margin's linear model crosses zero); then it falls by the
    share gamma_k at a wrong x + delta (below the least length found), and grows by it at a right one. In l0 it changes
    by one pixel at least. a_k and gamma_k fall along cosines, to a hundredth of a_0 and to 0. a_0 is `alpha` times the
    l2 length of the linear model's own optimum in that norm (published: 1 pixel range, for networks that withstand
    that), or of the nearest adversarial known.
    """

    name: ClassVar[str] = "fmn"
    norms: ClassVar[tuple[Norm, ...]] = ("l0", "l1", "l2", "linf")
    steps: int = 100
    alpha: float = 1.0
    gamma: float = 0.05

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        return setting_of(self, "steps", "alpha")

    @property
    def most_gradients(self) -> int:
        """What a sample costs at most."""
        return self.steps + 1

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        rows, clean, norm = attempt.rows, attempt.images, attempt.norm
        value, gradient = attempt.climb(clean, rows)
        first = linear_optimum(clean, value, gradient, norm)
        is_known = attempt.known_length < torch.inf
        first = torch.where(over(is_known, clean), attempt.known - clean, first)
        scale = length(first, "l2").clamp_min(1e-6)
        largest = largest_length(clean, norm)
        least = 1.0 if norm == "l0" else 1e-7 * largest
        eps = torch.where(is_known, attempt.known_length, 1.5 * length(first, norm)).clamp(least, largest)
        delta = torch.zeros_like(clean)
        if attempt.repetition:
            delta = into_ball(attempt.random_offset(rows, 0.1 * scale), eps, norm)
            delta = (clean + delta).clamp(0, 1) - clean
        for k in range(self.steps):
            rows = rows[attempt.may_go_on(rows)]
            if not len(rows):
                return
            x = (clean[rows] + delta[rows]).clamp(0, 1)
            value, gradient = attempt.climb(x, rows)
            fade = (1 + math.cos(math.pi * k / self.steps)) / 2
            eps[rows] = self._next(eps[rows], value, gradient, attempt.bound[rows], x - clean[rows], fade, norm)
            eps[rows] = eps[rows].clamp(least, largest)
            pace = self.alpha * (0.01 + 0.99 * fade) * scale[rows]
            moved = delta[rows] + over(pace / dual_length(gradient, "l2").clamp_min(1e-30), x) * gradient
            # First into the box, so that what is cut off there does not take a sparse ball's places.
            moved = (clean[rows] + moved).clamp(0, 1) - clean[rows]
            delta[rows] = into_ball(moved, eps[rows], norm)
        rows = rows[attempt.may_go_on(rows)]
        attempt.look((clean[rows] + delta[rows]).clamp(0, 1), rows)

    def _next(
        self,
        eps: torch.Tensor,
        value: torch.Tensor,
        gradient: torch.Tensor,
        bound: torch.Tensor,
        delta: torch.Tensor,
        fade: float,
        norm: Norm,
    ) -> torch.Tensor:
        share = self.gamma * fade
        if norm == "l0":
            tighter = torch.minimum(bound, eps).floor()
            tighter = torch.minimum(tighter - 1, (tighter * (1 - share)).floor())
            wider = torch.maximum(eps + 1, (eps * (1 + share)).floor())
            ahead = wider
        else:
            tighter, wider = torch.minimum(bound, eps) * (1 - share), eps * (1 + share)
            ahead = length(delta, norm) - value / dual_length(gradient, norm).clamp_min(1e-30)
        looser = torch.where(bound < torch.inf, wider, torch.maximum(wider, ahead))
        return torch.where(value > 0, tighter, looser)
