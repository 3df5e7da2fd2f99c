"""A decision-based attack after HopSkipJump (Chen et al. 2020): asks only whether a point is wrong; l2 and linf."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import Norm, into_ball, length, over, steepest
from neuroprior.robustness.attacks.setting import setting_of
from neuroprior.types import InputError

_STARTS = 10
_NEAR = 1e-4  # how well the boundary's place is known, as a share of the way from the image
_FIRST = 1e-2  # the radius of the first probes, as a share of the way
_LEAST, _MOST = 3e-4, 0.1  # of the radius of later ones
_HALVINGS = 12
_GRAINS = (4, 2, 1)
_MEMORY = 0.5


@dataclass(frozen=True, slots=True)
class Boundary:
    """x <- B(x + xi s(v)), v = mean_b (phi(x + delta u_b) - mean phi) u_b, phi = 1 where wrong, -1 where right.

    u_b: directions drawn on the unit sphere, `probes` sqrt(t + 1) of them at step t; v estimates the gradient at the
    boundary, s(v) is v / |v| (l2) or sign v (linf). xi begins at |x - x_0| / sqrt(t + 1) and is halved until the point
    is wrong; B brings it back to the boundary (l2: on the straight way to x_0; linf: into the least ball around it).
    delta is a share of |x - x_0|, made less where nearly all probes agree. Two departures, which on 32x32 photographs
    save half of the queries: u_b is by turns smooth over 4, 2 and 1 pixels, and half of the last v is kept.

    It begins at the nearest adversarial known, else at noise, black, white, gray or the negative of the image. No value
    of the network but its decision is used, and no gradient, so masked gradients do not stop it. A sample ends when it
    has looked at `queries` points.
    """

    name: ClassVar[str] = "boundary"
    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")
    queries: int = 2000
    probes: int = 50

    def __post_init__(self) -> None:
        if self.queries < 1 or self.probes < 2:
            raise InputError(f"boundary: queries {self.queries}, probes {self.probes}; give 1 and 2 or more")

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        return setting_of(self, "queries")

    @property
    def most_gradients(self) -> int:
        """None."""
        return 0

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        clean = attempt.images
        x, rows = self._starts(attempt)
        x[rows] = self._onto_boundary(attempt, x[rows], rows)
        delta = torch.full((len(clean),), _FIRST, device=clean.device)
        normal = torch.zeros_like(clean)
        step = 0
        while len(rows := rows[self._left(attempt, rows) > 0]):
            far = length(x[rows] - clean[rows], attempt.norm)
            probes = int(self.probes * math.sqrt(step + 1))
            seen, share = self._normal(attempt, x[rows], rows, delta[rows], probes, step)
            normal[rows] = _MEMORY * normal[rows] + steepest(seen, "l2")
            moved = self._moved(attempt, x[rows], rows, normal[rows], far / math.sqrt(step + 1))
            x[rows] = self._onto_boundary(attempt, moved, rows)
            # Probes that all but agree say little: nearer ones see both sides.
            one_sided = (share - 0.5).abs() > 0.4
            delta[rows] = (delta[rows] * torch.where(one_sided, 0.7, 1.1)).clamp(_LEAST, _MOST)
            step += 1

    def _left(self, attempt: Attempt, rows: torch.Tensor) -> torch.Tensor:
        return self.queries - attempt.forwards[rows]

    def _starts(self, attempt: Attempt) -> tuple[torch.Tensor, torch.Tensor]:
        """A wrong point for each sample, however far, and the samples that have one."""
        clean = attempt.images
        known = attempt.known_length < torch.inf
        found = torch.where(over(known, clean), attempt.known, clean)
        lacking = ~known
        for k in range(_STARTS + 4):
            rows = torch.nonzero(lacking).squeeze(1)
            rows = rows[self._left(attempt, rows) > 0]
            if not len(rows):
                break
            if k < _STARTS:
                point = attempt.drawn(rows, f"start/{k}", lambda random: random.random(clean.shape[1:]))
            elif k < _STARTS + 3:
                point = torch.full_like(clean[rows], (0.0, 1.0, 0.5)[k - _STARTS])
            else:
                point = 1 - clean[rows]
            wrong = attempt.look(point, rows) > 0
            found[rows[wrong]] = point[wrong]
            lacking[rows[wrong]] = False
        return found, torch.nonzero(~lacking).squeeze(1)

    def _onto_boundary(self, attempt: Attempt, ends: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The nearest wrong point seen between each image and a wrong one."""
        clean, norm = attempt.images[rows], attempt.norm
        whole = length(ends - clean, norm)
        low, high = torch.zeros_like(whole), torch.ones_like(whole)

        def at(part: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
            if norm == "linf":
                return (clean[of] + into_ball(ends[of] - clean[of], part * whole[of], norm)).clamp(0, 1)
            return clean[of] + over(part, clean[of]) * (ends[of] - clean[of])

        going = torch.arange(len(rows), device=rows.device)
        for k in range(32):
            going = going[(high[going] - low[going] > _NEAR * high[going]) & (self._left(attempt, rows[going]) > 0)]
            if not len(going):
                break
            # Mostly the boundary is near the end: first ever longer steps back from it, then halves.
            back = high[going] * (1 - 0.01 * 4.0**k)
            middle = torch.where((low[going] == 0) & (back > 0), back, (low[going] + high[going]) / 2)
            wrong = attempt.look(at(middle, going), rows[going]) > 0
            high[going], low[going] = torch.where(wrong, middle, high[going]), torch.where(wrong, low[going], middle)
        return at(high, torch.arange(len(rows), device=rows.device))

    def _normal(
        self,
        attempt: Attempt,
        x: torch.Tensor,
        rows: torch.Tensor,
        delta: torch.Tensor,
        probes: int,
        step: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which way the wrong side lies, and the share of probes that were wrong."""
        shape = attempt.images.shape[1:]
        reach = delta * length(x - attempt.images[rows], "l2")
        coarse = _GRAINS[step % len(_GRAINS)]
        coarse = coarse if min(shape[1:]) >= 8 * coarse else 1
        grid = (probes * shape[0], *(-(-side // coarse) for side in shape[1:]))
        all_of = attempt.drawn(rows, f"probes/{step}", lambda random: random.standard_normal(grid, dtype=np.float32))
        if coarse > 1:
            all_of = F.interpolate(all_of, shape[1:], mode="bilinear")
        all_of = all_of.reshape(len(rows), probes, *shape)
        wrong_sum, total, wrongs = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(delta)
        asked = torch.zeros_like(delta)
        for k in range(probes):
            going = torch.nonzero(self._left(attempt, rows) > 0).squeeze(1)
            if not len(going):
                break
            drawn = all_of[going, k]
            point = (x[going] + over(reach[going] / length(drawn, "l2"), drawn) * drawn).clamp(0, 1)
            u = (point - x[going]) / over(reach[going].clamp_min(1e-30), point)  # as it is once cut to [0, 1]
            wrong = (attempt.look(point, rows[going]) > 0).to(x)
            wrong_sum[going] += over(wrong, u) * u
            total[going] += u
            wrongs[going] += wrong
            asked[going] += 1
        share = wrongs / asked.clamp_min(1)
        mixed = (share > 0) & (share < 1)
        alike = over(torch.where(share > 0.5, 1.0, -1.0), x) * total
        return torch.where(over(mixed, x), wrong_sum - over(share, x) * total, alike), share

    def _moved(
        self, attempt: Attempt, x: torch.Tensor, rows: torch.Tensor, normal: torch.Tensor, stride: torch.Tensor
    ) -> torch.Tensor:
        """The longest of ever halved steps along the normal that ends on the wrong side; else x itself."""
        found = x.clone()
        direction = steepest(normal, attempt.norm)
        going = torch.arange(len(rows), device=rows.device)
        for k in range(_HALVINGS):
            going = going[self._left(attempt, rows[going]) > 0]
            if not len(going):
                break
            point = (x[going] + over(stride[going] / 2**k, x) * direction[going]).clamp(0, 1)
            wrong = attempt.look(point, rows[going]) > 0
            found[going[wrong]] = point[wrong]
            going = going[~wrong]
        return found
