"""Carlini & Wagner 2017: l2, by Adam on a box-free parametrisation and a search for the constant of each sample."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import Norm, dual_length, linear_length, over
from neuroprior.robustness.attacks.setting import setting_of


@dataclass(frozen=True, slots=True)
class CarliniWagner:
    """min_w |x(w) - x_0|_2^2 + c max(z_y - max_{j != y} z_j, 0), x(w) = (1 + sin w) / 2, by Adam from w(x_0).

    Published with tanh for sin, under which a black or white pixel lies so far out that it hardly moves again: on
    digits its perturbations were half as long again.

    c is searched for each sample: times 10 after a failure, geometric bisection after a success, `searches` times.
    It begins at 2 m / |grad m|_2^2 of the margin m at x_0, which is the optimum's where m is linear. Each search of a
    sample ends by itself once a tenth of its `steps` has brought less than 0.01 % (Foolbox ends them all together, so
    that a result depends on the batch). `pace`: Adam's step, relative to the root mean square that the linear model's
    perturbation has in w: the published 0.01 for all is more than a weak network's whole perturbation.
    """

    name: ClassVar[str] = "cw"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    searches: int = 6
    steps: int = 200
    pace: float = 0.1

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        return setting_of(self, "searches", "steps", "pace")

    @property
    def most_gradients(self) -> int:
        """What a sample costs at most."""
        return self.searches * self.steps + 1

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        everyone, clean = attempt.rows, attempt.images
        value, gradient = attempt.climb(clean, everyone)
        constant = -2 * value / dual_length(gradient, "l2").square().clamp_min(1e-12)
        constant = constant.clamp(1e-6, 1e10)
        pace = self.pace * (2 * linear_length(value, gradient, "l2") / clean[0].numel() ** 0.5).clamp(1e-6, 1)
        low, high = torch.zeros_like(constant), torch.full_like(constant, torch.inf)
        for _ in range(self.searches):
            reached = self._descend(attempt, constant, pace)
            high = torch.where(reached, torch.minimum(high, constant), high)
            low = torch.where(reached, low, torch.maximum(low, constant))
            between = torch.where(low > 0, (low * high).sqrt(), high / 2)
            constant = torch.where(high < torch.inf, between, 10 * constant).clamp_max(1e10)

    def _descend(self, attempt: Attempt, constant: torch.Tensor, pace: torch.Tensor) -> torch.Tensor:
        """Minimise for one constant a sample; return which samples were misclassified on the way."""
        rows, clean = attempt.rows, attempt.images
        origin = torch.asin((2 * clean - 1) * 0.9999)
        w = origin.clone()
        if attempt.repetition:
            w = w + attempt.random_offset(attempt.rows, pace * clean[0].numel() ** 0.5)
        first, second = torch.zeros_like(w), torch.zeros_like(w)
        reached = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        before = torch.full_like(constant, torch.inf)
        least = torch.full_like(constant, torch.inf)
        check = max(1, -(-self.steps // 10))
        for k in range(1, self.steps + 1):
            rows = rows[attempt.may_go_on(rows)]
            if not len(rows):
                break
            x = (1 + torch.sin(w[rows])) / 2
            value, gradient = attempt.climb(x, rows)
            reached[rows] |= value > 0
            delta = x - clean[rows]
            loss = delta.flatten(1).square().sum(1) + constant[rows] * (-value).clamp_min(0)
            least[rows] = torch.minimum(least[rows], loss)
            if k % check == 0:
                stuck = ~(least[rows] < 0.9999 * before[rows])
                before[rows] = least[rows]
                rows, x, delta = rows[~stuck], x[~stuck], delta[~stuck]
                value, gradient = value[~stuck], gradient[~stuck]
            pull = over(torch.where(value > 0, 0.0, constant[rows]), clean) * gradient
            slope = (2 * delta - pull) * torch.cos(w[rows]) / 2
            first[rows] = 0.9 * first[rows] + 0.1 * slope
            second[rows] = 0.999 * second[rows] + 0.001 * slope.square()
            step = first[rows] / (1 - 0.9**k) / ((second[rows] / (1 - 0.999**k)).sqrt() + 1e-8)
            w[rows] = w[rows] - over(pace[rows], clean) * step
        return reached
