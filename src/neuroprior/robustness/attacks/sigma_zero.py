"""sigma-zero (Cina et al. 2025): a smooth count of changed pixels; l0."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import Norm, over
from neuroprior.robustness.attacks.setting import setting_of


@dataclass(frozen=True, slots=True)
class SigmaZero:
    """delta <- D(P(delta - eta_k g / |g|_inf)), g the gradient of max(-m(x + delta), 0) / |m(x)| + l0(delta) / n.

    m is the margin (positive where wrong), l0(delta) = sum_i delta_i^2 / (delta_i^2 + sigma), n the number of pixels; P
    brings x + delta into [0, 1], D sets to 0 what is smaller than tau, which rises by `rise` eta_k at a wrong point and
    falls by as much at a right one. eta_k falls from `eta` along a cosine. One departure from what is published: the
    margin is counted in units of the clean image's, so that a network's scale of logits does not matter.
    """

    name: ClassVar[str] = "sigma_zero"
    norms: ClassVar[tuple[Norm, ...]] = ("l0",)
    steps: int = 200
    eta: float = 1.0
    sigma: float = 1e-3
    tau: float = 0.3
    rise: float = 0.01

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        return setting_of(self, "steps", "eta")

    @property
    def most_gradients(self) -> int:
        """What a sample costs at most."""
        return self.steps + 1

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        rows, clean = attempt.rows, attempt.images
        pixels = clean[0].numel()
        delta = torch.zeros_like(clean)
        if attempt.repetition:
            delta = attempt.random_offset(rows, torch.full((len(clean),), 0.01 * pixels**0.5, device=clean.device))
        tau = torch.full((len(clean),), self.tau, device=clean.device)
        unit = torch.ones_like(tau)
        for k in range(self.steps + 1):
            rows = rows[attempt.may_go_on(rows)]
            if not len(rows):
                return
            x = (clean[rows] + delta[rows]).clamp(0, 1)
            value, gradient = attempt.climb(x, rows)
            if k == 0:
                unit[rows] = value.abs().clamp_min(1e-12)
            eta = self.eta * (1 + math.cos(math.pi * k / self.steps)) / 2
            here = x - clean[rows]
            square = here.square()
            crowd = 2 * self.sigma * here / (square + self.sigma).square() / pixels
            pull = over((value <= 0) / unit[rows], x) * gradient
            slope = crowd - pull
            size = slope.flatten(1).abs().amax(1).clamp_min(1e-30)
            moved = (clean[rows] + here - over(eta / size, x) * slope).clamp(0, 1) - clean[rows]
            tau[rows] += torch.where(value > 0, self.rise * eta, -self.rise * eta)
            tau[rows] = tau[rows].clamp(0, 1)
            delta[rows] = moved * (moved.abs() > over(tau[rows], moved))
