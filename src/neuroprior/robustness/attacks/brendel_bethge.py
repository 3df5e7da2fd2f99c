"""Brendel & Bethge 2019: along the decision boundary to its point nearest to the image; every norm."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import Norm, length
from neuroprior.robustness.attacks.setting import setting_of
from neuroprior.robustness.attacks.starts import starting_points
from neuroprior.robustness.attacks.trust_region import nearest_on_boundary, projection

_HOME = 1e-6  # of the pixel range
_USUAL = 1e-3
_DEPTH = 0.005  # of what the linear model says the way home costs


@dataclass(frozen=True, slots=True)
class BrendelBethge:
    """x <- x + delta, delta the step of `trust_region` with the margin's averaged gradient as the boundary's normal.

    r = `lr` times the number of pixels (at least a tenth of the start's distance; for l0 and l1, where few pixels go
    far, at least `lr` / 0.001 times the way that the first gradient asks for), halved after every twentieth of `steps`
    (Foolbox 3 multiplies by the size of the batch as well, so that its result depends on it). The step aims 10 % beyond
    the boundary where x is still classified rightly, and stays 10 % short of it where it is not. A sample's way begins
    at the nearest adversarial known, else at a starting point of its own; without one that sample alone is
    left out. It ends before `steps` where `patience` steps bring less than 0.1 %.
    """

    name: ClassVar[str] = "brendel_bethge"
    norms: ClassVar[tuple[Norm, ...]] = ("l0", "l1", "l2", "linf")
    lr: float = 1e-3
    steps: int = 100
    momentum: float = 0.8
    overshoot: float = 1.1
    patience: int = 20

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        return setting_of(self, "lr", "steps")

    @property
    def most_gradients(self) -> int:
        """What a sample costs at most, its starting point (some 25) included."""
        return self.steps + 25

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        clean, norm = attempt.images, attempt.norm
        x, ready = starting_points(attempt)
        rows = attempt.rows[ready]
        normal = torch.zeros_like(clean)
        # From far away (noise, in later repetitions) steps of a small rate would not come home.
        r = (0.1 * length(x - clean, "l2")).clamp_min(self.lr * clean[0].numel())
        interval = max(1, self.steps // 20)
        sparse = norm in ("l0", "l1")
        last = torch.full_like(r, torch.inf)  # the length when it was last better by 0.1 %, and how long ago
        waited = torch.zeros_like(attempt.rows)
        for k in range(1, self.steps + 1):
            rows = rows[attempt.may_go_on(rows) & (waited[rows] < self.patience)]
            if not len(rows):
                return
            value, gradient = attempt.climb(x[rows], rows)
            keep = self.momentum if k > 1 else 0.0
            normal[rows] = keep * normal[rows] + (1 - keep) * gradient
            better = attempt.found_length[rows] < 0.999 * last[rows]
            last[rows] = torch.where(better, attempt.found_length[rows], last[rows])
            waited[rows] = torch.where(better, 0, waited[rows] + 1)
            if (k + 1) % interval == 0:
                r[rows] *= 0.5
            beyond = torch.where(value > 0, 2 - self.overshoot, self.overshoot)
            here, origin = x[rows].flatten(1), clean[rows].flatten(1)
            way, b, wanted = origin - here, normal[rows].flatten(1), -beyond * value
            if norm == "l0":  # where a pixel more or less decides, a point just short of the boundary is no use
                wanted = wanted + _DEPTH * (b * way).sum(1).abs()
            plane = way, b, wanted, -here, 1 - here
            if k == 1 and sparse:
                r[rows] = torch.maximum(r[rows], self.lr / _USUAL * projection(*plane, norm).norm(dim=1))
            moved = (here + nearest_on_boundary(*plane, r[rows], norm)).clamp(0, 1)
            if sparse:  # what came home is home, not a rounding away
                moved = torch.where((moved - origin).abs() < _HOME, origin, moved)
            x[rows] = moved.reshape_as(x[rows])
        attempt.look(x[rows], rows)
