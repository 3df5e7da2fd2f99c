"""SparseFool (Modas et al. 2019): to DeepFool's boundary, along the few pixels that bring most; l1."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import Norm, dual_length, over
from neuroprior.robustness.attacks.setting import setting_of
from neuroprior.robustness.attacks.trust_region import taxicab_projection


@dataclass(frozen=True, slots=True)
class SparseFool:
    """x <- argmin |x' - x|_1 s.t. g . (x' - x_b) = 0, x' in [0, 1]; x_b = x + lambda (x_d - x), g the gradient at x_d.

    x_d is where DeepFool (Moosavi-Dezfooli et al. 2016, along the margin's gradient, `inner` steps at most) has crossed
    the boundary, which is taken to be flat there, with normal g, and `lambda_` times as far away. Again from the new x,
    `rounds` times at most, until it is misclassified. A larger `lambda_` is sooner there, and farther away. What is
    found is brought back along the straight way to the image, as by every attack.
    """

    name: ClassVar[str] = "sparse_fool"
    norms: ClassVar[tuple[Norm, ...]] = ("l1",)
    lambda_: float = 1.0
    rounds: int = 20
    inner: int = 20
    overshoot: float = 0.02

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        return setting_of(self, "lambda_")

    @property
    def most_gradients(self) -> int:
        """What a sample costs at most."""
        return self.rounds * (self.inner + 1)

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        rows, x = attempt.rows, attempt.images.clone()
        if attempt.repetition:  # a little aside, where that is not over the boundary already
            noise = attempt.drawn(rows, "start", lambda random: random.uniform(-0.01, 0.01, x.shape[1:]))
            aside = (x + noise).clamp(0, 1)
            x = torch.where(over(attempt.look(aside, rows) > 0, x), x, aside)
        for _ in range(self.rounds):
            rows = rows[attempt.may_go_on(rows)]
            if not len(rows):
                return
            crossing, normal = self._crossing(attempt, x[rows], rows)
            here, g = x[rows].flatten(1), normal.flatten(1)
            needed = self.lambda_ * (g * (crossing - x[rows]).flatten(1)).sum(1)
            step = taxicab_projection(torch.zeros_like(here), g, needed, -here, 1 - here)
            x[rows] = (here + step).clamp(0, 1).reshape_as(crossing)
            rows = rows[~(attempt.look(x[rows], rows) > 0)]

    def _crossing(self, attempt: Attempt, x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """DeepFool's point of each row, and the margin's gradient where it stands: x + sum of -m g / |g|^2."""
        x, normal = x.clone(), torch.zeros_like(x)
        going = torch.arange(len(rows), device=x.device)
        for _ in range(self.inner + 1):
            going = going[attempt.may_go_on(rows[going])]
            if not len(going):
                break
            value, gradient = attempt.climb(x[going], rows[going])
            normal[going] = gradient
            going, value, gradient = going[value <= 0], value[value <= 0], gradient[value <= 0]
            far = (1e-6 - value) / dual_length(gradient, "l2").square().clamp_min(1e-30)
            x[going] = (x[going] + (1 + self.overshoot) * over(far, gradient) * gradient).clamp(0, 1)
        return x, normal
